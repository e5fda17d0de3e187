# SPDX-License-Identifier: GPL-2.0-only
"""$NAME=text and its uses: ``$NAME`` before a blank, comma or bracket, ``${NAME}`` anywhere.

A use is replaced when the line is read, not when the definition is made, and
what it is replaced by is looked through again.  A definition of several lines
(each but the last ends with a backslash) stands for several lines of the
configuration, so it must be the last thing on its line.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=[ \t]*", re.ASCII)
_USE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)([ 0-9]*)\})", re.ASCII)
_MOST_LETTERS = 1 << 16
_MOST_USES = 4096


class ExpansionError(ValueError):
    """A line does not stop growing."""


@dataclass(slots=True)
class Definition:
    """The text that a name stands for; ``lines`` beyond the first where it has several."""

    value: str = ""
    multiline: bool = False
    compute: Callable[[str], str] | None = None
    """Makes the value from the parameters of a use, for names that begin with an underscore."""
    takes_parameters: bool = False

    def go_on(self, text: str) -> bool:
        """Add a line; False when it was the last one."""
        goes_on = text.endswith("\\")
        if goes_on:
            kept = text[:-1].rstrip(" \t")
            self.value += kept + "\n" if kept else ""
        else:
            self.value += text
            if not self.value:
                self.multiline = False
        return goes_on


class Definitions:
    """All definitions made so far, and those that every configuration has."""

    __slots__ = ("_names", "_random")

    def __init__(self, instance: str, directory: Callable[[], str]) -> None:
        self._random = random.Random()
        self._names: dict[str, Definition] = {
            "_PWD": Definition(compute=lambda _: directory()),
            "_INSTANCE": Definition(value=instance),
            "_RANDOM": Definition(compute=self._choose, takes_parameters=True),
            "_HASH": Definition(value="#"),
            "_BANG": Definition(value="!"),
        }

    def seed(self, number: int) -> None:
        """Let ``${_RANDOM}`` begin a sequence that depends on this number only."""
        self._random.seed(number)

    def set(self, name: str, value: str) -> None:
        """Give a name its value: what ~SEQ and ~LST do."""
        self._names[name] = Definition(value)

    def begin(self, text: str) -> Definition | None:
        """The definition that a line makes, None if it is none; a backslash at its end: it goes on."""
        found = _DEFINITION.match(text)
        if not found:
            return None
        value = text[found.end() :]
        multiline = value.endswith("\\")
        if multiline:
            kept = value[:-1].rstrip(" \t")
            value = kept + "\n" if kept else ""
        definition = Definition(value, multiline)
        self._names[found[1]] = definition
        return definition

    def replace(self, text: str) -> tuple[str, bool, list[list[str]]]:
        """A line with its definitions replaced.

        Returns the line, whether there were any, and for each definition of
        several lines that was met the lines that follow, the first one last.
        `ExpansionError` when the line does not stop growing.
        """
        at = uses = 0
        following: list[list[str]] = []
        while (found := _USE.search(text, at)) is not None:
            definition = self._meant(found, text)
            if definition is None:
                at = found.start() + 1
                continue
            uses += 1
            value = definition.compute(found[3] or "") if definition.compute else definition.value
            if definition.multiline:
                value, *rest = value.split("\n")
                following.append(rest[::-1] or [""])
            at = found.start()
            text = text[:at] + value + text[found.end() :]
            if len(text) > _MOST_LETTERS or uses > _MOST_USES:
                raise ExpansionError(
                    f"Parameter substitution on line '{text[:200]}' would exceed maximum line length"
                )
            if value.lstrip(" \t").startswith("~"):
                break
        return text, uses > 0, following

    def _meant(self, use: re.Match[str], text: str) -> Definition | None:
        """The definition that is used there; None for text that only looks like a use."""
        plain, braced, parameters = use.groups()
        definition = self._names.get(plain or braced)
        if definition is None:
            return None
        after = text[use.end() : use.end() + 1]
        if plain and after and after not in " \t,)":
            return None
        if parameters and parameters.strip() and (parameters[-1] == " " or not definition.takes_parameters):
            return None
        if definition.multiline and after:
            return None
        return definition

    def _choose(self, parameters: str) -> str:
        """A random number of the range that is asked for, 0 to 32767 if none is."""
        bounds = [int(word[:18]) for word in parameters.split()[:2]]
        low = bounds[0] if bounds else 0
        high = bounds[1] if len(bounds) > 1 else 32767
        return str(self._random.randint(low, high) if high >= low else low)
