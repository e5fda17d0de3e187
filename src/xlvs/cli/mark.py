# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs mark``: the rules that give packets a firewall mark in front of the services."""

from __future__ import annotations

import argparse
import json
import sys

from xlvs.cli.mark_rule import (
    PROTOCOL_NAMES,
    add_conditions,
    format_line,
    format_ports,
    format_prefix,
    has_conditions,
    parse_lines,
    parse_mark,
    rule_of,
)
from xlvs.datapath import open_datapath
from xlvs.errors import NoSuchRule, RuleExists, UsageError
from xlvs.model import IPV4, MarkRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SCHEMA = 1
"""Raised when a field of the JSON output changes its meaning or goes."""

_HELP = """\
Rules that give packets a firewall mark, for the services of `xlvsadm -A -f MARK`:
one virtual service of many addresses and ports.

Netfilter gives its marks only after the packet path has seen a packet, so rules
of iptables or nftables (-j MARK, meta mark set) do not count here; these do."""

_EPILOG = """\
Ports 80 and 443 of a whole network as one service, over IPv4 and IPv6:

  xlvs mark add 1 --dst 203.0.113.0/24 --proto tcp --port 80,443
  xlvs mark add 1 --dst 2001:db8::/64 --proto tcp --port 80,443
  xlvsadm -A -f 1 -s wlc
  xlvsadm -a -f 1 -r 192.0.2.11 -g
  xlvsadm -A -f 1 -6 -s wlc
  xlvsadm -a -f 1 -6 -r 2001:db8:1::11 -g

The first rule that matches a packet counts. Rules are asked for packets that
begin a connection; connections that there are go on as they began. A packet
whose mark has no service is looked up by its address and port. The address need
not be one of the director's: what a rule marks, and its service takes, is never
routed elsewhere. So --dst 0.0.0.0/0 takes what the director would forward, and
with no --port also the next ssh connection to it.

Rules are no part of xlvsadm's table: `xlvsadm -C` and -R leave them alone, and
-S does not write them; `xlvs save` does. They go with `xlvs detach`, and at reboot."""

_ADD_HELP = """\
Add a rule at the end of the list, or with --before N in front of another. It
loads and attaches the data plane if that is not done, as `xlvsadm -A` does. A
rule with the same conditions as another is refused: it would never be reached."""

_DELETE_HELP = """\
Delete one rule, by the words with which it was added or by its number in `xlvs
mark list`; or every rule of a mark: `xlvs mark delete 1`. Numbers move up."""

_SAVE_HELP = """\
Write the rules to stdout, in the words of `add`, for `xlvs mark restore`."""

