# SPDX-License-Identifier: GPL-2.0-only
"""DNS_CHECK: a name server answers a question without an error (RFC 1035, section 4).

A question is thirty octets and of the answer only the header counts, so there is no
need of a resolver library.
"""

from __future__ import annotations

import asyncio
import os
import socket
from struct import Struct

from xlvs.checkers.connection import failure, prepare, socket_address
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import DNS_TYPES, DnsCheck

RESPONSE_CODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")

_HEADER = Struct("!6H")
_QUESTION_TAIL = Struct("!2H")
_RECURSION_DESIRED = 0x0100
_RESPONSE = 0x8000
_INTERNET = 1


def question(identity: int, name: str, kind: str) -> bytes:
    """A query for ``name`` (``.`` is the root); raises `ValueError` for what is no name."""
    labels = [label.encode("ascii", "replace") for label in name.strip(".").split(".")]
    if labels == [b""]:
        labels = []
    if any(not 1 <= len(label) <= 63 for label in labels) or sum(map(len, labels)) + len(labels) > 254:
        raise ValueError(f"{name!r} is no domain name")
    packed = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    header = _HEADER.pack(identity, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + packed + _QUESTION_TAIL.pack(DNS_TYPES[kind], _INTERNET)


async def check(checker: DnsCheck) -> Result:
    """Ask once; passes when the answer's response code is NOERROR."""
    connection = checker.connection
    loop = asyncio.get_running_loop()
    identity = int.from_bytes(os.urandom(2), "big")
    try:
        with prepare(connection, socket.SOCK_DGRAM) as asked:
            async with asyncio.timeout(connection.timeout):
                asked.connect(socket_address(connection))  # a datagram socket does not wait
                await loop.sock_sendall(asked, question(identity, checker.name, checker.record_type))
                while True:
                    code = response_code(await loop.sock_recv(asked, 65535), identity)
                    if code is not None:
                        break
    except OSError as error:
        return failure(error, connection, "asking")
    except ValueError as error:
        return Result(False, str(error))
    said = RESPONSE_CODES[code] if code < len(RESPONSE_CODES) else f"response code {code}"
    return Result(code == 0, f"{said} for {checker.record_type} of {checker.name or '.'}")


def response_code(answer: bytes, identity: int) -> int | None:
    """The response code of an answer to our question; None for what is no answer to it."""
    if len(answer) < _HEADER.size:
        return None
    answered, flags = _HEADER.unpack_from(answer)[:2]
    if answered != identity or not flags & _RESPONSE:
        return None
    return int(flags & 0xF)
