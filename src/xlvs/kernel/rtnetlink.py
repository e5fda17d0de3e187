# SPDX-License-Identifier: GPL-2.0-only
"""The questions that the data plane has for rtnetlink: interfaces, routes, TC filters.

Written on a plain socket because `xlvsadm` asks them, and netlink libraries
take longer to import than the whole command may take (rtnetlink(7)).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from struct import Struct

_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTM_NEWQDISC, _RTM_GETQDISC = 36, 38
_RTM_NEWTFILTER, _RTM_GETTFILTER = 44, 46
_TCA_KIND = 1
_INGRESS = 0xFFFFFFF1
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_LINK_NETNSID, _IFLA_XDP, _IFLA_TARGET_NETNSID = 37, 43, 46
_IFLA_XDP_ATTACHED = 2
_IFLA_INFO_KIND = 1
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 2, 4, 5, 7, 18

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_RT_SCOPE_LINK = 253
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_ARPHRD_ETHER = 1

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_LINK = Struct("=BxHiII")
_ADDRESS = Struct("=BBBBI")
_ROUTE = Struct("=BBBBBBBBI")
_FILTER = Struct("=B3xiIII")
_CLSACT_PARENTS = (0xFFFFFFF2, 0xFFFFFFF3)  # ingress, egress

_ASKED_AT_ONCE = 64
"""Questions with one call; their answers have room in a socket's buffer."""

LOCAL_ROUTE = 2
"""``RTN_LOCAL``: the address is the machine's own."""
UNICAST_ROUTE = 1
"""``RTN_UNICAST``: a gateway or direct route."""
NO_ROUTE = 0
"""Nothing leads there."""


class Link:
    """An interface: what attaching a program has to know of it.

    ``lower`` is the index of the interface that a VLAN device is on, or of a veth's
    peer; ``lower_namespace`` the number that this namespace has for that one's, -1
    where it is this one.  ``xdp`` says whether any XDP program is there.
    """

    __slots__ = (
        "ethernet", "index", "kind", "loopback", "lower", "lower_namespace", "mac", "master", "name", "up",
        "xdp",
    )  # fmt: skip

    def __init__(self, index: int, flags: int, hardware: int) -> None:
        self.index = index
        self.up = bool(flags & _IFF_UP)
        self.loopback = bool(flags & _IFF_LOOPBACK)
        self.ethernet = hardware == _ARPHRD_ETHER
        self.name = ""
        self.mac = b""
        self.lower = 0
        self.lower_namespace = -1
        self.xdp = False
        self.master = 0
        self.kind = ""


class Route:
    """Where packets to an address go: the route's type, interface index, next hop, source.

    ``next_hop`` is the gateway, or the address itself where it is on the link; an IPv4 route may
    have an IPv6 gateway (RFC 8950).
    ``source`` is the address that our own packets get; empty where none is known.
    """

    __slots__ = ("interface", "kind", "next_hop", "source")

    def __init__(self, kind: int, interface: int, next_hop: bytes, source: bytes) -> None:
        self.kind = kind
        self.interface = interface
        self.next_hop = next_hop
        self.source = source


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _padded(length)


def _attribute(kind: int, value: bytes) -> bytes:
    raw = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return raw.ljust(_padded(len(raw)), b"\0")


class _InterruptedError(Exception):
    """Something changed during a dump: it may lack what was there all the time."""


