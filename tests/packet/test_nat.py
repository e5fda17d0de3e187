# SPDX-License-Identifier: GPL-2.0-only
"""NAT: each packet of either side is, byte for byte, the one that the other side should get."""

from __future__ import annotations

import time
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    Director,
    real_server,
    real_server6,
)
from tests.packet.packets import ACK, PSH, RST, SCTP, SYN, TCP, UDP, checksum
from tests.packet.spaces import ip
from tests.packet.translated import Masqueraded
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, Destination, Service, ServiceKey, Stats

SERVER_PORT = 8080
LONG = 0x10000000
"""Ticks: longer than any timeout."""
families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP], ids=["tcp", "udp", "sctp"])


def _client(key: ServiceKey) -> bytes:
    return CLIENT if key.family == 2 else CLIENT6


def _server(key: ServiceKey, number: int = 1) -> bytes:
    return (real_server if key.family == 2 else real_server6)(number)


def _connection(
    director: Director, key: ServiceKey, server_port: int, number: int = 1, client_port: int | None = None
) -> Masqueraded:
    """A connection that its client has not begun yet."""
    port = director.unused_port() if client_port is None else client_port
    client, server = (_client(key), port), (_server(key, number), server_port)
    return Masqueraded(key.protocol, client, (key.address, key.port), server)


def _passes(director: Director, before_and_after: tuple[bytes, bytes]) -> None:
    """TC makes of the packet what it should be; what XDP makes is compared in test_xdp_changes.py."""
    before, after = before_and_after
    assert director.tc(director.frame(before)) == (SENT, director.frame(after))


def _slots(director: Director, one: Masqueraded) -> list[int]:
    """The places in the table that a connection takes: its own first, then its way back."""
    found = {
        (slot.protocol, (slot.client, slot.client_port), (slot.virtual, slot.virtual_port)): place
        for place, slot in director.slots(abi.PHASE_LIVE)
    }
    ends = ((one.protocol, one.client, one.virtual), (one.protocol, one.server, one.client))
    return [found[each] for each in ends if each in found]


def _let_time_pass(director: Director, place: int, ticks: int = LONG) -> None:
    """As if that entry had been made, or renewed, earlier."""
    record = director.slot_record(place)
    record.expires = (record.expires - ticks) & 0xFFFFFFFF


def _is_left_to_the_stack(director: Director, frame: bytes) -> None:
    def pass_by() -> None:
        assert director.tc(frame) == (UNTOUCHED, frame)

    director.changes_nothing(pass_by)


def _is_untouched(director: Director, packet: bytes) -> None:
    frame = director.frame(packet)

    def pass_by() -> None:
        assert director.xdp(frame) == (XDP_PASS, frame)
        assert director.tc(frame) == (UNTOUCHED, frame)

    director.changes_nothing(pass_by)


@families
@protocols
@pytest.mark.parametrize("server_port", [None, SERVER_PORT], ids=["same-port", "other-port"])
def test_both_ways(director: Director, address: bytes, protocol: int, server_port: int | None) -> None:
    key = director.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=server_port)
    one = _connection(director, key, server_port or key.port)
    expected = Stats()
    for turn, (size, ttl) in enumerate(((0, 64), (1, 2), (7, 255), (1000, 17), (1400, 128))):
        payload = bytes(range(256)) * 6
        asked = one.asked(payload[:size], ACK if turn else SYN, ttl)
        answered = one.answered(payload[1 : size + 1], ACK | (0 if turn else SYN), ttl)
        _passes(director, asked)
        _passes(director, answered)
        expected = Stats(
            1,
            turn + 1,
            turn + 1,
            expected.in_bytes + len(asked[0]),
            expected.out_bytes + len(answered[0]),
        )
        assert director.listing(key).stats == expected
        assert director.entry(key, _server(key)).stats == expected