_RESTORE_HELP = """\
Read what `xlvs mark save` wrote from stdin, and put it in the place of all
rules, from one packet to the next. Blank lines and lines that begin with # are
left out. If a line is wrong nothing is changed."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = _parser(
        subparsers, "mark", "rules that give packets a firewall mark, for `xlvsadm -f`", _HELP, None, _EPILOG
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    add = _parser(commands, "add", "add a rule", _ADD_HELP, _add)
    add.add_argument("mark", metavar="MARK", help="1 to 4294967295, also as 0x...")
    add_conditions(add, required=True)
    add.add_argument("--before", type=_rule_number, metavar="N", help="insert it before rule N")
    listing = _parser(commands, "list", "show the rules, in the order in which they are asked", None, _list)
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    delete = _parser(commands, "delete", "delete a rule, or all of a mark", _DELETE_HELP, _delete)
    delete.add_argument("mark", nargs="?", metavar="MARK", help="alone: every rule of this mark")
    add_conditions(delete, required=False)
    delete.add_argument("--rule", type=_rule_number, metavar="N", help="the rule of this number")
    _parser(commands, "clear", "delete every rule", None, _clear)
    _parser(commands, "save", "write the rules for `restore`", _SAVE_HELP, _save)
    _parser(
        commands, "restore", "read what `save` wrote, in the place of all rules", _RESTORE_HELP, _restore
    )


def _parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str | None,
    run: Callable[[argparse.Namespace], int] | None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description or f"{summary.capitalize()}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def _rule_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= len(text) <= 5 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a rule")
    return int(text)


def _add(arguments: argparse.Namespace) -> int:
    rule = rule_of(arguments)
    with open_datapath(write=True, load=True) as datapath:
        rules = datapath.mark_rules()
        for number, other in enumerate(rules, start=1):
            if other.conditions == rule.conditions:
                raise RuleExists(
                    f"rule {number} has the same conditions, and gives the mark {other.mark}",
                    "The first rule that matches counts. See them all: xlvs mark list",
                )
        place = len(rules)
        if arguments.before is not None:
            place = _place_of(arguments.before, rules)
        datapath.set_mark_rules([*rules[:place], rule, *rules[place:]])
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    if (arguments.rule is not None) == (arguments.mark is not None or has_conditions(arguments)):
        raise UsageError(
            "say which rule: by --rule N, or by the words with which it was added, or by its mark alone",
            "See them all: xlvs mark list",
        )
    if arguments.rule is None and arguments.mark is None:
        raise UsageError("the words of a rule begin with its mark", "See them: xlvs mark save")
    wanted = rule_of(arguments) if has_conditions(arguments) else None
    mark = None if arguments.mark is None else parse_mark(arguments.mark)
    with open_datapath(write=True) as datapath:
        rules = datapath.mark_rules()
        if wanted is not None:
            left = [rule for rule in rules if rule != wanted]
        elif mark is not None:
            left = [rule for rule in rules if rule.mark != mark]
        else:
            place = _place_of(arguments.rule, rules)
            left = [*rules[:place], *rules[place + 1 :]]
        if len(left) == len(rules):
            what = f"no rule gives the mark {mark}" if wanted is None else "no rule is like that"
            raise NoSuchRule(what, "See them all: xlvs mark list")
        datapath.set_mark_rules(left)
    return 0


def _place_of(number: int, rules: list[MarkRule]) -> int:
    if number > len(rules):
        there = {0: "there is none", 1: "there is one"}.get(len(rules), f"there are {len(rules)}")
        raise NoSuchRule(f"there is no rule {number}: {there}", "See them all: xlvs mark list")
    return number - 1


def _clear(_arguments: argparse.Namespace) -> int:
    with open_datapath(write=True) as datapath:
        datapath.set_mark_rules([])
    return 0


def _save(_arguments: argparse.Namespace) -> int:
    with open_datapath() as datapath:
        for rule in datapath.mark_rules():
            print(format_line(rule))
    return 0


def _restore(_arguments: argparse.Namespace) -> int:
    rules = parse_lines(sys.stdin.read())
    with open_datapath(write=True, load=bool(rules)) as datapath:
        datapath.set_mark_rules(rules)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with open_datapath() as datapath:
        rules = datapath.mark_rules()
    if arguments.json:
        entries = [_entry(number, rule) for number, rule in enumerate(rules, start=1)]
        print(json.dumps({"schema": SCHEMA, "rules": entries}, indent=2))
    else:
        print("\n".join(_table(rules)))
    return 0


def _entry(number: int, rule: MarkRule) -> dict[str, Any]:
    return {
        "rule": number,
        "mark": rule.mark,
        "family": "ipv4" if rule.destination.family == IPV4 else "ipv6",
        "protocol": PROTOCOL_NAMES[rule.protocol],
        "source": None if rule.source is None else format_prefix(rule.source),
        "destination": format_prefix(rule.destination),
        "ports": [{"first": first, "last": last} for first, last in rule.ports],
        "source_ports": [{"first": first, "last": last} for first, last in rule.source_ports],
    }


def _table(rules: list[MarkRule]) -> list[str]:
    rows = [("Rule", "Mark", "Proto", "Source", "Destination", "SourcePorts", "Ports")]
    for number, rule in enumerate(rules, start=1):
        rows.append(
            (
                str(number),
                str(rule.mark),
                PROTOCOL_NAMES[rule.protocol],
                "any" if rule.source is None else format_prefix(rule.source),
                format_prefix(rule.destination),
                format_ports(rule.source_ports) or "any",
                format_ports(rule.ports) or "any",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
