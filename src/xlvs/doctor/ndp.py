# SPDX-License-Identifier: GPL-2.0-only
"""Who answers neighbour solicitations for an address?  What `arp` is to IPv4 (RFC 4861)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from struct import Struct

from xlvs.doctor.arp import PATIENCE, Question, Sighting, collect, packed_mac

_ETHERTYPE = 0x86DD
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_MAC, _TARGET_MAC = 1, 2
_HOP_LIMIT = 255
"""Of these messages: who comes from afar could not have it."""
_ETHERNET = Struct(">6s6sH")
_IPV6 = Struct(">IHBB16s16s")
_MESSAGE = Struct(">BBHI16s")
_OPTION = Struct(">BB6s")


def solicited(address: IPv6Address) -> IPv6Address:
    """The multicast address at which whoever has an address listens for questions (RFC 4291, 2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def ask(questions: list[Question], patience: float = PATIENCE) -> list[Sighting]:
    """Ask all these at once and collect who answers, each answer once; the wait is the same for any number.

    Raises `OSError` where packet sockets are not allowed.
    """
    return collect(questions, patience, _ETHERTYPE, _solicitations, _advertisement)


def _solicitations(question: Question) -> Iterator[bytes]:
    for address in question.wanted:
        if isinstance(address, IPv6Address):
            for mac in (_of_group(solicited(address)), *map(packed_mac, question.directly)):
                yield _solicitation(question, address, mac)


def _of_group(group: IPv6Address) -> bytes:
    """The MAC of a multicast address (RFC 2464, 7)."""
    return b"\x33\x33" + group.packed[12:]


def _solicitation(question: Question, address: IPv6Address, receiver: bytes) -> bytes:
    own, source, to = packed_mac(question.mac), question.own.packed, solicited(address).packed
    option = _OPTION.pack(_SOURCE_MAC, 1, own)
    message = _MESSAGE.pack(_SOLICITATION, 0, 0, 0, address.packed) + option
    checksum = _checksum(source + to + len(message).to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6)) + message)
    message = _MESSAGE.pack(_SOLICITATION, 0, checksum, 0, address.packed) + option
    header = _IPV6.pack(6 << 28, len(message), _ICMPV6, _HOP_LIMIT, source, to)
    return _ETHERNET.pack(receiver, own, _ETHERTYPE) + header + message


def _checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _advertisement(frame: bytes, question: Question) -> Sighting | None:
    start = _ETHERNET.size + _IPV6.size
    if len(frame) < start + _MESSAGE.size:
        return None
    _, mac, _ = _ETHERNET.unpack_from(frame)
    _, _, following, hops, _, to = _IPV6.unpack_from(frame, _ETHERNET.size)
    kind, _, _, _, target = _MESSAGE.unpack_from(frame, start)
    address = IPv6Address(target)
    if (following, hops, kind, to) != (_ICMPV6, _HOP_LIMIT, _ADVERTISEMENT, question.own.packed):
        return None
    if address not in question.wanted:
        return None
    options = frame[start + _MESSAGE.size :]
    if len(options) >= _OPTION.size and options[:2] == bytes((_TARGET_MAC, 1)):
        mac = options[2:8]
    return Sighting(question.interface, address, mac.hex(":"))
