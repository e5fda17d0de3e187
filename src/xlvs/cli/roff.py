# SPDX-License-Identifier: GPL-2.0-only
"""Writes a man page in the macros of man(7): headings, paragraphs, lists, examples."""

from __future__ import annotations

from xlvs import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Page:
    """A page of section 8, put together from top to bottom."""

    def __init__(self, name: str, summary: str) -> None:
        self._lines = [
            '.\\" SPDX-License-Identifier: GPL-2.0-only',
            ".\\\" Written by `xlvs manual`: change the commands' own texts instead.",
            f'.TH "{name.upper()}" 8 "" "xlvs {__version__}" "xlvs"',
        ]
        self.heading("NAME")
        self._lines.append(f"{escape(name)} \\- {escape(summary)}")

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._lines.append(f'.SH "{escape(text)}"')

    def subheading(self, text: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{escape(text)}"')

    def synopsis(self, text: str) -> None:
        """A usage, with its line breaks."""
        self._literal(text.splitlines())

    def text(self, text: str) -> None:
        """Prose: paragraphs divided by empty lines; indented lines stay as they are."""
        filled: list[str] = []
        literal: list[str] = []
        for line in [*text.splitlines(), ""]:
            if line.startswith("  ") and not filled:
                literal.append(line[2:])
                continue
            if literal and line:
                self._literal(literal)
                literal = []
            if line:
                filled.append(line)
            elif filled:
                self._begin_paragraph()
                self._lines += map(escape, filled)
                filled = []
            elif literal and literal[-1]:
                literal.append("")
        while literal and not literal[-1]:
            literal.pop()
        if literal:
            self._literal(literal)

    def item(self, term: str, text: str) -> None:
        """A term in bold and what it means."""
        self._lines += [".TP", f"\\fB{escape(term)}\\fR"]
        self._lines += map(escape, text.splitlines() or ["\\&"])

    def see_also(self, pages: Iterable[str]) -> None:
        """The last section: other pages, as name(section)."""
        self.heading("SEE ALSO")
        references = [page.partition("(") for page in pages]
        written = [f"\\fB{escape(name)}\\fR({section}" for name, _, section in references]
        self._lines.append(",\n".join(written))

    def written(self) -> str:
        """The whole page."""
        return "\n".join(self._lines) + "\n"

    def _begin_paragraph(self) -> None:
        if not self._lines[-1].startswith((".SH", ".SS")):  # which begin one
            self._lines.append(".PP")

    def _literal(self, lines: list[str]) -> None:
        self._begin_paragraph()
        self._lines += [".RS 4", ".nf", *(escape(line) or "\\&" for line in lines), ".fi", ".RE"]


def escape(text: str) -> str:
    """Text in which nothing means anything to roff."""
    written = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    written = written.replace('"', "\\(dq").replace("^", "\\(ha").replace("~", "\\(ti")
    written = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in written)
    return f"\\&{written}" if written.startswith(".") else written
