# SPDX-License-Identifier: GPL-2.0-only
"""What stands in for tunnel devices in labs: wrapped frames in, the packets in them out, byte for byte.

The wrappings are built here by the RFCs and by what net/ipv4/fou_core.c and
ip_gre.c send, with nothing of xlvs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from struct import pack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import DROPPED, UNTOUCHED
from tests.packet.director import SENT as HANDED_IN
from tests.packet.packets import GRE, IPIP, IPV6, TCP, UDP, checksum, packed
from xlvs.kernel import bpf, libbpf
from xlvs.realserver import decapsulator
from xlvs.realserver.wanted import GRE as KIND_GRE
from xlvs.realserver.wanted import IPIP as KIND_IPIP

HOST = bytes(6)  # the MAC of lo, by which a test's frame comes in
SENDER = bytes.fromhex("0200c0a8db86")

RIP, RIP6 = packed("192.168.56.135"), packed("fd6c:7673:0:2::101")
DIP, DIP6 = packed("192.168.219.134"), packed("fd6c:7673::10")
VIP, VIP6 = packed("192.168.219.100"), packed("fd6c:7673::100")
CLIENT, CLIENT6 = packed("192.168.219.2"), packed("fd6c:7673::2")
PORTS = (6080, 5555)

Run = Callable[[bytes], tuple[int, bytes]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A function that hands a frame to a decapsulator; it gives the verdict and the frame."""
    with libbpf.BpfObject(str(decapsulator.OBJECT)) as opened:
        own = ("192.168.56.135", "fd6c:7673:0:2::101")
        decapsulator.load(opened, own, (KIND_IPIP, KIND_GRE), PORTS, 7)
        program = opened.program(decapsulator.PROGRAM)
        yield lambda frame: bpf.run_program(program, frame)[:2]


def frame(packet: bytes, destination: bytes = HOST) -> bytes:
    ethertype = packets.ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else packets.ETHERTYPE_IPV6
    return packets.ethernet(packet, ethertype, destination, SENDER)


def client_packet(version: int, payload: bytes = b"GET /", protocol: int = TCP) -> bytes:
    """A whole packet from a client to the VIP, its checksums right."""
    content = packets.tcp(40000, 80, packets.ACK, payload)
    if protocol == UDP:
        content = packets.udp(40000, 80, payload)
    if version == 4:
        return packets.with_checksum(packets.ipv4(CLIENT, VIP, protocol, content))
    return packets.with_checksum(packets.ipv6(CLIENT6, VIP6, protocol, content))


def outer(version: int, protocol: int, content: bytes, **fields: Any) -> bytes:
    """What the director sends to the real server."""
    if version == 4:
        return packets.ipv4(DIP, RIP, protocol, content, **fields)
    return packets.ipv6(DIP6, RIP6, protocol, content, **fields)


def kind(packet: bytes) -> int:
    return IPIP if packet[0] >> 4 == 4 else IPV6


def gre(packet: bytes, flags: int = 0, words: bytes = b"", protocol: int | None = None) -> bytes:
    ethertype = packets.ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else packets.ETHERTYPE_IPV6
    return pack(">HH", flags, ethertype if protocol is None else protocol) + words + packet


def gre_with_checksum(packet: bytes, flags: int = 0, words: bytes = b"") -> bytes:
    whole = gre(packet, flags | 0x8000, bytes(4) + words)
    return whole[:4] + pack(">H", checksum(whole)) + whole[6:]


def udp(version: int, content: bytes, port: int = PORTS[0], summed: bool = False) -> bytes:
    datagram = packets.udp(54321, port, content)
    if not summed:
        return outer(version, UDP, datagram)
    return packets.with_checksum(outer(version, UDP, datagram))


