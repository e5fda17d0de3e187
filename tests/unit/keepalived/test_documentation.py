# SPDX-License-Identifier: GPL-2.0-only
"""docs/keepalived.md has every keyword, as the tables that read them."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.generate_keepalived_doc import PAGE, page
from xlvs.keepalived.parse import GLOBALS, OTHERS
from xlvs.keepalived.statements import Keyword, Section


def test_the_page_is_what_the_tables_say() -> None:
    text = PAGE.read_text()
    assert text == page(text), "run: .venv/bin/python scripts/generate_keepalived_doc.py"


def _keywords(section: Section, seen: set[int]) -> Iterator[Keyword]:
    yield from section.keywords
    for keyword in section.keywords:
        if keyword.block is not None and id(keyword.block) not in seen:
            seen.add(id(keyword.block))
            yield from _keywords(keyword.block, seen)


def test_every_keyword_says_what_it_is_for() -> None:
    for section in (GLOBALS, OTHERS):
        for keyword in _keywords(section, set()):
            assert keyword.meaning or keyword.remark, keyword.name
