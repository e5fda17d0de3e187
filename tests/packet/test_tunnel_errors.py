# SPDX-License-Identifier: GPL-2.0-only
"""ICMP errors about a tunnel's packets: the client is told, and the path's MTU learnt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

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
)
from tests.packet.icmp_errors import TOO_BIG, error_about
from tests.packet.packets import ACK, DONT_FRAGMENT, ETHERNET_SIZE, SYN, TCP, UDP, packed
from tests.packet.translated import whole_packet
from xlvs.datapath.records import seconds_to_ticks
from xlvs.model import ROUTE, TUNNEL, Service, Tunnel

ROUTERS = {FAR_SERVER: packed("10.0.1.254"), FAR_SERVER6: packed("fd01::254")}
SOURCES = {FAR_SERVER: packed("10.0.1.1"), FAR_SERVER6: packed("fd01::1")}
TUNNELS = [
    Tunnel("ipip"),
    Tunnel("gue", 6080),
    Tunnel("gre"),
    Tunnel("gue", 6080, "csum"),
    Tunnel("gre", 0, "csum"),
]
OVERHEADS = {"ipip": 0, "gue": 12, "gre": 4}
PMTU_LIFETIME = 600
"""Seconds: net.ipv4.route.mtu_expires and net.ipv6.route.mtu_expires."""

tunnels = pytest.mark.parametrize("tunnel", TUNNELS, ids=lambda tunnel: f"{tunnel.kind}-{tunnel.checksum}")
combinations = pytest.mark.parametrize(
    ("address", "server"),
    [
        pytest.param(address, server, id=f"{len(address) * 8}-in-{len(server) * 8}")
        for address, server in product((VIP, VIP6), ROUTERS)
    ],
)


@pytest.fixture(scope="module", autouse=True)
def _no_sums(director: Director) -> None:
    """What is cut short loses its device's sum, and the kernel would miss it."""
    director.device_sums = 0


@pytest.fixture(autouse=True)
def _no_path_mtu_is_left(director: Director) -> Iterator[None]:
    """Others have the same real servers."""
    yield
    for place in range(director.maps.settings.destinations_top):
        director.maps.destination(place).path_mtu = 0


class Tunnelled:
    """A connection through a tunnel of its own service."""

    def __init__(
        self, director: Director, address: bytes, server: bytes, tunnel: Tunnel, protocol: int = TCP
    ) -> None:
        self.director = director
        self.server = server
        self.key = director.service(
            1, address=address, protocol=protocol, servers=(server,), method=TUNNEL, tunnel=tunnel
        )
        self.client = (CLIENT if len(address) == 4 else CLIENT6, director.unused_port())
        self.overhead = (20 if len(server) == 4 else 40) + OVERHEADS[tunnel.kind]
        self.overhead += 4 * (tunnel.kind == "gre" and tunnel.checksum == "csum")
        self.send(b"", SYN)

    def frame(self, payload: bytes = b"", flags: int = ACK, whole: bool = True) -> bytes:
        """A frame of the client's; ``whole``: with DF in IPv4."""
        fields: dict[str, Any] = {"fragment": DONT_FRAGMENT} if self.key.family == 2 and whole else {}
        return self.director.frame(
            whole_packet(
                self.key.protocol, self.client, (self.key.address, self.key.port), payload, flags, **fields
            )
        )

    def send(self, payload: bytes = b"", flags: int = ACK, whole: bool = True) -> bytes:
        """Let the client send; returns the tunnel's packet."""
        verdict, after = self.director.tc(self.frame(payload, flags, whole))
        assert verdict == SENT
        return after[ETHERNET_SIZE:]

    def error(self, kind: int, code: int, detail: int, quoted: bytes, **fields: Any) -> bytes:
        """A frame with an error of a router on the way to the real server."""
        router, source = ROUTERS[self.server], SOURCES[self.server]
        return self.director.frame(packets.icmp(router, source, kind, code, detail, quoted, **fields))

    def too_big(self, mtu: int, quoted: bytes) -> bytes:
        """The error that a router sends for want of room."""
        return self.error(*((3, 4) if len(self.server) == 4 else (2, 0)), mtu, quoted)

    def told(self, kind: int, code: int, detail: int, inner: bytes, after: bytes) -> bytes:
        """The frame that tells the client: by the VIP, about the packet as it was in the tunnel."""
        fields: dict[str, Any] = {}
        if self.key.family == 2:
            fields = {"tos": 0xC0, "identification": int.from_bytes(after[18:20], "big")}
        longest = 576 - 28 if self.key.family == 2 else 1280 - 48
        made = packets.icmp(self.key.address, self.client[0], kind, code, detail, inner[:longest], **fields)
        return self.director.frame(made)


