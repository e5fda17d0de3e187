# SPDX-License-Identifier: GPL-2.0-only
"""Sockets for checks: to where a check goes, from where it shall come."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from xlvs.checkers.result import Result
from xlvs.checkers.way import way
from xlvs.keepalived.checks import Connection
from xlvs.model import IPV4, IPV6

SO_MARK = 36
"""asm-generic/socket.h; Python's socket module does not name it."""


def socket_address(connection: Connection) -> tuple[str, int] | tuple[str, int, int, int]:
    """Where a check goes, as `socket` takes it; a link-local address with its interface."""
    address = connection.address
    if len(address) == 4:
        return (socket.inet_ntop(IPV4, address), connection.port)
    scope = 0
    if address[0] == 0xFE and address[1] & 0xC0 == 0x80 and connection.bind_interface:
        scope = socket.if_nametoindex(connection.bind_interface)
    return (socket.inet_ntop(IPV6, address), connection.port, 0, scope)


def host(connection: Connection) -> str:
    """The address as text."""
    return socket.inet_ntop(IPV4 if len(connection.address) == 4 else IPV6, connection.address)


def prepare(connection: Connection, kind: int, protocol: int = 0) -> socket.socket:
    """A non-blocking socket of ``kind`` (``SOCK_STREAM``…), bound as asked for; raises `OSError`."""
    address = connection.address
    family = IPV4 if len(address) == 4 else IPV6
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        if connection.fwmark:
            made.setsockopt(socket.SOL_SOCKET, SO_MARK, connection.fwmark)
        if connection.bind_interface:
            name = connection.bind_interface.encode() + b"\0"
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        if connection.bind_address or connection.bind_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            source = connection.bind_address or bytes(len(address))
            made.bind((socket.inet_ntop(family, source), connection.bind_port))
    except BaseException:
        made.close()
        raise
    return made


def refusal(error: OSError) -> str:
    """An error of the network as part of a sentence: ``connection refused``."""
    if error.errno is None or error.errno < 0:  # of the resolver
        return str(error) or type(error).__name__
    if error.errno == errno.ECONNREFUSED:
        return "connection refused"
    return os.strerror(error.errno).lower()


async def connect(connection: Connection) -> socket.socket:
    """A connected TCP socket; raises `OSError`, of which `TimeoutError` is one."""
    if connection.via_vip:
        through = way.get()
        if through is None:
            raise OSError("there is no way through the VIP")
        return await through.open(connection)
    made = prepare(connection, socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(connection.timeout):
            await asyncio.get_running_loop().sock_connect(made, socket_address(connection))
    except BaseException:
        made.close()
        raise
    return made


def failure(error: OSError, connection: Connection, doing: str) -> Result:
    """The result of a check that met ``error`` while ``doing`` ("connecting")."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return Result(False, f"{doing}: no answer within {connection.timeout:g} s")
    return Result(False, f"{doing}: {refusal(error)}")
