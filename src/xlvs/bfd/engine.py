# SPDX-License-Identifier: GPL-2.0-only
"""Sessions with sockets and timers, in one event loop.

A session sends from a port of its own (RFC 5881 section 4), and all receive at port 3784,
or 4784 over several hops (RFC 5883 section 5).  keepalived uses 3784 over several hops,
too: until such a neighbour has been heard, packets go to the two ports in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import random
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xlvs.bfd.packet import BadPacket, Diagnostic, Packet, State, decode
from xlvs.bfd.session import Session
from xlvs.keepalived.redundancy import BfdInstance
from xlvs.model import IPV4, IPV6

_log = logging.getLogger("xlvsd")

SINGLE_HOP_PORT = 3784
MULTIHOP_PORT = 4784
_SOURCE_PORTS = range(49152, 65536)
_ANY_HOPS = (-1, 255)
"""keepalived's two words for no check of the TTL."""
_IP_RECVTTL = 12
"""linux/in.h; Python's socket module does not name it."""
_TRIES = 64
_LONGEST = 256
_AT_ONCE = 64
"""Packets that are read before timers are looked at again."""
_REOPEN = 2.0
"""Seconds after which a port that was taken is tried again."""
_WHY_DOWN: dict[int, str] = {
    Diagnostic.EXPIRED: "he is no longer heard",
    Diagnostic.NEIGHBOR_DOWN: "he says that it is down",
}


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a session.  It is ``settled`` when it was up once, or has had time for that."""

    up: bool = False
    settled: bool = False
    reason: str = "the BFD session has just begun"


def receivable(instance: BfdInstance, hops_left: int) -> bool:
    """Whether a packet may have come from that neighbour, by its TTL (RFC 5082; ``max_hops``)."""
    return instance.max_hops in _ANY_HOPS or hops_left >= instance.ttl - instance.max_hops


class _Running:
    """A session, its socket and its timer."""

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.sending: socket.socket | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.settles = now + session.instance.multiplier * max(1.0, session.instance.idle_tx / 1000)
        self.view = View()
        self.trouble = ""
        several = session.instance.max_hops != 0
        self.listens = (MULTIHOP_PORT, SINGLE_HOP_PORT) if several else (SINGLE_HOP_PORT,)
        self.ports = list(self.listens)


class Engine:
    """All sessions of a network namespace.  ``told`` hears of each change of a view."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[str, View], None]) -> None:
        self._loop = loop
        self._told = told
        self._running: dict[str, _Running] = {}
        self._receiving: dict[tuple[int, int], socket.socket] = {}
        self._refused: dict[tuple[int, int], str] = {}
        self._reopening: asyncio.TimerHandle | None = None

    def configure(self, instances: Iterable[BfdInstance]) -> None:
        """Keep these sessions from now on, and no others; one whose intervals have changed goes on."""
        wanted = {one.name: one for one in instances}
        now = self._loop.time()
        for name, running in list(self._running.items()):
            instance = wanted.get(name)
            if instance is None or _path(instance) != _path(running.session.instance):
                self._end(self._running.pop(name))
            elif instance != running.session.instance:
                running.session.configure(instance, now)
        taken = {one.session.discriminator for one in self._running.values()}
        for name, instance in wanted.items():
            if name not in self._running:
                number = 0
                while not number or number in taken:
                    number = random.SystemRandom().getrandbits(32)
                taken.add(number)
                self._running[name] = _Running(Session(instance, number, random.uniform, now), now)
        self._open()
        for name in self._running:
            self._look(name)

    def close(self) -> None:
        """Tell the neighbours, and end all sessions."""
        for running in self._running.values():
            self._end(running)
        self._running = {}
        self._open()

    # --- sockets -------------------------------------------------------------

    def _open(self) -> None:
        """Have the ports open that are needed, and no others."""
        wanted = {
            (_family(one.session.instance.neighbor), port)
            for one in self._running.values()
            for port in one.listens
        }
        for key in list(self._receiving):
            if key not in wanted:
                unneeded = self._receiving.pop(key)
                self._loop.remove_reader(unneeded)
                unneeded.close()
        self._refused = {key: why for key, why in self._refused.items() if key in wanted}
        for key in wanted - self._receiving.keys():
            try:
                opened = _receiver(*key)
            except OSError as error:
                why = f"UDP port {key[1]}: {os.strerror(error.errno or 0).lower()}"
                if error.errno == errno.EADDRINUSE:
                    why += "; is there another BFD daemon? (keepalived beside xlvsd: keepalived -P -B)"
                if self._refused.get(key) != why:
                    _log.error("BFD: %s", why)
                self._refused[key] = why
            else:
                self._refused.pop(key, None)
                self._receiving[key] = opened
                self._loop.add_reader(opened, self._read, opened)
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = self._loop.call_later(_REOPEN, self._open) if self._refused else None

    def _read(self, receiving: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                octets, ancillary, _, source = receiving.recvmsg(_LONGEST, socket.CMSG_SPACE(4))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _log.warning("BFD: a packet could not be read: %s", error)
                return
            hops_left = next((int.from_bytes(data[:4], sys.byteorder) for _, _, data in ancillary), 0)
            with contextlib.suppress(BadPacket):
                port = receiving.getsockname()[1]
                self._receive(decode(octets), socket.inet_pton(receiving.family, source[0]), hops_left, port)

    def _receive(self, packet: Packet, source: bytes, hops_left: int, port: int) -> None:
        running = self._find(packet, source)
        if running is None or port not in running.listens:
            return
        session = running.session
        if not receivable(session.instance, hops_left):
            return
        running.ports = [port]
        self._send(running, session.receive(packet, self._loop.time()))
        self._look(session.instance.name)

    def _find(self, packet: Packet, source: bytes) -> _Running | None:
        """The session that a packet is for (RFC 5880 section 6.3)."""
        for running in self._running.values():
            if packet.your_discriminator:
                if packet.your_discriminator == running.session.discriminator:
                    return running
            elif running.session.instance.neighbor == source:
                return running
        return None

    def _send(self, running: _Running, packets: Iterable[Packet]) -> None:
        instance = running.session.instance
        for packet in packets:
            port = running.ports[0]
            running.ports.append(running.ports.pop(0))
            try:
                if running.sending is None:
                    running.sending = _sender(instance)
                host = socket.inet_ntop(_family(instance.neighbor), instance.neighbor)
                running.sending.sendto(packet.encode(), (host, port))
                running.trouble = ""
            except BlockingIOError:
                pass  # the next one will do
            except OSError as error:
                running.trouble = f"sending: {os.strerror(error.errno or 0).lower()}"

    # --- time ----------------------------------------------------------------

    def _look(self, name: str) -> None:
        """Do what is due for a session, tell what has become otherwise, and wait for the next."""
        running = self._running.get(name)
        if running is None:
            return
        if running.timer is not None:
            running.timer.cancel()
        self._send(running, running.session.advance(self._loop.time()))
        now = self._loop.time()
        self._tell(name, running, now)
        due = running.session.due
        if not running.view.settled:
            due = min(due, running.settles)
        if due < math.inf:
            running.timer = self._loop.call_at(max(due, now), self._due, name)

    def _due(self, name: str) -> None:
        # What has come in the meantime counts before what has not.
        for receiving in list(self._receiving.values()):
            self._read(receiving)
        self._look(name)

    def _tell(self, name: str, running: _Running, now: float) -> None:
        session = running.session
        up = session.state is State.UP
        settled = up or running.view.settled or now >= running.settles
        view = View(up, settled, self._reason(running))
        if view != running.view:
            if up is not running.view.up:
                _log.info("BFD_Instance(%s) is %s: %s", name, "up" if up else "down", view.reason)
            running.view = view
            self._told(name, view)

    def _reason(self, running: _Running) -> str:
        session = running.session
        host = socket.inet_ntop(_family(session.instance.neighbor), session.instance.neighbor)
        said = f"BFD session {session.instance.name} with {host}"
        if session.state is State.UP:
            return f"{said} is up"
        family = _family(session.instance.neighbor)
        refused = [why for key, why in self._refused.items() if key[0] == family and key[1] in running.ports]
        if running.trouble or refused:
            return f"{said} is down: {running.trouble or refused[0]}"
        if session.heard is None:
            return f"{said} is down: nothing was heard of him"
        why = _WHY_DOWN.get(session.diagnostic, "it is being set up")
        return f"{said} is down: {why}"

    def _end(self, running: _Running) -> None:
        if running.timer is not None:
            running.timer.cancel()
        if running.session.remote_discriminator:
            self._send(running, [running.session.farewell()])
        if running.sending is not None:
            running.sending.close()


def _path(instance: BfdInstance) -> tuple[object, ...]:
    """What of an instance must be the same for its session to go on."""
    return instance.neighbor, instance.source, instance.ttl, instance.max_hops, instance.passive


def _family(address: bytes) -> int:
    return IPV4 if len(address) == 4 else IPV6


def _receiver(family: int, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == IPV4:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        made.bind(("", port))
    except BaseException:
        made.close()
        raise
    return made


def _sender(instance: BfdInstance) -> socket.socket:
    """A socket with a source port from the range that RFC 5881 section 4 asks for."""
    family = _family(instance.neighbor)
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == IPV4:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, instance.ttl)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, instance.ttl)
        host = socket.inet_ntop(family, instance.source) if instance.source else ""
        for port in random.sample(_SOURCE_PORTS, _TRIES):
            try:
                made.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return made
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except BaseException:
        made.close()
        raise