def _is_untouched(director: Director, frame: bytes) -> None:
    def pass_by() -> None:
        assert director.xdp(frame) == (XDP_PASS, frame)
        assert director.tc(frame) == (UNTOUCHED, frame)

    director.changes_nothing(pass_by)


@combinations
@tunnels
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_the_path_mtu(
    director: Director, address: bytes, server: bytes, tunnel: Tunnel, protocol: int
) -> None:
    """The client is told at once, and again for each packet that is too long; smaller ones go on."""
    one = Tunnelled(director, address, server, tunnel, protocol)
    before = director.entry(one.key, server).stats
    sent = one.send(bytes(range(251)) * 5)
    inner = sent[one.overhead :]
    mtu = 1290 + one.overhead
    frame = one.too_big(mtu, sent[: 548 if len(server) == 4 else 1232])
    quoted = inner[: (548 if len(server) == 4 else 1232) - one.overhead]
    assert director.xdp(frame) == (XDP_PASS, frame)
    verdict, after = director.tc(frame)
    words = (3, 4, 1290) if len(address) == 4 else (2, 0, 1290)
    assert (verdict, after) == (SENT, one.told(*words, quoted, after))
    counted = director.entry(one.key, server).stats
    assert counted == before.replace(
        in_packets=before.in_packets + 1,
        in_bytes=before.in_bytes + len(inner),
        out_packets=1,
        out_bytes=len(quoted),
    )
    headers = (20 if len(address) == 4 else 40) + (20 if protocol == TCP else 8)
    one.send(bytes(1290 - headers))
    long = one.frame(bytes(1291 - headers))
    verdict, after = director.tc(long)
    assert (verdict, after) == (SENT, error_about(long, TOO_BIG, after, 1290))


@combinations
def test_it_is_forgotten_after_ten_minutes(director: Director, address: bytes, server: bytes) -> None:
    one = Tunnelled(director, address, server, TUNNELS[0])
    director.tc(one.too_big(1400, one.send(bytes(1300))))
    record = director.record(one.key)
    headers = 40 if len(address) == 4 else 60
    long = one.frame(bytes(1400 - one.overhead - headers + 1))

    def is_too_long() -> bool:
        _, after = director.tc(long)
        return packets.transport_of(after[ETHERNET_SIZE:])[0] in (packets.ICMP, packets.ICMPV6)

    assert is_too_long()
    record.refreshed = record.refreshed - seconds_to_ticks(2) & 0xFFFFFFFF
    assert is_too_long()
    end = record.path_mtu_until
    for seconds, too_long in ((PMTU_LIFETIME - 5, True), (PMTU_LIFETIME + 1, False)):
        record.path_mtu_until = end - seconds_to_ticks(seconds) & 0xFFFFFFFF
        record.refreshed = record.refreshed - seconds_to_ticks(2) & 0xFFFFFFFF
        assert is_too_long() == too_long


@combinations
def test_only_smaller_ones_are_believed(director: Director, address: bytes, server: bytes) -> None:
    """And none below what every path can carry, or at which nobody would go on."""
    one = Tunnelled(director, address, server, TUNNELS[0])
    sent = one.send(bytes(1300))
    least = 552 if len(server) == 4 else 1280
    for said, believed in (
        (1450, 1450),
        (1400, 1400),
        (1430, 1400),
        (9000, 1400),
        (0, least),
        (1350, least),
    ):
        verdict, after = director.tc(one.too_big(said, sent))
        words = (3, 4) if len(address) == 4 else (2, 0)
        quoted = sent[one.overhead :]
        assert (verdict, after) == (SENT, one.told(*words, believed - one.overhead, quoted, after))


