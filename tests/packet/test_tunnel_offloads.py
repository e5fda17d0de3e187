# SPDX-License-Identifier: GPL-2.0-only
"""Tunnels with checksums around packets whose own are still to be made, and around several segments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    FAR_SERVER,
    FAR_SERVER6,
    FAR_SERVER_MAC,
    SECOND_MAC,
    VIP,
    VIP6,
    Director,
    new_director,
)
from tests.packet.offloads import CardSocket, leave_nothing_to_the_card, with_open_checksum
from tests.packet.packets import ACK, DONT_FRAGMENT, ETHERNET_SIZE, SYN, TCP, UDP, with_one_hop_less
from tests.packet.translated import whole_packet
from xlvs.datapath.attach import TC
from xlvs.kernel.namespaces import network_namespace
from xlvs.model import TUNNEL, ServiceKey, Tunnel

SOURCES = {FAR_SERVER: packets.packed("10.0.1.1"), FAR_SERVER6: packets.packed("fd01::1")}
GUE, GUE_REMOTE, GRE = Tunnel("gue", 6080, "csum"), Tunnel("gue", 6080, "remcsum"), Tunnel("gre", 0, "csum")
UNCHECKED = [Tunnel("ipip"), Tunnel("gue", 6080), Tunnel("gre")]

combinations = pytest.mark.parametrize(
    ("address", "server"),
    [
        pytest.param(address, server, id=f"{len(address) * 8}-in-{len(server) * 8}")
        for address, server in product((VIP, VIP6), SOURCES)
    ],
)


@pytest.fixture(scope="module")
def attached() -> Iterator[Director]:
    """A director attached to interfaces that do nothing for it."""
    with new_director(mode=TC) as made:
        leave_nothing_to_the_card("eth1")
        yield made


@contextmanager
def _wires(director: Director) -> Iterator[tuple[CardSocket, CardSocket]]:
    """The client's and the real server's side."""
    with network_namespace(director.peer):
        ends = CardSocket("eth0"), CardSocket("eth1")
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


def _packet(key: ServiceKey, port: int, payload: bytes, flags: int = SYN) -> bytes:
    client = CLIENT if key.family == 2 else CLIENT6
    fields: dict[str, Any] = {"fragment": DONT_FRAGMENT} if key.family == 2 else {}
    return whole_packet(key.protocol, (client, port), (key.address, key.port), payload, flags, **fields)


def _unwrapped(frame: bytes, inner: bytes, server: bytes, tunnel: Tunnel, checked: bool) -> None:
    """Check a wrapped packet from the wire; what chance chooses is that of the frame.

    ``checked``: whether the tunnel's header has a checksum.
    """
    outer = ETHERNET_SIZE + (20 if len(server) == 4 else 40)
    source_port = int.from_bytes(frame[outer : outer + 2], "big") if tunnel.kind == "gue" else 0
    identification = int.from_bytes(frame[18:20], "big")
    wanted = packets.tunnelled(
        inner, SOURCES[server], server, tunnel.kind, tunnel.port, source_port, identification, checked
    )
    ethertype = packets.ETHERTYPE_IPV4 if len(server) == 4 else packets.ETHERTYPE_IPV6
    assert frame == packets.ethernet(wanted, ethertype, FAR_SERVER_MAC, SECOND_MAC)


@combinations
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("tunnel", [GUE, GRE, *UNCHECKED], ids=lambda tunnel: tunnel.kind + tunnel.checksum)
def test_an_open_checksum(
    attached: Director, address: bytes, server: bytes, tunnel: Tunnel, protocol: int
) -> None:
    """The card fills it in, and the tunnel's was right for that beforehand."""
    key = attached.service(
        1, address=address, protocol=protocol, servers=(server,), method=TUNNEL, tunnel=tunnel
    )
    port = attached.unused_port()
    with _wires(attached) as (client, real_server):
        for size in (0, 1, 500, 1001, 1300):
            packet = _packet(key, port, bytes(n & 0xFF for n in range(size)))
            client.send(attached.frame(with_open_checksum(packet)))
            (came,) = real_server.received(FAR_SERVER_MAC, 1)
            inner = with_one_hop_less(attached.frame(packet))[ETHERNET_SIZE:]
            _unwrapped(came, inner, server, tunnel, tunnel.checksum != "nocsum")


