# SPDX-License-Identifier: GPL-2.0-only
"""~SEQ and ~LST: one line of a configuration that stands for many.

    ~SEQ(i,1,2,9) real_server 10.0.0.$i 80 { … }      $i is 1, 3, 5, 7, 9
    ~SEQx(i,10,15) …                                  $i is a, b, … f
    ~LST({a,b},{x,1},{y,2}) …                         $a $b are x 1, then y 2

What follows the bracket is the text; each set of values is given to its
variables before the text is read once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from xlvs.keepalived.words import BLANK

_NUMBER = re.compile(r"[ \t\n\r\f\v]*([+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+))?")
_NAME_STOP = re.compile(r"[ \t,}]")
_MOST_DIGITS = 25
_VALUE_STOP = re.compile(r"[ \t,})]")


class SequenceError(ValueError):
    """A ~SEQ or ~LST that cannot be read; the message is keepalived's, or empty."""


@dataclass(slots=True)
class Sequence:
    """A line that is read many times: its text, and the values still to come."""

    text: str
    values: Iterator[tuple[tuple[str, str], ...]]
    """Each item is (variable, value) for every variable."""


def read_sequence(line: str, parameters: str) -> Sequence:
    """What a line that begins with ~SEQ stands for.

    ``parameters`` is the text from after the variable's comma up to and with
    the closing bracket, its definitions replaced.
    """
    hexadecimal, name, tail = _sequence_head(line)
    numbers, at = [], 0
    while True:
        number, at = _number(parameters, at)
        numbers.append(number)
        at = _skip_blank(parameters, at)
        letter = parameters[at : at + 1]
        if letter == ")" or (letter != "," or len(numbers) == 3):
            break
        at += 1
    if letter != ")":
        raise SequenceError(f"Invalid ~SEQ definition '{line}'")
    if len(numbers) == 1:
        last = numbers[0]
        start, step = (-1 if last < 0 else 1), (-1 if last < 1 else 1)
    elif len(numbers) == 2:
        start, last = numbers
        step = 1 if start <= last else -1
    else:
        start, step, last = numbers
        if not step or (start < last and step < 0) or (start > last and step > 0):
            raise SequenceError(f"Invalid ~SEQ values '{line}'")
    if hexadecimal and (start < 0 or last < 0):
        raise SequenceError(f"~SEQx is only valid for positive numbers '{line}'")
    text = tail.partition(")")[2].lstrip(BLANK)
    values = range(start, last + (1 if step > 0 else -1), step)
    return Sequence(text, (((name, f"{value:x}" if hexadecimal else str(value)),) for value in values))


def sequence_parameters(line: str) -> str:
    """The numbers of a ~SEQ with the bracket that closes them, definitions not yet replaced."""
    _, _, tail = _sequence_head(line)
    parameters, bracket, _ = tail.partition(")")
    if not bracket or len(parameters) > 62:  # keepalived: three longs
        raise SequenceError(f"~SEQ parameter strings too long '{line}'")
    return parameters + bracket


def _sequence_head(line: str) -> tuple[bool, str, str]:
    """Is it ~SEQx, its variable, and what follows the variable's comma."""
    at = 4
    hexadecimal = line[at : at + 1] == "x"
    at = _skip_blank(line, at + hexadecimal)
    if line[at : at + 1] != "(":
        raise SequenceError("")
    at = _skip_blank(line, at + 1)
    start = at
    while at < len(line) and line[at] not in " \t,)":
        at += 1
    name = line[start:at]
    at = _skip_blank(line, at)
    if at >= len(line) or line[at] == ")" or at == start:
        raise SequenceError(f"Invalid ~SEQ definition '{line}'")
    return hexadecimal, name, line[_skip_blank(line, at + 1) :]


def read_list(line: str) -> Sequence:
    """What a line that begins with ~LST stands for."""
    at = _skip_blank(line, 4)
    if line[at : at + 1] != "(":
        raise SequenceError("")
    at = _skip_blank(line, at + 1)
    names, at = _members(line, at, _NAME_STOP, bracket_ends=False)
    at = _after(line, at, ",")
    rows = []
    while True:
        row, at = _members(line, at, _VALUE_STOP, bracket_ends=True)
        if len(row) > len(names):
            raise SequenceError(f"~LST specification has too many values '{line}'")
        rows.append(row + [""] * (len(names) - len(row)))
        if line[at : at + 1] == ")":
            break
        at = _after(line, at, ",")
    text = line[_skip_blank(line, at + 1) :]
    return Sequence(text, (tuple(zip(names, row, strict=True)) for row in rows))


def _members(line: str, at: int, stop: re.Pattern[str], *, bracket_ends: bool) -> tuple[list[str], int]:
    """One name or value, or several in braces; and where the text after them begins.

    A value without braces may end with the bracket that closes the ~LST.
    """
    braces = line[at : at + 1] == "{"
    if braces:
        at = _skip_blank(line, at + 1)
    end = "}" if braces else ","
    members = []
    while True:
        found = stop.search(line, at)
        close = found.start() if found else len(line)
        members.append(line[at:close])
        at = _skip_blank(line, close)
        letter = line[at : at + 1]
        if letter == end or (bracket_ends and letter == ")" and not braces):
            return members, _skip_blank(line, at + 1) if braces else at
        if letter != ",":
            raise SequenceError("")
        at = _skip_blank(line, at + 1)


def _after(line: str, at: int, letter: str) -> int:
    """Where the text begins after ``letter`` and blanks; `SequenceError` when it is not there."""
    if line[at : at + 1] != letter:
        raise SequenceError("")
    return _skip_blank(line, at + 1)


def _number(text: str, at: int) -> tuple[int, int]:
    """A number as strtol(3) reads it with base 0, and where it ends; 0 where there is none."""
    found = _NUMBER.match(text, at)
    digits = found[1] if found else None
    if not found or digits is None:
        return 0, at
    sign = -1 if digits[0] == "-" else 1
    digits = digits.lstrip("+-")[:_MOST_DIGITS]
    if digits[:2] in ("0x", "0X"):
        return sign * int(digits, 16), found.end()
    if digits[0] == "0" and len(digits) > 1:
        octal = re.match("[0-7]+", digits)
        kept = octal[0] if octal else "0"
        return sign * int(kept, 8), found.end() - len(found[1].lstrip("+-")) + len(kept)
    return sign * int(digits), found.end()


def _skip_blank(text: str, at: int) -> int:
    """The index of the next letter that is no blank."""
    while at < len(text) and text[at] in BLANK:
        at += 1
    return at
