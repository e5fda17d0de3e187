# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs proc``: what kernel IPVS shows in /proc/net, for whatever reads those files."""

from __future__ import annotations

import argparse
import sys

from xlvs.cli.proc_files import (
    connection_file,
    percpu_statistics_file,
    statistics_file,
    sync_connection_file,
    table_file,
)
from xlvs.datapath import open_datapath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xlvs.datapath.interface import Datapath

_HELP = """\
Print what kernel IPVS shows in the file of that name in /proc/net, in the same
format, for this network namespace's table. Numbers are hexadecimal where the
kernel's are, and a persistent service's timeout counts the kernel's ticks.
Services and connections stand in an order of their own: the kernel's is that of
hashes with secrets in them."""

_EPILOG = """\
examples:
  xlvs proc ip_vs
  xlvs proc ip_vs_conn | awk '$8 == "ESTABLISHED"' | wc -l

For a program that opens the files themselves, in a mount namespace with copies:

  mkdir /run/proc-net; xlvs proc ip_vs_stats >/run/proc-net/ip_vs_stats"""


def _table(datapath: Datapath) -> Iterable[str]:
    return table_file(datapath.version(), datapath.size(), datapath.services(), _ticks_per_second())


def _ticks_per_second() -> int:
    """The kernel's HZ, by which /proc/net/ip_vs counts: the coarse clocks step once a tick."""
    import time

    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


_FILES: dict[str, Callable[[Datapath], Iterable[str]]] = {
    "ip_vs": _table,
    "ip_vs_conn": lambda datapath: connection_file(datapath.connections()),
    "ip_vs_conn_sync": lambda datapath: sync_connection_file(datapath.connections()),
    "ip_vs_stats": lambda datapath: statistics_file(datapath.totals()),
    "ip_vs_stats_percpu": lambda datapath: percpu_statistics_file(datapath.totals()),
}
_CLOCK_MONOTONIC_COARSE = 6
"""linux/time.h; the module `time` has no name for it."""
_STREAMED = ("ip_vs_conn", "ip_vs_conn_sync")
"""Read while they are printed, without the table's lock: packets change them all the time anyway."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "proc",
        help="what kernel IPVS shows in /proc/net",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", choices=_FILES, metavar="FILE", help=", ".join(_FILES))
    parser.set_defaults(run=_proc)


def _proc(arguments: argparse.Namespace) -> int:
    locked = arguments.file not in _STREAMED
    with open_datapath(locked=locked) as datapath:
        lines = _FILES[arguments.file](datapath)
        if locked:
            lines = list(lines)
        else:
            sys.stdout.writelines(lines)
            lines = ()
    sys.stdout.writelines(lines)
    return 0
