# SPDX-License-Identifier: GPL-2.0-only
"""Which places are free follows from the records alone."""

from __future__ import annotations

import ctypes
from typing import cast

import pytest

from xlvs.datapath import places, runs
from xlvs.datapath.maps import Maps
from xlvs.datapath.places import ROUND_MILLISECONDS, Places
from xlvs.datapath.records import (
    milliseconds_to_ticks,
    packed_key,
    seconds_to_ticks,
    store_address,
    swap_port,
)
from xlvs.errors import TableFull
from xlvs.kernel import abi
from xlvs.model import TCP, ServiceKey

OWNER = ServiceKey(2, TCP, bytes([10, 0, 0, 100]), 80)
IN_USE = abi.DESTINATION_USED | abi.DESTINATION_AVAILABLE


class Memory:
    """Records as `Maps` gives them, in ordinary memory."""

    def __init__(self, services: int = 4, destinations: int = 4, pool: int = 64) -> None:
        self.settings = abi.Settings()
        self.limits = self.settings.limits
        self.limits.services, self.limits.destinations, self.limits.pool = services, destinations, pool
        self._services = (abi.Service * services)()
        self._destinations = (abi.Destination * destinations)()
        self._pool = bytearray(pool * 8)
        self.looks_at_all = 0
        """How often all records of a kind were looked at."""

    def service(self, index: int) -> abi.Service:
        return self._services[index]

    def destination(self, index: int) -> abi.Destination:
        return self._destinations[index]

    def memory(self, _name: str, _size: int) -> memoryview:
        return memoryview(self._destinations).cast("B")

    def flags(self, name: str, _kind: type[ctypes.Structure], top: int) -> list[int]:
        self.looks_at_all += 1
        records = self._services if name == "services" else self._destinations
        return [record.flags for record in records[:top]]

    def pool(self) -> memoryview:
        return memoryview(self._pool).cast("Q")

    def use_destination(self, index: int, last_byte: int) -> abi.Destination:
        """Fill a destination's record."""
        record = self.destination(index)
        record.flags = IN_USE
        record.port = swap_port(80)
        store_address(record.address, bytes([10, 0, 0, last_byte]))
        record.owner = abi.ServiceKey.from_buffer_copy(packed_key(OWNER))
        self.settings.destinations_top = max(self.settings.destinations_top, index + 1)
        return record


class Clock:
    """The packet path's clock, under control."""

    now = 1_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds_to_ticks(seconds)

    def forward_rounds(self, rounds: float) -> None:
        """Let time pass, in rounds of the trash's timer."""
        self.now += milliseconds_to_ticks(int(rounds * ROUND_MILLISECONDS))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(places, "ticks_now", clock)
    return clock


def _places(memory: Memory) -> Places:
    return Places(cast(Maps, memory))


def _returning(known: Places, last_byte: int) -> int | None:
    return known.returning(packed_key(OWNER), bytes([10, 0, 0, last_byte]), 80)


def test_services_take_freed_records_first() -> None:
    memory = Memory()
    memory.settings.services_top = 3
    memory.service(0).flags = memory.service(2).flags = abi.SERVICE_USED
    known = _places(memory)
    assert [known.service() for _ in range(2)] == [1, 3]
    with pytest.raises(TableFull):
        known.service()


def test_a_table_full_of_real_servers(clock: Clock) -> None:
    memory = Memory()
    for index in range(4):
        memory.use_destination(index, index)
    with pytest.raises(TableFull):
        _places(memory).destination()
    assert clock.now


def test_a_removed_real_server_comes_back(clock: Clock) -> None:
    memory = Memory()
    memory.use_destination(0, 11)
    known = _places(memory)
    known.discard(0)
    assert memory.destination(0).flags == abi.DESTINATION_USED
    assert memory.destination(0).removed == clock.now
    assert _returning(_places(memory), 12) is None
    assert _places(memory).returning(packed_key(OWNER.replace(port=81)), bytes([10, 0, 0, 11]), 80) is None
    assert _returning(_places(memory), 11) == 0
    assert _returning(known, 11) == 0
    assert _returning(known, 11) is None


def test_it_is_forgotten_in_time(clock: Clock) -> None:
    memory = Memory()
    memory.use_destination(0, 11)
    _places(memory).discard(0)
    clock.forward_rounds(2.99)
    assert _returning(_places(memory), 11) == 0
    assert _places(memory).destination() == 1
    clock.forward_rounds(0.02)
    assert _returning(_places(memory), 11) is None
    assert _places(memory).destination() == 0


