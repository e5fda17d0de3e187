# SPDX-License-Identifier: GPL-2.0-only
"""What the doctor says: findings, and the commands that mend them and take that back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

FAULT = "fault"
"""Clients see it."""
WARNING = "warning"
"""Clients may see it, or will."""
NOTE = "note"
"""Nothing is wrong; it could be quicker, or is worth knowing."""


@dataclass(frozen=True, slots=True)
class Mend:
    """A command on a host, as one types it there, and the one that takes it back."""

    host: str
    command: str
    undo: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake on one host.

    ``problem`` is one sentence, ``evidence`` what was seen, ``effect`` what
    clients see of it.  ``mends`` lead to healthy in their order; where no
    command can, ``advice`` says what has to be done.  ``check`` is filled in
    by who asked the check.
    """

    host: str
    problem: str
    evidence: tuple[str, ...]
    effect: str
    mends: tuple[Mend, ...] = ()
    advice: str = ""
    severity: str = FAULT
    check: str = ""

    def of(self, check: str) -> Finding:
        """The same with its check's name."""
        return replace(self, check=check)

    def as_json(self) -> dict[str, Any]:
        """As docs/doctor.md describes it."""
        return {
            "check": self.check,
            "severity": self.severity,
            "host": self.host,
            "problem": self.problem,
            "evidence": list(self.evidence),
            "effect": self.effect,
            "mends": [
                {"host": mend.host, "command": mend.command, "undo": mend.undo} for mend in self.mends
            ],
            "advice": self.advice,
        }
