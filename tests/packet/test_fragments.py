# SPDX-License-Identifier: GPL-2.0-only
"""Fragments: put together again, what comes out is the datagram that a whole one would have become."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    FAR_SERVER,
    FAR_SERVER6,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    Director,
    real_server,
    real_server6,
)
from tests.packet.packets import ETHERNET_SIZE, TCP, UDP, packed, with_one_hop_less
from tests.packet.translated import Masqueraded
from xlvs.kernel import abi, bpf
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, ServiceKey, Stats, Tunnel

SERVER_PORT = 8080
TUNNELS = [Tunnel("ipip"), Tunnel("gue", 6080), Tunnel("gre")]
families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
_identifications: Iterator[int] = iter(range(1, 65536))


def _connection(
    director: Director, address: bytes, method: str, protocol: int = UDP, tunnel: Tunnel | None = None
) -> tuple[ServiceKey, Masqueraded]:
    """A new service and a connection that its client has not begun yet."""
    server_port = SERVER_PORT if method == MASQUERADE else None
    servers = () if method != TUNNEL else (FAR_SERVER if address == VIP else FAR_SERVER6,)
    key = director.service(
        1, address=address, protocol=protocol, method=method, server_port=server_port, servers=servers,
        tunnel=tunnel,
    )  # fmt: skip
    client, server = (CLIENT, real_server(1)) if address == VIP else (CLIENT6, real_server6(1))
    one = Masqueraded(
        protocol, (client, director.unused_port()), (address, key.port), (server, server_port or key.port)
    )
    return key, one


def _cut(packet: bytes, identification: int, size: int = 1000) -> list[bytes]:
    parts = packets.fragments(packet, size, identification)
    assert len(parts) >= 3
    return parts


def _is_untouched(director: Director, packet: bytes) -> None:
    frame = director.frame(packet)

    def pass_by() -> None:
        assert director.xdp(frame) == (XDP_PASS, frame)
        assert director.tc(frame) == (UNTOUCHED, frame)

    director.changes_nothing(pass_by)


def _passes(director: Director, packet: bytes, expected: bytes) -> None:
    frame = director.frame(packet)
    assert director.xdp(frame) == (XDP_PASS, frame)
    assert director.tc(frame) == (SENT, director.frame(expected))


def _one_hop_less(packet: bytes) -> bytes:
    return with_one_hop_less(bytes(ETHERNET_SIZE) + packet)[ETHERNET_SIZE:]


@families
@protocols
@pytest.mark.parametrize("size", [8, 24, 1000, 1448])
def test_direct_routing(director: Director, address: bytes, protocol: int, size: int) -> None:
    """With eight bytes in the first one, TCP's ports are there and its flags are not: nobody's."""
    key, one = _connection(director, address, ROUTE, protocol)
    packet, _ = one.asked(bytes(3 * size), packets.SYN)
    parts = _cut(packet, next(_identifications), size)
    if protocol == TCP and size == 8:
        for part in parts:
            _is_untouched(director, part)
        return
    for part in parts:
        _passes(director, part, _one_hop_less(part))
    total = sum(map(len, parts))
    assert director.listing(key).stats == Stats(1, len(parts), 0, total, 0)


@families
@protocols
def test_nat(director: Director, address: bytes, protocol: int) -> None:
    """Both ways, and in whatever order the later ones come."""
    key, one = _connection(director, address, MASQUERADE, protocol)
    count = total = 0
    for turn in range(4):
        flags = packets.ACK if turn else packets.SYN
        for before, after in (
            one.asked(bytes(range(256)) * 12, flags),
            one.answered(bytes(range(255, -1, -1)) * 11, flags | packets.ACK),
        ):
            identification = next(_identifications)
            both = list(zip(_cut(before, identification), _cut(after, identification), strict=True))
            first, *later = both
            for part, expected in (first, *(reversed(later) if turn % 2 else later)):
                _passes(director, part, expected)
        count, total = count + len(both), total + sum(len(part) for part, _ in both)
    stats = director.listing(key).stats
    assert (stats.connections, stats.out_packets, stats.out_bytes) == (1, count, total)
    assert director.entry(key, one.server[0]).stats == stats


@families
@pytest.mark.parametrize("tunnel", TUNNELS, ids=lambda tunnel: tunnel.kind)
def test_tunnels(director: Director, address: bytes, tunnel: Tunnel) -> None:
    """Each is wrapped by itself."""
    key, one = _connection(director, address, TUNNEL, tunnel=tunnel)
    source, server = (packed("10.0.1.1"), FAR_SERVER) if address == VIP else (packed("fd01::1"), FAR_SERVER6)
    parts = _cut(one.asked(bytes(3000))[0], next(_identifications))
    for part in parts:
        verdict, after = director.tc(director.frame(part))
        assert verdict == SENT
        offset = ETHERNET_SIZE + (20 if address == VIP else 40)
        port = int.from_bytes(after[offset : offset + 2], "big") if tunnel.kind == "gue" else 0
        assert tunnel.kind != "gue" or 32768 <= port <= 60999
        identification = int.from_bytes(after[18:20], "big")
        outer = packets.tunnelled(
            _one_hop_less(part), source, server, tunnel.kind, tunnel.port, port, identification
        )
        assert after == director.frame(outer)
    assert director.listing(key).stats.in_packets == len(parts)


@families
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE])
def test_without_the_first(director: Director, address: bytes, method: str) -> None:
    """What came before its first, or has another identification, protocol or end, is left alone."""
    _, one = _connection(director, address, method)
    identification = next(_identifications)
    first, second, third = _cut(one.asked(bytes(2500))[0], identification)
    for part in (second, third):
        _is_untouched(director, part)
    assert director.tc(director.frame(first))[0] == SENT
    assert director.tc(director.frame(second))[0] == SENT
    another = next(_identifications)
    _is_untouched(director, _cut(one.asked(bytes(2500))[0], another)[1])
    router, port = (CLIENT[:-1] + b"\xc9" if address == VIP else CLIENT6[:-1] + b"\x09"), one.client[1]
    other = Masqueraded(UDP, (router, port), one.virtual, one.server)
    _is_untouched(director, _cut(other.asked(bytes(2500))[0], identification)[1])
    back = Masqueraded(UDP, one.virtual, one.client, one.server)
    _is_untouched(director, _cut(back.asked(bytes(2500))[0], identification)[1])
    if address == VIP:
        tcp = Masqueraded(TCP, one.client, one.virtual, one.server)
        _is_untouched(director, _cut(tcp.asked(bytes(2500))[0], identification)[1])
    assert director.tc(director.frame(third))[0] == SENT


@families
def test_replies_without_the_first(director: Director, address: bytes) -> None:
    _, one = _connection(director, address, MASQUERADE)
    assert director.tc(director.frame(one.asked(b"question")[0]))[0] == SENT
    identification = next(_identifications)
    both = list(zip(*(_cut(packet, identification) for packet in one.answered(bytes(2500))), strict=True))
    for part, _ in both[1:]:
        _is_untouched(director, part)
    for part, expected in both:
        _passes(director, part, expected)


def test_identifications_of_both_ways_are_apart(director: Director) -> None:
    """Client and real server may use the same one at once."""
    for address in (VIP, VIP6):
        _, one = _connection(director, address, MASQUERADE)
        identification = next(_identifications)
        pairs = [
            pair
            for whole in (one.asked(bytes(2500)), one.answered(bytes(2500)))
            for pair in zip(*(_cut(packet, identification) for packet in whole), strict=True)
        ]
        for which in (0, 3, 1, 4, 2, 5):
            _passes(director, *pairs[which])


@pytest.mark.parametrize("kind", [packets.DESTINATION_OPTIONS, UDP, TCP])
def test_an_ipv6_extension_header_within_the_fragments(director: Director, kind: int) -> None:
    """The first one's ports come after it; the others may name any next header (RFC 8200, 4.5)."""
    _, one = _connection(director, VIP6, MASQUERADE)
    extension = ((packets.DESTINATION_OPTIONS, packets.options_extension()),)
    identification = next(_identifications)
    for whole in (one.asked, one.answered):
        cut = [_cut(packet, identification) for packet in whole(bytes(2500), extensions=extension)]
        for number, (part, expected) in enumerate(zip(*cut, strict=True)):
            if number:
                part, expected = (_with_next_header(packet, kind) for packet in (part, expected))
            _passes(director, part, expected)


