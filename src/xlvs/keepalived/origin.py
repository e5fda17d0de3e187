# SPDX-License-Identifier: GPL-2.0-only
"""Where a value of the configuration comes from, and the scripts that it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Position(NamedTuple):
    """A line of a configuration file; ``line`` counts from 1, and is 0 for what no line says."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Script:
    """A program to run, with its arguments, as a user and a group.

    ``arguments`` is never empty; its first is the path as the configuration
    has it.  ``user`` and ``group`` are names as written, empty for the
    default (``script_user``); ``uid`` and ``gid`` are what they stand for.
    """

    arguments: tuple[str, ...]
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    position: Position = field(default=Position(), compare=False)

    @property
    def path(self) -> str:
        """The program, as the configuration names it."""
        return self.arguments[0]


@dataclass(frozen=True, slots=True)
class NotifyFifo:
    """A FIFO that gets a line for each event, and the script that reads it, if any.

    The script gets the FIFO's path as its last argument.
    """

    path: str = ""
    uid: int = 0
    gid: int = 0
    script: Script | None = None
    position: Position = field(default=Position(), compare=False)
