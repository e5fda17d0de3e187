# SPDX-License-Identifier: GPL-2.0-only
"""Do packets of full size arrive?  A small ping, and one of the interface's MTU.

A router that says "too big" is as good as one that lets it pass: senders learn
from it (RFC 1191, RFC 8201).  What neither arrives nor is complained of is lost for every
client that sends so much.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

PATIENCE = 1.0
"""Seconds for which answers are waited for."""
_AGAIN = 0.3
"""Seconds after which what was not answered is sent again: one lost packet says nothing of a path."""

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_IPV4, _IPV6, _ICMP = 20, 40, 8
_HEADER = Struct(">BBHHH")
_SMALL, _FULL = 1, 2

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs: header sizes and offsets in bytes, ICMP's numbers (RFC 792, RFC 4443)."""

    family: socket.AddressFamily
    protocol: int
    header: int
    destination: slice
    protocol_at: int
    echo: int
    echo_reply: int
    too_big: tuple[int, int]
    options: tuple[tuple[int, int, int], ...]


_FAMILIES = {
    4: _Family(
        socket.AF_INET, socket.IPPROTO_ICMP, _IPV4, slice(16, 20), 9, 8, 0, (3, 4),
        ((socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE),),
    ),
    6: _Family(
        socket.AF_INET6, socket.IPPROTO_ICMPV6, _IPV6, slice(24, 40), 6, 128, 129, (2, 0),
        (
            (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE),
            (socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1),
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Passage:
    """What came of a small and a full-size ping; ``size`` is the full one's, IP header included.

    ``too_big`` is (who said so, the MTU that it named) where somebody did.
    """

    address: IPv4Address | IPv6Address
    size: int
    small: bool
    full: bool
    too_big: tuple[IPv4Address | IPv6Address, int] | None = None

    @property
    def smallest(self) -> int:
        """The small ping's size."""
        return _FAMILIES[self.address.version].header + _ICMP

    @property
    def swallowed(self) -> bool:
        """Whether full-size packets vanish without a word on a way that lets small ones pass."""
        return self.small and not self.full and self.too_big is None


def measure(targets: dict[Address, int], patience: float = PATIENCE) -> list[Passage]:
    """Ping each address with a small packet and one of so many bytes; raises `OSError`.

    What is not answered is sent again for ``patience`` seconds.
    """
    heard = _Heard(os.getpid() & 0xFFFF ^ 0x786C)
    sockets: dict[int, tuple[socket.socket, _Family]] = {}
    try:
        for version in sorted({address.version for address in targets}):
            family = _FAMILIES[version]
            pings = _raw_socket(family)
            sockets[pings.fileno()] = (pings, family)
        now = time.monotonic()
        deadline, next_round = now + patience, now
        while (left := deadline - time.monotonic()) > 0 and (unheard := heard.not_of(targets)):
            until_next_round = next_round - time.monotonic()
            if until_next_round <= 0:
                for pings, family in sockets.values():
                    _ping(pings, family, targets, unheard, heard.identity)
                next_round += _AGAIN
                continue
            for ready in select.select(list(sockets), [], [], min(left, until_next_round))[0]:
                pings, family = sockets[ready]
                packet, sender = pings.recvfrom(65536)
                heard.note(packet, ip_address(sender[0].partition("%")[0]), family)
    finally:
        for pings, _ in sockets.values():
            pings.close()
    return [
        Passage(
            address, size, (address, _SMALL) in heard.replies, (address, _FULL) in heard.replies,
            heard.too_big.get(address),
        )
        for address, size in targets.items()
    ]  # fmt: skip


def _raw_socket(family: _Family) -> socket.socket:
    made = socket.socket(family.family, socket.SOCK_RAW, family.protocol)
    try:
        for level, option, value in family.options:
            made.setsockopt(level, option, value)
    except BaseException:
        made.close()
        raise
    return made


def _ping(
    pings: socket.socket,
    family: _Family,
    targets: dict[Address, int],
    unheard: set[tuple[Address, int]],
    identity: int,
) -> None:
    """Send those pings of a family that were not heard of."""
    for address, size in targets.items():
        if _FAMILIES[address.version] is not family:
            continue
        for sequence, length in ((_SMALL, family.header + _ICMP), (_FULL, size)):
            if (address, sequence) in unheard:
                with suppress(OSError):  # no route; the host says "too big" itself: then it knows
                    echo = _echo(identity, sequence, length - family.header, family)
                    pings.sendto(echo, (str(address), 0))


def _echo(identity: int, sequence: int, length: int, family: _Family) -> bytes:
    """An echo request; IPv6's checksum, which covers addresses, is the kernel's to write."""
    content = bytes(length - _ICMP)
    header = _HEADER.pack(family.echo, 0, 0, identity, sequence)
    total = sum(int.from_bytes(header[place : place + 2], "big") for place in range(0, _ICMP, 2))
    total = (total & 0xFFFF) + (total >> 16)
    return _HEADER.pack(family.echo, 0, ~total & 0xFFFF, identity, sequence) + content


@dataclass(slots=True)
class _Heard:
    identity: int
    replies: set[tuple[Address, int]] = field(default_factory=set)
    too_big: dict[Address, tuple[Address, int]] = field(default_factory=dict)

    def not_of(self, targets: dict[Address, int]) -> set[tuple[Address, int]]:
        """The pings, by address and sequence number, of which nothing is known yet."""
        wanted = {(address, sequence) for address in targets for sequence in (_SMALL, _FULL)}
        return {each for each in wanted - self.replies if each[0] not in self.too_big}

    def note(self, packet: bytes, sender: Address, family: _Family) -> None:
        """What came by a raw socket: of IPv4 with its header, of IPv6 without."""
        start = (packet[0] & 0xF) * 4 if family.header == _IPV4 else 0
        if len(packet) < start + _ICMP:
            return
        kind, code, _, first, second = _HEADER.unpack_from(packet, start)
        quoted = packet[start + _ICMP :]
        if kind == family.echo_reply and first == self.identity:
            self.replies.add((sender, second))
        elif (kind, code) == family.too_big and len(quoted) >= family.header + _ICMP:
            about, protocol = quoted[family.destination], quoted[family.protocol_at]
            their = int.from_bytes(quoted[family.header + 4 : family.header + 6], "big")
            if protocol == family.protocol and their == self.identity:
                mtu = second if family.header == _IPV4 else first << 16 | second
                self.too_big[ip_address(about)] = (sender, mtu)