@families
@protocols
def test_any_payload_and_port(director: Director, address: bytes, protocol: int) -> None:
    """Whatever the checksums are, they are right afterwards."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=64), st.integers(1, 65535), st.integers(1024, 65535), st.integers(2, 255),
        st.integers(0, 255), st.booleans(),
    )  # fmt: skip
    def check(payload: bytes, server_port: int, client_port: int, ttl: int, tos: int, padded: bool) -> None:
        key = director.service(
            1, address=address, protocol=protocol, method=MASQUERADE, server_port=server_port
        )
        one = _connection(director, key, server_port, client_port=client_port)
        fields: dict[str, Any] = {"tos": tos} if len(address) == 4 else {"traffic_class": tos}
        padding = bytes(6) if padded else b""
        for before, after in (
            one.asked(payload, SYN, ttl, **fields),
            one.answered(payload, SYN | ACK, ttl, **fields),
        ):
            verdict, frame = director.tc(director.frame(before) + padding)
            assert (verdict, frame) == (SENT, director.frame(after) + padding)
        director.table.delete_service(key)

    check()


@families
def test_a_udp_checksum_that_would_be_0_is_sent_as_ffff(director: Director, address: bytes) -> None:
    key = director.service(1, address=address, protocol=UDP, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    for pair in (one.asked, one.answered):
        for place in (0, 1):
            # That word of payload makes the checksum 0 before, or after.
            packet = pair(bytes(2))[place]
            offset = packets.transport_of(packet)[1] + 6
            word = packet[offset : offset + 2]
            before, after = pair(word)
            assert (before, after)[place][offset : offset + 2] == b"\xff\xff"
            _passes(director, (before, after))


def test_a_datagram_without_checksum_stays_without(director: Director) -> None:
    key = director.service(1, protocol=UDP, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    for pair in (one.asked(b"data", checksum=False), one.answered(b"data", checksum=False)):
        assert [packet[26:28] for packet in pair] == [b"\0\0", b"\0\0"]
        _passes(director, pair)


def test_headers_before_the_ports(director: Director) -> None:
    """IP options and extension headers stay, and what follows them is translated."""
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    for words in (0, 1, 5, 10):
        for pair in (one.asked, one.answered):
            _passes(director, pair(b"data", SYN, options=bytes([1]) * words * 4))
    key = director.service(1, address=VIP6, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    extension = (packets.DESTINATION_OPTIONS, packets.options_extension())
    for length in (0, 1, 6):
        for pair in (one.asked, one.answered):
            _passes(director, pair(b"data", SYN, extensions=(extension,) * length))


@families
def test_replies_of_flows_that_nobody_knows(director: Director, address: bytes) -> None:
    """The real server's own traffic is its own: with another client, port, protocol or none of ours."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    _passes(director, one.asked(b"", SYN))
    other_client = bytes([*one.client[0][:-1], 199])
    for wrong in (
        Masqueraded(TCP, (one.client[0], one.client[1] ^ 1), one.virtual, one.server),
        Masqueraded(TCP, one.client, one.virtual, (one.server[0], SERVER_PORT + 1)),
        Masqueraded(TCP, one.client, one.virtual, (one.server[0], key.port)),
        Masqueraded(TCP, one.client, one.virtual, (_server(key, 2), SERVER_PORT)),
        Masqueraded(TCP, (other_client, one.client[1]), one.virtual, one.server),
        Masqueraded(UDP, one.client, one.virtual, one.server),
    ):
        _is_untouched(director, wrong.answered(b"", SYN | ACK)[0])
    _passes(director, one.answered(b"", SYN | ACK))


def test_connections_of_other_methods_have_no_way_back(director: Director) -> None:
    for method in ("route", "tunnel"):
        key = director.service(1, method=method)
        one = _connection(director, key, key.port)
        assert director.tc(director.frame(one.asked(b"", SYN)[0]))[0] == SENT
        assert len(_slots(director, one)) == 1
        _is_untouched(director, one.answered(b"", SYN | ACK)[0])


@families
@protocols
def test_a_reply_after_the_connection_is_over(director: Director, address: bytes, protocol: int) -> None:
    """Also before the sweeper comes; both slots are free again afterwards."""
    key = director.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    _passes(director, one.asked(b"", SYN))
    _passes(director, one.answered(b"", SYN | ACK))
    own, _ = _slots(director, one)
    _let_time_pass(director, own)
    frame = director.frame(one.answered()[0])
    assert director.tc(frame) == (UNTOUCHED, frame)
    assert director.connection(key, one.client[1]) is None
    director.wait_until(lambda: not _slots(director, one), 3, "a slot stays taken")
    entry = director.entry(key, _server(key))
    assert (entry.active, entry.inactive) == (0, 0)
    assert (entry.stats.in_packets, entry.stats.out_packets) == (1, 1)
    _is_untouched(director, one.answered()[0])


