# SPDX-License-Identifier: GPL-2.0-only
"""Write the keyword lists of docs/keepalived.md from the tables that read them.

.venv/bin/python scripts/generate_keepalived_doc.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xlvs.keepalived.parse import GLOBALS, OTHERS
from xlvs.keepalived.statements import Keyword, Section

PAGE = Path(__file__).parents[1] / "docs" / "keepalived.md"
MARK = "<!-- What follows is generated: scripts/generate_keepalived_doc.py -->\n"


def keyword_lists() -> str:
    """The generated part of the page."""
    lines = [MARK, "## Keywords\n"]
    seen: set[int] = set()
    lines += _section("Outside of blocks", [*GLOBALS.keywords, *OTHERS.keywords])
    for section in _blocks([GLOBALS, OTHERS], seen):
        name = "HTTP_GET, SSL_GET" if section.name == "HTTP_GET" else section.name
        lines += _section(f"`{name}`", section.keywords)
    return "\n".join(lines) + "\n"


def _blocks(sections: list[Section], seen: set[int]) -> Iterator[Section]:
    """Every block that stands in these, each once, outer ones first."""
    inner = []
    for section in sections:
        for keyword in section.keywords:
            if keyword.block is not None and id(keyword.block) not in seen:
                seen.add(id(keyword.block))
                inner.append(keyword.block)
                yield keyword.block
    if inner:
        yield from _blocks(inner, seen)


def _section(title: str, keywords: list[Keyword]) -> Iterator[str]:
    yield f"### {title}\n"
    yield "| keyword | parameters | meaning |"
    yield "|---|---|---|"
    for keyword in keywords:
        block = "{ … }" if keyword.block is not None else ""
        parameters = " ".join(part for part in (keyword.arguments, block) if part)
        shown = f"`{parameters}`".replace("|", "\\|") if parameters else ""
        remark = f" *Noted:* {keyword.remark}." if keyword.remark else ""
        meaning = (keyword.meaning + remark).strip().replace("|", "\\|")
        yield f"| `{keyword.name}` | {shown} | {meaning} |"
    yield ""


def page(text: str) -> str:
    """The page with its generated part as the tables have it."""
    return text.partition(MARK)[0] + keyword_lists()


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
