# SPDX-License-Identifier: GPL-2.0-only
"""UDP_CHECK: no ICMP error comes back, or the answer that is required."""

from __future__ import annotations

import asyncio
import socket

from xlvs.checkers.connection import failure, prepare, socket_address
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import UdpCheck


async def check(checker: UdpCheck) -> Result:
    """Ask once; without ``require_reply`` all is well unless an ICMP error says that nobody listens."""
    connection = checker.connection
    loop = asyncio.get_running_loop()
    try:
        with prepare(connection, socket.SOCK_DGRAM) as asked:
            async with asyncio.timeout(connection.timeout):
                asked.connect(socket_address(connection))  # a datagram socket does not wait
                await loop.sock_sendall(asked, checker.payload)
                answer = await loop.sock_recv(asked, 65535)
    except TimeoutError as error:
        if checker.require_reply or error.errno is not None:
            return failure(error, connection, "waiting for the reply")
        return Result(True, f"no ICMP error within {connection.timeout:g} s")
    except OSError as error:
        return failure(error, connection, "asking")
    return judge(checker, answer)


def judge(checker: UdpCheck, answer: bytes) -> Result:
    """Whether an answer is the one that is asked for."""
    if not checker.require_reply:
        return Result(True, "answered")
    least, most = checker.min_reply_length, checker.max_reply_length
    if not least <= len(answer) <= most:
        return Result(False, f"the reply has {len(answer)} octets, not {least} to {most}")
    if len(answer) < len(checker.reply):
        return Result(False, f"the reply has {len(answer)} octets, {len(checker.reply)} are required")
    for got, wanted, any_of in zip(answer, checker.reply, checker.reply_mask, strict=False):
        if (got ^ wanted) & ~any_of:
            return Result(False, "the reply is not the one that is required")
    return Result(True, "the required reply")
