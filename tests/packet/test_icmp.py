# SPDX-License-Identifier: GPL-2.0-only
"""ICMP errors that the director sends: each byte as the kernel words it, and not too many of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DEVICE_SUMS,
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
from tests.packet.icmp_errors import PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG, error_about
from tests.packet.packets import DONT_FRAGMENT, ETHERNET_SIZE, MORE_FRAGMENTS, SYN, TCP, UDP
from tests.packet.spaces import ip
from tests.packet.translated import whole_packet
from xlvs.datapath.records import seconds_to_ticks
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, Destination, ServiceKey, Tunnel

families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture(scope="module", autouse=True)
def _no_sums(director: Director) -> None:
    """What is cut short loses its device's sum, and the kernel would miss it."""
    director.device_sums = 0


def _frame(
    director: Director,
    key: ServiceKey,
    client_port: int,
    size: int = 0,
    client: bytes | None = None,
    ttl: int = 64,
    checksum: bool = True,
    **fields: Any,
) -> bytes:
    source = client or (CLIENT if key.family == 2 else CLIENT6)
    payload = (bytes(range(1, 252)) * (size // 251 + 1))[:size]
    packet = whole_packet(
        key.protocol, (source, client_port), (key.address, key.port), payload, SYN, ttl, checksum, **fields
    )
    return director.frame(packet)


def _is_answered(director: Director, frame: bytes, error: str, mtu: int = 0) -> None:
    """XDP leaves the packet to TC, which turns it into exactly that error."""
    assert director.xdp(frame) == (XDP_PASS, frame)
    verdict, after = director.tc(frame)
    assert (verdict, after) == (SENT, error_about(frame, error, after, mtu))


@families
@protocols
def test_no_real_server(director: Director, address: bytes, protocol: int) -> None:
    """Quoted is what fits into 576 or 1280 bytes; of an odd number, too."""
    key = director.service(0, address=address, protocol=protocol)
    for size in (*range(20), 100, 101, *range(478, 560), 1000, *range(1160, 1220), 1400, 1460):
        port = director.unused_port()
        frame = _frame(director, key, port, size)
        if len(frame) - ETHERNET_SIZE > 1500:
            continue
        before = director.events()
        _is_answered(director, frame, PORT_UNREACHABLE)
        counted = before["no_destination"] + 1
        assert director.events() == before | {"no_destination": counted}
        assert director.connection(key, port) is None
    assert director.listing(key).stats.in_packets == 0


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_what_the_device_has_summed_up(director: Director, address: bytes) -> None:
    """The sum is still that of the packet where all of it is quoted."""
    key = director.service(0, address=address)
    director.device_sums = DEVICE_SUMS
    try:
        for size in (0, 1, 2, 3, 100):
            frame = director.segment(key, director.unused_port(), SYN, bytes(size))
            _is_answered(director, frame, PORT_UNREACHABLE)
    finally:
        director.device_sums = 0


def test_sizes_of_the_quotes(director: Director) -> None:
    """What error_about() expects is within the limits, and reaches them."""
    for address, longest in ((VIP, 576), (VIP6, 1280)):
        key = director.service(0, address=address, protocol=UDP)
        verdict, after = director.tc(_frame(director, key, director.unused_port(), 1400))
        assert verdict == SENT
        assert len(after) - ETHERNET_SIZE == packets.ip_length(after) == longest


@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0x10, 0x1E, 0x1F, 0xB8, 0xC0, 0xE0, 0xFF])
def test_the_type_of_service(director: Director, tos: int) -> None:
    """IPv4: internetwork control, with the packet's four bits of service; IPv6: none."""
    for address in (VIP, VIP6):
        key = director.service(0, address=address)
        fields: dict[str, Any] = {"tos": tos} if address == VIP else {"traffic_class": tos}
        _is_answered(director, _frame(director, key, director.unused_port(), **fields), PORT_UNREACHABLE)


