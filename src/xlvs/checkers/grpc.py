# SPDX-License-Identifier: GPL-2.0-only
"""GRPC_CHECK: the health service of gRPC answers SERVING (grpc.health.v1, grpc over HTTP/2)."""

from __future__ import annotations

import ssl

from xlvs.checkers import http2, tls
from xlvs.checkers.connection import failure, host
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import GrpcCheck
from xlvs.keepalived.configuration import TlsClient

_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1


async def check(checker: GrpcCheck, client: TlsClient) -> Result:
    """Ask the health service once."""
    connection = checker.connection
    address = host(connection)
    authority = f"[{address}]:{connection.port}" if ":" in address else f"{address}:{connection.port}"
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https" if checker.tls else b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", (checker.sni_name or authority).encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"KeepAliveClient"),
    ]
    try:
        context = tls.context(checker.verification, client, http2=True) if checker.tls else None
        answer, called = await http2.ask(
            connection, context, checker.sni_name, fields, question(checker.service)
        )
    except ssl.SSLCertVerificationError as error:
        return Result(False, f"the certificate is refused: {error.verify_message}")
    except ssl.SSLError as error:
        return Result(False, f"TLS: {error.reason or error}")
    except OSError as error:
        return failure(error, connection, "asking")
    except (ValueError, EOFError) as error:
        return Result(False, str(error))
    if answer.status != 200:
        return Result(False, f"HTTP status code {answer.status}")
    if called not in ("", "0"):
        return Result(False, f"gRPC status {called}")
    state = read_state(answer.body)
    return Result(
        state == _SERVING, _STATES.get(state, f"state {state}") if state >= 0 else "no health status"
    )


def question(service: str) -> bytes:
    """A HealthCheckRequest with the five octets that gRPC puts before a message."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def read_state(body: bytes) -> int:
    """The status in a HealthCheckResponse, -1 for what is none; a message without one says 0."""
    if len(body) < 5 or body[0] or len(body) < 5 + int.from_bytes(body[1:5], "big"):
        return -1
    message = body[5 : 5 + int.from_bytes(body[1:5], "big")]
    if not message:
        return 0
    return message[1] if message[0] == 0x08 and len(message) >= 2 else -1
