# SPDX-License-Identifier: GPL-2.0-only
"""Sockets of this process in a lab's nodes: what nginx and curl cannot show, byte for byte.

A socket belongs to the namespace in which it was made, whoever uses it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from tests.labs import Lab
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import namespaces

PATIENCE = 20.0
BULK = 16 << 20
_BLOCK = os.urandom(1 << 20)
_DIGEST_SIZE = hashlib.sha256().digest_size


def inside(lab: Lab, node: str) -> AbstractContextManager[None]:
    """Have this thread be in a node's network for a while."""
    return network_namespace(namespaces.path(lab.record.namespace(node)))


def family_of(address: str) -> socket.AddressFamily:
    """The address family of a literal address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(lab: Lab, address: str, port: int, node: str = "client") -> socket.socket:
    """A TCP connection from the client, or from another node."""
    with inside(lab, node):
        return socket.create_connection((address, port), PATIENCE)


def refusal_time(lab: Lab, address: str, port: int) -> float:
    """How long it takes the client to hear that a TCP connection is refused; fails if it is not."""
    begin = time.monotonic()
    try:
        connect(lab, address, port).close()
    except ConnectionRefusedError:
        return time.monotonic() - begin
    raise AssertionError(f"{address} port {port} took the connection")


@contextmanager
def echo(lab: Lab, node: str, port: int, address: str = "::") -> Iterator[None]:
    """Send every datagram back with the node's name in front, IPv4 and IPv6 where not told an address."""
    with inside(lab, node):
        opened = socket.socket(family_of(address), socket.SOCK_DGRAM)
        if address == "::":
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind((address, port))

    def answer() -> None:
        while True:
            data, sender = opened.recvfrom(1 << 16)
            if sender is None:  # shut down
                return
            opened.sendto(node.encode() + b" " + data, sender)

    with _serving(opened, answer):
        yield


@contextmanager
def bulk(lab: Lab, node: str, port: int) -> Iterator[None]:
    """Take all that comes, then send as much back; each side says what it has read by its SHA-256."""
    with inside(lab, node):
        listening = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

    def accept() -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(PATIENCE)
                connection.sendall(_read(connection, BULK).digest())
                connection.sendall(_send(connection).digest())

    with _serving(listening, accept):
        yield


def transfer(connection: socket.socket) -> None:
    """The client's side of `bulk`: up, then down; every byte must be as it was sent."""
    with connection:
        connection.settimeout(PATIENCE)
        sent = _send(connection).digest()
        assert _exactly(connection, _DIGEST_SIZE) == sent, "what went up is not what arrived"
        received = _read(connection, BULK).digest()
        assert _exactly(connection, _DIGEST_SIZE) == received, "what came down is not what was sent"


def _send(connection: socket.socket) -> hashlib._Hash:
    digest = hashlib.sha256()
    for _ in range(BULK // len(_BLOCK)):
        connection.sendall(_BLOCK)
        digest.update(_BLOCK)
    return digest


def _read(connection: socket.socket, size: int) -> hashlib._Hash:
    digest = hashlib.sha256()
    while size:
        data = connection.recv(min(size, 1 << 18))
        assert data, f"the connection ended with {size} bytes to come"
        digest.update(data)
        size -= len(data)
    return digest


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


@contextmanager
def _serving(opened: socket.socket, serve: Callable[[], None]) -> Iterator[None]:
    """Run ``serve`` in a thread until the context ends; a connection that fails is its peer's to notice."""

    def run() -> None:
        with suppress(OSError, AssertionError):
            serve()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)  # wakes the thread
        opened.close()
        thread.join(PATIENCE)
