# SPDX-License-Identifier: GPL-2.0-only
"""lblc and lblcr: what they remember of an address, and when they forget it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.packet import children
from tests.packet.director import SENT, Director, real_server
from tests.packet.packets import FIN, SYN
from xlvs.datapath.records import seconds_to_ticks, ticks_now
from xlvs.model import Destination, Service, ServiceKey

CHECK_SECONDS = 60


def _cached(director: Director, key: ServiceKey) -> dict[int, int]:
    """How often each real server of a service is remembered, by the last byte of its address."""
    index = director.table._find(key)
    return {
        bytes(record.address)[3] - 10: record.cached
        for record in map(director.maps.destination, range(director.maps.settings.destinations_top))
        if record.service == index
    }


def _picks(director: Director, key: ServiceKey, count: int) -> list[int]:
    """Open connections one after the other: who got them."""
    chosen = []
    for _ in range(count):
        before = director.listing(key).destinations
        director.open(key)
        (server,) = (
            now.destination.address[3] - 10
            for old, now in zip(before, director.listing(key).destinations, strict=True)
            if now.stats.connections > old.stats.connections
        )
        chosen.append(server)
    return chosen


def _open_many(director: Director, key: ServiceKey, ports: range) -> Callable[[], None]:
    def run() -> None:
        for port in ports:
            assert director.tc(director.segment(key, port, SYN))[0] == SENT

    return run


def test_two_cpus_at_one_set(director: Director) -> None:
    """No member twice, none lost: what is counted as remembered is forgotten to the last."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    assert len(cpus) == 2, "this test needs two CPUs"
    for scheduler in ("lblc", "lblcr"):
        for _ in range(10):
            key = director.service(*[2] * 8, scheduler=scheduler)
            children.run_together(
                _open_many(director, key, range(20000, 20040)),
                _open_many(director, key, range(21000, 21040)),
                cpus=cpus,
            )
            assert sum(one.active for one in director.listing(key).destinations) == 80
            cached = _cached(director, key)
            assert set(cached.values()) <= {0, 1}
            # A member that both would add at once may be left out.
            assert sum(cached.values()) == 1 if scheduler == "lblc" else sum(cached.values()) >= 2
            director.table.edit_service(Service(key, "rr"))
            _let_sweep(director)
            assert not any(_cached(director, key).values())


def _let_sweep(director: Director) -> None:
    """Let the minute be over at the end of which old entries are forgotten, and wait for that."""
    settings = director.maps.settings
    settings.localities_checked = overdue = ticks_now() - seconds_to_ticks(CHECK_SECONDS + 1) & 0xFFFFFFFF
    director.wait_until(lambda: settings.localities_checked != overdue, 5, "nothing is looked through")


@contextmanager
def _expiration(director: Director, lblc: int, lblcr: int) -> Iterator[None]:
    """Other ticks until entries are forgotten, or a set loses a member."""
    settings = director.maps.settings
    usual = settings.lblc_expiration, settings.lblcr_expiration
    assert usual == (seconds_to_ticks(86400),) * 2
    settings.lblc_expiration, settings.lblcr_expiration = lblc, lblcr
    try:
        yield
    finally:
        settings.lblc_expiration, settings.lblcr_expiration = usual


def test_lblc_keeps_to_one_until_that_is_crowded(director: Director) -> None:
    key = director.service(3, 8, scheduler="lblc")
    # The newest first; then it has more connections than weight, and the other less than half.
    assert _picks(director, key, 9) == [2] * 9
    assert _cached(director, key) == {1: 0, 2: 1}
    assert _picks(director, key, 4) == [1] * 4
    assert _cached(director, key) == {1: 1, 2: 0}
    # Crowded as well now, but nobody has less than half.
    assert _picks(director, key, 3) == [1] * 3


def test_a_set_grows_and_loses_its_most_loaded(director: Director) -> None:
    key = director.service(1, 1, 1, scheduler="lblcr")
    assert _picks(director, key, 3) == [3, 3, 2]
    assert _cached(director, key) == {1: 0, 2: 1, 3: 1}
    assert _picks(director, key, 1) == [2]
    assert _picks(director, key, 1) == [1]
    assert _cached(director, key) == {1: 1, 2: 1, 3: 1}
    with _expiration(director, 0x7FFFFFFF, 0):
        director.wait_until(lambda: not _forgets(director, key), 5, "the set's change is not long ago")
        assert sum(_cached(director, key).values()) == 2
        director.wait_until(lambda: not _forgets(director, key), 5, "the set's change is not long ago")
        assert sum(_cached(director, key).values()) == 1
        # The last one stays.
        _picks(director, key, 1)
        assert sum(_cached(director, key).values()) >= 1


def _forgets(director: Director, key: ServiceKey) -> bool:
    """Whether the set is as large as before, after a connection that leaves the loads alone."""
    before = sum(_cached(director, key).values())
    director.open(key, FIN)
    return sum(_cached(director, key).values()) == before


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr"])
def test_what_nobody_asks_for_is_forgotten(director: Director, scheduler: str) -> None:
    key = director.service(9, 9, scheduler=scheduler)
    assert _picks(director, key, 2) == [2, 2]
    _let_sweep(director)
    assert _picks(director, key, 1) == [2]
    with _expiration(director, 0, 0):
        _let_sweep(director)
    assert _cached(director, key) == {1: 0, 2: 0}
    assert _picks(director, key, 1) == [1]
    assert _cached(director, key) == {1: 1, 2: 0}


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr"])
def test_a_scheduler_that_is_bound_anew_begins_anew(director: Director, scheduler: str) -> None:
    key = director.service(9, 9, scheduler=scheduler)
    assert _picks(director, key, 2) == [2, 2]
    director.table.edit_service(Service(key, scheduler, scheduler_flags=1))
    assert _picks(director, key, 1) == [2]
    director.table.edit_service(Service(key, "rr"))
    director.table.edit_service(Service(key, scheduler))
    assert _picks(director, key, 1) == [1]
    assert _cached(director, key) == {1: 1, 2: 1}
    _let_sweep(director)
    assert _cached(director, key) == {1: 1, 2: 0}
    # So does a service that is deleted and comes back, in the same record.
    assert _picks(director, key, 5) == [1] * 5
    index = director.table._find(key)
    director.table.delete_service(key)
    director.another_command()
    director.table.add_service(Service(key, scheduler))
    assert director.table._find(key) == index
    for number in (1, 2):
        director.table.add_destination(key, Destination(real_server(number), key.port, weight=9))
    assert _picks(director, key, 1) == [2]
    _let_sweep(director)
    assert _cached(director, key) == {1: 0, 2: 1}


def test_a_remembered_server_comes_back_as_itself(director: Director) -> None:
    """The kernel's cache holds on to a removed server, so that its trash does not forget it."""
    key = director.service(9, 9, scheduler="lblc")
    assert _picks(director, key, 1) == [2]
    director.table.delete_destination(key, real_server(2), key.port)
    director.expire_all()
    top = range(director.maps.settings.destinations_top)
    (record,) = (one for one in map(director.maps.destination, top) if one.cached and not one.flags & 2)
    record.removed = ticks_now() - seconds_to_ticks(1000) & 0xFFFFFFFF
    director.another_command()
    director.table.add_destination(key, Destination(real_server(2), key.port, weight=9))
    director.table.add_destination(key, Destination(real_server(3), key.port, weight=9))
    assert director.entry(key, real_server(2)).stats.connections == 1
    assert _picks(director, key, 2) == [2, 2]
