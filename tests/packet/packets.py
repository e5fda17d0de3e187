# SPDX-License-Identifier: GPL-2.0-only
"""Frames, built and taken apart by the RFCs and by nothing of xlvs.

Ports and lengths are in host order, addresses are packed.
"""

from __future__ import annotations

import socket
from struct import pack, unpack
from typing import Any

ETHERNET_SIZE = 14
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_IPV6 = 0x86DD

ICMP = 1
IPIP = 4
TCP = 6
UDP = 17
SCTP = 132
IPV6 = 41
GRE = 47
ICMPV6 = 58
HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
DESTINATION_OPTIONS = 60

DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
GRE_CHECKSUM = 0x8000

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def packed(address: str) -> bytes:
    """An address as it stands in packets."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def mac(text: str) -> bytes:
    """An Ethernet address of its usual form with colons."""
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(payload: bytes, ethertype: int, destination: bytes, source: bytes) -> bytes:
    """An Ethernet frame."""
    return destination + source + pack(">H", ethertype) + payload


def ipv4(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    ttl: int = 64,
    options: bytes = b"",
    identification: int = 0,
    fragment: int = 0,
    version: int = 4,
    header_words: int | None = None,
    total_length: int | None = None,
    tos: int = 0,
) -> bytes:
    """An IPv4 packet (RFC 791); ``fragment`` is flags and offset, ``options`` whole words."""
    words = 5 + len(options) // 4
    total = words * 4 + len(payload)
    first = version << 4 | (words if header_words is None else header_words)
    length = total if total_length is None else total_length
    header = pack(">BBHHHBBH", first, tos, length, identification, fragment, ttl, protocol, 0)
    header += source + destination + options
    return header[:10] + pack(">H", checksum(header)) + header[12:] + payload


def ipv6(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    hop_limit: int = 64,
    extensions: tuple[tuple[int, bytes], ...] = (),
    payload_length: int | None = None,
    version: int = 6,
    traffic_class: int = 0,
) -> bytes:
    """An IPv6 packet (RFC 8200).

    ``extensions`` are (kind, content without its first byte), in order.
    """
    kinds = [kind for kind, _ in extensions] + [protocol]
    chain = b"".join(bytes([kinds[n + 1]]) + content for n, (_, content) in enumerate(extensions))
    length = len(chain) + len(payload) if payload_length is None else payload_length
    first = version << 28 | traffic_class << 20
    return pack(">IHBB", first, length, kinds[0], hop_limit) + source + destination + chain + payload


def options_extension(words: int = 0) -> bytes:
    """The content of a hop-by-hop or destination options header of (words + 1) * 8 bytes: padding."""
    size = words * 8 + 8 - 2
    return bytes([words, 1, size - 2]) + bytes(size - 2)


def fragment_extension(offset: int, more: bool, identification: int = 7) -> bytes:
    """The content of a fragment header; ``offset`` in units of eight bytes."""
    return pack(">BHI", 0, offset << 3 | more, identification)


def tcp(
    source_port: int, destination_port: int, flags: int, payload: bytes = b"", sequence: int = 1
) -> bytes:
    """A TCP segment (RFC 9293); its checksum is left out, a director does not look at it."""
    return (
        pack(">HHIIBBHHH", source_port, destination_port, sequence, 0, 5 << 4, flags, 64240, 0, 0) + payload
    )


def udp(source_port: int, destination_port: int, payload: bytes = b"") -> bytes:
    """A UDP datagram (RFC 768) without checksum."""
    return pack(">HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


# Chunk types of SCTP (RFC 9260, 3.2)
DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT = range(7)
SHUTDOWN, SHUTDOWN_ACK, ERROR, COOKIE_ECHO, COOKIE_ACK, ECNE, CWR, SHUTDOWN_COMPLETE = range(7, 15)


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260, appendix A), bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def chunk(kind: int, value: bytes = b"", length: int | None = None) -> bytes:
    """A chunk of SCTP with its padding; ``length`` may be a wrong one."""
    padding = bytes(-len(value) % 4)
    return pack(">BBH", kind, 0, 4 + len(value) if length is None else length) + value + padding


def sctp(source_port: int, destination_port: int, *chunks: bytes, tag: int = 0x01020304) -> bytes:
    """An SCTP packet (RFC 9260) with its checksum."""
    head, rest = pack(">HHI", source_port, destination_port, tag), b"".join(chunks)
    return head + crc32c(head + bytes(4) + rest).to_bytes(4, "little") + rest


def transport_of(packet: bytes) -> tuple[int, int]:
    """What an unfragmented packet carries and where that begins; extension headers are skipped."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 0x0F) * 4
    kind, offset = packet[6], 40
    while kind in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS):
        size = 8 if kind == FRAGMENT else packet[offset + 1] * 8 + 8
        kind, offset = packet[offset], offset + size
    return kind, offset


def with_checksum(packet: bytes) -> bytes:
    """A packet with the checksum of its TCP, UDP, ICMP or ICMPv6 (RFC 9293, 768, 792, 4443)."""
    protocol, offset = transport_of(packet)
    content = bytearray(packet[offset:])
    field = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}[protocol]
    content[field : field + 2] = b"\0\0"
    pseudo = b""
    if protocol != ICMP:
        addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
        pseudo = addresses + pack(">II", len(content), protocol)
    total = checksum(pseudo + content)
    if protocol == UDP and total == 0:
        total = 0xFFFF
    content[field : field + 2] = pack(">H", total)
    return packet[:offset] + bytes(content)


