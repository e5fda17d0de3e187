# SPDX-License-Identifier: GPL-2.0-only
"""Who answers ARP for an address?  Asked as any host asks, and every answer counted (RFC 826)."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

PATIENCE = 1.0
"""Seconds for which answers are waited for: those of proxy_arp take up to 0.8 (kernel: proxy_delay)."""

_ETHERTYPE = 0x0806
_BROADCAST = b"\xff" * 6
_REQUEST, _REPLY = 1, 2
_FRAME = Struct(">6s6sHHHBBH6s4s6s4s")


@dataclass(frozen=True, slots=True)
class Question:
    """Ask on an interface, whose own MAC and address these are, for some addresses.

    All hear the question; who answers for others (proxy_arp) answers that only
    after up to 0.8 seconds.  Those whose MACs are in ``directly`` are asked each by
    himself, too, which is answered at once (kernel: arp_process()).
    """

    interface: str
    mac: str
    own: IPv4Address | IPv6Address
    wanted: tuple[IPv4Address | IPv6Address, ...]
    directly: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """One that answered: by which interface it was heard, for which address, with which MAC."""

    interface: str
    address: IPv4Address | IPv6Address
    mac: str


def ask(questions: list[Question], patience: float = PATIENCE) -> list[Sighting]:
    """Ask all these at once and collect who answers, each answer once; the wait is the same for any number.

    The requests are ordinary ones, so that whoever would answer a router does.
    Raises `OSError` where packet sockets are not allowed.
    """
    return collect(questions, patience, _ETHERTYPE, _requests, _reply)


def collect(
    questions: list[Question],
    patience: float,
    ethertype: int,
    frames_of: Callable[[Question], Iterable[bytes]],
    answer_in: Callable[[bytes, Question], Sighting | None],
) -> list[Sighting]:
    """Send the frames of each question by its interface, and read the answers in what comes there.

    Raises `OSError` where packet sockets are not allowed.
    """
    sockets: dict[int, tuple[socket.socket, Question]] = {}
    found: dict[Sighting, None] = {}
    try:
        for question in questions:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
            sockets[packets.fileno()] = (packets, question)
            packets.bind((question.interface, ethertype))
            for frame in frames_of(question):
                packets.send(frame)
        deadline = time.monotonic() + patience
        while sockets and (left := deadline - time.monotonic()) > 0:
            for ready in select.select(list(sockets), [], [], left)[0]:
                packets, question = sockets[ready]
                sighting = answer_in(packets.recv(256), question)
                if sighting is not None:
                    found[sighting] = None
    finally:
        for packets, _ in sockets.values():
            packets.close()
    return list(found)


def packed_mac(mac: str) -> bytes:
    """A MAC address's six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def _requests(question: Question) -> Iterator[bytes]:
    for address in question.wanted:
        for mac in (_BROADCAST, *map(packed_mac, question.directly)):
            yield _request(question, address, mac)


def _request(question: Question, address: IPv4Address | IPv6Address, receiver: bytes) -> bytes:
    own = packed_mac(question.mac)
    return _FRAME.pack(
        receiver, own, _ETHERTYPE, 1, 0x0800, 6, 4, _REQUEST,
        own, question.own.packed, bytes(6), address.packed,
    )  # fmt: skip


def _reply(frame: bytes, question: Question) -> Sighting | None:
    if len(frame) < _FRAME.size:
        return None
    _, _, _, _, _, _, _, operation, mac, sender, _, target = _FRAME.unpack_from(frame)
    address = IPv4Address(sender)
    if operation != _REPLY or address not in question.wanted or IPv4Address(target) != question.own:
        return None
    return Sighting(question.interface, address, mac.hex(":"))