def test_it_is_found_idle_in_the_next_round(clock: Clock) -> None:
    """So the second of two that are removed one after the other has less time."""
    memory = Memory()
    for index in (0, 1):
        memory.use_destination(index, 11 + index)
    _places(memory).discard(0)
    clock.forward_rounds(0.9)
    _places(memory).discard(1)
    clock.forward_rounds(2.05)
    assert (_returning(_places(memory), 11), _returning(_places(memory), 12)) == (0, 1)
    clock.forward_rounds(0.1)
    assert (_returning(_places(memory), 11), _returning(_places(memory), 12)) == (None, None)


def test_its_time_begins_when_it_is_idle(clock: Clock) -> None:
    memory = Memory()
    record = memory.use_destination(0, 11)
    record.active = 1
    _places(memory).discard(0)
    clock.forward_rounds(10.5)
    record.removed, record.active = clock.now, 0  # as the packet path does: note_end()
    clock.forward_rounds(2.4)
    assert _returning(_places(memory), 11) == 0
    clock.forward_rounds(0.2)
    assert _returning(_places(memory), 11) is None


def test_rounds_begin_anew_when_all_are_forgotten(clock: Clock) -> None:
    memory = Memory()
    for index in (0, 1):
        memory.use_destination(index, 11 + index)
    _places(memory).discard(0)
    clock.forward_rounds(5.9)
    _places(memory).discard(1)
    clock.forward_rounds(2.9)
    assert (_returning(_places(memory), 11), _returning(_places(memory), 12)) == (None, 1)
    clock.forward_rounds(0.2)
    assert _returning(_places(memory), 12) is None


@pytest.mark.parametrize("counter", ["active", "inactive", "persistent"])
def test_with_connections_it_is_remembered_for_ever(clock: Clock, counter: str) -> None:
    memory = Memory()
    setattr(memory.use_destination(0, 11), counter, 1)
    _places(memory).discard(0)
    clock.forward(100_000)
    known = _places(memory)
    assert [known.destination() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(TableFull):
        known.destination()
    assert _returning(known, 11) == 0


def test_idle_ones_are_forgotten_where_room_is_short(clock: Clock) -> None:
    memory = Memory()
    for index in range(4):
        memory.use_destination(index, index)
    memory.destination(1).active = 1
    known = _places(memory)
    for index in (1, 2):
        known.discard(index)
    assert _places(memory).destination() == 2
    assert _returning(_places(memory), 1) == 1
    assert clock.now


def test_a_flush_looks_at_all_real_servers_once(clock: Clock) -> None:
    """Not once for each that goes: of 100,000 that would take a quarter of an hour."""
    memory = Memory()
    for index in range(4):
        memory.use_destination(index, index)
    known = _places(memory)
    for index in range(4):
        known.discard(index)
    assert memory.looks_at_all == 1
    assert clock.now


def test_runs_of_other_services_are_left_alone() -> None:
    memory = Memory(pool=48)
    memory.settings.services_top = 2
    for index, start in ((0, 8), (1, 24)):
        memory.service(index).flags = abi.SERVICE_USED
        memory.service(index).run = start
        runs.write(memory.pool(), start, runs.Run(abi.SCHEDULER_RR, [(n, 1) for n in range(4)]))
    known = _places(memory)
    assert known.run(16) == 32
    known = _places(memory)
    assert known.run(8) == 32
    assert known.run(8) == 40
    assert known.run(8) == 16
    with pytest.raises(TableFull):
        known.run(8)
    known.free_run(24)
    assert known.run(8) == 24


def test_trees_of_loads() -> None:
    """Each has a number of its own; a run's goes with the run; where there is no room, there is none."""
    memory = Memory(pool=256)
    memory.limits.loads = runs.GRAIN + 3 * 4
    memory.settings.services_top = 1
    known = _places(memory)
    assert known.tree(abi.SCHEDULER_LC, 16) == 0
    assert known.tree(abi.SCHEDULER_RR, 20) == 0
    made = [known.tree(abi.SCHEDULER_LC, 20) for _ in range(4)]
    assert [tree & 0xFFFFFFFF for tree in made] == [8, 12, 16, 0]
    assert [tree >> 32 for tree in made] == [1, 2, 3, 0]

    run = runs.Run(abi.SCHEDULER_LC, [(number, 1) for number in range(20)])
    start = known.run(runs.size(run))
    run.tree = made[1]
    runs.write(memory.pool(), start, run)
    memory.service(0).flags, memory.service(0).run = abi.SERVICE_USED, start
    others = _places(memory)  # another command: the first and the last are nobody's by now
    assert [others.tree(abi.SCHEDULER_LC, 20) & 0xFFFFFFFF for _ in range(3)] == [16, 8, 0]
    others.free_run(start)
    assert others.tree(abi.SCHEDULER_LC, 20) == 12 | 6 << 32
