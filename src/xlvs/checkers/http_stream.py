# SPDX-License-Identifier: GPL-2.0-only
"""The way to a web server: the names it is called by, a connection to it, and what comes back."""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from xlvs.checkers.connection import connect, host
from xlvs.keepalived.checks import Connection, HttpCheck, Url

LARGEST_BODY = 16 * 1024 * 1024
"""Octets; a check that downloads more is a mistake, and shall not fill the daemon's memory."""
_LARGEST_HEAD = 64 * 1024


class Answer(NamedTuple):
    """A response: the status, and the body without its transfer coding."""

    status: int
    body: bytes


def host_header(checker: HttpCheck, url: Url) -> str:
    """What stands after ``Host:``: a virtual host as it is, else address and port."""
    name = url.virtualhost or checker.virtualhost
    if name:
        return name
    address, port = host(checker.connection), checker.connection.port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def server_name(checker: HttpCheck, url: Url) -> str:
    """The name that TLS sends (SNI) and that a certificate is verified for."""
    if checker.sni_name:
        return checker.sni_name
    if checker.sni:
        return (url.virtualhost or checker.virtualhost).partition(":")[0]
    return ""


async def open_stream(
    connection: Connection, context: ssl.SSLContext | None, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection, with TLS where there is a ``context``; raises `OSError`."""
    made = await connect(connection)
    if context is None:
        return await asyncio.open_connection(sock=made, limit=_LARGEST_HEAD)
    # Without a name a certificate is verified for the address. Where nothing is verified,
    # an empty name keeps SNI out of the handshake.
    sent = name or (host(connection) if context.check_hostname else "")
    return await asyncio.open_connection(
        sock=made,
        ssl=context,
        server_hostname=sent,
        ssl_handshake_timeout=connection.timeout,
        limit=_LARGEST_HEAD,
    )
