# SPDX-License-Identifier: GPL-2.0-only
"""Asking one real server as the VIP, through its forwarding method, past the live table.

A connection to the VIP from the director itself would be balanced, or end at
the director; and answers from an address that the director owns are dropped
by its stack.  So a `Prober` connects to the real server's own address, and a
small eBPF program (bpf/probe.bpf.c) at TC of the director's interfaces makes
it one to the VIP, with a tunnel's headers where there is one, and turns the
answers back.  With NAT nothing is rewritten: the connection comes from the
VIP, so that the answers take the real server's default route as clients' do.

The programs are attached by links that belong to this process: they end with
it, however it ends.  Kernels before 6.6 have no such links; there the filters
of a process that was killed stay, with nothing to match, and the next
`Prober.prepare` removes them.

A `Prober` works in the network namespace in which it was made; use it on one
event loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from types import TracebackType

from xlvs.errors import Unavailable, UsageError
from xlvs.kernel import bpf, libbpf, rtnetlink
from xlvs.model import LOCAL, MASQUERADE, ROUTE, TUNNEL, Tunnel

OBJECT = Path(__file__).parents[1] / "bpf/probe.bpf.o"
PATIENCE = 2.5
"""Seconds after which a real server counts as silent.

TCP sends a SYN that was lost again after one second (RFC 6298, section 2.1), and the answer to
that one may be late by more than another: one lost packet is no finding, nor is a busy machine.
"""

_ENVELOPE = 64
_HANDLE = 0x7870
_FIRST, _LAST = 1, 49156  # in front of the packet path's filter, and behind it (xlvs.datapath.hooks)
_TCP_MAXSEG = 2
_TUNNEL_SEGMENT = 1200
"""What a segment of a tunnelled probe carries: it fits any path."""
_IPPROTO_IPIP, _IPPROTO_IPV6, _IPPROTO_GRE = 4, 41, 47
_LINGER_NOT = pack("=ii", 1, 0)
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h


class _Probe(ctypes.Structure):
    """``struct probe`` of bpf/probe.bpf.c; addresses and ports in network order."""

    _fields_ = (
        ("real_server", ctypes.c_uint8 * 16),
        ("virtual", ctypes.c_uint8 * 16),
        ("real_port", ctypes.c_uint8 * 2),
        ("virtual_port", ctypes.c_uint8 * 2),
        ("envelope_size", ctypes.c_uint8),
        ("envelope_version", ctypes.c_uint8),
        ("udp", ctypes.c_uint8),
        ("answered_by_real", ctypes.c_uint8),
        ("envelope", ctypes.c_uint8 * _ENVELOPE),
        ("answers", ctypes.c_uint32),
        ("interface", ctypes.c_uint32),
        ("mac", ctypes.c_uint8 * 6),
        ("error_type", ctypes.c_uint8),
        ("error_code", ctypes.c_uint8),
        ("error_from", ctypes.c_uint8 * 16),
        ("error_seen", ctypes.c_uint8),
        ("error_version", ctypes.c_uint8),
        ("padding", ctypes.c_uint8 * 2),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, as whom: addresses packed, ports in host order.

    ``method`` is a forwarding method of `xlvs.model`.  Under NAT ``port`` is
    the real server's own port, else the packets have ``virtual_port``.
    """

    real_server: bytes
    port: int
    virtual: bytes
    virtual_port: int
    method: str = ROUTE
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a connection.

    ``outcome`` is one of the words below.  ``seconds`` is how long it took.
    ``interface`` is the number of the interface by which the answer came (0:
    not known), ``mac`` from which it came; ``icmp`` is (type, code, packed
    address of who sent it) of an ICMP error about the connection.
    """

    outcome: str
    seconds: float
    interface: int = 0
    mac: bytes = b""
    icmp: tuple[int, int, bytes] | None = None

    @property
    def connected(self) -> bool:
        """Whether the real server accepted the connection."""
        return self.outcome == CONNECTED


CONNECTED = "connected"
REFUSED = "refused"
"""A TCP RST: nobody listens there, or a firewall says so."""
SILENT = "silent"
"""No answer in time."""
UNREACHABLE = "unreachable"
"""The director has no way there, or an ICMP error said that it ends."""
STRANGE_SOURCE = "answered by its own address"
"""The real server answered, but not as the VIP: a client would not know the answer."""


class Prober:
    """Connections to single real servers as the VIP; a context manager.

    Raises `Unavailable` where the eBPF program cannot be loaded.
    """

    def __init__(self) -> None:
        self._object = libbpf.BpfObject(str(OBJECT))
        try:
            self._object.load()
            self._probes = self._object.map_descriptor("probes")
        except BaseException:
            self._object.close()
            raise
        self._links: list[int] = []
        self._filters: list[tuple[int, str, int]] = []
        self._qdiscs: list[int] = []
        self._prepared: set[int] = set()

    def __enter__(self) -> Prober:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the programs off every interface."""
        for link in self._links:
            os.close(link)
        for index, direction, priority in self._filters:
            libbpf.detach_clsact(index, direction, _HANDLE, priority)
        for index in self._qdiscs:
            if not rtnetlink.has_clsact_filters(index):
                libbpf.remove_clsact(index)
        self._links, self._filters, self._qdiscs = [], [], []
        self._object.close()

    def prepare(self, interface: str) -> None:
        """Watch an interface: those by which probes leave, and those by which answers may come.

        Doing it again changes nothing.  Raises `UsageError` for an interface
        that is not there, `Unavailable` where the kernel refuses.
        """
        try:
            index = socket.if_nametoindex(interface)
        except OSError:
            raise UsageError(f"there is no interface {interface}", "See them all: ip link") from None
        if index in self._prepared:
            return
        for name, direction, kind, flags, priority in (
            ("xlvs_probe_in", "ingress", bpf.TCX_INGRESS, bpf.BEFORE, _FIRST),
            ("xlvs_probe_out", "egress", bpf.TCX_EGRESS, 0, _LAST),
        ):
            try:
                self._attach(index, name, direction, kind, flags, priority)
            except OSError as error:
                raise Unavailable(
                    f"cannot attach the probe to {interface} at TC {direction}: {error.strerror}",
                    "Does the kernel have CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT?",
                ) from error
        self._prepared.add(index)

    def prepare_all(self) -> None:
        """Watch every Ethernet interface that is up."""
        for link in rtnetlink.links():
            if link.up and link.ethernet and not link.loopback and not link.master:
                self.prepare(link.name)

    async def connect(self, target: Target, timeout: float = PATIENCE) -> Answer:
        """Connect to one real server as the VIP, and hang up.

        Raises `UsageError` for a target that cannot be asked so: another address
        family than the VIP's, the director itself.
        """
        answer, connection = await self.open(target, timeout)
        if connection is not None:
            connection.close()
        return answer

    async def open(self, target: Target, timeout: float = PATIENCE) -> tuple[Answer, Connection | None]:
        """The same, leaving the connection open for whoever wants to say more; None where there is none."""
        family = socket.AF_INET if len(target.virtual) == 4 else socket.AF_INET6
        if len(target.real_server) != len(target.virtual):
            raise UsageError("a real server of another address family cannot be asked as the VIP")
        if target.method == LOCAL or rtnetlink.route_to(target.real_server).kind == rtnetlink.LOCAL_ROUTE:
            raise UsageError("a real server on the director itself cannot be asked as the VIP")
        connection = Connection(self._probes, family, target)
        try:
            answer = await connection.begin(timeout)
        except BaseException:
            connection.close()
            raise
        if answer.connected:
            return answer, connection
        connection.close()
        return answer, None

    def _attach(self, index: int, name: str, direction: str, kind: int, flags: int, priority: int) -> None:
        program = self._object.program(name)
        if libbpf.clsact_program(index, direction, _HANDLE, priority):
            # Of a process that was killed.
            libbpf.detach_clsact(index, direction, _HANDLE, priority)
            if not rtnetlink.has_clsact_filters(index):
                libbpf.remove_clsact(index)
        try:
            self._links.append(bpf.create_link(program, index, kind, flags))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if libbpf.attach_clsact(index, direction, program, _HANDLE, priority):
                self._qdiscs.append(index)
            self._filters.append((index, direction, priority))


