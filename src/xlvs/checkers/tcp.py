# SPDX-License-Identifier: GPL-2.0-only
"""TCP_CHECK: a connection can be made.

Thousands of these run each second, so this check has a way without a task or a
future for each: `start` works with callbacks of the event loop alone.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

from xlvs.checkers.connection import connect, failure, prepare, socket_address
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


async def check_by_another_way(checker: TcpCheck) -> Result:
    """Connect by the way of this task."""
    try:
        (await connect(checker.connection)).close()
    except OSError as error:
        return failure(error, checker.connection, "connecting")
    return _CONNECTED


class _Watch:
    """Sockets that are being connected, of one event loop.

    They have an epoll of their own, which the loop watches as a whole: that costs a third
    of what the loop's own bookkeeping for each of them would.  Nor has each a timer: those of
    one timeout become late in the order in which they began, and most never do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._attempts: dict[int, _Attempt] = {}
        self._begun: dict[float, deque[_Attempt]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, descriptor: int, attempt: _Attempt, timeout: float) -> None:
        """Tell ``attempt`` once when its socket is connected, is not to be, or was not in ``timeout`` s."""
        self._attempts[descriptor] = attempt
        self._epoll.register(descriptor, select.EPOLLOUT | select.EPOLLONESHOT)
        begun = self._begun.get(timeout)
        if begun is None:
            begun = self._begun[timeout] = deque()
        attempt.deadline = self._loop.time() + timeout
        begun.append(attempt)
        if len(begun) == 1:
            self._loop.call_at(attempt.deadline, self._look_for_late, begun)

    def _look_for_late(self, begun: deque[_Attempt]) -> None:
        now = self._loop.time()
        try:
            while begun and (begun[0].is_over or begun[0].deadline <= now):
                if not begun[0].is_over:
                    begun[0].late()  # still among them: what it begins anew sets no second timer
                begun.popleft()
        finally:
            if begun:
                self._loop.call_at(begun[0].deadline, self._look_for_late, begun)

    def forget(self, descriptor: int) -> None:
        """The socket is about to be closed, by which the kernel forgets it, too."""
        self._attempts.pop(descriptor, None)

    def _ready(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            attempt = self._attempts.get(descriptor)
            if attempt is not None:
                attempt.writable()


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


def _watch_of(loop: asyncio.AbstractEventLoop) -> _Watch:
    found = _watches.get(loop)
    if found is None:
        found = _watches[loop] = _Watch(loop)
    return found


class _Attempt:
    __slots__ = ("_connection", "_done", "_socket", "_watch", "deadline")

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, done: Callable[[Result], None]
    ) -> None:
        self._connection = connection
        self._done = done
        self.deadline = 0.0
        self._socket: socket.socket | None = None
        self._watch = _watch_of(loop)
        try:
            made = self._socket = prepare(connection, socket.SOCK_STREAM)
            code = made.connect_ex(socket_address(connection))
        except OSError as error:
            self._finish(failure(error, connection, "connecting"))
            return
        if code == errno.EINPROGRESS:
            self._watch.add(made.fileno(), self, connection.timeout)
        else:
            self._connected(code)

    def writable(self) -> None:
        """The socket is connected, or is not to be."""
        assert self._socket is not None
        self._connected(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _connected(self, code: int) -> None:
        result = failure(OSError(code, ""), self._connection, "connecting") if code else _CONNECTED
        self._finish(result)

    @property
    def is_over(self) -> bool:
        """Whether it has a result, or was ended without one."""
        return self._socket is None

    def late(self) -> None:
        """The time is over."""
        self._finish(failure(TimeoutError(), self._connection, "connecting"))

    def _finish(self, result: Result) -> None:
        self.end()
        self._done(result)

    def end(self) -> None:
        """Close what is open; harmless when that is done."""
        if self._socket is not None:
            self._watch.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
