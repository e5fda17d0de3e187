# SPDX-License-Identifier: GPL-2.0-only
"""Configuration files: which ones an include names, and their lines."""

from __future__ import annotations

import enum
import glob
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlvs.keepalived.blocks import Block

_MOST_ALTERNATIVES = 10000


class Demand(enum.Flag):
    """What an include insists on; what fails beyond that is only mentioned.

    ``includer``, ``includem``, ``includew``, ``includeb`` and ``includea``,
    the keyword ``include_check`` and the option ``-e`` choose among these.
    """

    NOTHING = 0
    READABLE = 1
    """No folder, nothing unreadable or executable."""
    MATCH = 2
    """A name without wildcards must exist."""
    WILDCARD = 4
    """A name with wildcards must match something."""
    BRACES = 8
    """Each alternative in braces must exist."""


EVERYTHING = Demand.READABLE | Demand.MATCH | Demand.WILDCARD | Demand.BRACES

DEMANDS = {
    "": Demand.NOTHING,
    "r": Demand.READABLE,
    "m": Demand.READABLE | Demand.MATCH,
    "w": Demand.READABLE | Demand.MATCH | Demand.WILDCARD,
    "b": Demand.READABLE | Demand.BRACES,
    "a": EVERYTHING,
}
"""What the letter after ``include`` demands."""


@dataclass(slots=True)
class File:
    """A file that is being read.

    ``name`` is as the including file has it, ``folder`` absolute: relative
    includes and ``${_PWD}`` are relative to it.  ``number`` is the line that
    was read last; ``base`` is what its position code begins at.
    """

    name: str
    folder: str
    base: int
    lines: Iterator[str | Block]
    inclusion: Inclusion
    number: int = 0


@dataclass(slots=True)
class Inclusion:
    """An include statement that is being followed.

    ``remaining`` are the files still to come, the next one last; ``demand``
    is what it insists on itself, ``standing`` what held when it was met and
    holds again after each of its files.
    """

    remaining: list[str]
    folder: str
    code: int
    demand: Demand
    standing: Demand


Complain = Callable[[Demand, str], None]
"""Told of what an include did not find: the demand that it fails, and keepalived's words for it."""


def read_text(path: str) -> str:
    """A file's text: any bytes, those that are no UTF-8 as surrogates.  `OSError` as open(2)."""
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")


def find(pattern: str, folder: str, complain: Complain) -> list[str]:
    """The files that an include names, in order, as paths relative to ``folder`` or absolute.

    Braces are alternatives, as in a shell, each sorted by itself.
    """
    found: list[str] = []
    literal_missing = wildcards = False
    alternatives = list(_alternatives(pattern))
    for alternative in alternatives:
        if glob.has_magic(alternative):
            wildcards = True
            escaped = alternative if os.path.isabs(alternative) else None
            matches = sorted(
                glob.glob(alternative) if escaped else glob.glob(alternative, root_dir=folder or None)
            )
            if not matches and not os.path.isdir(
                os.path.join(folder, os.path.dirname(alternative).split("*")[0] or ".")
            ):
                literal_missing = True
            found += matches
        elif os.path.lexists(os.path.join(folder, alternative)) if alternative else False:
            found.append(alternative)
        else:
            literal_missing = True
    if not found:
        if literal_missing:
            braces = len(alternatives) > 1
            complain(Demand.BRACES if braces else Demand.MATCH, f"Config files missing '{pattern}'.")
        elif wildcards:
            complain(Demand.WILDCARD, f"No config files matched '{pattern}'.")
    elif literal_missing:
        complain(Demand.BRACES, f'Some config files missing: "{pattern}".')
    return found


def fault(path: str, name: str) -> str:
    """Why a file cannot be a configuration file, in keepalived's words; empty if it can."""
    try:
        status = os.stat(path)
    except OSError:
        return f"Configuration file '{name}' is not a regular non-executable file - skipping"
    if stat.S_ISDIR(status.st_mode):
        return f"Configuration file '{name.rstrip('/')}/' is a directory - skipping"
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o111:
        return f"Configuration file '{name}' is not a regular non-executable file - skipping"
    return ""


def _alternatives(pattern: str) -> Iterator[str]:
    """A pattern with its braces written out; unbalanced braces are ordinary letters."""
    pending = [pattern]
    produced = 0
    while pending:
        text = pending.pop()
        choice = _first_choice(text)
        if choice is None:
            yield text
            produced += 1
            if produced >= _MOST_ALTERNATIVES:
                return
        else:
            before, options, after = choice
            pending += [f"{before}{option}{after}" for option in reversed(options)]


def _first_choice(text: str) -> tuple[str, list[str], str] | None:
    """The first ``{…}`` of a pattern: what is before, between the commas, and after it."""
    for start, letter in enumerate(text):
        if letter != "{":
            continue
        depth = 0
        cuts = [start]
        for at in range(start, len(text)):
            if text[at] == "{":
                depth += 1
            elif text[at] == "," and depth == 1:
                cuts.append(at)
            elif text[at] == "}":
                depth -= 1
                if depth == 0:
                    cuts.append(at)
                    options = [text[cuts[i] + 1 : cuts[i + 1]] for i in range(len(cuts) - 1)]
                    return text[:start], options, text[at + 1 :]
    return None
