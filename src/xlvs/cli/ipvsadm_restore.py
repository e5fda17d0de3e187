# SPDX-License-Identifier: GPL-2.0-only
"""Splits what ``ipvsadm -R`` reads into command lines.

ipvsadm has no quoting and, whatever its comments say, no comments here: words
are separated by blanks, tabs and carriage returns, and a ``#`` is a word.
The word ``ipvsadm`` is left out wherever it stands.  A last line that ends
in a blank without a newline is lost, as in ipvsadm.  (``config_stream.c``.)
"""

from __future__ import annotations

_SKIPPED = "ipvsadm"


def command_lines(text: str) -> list[str]:
    """The lines of a text; some may have no words."""
    *lines, last = text.split("\n")
    if not last.endswith((" ", "\t", "\r")):
        lines.append(last)
    return lines


def words_of(line: str) -> list[str]:
    """The words of a line."""
    # A C string ends at its first NUL.
    spaced = line.replace("\t", " ").replace("\r", " ").split(" ")
    return [word.partition("\0")[0] for word in spaced if word and word != _SKIPPED]
