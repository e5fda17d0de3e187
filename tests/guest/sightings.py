# SPDX-License-Identifier: GPL-2.0-only
"""What was seen on a wire, as text that two directors can be compared by.

Each packet becomes one line: who got it, what it is in short, and every byte
of it but those that chance chooses.  These are IPv4's identification where
the director made the header, with the checksum over it (which has to be right,
though), the source port of GUE, and the flow label of ICMPv6 errors.

Datagrams that come in fragments are put together first, on both sides of a
tunnel's header: kernel IPVS forwards what it has put together, and cuts it up
again as it likes.  No I/O here.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import pack

from tests.packet.packets import (
    FRAGMENT,
    GRE,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    IPIP,
    IPV6,
    SCTP,
    TCP,
    UDP,
    checksum,
)

from .segments import FLAGS, End

GUE_PORT = 6080
"""UDP to this port is a tunnel."""
INCOMPLETE = "incomplete"
"""Marks the line of a datagram of which not all has come."""
SHOWN = 80
"""Bytes of a packet that a line shows; of those after them it has a checksum."""

Sighting = tuple[str, bytes]
"""Who got a packet, and the IP packet."""


@dataclass(slots=True)
class _Pieces:
    """The fragments of one datagram that have come so far."""

    node: str
    header: bytes
    parts: dict[int, bytes]
    length: int | None = None

    def whole(self) -> bytes | None:
        """The content, once it is all there."""
        content = b""
        while part := self.parts.get(len(content)):
            content += part
        return content if len(content) == self.length else None


@dataclass(frozen=True, slots=True)
class _Fragment:
    identity: bytes
    header: bytes
    offset: int
    more: bool
    content: bytes


def described(sightings: Iterable[Sighting]) -> list[str]:
    """One line for each packet or datagram; what never came whole stands at the end."""
    outer: dict[object, _Pieces] = {}
    inner: dict[object, _Pieces] = {}
    lines = []
    for node, packet in sightings:
        for whole in _put_together(outer, node, (), packet):
            layers, content = _unwrapped(whole)
            for last in _put_together(inner, node, layers, content):
                lines.append(_line(node, layers, last))
    for left in (*outer.values(), *inner.values()):
        total = sum(map(len, left.parts.values()))
        lines.append(f"{left.node} < {INCOMPLETE} {total} bytes of {_short(left.header)}")
    return lines


def innermost(packet: bytes) -> bytes:
    """The packet without what a tunnel has put around it."""
    return _unwrapped(packet)[1]


def ends_of(packet: bytes) -> tuple[End, End] | None:
    """Source and destination of a packet of a protocol with ports, if it has them; else None."""
    protocol, place, offset = _transport(packet)
    if protocol not in (TCP, UDP, SCTP) or offset or len(packet) < place + 4:
        return None
    source, target = addresses(packet)
    ports = packet[place : place + 4]
    return (
        End(source, int.from_bytes(ports[:2], "big")),
        End(target, int.from_bytes(ports[2:], "big")),
    )


def addresses(packet: bytes) -> tuple[str, str]:
    """Source and destination address."""
    if packet[0] >> 4 == 4:
        return socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    return (
        socket.inet_ntop(socket.AF_INET6, packet[8:24]),
        socket.inet_ntop(socket.AF_INET6, packet[24:40]),
    )


def is_neighbour_talk(packet: bytes) -> bool:
    """Whether a packet is IPv6 neighbour or router discovery, or multicast listening."""
    if packet[0] >> 4 != 6:
        return False
    protocol, place, _ = _transport(packet)
    return protocol == ICMPV6 and packet[place] in (130, 131, 132, 143, *range(133, 138))


# --- fragments --------------------------------------------------------------


def _put_together(
    waiting: dict[object, _Pieces], node: str, layers: tuple[str, ...], packet: bytes
) -> Iterator[bytes]:
    """The packet, or the datagram that it completes, as one packet without fragments."""
    fragment = _fragment(packet)
    if fragment is None:
        yield packet
        return
    key = (node, layers, fragment.identity)
    pieces = waiting.setdefault(key, _Pieces(node, fragment.header, {}))
    pieces.parts[fragment.offset] = fragment.content
    if fragment.offset == 0:
        pieces.header = fragment.header
    if not fragment.more:
        pieces.length = fragment.offset + len(fragment.content)
    whole = pieces.whole()
    if whole is not None:
        del waiting[key]
        yield _rejoined(pieces.header, whole)


def _fragment(packet: bytes) -> _Fragment | None:
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        field = int.from_bytes(packet[6:8], "big")
        if not field & 0x3FFF:
            return None
        identity = packet[4:6] + packet[9:10] + packet[12:20]
        return _Fragment(identity, packet[:size], (field & 0x1FFF) * 8, bool(field & 0x2000), packet[size:])
    if packet[6] != FRAGMENT:
        return None
    field = int.from_bytes(packet[42:44], "big")
    identity = packet[8:40] + packet[44:48]
    return _Fragment(identity, packet[:48], field & 0xFFF8, bool(field & 1), packet[48:])


def _rejoined(header: bytes, content: bytes) -> bytes:
    if header[0] >> 4 == 4:
        made = header[:2] + pack(">H", len(header) + len(content)) + header[4:6] + b"\0\0" + header[8:10]
        made += b"\0\0" + header[12:]
        return made[:10] + pack(">H", checksum(made)) + made[12:] + content
    return header[:4] + pack(">H", len(content)) + header[40:41] + header[7:40] + content


# --- tunnels ----------------------------------------------------------------


def _unwrapped(packet: bytes) -> tuple[tuple[str, ...], bytes]:
    """What a tunnel has put in front, and the packet inside; nothing where there is no tunnel."""
    if _fragment(packet):
        return (), packet
    protocol, place, _ = _transport(packet)
    if protocol in (IPIP, IPV6):
        start = place
    elif protocol == GRE:
        flags = int.from_bytes(packet[place : place + 2], "big")
        start = place + 4 + (4 if flags & 0x8000 else 0)
    elif protocol == UDP and int.from_bytes(packet[place + 2 : place + 4], "big") == GUE_PORT:
        start = place + 8 + 4 + (packet[place + 8] & 31) * 4
    else:
        return (), packet
    return (_outer_text(packet, place, start),), packet[start:]


def _outer_text(packet: bytes, place: int, start: int) -> str:
    """A tunnel's headers without what chance or the size of the content chooses, and what is wrong."""
    faults = []
    header, rest = packet[:place], packet[place:start]
    if packet[0] >> 4 == 4:
        if checksum(header):
            faults.append("bad header checksum")
        if int.from_bytes(header[2:4], "big") != len(packet):
            faults.append("bad length")
        header = header[:2] + b"\0\0\0\0" + header[6:10] + b"\0\0" + header[12:]
    else:
        if int.from_bytes(header[4:6], "big") + 40 != len(packet):
            faults.append("bad length")
        header = header[:4] + b"\0\0" + header[6:]
    if len(rest) >= 12:
        if int.from_bytes(rest[4:6], "big") != len(packet) - place:
            faults.append("bad UDP length")
        has_checksum = bytes(2) if rest[6:8] == bytes(2) else b"\xff\xff"
        rest = b"\0\0" + rest[2:4] + b"\0\0" + has_checksum + rest[8:]
    return " ".join(["[" + header.hex(), rest.hex(), *faults]).rstrip() + "]"


