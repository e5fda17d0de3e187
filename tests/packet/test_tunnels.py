# SPDX-License-Identifier: GPL-2.0-only
"""Tunnelling: the outer headers, byte for byte, in every combination of families and kinds."""

from __future__ import annotations

import os
from itertools import product
from typing import Any

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    FAR_SERVER,
    FAR_SERVER6,
    SENT,
    VIP,
    VIP6,
    Director,
    real_server,
)
from tests.packet.icmp_errors import HOST_UNREACHABLE, error_about
from tests.packet.packets import ACK, DONT_FRAGMENT, ETHERNET_SIZE, SYN, TCP, UDP
from tests.packet.spaces import ip
from tests.packet.translated import End, whole_packet
from xlvs.errors import InvalidOperation
from xlvs.model import ROUTE, TUNNEL, Destination, ServiceKey, Stats, Tunnel

KINDS = [
    Tunnel("ipip"),
    Tunnel("gue", 6080),
    Tunnel("gre"),
    Tunnel("gue", 6080, "csum"),
    Tunnel("gue", 6080, "remcsum"),
    Tunnel("gre", 0, "csum"),
]
GUE_SOURCE_PORTS = range(32768, 61000)
"""The kernel's net.ipv4.ip_local_port_range."""
ALWAYS_FINDS_SOURCES = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 7)
"""Whether bpf_fib_lookup() tells the source address of a route; some older kernels have got that, too."""
SOURCES = {FAR_SERVER: packets.packed("10.0.1.1"), FAR_SERVER6: packets.packed("fd01::1")}
"""The director's own address on the way to each real server."""


def _name(tunnel: Tunnel) -> str:
    return tunnel.kind if tunnel.checksum == "nocsum" else f"{tunnel.kind}-{tunnel.checksum}"


combinations = pytest.mark.parametrize(
    ("address", "server", "tunnel"),
    [
        pytest.param(
            address, server, tunnel, id=f"{len(address) * 8}-in-{len(server) * 8}-by-{_name(tunnel)}"
        )
        for address, server, tunnel in product((VIP, VIP6), (FAR_SERVER, FAR_SERVER6), KINDS)
    ],
)


def _client(key: ServiceKey, port: int) -> End:
    return (CLIENT if key.family == 2 else CLIENT6, port)


def _wrapped(director: Director, packet: bytes, server: bytes, tunnel: Tunnel) -> bytes:
    """Send a client's packet by TC, and check what comes out; returns that frame."""
    frame = director.frame(packet)
    verdict, after = director.tc(frame)
    assert verdict == SENT
    assert after == expected(frame, after, server, tunnel)
    return after


def expected(frame: bytes, after: bytes, server: bytes, tunnel: Tunnel) -> bytes:
    """The wrapped frame; what chance chooses (identification, GUE's source port) is that of ``after``.

    Frames of a test have complete checksums: remote checksum offload has nothing to do.
    """
    inner = packets.with_one_hop_less(frame)[ETHERNET_SIZE:]
    is_ipv4 = len(server) == 4
    source_port = 0
    if tunnel.kind == "gue":
        offset = ETHERNET_SIZE + (20 if is_ipv4 else 40)
        source_port = int.from_bytes(after[offset : offset + 2], "big")
        assert source_port in GUE_SOURCE_PORTS
    identification = int.from_bytes(after[18:20], "big") if is_ipv4 else 0
    outer = packets.tunnelled(
        inner, SOURCES[server], server, tunnel.kind, tunnel.port, source_port, identification,
        tunnel.checksum != "nocsum",
    )  # fmt: skip
    ethertype = packets.ETHERTYPE_IPV4 if is_ipv4 else packets.ETHERTYPE_IPV6
    return packets.ethernet(outer, ethertype, frame[:6], frame[6:12])


