# SPDX-License-Identifier: GPL-2.0-only
"""Direct Routing's packet: one hop less, and not another byte changed."""

from __future__ import annotations

import time
from struct import pack

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    FAR_SERVER,
    FAR_SERVER6,
    INTERFACE_MAC,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    XDP_TX,
    Director,
    real_server,
    real_server_mac,
)
from tests.packet.icmp_errors import HOST_UNREACHABLE, TIME_EXCEEDED, error_about
from tests.packet.packets import ACK, PSH, SYN, TCP, UDP, with_one_hop_less
from tests.packet.spaces import ip
from xlvs.datapath.records import address as stored_address
from xlvs.datapath.records import milliseconds_to_ticks, ticks_now
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, Destination, Service, ServiceKey, Tunnel


def test_every_header_checksum(director: Director) -> None:
    """Identification 0 to 65535 brings about every checksum that a header can have."""
    key = director.service(1)
    port = director.open(key, ACK)
    segment = packets.tcp(port, key.port, ACK)
    seen = set()
    for identification in range(65536):
        frame = director.frame(packets.ipv4(CLIENT, VIP, TCP, segment, identification=identification))
        seen.add(frame[24:26])
        assert director.tc(frame) == (SENT, with_one_hop_less(frame))
    assert len(seen) == 65535


@pytest.mark.parametrize("ttl", [2, 3, 64, 127, 128, 255])
def test_one_hop_less(director: Director, ttl: int) -> None:
    for address in (VIP, VIP6):
        key = director.service(1, address=address)
        port = director.unused_port()
        for flags in (SYN, ACK):
            frame = director.segment(key, port, flags, b"some payload", ttl)
            verdict, after = director.tc(frame)
            assert verdict == SENT
            assert after == with_one_hop_less(frame)
            assert after[22 if len(address) == 4 else 21] == ttl - 1


def test_ip_options_stay(director: Director) -> None:
    key = director.service(1)
    port = director.unused_port()
    for words in range(11):
        options = bytes([1]) * (words * 4 - 1) + b"\0" if words else b""
        segment = packets.tcp(port, key.port, SYN, b"data")
        frame = director.frame(packets.ipv4(CLIENT, VIP, TCP, segment, options=options))
        assert director.tc(frame) == (SENT, with_one_hop_less(frame))
        segment = packets.tcp(port, key.port, ACK, b"data")
        frame = director.frame(packets.ipv4(CLIENT, VIP, TCP, segment, options=options))
        assert director.xdp(frame)[0] == XDP_TX
    assert director.listing(key).stats.connections == 1


def test_extension_headers_stay(director: Director) -> None:
    key = director.service(1, address=VIP6)
    port = director.unused_port()
    routing = (packets.ROUTING, bytes([0, 4, 0]) + bytes(4))
    for chain in (
        ((packets.HOP_BY_HOP, packets.options_extension()),),
        ((packets.DESTINATION_OPTIONS, packets.options_extension(3)),),
        (routing,),
        ((packets.FRAGMENT, packets.fragment_extension(0, more=True)),),
        ((packets.HOP_BY_HOP, packets.options_extension(1)), routing)
        + ((packets.DESTINATION_OPTIONS, packets.options_extension()),) * 4,
    ):
        segment = packets.tcp(port, key.port, SYN, b"data")
        frame = director.frame(packets.ipv6(CLIENT6, VIP6, TCP, segment, extensions=chain))
        assert director.tc(frame) == (SENT, with_one_hop_less(frame))
    assert director.listing(key).stats.connections == 1


def test_a_first_fragment_is_scheduled(director: Director) -> None:
    """Offset 0 and "more fragments": it has the ports."""
    key = director.service(1)
    segment = packets.tcp(director.unused_port(), key.port, SYN)
    frame = director.frame(packets.ipv4(CLIENT, VIP, TCP, segment, fragment=0x2000))
    assert director.tc(frame) == (SENT, with_one_hop_less(frame))


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("ttl", [0, 1])
def test_the_last_hop(director: Director, address: bytes, ttl: int) -> None:
    """Answered and counted as the kernel does: after the connection and its counters."""
    key = director.service(1, address=address)
    port = director.open(key, ACK)
    for client_port, flags in ((port, ACK), (director.unused_port(), SYN)):
        before = director.events()
        frame = director.segment(key, client_port, flags, ttl=ttl)
        assert director.xdp(frame) == (XDP_PASS, frame)
        verdict, answer = director.tc(frame)
        assert (verdict, answer) == (SENT, error_about(frame, TIME_EXCEEDED, answer))
        after = director.events()
        assert after == before | {"ttl_exceeded": before["ttl_exceeded"] + 1}
    assert director.listing(key).stats.in_packets == 4
    assert director.listing(key).stats.connections == 2