@combinations
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_remote_checksum_offload(attached: Director, address: bytes, server: bytes, protocol: int) -> None:
    """The client's checksum stays open, and GUE says where (draft-herbert-remotecsumoffload)."""
    key = attached.service(
        1, address=address, protocol=protocol, servers=(server,), method=TUNNEL, tunnel=GUE_REMOTE
    )
    port = attached.unused_port()
    headers, outer = (20 if len(each) == 4 else 40 for each in (address, server))
    with _wires(attached) as (client, real_server):
        for size in (0, 1, 500, 1001, 1300):
            packet = with_open_checksum(_packet(key, port, bytes(n & 0xFF for n in range(size))))
            client.send(attached.frame(packet))
            (came,) = real_server.received(FAR_SERVER_MAC, 1)
            udp = came[ETHERNET_SIZE + outer :]
            inner = with_one_hop_less(attached.frame(packet))[ETHERNET_SIZE:]
            option = bytes.fromhex("80000000") + bytes(
                [0, headers, 0, headers + (16 if protocol == TCP else 6)]
            )
            assert udp[8:] == bytes([2, 4 if headers == 20 else 41, 0, 1]) + option + inner
            assert udp[2:6] == (6080).to_bytes(2, "big") + len(udp).to_bytes(2, "big")
            pseudo = SOURCES[server] + server + len(udp).to_bytes(4, "big") + (17).to_bytes(4, "big")
            assert udp[6:8] != b"\0\0"
            assert packets.checksum(pseudo + udp) == 0


def _segment(key: ServiceKey, port: int, number: int, payload: bytes, sequence: int) -> bytes:
    """A segment as the device cuts it, with one hop less."""
    transport = packets.tcp(port, key.port, ACK, payload, sequence)
    if key.family == 2:
        made = packets.ipv4(
            CLIENT, key.address, TCP, transport, 63, identification=number, fragment=DONT_FRAGMENT
        )
    else:
        made = packets.ipv6(CLIENT6, key.address, TCP, transport, 63)
    return packets.with_checksum(made)


@combinations
@pytest.mark.parametrize(
    "tunnel", [GUE, GUE_REMOTE, GRE, *UNCHECKED], ids=lambda tunnel: tunnel.kind + tunnel.checksum
)
def test_several_segments(attached: Director, address: bytes, server: bytes, tunnel: Tunnel) -> None:
    """GUE has no checksum then; GRE's is that of the segments of full size, in IPv6 that of all."""
    key = attached.service(1, address=address, servers=(server,), method=TUNNEL, tunnel=tunnel)
    overhead = (20 if len(server) == 4 else 40) + {"ipip": 0, "gue": 12, "gre": 4}[tunnel.kind]
    overhead += 4 * (tunnel == GRE)
    port = attached.unused_port()
    full = 1000 - overhead
    with _wires(attached) as (client, real_server):
        client.send(attached.frame(with_open_checksum(_packet(key, port, b""))))
        real_server.received(FAR_SERVER_MAC, 1)
        for size in (3 * full, 2 * full + 1, 5 * full - 1):
            payload = bytes(n % 251 for n in range(size))
            packet = _packet(key, port, payload, ACK)
            before = attached.events()["unchecked"]
            client.send(attached.frame(with_open_checksum(packet)), 1000)
            count = (size + full - 1) // full
            came = real_server.received(FAR_SERVER_MAC, count)
            assert len(came) == count
            lossy = tunnel == GRE and len(address) == 4 and size % full
            for number, frame in enumerate(came):
                part = payload[number * full :][:full]
                inner = _segment(key, port, number, part, 1 + number * full)
                if lossy and number == count - 1:
                    field = ETHERNET_SIZE + overhead - 4
                    assert packets.checksum(frame[field - 4 :]) != 0
                    right = packets.checksum(frame[field - 4 : field] + bytes(4) + frame[field + 4 :])
                    frame = frame[:field] + right.to_bytes(2, "big") + frame[field + 2 :]
                _unwrapped(frame, inner, server, tunnel, tunnel == GRE)
            unchecked = tunnel in (GUE, GUE_REMOTE) or lossy
            assert attached.events()["unchecked"] == before + bool(unchecked)
