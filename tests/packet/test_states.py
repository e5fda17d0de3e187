# SPDX-License-Identifier: GPL-2.0-only
"""A connection's state, its timeout and its place in the counts, after any sequence of packets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet.director import (
    CLIENT,
    DROPPED,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    XDP_TX,
    Director,
    real_server,
)
from tests.packet.kernel_model import (
    TIMEOUTS,
    UDP_TIMEOUT,
    is_active,
    next_state,
    opens,
    takes_over,
)
from tests.packet.packets import ACK, FIN, PSH, RST, SYN, UDP, URG, packed
from xlvs.datapath.records import seconds_to_ticks
from xlvs.model import TCP_STATES, ServiceKey, Stats, Timeouts

INTERESTING = (
    SYN, ACK, FIN, RST, SYN | ACK, FIN | ACK, RST | ACK, SYN | RST, SYN | FIN, 0, PSH, URG, PSH | ACK,
)  # fmt: skip
segments = st.lists(st.sampled_from(INTERESTING) | st.integers(0, 255), max_size=14)


def at_tc(director: Director, frame: bytes) -> str:
    """What became of a frame that came in where there is no XDP."""
    return {SENT: "sent", UNTOUCHED: "untouched", DROPPED: "dropped"}[director.tc(frame)[0]]


def at_xdp_then_tc(director: Director, frame: bytes) -> str:
    """What became of a frame that XDP sees first; what XDP passes it must not have changed."""
    expired = -1
    while expired != director.maps.events()["expired"]:  # else the sweeper came in between
        expired = director.maps.events()["expired"]
        before = director.snapshot()
        verdict, _ = director.xdp(frame)
        if verdict == XDP_TX:
            return "sent"
        assert verdict == XDP_PASS
        after = director.snapshot()
    assert after == before
    return at_tc(director, frame)


@pytest.mark.parametrize("path", [at_tc, at_xdp_then_tc])
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_any_sequence_of_segments(
    director: Director, path: Callable[[Director, bytes], str], address: bytes
) -> None:
    @settings(max_examples=60, deadline=None)
    @given(segments)
    def follow(sequence: list[int]) -> None:
        key = director.service(1, address=address)
        port = director.unused_port()
        state: str | None = None
        opened = sent = 0
        for flags in (SYN, *sequence):
            if state is not None and takes_over(state, flags):
                state = None
            happened = path(director, director.segment(key, port, flags))
            if state is None and not opens(flags):
                assert happened == "untouched"
            else:
                assert happened == "sent"
                opened += state is None
                sent += 1
                state = next_state(state or "NONE", flags)
            _check(director, key, port, state, opened, sent)
        director.table.delete_service(key)

    follow()


def _check(
    director: Director, key: ServiceKey, port: int, state: str | None, opened: int, sent: int
) -> None:
    """The listing says what the kernel's would, after that many new connections and packets."""
    connection = director.connection(key, port)
    (entry,) = director.listing(key).destinations
    if state is None:
        assert connection is None
        assert (entry.active, entry.inactive) == (0, 0)
    else:
        assert connection is not None
        assert connection.state == state
        assert TIMEOUTS[state] - 2 <= connection.expires <= TIMEOUTS[state]
        assert (entry.active, entry.inactive) == ((1, 0) if is_active(state) else (0, 1))
    assert (entry.stats.connections, entry.stats.in_packets) == (opened, sent)


def test_a_segment_without_flags_closes(director: Director) -> None:
    key = director.service()
    port = director.open(key, ACK, 0)
    connection = director.connection(key, port)
    assert connection is not None
    assert connection.state == "CLOSE"
    assert connection.expires in (8, 9, 10)


def test_udp_is_inactive_for_300_seconds(director: Director) -> None:
    key = director.service(protocol=UDP)
    port = director.open(key, 0, 0)
    connection = director.connection(key, port)
    assert connection is not None
    assert connection.state == "UDP"
    assert UDP_TIMEOUT - 2 <= connection.expires <= UDP_TIMEOUT
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive) == (0, 1)
    assert entry.stats == Stats(connections=1, in_packets=3, in_bytes=3 * 28)