def test_the_way_back_lives_as_long_as_its_connection(director: Director) -> None:
    """The sweeper does not look at the few seconds that its entry was given at first."""
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    one, other = (_connection(director, key, SERVER_PORT) for _ in range(2))
    for each in (one, other):
        _passes(director, each.asked(b"", SYN))
    _let_time_pass(director, _slots(director, one)[1])
    _let_time_pass(director, _slots(director, other)[0])
    director.wait_until(lambda: not _slots(director, other), 3, "the sweeper is gone")
    time.sleep(1.1)  # it has been everywhere since
    assert len(_slots(director, one)) == 2
    _passes(director, one.answered(b"", SYN | ACK))


def test_the_listing_has_the_connection_and_not_its_way_back(director: Director) -> None:
    for address in (VIP, VIP6):
        key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
        one = _connection(director, key, SERVER_PORT)
        for pair in (one.asked(b"", SYN), one.answered(b"", SYN | ACK), one.asked()):
            _passes(director, pair)
        ends = {one.client, one.server}
        (listed,) = (
            found
            for found in director.table.connections()
            if {(found.client, found.client_port), (found.virtual, found.virtual_port)} & ends
        )
        assert (listed.client_port, listed.virtual, listed.virtual_port) == (one.client[1], *one.virtual)
        assert (listed.destination, listed.destination_port) == one.server
        assert listed.state == "ESTABLISHED"
        entry = director.entry(key, _server(key))
        assert (entry.destination.method, entry.destination.port) == (MASQUERADE, SERVER_PORT)
        assert (entry.active, entry.inactive) == (1, 0)
        assert len(_slots(director, one)) == 2


@families
def test_a_real_server_that_goes_and_comes_back(director: Director, address: bytes) -> None:
    """Its clients' packets are dropped meanwhile; what it still has to say gets through."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    for pair in (one.asked(b"", SYN), one.answered(b"", SYN | ACK), one.asked()):
        _passes(director, pair)
    director.table.delete_destination(key, _server(key), SERVER_PORT)
    frame = director.frame(one.asked(b"lost")[0])
    assert director.tc(frame) == (DROPPED, frame)
    _passes(director, one.answered(b"late"))
    director.table.add_destination(key, Destination(_server(key), SERVER_PORT, MASQUERADE))
    for pair in (one.asked(b"again"), one.answered(b"and again")):
        _passes(director, pair)
    assert director.listing(key).stats.connections == 1


@families
def test_a_flow_that_another_real_server_gets(director: Director, address: bytes) -> None:
    """A client that opens the same flow anew: the first server's late packets are not its answer."""
    key = director.service(1, 1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    port = director.unused_port()
    director.tc(director.frame(_connection(director, key, SERVER_PORT, 1, port).asked(b"", SYN)[0]))
    opened = director.connection(key, port)
    assert opened is not None
    number = 1 if opened.destination == _server(key, 1) else 2
    first, second = (_connection(director, key, SERVER_PORT, n, port) for n in (number, 3 - number))
    _passes(director, first.answered(b"", SYN | ACK))
    _passes(director, first.answered(b"", RST | ACK))
    _passes(director, second.asked(b"", SYN))
    _is_untouched(director, first.answered(b"late")[0])
    _passes(director, second.answered(b"", SYN | ACK))
    assert [
        (director.entry(key, _server(key, n)).active, director.entry(key, _server(key, n)).inactive)
        for n in (number, 3 - number)
    ] == [(0, 0), (1, 0)]
    # Back to the first: it is the only one that is heard again.
    _passes(director, second.answered(b"", RST))
    _passes(director, first.asked(b"", SYN))
    _is_untouched(director, second.answered(b"late")[0])
    _passes(director, first.answered(b"", SYN | ACK))


def test_reopening_takes_no_more_slots(director: Director) -> None:
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    for _ in range(100):
        for pair in (one.asked(b"", SYN), one.answered(b"", SYN | ACK), one.answered(b"", RST)):
            _passes(director, pair)
        assert len(_slots(director, one)) == 2
    assert director.listing(key).stats.connections == 100


def test_one_client_port_on_two_services(director: Director) -> None:
    """Two VIPs or ports, one real server and port: it sees one flow, and answers the newest."""
    one_key, other_key = (director.service(1, method=MASQUERADE, server_port=SERVER_PORT) for _ in range(2))
    one = _connection(director, one_key, SERVER_PORT)
    other = _connection(director, other_key, SERVER_PORT, client_port=one.client[1])
    _passes(director, one.asked(b"", SYN))
    _passes(director, one.answered(b"", SYN | ACK))
    (own, way_back) = _slots(director, one)
    _passes(director, other.asked(b"", SYN))
    _passes(director, other.answered(b"", SYN | ACK))
    # The end of the older one does not cut off the newer.
    _let_time_pass(director, own)
    director.wait_until(lambda: own not in dict(director.slots(abi.PHASE_LIVE)), 3, "the older one stays")
    _passes(director, other.answered(b"still here"))
    newer, same_way_back = _slots(director, other)
    assert same_way_back == way_back
    _let_time_pass(director, newer)
    director.wait_until(lambda: not _slots(director, other), 3, "a slot stays taken")


@families
def test_answers_are_the_older_ones_again(director: Director, address: bytes) -> None:
    """After the newest of two with one client port and one real server has ended."""
    one_key, other_key = (
        director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT) for _ in range(2)
    )
    one = _connection(director, one_key, SERVER_PORT)
    other = _connection(director, other_key, SERVER_PORT, client_port=one.client[1])
    for turn in range(2):
        _passes(director, one.asked(b"", SYN if turn == 0 else ACK))
        _passes(director, one.answered(b"", SYN | ACK if turn == 0 else ACK))
        own, way_back = _slots(director, one)
        _passes(director, other.asked(b"", SYN))
        _passes(director, other.answered(b"", SYN | ACK))
        newer, _ = _slots(director, other)
        _let_time_pass(director, newer)
        director.wait_until(lambda: not _slots(director, other)[1:], 3, "the newer one stays")
        assert _slots(director, one) == [own, way_back]
        _passes(director, one.answered(b"still here"))
    # What nobody has any more goes.
    _let_time_pass(director, own)
    director.wait_until(lambda: not _slots(director, one), 3, "a slot stays taken")