def test_a_client_without_path_mtu_discovery(director: Director) -> None:
    """It is told nothing, but the MTU is learnt (kernel: "Client uses PMTUD?")."""
    one = Tunnelled(director, VIP, FAR_SERVER, TUNNELS[0])
    frame = one.too_big(1400, one.send(bytes(1300), whole=False))
    assert director.tc(frame)[0] == DROPPED
    long = one.frame(bytes(1400 - 20 - 40 + 1))
    verdict, after = director.tc(long)
    assert (verdict, after) == (SENT, error_about(long, TOO_BIG, after, 1380))
    assert director.entry(one.key, FAR_SERVER).stats.out_packets == 0


@tunnels
def test_ipv4_in_ipv4_is_passed_on_as_it_is(director: Director, tunnel: Tunnel) -> None:
    one = Tunnelled(director, VIP, FAR_SERVER, tunnel)
    for size in (0, 1, 300, 1000):
        sent = one.send(bytes(range(250)) * 4)[: one.overhead + 28 + size]
        for error in ((3, 0, 0), (3, 1, 0), (3, 3, 7), (3, 13, 0), (4, 0, 0), (11, 0, 0), (11, 1, 0x10203)):
            verdict, after = director.tc(one.error(*error, sent))
            assert (verdict, after) == (SENT, one.told(*error, sent[one.overhead :], after))


@pytest.mark.parametrize(
    ("address", "server"),
    [(VIP, FAR_SERVER6), (VIP6, FAR_SERVER), (VIP6, FAR_SERVER6)],
    ids=["4-in-6", "6-in-4", "6-in-6"],
)
@tunnels
def test_other_families_hear_that_the_vip_is_unreachable(
    director: Director, address: bytes, server: bytes, tunnel: Tunnel
) -> None:
    """RFC 2473, sections 8.2 and 8.3."""
    one = Tunnelled(director, address, server, tunnel)
    sent = one.send(b"request")
    errors = (
        ((3, 0), (3, 1), (3, 3), (3, 13), (11, 0)) if len(server) == 4 else ((1, 0), (1, 4), (3, 0), (4, 1))
    )
    for kind, code in errors:
        verdict, after = director.tc(one.error(kind, code, 5, sent))
        words = (3, 1, 0) if len(address) == 4 else (1, 3, 0)
        assert (verdict, after) == (SENT, one.told(*words, sent[one.overhead :], after))
    if len(server) == 4:
        frame = one.error(4, 0, 0, sent)
        assert director.tc(frame)[0] == DROPPED


@combinations
@tunnels
def test_what_is_none_of_ours(director: Director, address: bytes, server: bytes, tunnel: Tunnel) -> None:
    """Another tunnel's packet, another flow, a quote that is too short, a message that is no error."""
    one = Tunnelled(director, address, server, tunnel)
    sent = one.send(b"request")
    kind, code = (3, 1) if len(server) == 4 else (1, 0)
    outer = 20 if len(server) == 4 else 40
    ports = one.overhead + (20 if len(address) == 4 else 40)
    for size in (0, 8, outer, outer + 4, one.overhead, ports, ports + 3):
        _is_untouched(director, one.error(kind, code, 0, sent[:size]))
    places = [outer - 1, ports, ports + 3, one.overhead]  # RIP, client's port, VIP's port, version
    places.append(12 if len(server) == 4 else 8)  # the tunnel's source
    if tunnel.kind == "gue":
        places += [outer + 3, outer + 8]
    elif tunnel.kind == "gre":
        places += [outer + 1, outer + 3]
    for place in places:
        changed = bytearray(sent)
        changed[place] ^= 0xA5
        _is_untouched(director, one.error(kind, code, 0, bytes(changed)))
    for other in (0, 5, 8, 12) if len(server) == 4 else (128, 129, 134):
        _is_untouched(director, one.error(other, 0, 0, sent))
    elsewhere = SOURCES[server][:-1] + b"\x02"
    _is_untouched(director, director.frame(packets.icmp(ROUTERS[server], elsewhere, kind, code, 0, sent)))


