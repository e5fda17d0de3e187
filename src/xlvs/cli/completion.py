# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs completion``: what bash and zsh complete command lines by."""

from __future__ import annotations

import argparse
import sys

_HELP = """\
Print the completion of `xlvs` and `xlvsadm` for a shell. Services and real
servers that exist are offered where one is expected (to root, who may see them)."""

_EPILOG = """\
examples:
  source <(xlvs completion bash)           in this shell, or in ~/.bashrc
  xlvs completion zsh >~/.zfunc/_xlvs      in a folder of $fpath

`make install` installs both for everybody."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "completion",
        help="what a shell completes command lines by",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), metavar="SHELL", help="bash or zsh")
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    from xlvs.cli.completion_script import script

    sys.stdout.write(script(arguments.shell))
    return 0