def _ask(kind: int, flags: int, body: bytes, whole: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield the (type, payload) of each message of the answer; `OSError` for a refusal.

    A dump that is to be ``whole`` ends with `_InterruptedError` where it may not be.
    """
    interrupted = False
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.bind((0, 0))
        size = _HEADER.size + len(body)
        link.send(_HEADER.pack(size, kind, _NLM_F_REQUEST | flags, 1, 0) + body)
        while True:
            data = link.recv(1 << 17)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, answer, its_flags, _, _ = _HEADER.unpack_from(data, offset)
                interrupted = interrupted or bool(its_flags & _NLM_F_DUMP_INTR)
                payload = data[offset + _HEADER.size : offset + length]
                if answer == _NLMSG_ERROR:
                    error = -int.from_bytes(payload[:4], "little", signed=True)
                    raise OSError(error, os.strerror(error))
                if answer == _NLMSG_DONE:
                    if interrupted and whole:
                        raise _InterruptedError
                    return
                yield answer, payload
                offset += _padded(length)
            if not flags & _NLM_F_DUMP:
                return


def links() -> list[Link]:
    """Every interface of this network namespace, in order of index."""
    for last in (False, False, False, True):  # interfaces may come and go for a while
        answers = _ask(_RTM_GETLINK, _NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0), whole=not last)
        try:
            found = [_link(payload) for answer, payload in answers if answer == _RTM_NEWLINK]
            break
        except _InterruptedError:
            continue
    return sorted(found, key=lambda link: link.index)


def addressed() -> set[int]:
    """The indices of interfaces that have an address which counts beyond their link."""
    found = set()
    for last in (False, False, False, True):
        answers = _ask(
            _RTM_GETADDR, _NLM_F_DUMP, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0), whole=not last
        )
        try:
            for answer, payload in answers:
                _, _, _, scope, index = _ADDRESS.unpack_from(payload)
                if answer == _RTM_NEWADDR and scope < _RT_SCOPE_LINK:
                    found.add(index)
            break
        except _InterruptedError:
            continue
    return found


def link_announcements() -> socket.socket:
    """A socket on which the kernel announces every change of an interface here, or of its addresses.

    Raises `OSError`.
    """
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        made.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    except BaseException:
        made.close()
        raise
    return made


def veth_peer(link: Link) -> Link | None:
    """The other end of a veth, whose namespace may be another one; None where it is not to be seen."""
    body = _LINK.pack(0, 0, link.lower, 0, 0)
    if link.lower_namespace >= 0:
        body += _attribute(_IFLA_TARGET_NETNSID, link.lower_namespace.to_bytes(4, sys.byteorder))
    try:
        for answer, payload in _ask(_RTM_GETLINK, 0, body):
            if answer == _RTM_NEWLINK:
                return _link(payload)
    except OSError:
        pass
    return None


def _link(payload: bytes) -> Link:
    _, hardware, index, flags, _ = _LINK.unpack_from(payload)
    link = Link(index, flags, hardware)
    for kind, value in _attributes(payload[_LINK.size :]):
        if kind == _IFLA_IFNAME:
            link.name = os.fsdecode(value.rstrip(b"\0"))
        elif kind == _IFLA_ADDRESS:
            link.mac = value
        elif kind == _IFLA_LINK:
            link.lower = int.from_bytes(value, sys.byteorder)
        elif kind == _IFLA_LINK_NETNSID:
            link.lower_namespace = int.from_bytes(value, sys.byteorder, signed=True)
        elif kind == _IFLA_MASTER:
            link.master = int.from_bytes(value, sys.byteorder)
        elif kind == _IFLA_XDP:
            link.xdp = any(inner == _IFLA_XDP_ATTACHED and text[0] for inner, text in _attributes(value))
        elif kind == _IFLA_LINKINFO:
            for inner, text in _attributes(value):
                if inner == _IFLA_INFO_KIND:
                    link.kind = text.rstrip(b"\0").decode()
    return link


def has_clsact_filters(interface: int) -> bool:
    """Whether anybody's filter stands in an interface's clsact qdisc."""
    for parent in _CLSACT_PARENTS:
        body = _FILTER.pack(0, interface, 0, parent, 0)
        try:
            if any(answer == _RTM_NEWTFILTER for answer, _ in _ask(_RTM_GETTFILTER, _NLM_F_DUMP, body)):
                return True
        except OSError:
            continue  # no such qdisc, or no such interface
    return False


def ingress_qdisc(interface: int) -> str:
    """The kind of an interface's qdisc for filters of what comes in, ``clsact`` or ``ingress``; or empty."""
    for answer, payload in _ask(_RTM_GETQDISC, _NLM_F_DUMP, _FILTER.pack(0, interface, 0, 0, 0)):
        _, index, _, parent, _ = _FILTER.unpack_from(payload)
        if answer == _RTM_NEWQDISC and index == interface and parent == _INGRESS:
            for kind, value in _attributes(payload[_FILTER.size :]):
                if kind == _TCA_KIND:
                    return value.rstrip(b"\0").decode()
    return ""


def route_to(address: bytes, source: bytes = b"") -> Route:
    """Ask the kernel for its route to an address (packed, 4 or 16 bytes), from that one of ours or any."""
    return routes_to([address], source)[address]


def routes_to(addresses: Sequence[bytes], source: bytes = b"") -> dict[bytes, Route]:
    """Ask the kernel for its routes to different addresses, some with each call."""
    routes: dict[bytes, Route] = {}
    alike: dict[bytes, tuple[int, int, bytes, bytes]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.bind((0, 0))
        # Each answer comes by itself; room made for each would take longer than the answer.
        room = memoryview(bytearray(1 << 17))
        for first in range(0, len(addresses), _ASKED_AT_ONCE):
            asked = addresses[first : first + _ASKED_AT_ONCE]
            link.send(
                b"".join(_route_question(number, address, source) for number, address in enumerate(asked))
            )
            missing = len(asked)
            while missing:
                data = bytes(room[: link.recv_into(room)])
                offset = 0
                while offset + _HEADER.size <= len(data):
                    length, answer, _, number, _ = _HEADER.unpack_from(data, offset)
                    address = asked[number]
                    if answer == _RTM_NEWROUTE:
                        payload = data[offset + _HEADER.size : offset + length]
                        routes[address] = _route(address, payload, alike)
                    else:  # ENETUNREACH, EHOSTUNREACH, EACCES: the routing table says no
                        routes[address] = Route(NO_ROUTE, 0, address, b"")
                    missing -= 1
                    offset += _padded(length)
    return routes


def _route_question(number: int, address: bytes, source: bytes) -> bytes:
    start, end, source_attribute = _question_parts(len(address), source)
    return b"".join((start, number.to_bytes(4, sys.byteorder), end, address, source_attribute))


@cache
def _question_parts(length: int, source: bytes) -> tuple[bytes, bytes, bytes]:
    """A question for a route to an address of that many bytes: what is before and after its number, and
    after the address."""
    family = socket.AF_INET if length == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, length * 8, len(source) * 8, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + length, _RTA_DST)
    behind = _attribute(_RTA_SRC, source) if source else b""
    size = _HEADER.size + len(body) + length + len(behind)
    header = _HEADER.pack(size, _RTM_GETROUTE, _NLM_F_REQUEST, 0, 0)
    return header[:8], header[12:] + body, behind


def _route(address: bytes, payload: bytes, alike: dict[bytes, tuple[int, int, bytes, bytes]]) -> Route:
    """The route that an answer tells; ``alike`` is what answers told that differ in the address alone."""
    # The kernel begins with the table and the address: rt_fill_info(), rt6_fill_node().
    place = payload.find(address, _ROUTE.size)
    start = _ROUTE.size + 2 * _ATTRIBUTE.size + 4
    if place != start or payload[start - 4 : start] != _ATTRIBUTE.pack(4 + len(address), _RTA_DST):
        return Route(*_read_route(address, payload))
    rest = payload[:start] + payload[start + len(address) :]
    told = alike.get(rest)
    if told is None:
        kind, interface, next_hop, source = _read_route(b"", payload)
        told = alike[rest] = kind, interface, next_hop, source
    kind, interface, next_hop, source = told
    return Route(kind, interface, next_hop or address, source)


def _read_route(address: bytes, payload: bytes) -> tuple[int, int, bytes, bytes]:
    kind = _ROUTE.unpack_from(payload)[7]
    interface, next_hop, source = 0, address, b""
    for attribute, value in _attributes(payload[_ROUTE.size :]):
        if attribute == _RTA_OIF:
            interface = int.from_bytes(value, "little")
        elif attribute == _RTA_GATEWAY:
            next_hop = value
        elif attribute == _RTA_VIA:  # struct rtvia: a gateway of another family, which comes first
            next_hop = value[2:]
        elif attribute == _RTA_PREFSRC:
            source = value
    return kind, interface, next_hop, source
