# SPDX-License-Identifier: GPL-2.0-only
"""One mail to one server (RFC 5321, section 3.3), on the event loop.

No thread waits for a mail server: the pool's threads keep the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from email.utils import parseaddr

from xlvs.checkers import smtp
from xlvs.checkers.connection import refusal
from xlvs.errors import shown
from xlvs.keepalived.addresses import format_address
from xlvs.keepalived.settings import Mail


class MailError(Exception):
    """A mail did not get through, to all or to some; says how far it came, and why it went no further."""


async def deliver(mail: Mail, helo: str, sender: str, text: str) -> None:
    """Send ``text``, header and body, from ``sender`` to all of the configuration's recipients.

    Whatever is waited for comes within ``mail.connect_timeout`` seconds.  Raises `MailError`.
    """
    doing = "connecting"
    try:
        async with asyncio.timeout(mail.connect_timeout):
            reader, writer = await asyncio.open_connection(format_address(mail.server), mail.server_port)
        try:
            doing = "the conversation"
            await _converse(_Conversation(reader, writer, mail.connect_timeout), mail, helo, sender, text)
        finally:
            writer.close()
    except TimeoutError:
        raise MailError(f"{doing}: no answer within {mail.connect_timeout:g} s") from None
    except OSError as error:
        raise MailError(f"{doing}: {refusal(error)}") from error
    except (ValueError, EOFError) as error:
        raise MailError(f"{doing}: {error}") from error


async def _converse(server: _Conversation, mail: Mail, helo: str, sender: str, text: str) -> None:
    await server.expect("the greeting", "2")
    await server.say(f"HELO {helo}", "2")
    await server.say(f"MAIL FROM:<{_bare(sender)}>", "2")
    refused = []
    for recipient in mail.recipients:
        try:
            await server.say(f"RCPT TO:<{_bare(recipient)}>", "2")
        except MailError as error:
            refused.append(str(error))
    if len(refused) < len(mail.recipients):
        await server.say("DATA", "3")
        await server.say(f"{_transparent(text)}\r\n.", "2", "the text")
    with contextlib.suppress(OSError, EOFError, ValueError):  # it has the mail already
        await server.say("QUIT", "")
    if refused:
        raise MailError("; ".join(refused))


class _Conversation:
    """What is said to a server, and what it answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = seconds

    async def say(self, line: str, good: str, name: str = "") -> None:
        """Say a line; the answer's code must begin with ``good``.  Raises `MailError`, `OSError`…"""
        self._writer.write(f"{line}\r\n".encode("utf-8", "replace"))
        await self.expect(name or line, good)

    async def expect(self, what: str, good: str) -> None:
        """Wait for the answer to something."""
        answer = await smtp.answer(self._reader, self._seconds)
        if not answer.startswith(good):
            raise MailError(f"{what}: {shown(answer)}")


def _bare(address: str) -> str:
    """The address alone, without a name before it."""
    return parseaddr(address)[1] or address


def _transparent(text: str) -> str:
    """Text whose lines end as they must, and none of which can be taken for the end (section 4.5.2)."""
    return re.sub(r"(?m)^\.", "..", "\r\n".join(text.splitlines()))