def test_another_kind_of_tunnel(director: Director) -> None:
    """The connection is there, but its packets are not wrapped like that."""
    one = Tunnelled(director, VIP, FAR_SERVER, Tunnel("ipip"))
    inner = one.send(b"request")[20:]
    for tunnel in TUNNELS[1:]:
        quoted = packets.tunnelled(inner, SOURCES[FAR_SERVER], FAR_SERVER, tunnel.kind, tunnel.port)
        _is_untouched(director, one.error(3, 1, 0, quoted))
    key = director.service(1, servers=(FAR_SERVER,), method=ROUTE)
    direct = whole_packet(TCP, one.client, (VIP, key.port), b"", SYN)
    assert director.tc(director.frame(direct))[0] == SENT
    _is_untouched(
        director, one.error(3, 1, 0, packets.tunnelled(direct, SOURCES[FAR_SERVER], FAR_SERVER, "ipip"))
    )


@combinations
def test_damaged_errors_are_dropped(director: Director, address: bytes, server: bytes) -> None:
    """The kernel does not believe them either."""
    one = Tunnelled(director, address, server, TUNNELS[0])
    frame = bytearray(one.too_big(1400, one.send(bytes(1300))))
    frame[-1] ^= 0xFF
    assert director.tc(bytes(frame)) == (DROPPED, bytes(frame))
    one.send(bytes(1500 - one.overhead - 60))


@combinations
def test_clients_are_not_flooded(director: Director, address: bytes, server: bytes) -> None:
    """Errors but "too big" are limited for each client, as in the kernel."""
    one = Tunnelled(director, address, server, TUNNELS[0])
    other = b"\xf9" if server == FAR_SERVER else b"\xfa"
    one.client = (one.client[0][:-1] + other, one.client[1])
    sent = one.send(b"request", SYN)
    kind, code = (3, 1) if len(server) == 4 else (1, 0)
    director.maps.settings.icmp_interval = seconds_to_ticks(60)
    try:
        verdicts = [director.tc(one.error(kind, code, 0, sent))[0] for _ in range(10)]
        assert verdicts == [SENT] * 6 + [DROPPED] * 4
        assert director.tc(one.too_big(1400, sent))[0] == SENT
    finally:
        director.maps.settings.icmp_interval = 0


def test_padding_of_the_frame_is_not_quoted(director: Director) -> None:
    one = Tunnelled(director, VIP, FAR_SERVER, TUNNELS[0])
    sent = one.send(b"request")
    verdict, after = director.tc(one.error(3, 1, 0, sent) + bytes(20))
    assert (verdict, after) == (SENT, one.told(3, 1, 0, sent[20:], after))


def test_ip_options_before_the_tunnel(director: Director) -> None:
    """Of the error and of what it quotes; the latter count as overhead, too."""
    one = Tunnelled(director, VIP, FAR_SERVER, TUNNELS[1])
    sent = one.send(bytes(1000))
    quoted = packets.ipv4(
        SOURCES[FAR_SERVER], FAR_SERVER, UDP, sent[20:], sent[8], options=b"\1" * 8, fragment=DONT_FRAGMENT
    )
    frame = one.error(3, 4, 1300, quoted, options=b"\1" * 40)
    verdict, after = director.tc(frame)
    assert (verdict, after) == (SENT, one.told(3, 4, 1300 - 40, sent[32:], after))


def test_no_packet_is_a_templates(director: Director) -> None:
    """A template stands under client port 0: an error about a packet from there is not about it."""
    one = Tunnelled(director, VIP, FAR_SERVER, Tunnel("ipip"))
    director.table.edit_service(Service(one.key, "rr", persistence=50, netmask=32))
    one.client = (CLIENT, director.unused_port())
    sent = bytearray(one.send(b"", SYN))
    assert director.tc(one.error(3, 1, 0, bytes(sent)))[0] == SENT
    port = one.overhead + 20
    sent[port : port + 2] = bytes(2)
    _is_untouched(director, one.error(3, 1, 0, bytes(sent)))
