# SPDX-License-Identifier: GPL-2.0-only
"""A given number of HTTP requests in waves, by one thread: for where instructions are counted, not time.

A wave asks on each of its connections before it reads the first answer.  Where no
process interrupts another when it is woken up (SCHED_BATCH), servers and balancers on the
same processor find a whole wave waiting, by whatever way it has come.  A load in which
each answer leads to the next request, as wrk's, does not do that: what a longer way
costs, fuller batches save again.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import Struct

from bench.loads import Failed

WAVE = 16
"""Connections at a time."""
_PATIENCE = Struct("@ll").pack(20, 0)
"""How long an answer is waited for (struct timeval): only where something is broken."""
_ASK = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
_ASK_ONCE = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"
_GOOD = b"HTTP/1.1 200 "

Targets = Sequence[tuple[str, int]]
"""IPv4 addresses and ports, which connections take in turn."""


def ask_once(targets: Targets, count: int) -> None:
    """Requests with a connection for each, in whole waves; raises `Failed`, or `OSError`."""
    for _ in range(count // WAVE):
        with connections(targets) as wave:
            for each in wave:
                each.send(_ASK_ONCE)
            for each in wave:
                _check(b"".join(iter(lambda each=each: each.recv(4096), b"")))  # type: ignore[misc]


def ask(wave: Sequence[socket.socket], count: int) -> None:
    """Requests on `connections` that stay, in whole waves; raises `Failed`, or `OSError`.

    The page has to end with a line, as a lab's does: so its end is known without reading headers.
    """
    for _ in range(count // WAVE):
        for each in wave:
            each.send(_ASK)
        for each in wave:
            answer = each.recv(4096)
            while not answer.endswith(b"\n") or answer.endswith(b"\r\n"):
                more = each.recv(4096)
                if not more:
                    break
                answer += more
            _check(answer)


@contextmanager
def connections(targets: Targets) -> Iterator[list[socket.socket]]:
    """A wave of connections from this thread's network namespace; raises `OSError`."""
    wave = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(WAVE)]
    try:
        for number, each in enumerate(wave):
            # Python's own timeouts would poll before each call.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
            each.connect(targets[number % len(targets)])
        yield wave
    finally:
        for each in wave:
            each.close()


def _check(answer: bytes) -> None:
    if not answer.startswith(_GOOD) or b"\r\n\r\n" not in answer:
        raise Failed(f"a request was answered by: {answer[:200]!r}")
