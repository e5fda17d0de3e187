# SPDX-License-Identifier: GPL-2.0-only
"""What ``xlvs`` prints, fit for a terminal whatever it quotes.

Names of interfaces may hold escape sequences, and so may arguments, host names
and what other programs say: printed as they are, they would command the
operator's terminal.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from xlvs.errors import XlvsError, shown


class _Plain:
    """Standard output, as a stream that passes on lines of printable text alone.

    Raises `XlvsError` where it cannot be written, `BrokenPipeError` where its reader has gone.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # None: the process was started without one (`>&-`)

    def write(self, text: str) -> int:
        """Write text; its control characters, but line ends and tabs, are spelled out."""
        lines = ("\t".join(map(shown, line.split("\t"))) for line in text.split("\n"))
        self._do(lambda stream: stream.write("\n".join(lines)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines of ours, which quote nobody, as they are."""
        self._do(lambda stream: stream.writelines(lines))

    def flush(self) -> None:
        """Write what is held back."""
        if self._stream is not None:
            self._do(lambda stream: stream.flush())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, action: Callable[[Any], object]) -> None:
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            action(self._stream)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self._stream is not None:
            with suppress(OSError):  # or the interpreter tries again at its end
                self._stream.close()
            self._stream = None
        raise XlvsError(f"cannot write to standard output: {error.strerror}") from error


class _PlainErrors(_Plain):
    """The same of standard error, where there is nowhere to say that it failed."""

    def _fail(self, error: OSError) -> None:
        pass


@contextmanager
def plain_output() -> Iterator[None]:
    """Have standard output and error take printable text alone, and any of that, for the ``with`` block."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Plain(sys.stdout), _PlainErrors(sys.stderr)
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known here, where the usage is that of the noun, and not that of ``xlvs``."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


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