@combinations
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_every_combination(
    director: Director, address: bytes, server: bytes, tunnel: Tunnel, protocol: int
) -> None:
    key = director.service(
        1, address=address, protocol=protocol, servers=(server,), method=TUNNEL, tunnel=tunnel
    )
    client = _client(key, director.unused_port())
    count = total = 0
    for size, ttl, tos in (
        (0, 64, 0), (1, 2, 0xFF), (7, 255, 0xB8), (8, 128, 0x03), (100, 3, 0x01), (1000, 64, 0x02),
        (1380, 64, 0x2F),
    ):  # fmt: skip
        fields: dict[str, Any] = {"tos": tos} if key.family == 2 else {"traffic_class": tos}
        packet = whole_packet(
            protocol, client, (key.address, key.port), bytes(size), ACK if count else SYN, ttl, **fields
        )
        _wrapped(director, packet, server, tunnel)
        count, total = count + 1, total + len(packet)
        assert director.entry(key, server).stats == Stats(1, count, 0, total, 0)
    connection = director.connection(key, client[1])
    assert connection is not None
    assert connection.destination == server
    assert connection.state == ("ESTABLISHED" if protocol == TCP else "UDP")


@pytest.mark.parametrize("tunnel", KINDS, ids=_name)
def test_dont_fragment_is_copied(director: Director, tunnel: Tunnel) -> None:
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL, tunnel=tunnel)
    client = _client(key, director.unused_port())
    for flags, outer in ((DONT_FRAGMENT, b"\x40\0"), (0, b"\0\0"), (DONT_FRAGMENT | 0x8000, b"\x40\0")):
        packet = whole_packet(TCP, client, (VIP, key.port), b"data", SYN, fragment=flags)
        after = _wrapped(director, packet, FAR_SERVER, tunnel)
        assert after[20:22] == outer


@combinations
def test_headers_before_the_ports(director: Director, address: bytes, server: bytes, tunnel: Tunnel) -> None:
    key = director.service(1, address=address, servers=(server,), method=TUNNEL, tunnel=tunnel)
    client = _client(key, director.unused_port())
    extension = (packets.DESTINATION_OPTIONS, packets.options_extension())
    for length in (1, 6):
        fields: dict[str, Any] = (
            {"options": bytes([1]) * 4 * length}
            if key.family == 2
            else {"extensions": (extension,) * length}
        )
        packet = whole_packet(TCP, client, (address, key.port), b"data", SYN, **fields)
        _wrapped(director, packet, server, tunnel)


def test_gue_source_ports_tell_flows_apart(director: Director) -> None:
    """All packets of a flow have one port, so that they stay in order; flows are spread."""
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL, tunnel=KINDS[1])
    seen: list[int] = []
    for _ in range(200):
        client = _client(key, director.unused_port())
        ports = set()
        for flags, size in ((SYN, 0), (ACK, 10), (ACK, 1000)):
            packet = whole_packet(TCP, client, (VIP, key.port), bytes(size), flags)
            after = _wrapped(director, packet, FAR_SERVER, KINDS[1])
            ports.add(int.from_bytes(after[34:36], "big"))
        assert len(ports) == 1
        seen += ports
    # Of 200 from 28,232, less than one is expected to be there already.
    assert len(set(seen)) > 190
    assert max(seen) - min(seen) > len(GUE_SOURCE_PORTS) * 0.8


def test_outer_identifications_differ(director: Director) -> None:
    """Outer packets may be fragmented on their way: each has an identification of its own."""
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL, tunnel=KINDS[0])
    packet = whole_packet(TCP, _client(key, director.unused_port()), (VIP, key.port), b"", SYN)
    seen = {_wrapped(director, packet, FAR_SERVER, KINDS[0])[18:20] for _ in range(100)}
    assert len(seen) > 90


@combinations
def test_it_is_listed_as_it_was_defined(
    director: Director, address: bytes, server: bytes, tunnel: Tunnel
) -> None:
    key = director.service(1, address=address, servers=(server,), method=TUNNEL, tunnel=tunnel)
    director.another_command()
    assert director.entry(key, server).destination == Destination(server, key.port, TUNNEL, 1, tunnel=tunnel)


