# SPDX-License-Identifier: GPL-2.0-only
"""What is not for a virtual service goes on into the stack as it came, and leaves no trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    CLIENT_MAC,
    INTERFACE_MAC,
    SECOND_MAC,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    Director,
)
from tests.packet.packets import ACK, FIN, RST, SYN, TCP, UDP, mac
from tests.packet.spaces import ip
from xlvs.model import ServiceKey

HERE = INTERFACE_MAC
_SHORTEST_AT_TC = {b"\x08\x00": 14 + 20, b"\x86\xdd": 14 + 40}
"""BPF_PROG_TEST_RUN itself refuses shorter frames of these types (net/bpf/test_run.c)."""


@pytest.fixture(scope="module")
def tcp_service(director: Director) -> ServiceKey:
    """A TCP service that everything here misses narrowly."""
    return director.service(1, 1, scheduler="rr")


@pytest.fixture(scope="module")
def udp_service(director: Director) -> ServiceKey:
    """A UDP service; it has no TCP beside it on its port."""
    return director.service(1, 1, protocol=UDP)


@pytest.fixture(scope="module")
def tcp6_service(director: Director) -> ServiceKey:
    """An IPv6 service."""
    return director.service(1, 1, address=VIP6)


def assert_untouched(director: Director, frame: bytes, ifindex: int | None = None) -> None:
    """Neither hook takes the frame, changes it, or changes anything else."""

    def pass_by() -> None:
        assert director.xdp(frame, ifindex) == (XDP_PASS, frame)
        if len(frame) >= _SHORTEST_AT_TC.get(frame[12:14], 15):
            assert director.tc(frame, ifindex) == (UNTOUCHED, frame)

    director.changes_nothing(pass_by)


def _ipv4(payload: bytes, protocol: int = TCP, **changes: object) -> bytes:
    packet = packets.ipv4(CLIENT, VIP, protocol, payload, **changes)  # type: ignore[arg-type]
    return packets.ethernet(packet, packets.ETHERTYPE_IPV4, HERE, CLIENT_MAC)


def _ipv6(payload: bytes, protocol: int = TCP, **changes: object) -> bytes:
    packet = packets.ipv6(CLIENT6, VIP6, protocol, payload, **changes)  # type: ignore[arg-type]
    return packets.ethernet(packet, packets.ETHERTYPE_IPV6, HERE, CLIENT_MAC)


def test_the_frames_beside_these_are_taken(
    director: Director, tcp_service: ServiceKey, udp_service: ServiceKey, tcp6_service: ServiceKey
) -> None:
    """Guards the other tests: without their one fault, their frames would be forwarded."""
    port = director.unused_port()
    for frame in (
        _ipv4(packets.tcp(port, tcp_service.port, SYN)),
        _ipv4(packets.udp(port, udp_service.port), UDP),
        _ipv6(packets.tcp(port, tcp6_service.port, SYN)),
        _ipv6(packets.tcp(port, tcp6_service.port, SYN), extensions=_chain(6)),
        _ipv4(packets.tcp(port, tcp_service.port, SYN), options=bytes([1]) * 40),
    ):
        assert director.tc(frame)[0] == SENT


def _chain(length: int) -> tuple[tuple[int, bytes], ...]:
    return ((packets.DESTINATION_OPTIONS, packets.options_extension()),) * length


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=15, max_size=200), st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100, None]))
def _random_bytes(director: Director, data: bytes, ethertype: int | None) -> None:
    assert_untouched(director, data)
    if ethertype is not None:
        assert_untouched(director, HERE + CLIENT_MAC + pack(">H", ethertype) + data)


def test_random_bytes(director: Director, tcp_service: ServiceKey) -> None:
    assert tcp_service
    _random_bytes(director)


def test_headers_cut_short(
    director: Director, tcp_service: ServiceKey, udp_service: ServiceKey, tcp6_service: ServiceKey
) -> None:
    for whole in (
        _ipv4(packets.tcp(4003, tcp_service.port, SYN)),
        _ipv4(packets.tcp(4003, tcp_service.port, SYN), options=bytes([1]) * 12),
        _ipv4(packets.udp(4003, udp_service.port), UDP),
        _ipv6(packets.tcp(4003, tcp6_service.port, SYN)),
        _ipv6(packets.tcp(4003, tcp6_service.port, SYN), extensions=_chain(3)),
    ):
        for length in range(15, len(whole)):
            assert_untouched(director, whole[:length])


def test_lengths_that_leave_the_headers_out(
    director: Director, tcp_service: ServiceKey, udp_service: ServiceKey, tcp6_service: ServiceKey
) -> None:
    """What lies beyond the IP packet's end is padding, whatever it looks like."""
    segment = packets.tcp(4002, tcp_service.port, SYN)
    for total in range(1, 40):
        assert_untouched(director, _ipv4(segment, total_length=total))
    datagram = packets.udp(4002, udp_service.port)
    for total in range(1, 28):
        assert_untouched(director, _ipv4(datagram, UDP, total_length=total))
    segment6 = packets.tcp(4002, tcp6_service.port, SYN)
    for length in range(1, 20):
        assert_untouched(director, _ipv6(segment6, payload_length=length))
    for length in range(1, 36):
        assert_untouched(director, _ipv6(segment6, payload_length=length, extensions=_chain(2)))