def test_the_way_is_the_routing_tables(director: Director) -> None:
    """Interface, next hop and MACs follow routes and neighbours, through a gateway, too."""
    ip("route add 10.7.0.0/16 via 10.0.0.13")
    key = director.service(
        1, 1, 1, servers=(real_server(1), FAR_SERVER, bytes([10, 7, 0, 1])), scheduler="rr"
    )
    for _ in range(3):
        director.open(key)
    found = {}
    for index in range(director.maps.settings.destinations_top):
        record = director.maps.destination(index)
        if record.flags & abi.DESTINATION_AVAILABLE and record.port == int.from_bytes(
            pack(">H", key.port), "little"
        ):
            found[stored_address(record.address, 2)] = record
    near, far, routed = found[real_server(1)], found[FAR_SERVER], found[bytes([10, 7, 0, 1])]
    assert near.interface == director.ifindex
    assert far.interface == director.second_ifindex
    assert routed.interface == director.ifindex
    assert stored_address(near.next_hop, 2) == real_server(1)
    assert stored_address(far.next_hop, 2) == FAR_SERVER
    assert stored_address(routed.next_hop, 2) == real_server(3)
    assert bytes(near.mac) == real_server_mac(1)
    assert bytes(near.source_mac) == INTERFACE_MAC
    assert bytes(routed.mac) == real_server_mac(3)


def test_no_way_to_the_real_server(director: Director) -> None:
    for address, server in ((VIP, bytes([172, 31, 0, 1])), (VIP6, packets.packed("fd77::1"))):
        key = director.service(1, address=address, servers=(server,))
        before = director.events()["unroutable"]
        frame = director.segment(key, director.unused_port(), SYN)
        verdict, after = director.tc(frame)
        assert verdict == SENT
        assert after == error_about(frame, HOST_UNREACHABLE, after)
        assert director.events()["unroutable"] == before + 1


def test_a_route_that_comes_later(director: Director) -> None:
    """The packet path itself looks for the way again; no command has to."""
    server = bytes([10, 9, 9, 9])
    key = director.service(1, servers=(server,))
    port = director.unused_port()
    frame = director.segment(key, port, SYN)

    def is_forwarded() -> bool:
        verdict, after = director.tc(frame)
        assert verdict == SENT
        forwarded = after == with_one_hop_less(frame)
        assert forwarded or after == error_about(frame, HOST_UNREACHABLE, after)
        return forwarded

    assert not is_forwarded()
    ip("route add 10.9.0.0/16 via 10.0.0.14")
    try:
        director.wait_until(is_forwarded, 3, "the new route is not used")
    finally:
        ip("route del 10.9.0.0/16 via 10.0.0.14")
    director.wait_until(lambda: not is_forwarded(), 3, "the old route is still used")


@pytest.mark.parametrize(
    ("address", "server"), [(VIP, "10.0.0.77"), (VIP6, "fd00::77")], ids=["ipv4", "ipv6"]
)
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE, TUNNEL])
def test_a_real_server_that_nobody_answers_for(
    director: Director, address: bytes, server: str, method: str
) -> None:
    """Its clients are told three seconds after the first was let wait; every other second asks again.

    In kernel IPVS each hears of it when his packet has waited for three seconds in vain.
    """
    tunnel = Tunnel() if method == TUNNEL else None
    key = director.service(
        1, address=address, servers=(packets.packed(server),), method=method, tunnel=tunnel
    )
    record = director.record(key)
    frame = director.segment(key, director.unused_port(), SYN)

    def is_told(*, asked: int, looked: int) -> bool:
        """Whether a client is, so many milliseconds after the question and the look-up before."""
        now = ticks_now()
        record.asked = now - milliseconds_to_ticks(asked)
        record.refreshed = now - milliseconds_to_ticks(looked)
        before = director.events()
        verdict, after = director.tc(frame)
        assert verdict == SENT
        told = after == error_about(frame, HOST_UNREACHABLE, after)
        counted = {name for name, count in director.events().items() if count != before[name]}
        assert counted == ({"unroutable"} if told else {"forwarded"})
        return told

    assert director.tc(frame)[0] == SENT
    assert not is_told(asked=1100, looked=1100)
    assert is_told(asked=5000, looked=1100)
    assert not is_told(asked=6000, looked=1100)
    assert is_told(asked=7000, looked=1100)
    # Long after the last look-up nobody knows what became of that question.
    assert not is_told(asked=60_000, looked=60_000)
    assert not is_told(asked=4000, looked=4000)
    assert not is_told(asked=1100, looked=1100)
    assert is_told(asked=5000, looked=1100)
    ip(f"neigh add {server} lladdr 02:00:00:00:00:77 dev eth0")
    try:
        assert not is_told(asked=6000, looked=1100)
        assert not is_told(asked=7000, looked=1100)
    finally:
        ip(f"neigh del {server} dev eth0")
    assert not is_told(asked=8000, looked=1100)
    assert is_told(asked=5000, looked=1100)
    # It was an address of the director's once, and is another machine's by now.
    record.flags |= abi.DESTINATION_LOCAL
    assert not is_told(asked=6000, looked=1100)
    assert is_told(asked=7000, looked=1100)