def test_packets_of_every_form(director: Director) -> None:
    """Options and extension headers are quoted, padding is not; a UDP checksum of 0 stays."""
    key = director.service(0, protocol=UDP)
    port = director.unused_port()
    _is_answered(director, _frame(director, key, port, 6) + bytes(12), PORT_UNREACHABLE)
    _is_answered(director, _frame(director, key, port, 7, checksum=False), PORT_UNREACHABLE)
    for words in (1, 10):
        frame = _frame(director, key, port, 3, options=bytes([1]) * words * 4)
        _is_answered(director, frame, PORT_UNREACHABLE)
    _is_answered(director, _frame(director, key, port, 1000, fragment=MORE_FRAGMENTS), PORT_UNREACHABLE)
    key = director.service(0, address=VIP6, protocol=UDP)
    extension = (packets.DESTINATION_OPTIONS, packets.options_extension())
    for length in (1, 6):
        frame = _frame(director, key, port, 3, extensions=(extension,) * length)
        _is_answered(director, frame, PORT_UNREACHABLE)


@families
@protocols
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE, TUNNEL])
def test_the_last_hop(director: Director, address: bytes, protocol: int, method: str) -> None:
    """The client's packet is quoted as it came, not as a real server would have got it."""
    key = director.service(1, address=address, protocol=protocol, method=method, server_port=8080)
    port = director.unused_port()
    for count, (ttl, size) in enumerate(((1, 0), (0, 11), (1, 1400)), start=1):
        _is_answered(director, _frame(director, key, port, size, ttl=ttl), TIME_EXCEEDED)
        assert director.listing(key).stats.in_packets == count


@families
@protocols
def test_more_than_the_way_takes(director: Director, address: bytes, protocol: int) -> None:
    """One byte more than the MTU, with DF or in IPv6; the client learns the MTU."""
    headers = (20 if address == VIP else 40) + (20 if protocol == TCP else 8)
    fields: dict[str, Any] = {"fragment": DONT_FRAGMENT} if address == VIP else {}
    for method in (ROUTE, MASQUERADE):
        key = director.service(1, address=address, protocol=protocol, method=method)
        port = director.unused_port()
        verdict, after = director.tc(_frame(director, key, port, 1500 - headers, **fields))
        assert verdict == SENT
        assert packets.ip_length(after) == 1500
        for excess in (1, 2, 700):
            before = director.events()["too_big"]
            frame = _frame(director, key, port, 1500 - headers + excess, **fields)
            _is_answered(director, frame, TOO_BIG, 1500)
            assert director.events()["too_big"] == before + 1


@families
@pytest.mark.parametrize(
    "tunnel", [Tunnel("ipip"), Tunnel("gue", 6080), Tunnel("gre")], ids=lambda t: t.kind
)
@pytest.mark.parametrize("server", [FAR_SERVER, FAR_SERVER6], ids=["by-ipv4", "by-ipv6"])
def test_more_than_a_tunnel_takes(director: Director, address: bytes, tunnel: Tunnel, server: bytes) -> None:
    """The MTU that the client learns leaves room for the outer headers."""
    room = 1500 - (20 if len(server) == 4 else 40) - {"ipip": 0, "gue": 12, "gre": 4}[tunnel.kind]
    fields: dict[str, Any] = {"fragment": DONT_FRAGMENT} if address == VIP else {}
    headers = 28 if address == VIP else 48
    key = director.service(1, address=address, protocol=UDP, servers=(server,), method=TUNNEL, tunnel=tunnel)
    port = director.unused_port()
    verdict, after = director.tc(_frame(director, key, port, room - headers, **fields))
    assert verdict == SENT
    assert packets.ip_length(after) == 1500
    _is_answered(director, _frame(director, key, port, room - headers + 1, **fields), TOO_BIG, room)


def test_the_mtu_of_a_route(director: Director) -> None:
    """It is the way's, which may be less than the interface's, and is looked up again."""
    for address, family, route, server, least in (
        (VIP, "-4", "10.71.0.0/16 via 10.0.0.13", "10.71.0.1", 1000),
        (VIP6, "-6", "fd71::/64 via fd00::d", "fd71::1", 1300),
    ):
        fields: dict[str, Any] = {"fragment": DONT_FRAGMENT} if address == VIP else {}
        key = director.service(1, address=address, protocol=UDP, servers=(packets.packed(server),))
        ip(f"{family} route add {route} mtu lock {least}")
        frame = _frame(director, key, director.unused_port(), 1380, **fields)
        _is_answered(director, frame, TOO_BIG, least)
        ip(f"{family} route change {route} mtu lock 1450")
        director.wait_until(
            lambda frame=frame: director.tc(frame)[1] == packets.with_one_hop_less(frame),  # type: ignore[misc]
            2.5,
            "the new MTU is not used",
        )
        ip(f"{family} route del {route}")


