# SPDX-License-Identifier: GPL-2.0-only
"""The ``xlvs`` command: finds the noun that was typed and hands over to its module.

Each noun is a module with ``register(subparsers)``, which adds its parser and
sets ``run`` as a default: a function of the parsed arguments that returns the
exit code.  Only the module of the noun that was typed is imported, so no noun
pays for another.  What follows a bare ``--`` is taken off before parsing and
stands in ``arguments.rest``.

This module turns errors into one line and a hint; nothing below it prints a
traceback or exits.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module

from xlvs import __version__
from xlvs.cli.terminal import CommandParser, plain_output
from xlvs.errors import CannotLook, UsageError, XlvsError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOUNS = {
    "lab": ("xlvs.cli.lab", "a cluster of network namespaces to learn and test in"),
    "attach": ("xlvs.cli.attach", "attach the data plane to interfaces"),
    "detach": ("xlvs.cli.attach", "take the data plane off, with everything it holds"),
    "follow": ("xlvs.cli.follow", "attach interfaces again that come back, and new ones"),
    "upgrade": ("xlvs.cli.upgrade", "put this version's packet path in the place of the loaded one"),
    "save": ("xlvs.cli.saved", "write the table to a file, for the next boot"),
    "load": ("xlvs.cli.saved", "bring the table to what a file says, and attach the data plane"),
    "run": ("xlvs.cli.saved", "load, wait for a signal, save and detach: for containers"),
    "realserver": ("xlvs.cli.realserver", "this machine as a real server: VIP, ARP, tunnels, routes"),
    "mark": ("xlvs.cli.mark", "rules that give packets a firewall mark, for `xlvsadm -f`"),
    "proc": ("xlvs.cli.proc", "what kernel IPVS shows in /proc/net, in the same formats"),
    "sysctl": ("xlvs.cli.sysctl", "the kernel's settings of IPVS: net.ipv4.vs.*"),
    "status": ("xlvs.cli.status", "what is attached where, versions, sizes and fill of the tables"),
    "explain": ("xlvs.cli.explain", "what would become of a client's packet, and why"),
    "reload": ("xlvs.cli.daemon", "have xlvsd read its configuration anew"),
    "drain": ("xlvs.cli.daemon", "take a real server out, its connections first"),
    "undrain": ("xlvs.cli.daemon", "put a drained real server back"),
    "weight": ("xlvs.cli.daemon", "change a real server's weight at run time"),
    "events": ("xlvs.cli.daemon", "what xlvsd notices and does, as lines of JSON"),
    "doctor": ("xlvs.cli.doctor", "find what is wrong with a director, a real server or a lab, and mend it"),
    "manual": ("xlvs.cli.manual", "the man pages, one for each command"),
    "completion": ("xlvs.cli.completion", "what a shell completes command lines by"),
}
"""Every noun: the module that registers it, and its line in the list of ``xlvs --help``."""

_EPILOG = """\
examples:
  xlvs lab demo dr               see Direct Routing at work, in network namespaces
  xlvs attach                    load the data plane; the first `xlvsadm -A` does it, too
  xlvs status
  xlvs NOUN --help               examples of each

The table is filled by `xlvsadm`, which takes ipvsadm's commands."""

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``xlvs`` with these arguments (those of the process by default); return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with plain_output():
        return _main(words)


def _main(words: list[str]) -> int:
    debug = "--debug" in words[: words.index("--") if "--" in words else None]
    try:
        try:
            code = _run(words)
        except SystemExit as leave:  # argparse: --help, --version, or a wrong command line
            code = leave.code if isinstance(leave.code, int) else EXIT_USAGE
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("xlvs: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`xlvs … | head`); keep the interpreter from flushing once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 128 + signal.SIGPIPE
    except (XlvsError, OSError) as error:
        if debug:
            raise
        _complain(error)
        code = EXIT_USAGE if isinstance(error, (UsageError, CannotLook)) else EXIT_ERROR
    return code


def _run(words: list[str]) -> int:
    rest: list[str] | None = None
    if "--" in words:
        cut = words.index("--")
        words, rest = words[:cut], words[cut + 1 :]
    parser = _parser(next((word for word in words if not word.startswith("-")), None))
    arguments = parser.parse_args(words)
    arguments.rest = rest
    if rest is not None and not getattr(arguments, "takes_rest", False):
        parser.error(f"nothing is expected after '--': {' '.join(rest)}")
    run = getattr(arguments, "run", None)
    if run is None:
        parser.print_help()
        return EXIT_USAGE
    return int(run(arguments))


def _base_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="xlvs",
        description="The Linux Virtual Server, on an eBPF data plane.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xlvs {__version__}")
    parser.add_argument("--debug", action="store_true", help="on an error, show where it came from")
    return parser


def _parser(noun: str | None) -> argparse.ArgumentParser:
    parser = _base_parser()
    subparsers = parser.add_subparsers(metavar="NOUN", title="nouns")
    if noun in NOUNS:
        import_module(NOUNS[noun][0]).register(subparsers)
    else:
        for name, (_, summary) in NOUNS.items():
            subparsers.add_parser(name, help=summary)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """The parser with every noun in full: what man pages and completions are made from."""
    parser = _base_parser()
    subparsers = parser.add_subparsers(metavar="NOUN", title="nouns")
    for module in dict.fromkeys(module for module, _ in NOUNS.values()):
        import_module(module).register(subparsers)
    return parser


def _complain(error: XlvsError | OSError) -> None:
    if isinstance(error, XlvsError):
        message, hint = error.message, error.hint
    else:
        message, hint = _explain(error)
    print(f"xlvs: {shown(message)}", file=sys.stderr)
    for line in hint.splitlines():
        print(f"      {line}", file=sys.stderr)


def _explain(error: OSError) -> tuple[str, str]:
    """An error of the system that nobody foresaw, as message and hint."""
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    hint = "run this as root" if isinstance(error, PermissionError) and os.geteuid() != 0 else ""
    return what, hint or "run the same command with --debug to see where it came from"


if __name__ == "__main__":
    sys.exit(main())
