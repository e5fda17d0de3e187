# SPDX-License-Identifier: GPL-2.0-only
"""Command-line parsing as libpopt does it, which is what ipvsadm is built on.

Differs from getopt and argparse where scripts can tell: short options combine
(``-At V:80``), a value may touch its letter or follow ``=`` (``-tV:80``,
``-t=V:80``, ``--opt=V``), an option's argument may be optional, nothing is
abbreviated, and options may follow plain arguments.  (libpopt: ``popt.c``,
``poptGetNextOpt``.)

Knows nothing of ipvsadm's options; imports nothing, for start-up time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_ARGUMENT = 0
REQUIRED_ARGUMENT = 1
OPTIONAL_ARGUMENT = 2

MISSING_ARGUMENT = "missing argument"
UNKNOWN_OPTION = "unknown option"
UNWANTED_ARGUMENT = "option does not take an argument"


class PoptError(Exception):
    """An argument that the option table does not allow.

    ``argument`` is the word of the command line in which the parser stands,
    whole (``-Axy``, not ``-x``); ``reason`` is popt's own wording.
    """

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(f"{argument}: {reason}")
        self.argument = argument
        self.reason = reason


class Option:
    """One row of an option table: long name, letter (or empty), kind of argument."""

    __slots__ = ("argument", "letter", "name")

    def __init__(self, name: str, letter: str = "", argument: int = NO_ARGUMENT) -> None:
        self.name = name
        self.letter = letter
        self.argument = argument


class OptionTable:
    """An option table, indexed by long name and by letter."""

    __slots__ = ("by_letter", "by_name")

    def __init__(self, options: Sequence[Option]) -> None:
        self.by_name = {option.name: option for option in options}
        self.by_letter = {option.letter: option for option in options if option.letter}


class Parser:
    """Walks over a command line (without the program's name), option by option.

    Iterating gives ``(option, value)``; value is None where there is none.
    Words that are no options gather in ``leftovers``; `PoptError` is raised
    by the step that meets the fault, so options before it have been given
    out.  With ``posix`` the first plain word ends the options, as
    POSIXLY_CORRECT makes popt do.
    """

    def __init__(self, table: OptionTable, arguments: Sequence[str], posix: bool = False) -> None:
        self.leftovers: list[str] = []
        self._table = table
        self._arguments = arguments
        self._position = 0
        self._letters = ""  # what is left of a word of combined short options
        self._posix = posix
        self._only_leftovers = False

    def __iter__(self) -> Iterator[tuple[Option, str | None]]:
        return self

    def __next__(self) -> tuple[Option, str | None]:
        if self._letters:
            return self._short_option()
        while self._position < len(self._arguments):
            word = self._arguments[self._position]
            self._position += 1
            if self._only_leftovers or not word.startswith("-") or word == "-":
                self.leftovers.append(word)
                self._only_leftovers = self._only_leftovers or self._posix
            elif word == "--":
                self._only_leftovers = True
            elif word.startswith("--"):
                return self._long_option(word[2:])
            else:
                self._letters = word[1:]
                return self._short_option()
        raise StopIteration

    def current(self) -> str:
        """The word that was read last: popt's idea of the bad option."""
        return self._arguments[self._position - 1]

    def _fault(self, reason: str) -> PoptError:
        return PoptError(self.current(), reason)

    def _long_option(self, text: str) -> tuple[Option, str | None]:
        name, equals, value = text.partition("=")
        option = self._table.by_name.get(name)
        if option is None:
            raise self._fault(UNKNOWN_OPTION)
        if option.argument == NO_ARGUMENT:
            if equals:
                raise self._fault(UNWANTED_ARGUMENT)
            return option, None
        return option, value if equals else self._following_word(option)

    def _short_option(self) -> tuple[Option, str | None]:
        letter, rest = self._letters[0], self._letters[1:]
        self._letters = ""
        option = self._table.by_letter.get(letter)
        if option is None:
            raise self._fault(UNKNOWN_OPTION)
        if option.argument == NO_ARGUMENT:
            if rest.startswith("="):
                raise self._fault(UNWANTED_ARGUMENT)
            self._letters = rest
            return option, None
        if rest:
            return option, rest.removeprefix("=")
        return option, self._following_word(option)

    def _following_word(self, option: Option) -> str | None:
        optional = option.argument == OPTIONAL_ARGUMENT
        if self._position == len(self._arguments):
            if optional:
                return None
            raise self._fault(MISSING_ARGUMENT)
        word = self._arguments[self._position]
        if optional and word.startswith("-"):
            return None
        self._position += 1
        return word
