# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs manual``: the man pages, written from what the commands know of themselves."""

from __future__ import annotations

import argparse
import sys

from xlvs.errors import UsageError

_HELP = """\
Print a man page, for man(1). They are written from the same texts as the
commands' --help."""

_EPILOG = """\
examples:
  xlvs manual xlvsadm | man -l -
  xlvs manual xlvs-mark | man -l -
  xlvs manual --list

`make install` installs them all."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "manual",
        help="the man pages, one for each command",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("page", nargs="?", default="xlvs", metavar="PAGE", help="default: xlvs")
    parser.add_argument("--list", action="store_true", help="the names of all pages")
    parser.set_defaults(run=_manual)


def _manual(arguments: argparse.Namespace) -> int:
    from xlvs.cli.manual_pages import pages

    written = pages()
    if arguments.list:
        print("\n".join(written))
        return 0
    name = arguments.page.removesuffix(".8")
    if name not in written:
        raise UsageError(f"there is no page {arguments.page}", "See them all: xlvs manual --list")
    sys.stdout.write(written[name]())
    return 0
