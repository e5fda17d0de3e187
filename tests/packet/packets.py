# SPDX-License-Identifier: GPL-2.0-only
"""Frames, built and taken apart by the RFCs and by nothing of xlvs.

Ports and lengths are in host order, addresses are packed.
"""

from __future__ import annotations

import socket
from struct import pack, unpack

ETHERNET_SIZE = 14
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_IPV6 = 0x86DD

TCP = 6
UDP = 17
HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
DESTINATION_OPTIONS = 60

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
) -> bytes:
    """An IPv4 packet (RFC 791); ``fragment`` is flags and offset, ``options`` whole words."""
    words = 5 + len(options) // 4
    total = words * 4 + len(payload)
    first = version << 4 | (words if header_words is None else header_words)
    length = total if total_length is None else total_length
    header = pack(">BBHHHBBH", first, 0, length, identification, fragment, ttl, protocol, 0)
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
) -> bytes:
    """An IPv6 packet (RFC 8200).

    ``extensions`` are (kind, content without its first byte), in order.
    """
    kinds = [kind for kind, _ in extensions] + [protocol]
    chain = b"".join(bytes([kinds[n + 1]]) + content for n, (_, content) in enumerate(extensions))
    length = len(chain) + len(payload) if payload_length is None else payload_length
    return pack(">IHBB", version << 28, length, kinds[0], hop_limit) + source + destination + chain + payload


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
