# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong with a configuration, how bad that is, and the exit status that says so.

Severities and statuses are keepalived 2.2.7's (lib/parser.h, lib/scheduler.h),
so that a script which calls ``keepalived -t`` can call ``xlvsd -t``.  The worst
severity is the *highest* number, not what its name suggests: a file that is
missing and a misspelt keyword together count as a misspelt keyword.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from xlvs.errors import XlvsError, shown
from xlvs.keepalived.origin import Position


class Severity(enum.IntEnum):
    """How bad a finding is."""

    NOTE = 0
    """Worth knowing; keepalived logs such things, or does not see them."""
    FILE_NOT_FOUND = 1
    BAD_INTERFACE = 2
    FATAL = 3
    """Up to here the configuration cannot be run; from here on it can, without what is wrong."""
    MULTIPLE_FILES = 4
    UNKNOWN_KEYWORD = 5
    UNEXPECTED_OPENING = 6
    MISSING_OPENING = 7
    UNEXPECTED_CLOSING = 8
    MISSING_CLOSING = 9
    UNMATCHED_QUOTE = 10
    MISSING_PARAMETER = 11
    INVALID_NUMBER = 12
    ERROR = 13
    WARNING = 14
    DEPRECATED = 15
    SECURITY = 16
    """Scripts are run though script security is not enabled."""


class Verdict(enum.IntEnum):
    """The exit status of a configuration test, as keepalived 2.2.7 gives it."""

    GOOD = 0
    INCOMPLETE = 2
    """A statement lacks a parameter: nothing after it was read."""
    UNUSABLE = 4
    FAULTY = 5
    """It can be run, without what is wrong."""
    INSECURE = 6
    """Scripts run without script security, or an include that was to be checked failed."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.  ``remedy`` says what to do, where the message itself does not."""

    severity: Severity
    message: str
    position: Position = field(default=Position())
    remedy: str = ""

    def __str__(self) -> str:
        place = self.position
        where = f"({place.file}: Line {place.line}) " if place.line else ""
        note = "note: " if self.severity is Severity.NOTE else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return shown(f"{where}{note}{self.message}{remedy}")


class Findings:
    """All findings of one reading, in the order in which they came; each is kept once."""

    __slots__ = ("_seen", "aborted", "entries", "include_failed")

    def __init__(self) -> None:
        self.entries: list[Diagnostic] = []
        self.aborted = False
        self.include_failed = False
        self._seen: set[Diagnostic] = set()

    def add(self, severity: Severity, message: str, position: Position, remedy: str = "") -> None:
        """Note a finding."""
        diagnostic = Diagnostic(severity, message, position.fixed(), remedy)
        if diagnostic not in self._seen:
            self._seen.add(diagnostic)
            self.entries.append(diagnostic)

    @property
    def verdict(self) -> Verdict:
        """The exit status that all of them together make."""
        if self.aborted:
            return Verdict.INCOMPLETE
        if self.include_failed:
            return Verdict.INSECURE
        worst = max((entry.severity for entry in self.entries), default=Severity.NOTE)
        if worst is Severity.NOTE:
            return Verdict.GOOD
        if worst <= Severity.FATAL:
            return Verdict.UNUSABLE
        return Verdict.INSECURE if worst is Severity.SECURITY else Verdict.FAULTY


class ConfigurationError(XlvsError):
    """The configuration cannot be used at all; ``message`` and ``hint`` say why and what to do."""
