# SPDX-License-Identifier: GPL-2.0-only
"""One request by HTTP/1.0 or 1.1, and its answer (RFC 9112)."""

from __future__ import annotations

import asyncio

from xlvs.checkers import tls
from xlvs.checkers.http_stream import LARGEST_BODY, Answer, host_header, open_stream, server_name
from xlvs.keepalived.checks import HttpCheck, HttpVersion, Url
from xlvs.keepalived.configuration import TlsClient


def request(checker: HttpCheck, url: Url) -> bytes:
    """What is sent for one URL, in keepalived's words."""
    version = "1.1" if checker.version is HttpVersion.HTTP_1_1 else "1.0"
    closing = "" if checker.version is HttpVersion.HTTP_1_0 else "Connection: close\r\n"
    return (
        f"GET {url.path} HTTP/{version}\r\n"
        f"User-Agent: KeepAliveClient\r\n{closing}"
        f"Host: {host_header(checker, url)}\r\n\r\n"
    ).encode("utf-8", "surrogateescape")


async def get(checker: HttpCheck, url: Url, client: TlsClient) -> Answer:
    """GET a URL; raises `OSError`, `ValueError` for what is no HTTP, `EOFError` for part of it."""
    connection = checker.connection
    context = tls.context(checker.verification, client) if checker.tls else None
    reader, writer = await open_stream(connection, context, server_name(checker, url))
    try:
        writer.write(request(checker, url))
        async with asyncio.timeout(connection.timeout):
            return await read_answer(reader)
    finally:
        writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read a response to its end; raises `ValueError` for what is none, `EOFError` for part of one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise EOFError("the server hung up without an answer") from None
        head = error.partial
    except asyncio.LimitOverrunError:
        raise ValueError("the head of the answer is too long") from None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not _is_number(words[1]):
        raise ValueError("what answers does not speak HTTP")
    status = int(words[1])
    if status in (100, 103):  # interim answers, RFC 9110 section 15.2
        return await read_answer(reader)
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    if fields.get("transfer-encoding", "").lower().endswith("chunked"):
        return Answer(status, await _chunks(reader))
    length = fields.get("content-length", "")
    body = await _body(reader, int(length) if _is_number(length) else None)
    return Answer(status, body)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


async def _body(reader: asyncio.StreamReader, length: int | None) -> bytes:
    """The body, to its length or to the end of the connection, whichever comes first."""
    parts: list[bytes] = []
    got = 0
    while length is None or got < length:
        part = await reader.read(65536 if length is None else min(65536, length - got))
        if not part:
            break
        got += len(part)
        if got > LARGEST_BODY:
            raise ValueError(f"the answer has more than {LARGEST_BODY} octets")
        parts.append(part)
    return b"".join(parts)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body (RFC 9112, section 7.1)."""
    parts: list[bytes] = []
    got = 0
    try:
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            if size <= 0:
                return b"".join(parts)
            got += size
            if got > LARGEST_BODY:
                raise ValueError(f"the answer has more than {LARGEST_BODY} octets")
            parts.append((await reader.readexactly(size + 2))[:-2])
    except asyncio.IncompleteReadError:
        raise EOFError("the server hung up within the answer") from None