@families
def test_answers_are_the_older_ones_after_the_newer_moved(director: Director, address: bytes) -> None:
    """Its place was taken by a connection of the same flow, to another real server."""
    one_key, other_key = (
        director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT) for _ in range(2)
    )
    one = _connection(director, one_key, SERVER_PORT)
    port = one.client[1]
    other, elsewhere = (_connection(director, other_key, SERVER_PORT, n, port) for n in (1, 2))
    for newest in (one, other):
        _passes(director, newest.asked(b"", SYN))
        _passes(director, newest.answered(b"", SYN | ACK))
    _passes(director, other.answered(b"", RST))
    for number, weight in ((1, 0), (2, 1)):
        real_server = Destination(_server(other_key, number), SERVER_PORT, MASQUERADE, weight)
        change = director.table.edit_destination if number == 1 else director.table.add_destination
        change(other_key, real_server)
    _passes(director, elsewhere.asked(b"", SYN))
    _let_time_pass(director, _slots(director, one)[1])
    before, after = one.answered(b"still here")
    director.wait_until(
        lambda: director.tc(director.frame(before)) == (SENT, director.frame(after)), 3, "it is cut off"
    )
    _passes(director, elsewhere.answered(b"", SYN | ACK))


def test_the_last_hop_of_a_reply(director: Director) -> None:
    """The stack is the router that refuses it, and tells the real server."""
    for address in (VIP, VIP6):
        key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
        one = _connection(director, key, SERVER_PORT)
        _passes(director, one.asked(b"", SYN))
        for ttl in (0, 1):
            frame = director.frame(one.answered(b"", SYN | ACK, 1)[0])
            if ttl == 0:
                frame = packets.with_one_hop_less(frame)
            _is_left_to_the_stack(director, frame)