def test_ip_headers_that_are_wrong(
    director: Director, tcp_service: ServiceKey, tcp6_service: ServiceKey
) -> None:
    segment = packets.tcp(4000, tcp_service.port, SYN)
    for version in (0, 5, 6, 15):
        assert_untouched(director, _ipv4(segment, version=version))
    for words in range(5):
        assert_untouched(director, _ipv4(segment, header_words=words))
    assert_untouched(director, _ipv4(segment, header_words=15))
    for total in (41, 1500, 65535):
        assert_untouched(director, _ipv4(segment, total_length=total))
    segment6 = packets.tcp(4000, tcp6_service.port, SYN)
    for version in (0, 4, 15):
        assert_untouched(director, _ipv6(segment6, version=version))
    for length in (21, 1500, 65535):
        assert_untouched(director, _ipv6(segment6, payload_length=length))


def test_other_frames(director: Director, tcp_service: ServiceKey) -> None:
    arp = pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, CLIENT_MAC, CLIENT, bytes(6), VIP)
    for to in (HERE, mac("ff:ff:ff:ff:ff:ff")):
        assert_untouched(director, packets.ethernet(arp, packets.ETHERTYPE_ARP, to, CLIENT_MAC))
    packet = packets.ipv4(CLIENT, VIP, TCP, packets.tcp(4000, tcp_service.port, SYN))
    tagged = pack(">HH", 7, packets.ETHERTYPE_IPV4) + packet
    assert_untouched(director, packets.ethernet(tagged, packets.ETHERTYPE_VLAN, HERE, CLIENT_MAC))
    # An IPv4 packet that says it is IPv6, and the reverse.
    assert_untouched(director, packets.ethernet(packet, packets.ETHERTYPE_IPV6, HERE, CLIENT_MAC))
    packet6 = packets.ipv6(CLIENT6, VIP6, TCP, packets.tcp(4000, tcp_service.port, SYN))
    assert_untouched(director, packets.ethernet(packet6, packets.ETHERTYPE_IPV4, HERE, CLIENT_MAC))


def test_later_fragments(director: Director, tcp_service: ServiceKey, tcp6_service: ServiceKey) -> None:
    segment = packets.tcp(4000, tcp_service.port, SYN)
    for fragment in (1, 2, 0x1FFF, 0x2001, 0x4001):
        assert_untouched(director, _ipv4(segment, fragment=fragment))
    segment6 = packets.tcp(4000, tcp6_service.port, SYN)
    for offset in (1, 0x1FFF):
        for more in (False, True):
            chain = ((packets.FRAGMENT, packets.fragment_extension(offset, more)),)
            assert_untouched(director, _ipv6(segment6, extensions=chain))


def test_extension_headers_without_end(director: Director, tcp6_service: ServiceKey) -> None:
    segment = packets.tcp(4000, tcp6_service.port, SYN)
    for length in (7, 8, 20):
        assert_untouched(director, _ipv6(segment, extensions=_chain(length)))
    for unknown in (51, 59, 135, 255):
        chain = ((unknown, packets.options_extension()),)
        assert_untouched(director, _ipv6(segment, extensions=chain))
    beyond = ((packets.HOP_BY_HOP, bytes([255]) + bytes(6)),)
    assert_untouched(director, _ipv6(segment, extensions=beyond))


def test_other_protocols(director: Director, tcp_service: ServiceKey) -> None:
    segment = packets.tcp(4000, tcp_service.port, SYN)
    for protocol in range(256):
        if protocol != TCP:  # UDP has no service on this port
            assert_untouched(director, _ipv4(segment, protocol))
    for protocol in (1, 17, 50, 58, 132):
        assert_untouched(director, _ipv6(segment, protocol))


