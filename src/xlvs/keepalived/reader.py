# SPDX-License-Identifier: GPL-2.0-only
"""A configuration's text as statements: one string each, or a brace by itself.

Comments are gone, includes followed, conditions decided, definitions and
sequences written out.  The rules, and the order in which sources are read, are
those of keepalived's read_line() (lib/parser.c).

A configuration of 40,000 real servers has 400,000 lines and nothing special
in nearly any of them.  `Reader.items` looks once at such a line; only
what has a letter that may mean something goes the long way, `_expand`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Hashable, Iterator

from xlvs.keepalived.blocks import LINE_BITS, Block, Statement, pieces
from xlvs.keepalived.definitions import Definition, Definitions, ExpansionError
from xlvs.keepalived.diagnostics import ConfigurationError, Findings, Severity
from xlvs.keepalived.files import DEMANDS, EVERYTHING, Demand, File, Inclusion, fault, find, read_text
from xlvs.keepalived.origin import Position
from xlvs.keepalived.sequences import Sequence, SequenceError, read_list, read_sequence, sequence_parameters
from xlvs.keepalived.surroundings import Surroundings
from xlvs.keepalived.words import BLANK, without_comment

_SPECIAL = re.compile(r'[!#"\\{}$@~]')
_BRACE_OR_QUOTE = re.compile(r'[{}"]')
_INCLUDE = re.compile(r"include([rmwba]?)[ \t\n\r\f\v]+(.*)", re.DOTALL)
_MOST_FILES = 5000
_MOST_NESTED = 100
MOST_PRODUCED = 2_000_000
"""How many lines sequences may make before something must be wrong with them."""
_MOST_FOLLOWING = 1000
_MOST_ROUNDS = 100


class Reader:
    """Reads a configuration file and all that it includes.

    ``known`` are the texts of blocks that an earlier reading has met.
    """

    def __init__(
        self,
        path: str,
        surroundings: Surroundings,
        findings: Findings,
        known: Container[Hashable] = frozenset(),
    ) -> None:
        self._findings = findings
        self._known = known
        self._config_id = surroundings.config_id
        self.demand = EVERYTHING if surroundings.include_checks else Demand.NOTHING
        """What every include has to find; the keyword include_check changes it."""
        self.definitions = Definitions(surroundings.config_id, lambda: self._folder)
        self.names: list[str] = []
        """The files read so far, in order."""
        self._stack: list[File] = []
        self._sequences: list[Sequence] = []
        self._sequence_depth = 0
        """How many of them wait for a definition of several lines to end (multiline_seq_depth)."""
        self._following: list[tuple[list[str], int]] = []
        """Lines of definitions still to come, the next one last, and the depth to go back to."""
        self._definition: Definition | None = None
        self._depth = 0
        self._produced = 0
        self._path = path

    def position(self, code: int) -> Position:
        """The file and line of a position code."""
        return Position(self.names[code >> LINE_BITS], code & ((1 << LINE_BITS) - 1))

    @property
    def _folder(self) -> str:
        return self._stack[-1].folder if self._stack else os.getcwd()

    def statements(self) -> Iterator[Statement]:
        """All statements, in order.  `ConfigurationError` when the first file cannot be read."""
        for code, text in self.items():
            if isinstance(text, Block):
                yield from text.placed()
            else:
                yield code, text

    def items(self) -> Iterator[tuple[int, str | Block]]:
        """All statements, in order; a block stands for all of its own.

        `ConfigurationError` when the first file cannot be read.
        """
        self._open_first()
        search = _SPECIAL.search
        while self._stack:
            file = self._stack[-1]
            if self._definition is not None and not self._finish_definition(file):
                self._end_file()
                continue
            code = file.base + file.number
            for raw in file.lines:
                code += 1
                if isinstance(raw, Block):
                    raw.code = code - 1
                    yield code, raw
                    code += raw.lines - 1
                    continue
                text = raw.strip(" \t\r")
                if not text:
                    continue
                special = search(text)
                if special is None:
                    if text.startswith("include"):
                        file.number = code - file.base
                        if self._include(text, code):
                            break
                    yield code, text
                    continue
                at = special.start()
                if at and at == len(text) - 1 and text[at] == "{":
                    self._depth += 1
                    yield code, text[:at].rstrip(BLANK)
                    yield code, "{"
                elif text == "}":
                    self._close(code)
                    yield code, text
                else:
                    file.number = code - file.base
                    yield from self._special_line(raw, code)
                    if self._definition is not None or self._stack[-1] is not file:
                        break
            else:
                file.number = code - file.base
                self._end_file()
        if self._depth > 0:
            message = f"There are {self._depth} missing '}}'s or extra '{{'s"
            self._findings.add(Severity.MISSING_CLOSING, message, Position(self._path))

    def _special_line(self, raw: str, code: int) -> Iterator[Statement]:
        """The statements of a line with letters that may mean something."""
        text, unterminated = without_comment(raw.rstrip("\r"))
        if unterminated:
            self._report(Severity.ERROR, f"Unterminated quote '{text}'", code)
        if text:
            yield from self._expand(text, code)

    # Where lines come from.

    def _open_first(self) -> None:
        """Open the file that everything begins with; it may be a pattern, as for -f."""
        missing: list[str] = []
        names = find(self._path, "", lambda _, message: missing.append(message))
        if not names:
            raise ConfigurationError(
                f"Unable to find configuration file {self._path}",
                missing[0] if missing else "Give the right one with -f FILE.",
            )
        for name in names:
            wrong = fault(name, name)
            if wrong:
                hint = f"Nobody may be allowed to execute it: chmod a-x {name}" if "regular" in wrong else ""
                raise ConfigurationError(wrong.removesuffix(" - skipping"), hint)
        if len(names) > 1:
            self._findings.add(
                Severity.MULTIPLE_FILES,
                f"WARNING, multiple configuration file matches of {self._path}, starting with {names[0]}",
                Position(self._path),
            )
        first = Inclusion(names[::-1], os.getcwd(), 0, EVERYTHING, self.demand)
        if not self._open_next(first):
            raise ConfigurationError(
                f"Unable to read configuration file {names[0]}", "Look at its permissions: ls -l"
            )

    def _open_next(self, inclusion: Inclusion) -> bool:
        """Open the next file of an include that can be read; False when there is none left."""
        while inclusion.remaining:
            name = inclusion.remaining.pop()
            path = os.path.join(inclusion.folder, name)
            message = fault(path, name)
            if not message:
                try:
                    text = read_text(path)
                except OSError as error:
                    message = f"Configuration file '{name}' open problem ({error.strerror}) - skipping"
            if message:
                self._missed(inclusion, Demand.READABLE, message)
                continue
            base = len(self.names) << LINE_BITS
            self.names.append(name)
            self._stack.append(File(name, os.path.dirname(path), base, self._lines(text), inclusion))
            return True
        return False

    def _lines(self, text: str) -> Iterator[str | Block]:
        """A file's lines; a passage is whole, unless it stands within something else."""
        for piece in pieces(text, self._known):
            if isinstance(piece, list):
                yield from piece
            elif self._depth or self._sequences or self._following or self._definition is not None:
                assert isinstance(piece.name, str)
                yield from piece.name.split("\n")
            else:
                yield piece

    def _end_file(self) -> None:
        """Go on after a file: with the next one of the same include, or with the one that includes it."""
        ended = self._stack.pop()
        self.demand = ended.inclusion.standing
        self._open_next(ended.inclusion)

    def _include(self, text: str, code: int) -> bool:
        """Follow an include; False for a statement that is none."""
        found = _INCLUDE.fullmatch(text)
        if not found:
            return False
        pattern = found[2]
        if len(self._stack) >= _MOST_NESTED or len(self.names) >= _MOST_FILES:
            self._report(Severity.ERROR, f"Too many includes, one in another - skipping {pattern}", code)
            return True
        inclusion = Inclusion([], self._folder, code, DEMANDS[found[1]], self.demand)
        names = find(
            pattern, inclusion.folder, lambda failed, message: self._missed(inclusion, failed, message)
        )
        inclusion.remaining = names[::-1]
        self._open_next(inclusion)
        return True

    def _missed(self, inclusion: Inclusion, failed: Demand, message: str) -> None:
        """An include did not find something: an error if that was demanded."""
        if failed & (self.demand | inclusion.demand):
            self._findings.include_failed = True
            self._report(Severity.FILE_NOT_FOUND, message, inclusion.code)
        else:
            self._report(Severity.NOTE, message, inclusion.code)

    # What a line stands for.

    def _expand(self, text: str, code: int) -> Iterator[Statement]:
        """The statements of a line and of all that it brings: sequences, definitions of several lines."""
        pending: str | None = text
        while pending is not None:
            residue = ""
            text = self._meaning(pending, code)
            if text and not (text.startswith("include") and self._include(text, code)):
                text, residue = _cut(text)
                if text == "{":
                    self._depth += 1
                elif text == "}":
                    self._close(code)
                if text:
                    yield code, text
            pending = residue or self._next_source(code)

    def _next_source(self, code: int) -> str | None:
        """The next line of a sequence or definition under way; None when there is none."""
        while True:
            if len(self._sequences) > self._sequence_depth:
                sequence = self._sequences[-1]
                values = next(sequence.values, None)
                if values is None:
                    self._sequences.pop()
                    continue
                self._produced += 1
                if self._produced > MOST_PRODUCED:
                    where = str(self.position(code))
                    raise ConfigurationError(
                        f"{where}: sequences make more than {MOST_PRODUCED:,} lines",
                        "Look at the last ~SEQ.",
                    )
                for name, value in values:
                    self.definitions.set(name, value)
                return sequence.text
            if not self._following:
                return None
            lines, depth = self._following[-1]
            line = lines.pop()
            if not lines:
                self._following.pop()
                self._sequence_depth = depth
            if line:
                return line

    def _meaning(self, text: str, code: int) -> str:
        """A line with conditions decided and definitions replaced; empty if it says nothing by itself."""
        for _ in range(_MOST_ROUNDS):
            if not text:
                return ""
            if text[0] == "@":
                text = self._conditional(text)
                if not text:
                    return ""
            if text[0] == "$":
                definition = self.definitions.begin(text)
                if definition is not None:
                    if definition.multiline:
                        self._definition = definition
                    return ""
            if text.startswith(("~SEQ", "~LST")):
                self._add_sequence(text, code)
                return ""
            if text[0] == "~" or "$" not in text:
                return text
            try:
                replaced, any_replaced = self._replace(text)
            except ExpansionError as error:
                self._report(Severity.ERROR, str(error), code)
                return ""
            if not any_replaced:
                return text
            text, unterminated = without_comment(replaced)
            if unterminated:
                self._report(Severity.ERROR, f"Unterminated quote '{text}'", code)
            if not text or not (text[0] == "@" or "$" in text):
                return text
        self._report(Severity.ERROR, f"Definitions on line '{text[:200]}' go round in circles", code)
        return ""

    def _replace(self, text: str) -> tuple[str, bool]:
        """A line with definitions replaced, and whether there were any; queues the lines that follow it."""
        text, any_replaced, following = self.definitions.replace(text)
        for lines in following:
            if len(self._following) >= _MOST_FOLLOWING:
                raise ExpansionError(f"Definitions on line '{text[:200]}' go round in circles")
            self._following.append((lines, self._sequence_depth))
            self._sequence_depth = len(self._sequences)
        return text, any_replaced

    def _conditional(self, text: str) -> str:
        """What follows ``@id`` if that is ours, or ``@^id`` if it is not; else nothing."""
        negated = text[1:2] == "^"
        start = 2 if negated else 1
        end = start
        while end < len(text) and text[end] not in BLANK:
            end += 1
        if end == len(text) or (text[start:end] == self._config_id) == negated:
            return ""
        return text[end:].lstrip(BLANK)

    def _add_sequence(self, text: str, code: int) -> None:
        kind = text[:4]
        try:
            if kind == "~SEQ":
                parameters, _, following = self.definitions.replace(sequence_parameters(text))
                if following:
                    raise SequenceError(f"~SEQ parameter is multiline definition '{text}'")
                sequence = read_sequence(text, parameters)
            else:
                sequence = read_list(text)
        except (SequenceError, ExpansionError) as error:
            if str(error):
                self._report(Severity.ERROR, str(error), code)
            self._report(Severity.ERROR, f"Invalid {kind} specification '{text}'", code)
        else:
            if len(self._sequences) < _MOST_FOLLOWING:
                self._sequences.append(sequence)
            else:
                self._report(Severity.ERROR, f"Too many sequences, one in another: '{text}'", code)

    def _finish_definition(self, file: File) -> bool:
        """Read the other lines of a definition; False when the file ends before it does."""
        definition = self._definition
        assert definition is not None
        for raw in file.lines:
            assert isinstance(raw, str), "no passage is whole within a definition"
            file.number += 1
            raw = raw.rstrip("\r")
            text, unterminated = without_comment(raw)
            if unterminated:
                self._report(Severity.ERROR, f"Unterminated quote '{text}'", file.base + file.number)
            if raw and not text:
                continue  # only a comment
            if not definition.go_on(text):
                self._definition = None
                return True
        return False

    def _close(self, code: int) -> None:
        self._depth -= 1
        if self._depth < 0:
            self._report(Severity.UNEXPECTED_CLOSING, "Extra '}' found", code)
            self._depth = 0

    def _report(self, severity: Severity, message: str, code: int) -> None:
        self._findings.add(severity, message, self.position(code) if self.names else Position(self._path))


def _cut(text: str) -> tuple[str, str]:
    """A line up to its first brace, or that brace; and what of the line remains.

    A brace in double quotes is an ordinary letter.
    """
    if text[0] in "{}":
        return text[0], text[1:].strip(BLANK)
    at = 0
    while True:
        found = _BRACE_OR_QUOTE.search(text, at)
        if not found:
            return text.rstrip(BLANK), ""
        if found[0] != '"':
            return text[: found.start()].rstrip(BLANK), text[found.start() :].rstrip(BLANK)
        at = text.find('"', found.end()) + 1
        if not at:
            return text.rstrip(BLANK), ""
