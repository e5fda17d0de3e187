# SPDX-License-Identifier: GPL-2.0-only
"""The man pages: whole, and without a warning of those that read them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli import main as dispatcher
from xlvs.cli import manual_text
from xlvs.cli.command_tree import command_tree, metavar
from xlvs.cli.manual_pages import pages
from xlvs.cli.roff import Page

pytestmark = pytest.mark.unit

ENVIRONMENT = {
    **os.environ,
    "LC_ALL": "C.UTF-8",
    "MANWIDTH": "1000",
    "MAN_KEEP_FORMATTING": "",
    "PAGER": "cat",
}
PAGES = pages()


def rendered(text: str, tmp_path: Path) -> str:
    page = tmp_path / "page.8"
    page.write_text(text)
    groff = ["groff", "-ww", "-b", "-man", "-Tutf8", "-z", str(page)]
    warned = subprocess.run(groff, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert not warned.stderr and not warned.stdout
    shown = subprocess.run(
        ["man", "--warnings=w", "--nj", "-l", str(page)],
        capture_output=True, text=True, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert not shown.stderr
    return shown.stdout


@pytest.mark.parametrize("name", PAGES)
def test_page_is_read_without_a_warning(name: str, tmp_path: Path) -> None:
    text = PAGES[name]()
    assert text.isascii()
    shown = rendered(text, tmp_path)
    assert shown.startswith(f"{name.upper()}(8)")
    assert "SYNOPSIS" in shown and f"{name} - " in shown and "SEE ALSO" in shown
    assert "EXAMPLES" in shown or not _has_epilog(name)


def _has_epilog(name: str) -> bool:
    noun = next((one for one in command_tree().commands if "-".join(one.words) == name), None)
    return noun is None or bool(noun.parser.epilog)


def test_there_is_a_page_for_every_program_and_noun() -> None:
    assert {"xlvs", "xlvsadm", "xlvsadm-save", "xlvsadm-restore"} <= set(PAGES)
    assert {f"xlvs-{noun}" for noun in dispatcher.NOUNS} <= set(PAGES)


def test_every_option_is_on_its_page(tmp_path: Path) -> None:
    for noun in command_tree().commands:
        shown = rendered(PAGES["-".join(noun.words)](), tmp_path)
        for command in noun.walk():
            assert command.name in shown
            for action in command.options():
                assert f"{', '.join(action.option_strings)} {metavar(action)}".strip() in shown, command.name
    shown = rendered(PAGES["xlvsadm"](), tmp_path)
    for name in grammar.OPTIONS.by_name:
        assert f"--{name}" in shown


def test_every_option_of_the_grammar_has_its_words() -> None:
    assert set(manual_text.OPTIONS) == set(grammar.OPTIONS.by_name)
    assert set(manual_text.VALUES) <= set(grammar.OPTIONS.by_name)


@pytest.mark.parametrize("noun", command_tree().commands, ids=lambda one: one.name)
def test_every_noun_has_examples(noun: object) -> None:
    epilog = noun.parser.epilog or ""  # type: ignore[attr-defined]
    assert f"\n  {noun.name}" in f"\n{epilog}", "examples stand in the epilog"  # type: ignore[attr-defined]


def test_text_is_never_taken_for_macros(tmp_path: Path) -> None:
    page = Page("odd", "a page - of oddities")
    page.heading("DESCRIPTION")
    page.text(
        "A line\n.so /etc/passwd\n'br\nback\\slash `tick' ~^ … \"quoted\"\n\n  .literal\n\n  more\nProse."
    )
    page.item("-o \\fB", ".nr x 1")
    shown = rendered(page.written(), tmp_path)
    for kept in (".so /etc/passwd 'br back\\slash `tick' ~^ … \"quoted\"", ".literal", "Prose.", "-o \\fB"):
        assert kept in shown
    assert ".nr x 1" in shown
