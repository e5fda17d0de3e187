# SPDX-License-Identifier: GPL-2.0-only
"""Every command of ``xlvs``, read out of its parsers: for man pages and completions.

What a noun registers is there by itself; nothing is listed twice.
"""

from __future__ import annotations

import argparse

from xlvs.cli.main import whole_parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Command:
    """A command: its words, the line about it in its parent's help, and its parser."""

    def __init__(self, words: tuple[str, ...], summary: str, parser: argparse.ArgumentParser) -> None:
        self.words = words
        self.summary = summary
        self.parser = parser
        self.commands: list[Command] = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
                self.commands = [
                    Command((*words, name), lines.get(name, ""), its_parser)
                    for name, its_parser in action.choices.items()
                ]

    @property
    def name(self) -> str:
        """The words as they are typed."""
        return " ".join(self.words)

    def options(self) -> list[argparse.Action]:
        """What begins with a dash, ``--help`` left out."""
        return [action for action in self.parser._actions if action.option_strings and action.dest != "help"]

    def arguments(self) -> list[argparse.Action]:
        """What does not, subcommands left out."""
        return [
            action
            for action in self.parser._actions
            if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
        ]

    def walk(self) -> Iterator[Command]:
        """This command and all below."""
        yield self
        for command in self.commands:
            yield from command.walk()


def command_tree() -> Command:
    """``xlvs`` itself."""
    parser = whole_parser()
    return Command(("xlvs",), parser.description or "", parser)


def metavar(action: argparse.Action) -> str:
    """What stands for an option's value or for an argument; empty for an option without one."""
    if action.option_strings and action.nargs == 0:
        return ""
    if action.metavar is not None:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()