@pytest.mark.parametrize(
    ("address", "servers"),
    [
        (VIP, (bytes([127, 0, 0, 1]), packets.packed("10.0.0.1"))),
        (VIP6, (packets.packed("::1"), packets.packed("fd00::1"))),
    ],
    ids=["ipv4", "ipv6"],
)
def test_the_director_as_real_server(director: Director, address: bytes, servers: tuple[bytes, ...]) -> None:
    """The packet goes up the stack as it came, and is counted like any other."""
    for server in servers:
        key = director.service(1, address=address, servers=(server,))
        port = director.unused_port()
        for flags, ttl in ((SYN, 64), (ACK, 1)):
            frame = director.segment(key, port, flags, ttl=ttl)
            assert director.xdp(frame) == (XDP_PASS, frame)
            assert director.tc(frame) == (UNTOUCHED, frame)
        entry = director.entry(key, server)
        assert (entry.active, entry.stats.connections, entry.stats.in_packets) == (1, 1, 2)


def test_ip_forward_is_not_asked(director: Director) -> None:
    for address, server, family in ((VIP, FAR_SERVER, "ipv4"), (VIP6, FAR_SERVER6, "ipv6")):
        path = f"/proc/sys/net/{family}/conf/all/forwarding"
        key = director.service(1, address=address, servers=(server,))
        with open(path) as file:
            before = file.read()
        for value in ("1", "0"):
            with open(path, "w") as file:
                file.write(value)
            port = director.open(key, ACK, ACK | PSH)
            assert director.connection(key, port) is not None
        with open(path, "w") as file:
            file.write(before)


def test_services_are_told_apart(director: Director) -> None:
    """TCP and UDP, IPv4 and IPv6, port by port: each connection is its service's."""
    port = director.unused_key().port
    keys = [
        ServiceKey(family, protocol, address, port + offset)
        for family, address in ((2, VIP), (10, VIP6))
        for protocol in (TCP, UDP)
        for offset in (0, 1)
    ]
    director.unused_key()
    for key in keys:
        director.table.add_service(Service(key, "rr"))
        server = real_server(1) if key.family == 2 else packets.packed("fd00::b")
        director.table.add_destination(key, Destination(server, key.port))
    client_port = director.unused_port()
    for count, key in enumerate(keys, start=1):
        for _ in range(count):
            assert director.tc(director.segment(key, client_port, SYN))[0] == SENT
    for count, key in enumerate(keys, start=1):
        assert director.listing(key).stats.in_packets == count
        assert director.listing(key).stats.connections == 1
        connection = director.connection(key, client_port)
        assert connection is not None
        assert connection.client == (CLIENT if key.family == 2 else CLIENT6)
        assert connection.destination_port == key.port


def test_a_large_packet_does_not_cut_the_way_for_others(director: Director) -> None:
    """It comes when the way is looked up again, and is larger than the MTU there."""
    key = director.service()
    port = director.open(key, ACK)
    unroutable = director.events()["unroutable"]
    time.sleep(1.1)  # the last look is too old by then
    director.tc(director.segment(key, port, ACK, payload=bytes(3000)))
    assert director.tc(director.segment(key, port, ACK))[0] == SENT
    assert director.events()["unroutable"] == unroutable