def test_each_state_has_its_own_timeout(director: Director) -> None:
    """The kernel has states with equal timeouts; here they differ, so none takes another's."""
    timeouts = director.maps.settings.timeout
    before = list(timeouts)
    try:
        for number in range(len(TCP_STATES)):
            timeouts[number] = seconds_to_ticks(1000 + 10 * number)
        for flags, state in (
            ((), "SYN_RECV"),
            ((ACK,), "ESTABLISHED"),
            ((ACK, FIN), "FIN_WAIT"),
            ((FIN,), "TIME_WAIT"),
            ((ACK, RST), "CLOSE"),
        ):
            key = director.service()
            connection = director.connection(key, director.open(key, *flags))
            assert connection is not None
            assert connection.state == state
            timeout = 1000 + 10 * TCP_STATES.index(state)
            assert timeout - 2 <= connection.expires <= timeout
    finally:
        timeouts[:] = before


def test_set_timeouts_is_used_by_packets(director: Director) -> None:
    before = director.table.timeouts()
    assert before == Timeouts(900, 120, 300)
    try:
        director.table.set_timeouts(Timeouts(500, 60, 0))
        assert director.table.timeouts() == Timeouts(500, 60, 300)
        key = director.service()
        port = director.open(key, ACK)
        connection = director.connection(key, port)
        assert connection is not None
        assert 498 <= connection.expires <= 500
        director.tc(director.segment(key, port, FIN))
        connection = director.connection(key, port)
        assert connection is not None
        assert 58 <= connection.expires <= 60
    finally:
        director.table.set_timeouts(before)


def test_a_packet_renews_the_time(director: Director) -> None:
    key = director.service()
    port = director.open(key, ACK)
    ((place, slot),) = (
        (place, slot)
        for place, slot in director.slots(2)
        if (slot.client_port, slot.virtual_port, slot.client) == (port, key.port, CLIENT)
    )
    director.slot_record(place).expires = (slot.expires - seconds_to_ticks(800)) & 0xFFFFFFFF
    connection = director.connection(key, port)
    assert connection is not None
    assert 97 <= connection.expires <= 100
    director.tc(director.segment(key, port, ACK))
    connection = director.connection(key, port)
    assert connection is not None
    assert 898 <= connection.expires <= 900


def test_reopening_a_flow_takes_its_slot_again(director: Director) -> None:
    """A client that closes and opens one flow over and over finds room, and fills no table."""
    key = director.service(1, 1)
    port = director.unused_port()
    before = director.events()["table_full"]
    for _ in range(200):
        for flags in (SYN, ACK, RST):
            assert director.tc(director.segment(key, port, flags))[0] == SENT
    assert director.events()["table_full"] == before
    listed = director.listing(key)
    assert [entry.stats.connections for entry in listed.destinations] == [100, 100]
    assert sum(entry.active + entry.inactive for entry in listed.destinations) == 1


@pytest.mark.parametrize(
    ("source", "scheduled"),
    [
        ("0.1.2.3", False), ("127.0.0.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("1.0.0.1", True), ("223.255.255.254", True),
        ("::", False), ("::1", False), ("ff02::1", False), ("::2", True), ("fe00::1", True),
    ],
)  # fmt: skip
def test_no_connection_from_a_source_that_input_routing_refuses(
    director: Director, source: str, scheduled: bool
) -> None:
    key = director.service(address=VIP6 if ":" in source else VIP)
    frame = director.segment(key, director.unused_port(), SYN, client=packed(source))
    assert at_tc(director, frame) == ("sent" if scheduled else "untouched")
    assert director.listing(key).stats.connections == int(scheduled)


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_no_connection_from_the_vip_itself(director: Director, address: bytes) -> None:
    key = director.service(address=address)
    frame = director.segment(key, director.unused_port(), SYN, client=address)
    assert at_tc(director, frame) == "untouched"
