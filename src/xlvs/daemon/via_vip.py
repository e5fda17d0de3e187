# SPDX-License-Identifier: GPL-2.0-only
"""``via vip``: checks that go to one real server as clients' packets do, to the VIP, by its method.

They see what a check of the real server's own address does not: a VIP that is missing
there, a tunnel that is not unwrapped, an answer by the wrong source.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from xlvs.keepalived.checks import Checker, Connection
from xlvs.keepalived.configuration import RealServer, VirtualServer
from xlvs.model import TCP

if TYPE_CHECKING:
    from xlvs.doctor.probe import Connection as Opened
    from xlvs.doctor.probe import Prober, Target


def is_via_vip(checker: Checker) -> bool:
    """Whether a checker asks for that."""
    connection = getattr(checker, "connection", None)
    return connection is not None and connection.via_vip


def target_of(server: VirtualServer, real_server: RealServer, checker: Checker) -> Target | str:
    """Whom to ask as whom, or why that cannot be."""
    from xlvs.doctor.probe import Target

    service = next((one for one in server.services if one.key.address), None)
    if service is None or service.key.protocol != TCP:
        return "via vip needs a virtual service of TCP with an address"
    destination = server.destination_for(service, real_server)
    if destination.family != service.key.family:
        return "via vip needs a real server of the VIP's address family"
    connection = getattr(checker, "connection", None)
    port = connection.port if connection is not None else destination.port
    return Target(
        destination.address, port, service.key.address, service.key.port,
        destination.method, destination.tunnel,
    )  # fmt: skip


class ViaVip:
    """Makes the ways of checks; loads what it takes with the first."""

    def __init__(self) -> None:
        self._prober: Prober | None = None

    def prepare(self) -> None:
        """Load the program, attach it to the interfaces that are up; raises `XlvsError`, `OSError`."""
        from xlvs.doctor.probe import Prober

        if self._prober is None:
            self._prober = Prober()
        self._prober.prepare_all()

    def close(self) -> None:
        """Take the program off."""
        if self._prober is not None:
            self._prober.close()
            self._prober = None

    def way(self, target: Target | str) -> VirtualWay:
        """The way of one check."""
        return VirtualWay(self._prober, target)


class VirtualWay:
    """See `xlvs.checkers.way.Way`."""

    def __init__(self, prober: Prober | None, target: Target | str) -> None:
        self._prober = prober
        self._target = target
        self._opened: list[Opened] = []

    async def open(self, connection: Connection) -> socket.socket:
        """A connection to the VIP on that real server; raises `OSError`."""
        from xlvs.errors import XlvsError

        if isinstance(self._target, str):
            raise OSError(self._target)
        if self._prober is None:
            raise OSError("via vip: the probe is not loaded")
        try:
            answer, opened = await self._prober.open(self._target, connection.timeout)
        except XlvsError as error:
            raise OSError(error.message) from error
        if opened is None:
            raise OSError(f"through the VIP: {answer.outcome}")
        self._opened.append(opened)
        return opened.socket

    async def close(self) -> None:
        """Let sockets be closed first: what they say last is rewritten, too."""
        for _ in range(3):
            await asyncio.sleep(0)
        for opened in self._opened:
            opened.close()
