# SPDX-License-Identifier: GPL-2.0-only
"""Which module checks what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xlvs.checkers.result import Result
from xlvs.checkers.way import Way, way
from xlvs.keepalived import checks
from xlvs.keepalived.configuration import TlsClient

if TYPE_CHECKING:
    from xlvs.bfd.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What checks need besides their own configuration: the client's certificate for TLS, BFD's sessions."""

    tls: TlsClient = field(default_factory=TlsClient)
    bfd: Sessions | None = None


def start(
    checker: checks.Checker,
    surroundings: Surroundings,
    loop: asyncio.AbstractEventLoop,
    done: Callable[[Result], None],
    through: Way | None = None,
) -> Callable[[], None]:
    """Begin one check; ``done`` is called once with its result, maybe before this returns.

    It goes ``through`` another way where one is given.  Returns what ends the check
    without a result.  A TCP check takes no task: there may be thousands a second.
    """
    if isinstance(checker, checks.TcpCheck) and not checker.connection.via_vip:
        from xlvs.checkers import tcp

        return tcp.start(checker, loop, done)
    task = loop.create_task(_timed(checker, surroundings, through))

    def finished(task: asyncio.Task[Result]) -> None:
        if not task.cancelled():
            error = task.exception()
            done(Result(False, f"the check itself failed: {error!r}") if error else task.result())

    task.add_done_callback(finished)
    return lambda: None if task.done() else _cancel(task)


async def _timed(checker: checks.Checker, surroundings: Surroundings, through: Way | None) -> Result:
    began = time.monotonic()
    way.set(through)
    try:
        result = await check(checker, surroundings)
    finally:
        if through is not None:
            await through.close()
    return result._replace(seconds=time.monotonic() - began)


async def check(checker: checks.Checker, surroundings: Surroundings) -> Result:
    """Run one check of whatever kind; what it takes is imported with the first."""
    match checker:
        case checks.HttpCheck():
            from xlvs.checkers import http

            return await http.check(checker, surroundings.tls)
        case checks.MiscCheck():
            from xlvs.checkers import misc

            return await misc.check(checker)
        case checks.SmtpCheck():
            from xlvs.checkers import smtp

            return await smtp.check(checker)
        case checks.DnsCheck():
            from xlvs.checkers import dns

            return await dns.check(checker)
        case checks.UdpCheck():
            from xlvs.checkers import udp

            return await udp.check(checker)
        case checks.PingCheck():
            from xlvs.checkers import ping

            return await ping.check(checker)
        case checks.FileCheck():
            from xlvs.checkers import file

            return file.check(checker)
        case checks.GrpcCheck():
            from xlvs.checkers import grpc

            return await grpc.check(checker, surroundings.tls)
        case checks.TcpCheck():
            from xlvs.checkers import tcp

            if checker.connection.via_vip:
                return await tcp.check_by_another_way(checker)
            done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            end = tcp.start(
                checker, done.get_loop(), lambda result: None if done.done() else done.set_result(result)
            )
            try:
                return await done
            finally:
                end()
        case checks.BfdCheck():
            from xlvs.checkers import bfd

            return await bfd.check(checker, surroundings.bfd)


def _cancel(task: asyncio.Task[Result]) -> None:
    task.cancel()
