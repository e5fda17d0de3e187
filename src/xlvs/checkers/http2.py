# SPDX-License-Identifier: GPL-2.0-only
"""Just so much HTTP/2 as a check needs: one request on one connection, and its answer (RFC 9113).

Header fields go out as literals that no table remembers; ours for the server is set to
size 0, so that what comes back can be read with the static table alone (RFC 7541).  Of
header fields only numbers count: the status of the answer, and of a gRPC call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from struct import Struct

from xlvs.checkers import tls
from xlvs.checkers.http_stream import LARGEST_BODY, Answer, open_stream, server_name
from xlvs.keepalived.checks import Connection, HttpCheck
from xlvs.keepalived.configuration import TlsClient

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = Struct("!BHBBI")
"""Length (8 and 16 bits), type, flags, stream."""
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_PRIORITY = 0x20
_STREAM = 1
_WINDOW_SIZE = 2**31 - 1
# SETTINGS_HEADER_TABLE_SIZE 0, SETTINGS_ENABLE_PUSH 0, SETTINGS_INITIAL_WINDOW_SIZE the largest.
_OUR_SETTINGS = Struct("!HIHIHI").pack(1, 0, 2, 0, 4, _WINDOW_SIZE)
_LARGEST_FRAME = 16384
"""What a peer may send that has not been allowed more."""

_STATUS = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
"""The statuses of HPACK's static table (RFC 7541, appendix A)."""
_STATUS_NAMES = range(8, 15)
_STATIC_ENTRIES = 61
# Huffman codes of digits (RFC 7541, appendix B): 0 to 2 have five bits, 3 to 9 six.
_DIGITS = {"00000": "0", "00001": "1", "00010": "2"} | {
    format(0x19 + number - 3, "06b"): str(number) for number in range(3, 10)
}
_GRPC_STATUS = b"grpc-status"
# "grpc-status" in HPACK's Huffman code.
_GRPC_STATUS_CODED = bytes.fromhex("9acac8b21234da8f")


async def get(checker: HttpCheck, path: str, authority: str, client: TlsClient) -> Answer:
    """GET a path; raises `OSError`, `ValueError` for what is no HTTP/2, `EOFError` for part of it."""
    context = tls.context(checker.verification, client, http2=True) if checker.tls else None
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"https" if checker.tls else b"http"),
        (b":path", path.encode("utf-8", "surrogateescape")),
        (b":authority", authority.encode("utf-8", "surrogateescape")),
        (b"user-agent", b"KeepAliveClient"),
    ]
    name = server_name(checker, checker.urls[0]) if checker.urls else checker.sni_name
    answer, _ = await ask(checker.connection, context, name, fields)
    return answer