def test_segments_that_open_nothing(director: Director, tcp_service: ServiceKey) -> None:
    for flags in range(256):
        if flags & SYN and not flags & RST:
            continue
        assert_untouched(director, _ipv4(packets.tcp(4000, tcp_service.port, flags)))
    for flags in (SYN | RST, ACK, FIN, RST, 0):
        assert_untouched(director, _ipv4(packets.tcp(4001, tcp_service.port, flags)))


def test_source_port_20_is_never_scheduled(
    director: Director, tcp_service: ServiceKey, udp_service: ServiceKey
) -> None:
    assert_untouched(director, _ipv4(packets.tcp(20, tcp_service.port, SYN)))
    assert_untouched(director, _ipv4(packets.udp(20, udp_service.port), UDP))


def test_other_addresses_and_ports(
    director: Director, tcp_service: ServiceKey, udp_service: ServiceKey
) -> None:
    for port in (tcp_service.port - 1, 1, 0, 65535, udp_service.port):
        assert_untouched(director, _ipv4(packets.tcp(4000, port, SYN)))
    for address in ("10.0.0.1", "10.0.0.101", "10.0.0.11", "0.0.0.0", "255.255.255.255", "224.0.0.1"):
        packet = packets.ipv4(CLIENT, packets.packed(address), TCP, packets.tcp(4000, tcp_service.port, SYN))
        assert_untouched(director, director.frame(packet))


def test_sources_that_no_client_has(
    director: Director, tcp_service: ServiceKey, tcp6_service: ServiceKey
) -> None:
    """The kernel's input routing refuses them before IPVS sees them."""
    for source in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", VIP):
        address = source if isinstance(source, bytes) else packets.packed(source)
        segment = packets.tcp(4004, tcp_service.port, SYN)
        assert_untouched(director, director.frame(packets.ipv4(address, VIP, TCP, segment)))
    for source in ("::", "::1", "ff02::1", VIP6):
        address = source if isinstance(source, bytes) else packets.packed(source)
        segment = packets.tcp(4004, tcp6_service.port, SYN)
        assert_untouched(director, director.frame(packets.ipv6(address, VIP6, TCP, segment)))


def _strange_addresses() -> Iterator[bytes]:
    yield CLIENT_MAC
    yield SECOND_MAC
    yield mac("ff:ff:ff:ff:ff:ff")
    yield mac("01:00:5e:00:00:01")
    yield mac("33:33:00:00:00:01")
    for bit in range(48):
        yield (int.from_bytes(INTERFACE_MAC, "big") ^ 1 << bit).to_bytes(6, "big")


def test_frames_for_another_machine(director: Director, tcp_service: ServiceKey) -> None:
    packet = packets.ipv4(CLIENT, VIP, TCP, packets.tcp(4000, tcp_service.port, SYN))
    established = director.open(tcp_service, ACK)
    old = packets.ipv4(CLIENT, VIP, TCP, packets.tcp(established, tcp_service.port, ACK))
    for address in _strange_addresses():
        assert_untouched(director, director.frame(packet, address))
        assert_untouched(director, director.frame(old, address))


def _until(director: Director, frame: bytes, verdict: int) -> float:
    begin = time.monotonic()
    director.wait_until(lambda: director.tc(frame)[0] == verdict, 3, f"no verdict {verdict} for a long time")
    return time.monotonic() - begin


def _without_live_fields(snapshot: dict[str, object]) -> dict[str, object]:
    """A snapshot without the services' and destinations' records, which hold times of look-ups."""
    return {name: value for name, value in snapshot.items() if name not in ("services", "destinations")}


@pytest.mark.parametrize(("address", "command"), [(VIP, "10.0.0.100/32"), (VIP6, "fd00::100/128")])
def test_a_vip_that_is_not_ours(director: Director, address: bytes, command: str) -> None:
    """A standby director leaves the traffic alone, and takes it when it gets the VIP."""
    key = director.service(1, 1, address=address)
    port = director.open(key, ACK)
    old = director.segment(key, port, ACK)
    ip(f"addr del {command} dev eth0")
    try:
        assert _until(director, old, UNTOUCHED) < 1.6
        new = director.segment(key, director.unused_port(), SYN)
        assert _until(director, new, UNTOUCHED) < 1.6
        before = _without_live_fields(director.snapshot())
        for frame in (old, new):
            assert director.xdp(frame) == (XDP_PASS, frame)
            assert director.tc(frame) == (UNTOUCHED, frame)
        assert _without_live_fields(director.snapshot()) == before
    finally:
        ip(f"addr add {command} dev eth0 nodad" if ":" in command else f"addr add {command} dev eth0")
    assert _until(director, old, SENT) < 1.6
    assert _until(director, director.segment(key, director.unused_port(), SYN), SENT) < 1.6
