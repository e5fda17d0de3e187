# SPDX-License-Identifier: GPL-2.0-only
"""What a packet costs while the connection table fills, from empty to all that it promises.

A director for each degree, all of one capacity, so that they can take turns.  The
flows that are looked up are as many in each, and were entered before the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench import walk
from bench.arrivals import Arrivals, check_none_dropped
from bench.rounds import Figure, interleaved
from bench.traffic import Kind, establish, measurement, new_floored_director, traffic_of
from bench.walk import TC, XDP
from tests.packet.packets import ACK, SYN
from xlvs.kernel.namespaces import network_namespace

CAPACITY = 1 << 18
"""Connections that certainly fit; the table has room for twice as many."""
_AT_MOST = 1 << 20
"""Flows that have a number."""
DEGREES = (0, 25, 50, 75, 100)
LOOKED_UP = 4096
NEW = 1024
"""New flows of a round."""

ESTABLISHED, ARRIVING = "established, XDP", "new, rr, TC"


def name_of(kind: str, degree: int) -> str:
    """The name of a row."""
    return f"{kind}, table {degree} % full"


def measured(rounds: int, capacity: int = CAPACITY) -> dict[str, Figure]:
    """Nanoseconds for a packet of each row; ends the benchmark where a flow found no room."""
    by_row: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:
        checks = []
        for degree in DEGREES:
            own, check = stack.enter_context(_filled(degree, rounds, capacity))
            by_row |= own
            checks.append(check)
        in_order = {name_of(kind, degree): 0 for kind in (ESTABLISHED, ARRIVING) for degree in DEGREES}
        figures = interleaved({name: by_row[name] for name in in_order}, rounds)
        for check in checks:
            check()
    return figures


@contextmanager
def _filled(
    degree: int, rounds: int, capacity: int
) -> Iterator[tuple[dict[str, Callable[[], float]], Callable[[], None]]]:
    """A director whose table is so full after all rounds, its measurements, and a check for the end."""
    arriving = NEW * (rounds + 1)
    with new_floored_director(capacity, 16) as (director, programs):
        traffic = establish(director, programs, Kind("DR"), LOOKED_UP)
        key = director.service(1)
        more = max(0, capacity * degree // 100 - LOOKED_UP - arriving)
        for flags in (SYN, ACK):  # half-open ones would expire within a minute
            opening = traffic_of(director, Kind("DR"), key, flags)
            programs.run(TC, opening, _AT_MOST, max(more, 1), order=walk.IN_TURN)
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:

            def inside(act: Callable[[], float]) -> Callable[[], float]:
                def within() -> float:
                    with network_namespace(f"/proc/self/fd/{here}"):
                        return act()

                return within

            yield (
                {
                    name_of(ESTABLISHED, degree): inside(
                        measurement(programs, director, XDP, traffic, LOOKED_UP)
                    ),
                    name_of(ARRIVING, degree): inside(
                        Arrivals(director, programs, NEW).through("new", key, first=max(more, 1))
                    ),
                },
                lambda: check_none_dropped(director),
            )
        finally:
            os.close(here)