def without_fragmentation(packet: bytes) -> bytes:
    """The same packet with DF set; IPv6 has none to set."""
    if packet[0] >> 4 == 6:
        return packet
    words = packet[0] & 15
    header = packet[:6] + pack(">H", DONT_FRAGMENT) + packet[8:10] + bytes(2) + packet[12 : words * 4]
    return header[:10] + pack(">H", checksum(header)) + header[12:] + packet[words * 4 :]


def icmp(
    source: bytes,
    destination: bytes,
    kind: int,
    code: int,
    detail: int,
    quoted: bytes,
    ttl: int = 64,
    **fields: Any,
) -> bytes:
    """An ICMP error (RFC 792) or an ICMPv6 error (RFC 4443) that quotes a packet."""
    message = pack(">BBHI", kind, code, 0, detail) + quoted
    if len(source) == 4:
        return with_checksum(ipv4(source, destination, ICMP, message, ttl, **fields))
    return with_checksum(ipv6(source, destination, ICMPV6, message, ttl, **fields))


def fragments(packet: bytes, size: int, identification: int = 7) -> list[bytes]:
    """A packet cut into fragments with that much payload each (RFC 791, 8200); a multiple of 8.

    In IPv6 the fragment header comes after the fixed header.
    """
    whole = packet[20:] if packet[0] >> 4 == 4 else packet[40:]
    cut = []
    for start in range(0, len(whole), size):
        part, more = whole[start : start + size], start + size < len(whole)
        if packet[0] >> 4 == 4:
            flags = start // 8 | MORE_FRAGMENTS * more
            source, destination = packet[12:16], packet[16:20]
            cut.append(
                ipv4(
                    source, destination, packet[9], part, packet[8],
                    identification=identification, fragment=flags, tos=packet[1],
                )
            )  # fmt: skip
        else:
            chain = ((FRAGMENT, fragment_extension(start // 8, more, identification)),)
            cut.append(ipv6(packet[8:24], packet[24:40], packet[6], part, packet[7], chain))
    return cut


def tunnelled(
    packet: bytes,
    source: bytes,
    destination: bytes,
    kind: str,
    port: int = 0,
    source_port: int = 0,
    identification: int = 0,
    checked: bool = False,
) -> bytes:
    """A packet wrapped by ``ipip``, ``gue`` or ``gre`` (RFC 2003, 2473, 2784, 3168).

    TTL and class are the packet's, but "congestion experienced" becomes
    "capable"; DF is the packet's where both are IPv4.  ``checked``: GUE's UDP
    header and that of GRE have a checksum.
    """
    is_ipv4 = packet[0] >> 4 == 4
    tos = packet[1] if is_ipv4 else int.from_bytes(packet[:2], "big") >> 4 & 0xFF
    if tos & 3 == 3:
        tos = tos & ~3 | 2
    ttl = packet[8] if is_ipv4 else packet[7]
    protocol = IPIP if is_ipv4 else IPV6
    content = packet
    if kind == "gue":
        gue = pack(">BBH", 0, protocol, 0) + packet
        content = pack(">HHHH", source_port, port, 8 + len(gue), 0) + gue
        protocol = UDP
        if checked:
            pseudo = source + destination + pack(">II", len(content), UDP)
            content = content[:6] + pack(">H", checksum(pseudo + content) or 0xFFFF) + gue
    elif kind == "gre":
        flags = GRE_CHECKSUM if checked else 0
        content = pack(">HH", flags, ETHERTYPE_IPV4 if is_ipv4 else ETHERTYPE_IPV6) + packet
        if checked:
            whole = content[:4] + bytes(4) + packet
            content = whole[:4] + pack(">HH", checksum(whole) or 0xFFFF, 0) + packet
        protocol = GRE
    if len(source) == 4:
        flags = int.from_bytes(packet[6:8], "big") & DONT_FRAGMENT if is_ipv4 else 0
        return ipv4(
            source, destination, protocol, content, ttl,
            identification=identification, fragment=flags, tos=tos,
        )  # fmt: skip
    return ipv6(source, destination, protocol, content, ttl, traffic_class=tos)


def ip_length(frame: bytes) -> int:
    """The length that the IP header of a frame names, its own included."""
    if frame[ETHERNET_SIZE] >> 4 == 4:
        return int.from_bytes(frame[16:18], "big")
    return int.from_bytes(frame[18:20], "big") + 40


def with_one_hop_less(frame: bytes) -> bytes:
    """A frame as any router leaves its IP header: one hop less, and a new header checksum."""
    changed = bytearray(frame)
    if frame[ETHERNET_SIZE] >> 4 == 4:
        changed[22] -= 1
        changed[24:26] = b"\0\0"
        header = bytes(changed[ETHERNET_SIZE : ETHERNET_SIZE + (frame[ETHERNET_SIZE] & 0x0F) * 4])
        changed[24:26] = checksum(header).to_bytes(2, "big")
    else:
        changed[21] -= 1
    return bytes(changed)
