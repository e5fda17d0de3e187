# SPDX-License-Identifier: GPL-2.0-only
"""What ``xlvs`` prints, fit for a terminal whatever it quotes.

Names of interfaces may hold escape sequences, and so may arguments, host names
and what other programs say: printed as they are, they would command the
operator's terminal.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from xlvs.errors import shown


class _Plain:
    """A stream that passes on lines of printable text alone."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; its control characters, but line ends and tabs, are spelled out."""
        lines = ("\t".join(map(shown, line.split("\t"))) for line in text.split("\n"))
        self._stream.write("\n".join(lines))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Have standard output and error take printable text alone, and any of that, for the ``with`` block."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Plain(sys.stdout), _Plain(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class CommandParser(argparse.ArgumentParser):
    """Quotes wrong arguments on one line, and colours nothing."""

    color = False  # Python 3.14 has escape sequences of its own

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.color = False

    def error(self, message: str) -> NoReturn:
        """End with usage and message."""
        super().error(shown(message))


def add_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Add the parser of a noun whose texts are laid out by hand; its options are not abbreviated."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