def gue(packet: bytes, flags: int = 0, options: bytes = b"", first: int = 0) -> bytes:
    return pack(">BBH", first | len(options) // 4, kind(packet), flags) + options + packet


def gue_remcsum(packet: bytes) -> bytes:
    """A packet whose checksum is left to the receiver (fou: private flag, start, offset)."""
    protocol, start = packets.transport_of(packet)
    offset = start + (16 if protocol == TCP else 6)
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    pseudo = addresses + pack(">II", len(packet) - start, protocol)
    left = packet[:offset] + pack(">H", ~checksum(pseudo) & 0xFFFF) + packet[offset + 2 :]
    return gue(left, 1, pack(">IHH", 0x80000000, start, offset))


WRAPPINGS: dict[str, Callable[[int, bytes], bytes]] = {
    "ip": lambda version, packet: outer(version, kind(packet), packet),
    "gre": lambda version, packet: outer(version, GRE, gre(packet)),
    "gre-csum": lambda version, packet: outer(version, GRE, gre_with_checksum(packet)),
    "gre-key": lambda version, packet: outer(version, GRE, gre(packet, 0x2000, b"keys")),
    "gre-all": lambda version, packet: outer(version, GRE, gre_with_checksum(packet, 0x3000, b"keysnumb")),
    "gue": lambda version, packet: udp(version, gue(packet)),
    "gue-other-port": lambda version, packet: udp(version, gue(packet), PORTS[1]),
    "gue-csum": lambda version, packet: udp(version, gue(packet), summed=True),
    "gue-private": lambda version, packet: udp(version, gue(packet, 1, bytes(4)), summed=True),
    "gue-unused-room": lambda version, packet: udp(version, gue(packet, 0, bytes(12))),
    "gue-remcsum": lambda version, packet: udp(version, gue_remcsum(packet), summed=True),
    "gue-variant-1": lambda version, packet: udp(version, packet, summed=True),
}
every_wrapping = pytest.mark.parametrize(
    ("version", "wrap"),
    [pytest.param(v, w, id=f"in{v}-{name}") for v, (name, w) in product((4, 6), WRAPPINGS.items())],
)


@every_wrapping
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_what_was_wrapped_comes_out(
    run: Run, version: int, wrap: Callable[[int, bytes], bytes], inner: int, protocol: int
) -> None:
    for size in (0, 1, 2, 3, 511, 512, 513, 1380):
        packet = frame(client_packet(inner, bytes(n * 7 & 0xFF for n in range(size)), protocol))
        verdict, after = run(frame(wrap(version, packet[14:])))
        assert (verdict, after[: len(packet)]) == (HANDED_IN, packet), size
        # Linux before 6.3 leaves no less than the outer header's size.
        assert after[len(packet) :] in (b"", bytes(max(54 - len(packet), 0)))


@every_wrapping
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(payload=st.binary(max_size=1400), inner=st.sampled_from([4, 6]))
def test_any_payload_comes_out(
    run: Run, version: int, wrap: Callable[[int, bytes], bytes], payload: bytes, inner: int
) -> None:
    packet = client_packet(inner, payload)
    assert run(frame(wrap(version, packet))) == (HANDED_IN, frame(packet))


@every_wrapping
def test_padding_of_the_frame_is_no_part_of_it(
    run: Run, version: int, wrap: Callable[[int, bytes], bytes]
) -> None:
    packet = client_packet(4)
    verdict, after = run(frame(wrap(version, packet)) + b"padding")
    assert verdict == HANDED_IN
    assert after.startswith(frame(packet)), "what follows is cut off by the stack, by the inner length"


def test_outer_options_and_extension_headers_are_taken_off(run: Run) -> None:
    packet = client_packet(4)
    assert run(frame(outer(4, IPIP, packet, options=bytes([1]) * 40))) == (HANDED_IN, frame(packet))
    # ip6tnl's "tunnel encapsulation limit" (RFC 2473)
    limit = ((packets.DESTINATION_OPTIONS, bytes([0, 4, 1, 4, 1, 1, 0])),)
    assert run(frame(outer(6, IPIP, packet, extensions=limit))) == (HANDED_IN, frame(packet))
    twice = ((packets.HOP_BY_HOP, packets.options_extension(1)), *limit)
    assert run(frame(outer(6, IPV6, client_packet(6), extensions=twice)))[0] == HANDED_IN


def _changed(packet: bytes, place: int) -> bytes:
    return packet[:place] + bytes([packet[place] ^ 0x40]) + packet[place + 1 :]


@pytest.mark.parametrize("version", [4, 6])
def test_a_wrong_checksum_is_dropped(run: Run, version: int) -> None:
    packet = client_packet(4, b"x" * 600)
    begin = 20 if version == 4 else 40
    for wrapped in (
        outer(version, GRE, gre_with_checksum(packet)),
        udp(version, gue(packet), summed=True),
        udp(version, gue_remcsum(packet), summed=True),
        udp(version, packet, summed=True),
    ):
        for place in (begin + 4, begin + 30, len(wrapped) - 1):
            if wrapped[6 if version == 6 else 9] == UDP and place == begin + 4:
                continue  # the UDP length, which would do by itself
            assert run(frame(_changed(wrapped, place)))[0] == DROPPED, place


def test_an_unsummed_datagram_is_taken_as_it_is(run: Run) -> None:
    packet = _changed(client_packet(4, b"x" * 600), 60)
    for version in (4, 6):
        assert run(frame(udp(version, gue(packet)))) == (HANDED_IN, frame(packet))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\4\0", id="not even a header"),
        pytest.param(gue(client_packet(4), first=0x20), id="control message"),
        pytest.param(gue(client_packet(4), first=0x80), id="variant 2"),
        pytest.param(gue(client_packet(4), first=0xC0), id="variant 3"),
        pytest.param(gue(client_packet(4), 2), id="unknown flag"),
        pytest.param(gue(client_packet(4), 1), id="private flags without room"),
        pytest.param(gue(client_packet(4), 1, pack(">I", 1)), id="unknown private flag"),
        pytest.param(gue(client_packet(4), 1, pack(">I", 0x80000000)), id="remcsum without room"),
        pytest.param(
            gue(client_packet(4), 1, pack(">IHH", 0x80000000, 20, 9000)), id="remcsum beyond the end"
        ),
        pytest.param(
            gue(client_packet(4), 1, pack(">IHH", 0x80000000, 9000, 36)), id="remcsum from beyond the end"
        ),
        pytest.param(b"\x1f\4\0\0" + client_packet(4), id="options longer than the datagram"),
        pytest.param(b"\0\x06\0\0" + client_packet(4), id="TCP in it"),
        pytest.param(b"\0\x29\0\0" + client_packet(4), id="another version than told"),
        pytest.param(gue(client_packet(4)[:10]), id="cut in the inner header"),
        pytest.param(gue(client_packet(4)[:-1]), id="cut at the end"),
        pytest.param(gue(client_packet(6)[:-1]), id="cut at the end, IPv6"),
        pytest.param(b"\x50" + client_packet(4)[1:], id="variant 1 of IP version 5"),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_malformed_gue_is_dropped(run: Run, version: int, content: bytes) -> None:
    """As fou does, whose port it is: nobody else could want it."""
    assert run(frame(udp(version, content)))[0] == DROPPED


@pytest.mark.parametrize("version", [4, 6])
def test_malformed_packets_in_ip_and_gre_are_dropped(run: Run, version: int) -> None:
    for inner in (4, 6):
        whole = client_packet(inner)
        header = 20 if inner == 4 else 40
        for bad in (whole[: header - 1], whole[:-1], b"\x54" + whole[1:], b""):
            protocol = IPIP if inner == 4 else IPV6
            assert run(frame(outer(version, protocol, bad)))[0] == DROPPED
            ethertype = packets.ETHERTYPE_IPV4 if inner == 4 else packets.ETHERTYPE_IPV6
            assert run(frame(outer(version, GRE, gre(bad or b"\0", protocol=ethertype))))[0] == DROPPED
    assert run(frame(outer(version, GRE, b"\0\0")))[0] == DROPPED
    assert run(frame(outer(version, GRE, pack(">HH", 0x3000, 0x800) + b"key")))[0] == DROPPED
    assert run(frame(outer(version, IPIP, b"\x41" + client_packet(4)[1:])))[0] == DROPPED


WRAPPED = outer(4, IPIP, client_packet(4))
WRAPPED6 = outer(6, IPIP, client_packet(4))


@pytest.mark.parametrize(
    "untouched",
    [
        pytest.param(frame(client_packet(4)), id="not for it"),
        pytest.param(frame(packets.ipv4(DIP, VIP, IPIP, client_packet(4))), id="to another address"),
        pytest.param(frame(packets.ipv6(DIP6, VIP6, IPIP, client_packet(4))), id="to another, IPv6"),
        pytest.param(frame(packets.ipv4(DIP, RIP, TCP, packets.tcp(1, 80, packets.SYN))), id="TCP"),
        pytest.param(frame(packets.ipv6(DIP6, RIP6, TCP, packets.tcp(1, 80, 2))), id="TCP, IPv6"),
        pytest.param(frame(packets.ipv4(DIP, RIP, UDP, packets.udp(1, 53, b"query"))), id="another port"),
        pytest.param(frame(packets.ipv4(DIP, RIP, UDP, packets.udp(1, 0, b"query"))), id="port 0"),
        pytest.param(frame(packets.ipv4(DIP, RIP, UDP, b"\0\1")), id="cut UDP"),
        pytest.param(frame(outer(4, IPIP, client_packet(4), fragment=0x2000)), id="first fragment"),
        pytest.param(frame(outer(4, IPIP, client_packet(4), fragment=5)), id="later fragment"),
        pytest.param(
            frame(outer(6, IPIP, b"x" * 8, extensions=((44, packets.fragment_extension(0, True)),))),
            id="IPv6 fragment",
        ),
        pytest.param(frame(_changed(WRAPPED, 8)), id="wrong header checksum"),
        pytest.param(frame(outer(4, IPIP, client_packet(4), total_length=2000)), id="longer than it is"),
        pytest.param(frame(outer(4, IPIP, client_packet(4), total_length=10)), id="shorter than a header"),
        pytest.param(frame(outer(4, IPIP, client_packet(4), header_words=4)), id="header of 16 bytes"),
        pytest.param(frame(outer(6, IPIP, client_packet(4), payload_length=2000)), id="IPv6, longer"),
        pytest.param(
            frame(outer(6, IPIP, b"", extensions=((60, bytes([9]) + bytes(6)),))), id="endless extension"
        ),
        pytest.param(frame(outer(4, GRE, gre(client_packet(4), 1))), id="GRE version 1"),
        pytest.param(frame(outer(4, GRE, gre(client_packet(4), 0x4000))), id="GRE with routing"),
        pytest.param(frame(outer(4, GRE, gre(b"x" * 60, protocol=0x6558))), id="Ethernet in GRE"),
        pytest.param(frame(WRAPPED, SENDER), id="to another machine's MAC"),
        pytest.param(packets.ethernet(WRAPPED, 0x0806, HOST, SENDER), id="ARP by its type"),
        pytest.param(packets.ethernet(WRAPPED6, 0x0800, HOST, SENDER), id="version against the type"),
        pytest.param(
            packets.ethernet(pack(">HH", 5, 0x800) + WRAPPED, packets.ETHERTYPE_VLAN, HOST, SENDER),
            id="in a VLAN",
        ),
    ],
)
def test_what_is_not_ours_is_left_to_the_stack(run: Run, untouched: bytes) -> None:
    assert run(untouched) == (UNTOUCHED, untouched)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    wrapping=st.sampled_from(sorted(WRAPPINGS)),
    version=st.sampled_from([4, 6]),
    data=st.data(),
)
def test_garbage_never_comes_out_as_anything_but_a_whole_packet(
    run: Run, wrapping: str, version: int, data: st.DataObject
) -> None:
    """Bytes changed, cut off or added at random: what is handed in is what an IP header covers."""
    damaged = bytearray(WRAPPINGS[wrapping](version, client_packet(4)))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    # BPF_PROG_TEST_RUN itself refuses frames without an IP header.
    cut = data.draw(st.integers(40, len(damaged)))
    given_frame = packets.ethernet(
        bytes(damaged[:cut]),
        packets.ETHERTYPE_IPV4 if version == 4 else packets.ETHERTYPE_IPV6,
        HOST,
        SENDER,
    )
    verdict, after = run(given_frame)
    assert verdict in (UNTOUCHED, DROPPED, HANDED_IN)
    if verdict == UNTOUCHED:
        assert after == given_frame
    elif verdict == HANDED_IN:
        inner = after[14:]
        assert inner[0] >> 4 == (4 if after[12:14] == b"\x08\x00" else 6)
        assert packets.ip_length(after) <= len(inner)


