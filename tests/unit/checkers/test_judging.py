# SPDX-License-Identifier: GPL-2.0-only
"""What makes an answer good, kind by kind, without a network."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.checkers import dns, file, grpc, http, http1, http2, misc, udp
from xlvs.checkers.http_stream import Answer
from xlvs.keepalived.checks import (
    Connection,
    FileCheck,
    HttpCheck,
    HttpVersion,
    MiscCheck,
    Pattern,
    Schedule,
    UdpCheck,
    Url,
)
from xlvs.keepalived.origin import Script

THERE = Connection(bytes((127, 0, 0, 1)), 8080)


@pytest.mark.parametrize(
    ("url", "status", "body", "good"),
    [
        (Url("/"), 200, b"", True),
        (Url("/"), 299, b"", True),
        (Url("/"), 301, b"", False),
        (Url("/", status=((404, 404), (500, 501))), 501, b"", True),
        (Url("/", digest=hashlib.md5(b"x").digest()), 200, b"x", True),
        (Url("/", digest=hashlib.md5(b"x").digest()), 200, b"y", False),
        (Url("/", pattern=Pattern("o+k")), 200, b"all is ook", True),
        (Url("/", pattern=Pattern("OK")), 200, b"ok", False),
        (Url("/", pattern=Pattern("OK", ("caseless",))), 200, b"ok", True),
        (Url("/", pattern=Pattern("down", absent=True)), 200, b"ok", True),
        (Url("/", pattern=Pattern("down", absent=True)), 200, b"down", False),
        (Url("/", pattern=Pattern("ok", first=3)), 200, b"ok", False),
        (Url("/", pattern=Pattern("ok", last=3)), 200, b"it is ok", False),
        (Url("/", pattern=Pattern("ok", first=2, last=8)), 200, b"ok it is ok", False),
    ],
)
def test_urls(url: Url, status: int, body: bytes, good: bool) -> None:
    assert http.judge(url, Answer(status, body)).ok is good


def answer_to(text: bytes) -> Answer:
    """What is read of a response."""

    async def read() -> Answer:
        reader = asyncio.StreamReader()
        reader.feed_data(text)
        reader.feed_eof()
        return await http1.read_answer(reader)

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("text", "status", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nall to the end", 200, b"all to the end"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nnotmore", 404, b"not"),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, b""),
        (b"HTTP/1.0 204 \r\ncontent-length: 10\r\n\r\nshort", 204, b"short"),
    ],
)
def test_responses(text: bytes, status: int, body: bytes) -> None:
    assert answer_to(text) == Answer(status, body)


@given(st.binary(max_size=200))
def test_what_is_no_response_is_said_to_be_none(text: bytes) -> None:
    for prefix in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            answer_to(prefix + text)
        except (ValueError, EOFError):
            continue


def test_requests_are_keepaliveds() -> None:
    checker = HttpCheck(Schedule(), THERE, (Url("/a"),))
    assert http1.request(checker, checker.urls[0]) == (
        b"GET /a HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: 127.0.0.1:8080\r\n\r\n"
    )
    checker = HttpCheck(Schedule(), THERE, (Url("/a"),), virtualhost="web", version=HttpVersion.HTTP_1_1)
    assert http1.request(checker, checker.urls[0]) == (
        b"GET /a HTTP/1.1\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: web\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("status", "dynamic", "good", "weight"),
    [
        (0, False, True, None), (0, True, True, None), (1, True, False, None), (2, False, False, None),
        (2, True, True, 0), (255, True, True, 253), (-15, True, False, None), (None, True, False, None),
    ],
)  # fmt: skip
def test_exit_statuses(status: int | None, dynamic: bool, good: bool, weight: int | None) -> None:
    result = misc.judge(MiscCheck(Schedule(), Script(("/bin/x",)), dynamic=dynamic), status)
    assert (result.ok, result.weight) == (good, weight)


@pytest.mark.parametrize(
    ("weight", "reverse", "text", "good", "change"),
    [
        (1, False, "5\n", True, 5), (2, True, "5", True, -10), (0, False, "0", True, 0),
        (0, False, "7", False, 0), (1, False, "", True, 0), (1, False, "x", True, 0),
        (1, False, "-2147483648", False, 0), (1, False, "-2147483647", False, 0),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, weight: int, reverse: bool, text: str, good: bool, change: int) -> None:
    path = tmp_path / "number"
    path.write_text(text)
    result = file.check(FileCheck(Schedule(), "f", str(path), weight, reverse))
    assert (result.ok, result.weight_change) == (good, change)


def test_a_missing_file_is_0() -> None:
    assert file.check(FileCheck(Schedule(), "f", "/nonexistent", 0)).ok


@pytest.mark.parametrize(
    ("answer", "good"), [(b"ab", True), (b"abcd", True), (b"aX", False), (b"a", False), (b"abcde", False)]
)
def test_replies(answer: bytes, good: bool) -> None:
    checker = UdpCheck(Schedule(), THERE, b"", True, b"ab", b"\0\0", 0, 4)
    assert udp.judge(checker, answer).ok is good


def test_wildcards_in_replies() -> None:
    checker = UdpCheck(Schedule(), THERE, b"", True, b"\x10", b"\x0f")
    assert udp.judge(checker, b"\x1a").ok and not udp.judge(checker, b"\x2a").ok


def test_dns_questions() -> None:
    assert dns.question(7, "", "SOA").hex() == "00070100000100000000000000" + "00060001"
    assert dns.question(7, "a.bc.", "A")[12:] == b"\x01a\x02bc\0\0\x01\0\x01"
    with pytest.raises(ValueError, match="no domain name"):
        dns.question(7, "a..b", "A")


@given(st.binary(max_size=40))
def test_dns_answers(answer: bytes) -> None:
    code = dns.response_code(answer, 7)
    assert code is None or (answer[:2] == b"\0\x07" and answer[2] & 0x80 and 0 <= code <= 15)


@pytest.mark.parametrize(
    ("block", "found"),
    [
        ("88", (200, "")),  # indexed
        ("8d", (404, "")),
        ("3fe11f88", (200, "")),  # after a table size update
        ("4803333032", (302, "")),  # RFC 7541, C.5.1, not in Huffman code
        ("48826402", (302, "")),  # RFC 7541, C.6.1
        ("000b677270632d7374617475730130", (0, "0")),
        ("40889acac8b21234da8f8208bf", (0, "12")),
    ],
)
def test_header_blocks(block: str, found: tuple[int, str]) -> None:
    assert http2.read_fields(bytes.fromhex(block)) == found


@given(st.binary(max_size=60))
def test_broken_header_blocks(block: bytes) -> None:
    try:
        status, called = http2.read_fields(block)
    except ValueError:
        return
    assert status >= 0 and (not called or called.isdigit())


def test_grpc_messages() -> None:
    assert grpc.question("") == bytes(5)
    assert grpc.question("x") == b"\0\0\0\0\x03\x0a\x01x"
    assert grpc.read_state(b"\0\0\0\0\x02\x08\x01") == 1
    assert grpc.read_state(bytes(5)) == 0
    assert grpc.read_state(b"\0\0\0\0\x09\x08\x01") == -1
