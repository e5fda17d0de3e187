# SPDX-License-Identifier: GPL-2.0-only
"""Connections are forgotten at their time, by the kernel alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.packet.director import CLIENT, SENT, UNTOUCHED, Director, real_server
from tests.packet.packets import ACK, FIN, RST, SYN, UDP
from xlvs.datapath.records import Slot, ticks_now
from xlvs.kernel import abi
from xlvs.model import TCP_STATES, ServiceKey

TICKS = {seconds: int(seconds * 1e9) >> abi.TICK_SHIFT for seconds in (0.5, 1, 2)}


def long_ago() -> int:
    """A time that is over by the packet path's clock, too, which is some milliseconds late."""
    return ticks_now() - 2


def _slot(director: Director, key: ServiceKey, port: int, *phases: int) -> tuple[int, Slot] | None:
    for place, slot in director.slots(*phases):
        if (slot.client_port, slot.virtual_port) == (port, key.port):
            return place, slot
    return None


def test_gone_within_a_second_of_its_time(director: Director) -> None:
    timeouts = director.maps.settings.timeout
    before = list(timeouts)
    try:
        timeouts[TCP_STATES.index("ESTABLISHED")] = TICKS[2]
        timeouts[TCP_STATES.index("SYN_RECV")] = TICKS[1]
        timeouts[abi.TIMEOUT_UDP] = TICKS[1]
        established, half_open = director.service(1), director.service(1)
        datagrams = director.service(1, protocol=UDP)
        opened = time.monotonic()
        ports = [director.open(established, ACK) for _ in range(20)]
        for _ in range(20):
            director.open(half_open)
            director.open(datagrams)
        all_opened = time.monotonic()
    finally:
        timeouts[:] = before

    def live(key: ServiceKey) -> int:
        entry = director.entry(key, real_server(1))
        return entry.active + entry.inactive

    expired = director.maps.events()["expired"]
    for key, lifetime in ((half_open, 1), (datagrams, 1), (established, 2)):
        while time.monotonic() < opened + lifetime - 0.2:
            assert live(key) == 20
            time.sleep(0.05)
        director.wait_until(lambda key=key: live(key) == 0, 3, "still counted")  # type: ignore[misc]
        assert time.monotonic() - all_opened < lifetime + 1.3
        entry = director.entry(key, real_server(1))
        assert (entry.active, entry.inactive) == (0, 0)
    assert director.maps.events()["expired"] == expired + 60
    for port in ports:
        assert director.connection(established, port) is None
        assert _slot(director, established, port, abi.PHASE_LIVE) is None
        assert director.tc(director.segment(established, port, ACK))[0] == UNTOUCHED


def test_a_place_rests_before_it_is_used_again(director: Director) -> None:
    key = director.service(1)
    port = director.open(key)
    found = _slot(director, key, port, abi.PHASE_LIVE)
    assert found is not None
    place, slot = found
    director.slot_record(place).expires = long_ago()
    director.wait_until(
        lambda: director.slot_record(place).control & 0xFF == abi.PHASE_DEAD, 3, "it did not die"
    )
    died = director.slot_record(place).expires
    director.wait_until(
        lambda: director.slot_record(place).control & 0xFF == abi.PHASE_FREE, 4, "it was not freed"
    )
    assert ticks_now() - died >= TICKS[1]
    # The same flow finds the same place, and its generation tells the two apart.
    director.tc(director.segment(key, port, SYN))
    again = _slot(director, key, port, abi.PHASE_LIVE)
    assert again is not None
    assert again[0] == place
    shift = abi.CONTROL_GENERATION_SHIFT
    assert again[1].control >> shift == (slot.control >> shift) + 1


