# SPDX-License-Identifier: GPL-2.0-only
"""Statements and blocks: keyword tables are walked with the statements of a file.

A `Section` is the table of one kind of block.  `Cursor.run` looks each
statement's keyword up in it and calls its action with the value that the
block builds (``context``) and the cursor, which stands at the statement.  The
rules for braces, for what is unknown and for what is skipped are those of
keepalived's process_stream() (lib/parser.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from xlvs.keepalived.blocks import Block
from xlvs.keepalived.diagnostics import Findings, Severity
from xlvs.keepalived.origin import Position
from xlvs.keepalived.reader import Reader
from xlvs.keepalived.surroundings import Surroundings
from xlvs.keepalived.words import QuoteError, split, split_escaped

Action = Callable[[Any, "Cursor"], Any]


class Keyword(NamedTuple):
    """One keyword of a block, as the documentation has it."""

    name: str
    arguments: str
    meaning: str
    remark: str
    """Why it does nothing here, or not what keepalived does; empty where it is honoured in full."""
    block: Section | None


class Section:
    """The keywords of one kind of block."""

    def __init__(self, name: str, close: Action | None = None) -> None:
        self.name = name
        self.close = close
        self.table: dict[str, tuple[Action | None, Section | None]] = {}
        self.keywords: list[Keyword] = []

    def add(
        self,
        name: str,
        action: Action,
        arguments: str = "",
        meaning: str = "",
        *,
        remark: str = "",
        block: Section | None = None,
        aliases: Iterable[str] = (),
    ) -> None:
        """Enter a keyword.  With a ``block`` the action makes what that block builds.

        A keyword with a ``remark`` is noted where it stands, so that nobody
        waits for what it does elsewhere.
        """
        self.keywords.append(Keyword(name, arguments, meaning, remark, block))
        entered: Action = _remarking(action, remark) if remark else action
        self.table[name] = (entered, block)
        for alias in aliases:
            self.table[alias] = (entered, block)
            self.keywords.append(Keyword(alias, arguments, f"The same as `{name}`.", remark, block))

    def ignore(self, names: Iterable[str]) -> None:
        """Let these keywords, with their blocks, be passed over: another pass reads them."""
        for name in names:
            self.table[name] = (None, None)


def _remarking(action: Action, remark: str) -> Action:
    def remarked(context: Any, at: Cursor) -> Any:
        at.note(f"'{at.words[0]}': {remark}")
        return action(context, at)

    return remarked


class Incomplete(Exception):
    """A statement lacks a parameter: keepalived reads no further."""


class Cursor:
    """The statement that is being read: its words, its raw text and its place."""

    __slots__ = (
        "_level", "_reader", "_skip", "_source", "_take", "code", "findings", "surroundings", "text",
        "words",
    )  # fmt: skip

    def __init__(
        self,
        reader: Reader,
        source: Iterable[tuple[int, str | Block]],
        surroundings: Surroundings,
        findings: Findings,
        take: Callable[[Block], int] | None = None,
    ) -> None:
        """``take`` reads a whole block, and returns how many braces deep it left something passed over.

        Without it blocks are passed over as wholes.
        """
        self.surroundings = surroundings
        self.findings = findings
        self.words: list[str] = []
        self.text = ""
        self.code = 0
        self._reader = reader
        self._take = take
        self._skip = 0
        self._level = 0
        self._source = self._flat(source)

    @property
    def position(self) -> Position:
        """Where the statement is."""
        return self._reader.position(self.code)

    @property
    def reader(self) -> Reader:
        """Where statements come from: two keywords change how the rest is read."""
        return self._reader

    def word(self, index: int) -> str:
        """A word of the statement; `Incomplete` when there are not that many."""
        if index < len(self.words):
            return self.words[index]
        first, before = self.words[0], self.words[index - 1 : index]
        after = f" after keyword `{before[0]}`" if before else ""
        message = (
            f"*** Configuration line starting `{first}` is missing a parameter{after}"
            f" at word position {index + 1}"
        )
        self.report(message, Severity.MISSING_PARAMETER)
        self.findings.aborted = True
        raise Incomplete(message)

    def escaped_words(self) -> list[str]:
        """The words with quotes and escapes as in a shell; empty when they cannot be read."""
        try:
            return split_escaped(self.text)
        except QuoteError as error:
            self.report(str(error), Severity.UNMATCHED_QUOTE)
            return []

    def report(self, message: str, severity: Severity = Severity.ERROR) -> None:
        """Something is wrong with this statement."""
        self.findings.add(severity, message, self.position)

    def note(self, message: str) -> None:
        """Something is worth knowing about this statement, but not wrong."""
        self.findings.add(Severity.NOTE, message, self.position)

    @property
    def skipping(self) -> int:
        """How many braces deep something is being passed over; -1 before the first one."""
        return self._skip

    def _flat(self, source: Iterable[tuple[int, str | Block]]) -> Iterator[tuple[int, Any]]:
        """The statements; a block is whole where it stands by itself."""
        for item in source:
            block = item[1]
            if not isinstance(block, Block):
                yield item
            elif self._level or self._skip > 0:
                yield from block.placed()
            else:
                self._skip = self._take(block) if self._take is not None else 0

    def skip_block(self, *, opened: bool = False) -> None:
        """Pass over the block that begins after this statement, or with ``opened`` the rest of this one."""
        self._skip = 1 if opened else -1

    def run(self, section: Section, context: Any) -> None:
        """Read everything, beginning with ``section``.  `Incomplete` when a parameter is missing."""
        self._run(section, context, False, 0)

    def _run(self, section: Section, context: Any, brace_expected: bool, level: int) -> bool:
        """Read one block to its end; was its rest passed over?"""
        table = section.table
        self._level = level
        for code, text in self._source:
            self.code = code
            if self._skip:
                if self._skip < 0:
                    if text == "{":
                        self._skip = 1
                        brace_expected = False
                        continue
                    self._skip = 0
                else:
                    if text == "{":
                        self._skip += 1
                    elif text == "}":
                        self._skip -= 1
                        if not self._skip and level:
                            return True
                    continue
            self.text = text
            if brace_expected:
                brace_expected = False
                if text == "{":
                    continue
                self.report("Missing '{' at beginning of configuration block", Severity.MISSING_OPENING)
            elif text == "{":
                self.report("Unexpected '{' - ignoring", Severity.UNEXPECTED_OPENING)
                continue
            if text == "}" and level:
                return False
            self.words = words = text.split() if '"' not in text and text.isascii() else self._split(text)
            if not words:
                continue
            entry = table.get(words[0])
            if entry is None:
                self.report(f"Unknown keyword '{words[0]}'", Severity.UNKNOWN_KEYWORD)
                continue
            action, block = entry
            if action is None:
                self._skip = -1
            elif block is None:
                action(context, self)
            else:
                inner = action(context, self)
                if not self._run(block, inner, True, level + 1) and block.close:
                    block.close(inner, self)
                self._level = level
        return False

    def _split(self, text: str) -> list[str]:
        try:
            return split(text)
        except QuoteError as error:
            self.report(str(error.args[0]), Severity.UNMATCHED_QUOTE)
            return list(error.args[1])

    def value_lines(self) -> Iterator[list[str]]:
        """The lines of a block whose lines are values, not statements; the cursor stands at each."""
        name = self.words[0]
        if len(self.words) > 1:
            self.report(f"Block {name} has extra parameters {self.words[1]} ...")
        brace_expected = True
        level, self._level = self._level, 1
        for code, text in self._source:
            self.code = code
            self.text = text
            if brace_expected:
                brace_expected = False
                if text == "{":
                    continue
                self.note(f"'{{' missing from beginning of block {name}")
            if text == "}":
                self._level = level
                return
            self.words = self._split(text)
            if self.words:
                yield self.words

    def value_words(self) -> list[str]:
        """All words of a block of values."""
        return [word for words in self.value_lines() for word in words]