async def ask(
    connection: Connection,
    context: ssl.SSLContext | None,
    name: str,
    fields: Iterable[tuple[bytes, bytes]],
    body: bytes = b"",
) -> tuple[Answer, str]:
    """Send one request; the answer, and the status of a gRPC call, empty for none.  Raises as `get` does."""
    reader, writer = await open_stream(connection, context, name)
    try:
        async with asyncio.timeout(connection.timeout):
            if context is not None:
                tls_object = writer.get_extra_info("ssl_object")
                if tls_object is not None and tls_object.selected_alpn_protocol() != "h2":
                    raise ValueError("the server does not speak HTTP/2 (no h2 in its TLS handshake)")
            block = b"".join(_literal(*field) for field in fields)
            writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, _OUR_SETTINGS))
            writer.write(_frame(_WINDOW, 0, 0, (_WINDOW_SIZE - 65535).to_bytes(4, "big")))
            writer.write(_frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), _STREAM, block))
            if body:
                writer.write(_frame(_DATA, _END_STREAM, _STREAM, body))
            return await _answer(reader, writer)
    except asyncio.IncompleteReadError:
        raise EOFError("the server hung up within the answer") from None
    finally:
        writer.transport.abort()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return _FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that is not to be remembered (RFC 7541, section 6.2.2)."""
    return b"\0" + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def _integer(value: int, bits: int) -> bytes:
    """A number with a prefix of so many bits (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out = [most]
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Answer, str]:
    status, called = 0, ""
    block = b""
    body: list[bytes] = []
    got = 0
    ends = False
    while True:
        high, low, kind, flags, stream = _FRAME.unpack(await reader.readexactly(_FRAME.size))
        length = high << 16 | low
        if length > _LARGEST_FRAME:
            raise ValueError("what answers does not speak HTTP/2")
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY and int.from_bytes(payload[:4], "big") < _STREAM:
            raise ValueError(f"the server says goodbye (error {int.from_bytes(payload[4:8], 'big')})")
        elif kind == _RESET and stream & 0x7FFFFFFF == _STREAM:
            raise ValueError(f"the server resets the request (error {int.from_bytes(payload[:4], 'big')})")
        elif kind in (_HEADERS, _CONTINUATION):
            if kind == _HEADERS:
                payload = _unpadded(payload, flags)
                payload = payload[5:] if flags & _PRIORITY else payload
                ends = bool(flags & _END_STREAM)
                block = b""
            block += payload
            if len(block) > 4 * _LARGEST_FRAME:
                raise ValueError("the head of the answer is too long")
            if flags & _END_HEADERS:
                found, grpc = read_fields(block)
                called = grpc or called
                if found and not 100 <= found < 200:
                    status = found
                if ends:
                    return Answer(status, b"".join(body)), called
        elif kind == _DATA:
            part = _unpadded(payload, flags)
            got += len(part)
            if got > LARGEST_BODY:
                raise ValueError(f"the answer has more than {LARGEST_BODY} octets")
            body.append(part)
            if flags & _END_STREAM:
                return Answer(status, b"".join(body)), called


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ValueError("what answers does not speak HTTP/2")
    return payload[1 : len(payload) - payload[0]]


def read_fields(block: bytes) -> tuple[int, str]:
    """The status and the gRPC status of a block of header fields; 0 and empty for none.

    Raises `ValueError` for a block that is broken or needs a table that we did not allow.
    """
    status, called = 0, ""
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:  # a field of the static table
                index, at = _read_integer(block, at, 7)
                if not 1 <= index <= _STATIC_ENTRIES:
                    raise ValueError("the answer uses a header table that was not allowed")
                status = int(_STATUS[index]) if index in _STATUS else status
                continue
            if first & 0xE0 == 0x20:  # the table's size
                _, at = _read_integer(block, at, 5)
                continue
            index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
            name = b""
            if not index:
                name, coded, at = _read_string(block, at)
                name = name if not coded else _GRPC_STATUS if name == _GRPC_STATUS_CODED else b""
            elif index > _STATIC_ENTRIES:
                raise ValueError("the answer uses a header table that was not allowed")
            value, coded, at = _read_string(block, at)
            if index in _STATUS_NAMES or name == b":status":
                status = int(_digits(value, coded) or 0)
            elif name == _GRPC_STATUS:
                called = _digits(value, coded)
    except IndexError:
        raise ValueError("the head of the answer is cut off") from None
    return status, called


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        value += (block[at] & 127) << shift
        shift += 7
        at += 1
        if not block[at - 1] & 128:
            return value, at
        if shift > 28:
            raise ValueError("a number in the head of the answer is too large")


def _read_string(block: bytes, at: int) -> tuple[bytes, bool, int]:
    """A string as it stands there, whether it is in Huffman code, and where it ends."""
    coded = bool(block[at] & 0x80)
    length, at = _read_integer(block, at, 7)
    if at + length > len(block):
        raise IndexError
    return block[at : at + length], coded, at + length


def _digits(text: bytes, coded: bool) -> str:
    """A number as text; empty for what is none."""
    if not coded:
        return text.decode() if text.isdigit() else ""
    bits = "".join(format(octet, "08b") for octet in text)
    digits = ""
    while bits:
        digit = next((code for code in _DIGITS if bits.startswith(code)), None)
        if digit is None:
            return digits if len(bits) < 8 and "0" not in bits else ""
        digits += _DIGITS[digit]
        bits = bits[len(digit) :]
    return digits
