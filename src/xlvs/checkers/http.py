# SPDX-License-Identifier: GPL-2.0-only
"""HTTP_GET and SSL_GET: each URL in turn answers as it should (RFC 9112)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from typing import NamedTuple

from xlvs.checkers import tls
from xlvs.checkers.connection import connect, failure, host
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import Connection, HttpCheck, HttpVersion, Pattern, Url
from xlvs.keepalived.configuration import TlsClient

_LARGEST_BODY = 16 * 1024 * 1024
"""Octets; a check that downloads more is a mistake, and shall not fill the daemon's memory."""
_LARGEST_HEAD = 64 * 1024


class Answer(NamedTuple):
    """A response: the status, and the body without its transfer coding."""

    status: int
    body: bytes


async def check(checker: HttpCheck, client: TlsClient) -> Result:
    """Ask for every URL once; passes when each answers as it should."""
    passed = Result(True, "nothing was asked for")
    for url in checker.urls:
        passed = await _check_url(checker, url, client)
        if not passed.ok:
            return passed
    return passed


async def _check_url(checker: HttpCheck, url: Url, client: TlsClient) -> Result:
    connection = checker.connection
    try:
        if checker.version is HttpVersion.HTTP_2:
            from xlvs.checkers import http2

            answer = await http2.get(checker, url.path, host_header(checker, url), client)
        else:
            answer = await _get(checker, url, client)
    except ssl.SSLCertVerificationError as error:
        return Result(False, f"{url.path}: the certificate is refused: {error.verify_message}")
    except ssl.SSLError as error:
        return Result(False, f"{url.path}: TLS: {error.reason or error}")
    except OSError as error:
        return failure(error, connection, url.path)
    except (ValueError, EOFError) as error:
        return Result(False, f"{url.path}: {error}")
    return judge(url, answer)


def judge(url: Url, answer: Answer) -> Result:
    """Whether an answer is the one that is asked for: status, then digest, then pattern."""
    if not any(first <= answer.status <= last for first, last in url.status):
        return Result(False, f"{url.path}: HTTP status code {answer.status}")
    if url.digest:
        digest = hashlib.md5(answer.body, usedforsecurity=False).digest()
        if digest != url.digest:
            return Result(False, f"{url.path}: MD5 digest {digest.hex()}, not {url.digest.hex()}")
    if url.pattern is not None and _found(url.pattern, answer.body) == url.pattern.absent:
        wanted = "must not match" if url.pattern.absent else "does not match"
        return Result(False, f"{url.path}: the regular expression {wanted}")
    return Result(True, f"{url.path}: HTTP status code {answer.status}")


_OPTIONS = {
    "caseless": re.IGNORECASE,
    "dotall": re.DOTALL,
    "multiline": re.MULTILINE,
    "extended": re.VERBOSE,
}
"""PCRE2's options that Python's regular expressions have; the parser refuses what has no counterpart."""


def _found(pattern: Pattern, body: bytes) -> bool:
    flags = re.RegexFlag(0)
    expression = pattern.expression.encode("utf-8", "surrogateescape")
    for option in pattern.options:
        flags |= _OPTIONS.get(option, re.RegexFlag(0))
    compiled = re.compile(expression, flags)
    if "anchored" in pattern.options:
        return compiled.match(body, pattern.first) is not None
    for match in compiled.finditer(body, pattern.first):
        return pattern.last is None or match.start() <= pattern.last
    return False


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


def request(checker: HttpCheck, url: Url) -> bytes:
    """What is sent for one URL, in keepalived's words."""
    version = "1.1" if checker.version is HttpVersion.HTTP_1_1 else "1.0"
    closing = "" if checker.version is HttpVersion.HTTP_1_0 else "Connection: close\r\n"
    return (
        f"GET {url.path} HTTP/{version}\r\n"
        f"User-Agent: KeepAliveClient\r\n{closing}"
        f"Host: {host_header(checker, url)}\r\n\r\n"
    ).encode("utf-8", "surrogateescape")


async def _get(checker: HttpCheck, url: Url, client: TlsClient) -> Answer:
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
        if got > _LARGEST_BODY:
            raise ValueError(f"the answer has more than {_LARGEST_BODY} octets")
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
            if got > _LARGEST_BODY:
                raise ValueError(f"the answer has more than {_LARGEST_BODY} octets")
            parts.append((await reader.readexactly(size + 2))[:-2])
    except asyncio.IncompleteReadError:
        raise EOFError("the server hung up within the answer") from None
