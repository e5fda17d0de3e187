# SPDX-License-Identifier: GPL-2.0-only
"""Where a value of the configuration comes from, and the scripts that it names."""

from __future__ import annotations

from dataclasses import dataclass, field


class Beginning:
    """Where a block of a configuration begins: the file, and the line before its first one.

    A block that is found elsewhere by the next reading, and says the same, is moved by
    changing this (`xlvs.keepalived.memory`); all `Position` in it follow.
    """

    __slots__ = ("file", "line")

    def __init__(self, file: str, line: int) -> None:
        self.file = file
        self.line = line


class Position:
    """A line of a configuration file; ``line`` counts from 1, and is 0 for what no line says.

    With a ``beginning`` it is so many lines from there.
    """

    __slots__ = ("_beginning", "_file", "_line")

    def __init__(self, file: str = "", line: int = 0, beginning: Beginning | None = None) -> None:
        self._file = file
        self._line = line
        self._beginning = beginning

    @property
    def file(self) -> str:
        """The file, as it was named."""
        return self._file if self._beginning is None else self._beginning.file

    @property
    def line(self) -> int:
        """The line."""
        return self._line if self._beginning is None else self._beginning.line + self._line

    def fixed(self) -> Position:
        """The same for good, wherever the next reading finds it."""
        return self if self._beginning is None else Position(self.file, self.line)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and (self.line, self.file) == (other.line, other.file)

    def __hash__(self) -> int:
        return hash((self.file, self.line))

    def __repr__(self) -> str:
        return f"Position(file={self.file!r}, line={self.line!r})"

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
