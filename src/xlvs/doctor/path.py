# SPDX-License-Identifier: GPL-2.0-only
"""Do packets of full size arrive?  A small ping, and one of the interface's MTU.

A router that says "too big" is as good as one that lets it pass: senders learn
from it (RFC 1191).  What neither arrives nor is complained of is lost for every
client that sends so much.
"""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from struct import Struct

PATIENCE = 0.4
"""Seconds for which answers are waited for."""

_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_ECHO_REPLY, _UNREACHABLE, _ECHO, _NEEDS_FRAGMENTATION = 0, 3, 8, 4
_IPV4, _ICMP = 20, 8
_HEADER = Struct(">BBHHH")
_SMALL, _FULL = 1, 2


@dataclass(frozen=True, slots=True)
class Passage:
    """What came of a small and a full-size ping; ``size`` is the full one's, IP header included.

    ``too_big`` is (who said so, the MTU that it named) where somebody did.
    """

    address: IPv4Address
    size: int
    small: bool
    full: bool
    too_big: tuple[IPv4Address, int] | None = None

    @property
    def swallowed(self) -> bool:
        """Whether full-size packets vanish without a word on a way that lets small ones pass."""
        return self.small and not self.full and self.too_big is None


def measure(targets: dict[IPv4Address, int], patience: float = PATIENCE) -> list[Passage]:
    """Ping each address with a small packet and one of so many bytes; raises `OSError`."""
    if not targets:
        return []
    identity = os.getpid() & 0xFFFF ^ 0x786C
    replies: set[tuple[IPv4Address, int]] = set()
    too_big: dict[IPv4Address, tuple[IPv4Address, int]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pings:
        pings.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        for address, size in targets.items():
            for sequence, length in ((_SMALL, _IPV4 + _ICMP), (_FULL, size)):
                try:
                    pings.sendto(_echo(identity, sequence, length - _IPV4), (str(address), 0))
                except OSError:
                    continue  # no route; the host says "too big" itself: then it knows
        wanted = {(address, sequence) for address in targets for sequence in (_SMALL, _FULL)}
        deadline = time.monotonic() + patience
        while wanted - replies and (left := deadline - time.monotonic()) > 0:
            if select.select([pings], [], [], left)[0]:
                _note(pings.recv(65536), identity, replies, too_big)
            if not {each for each in wanted - replies if each[0] not in too_big}:
                break
    return [
        Passage(
            address, size, (address, _SMALL) in replies, (address, _FULL) in replies, too_big.get(address)
        )
        for address, size in targets.items()
    ]


def _echo(identity: int, sequence: int, length: int) -> bytes:
    content = bytes(length - _ICMP)
    checksum = _HEADER.pack(_ECHO, 0, 0, identity, sequence)
    total = sum(int.from_bytes(checksum[place : place + 2], "big") for place in range(0, _ICMP, 2))
    total = (total & 0xFFFF) + (total >> 16)
    return _HEADER.pack(_ECHO, 0, ~total & 0xFFFF, identity, sequence) + content


def _note(
    packet: bytes,
    identity: int,
    replies: set[tuple[IPv4Address, int]],
    too_big: dict[IPv4Address, tuple[IPv4Address, int]],
) -> None:
    header = (packet[0] & 0xF) * 4
    if len(packet) < header + _ICMP:
        return
    sender = IPv4Address(packet[12:16])
    kind, code, _, first, second = _HEADER.unpack_from(packet, header)
    if kind == _ECHO_REPLY and first == identity:
        replies.add((sender, second))
    elif kind == _UNREACHABLE and code == _NEEDS_FRAGMENTATION:
        quoted = packet[header + _ICMP :]
        if len(quoted) >= _IPV4 + _ICMP and quoted[9] == socket.IPPROTO_ICMP:
            their = int.from_bytes(quoted[_IPV4 + 4 : _IPV4 + 6], "big")
            if their == identity:
                too_big[IPv4Address(quoted[16:20])] = (sender, second)