@contextmanager
def _one_a_second(director: Director) -> Iterator[None]:
    director.maps.settings.icmp_interval = director.icmp_interval_at_loading
    try:
        yield
    finally:
        director.maps.settings.icmp_interval = 0


def test_the_limit_is_the_kernels(director: Director) -> None:
    with open("/proc/sys/net/ipv4/icmp_ratelimit") as file:
        milliseconds = int(file.read())
    assert milliseconds == 1000
    assert director.icmp_interval_at_loading == seconds_to_ticks(1)


@families
def test_six_at_once_then_one_a_second(director: Director, address: bytes) -> None:
    """For each client; errors about a packet's size are not limited, nor do they use anything up."""
    key = director.service(0, 0, address=address, protocol=UDP)
    sized = director.service(1, address=address, protocol=UDP)
    fields: dict[str, Any] = {"fragment": DONT_FRAGMENT} if address == VIP else {}
    network = "10.0.0." if address == VIP else "fd00::9"
    clients = [packets.packed(f"{network}{number}") for number in (211, 212)]
    unlimited = [_frame(director, sized, 4000, 1480, client, **fields) for client in clients]
    limited = [_frame(director, key, 4000, 10, client) for client in clients]
    with _one_a_second(director):
        for frame in unlimited:
            for _ in range(20):
                _is_answered(director, frame, TOO_BIG, 1500)
        begin = time.monotonic()
        for _ in range(6):
            for frame in limited:
                _is_answered(director, frame, PORT_UNREACHABLE)
        before = director.events()["no_destination"]
        for _ in range(10):
            for frame in limited:
                assert director.tc(frame) == (DROPPED, frame)
        assert time.monotonic() - begin < 0.9, "too slow to tell"
        assert director.events()["no_destination"] == before + 20
        for frame in unlimited:
            _is_answered(director, frame, TOO_BIG, 1500)
        time.sleep(1.1)
        for frame in limited:
            _is_answered(director, frame, PORT_UNREACHABLE)
            assert director.tc(frame) == (DROPPED, frame)


def test_no_limit(director: Director) -> None:
    for address in (VIP, VIP6):
        key = director.service(0, address=address)
        frame = _frame(director, key, director.unused_port())
        for _ in range(50):
            _is_answered(director, frame, PORT_UNREACHABLE)


@families
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE, TUNNEL])
def test_none_about_a_later_fragment(director: Director, address: bytes, method: str) -> None:
    """RFC 1122: only the first says what it is about."""
    key = director.service(1, address=address, protocol=UDP, method=method)
    port = director.unused_port()
    whole = _frame(director, key, port, 3000)[ETHERNET_SIZE:]
    first, *later = (director.frame(part) for part in packets.fragments(whole, 1000))
    hopless = 22 if address == VIP else 21
    assert director.tc(first)[0] == SENT
    for frame in later:
        ended = bytearray(frame)
        ended[hopless] = 2
        ended_frame = packets.with_one_hop_less(bytes(ended))
        assert ended_frame[hopless] == 1
        assert director.tc(ended_frame) == (DROPPED, ended_frame)
    # The first is answered where nobody serves it, the others go up as they came.
    server = (real_server if address == VIP else real_server6)(1)
    director.table.edit_destination(key, Destination(server, key.port, method, weight=0))
    whole = _frame(director, key, director.unused_port(), 3000)[ETHERNET_SIZE:]
    first, *later = (director.frame(part) for part in packets.fragments(whole, 1000, 8))
    _is_answered(director, first, PORT_UNREACHABLE)
    for frame in later:
        assert director.tc(frame) == (UNTOUCHED, frame)
