# SPDX-License-Identifier: GPL-2.0-only
"""SMTP_CHECK: a mail server greets, takes HELO and QUIT (RFC 5321, sections 4.1 and 4.2)."""

from __future__ import annotations

import asyncio

from xlvs.checkers.connection import connect, failure
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import SmtpCheck

_LONGEST_ANSWER = 64 * 1024
"""Octets of all lines of one answer; a server that says more is none that mail gets through to."""


async def check(checker: SmtpCheck) -> Result:
    """Greet once; passes when the banner is 220 and the answer to HELO is 250."""
    connection = checker.connection
    doing = "connecting"
    try:
        reader, writer = await asyncio.open_connection(sock=await connect(connection))
        try:
            doing = "waiting for the greeting"
            code = (await answer(reader, connection.timeout))[:3]
            if code != "220":
                return Result(False, f"the greeting is {code}, not 220")
            doing = "HELO"
            writer.write(f"HELO {checker.helo_name}\r\n".encode("ascii", "replace"))
            code = (await answer(reader, connection.timeout))[:3]
            if code != "250":
                return Result(False, f"the answer to HELO is {code}, not 250")
            doing = "QUIT"
            writer.write(b"QUIT\r\n")
            await answer(reader, connection.timeout)
            return Result(True, "greeted")
        finally:
            writer.close()
    except OSError as error:
        return failure(error, connection, doing)
    except (ValueError, EOFError) as error:
        return Result(False, f"{doing}: {error}")


async def answer(reader: asyncio.StreamReader, seconds: float) -> str:
    """The last line of an answer, its code first; raises `EOFError`, `ValueError`, `TimeoutError`."""
    said = 0
    async with asyncio.timeout(seconds):
        while True:
            line = await reader.readline()
            said += len(line)
            if not line.endswith(b"\n"):
                raise EOFError("the server hung up")
            if said > _LONGEST_ANSWER or not line[:3].isdigit():
                raise ValueError("what answers does not speak SMTP")
            if line[3:4] != b"-":
                return line.decode("utf-8", "backslashreplace").rstrip()
