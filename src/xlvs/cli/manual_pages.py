# SPDX-License-Identifier: GPL-2.0-only
"""The man pages: those of ``xlvs`` from its parsers, that of ``xlvsadm`` from its grammar and text.

There is a page for `xlvs`, for each of its nouns, and for each other program.
"""

from __future__ import annotations

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli import manual_text
from xlvs.cli.command_tree import Command, command_tree, metavar
from xlvs.cli.ipvsadm_help import help_text
from xlvs.cli.popt import NO_ARGUMENT, OPTIONAL_ARGUMENT, Option
from xlvs.cli.roff import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def pages() -> dict[str, Callable[[], str]]:
    """What writes each page, by its name."""
    tree = command_tree()
    nouns = {f"xlvs-{noun.words[1]}": noun for noun in tree.commands}

    def of_noun(noun: Command) -> Callable[[], str]:
        return lambda: _noun_page(noun, ["xlvs(8)", *manual_text.RELATED.get(noun.words[1], ["xlvsadm(8)"])])

    return {
        "xlvs": lambda: _overview(tree),
        **{name: of_noun(noun) for name, noun in nouns.items()},
        "xlvsadm": _xlvsadm_page,
        "xlvsadm-save": lambda: _script_page("xlvsadm-save", "xlvsadm-restore"),
        "xlvsadm-restore": lambda: _script_page("xlvsadm-restore", "xlvsadm-save"),
    }


def _overview(tree: Command) -> str:
    page = Page("xlvs", "the Linux Virtual Server on an eBPF data plane")
    page.heading("SYNOPSIS")
    page.synopsis("xlvs [--debug] NOUN [ARGUMENT...]\nxlvs --version")
    page.heading("DESCRIPTION")
    page.text(manual_text.XLVS)
    page.heading("COMMANDS")
    for noun in tree.commands:
        page.item(noun.name, f"{_sentence(noun.summary)} See xlvs-{noun.words[1]}(8).")
    page.heading("OPTIONS")
    _options(page, tree)
    _epilog(page, tree.parser)
    page.heading("EXIT STATUS")
    page.item("0", "Done.")
    page.item("1", "It could not be done; the reason and what to do about it are on standard error.")
    page.item("2", "The command line, or a file that it names, is wrong; nothing was changed.")
    page.item("3", "xlvs status: nothing is loaded in this network namespace.")
    page.heading("FILES")
    for path, text in manual_text.FILES.items():
        page.item(path, text)
    page.see_also(["xlvsadm(8)", *(f"xlvs-{noun.words[1]}(8)" for noun in tree.commands)])
    return page.written()


def _noun_page(noun: Command, related: list[str]) -> str:
    page = Page("-".join(noun.words), noun.summary.rstrip("."))
    page.heading("SYNOPSIS")
    leaves = [command for command in noun.walk() if not command.commands]
    page.synopsis("\n".join(_usage(command) for command in leaves))
    page.heading("DESCRIPTION")
    page.text(noun.parser.description or _sentence(noun.summary.capitalize()))
    _options(page, noun)
    if noun.commands:
        page.heading("COMMANDS")
        for command in noun.walk():
            if command is not noun:
                page.subheading(command.name)
                page.text(command.parser.description or _sentence(command.summary.capitalize()))
                _options(page, command)
                if command.parser.epilog:
                    page.text(command.parser.epilog)
    _epilog(page, noun.parser)
    page.see_also(related)
    return page.written()


def _usage(command: Command) -> str:
    usage = command.parser.format_usage().removeprefix("usage: ").replace(" [-h]", "")
    first, *rest = usage.strip().splitlines()
    return "\n".join([first, *(f"    {line.strip()}" for line in rest)])


def _options(page: Page, command: Command) -> None:
    for action in [*command.arguments(), *command.options()]:
        term = ", ".join(action.option_strings)
        text = _expanded(action, command.parser)
        page.item(f"{term} {metavar(action)}".strip(), text)


def _expanded(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """An option's help as argparse shows it, with its default and so on put in."""
    if not action.help:
        return ""
    return action.help % {**vars(action), "prog": parser.prog}


def _epilog(page: Page, parser: argparse.ArgumentParser) -> None:
    """What stands at the end of a command's help, most of it examples."""
    if not parser.epilog:
        return
    first, _, rest = parser.epilog.partition("\n")
    page.heading("EXAMPLES")
    page.text(rest if first == "examples:" else parser.epilog)


def _sentence(text: str) -> str:
    """A line of help as prose: the words stay, for they may be names."""
    return text if text.endswith((".", "…")) else f"{text}."


def _xlvsadm_page() -> str:
    page = Page("xlvsadm", "virtual servers, with the commands of ipvsadm")
    page.heading("SYNOPSIS")
    usage = help_text("xlvsadm").partition("Usage:\n")[2].partition("\n\n")[0]
    page.synopsis("\n".join(line.strip() for line in usage.splitlines()))
    page.heading("DESCRIPTION")
    page.text(manual_text.XLVSADM)
    page.heading("COMMANDS")
    page.text(manual_text.COMMANDS)
    options = grammar.OPTIONS.by_name
    for name in grammar.COMMANDS:
        page.item(_term(options[name]), manual_text.OPTIONS[name])
    page.heading("OPTIONS")
    for name, option in options.items():
        if name not in grammar.COMMANDS and name not in manual_text.EXTENSIONS:
            page.item(_term(option), manual_text.OPTIONS[name])
    page.heading("EXTENSIONS")
    page.text(manual_text.EXTENSIONS_TEXT)
    for name in manual_text.EXTENSIONS:
        page.item(_term(options[name]), manual_text.OPTIONS[name])
    page.heading("EXIT STATUS")
    for status, text in manual_text.STATUSES.items():
        page.item(status, text)
    page.heading("EXAMPLES")
    page.text(manual_text.XLVSADM_EXAMPLES)
    page.see_also(["xlvs(8)", "xlvs-mark(8)", "xlvsadm-save(8)", "xlvsadm-restore(8)", "ipvsadm(8)"])
    return page.written()


def _term(option: Option) -> str:
    letters = [letter for letter, one in grammar.OPTIONS.by_letter.items() if one.name == option.name]
    term = ", ".join([*(f"-{letter}" for letter in letters), f"--{option.name}"])
    value = manual_text.VALUES.get(option.name, option.name)
    if option.argument == OPTIONAL_ARGUMENT:
        return f"{term} [{value}]"
    return term if option.argument == NO_ARGUMENT and option.name != "set" else f"{term} {value}"


def _script_page(name: str, other: str) -> str:
    summary, synopsis, description, examples = manual_text.SCRIPTS[name]
    page = Page(name, summary)
    page.heading("SYNOPSIS")
    page.synopsis(synopsis)
    page.heading("DESCRIPTION")
    page.text(description)
    page.heading("EXAMPLES")
    page.text(examples)
    page.see_also(["xlvsadm(8)", f"{other}(8)", "xlvs-save(8)", "xlvs-load(8)"])
    return page.written()