def _with_next_header(fragment: bytes, kind: int) -> bytes:
    """A fragment whose fragment header names another header."""
    return fragment[:40] + bytes([kind]) + fragment[41:]


@families
def test_the_connection_is_over(director: Director, address: bytes) -> None:
    """A note that outlives its connection leads nowhere, also when another has its slot."""
    for method in (ROUTE, MASQUERADE):
        _, one = _connection(director, address, method)
        first, second, third = _cut(one.asked(bytes(2500))[0], next(_identifications))
        for part in (first, second):
            assert director.tc(director.frame(part))[0] == SENT
        ((place, slot),) = (
            (place, slot)
            for place, slot in director.slots(abi.PHASE_LIVE)
            if (slot.client, slot.client_port) == one.client
        )
        record = director.slot_record(place)
        record.flow.client[3 if address == VIP else 15] ^= 1
        frame = director.frame(third)
        assert director.tc(frame) == (DROPPED, frame)
        record.flow.client[3 if address == VIP else 15] ^= 1
        assert director.tc(frame)[0] == SENT
        record.expires = (slot.expires - 0x10000000) & 0xFFFFFFFF
        director.wait_until(
            lambda place=place: place not in dict(director.slots(abi.PHASE_LIVE)),  # type: ignore[misc]
            3,
            "the connection stays",
        )
        assert director.tc(frame) == (DROPPED, frame)


def test_a_note_is_good_for_thirty_seconds(director: Director) -> None:
    """As long as the kernel waits for the rest of a datagram (net.ipv4.ipfrag_time)."""
    _, one = _connection(director, VIP, ROUTE)
    identification = next(_identifications)
    first, second, third = _cut(one.asked(bytes(2500))[0], identification)
    for part in (first, second):
        assert director.tc(director.frame(part))[0] == SENT
    notes = director.maps.descriptor("fragments")
    ends = one.client[0].ljust(16, b"\0") + VIP.ljust(16, b"\0")
    key = ends + identification.to_bytes(2, "big") + bytes([0, 0, UDP, 2, 0, 0])
    note = bpf.lookup(notes, key, 8)
    assert note is not None
    written = int.from_bytes(note[4:], "little")
    second_of_ticks = 1_000_000_000 >> abi.TICK_SHIFT
    for age, verdict in ((29, SENT), (30, UNTOUCHED)):
        aged = (written - age * second_of_ticks) & 0xFFFFFFFF
        bpf.update(notes, key, note[:4] + aged.to_bytes(4, "little"))
        assert director.tc(director.frame(third))[0] == verdict
