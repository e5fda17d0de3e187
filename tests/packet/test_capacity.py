# SPDX-License-Identifier: GPL-2.0-only
"""How many connections fit, and what happens when no more do."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.packet import children
from tests.packet.director import SENT, Director, real_server
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
    """Those that are in go on as they were; the others go by hash, each to one real server."""
    director = make_director(TINY)
    slots = director.maps.limits.buckets * abi.SLOTS_PER_BUCKET
    key = director.service(1, 1)
    servers = [real_server(1), real_server(2)]

    def server_of(number: int, flags: int) -> int:
        before = director.entry(key, servers[0]).stats.in_packets
        assert director.tc(_segment(director, key, number, flags))[0] == SENT
        return director.entry(key, servers[0]).stats.in_packets - before

    first = [server_of(number, SYN) for number in range(2 * slots)]
    live = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
    assert TINY.connections <= len(live) < 2 * slots
    events = director.events()
    assert events["table_full"] == 0
    assert events["stateless"] == 2 * slots - len(live)
    assert 0.4 < sum(first) / len(first) < 0.6
    assert director.listing(key).stats.connections == 2 * slots

    spilled = [slot for slot in live if slot.control >> abi.CONTROL_FLAGS_SHIFT & abi.CONNECTION_SPILLED]
    assert spilled
    assert director.spilled() == len(spilled)
    assert first == [server_of(number, ACK) for number in range(2 * slots)]
    entries = [director.entry(key, server) for server in servers]
    live = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
    assert sum(entry.active + entry.inactive for entry in entries) == len(live)
    assert director.listing(key).stats.connections == 2 * slots
    assert director.listing(key).stats.in_packets == 4 * slots

    # When they are forgotten, nothing of them is left, and their places are free again.
    director.expire_all()
    assert director.spilled() == 0
    for server in servers:
        entry = director.entry(key, server)
        assert (entry.active, entry.inactive) == (0, 0)
    director.wait_until(lambda: not any(director.slots(abi.PHASE_DEAD)), 5, "places are not free again")
    director.maps.settings.full_at = 0  # as long after
    for number in range(TINY.connections):
        assert director.tc(_segment(director, key, number, SYN))[0] == SENT
    assert sum(1 for _ in director.slots(abi.PHASE_LIVE)) == TINY.connections
    director.expire_all()
    assert director.spilled() == 0
