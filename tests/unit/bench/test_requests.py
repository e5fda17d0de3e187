# SPDX-License-Identifier: GPL-2.0-only
"""Requests in waves, asked of a server on loopback."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.loads import Failed
from bench.requests import WAVE, ask, ask_once, connections

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"


class _Server(socketserver.ThreadingTCPServer):
    """Answers each request with the same parts, sent one by one, and notes what it was asked.

    One that does not stay ends each connection after its first answer.
    """

    daemon_threads = True
    request_queue_size = 2 * WAVE

    def __init__(self, parts: tuple[bytes, ...], stays: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.parts = parts
        self.stays = stays
        self.asked: list[bytes] = []
        self.connections = 0

    @property
    def target(self) -> tuple[str, int]:
        return "127.0.0.1", self.socket.getsockname()[1]


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.connections += 1
        headers: list[bytes] = []
        for line in self.rfile:
            headers.append(line)
            if line == b"\r\n":
                server.asked.append(b"".join(headers))
                for part in server.parts:
                    self.wfile.write(part)
                if not server.stays or b"Connection: close\r\n" in headers:
                    return
                headers.clear()


@contextmanager
def _served(*parts: bytes, stays: bool = True) -> Iterator[_Server]:
    with _Server(parts, stays) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_short_requests_have_a_connection_each_and_take_targets_in_turn() -> None:
    with _served(_HEAD, b"\r\nrs1\n") as one, _served(_HEAD + b"\r\nrs2\n") as other:
        ask_once([one.target, other.target], 2 * WAVE)
        assert (one.connections, other.connections) == (WAVE, WAVE)
        assert len(one.asked) == len(other.asked) == WAVE
        assert all(b"\r\nConnection: close\r\n" in asked for asked in one.asked)


@pytest.mark.parametrize(
    "parts", [(_HEAD + b"\r\nrs1\n",), (_HEAD, b"\r\nrs", b"1\n"), (_HEAD + b"\r\n", b"rs1\n")]
)
def test_kept_requests_stay_on_their_connections(parts: tuple[bytes, ...]) -> None:
    with _served(*parts) as server:
        with connections([server.target]) as wave:
            ask(wave, 3 * WAVE)
        assert server.connections == WAVE
        assert len(server.asked) == 3 * WAVE


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 502 Bad Gateway\r\n\r\nno\n", b"HTTP/1.1 200 OK\r\n"])
def test_what_was_not_answered_well_is_no_measurement(answer: bytes) -> None:
    with _served(answer) as server, pytest.raises(Failed, match="was answered by"):
        ask_once([server.target], WAVE)


def test_a_connection_that_ends_in_the_middle_is_no_measurement() -> None:
    with (
        _served(_HEAD, stays=False) as server,
        connections([server.target]) as wave,
        pytest.raises(Failed, match="was answered by"),
    ):
        ask(wave, WAVE)