def test_a_place_that_a_packet_ended_rests_as_long(director: Director) -> None:
    """Wherever the sweeper is on its round: another CPU may still be at the old entry."""
    key = director.service(1)
    resting = {}
    for _ in range(40):
        port = director.open(key, FIN)
        found = _slot(director, key, port, abi.PHASE_LIVE)
        assert found is not None
        assert director.tc(director.segment(key, port, SYN | RST))[0] == UNTOUCHED
        record = director.slot_record(found[0])
        assert record.control & 0xFF == abi.PHASE_DEAD
        resting[found[0]] = record.expires
    end = time.monotonic() + 5
    while resting:
        assert time.monotonic() < end, "places are not free again"
        for place, ended in list(resting.items()):
            if director.slot_record(place).control & 0xFF == abi.PHASE_FREE:
                assert ticks_now() - ended >= TICKS[1]
                del resting[place]
        time.sleep(0.01)


def test_what_stands_behind_a_freed_place(director: Director) -> None:
    """It is found as long as it is there; a bucket with nothing in it is as if it had never been used."""
    key = director.service(1)
    by_place: dict[tuple[int, int], list[int]] = {}
    for port in range(1024, 65536):  # two flows that prefer the same places of one bucket
        number = director.flow_hash(CLIENT, port, key)
        ports = by_place.setdefault((director.home(number), number >> 61), [])
        ports.append(port)
        if len(ports) == 2:
            break
    places = []
    for port in ports:
        for flags in (SYN, ACK):
            assert director.tc(director.segment(key, port, flags))[0] == SENT
        found = _slot(director, key, port, abi.PHASE_LIVE)
        assert found is not None
        places.append(found[0])
    first, second = (director.slot_record(place) for place in places)
    assert places[0] ^ places[1] == 1

    def has_become(record: abi.Connection, state: int) -> Callable[[], bool]:
        def look() -> bool:
            if record.control & 0xFF == abi.PHASE_DEAD:
                record.expires = (ticks_now() - TICKS[2]) & 0xFFFFFFFF  # the rest of its second is over
            return record.control & 0xFFFF == state << abi.CONTROL_STATE_SHIFT | abi.PHASE_FREE

        return look

    first.expires = long_ago()
    director.wait_until(has_become(first, abi.FREE_AFTER_USE), 5, "it was not freed")
    assert director.tc(director.segment(key, ports[1], ACK, b"hello"))[0] == SENT
    assert director.listing(key).stats.in_packets == 5
    director.tc(director.segment(key, ports[1], SYN))
    assert director.listing(key).stats.connections == 2
    second.expires = long_ago()
    for record in (first, second):
        director.wait_until(has_become(record, abi.FREE_UNUSED), 5, "the bucket was not renewed")


def test_expired_and_not_yet_swept(director: Director) -> None:
    """Between its time and the sweeper's round an entry is neither used nor listed."""
    key = director.service(1, 1)
    unswept = 0
    for _ in range(20):
        port = director.open(key, ACK)
        found = _slot(director, key, port, abi.PHASE_LIVE)
        assert found is not None
        place, slot = found
        assert director.connection(key, port) is not None
        director.slot_record(place).expires = long_ago()
        assert director.connection(key, port) is None
        frame = director.segment(key, port, ACK)
        assert director.xdp(frame) == (2, frame)
        was_there = director.slot_record(place).control & 0xFF == abi.PHASE_LIVE
        assert director.tc(frame) == (UNTOUCHED, frame)
        assert director.connection(key, port) is None
        assert director.tc(director.segment(key, port, SYN))[0] == SENT
        unswept += was_there
        connection = director.connection(key, port)
        assert connection is not None
        assert connection.state == "SYN_RECV"
        total = sum(one.active + one.inactive for one in director.listing(key).destinations)
        assert total == sum(1 for c in director.table.connections() if c.virtual_port == key.port)
        assert slot.client_port == port
    assert unswept > 10
    assert director.listing(key).stats.connections == 40


def test_reopening_an_expired_entry_counts_it_once(director: Director) -> None:
    key = director.service(1)
    port = director.open(key, ACK)
    for _ in range(30):
        found = _slot(director, key, port, abi.PHASE_LIVE)
        assert found is not None
        director.slot_record(found[0]).expires = long_ago()
        assert director.tc(director.segment(key, port, SYN))[0] == SENT
        entry = director.entry(key, real_server(1))
        assert (entry.active, entry.inactive) == (1, 0)
