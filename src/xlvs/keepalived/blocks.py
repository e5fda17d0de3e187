# SPDX-License-Identifier: GPL-2.0-only
"""Virtual servers as blocks of text, found without looking at each line.

Nearly all of a large configuration is virtual servers in which no letter means
anything outside of them.  Such a *passage* is cut out of a file by a few
searches.  If the reading before met the same text, what came of it still
holds (`xlvs.keepalived.memory`), and none of its lines is looked at.  What a
passage cannot be, for its definitions or quotes, may be a block all the same:
that is found in its statements, when these are known (`grouped`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable, Iterator

from xlvs.keepalived.words import BLANK

LINE_BITS = 32
"""A position code is a file's number, and so many bits of line number."""
KEYWORD = "virtual_server"
"""What begins a block that is worth remembering: of these there may be thousands."""

Statement = tuple[int, str]
"""A position code (see `Reader.position`) and the text."""

_BEGINNING = "\n" + KEYWORD
_END = "\n}\n"
_MEANT_ELSEWHERE = re.compile(r'["\\$@~\r]|include')
"""What may depend on what stands before, or has an effect on what stands after."""
_BRACE = re.compile(r"[{}]")
_COMMENT = re.compile(r"[!#]")


class Block:
    """A whole virtual server, from its keyword to the brace that closes it.

    ``name`` is the same only for blocks of which the same comes.  ``code`` is the
    position code of the line before.  ``lines`` is how many it has in its file, 0 where
    it is made of statements.
    """

    __slots__ = ("_statements", "code", "lines", "name")

    def __init__(
        self, name: Hashable, code: int, lines: int, statements: list[Statement] | None = None
    ) -> None:
        self.name = name
        self.code = code
        self.lines = lines
        self._statements = statements

    @property
    def statements(self) -> list[Statement]:
        """Its statements; position codes count from its own beginning."""
        if self._statements is None:
            assert isinstance(self.name, str)
            found = statements_of(self.name)
            assert found is not None, "it was a passage when it was met first"
            self._statements = found
        return self._statements

    def placed(self) -> list[Statement]:
        """Its statements where they stand in the configuration."""
        return [(self.code + code, text) for code, text in self.statements]


def pieces(text: str, known: Container[Hashable]) -> Iterator[list[str] | Block]:
    """A file's text as lists of lines, and the passages between them (with no position code yet).

    Those in ``known`` have been found to be passages before.
    """
    at = 0
    end = -1
    begin = 0 if text.startswith(KEYWORD) else _next_beginning(text, 0)
    while begin >= 0:
        following = _next_beginning(text, begin)
        if begin > end:
            end = text.find(_END, begin)
            if end < 0:
                break
        after = begin + len(KEYWORD)
        # One that ends behind where the next one begins is written otherwise, or has no end.
        if text[after : after + 1] in (" ", "\t") and (following < 0 or end < following):
            block = _passage(text[begin : end + 2], known)
            if block is not None:
                if begin > at:
                    yield text[at : begin - 1].split("\n")
                yield block
                at = end + len(_END)
        begin = following
    yield text[at:].split("\n")


def _next_beginning(text: str, at: int) -> int:
    """Where the next line that begins as a virtual server does begins; -1 where there is none."""
    found = text.find(_BEGINNING, at)
    return found + 1 if found >= 0 else -1


def _passage(text: str, known: Container[Hashable]) -> Block | None:
    """The block that a text is; None where it may be none."""
    if text in known:
        return Block(text, 0, text.count("\n") + 1)
    if _MEANT_ELSEWHERE.search(text):
        return None
    statements = statements_of(text)
    return None if statements is None else Block(text, 0, text.count("\n") + 1, statements)


def statements_of(text: str) -> list[Statement] | None:
    """The statements of a text without quotes and definitions; None unless it is a single block.

    They are those that `Reader.statements` makes of it.
    """
    statements: list[Statement] = []
    add = statements.append
    commented = _COMMENT.search(text) is not None
    code = depth = 0
    for raw in text.split("\n"):
        code += 1
        line = raw.strip(BLANK)
        if commented and (comment := _COMMENT.search(line)) is not None:
            line = line[: comment.start()].rstrip(BLANK)
        if not line:
            continue
        # Nearly all are of these three kinds.
        if line == "}":
            if not depth:
                return None
            depth -= 1
            add((code, line))
        elif "{" not in line and "}" not in line:
            if not depth and statements:
                return None
            add((code, line))
        elif line.find("{") == len(line) - 1 > 0 and "}" not in line and (depth or not statements):
            add((code, line[:-1].rstrip(BLANK)))
            add((code, "{"))
            depth += 1
        else:
            for part in _parts(line):
                if not depth and (len(statements) != 1 if part == "{" else statements):
                    return None
                depth += 1 if part == "{" else -1 if part == "}" else 0
                add((code, part))
    return statements if depth == 0 and len(statements) > 2 else None


def _parts(line: str) -> Iterator[str]:
    """A line's statements: its braces, and what is between them."""
    while line:
        if line[0] in "{}":
            part, line = line[0], line[1:].strip(BLANK)
        else:
            brace = _BRACE.search(line)
            end = brace.start() if brace is not None else len(line)
            part, line = line[:end].rstrip(BLANK), line[end:]
        yield part


def grouped(items: Iterable[tuple[int, str | Block]]) -> Iterator[tuple[int, str | Block]]:
    """Statements and blocks, with those statements made into blocks, too, that are a whole virtual server.

    The lines of one may come from a ~SEQ or from definitions, but all from one file.
    """
    items = iter(items)
    for code, text in items:
        if isinstance(text, Block) or not text.startswith(KEYWORD) or text.split(None, 1)[0] != KEYWORD:
            yield code, text
            continue
        taken = [(code, text)]
        depth = 0
        closed = False
        for place, following in items:
            if isinstance(following, Block):
                yield from taken
                yield place, following
                break
            taken.append((place, following))
            if following == "{":
                depth += 1
            elif following == "}":
                depth -= 1
            if depth <= 0:
                closed = following == "}"
                yield from _group(taken) if closed else taken
                break
        else:
            yield from taken


def _group(statements: list[Statement]) -> Iterator[tuple[int, str | Block]]:
    first = statements[0][0]
    own = [(code - first + 1, text) for code, text in statements]
    if statements[1][1] != "{" or any(code >> LINE_BITS != first >> LINE_BITS for code, _ in statements):
        yield from statements
    else:
        yield first, Block(tuple(own), first - 1, 0, own)