def test_a_real_server_without_ipv6_takes_none() -> None:
    with libbpf.BpfObject(str(decapsulator.OBJECT)) as opened:
        decapsulator.load(opened, ("192.168.56.135",), (KIND_IPIP, KIND_GRE), (), 7)
        program = opened.program(decapsulator.PROGRAM)
        to_none = frame(packets.ipv6(DIP6, bytes(16), IPIP, client_packet(4)))
        for left in (to_none, frame(WRAPPED6), frame(udp(4, gue(client_packet(4)), 0))):
            assert bpf.run_program(program, left)[:2] == (UNTOUCHED, left)
        assert bpf.run_program(program, frame(WRAPPED))[0] == HANDED_IN


@pytest.mark.parametrize("kinds", [(KIND_IPIP,), (KIND_GRE,), ()])
def test_tunnels_that_were_not_asked_for_stay_shut(kinds: tuple[str, ...]) -> None:
    with libbpf.BpfObject(str(decapsulator.OBJECT)) as opened:
        decapsulator.load(opened, ("192.168.56.135",), kinds, ())
        program = opened.program(decapsulator.PROGRAM)
        for kind, wrapped in (
            (KIND_IPIP, frame(WRAPPED)),
            (KIND_GRE, frame(outer(4, GRE, gre(client_packet(4))))),
        ):
            verdict, after = bpf.run_program(program, wrapped)[:2]
            assert verdict == (HANDED_IN if kind in kinds else UNTOUCHED)
            assert kind in kinds or after == wrapped
