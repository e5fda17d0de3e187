# SPDX-License-Identifier: GPL-2.0-only
"""A real server as tests need one: it says its name, and sends back what it gets.

TCP port 80 says the name on a line of its own, then echoes.  TCP port 5001
takes all it gets, then says how much that was and its checksum.  UDP port 53
answers any datagram with the name.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

NAME_PORT, SINK_PORT, UDP_PORT = 80, 5001, 53
EVERY_PORT = (NAME_PORT, SINK_PORT, UDP_PORT)


class RealServer:
    """Threads of this process behind sockets in another network namespace."""

    def __init__(
        self, name: str, inside: Callable[[], AbstractContextManager[None]], *addresses: str
    ) -> None:
        self.name = name
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()
        with inside():
            for port, serve in ((NAME_PORT, self._echo), (SINK_PORT, self._sink)):
                listening = socket.create_server(
                    ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256
                )
                self._start(self._accept, listening, serve)
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                datagrams = socket.socket(family, socket.SOCK_DGRAM)
                datagrams.bind((address, UDP_PORT))
                self._start(self._answer, datagrams)

    def _start(self, serve: Callable[..., None], opened: socket.socket, *more: object) -> None:
        with self._guard:
            self._open.append(opened)
        thread = threading.Thread(target=serve, args=(opened, *more), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self._start(self._serve, connection, serve)

    def _serve(self, connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError), connection:
            serve(connection)

    def _echo(self, connection: socket.socket) -> None:
        connection.sendall(f"{self.name}\n".encode())
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    def _sink(self, connection: socket.socket) -> None:
        digest, size = hashlib.sha256(), 0
        while data := connection.recv(1 << 18):
            digest.update(data)
            size += len(data)
        connection.sendall(f"{size} {digest.hexdigest()}".encode())

    def _answer(self, datagrams: socket.socket) -> None:
        with suppress(OSError):
            while sender := datagrams.recvfrom(2048)[1]:  # None once it is shut down
                datagrams.sendto(self.name.encode(), sender)

    def close(self) -> None:
        """End every thread and close every socket."""
        with self._guard:
            opened = list(self._open)
        for each in opened:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits there
            each.close()
        for thread in self._threads:
            thread.join(5)
