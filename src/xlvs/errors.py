# SPDX-License-Identifier: GPL-2.0-only
"""Every error that an operator can meet.

    XlvsError                    something an operator can act on
    ├── UsageError               the command line is wrong
    ├── CannotLook               the doctor cannot see what it is to judge
    ├── Unavailable              the data plane cannot be used on this machine, or not now
    │   ├── NotPermitted         not root
    │   ├── NotLoaded            nothing is loaded in this network namespace
    │   └── Unusable             what is loaded is damaged, or another version's
    └── TableError               the data plane refused a change of its table
        ├── ServiceExists        EEXIST on a service
        ├── NoSuchService        ESRCH on a service
        ├── DestinationExists    EEXIST on a destination
        ├── NoSuchDestination    ENOENT on a destination
        ├── RuleExists           a rule that marks packets has the same conditions
        ├── NoSuchRule           no rule that marks packets is like that
        ├── SchedulerNotFound    ENOENT on a scheduler
        ├── InvalidOperation     EINVAL: a value the data plane cannot accept
        │   └── OutOfRange       ERANGE: a weight below 0, a lower threshold above the upper one
        ├── NotSupported         the data plane does not have this (yet)
        └── TableFull            no room for another service or destination

A message says what, where and, in ``hint``, what to do.  Both may quote what
comes from elsewhere (arguments, names of interfaces, another program's words):
control characters in it are spelled out, so that none reaches a terminal.
"""

from __future__ import annotations


def shown(text: str) -> str:
    """Text of any origin on one line, for a terminal: what cannot be printed is spelled out (``\\x1b``).

    Bytes of another encoding than the terminal's (surrogates, PEP 383) stay,
    unless they are control characters.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or "\udca0" <= letter <= "\udcff" else _spelled_out(letter)
        for letter in text
    )


def _spelled_out(letter: str) -> str:
    code = ord(letter)
    if code < 0x100 or 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class XlvsError(Exception):
    """What went wrong (``message``, one line) and what the operator can do about it (``hint``)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = shown(message)
        self.hint = "\n".join(map(shown, hint.split("\n")))

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(XlvsError):
    """The command line is wrong; nothing was changed."""


class CannotLook(XlvsError):
    """The doctor cannot see what it is to judge; nothing is known of its health."""


class Unavailable(XlvsError):
    """The data plane cannot be used on this machine, or not now."""


class NotPermitted(Unavailable):
    """The caller lacks the privileges; nothing was changed."""


class NotLoaded(Unavailable):
    """No data plane is loaded in this network namespace."""


class Unusable(Unavailable):
    """What is loaded cannot be worked with, only ended: it is damaged, or another version's."""


class TableError(XlvsError):
    """The data plane refused a change; its table is as it was."""


class ServiceExists(TableError):
    """The virtual service is there already."""


class NoSuchService(TableError):
    """No virtual service has that key."""


class DestinationExists(TableError):
    """The service has that real server already."""


class NoSuchDestination(TableError):
    """The service has no such real server."""


class RuleExists(TableError):
    """A rule that marks packets has the same conditions."""


class NoSuchRule(TableError):
    """No rule that marks packets is like that."""


class SchedulerNotFound(TableError):
    """No scheduler, or no persistence engine, has that name."""


class InvalidOperation(TableError):
    """A value that the data plane cannot accept."""


class OutOfRange(InvalidOperation):
    """A number outside its range: a weight below 0, a lower threshold above the upper one."""


class NotSupported(TableError):
    """A feature that this data plane does not have."""


class TableFull(TableError):
    """No room for another service or destination."""
