# SPDX-License-Identifier: GPL-2.0-only
"""Two CPUs at the same table: nothing twice, nothing lost, one sequence."""

from __future__ import annotations

import mmap
import os
import time
from collections import Counter
from collections.abc import Callable

from tests.packet import children
from tests.packet.director import CLIENT, SENT, Director, real_server
from tests.packet.packets import ACK, FIN, RST, SYN, TCP, UDP
from tests.packet.translated import Masqueraded
from xlvs.datapath.load import Capacity
from xlvs.datapath.records import seconds_to_ticks, ticks_now
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ServiceKey

KEYS = 100_000
IN_STEP = 5_000
"""So many of them are inserted key by key at the same moment; the others by 256, which is quicker."""


class InStep:
    """Lets two processes do each step of a loop at the same moment."""

    def __init__(self) -> None:
        self._turns = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    def wait(self, who: int, step: int) -> None:
        """Wait until the other one has come to this step, too."""
        turns = self._turns
        turns[who] = step
        while turns[1 - who] < step:
            pass


def _cpus() -> list[int]:
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) >= 2, "this test needs two CPUs"
    return cpus[:2]


def _frames(director: Director, key: ServiceKey, flags: int, first: int, count: int) -> list[bytes]:
    """Segments of that many connections, numbered from ``first``."""
    return [
        director.segment(key, 1024 + number % 60_000, flags, client=bytes([10, 0, 9, number // 60_000]))
        for number in range(first, first + count)
    ]


def _send(director: Director, frames: list[bytes]) -> Callable[[], None]:
    def send() -> None:
        for frame in frames:
            assert director.tc(frame)[0] == SENT

    return send


def test_the_same_keys_at_once(make_director: Callable[[Capacity], Director]) -> None:
    director = make_director(Capacity(KEYS * 2, 16, 64))
    key = director.service(1, 1, 1, protocol=UDP)
    frames = _frames(director, key, 0, 0, KEYS)
    together = InStep()

    def insert(who: int) -> Callable[[], None]:
        def run() -> None:
            for step, frame in enumerate(frames, start=1):
                if step <= IN_STEP or step % 256 == 0:
                    together.wait(who, step)
                assert director.tc(frame)[0] == SENT

        return run

    children.run_together(insert(0), insert(1), cpus=_cpus())

    slots = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
    assert Counter((slot.client, slot.client_port) for slot in slots).most_common(1)[0][1] == 1
    assert len(slots) == KEYS
    assert not any(director.slots(abi.PHASE_CLAIMED))
    entry = director.listing(key)
    assert entry.stats.connections == KEYS
    assert entry.stats.in_packets == 2 * KEYS
    by_server = Counter(slot.destination for slot in slots)
    for one in entry.destinations:
        assert one.active == 0
        assert one.stats.connections == one.inactive
    assert sorted(one.inactive for one in entry.destinations) == sorted(by_server.values())
    assert director.events()["table_full"] == 0


def test_round_robin_is_shared_exactly(make_director: Callable[[Capacity], Director]) -> None:
    director = make_director(Capacity(65_536, 16, 64))
    for scheduler, weights in (("rr", (1, 1, 1, 1)), ("wrr", (3, 2, 1, 0))):
        key = director.service(*weights, scheduler=scheduler)
        per_child = 6000
        children.run_together(
            _send(director, _frames(director, key, SYN, 0, per_child)),
            _send(director, _frames(director, key, SYN, per_child, per_child)),
            cpus=_cpus(),
        )
        for number, weight in enumerate(weights, start=1):
            entry = director.entry(key, real_server(number))
            assert entry.stats.connections == 2 * per_child * weight // sum(weights)


def test_one_servers_counts_from_two_cpus(make_director: Callable[[Capacity], Director]) -> None:
    """Each has its own connections; the counts are everybody's."""
    director = make_director(Capacity(65_536, 16, 64))
    key = director.service(1)
    per_child = 12_000

    def open_and_close(first: int) -> Callable[[], None]:
        opening = _frames(director, key, SYN, first, per_child)
        closing = _frames(director, key, FIN, first, per_child // 2)
        return _send(director, [*opening, *closing])

    children.run_together(open_and_close(0), open_and_close(per_child), cpus=_cpus())
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive) == (per_child, per_child)
    assert entry.stats.in_packets == 3 * per_child


def test_the_states_of_one_connection_from_two_cpus(director: Director) -> None:
    """Counts follow the entry, whoever moved it: they never drift."""
    key = director.service(1)
    ports = [director.open(key) for _ in range(50)]
    sequences = [(ACK, FIN, ACK, RST), (ACK, RST, FIN, ACK)]
    together = InStep()

    def shuffle(who: int) -> Callable[[], None]:
        frames = [[director.segment(key, port, flags) for flags in sequences[who]] for port in ports]

        def run() -> None:
            step = 0
            for _ in range(10):
                for four in frames:
                    for frame in four:
                        step += 1
                        together.wait(who, step)
                        director.tc(frame)

        return run

    children.run_together(shuffle(0), shuffle(1), cpus=_cpus())
    states = [
        (slot.control >> abi.CONTROL_STATE_SHIFT & 0xFF, slot.control >> abi.CONTROL_FLAGS_SHIFT & 1)
        for _, slot in director.slots(abi.PHASE_LIVE)
        if slot.virtual_port == key.port
    ]
    entry = director.entry(key, real_server(1))
    assert len(states) == len(ports) == entry.active + entry.inactive
    assert entry.inactive == sum(inactive for _, inactive in states)


def test_fins_of_both_sides_at_once(make_director: Callable[[Capacity], Director]) -> None:
    """Whichever comes first, the second finds the state that it left: both sides are closed."""
    count = 3000
    director = make_director(Capacity(count * 4, 16, 64))
    key = director.service(1, method=MASQUERADE, server_port=8080)
    connections = [
        Masqueraded(TCP, (CLIENT, 2000 + number), (key.address, key.port), (real_server(1), 8080))
        for number in range(count)
    ]
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for one in connections:
        for before, _ in (one.asked(flags=SYN), one.answered(flags=SYN | ACK), one.asked()):
            assert director.tc(director.frame(before))[0] == SENT
        for side, (before, _) in zip(sides, (one.asked(flags=FIN), one.answered(flags=FIN)), strict=True):
            side.append(director.frame(before))
    together = InStep()

    def close(who: int) -> Callable[[], None]:
        def run() -> None:
            for step, frame in enumerate(sides[who], start=1):
                together.wait(who, step)
                assert director.tc(frame)[0] == SENT

        return run

    children.run_together(close(0), close(1), cpus=_cpus())
    states = Counter(one.state for one in director.table.connections())
    assert states == {"TIME_WAIT": count}


def test_both_directions_of_the_same_connections_at_once(
    make_director: Callable[[Capacity], Director],
) -> None:
    """NAT: whoever makes or reopens a connection, it has one way back, and that one is its own."""
    count = 4000
    director = make_director(Capacity(count * 4, 16, 64))
    key = director.service(1, 1, 1, method=MASQUERADE, server_port=8080)
    frames = [
        frame
        for flow in range(count)
        for flags in (SYN, ACK, RST, SYN, ACK)
        for frame in _frames(director, key, flags, flow, 1)
    ]
    together = InStep()

    def send(who: int) -> Callable[[], None]:
        def run() -> None:
            for step, frame in enumerate(frames, start=1):
                together.wait(who, step)
                assert director.tc(frame)[0] == SENT

        return run

    children.run_together(send(0), send(1), cpus=_cpus())

    slots = dict(director.slots(abi.PHASE_LIVE))
    forward = [place for place, slot in slots.items() if slot.virtual == key.address]
    assert len(forward) == count
    # A reopening may leave its predecessor's way back behind for a while, from another real server.
    ways_back = {
        (director.slot_record(place).link - 1, slot.client, slot.client_port, slot.virtual_port)
        for place, slot in slots.items()
        if slot.flags & abi.CONNECTION_REPLY
    }
    for place in forward:
        own = slots[place]
        server = director.maps.destination(own.destination)
        assert (place, bytes(server.address)[:4], 8080, own.client_port) in ways_back
    listed = director.listing(key)
    assert sum(one.active for one in listed.destinations) == count
    assert sum(one.inactive for one in listed.destinations) == 0
    assert listed.stats.connections == 2 * count
    assert listed.stats.in_packets == 2 * len(frames)
    # Ways back that a reopening left behind are gone after a few seconds.
    director.wait_until(
        lambda: sum(1 for _ in director.slots(abi.PHASE_LIVE)) == 2 * count, 6, "ways back stay"
    )


def test_a_full_table_that_the_sweeper_makes_room_in(make_director: Callable[[Capacity], Director]) -> None:
    """Both open more connections than fit, while half-open ones are ended behind their backs."""
    director = make_director(Capacity(64, 16, 64))
    slots = director.maps.limits.buckets * abi.SLOTS_PER_BUCKET
    key = director.service(1, 2)
    frames = [*_frames(director, key, SYN, 0, 3 * slots), *_frames(director, key, ACK, 0, slots // 4)]
    end = time.monotonic() + 3

    def send() -> None:
        while time.monotonic() < end:
            for frame in frames:
                assert director.tc(frame)[0] == SENT
            for place, slot in director.slots(abi.PHASE_LIVE):
                director.slot_record(place).expires = slot.expires - seconds_to_ticks(5)
            # So that new ones are entered again, until it is full again.
            director.maps.settings.full_at = ticks_now() - seconds_to_ticks(20)

    children.run_together(send, send, cpus=_cpus())
    events = director.events()
    assert events["evicted"] > 0
    assert events["stateless"] > 0
    assert events["table_full"] == 0

    def consistent() -> bool:
        live = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
        listed = director.listing(key).destinations
        inactive = sum(slot.control >> abi.CONTROL_FLAGS_SHIFT & abi.CONNECTION_INACTIVE for slot in live)
        return (sum(one.active for one in listed), sum(one.inactive for one in listed)) == (
            len(live) - inactive,
            inactive,
        )

    director.wait_until(consistent, 3, "counters and entries differ")
    assert not any(director.slots(abi.PHASE_CLAIMED))
    director.expire_all()
    assert director.spilled() == 0
    assert all((one.active, one.inactive) == (0, 0) for one in director.listing(key).destinations)
