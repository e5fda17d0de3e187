# SPDX-License-Identifier: GPL-2.0-only
"""The wire at a director's first interface: frames in, frames out."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.packet.director import Director
from xlvs.kernel.namespaces import network_namespace


class Wire:
    """The far end of one of the director's interfaces, as raw frames."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 3))

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire."""
        self._socket.send(frame)

    def receive(self, destination: bytes, seconds: float = 2) -> bytes | None:
        """The next frame to that MAC, or None when none comes in that time."""
        return self.receive_any({destination}, seconds)

    def receive_any(self, destinations: set[bytes], seconds: float = 2) -> bytes | None:
        """The next frame to one of those MACs, or None when none comes in that time."""
        while select.select([self._socket], [], [], seconds)[0]:
            frame, (_, _, kind, _, _) = self._socket.recvfrom(2048)
            if kind != socket.PACKET_OUTGOING and frame[:6] in destinations:
                return frame
        return None

    def come(self) -> list[bytes]:
        """All frames that have come so far."""
        frames = []
        while select.select([self._socket], [], [], 0)[0]:
            frame, (_, _, kind, _, _) = self._socket.recvfrom(65536)
            if kind != socket.PACKET_OUTGOING:
                frames.append(frame)
        return frames


@contextmanager
def on_wire(director: Director, interface: str = "eth0") -> Iterator[Wire]:
    """The far end of a director's interface, for the ``with`` block."""
    with network_namespace(director.peer):
        wire = Wire(interface)
    try:
        yield wire
    finally:
        wire.close()