# --- lines ------------------------------------------------------------------


def _line(node: str, layers: tuple[str, ...], packet: bytes) -> str:
    protocol, _, _ = _transport(packet)
    text = _short(packet)
    if protocol in (ICMP, ICMPV6):
        packet = _without_chance(packet)
    rest = packet[SHOWN:]
    tail = f"…and {len(rest)} bytes, {zlib.crc32(rest):08x}" if rest else ""
    return " ".join([node, "<", *layers, text, packet[:SHOWN].hex() + tail])


def _without_chance(packet: bytes) -> bytes:
    """An ICMP packet without IPv4's id and checksum, or IPv6's flow label."""
    if packet[0] >> 4 == 4:
        return packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]
    return packet[:1] + bytes([packet[1] & 0xF0, 0, 0]) + packet[4:]


def _short(packet: bytes) -> str:
    """A packet in a few words."""
    protocol, place, _ = _transport(packet)
    source, target = addresses(packet)
    if protocol in (ICMP, ICMPV6) and len(packet) > place + 1:
        return f"icmp {packet[place]}/{packet[place + 1]} {source} > {target}"
    ends = ends_of(packet)
    if ends is None:
        return f"protocol {protocol} {source} > {target}"
    name = "udp"
    if protocol == TCP:
        flags = packet[place + 13] if len(packet) > place + 13 else 0
        letters = "".join(letter for letter, bit in FLAGS.items() if flags & bit)
        name = f"tcp {letters or '.'}"
    elif protocol == SCTP:
        name = f"sctp {packet[place + 12] if len(packet) > place + 12 else '-'}"
    return f"{name} {ends[0].address} {ends[0].port} > {ends[1].address} {ends[1].port}"


def _transport(packet: bytes) -> tuple[int, int, int]:
    """Protocol, place and fragment offset of what follows the IP header and IPv6's extension headers."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4, int.from_bytes(packet[6:8], "big") & 0x1FFF
    protocol, place, offset = packet[6], 40, 0
    while protocol in (HOP_BY_HOP, FRAGMENT) and len(packet) >= place + 8:
        size = (packet[place + 1] + 1) * 8
        if protocol == FRAGMENT:
            size, offset = 8, int.from_bytes(packet[place + 2 : place + 4], "big") >> 3
        protocol, place = packet[place], place + size
    return protocol, place, offset
