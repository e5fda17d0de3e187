# SPDX-License-Identifier: GPL-2.0-only
"""TCP_CHECK: a connection can be made.

Thousands of these run each second, so this check has a way without a task or a
future for each: `start` works with callbacks of the event loop alone.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from xlvs.checkers.connection import failure, prepare, socket_address
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import Connection, TcpCheck

_CONNECTED = Result(True, "connected")


def start(
    checker: TcpCheck, loop: asyncio.AbstractEventLoop, done: Callable[[Result], None]
) -> Callable[[], None]:
    """Begin to connect; ``done`` is called once with the result, maybe before this returns.

    Returns what ends the attempt without a result.
    """
    return _Attempt(checker.connection, loop, done).end


class _Attempt:
    __slots__ = ("_connection", "_done", "_loop", "_socket", "_timer")

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, done: Callable[[Result], None]
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._done = done
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        try:
            made = self._socket = prepare(connection, socket.SOCK_STREAM)
            code = made.connect_ex(socket_address(connection))
        except OSError as error:
            self._finish(failure(error, connection, "connecting"))
            return
        if code == errno.EINPROGRESS:
            loop.add_writer(made.fileno(), self._writable)
            self._timer = loop.call_later(connection.timeout, self._late)
        else:
            self._connected(code)

    def _writable(self) -> None:
        assert self._socket is not None
        self._connected(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _connected(self, code: int) -> None:
        result = failure(OSError(code, ""), self._connection, "connecting") if code else _CONNECTED
        self._finish(result)

    def _late(self) -> None:
        self._finish(failure(TimeoutError(), self._connection, "connecting"))

    def _finish(self, result: Result) -> None:
        self.end()
        self._done(result)

    def end(self) -> None:
        """Close what is open; harmless when that is done."""
        if self._timer is not None:
            self._timer.cancel()
            self._loop.remove_writer(self._socket.fileno() if self._socket else -1)
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
