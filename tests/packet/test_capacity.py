# SPDX-License-Identifier: GPL-2.0-only
"""How many connections fit, and what happens when no more do."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.packet import children
from tests.packet.director import DROPPED, SENT, Director, real_server
from tests.packet.packets import ACK, SYN
from xlvs.datapath.load import DEFAULT_CONNECTIONS, Capacity
from xlvs.kernel import abi
from xlvs.model import ServiceKey

TINY = Capacity(connections=64, services=8, destinations=64)
"""512 slots: the smallest table."""


def _segment(director: Director, key: ServiceKey, number: int, flags: int) -> bytes:
    client = bytes([10, 1 + number // 16_000_000, number // 60_000, 7])
    return director.segment(key, 1024 + number % 60_000, flags, client=client)


def test_the_default_table_takes_what_it_states(make_director: Callable[[Capacity], Director]) -> None:
    assert DEFAULT_CONNECTIONS >= 262_144
    director = make_director(Capacity())
    key = director.service(1, 1)

    def insert(numbers: range) -> Callable[[], None]:
        def run() -> None:
            for number in numbers:
                assert director.tc(_segment(director, key, number, SYN))[0] == SENT

        return run

    half = DEFAULT_CONNECTIONS // 2
    children.run_together(
        insert(range(half)),
        insert(range(half, DEFAULT_CONNECTIONS)),
        cpus=sorted(os.sched_getaffinity(0)),
    )
    assert director.events()["table_full"] == 0
    for number in (1, 2):
        assert director.entry(key, real_server(number)).active == half
    assert sum(1 for _ in director.table.connections()) == DEFAULT_CONNECTIONS
    # By chance 2,256 of them stand outside of their home buckets (standard deviation 45);
    # neighbouring ports must not make it more.
    assert director.spilled() < 2600


def test_a_full_table(make_director: Callable[[Capacity], Director]) -> None:
    director = make_director(TINY)
    slots = director.maps.limits.buckets * abi.SLOTS_PER_BUCKET
    key = director.service(1)
    kept: list[int] = []
    refused: list[int] = []
    for number in range(2 * slots):
        frame = _segment(director, key, number, SYN)
        verdict, after = director.tc(frame)
        (kept if verdict == SENT else refused).append(number)
        assert verdict == SENT or (verdict, after) == (DROPPED, frame)
    assert refused
    assert director.events()["table_full"] == len(refused)
    assert len(kept) >= TINY.connections

    # Those that are in go on, wherever they stand; the others are strangers.
    live = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
    spilled = [slot for slot in live if slot.control >> abi.CONTROL_FLAGS_SHIFT & abi.CONNECTION_SPILLED]
    assert len(live) == len(kept)
    assert spilled
    assert director.spilled() == len(spilled)
    for number in kept:
        assert director.tc(_segment(director, key, number, ACK))[0] == SENT
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive) == (len(kept), 0)
    assert entry.stats.connections == len(kept)
    assert director.listing(key).stats.in_packets == 2 * len(kept)

    # When they are forgotten, nothing of them is left, and their places are free again.
    director.expire_all()
    assert director.spilled() == 0
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive) == (0, 0)
    director.wait_until(lambda: not any(director.slots(abi.PHASE_DEAD)), 5, "places are not free again")
    again = [n for n in range(2 * slots) if director.tc(_segment(director, key, n, SYN))[0] == SENT]
    assert len(again) >= TINY.connections
    assert director.entry(key, real_server(1)).active == len(again)
    director.expire_all()
    assert director.spilled() == 0