class Connection:
    """A TCP connection to a real server as the VIP, made by `Prober.open`."""

    def __init__(self, probes: int, family: int, target: Target) -> None:
        self._probes = probes
        self._target = target
        self._version = 4 if family == socket.AF_INET else 6
        self._key = b""
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        """The connected socket; its peer's name is the real server's own address."""

    async def begin(self, timeout: float) -> Answer:
        """Connect; ``timeout`` in seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        target, connection = self._target, self.socket
        port = target.port if target.method == MASQUERADE else target.virtual_port
        # Hanging up is one RST, sent while the port is still known.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        family = connection.family
        route = rtnetlink.route_to(target.real_server)
        if route.kind != rtnetlink.UNICAST_ROUTE:
            return Answer(UNREACHABLE, 0.0)
        source = target.virtual if target.method == MASQUERADE else route.source
        try:
            if target.method == TUNNEL:
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_MAXSEG, _TUNNEL_SEGMENT)
            if target.method == MASQUERADE:
                self._go_by(route)
            own = socket.inet_ntop(family, source) if source else ""
            connection.bind((own, 0))
            local_port = connection.getsockname()[1]
            self._key = local_port.to_bytes(2, "big") + self._version.to_bytes(2, "little")
            bpf.update(self._probes, self._key, bytes(_entry(target, port, source)))
            real_server = (socket.inet_ntop(family, target.real_server), port)
            await asyncio.wait_for(loop.sock_connect(connection, real_server), timeout)
            outcome = CONNECTED
        except TimeoutError:
            outcome = SILENT
        except ConnectionRefusedError:
            outcome = REFUSED
        except OSError as error:
            if error.errno not in (
                errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL,
                errno.ETIMEDOUT, errno.ECONNRESET, errno.ENETDOWN,
            ):  # fmt: skip
                raise
            outcome = UNREACHABLE
        return self._judged(outcome, loop.time() - began)

    def _go_by(self, route: rtnetlink.Route) -> None:
        """Take the way of clients' packets, where the VIP's own is another by a rule of routing."""
        target = self._target
        if rtnetlink.route_to(target.real_server, target.virtual).interface != route.interface:
            name = os.fsencode(socket.if_indextoname(route.interface))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        # A VIP may be the director's by a route alone (ip -6 route add local … dev lo).
        if self._version == 4:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)

    def close(self) -> None:
        """Hang up, and forget the probe."""
        self.socket.close()
        if self._key:
            with suppress(FileNotFoundError):
                bpf.delete(self._probes, self._key)
            self._key = b""

    def _judged(self, outcome: str, seconds: float) -> Answer:
        raw = bpf.lookup(self._probes, self._key, ctypes.sizeof(_Probe)) if self._key else None
        if raw is None:
            return Answer(outcome, seconds)
        seen = _Probe.from_buffer_copy(raw)
        icmp = None
        if seen.error_seen:
            sender = bytes(seen.error_from)[: 4 if seen.error_version == 4 else 16]
            icmp = (seen.error_type, seen.error_code, sender)
        if outcome == SILENT and seen.answered_by_real:
            outcome = STRANGE_SOURCE
        elif outcome == SILENT and icmp is not None:
            outcome = UNREACHABLE
        mac = bytes(seen.mac) if seen.answers else b""
        return Answer(outcome, seconds, seen.interface, mac, icmp)


def _entry(target: Target, port: int, source: bytes) -> _Probe:
    virtual, virtual_port = target.virtual, target.virtual_port
    if target.method == MASQUERADE:
        virtual, virtual_port = target.real_server, port
    entry = _Probe()
    entry.real_server[: len(target.real_server)] = list(target.real_server)
    entry.virtual[: len(virtual)] = list(virtual)
    entry.real_port[:] = list(port.to_bytes(2, "big"))
    entry.virtual_port[:] = list(virtual_port.to_bytes(2, "big"))
    if target.method == TUNNEL:
        headers, udp = envelope(target, source)
        entry.envelope[: len(headers)] = list(headers)
        entry.envelope_size = len(headers)
        entry.envelope_version = 4 if len(target.real_server) == 4 else 6
        entry.udp = udp
    return entry


def envelope(target: Target, source: bytes) -> tuple[bytes, int]:
    """The headers of a tunnel, lengths and IPv4's checksum 0; and where UDP's begins in them (0: nowhere).

    Without the optional checksums, which receivers take, too.
    """
    tunnel = target.tunnel or Tunnel()
    inside = _IPPROTO_IPIP if len(target.virtual) == 4 else _IPPROTO_IPV6
    protocol, more = inside, b""
    if tunnel.kind == "gre":
        protocol, more = _IPPROTO_GRE, pack(">HH", 0, 0x0800 if inside == _IPPROTO_IPIP else 0x86DD)
    elif tunnel.kind == "gue":
        protocol = socket.IPPROTO_UDP
        more = pack(">HHHH", 0xC000 | tunnel.port & 0x3FFF, tunnel.port, 0, 0) + pack(">BBH", 0, inside, 0)
    if len(target.real_server) == 4:
        header = pack(">BBHHHBBH4s4s", 0x45, 0, 0, 0, 0x4000, 64, protocol, 0, source, target.real_server)
    else:
        header = pack(">IHBB16s16s", 6 << 28, 0, protocol, 64, source, target.real_server)
    return header + more, len(header) if protocol == socket.IPPROTO_UDP else 0