def test_without_a_kind_it_is_ipip(director: Director) -> None:
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL)
    director.another_command()
    assert director.entry(key, FAR_SERVER).destination.tunnel == Tunnel("ipip", 0, "nocsum")
    packet = whole_packet(TCP, _client(key, director.unused_port()), (VIP, key.port), b"", SYN)
    _wrapped(director, packet, FAR_SERVER, KINDS[0])


def test_another_kind_is_used_at_once(director: Director) -> None:
    """The kernel wraps by what its real server says now, also for connections that live."""
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL, tunnel=KINDS[0])
    packet = whole_packet(TCP, _client(key, director.unused_port()), (VIP, key.port), b"", SYN)
    for tunnel in (*KINDS, Tunnel("gue", 7070), KINDS[0]):
        director.another_command()
        director.table.edit_destination(key, Destination(FAR_SERVER, key.port, TUNNEL, tunnel=tunnel))
        assert director.entry(key, FAR_SERVER).destination.tunnel == tunnel
        _wrapped(director, packet, FAR_SERVER, tunnel)
    assert director.listing(key).stats.connections == 1


def test_connections_of_a_real_server_that_is_tunnelled_no_more(director: Director) -> None:
    """They go on in a tunnel, of the kind that its new description leaves: IPIP (kernel: the same)."""
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL, tunnel=KINDS[1])
    packet = whole_packet(TCP, _client(key, director.unused_port()), (VIP, key.port), b"", SYN)
    _wrapped(director, packet, FAR_SERVER, KINDS[1])
    director.table.edit_destination(key, Destination(FAR_SERVER, key.port, ROUTE))
    _wrapped(director, packet, FAR_SERVER, KINDS[0])


LATE = {
    packets.packed("10.0.2.10"): "10.0.2.10/32 dev eth1",
    packets.packed("fd02::10"): "fd02::10/128 dev eth1",
}
"""Real servers to which there is no route yet, and that route."""


@pytest.mark.parametrize("server", LATE, ids=["ipv4", "ipv6"])
def test_a_route_that_comes_later(director: Director, server: bytes) -> None:
    """Without one nothing leaves; then the source is the route's: on older kernels, once edited."""
    key = director.service(1, servers=(server,), method=TUNNEL, tunnel=KINDS[0])
    packet = whole_packet(TCP, _client(key, director.unused_port()), (VIP, key.port), b"", SYN)
    frame = director.frame(packet)
    unroutable = director.events()["unroutable"]
    verdict, after = director.tc(frame)
    assert (verdict, after) == (SENT, error_about(frame, HOST_UNREACHABLE, after))
    assert director.events()["unroutable"] == unroutable + 1
    place = ETHERNET_SIZE + (12 if len(server) == 4 else 8)
    try:
        for source in ("10.0.0.1", "10.0.1.1") if len(server) == 4 else ("fd00::1", "fd01::1"):
            ip(f"route replace {LATE[server]} src {source}")
            director.record(key).refreshed = 0
            verdict, after = director.tc(frame)
            if (verdict, after[place:][: len(server)]) != (SENT, packets.packed(source)):
                assert not ALWAYS_FINDS_SOURCES
                director.table.edit_destination(key, Destination(server, key.port, TUNNEL, tunnel=KINDS[0]))
                verdict, after = director.tc(frame)
            assert (verdict, after[place:][: len(server)]) == (SENT, packets.packed(source))
    finally:
        ip(f"route delete {LATE[server]}")


@pytest.mark.parametrize(
    "tunnel",
    [Tunnel("ipip", 0, "csum"), Tunnel("ipip", 0, "remcsum"), Tunnel("gre", 0, "remcsum")],
    ids=_name,
)
def test_checksums_that_a_type_has_not(director: Director, tunnel: Tunnel) -> None:
    key = director.service(1, method=TUNNEL)
    before = director.listing(key)
    for change in (director.table.add_destination, director.table.edit_destination):
        with pytest.raises(InvalidOperation, match=f"{tunnel.kind} has no {tunnel.checksum}"):
            change(key, Destination(real_server(1), key.port, TUNNEL, tunnel=tunnel))
    assert director.listing(key) == before