@families
def test_a_reply_over_the_mtu_towards_its_client(director: Director, address: bytes) -> None:
    """Likewise, where it must not be fragmented; what may be is sent."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    _passes(director, one.asked(b"", SYN))
    ip("link set eth0 mtu 1300")
    try:
        fits = bytes(1300 - (40 if address == VIP else 60))
        _passes(director, one.answered(fits, ACK))
        if address == VIP:
            _passes(director, one.answered(fits + b"!", ACK))
        frame = director.frame(packets.without_fragmentation(one.answered(fits + b"!", ACK)[0]))
        director.wait_until(lambda: director.tc(frame)[0] == UNTOUCHED, 3, "the old MTU stays")
        _is_left_to_the_stack(director, frame)
        # What is shorter goes on all the while, whatever was too long.
        _passes(director, one.answered(fits, ACK))
        _is_left_to_the_stack(director, frame)
    finally:
        ip("link set eth0 mtu 1500")


@families
def test_the_way_to_a_client_changes(director: Director, address: bytes) -> None:
    """It is remembered for an eighth of a second; for each client by itself."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    clients = ["10.66.0.1", "10.66.0.2"] if address == VIP else ["fd66::1", "fd66::2"]
    network, gateway = ("10.66.0.0/16", "10.0.0.12") if address == VIP else ("fd66::/64", "fd00::c")
    connections = [
        Masqueraded(TCP, (packets.packed(client), 4000), (address, key.port), (_server(key), SERVER_PORT))
        for client in clients
    ]
    ip(f"route add {network} via {gateway}")
    try:
        for one in connections:
            _passes(director, one.asked(b"", SYN))
            _passes(director, one.answered(b"", SYN | ACK))
        ip(f"route add blackhole {clients[0]}")
        gone, there = (director.frame(one.answered()[0]) for one in connections)
        director.wait_until(lambda: director.tc(gone)[0] == DROPPED, 3, "the old way stays")
        assert director.tc(there)[0] == SENT
        ip(f"route del blackhole {clients[0]}")
        director.wait_until(lambda: director.tc(gone)[0] == SENT, 3, "the way does not come back")
    finally:
        ip(f"route del {network}")


def test_a_client_that_cannot_be_reached(director: Director) -> None:
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    one = Masqueraded(
        TCP, (packets.packed("10.66.0.1"), 4000), (VIP, key.port), (real_server(1), SERVER_PORT)
    )
    ip("route add 10.66.0.0/16 via 10.0.0.12")
    _passes(director, one.asked(b"", SYN))
    _passes(director, one.answered(b"", SYN | ACK))
    ip("route del 10.66.0.0/16 via 10.0.0.12")
    frame = director.frame(one.answered()[0])
    director.wait_until(lambda: director.tc(frame)[0] == DROPPED, 3, "the old way stays")
    before = director.events()["unroutable"]
    assert director.tc(frame)[0] == DROPPED
    assert director.events()["unroutable"] == before + 1


def test_a_deleted_service(director: Director) -> None:
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key, SERVER_PORT)
    _passes(director, one.asked(b"", SYN))
    director.table.delete_service(key)
    frame = director.frame(one.asked()[0])
    assert director.tc(frame) == (DROPPED, frame)
    director.another_command()
    director.table.add_service(Service(key, "rr"))
    director.table.add_destination(key, Destination(_server(key), SERVER_PORT, MASQUERADE))
    _passes(director, one.asked(b"back", ACK | PSH))
    _passes(director, one.answered(b"back", ACK | PSH))
    assert director.listing(key).stats == Stats(0, 1, 1, 44, 44)


def test_the_expected_packets_are_right(director: Director) -> None:
    """Guards the rest: a captured segment's checksum, and the sum over a whole packet."""
    assert director
    one = Masqueraded(TCP, (CLIENT, 1), (VIP, 2), (real_server(1), 3))
    for packet in one.asked(b"odd") + one.answered(b"even"):
        assert checksum(packet[:20]) == 0
        segment = packet[20:]
        assert checksum(packet[12:20] + pack(">HH", TCP, len(segment)) + segment) == 0


@pytest.mark.parametrize("one_packet", [False, True], ids=["", "one-packet"])
def test_a_service_of_all_ports_leaves_each_its_port(director: Director, one_packet: bool) -> None:
    """Whatever port the real server has (kernel: ip_vs_sched_persist)."""
    key = ServiceKey(2, UDP, VIP, 0)
    director.table.add_service(Service(key, "rr", persistence=50, one_packet=one_packet))
    try:
        director.table.add_destination(key, Destination(real_server(1), SERVER_PORT, MASQUERADE))
        for port in (9000, 53):
            client, server = (CLIENT, director.unused_port()), (real_server(1), port)
            _passes(director, Masqueraded(UDP, client, (VIP, port), server).asked(b"data"))
    finally:
        director.table.delete_service(key)
