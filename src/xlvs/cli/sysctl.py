# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs sysctl``: the settings that the kernel's IPVS has under /proc/sys/net/ipv4/vs."""

from __future__ import annotations

import argparse
import json

from xlvs.datapath import open_datapath
from xlvs.errors import NotSupported, UsageError

SCHEMA = 1
"""Raised when a field of the JSON output changes its meaning or goes."""

PREFIX = "net.ipv4.vs."
_PROC = "/proc/sys/"

_HELP = """\
Show or change the settings that kernel IPVS has in /proc/sys/net/ipv4/vs, by
their names there and with their meaning there, as sysctl(8) does: all of them,
those that are named, or with =VALUE changed. Several are changed all or none.

A setting that can have no effect here keeps its default, and says why."""

_EPILOG = """\
A NAME may be expire_nodest_conn, net.ipv4.vs.expire_nodest_conn or
net/ipv4/vs/expire_nodest_conn. A change loads and attaches the data plane if that is
not done, as `xlvsadm -A` does. Settings go with `xlvs detach`, and at reboot; `xlvs
save` and `xlvs load` bring them back.

The automatic modes, 1 and 2, of drop_entry, drop_packet and secure_tcp act while
fewer than amemthresh connections more would certainly fit the connection table
(in the kernel: while fewer than so many pages of memory are free).

  xlvs sysctl                                    all
  xlvs sysctl conn_reuse_mode                    one
  xlvs sysctl -w net.ipv4.vs.expire_nodest_conn=1
  xlvs sysctl drop_packet=3 am_droprate=5        drop one in five that would begin a connection"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sysctl",
        help="the kernel's settings of IPVS",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-w", "--write", action="store_true", help="take nothing but NAME=VALUE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("settings", nargs="*", metavar="NAME[=VALUE]", help="a setting; none: all of them")
    parser.set_defaults(run=_sysctl)


def _sysctl(arguments: argparse.Namespace) -> int:
    from xlvs.datapath import sysctls

    wanted, changes = _read(arguments.settings, write=arguments.write)
    sysctls.check(changes)  # before anything is loaded
    for name in wanted:
        if name not in changes and sysctls.SYSCTLS[name].default is None:
            raise NotSupported(f"{name} has no value here: {sysctls.SYSCTLS[name].refusal}")
    with open_datapath(write=bool(changes), load=bool(changes)) as datapath:
        if changes:
            datapath.set_sysctls(changes)
        values = datapath.sysctls()
    _print({name: values[name] for name in wanted or values}, as_json=arguments.json)
    return 0


def _read(words: list[str], *, write: bool) -> tuple[list[str], dict[str, str]]:
    """The settings to show afterwards, and those to change."""
    from xlvs.datapath.sysctls import SYSCTLS

    wanted: list[str] = []
    changes: dict[str, str] = {}
    if write and not words:
        raise UsageError("-w takes the settings to change: NAME=VALUE")
    for word in words:
        typed, equals, value = word.partition("=")
        name = short_name(typed)
        if name not in SYSCTLS:
            raise UsageError(f"IPVS has no setting {typed!r}", _suggestion(name, list(SYSCTLS)))
        if equals:
            if changes.setdefault(name, value.strip()) != value.strip():
                raise UsageError(f"{name} is given two values")
        elif write:
            raise UsageError(f"-w takes NAME=VALUE: what shall {name} be?")
        if name not in wanted:
            wanted.append(name)
    return wanted, changes


def short_name(typed: str) -> str:
    """A setting's name without where it stands: net.ipv4.vs, in either spelling."""
    name = typed.strip().removeprefix(_PROC).replace("/", ".")
    return name.removeprefix(PREFIX)


def _suggestion(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else "See them all: xlvs sysctl"


def _print(values: dict[str, str], *, as_json: bool) -> None:
    if not as_json:
        for name, value in values.items():
            print(f"{PREFIX}{name} = {value}")
        return
    numbers: dict[str, int | list[int]] = {}
    for name, value in values.items():
        parts = [int(part) for part in value.split()]
        numbers[name] = parts[0] if len(parts) == 1 else parts
    print(json.dumps({"schema": SCHEMA, "sysctls": numbers}, indent=2))
