# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs lab``: build, look at, work in and remove labs."""

from __future__ import annotations

import argparse
import json
import sys

from xlvs.datapath.modes import CHOICES
from xlvs.errors import UsageError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xlvs.lab.addresses import Request

_EXAMPLES = """\
examples:
  xlvs lab up dr                        a cluster with its table filled
  xlvs lab exec client -- curl -s http://192.0.2.100/
  xlvs lab exec director -- ipvsadm -Ln
  xlvs lab shell director
  xlvs lab up dr --bare --name mine     addresses and web servers only: the rest is yours to type
  xlvs lab up nat                       real servers in a network of their own, behind the director
  xlvs lab up tun                       real servers behind a router, reached by a tunnel
  xlvs lab up dr --mode xdp             the director's packet path at native XDP, too
  xlvs lab down --all
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``lab`` and its verbs."""
    lab = subparsers.add_parser(
        "lab",
        help="a cluster of network namespaces to learn and test in",
        description="Clusters of network namespaces: client, director, real servers with nginx, no way out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = lab.add_subparsers(metavar="VERB", title="verbs", required=True)
    _register_up(verbs)

    listing = _verb(verbs, "list", _list, "every lab", named=False)
    listing.add_argument("--json", action="store_true", help="as JSON")

    status = _verb(verbs, "status", _status, "addresses, nodes and condition of a lab")
    status.add_argument("--json", action="store_true", help="as JSON")

    execute = _verb(verbs, "exec", _exec, "run a command in a node: xlvs lab exec NODE -- COMMAND…")
    execute.add_argument("node", metavar="NODE", help="client, router, director, rs1, …")
    execute.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="as typed in the node")
    execute.set_defaults(takes_rest=True)

    shell = _verb(verbs, "shell", _shell, "log in to a node")
    shell.add_argument("node", metavar="NODE", help="client, router, director, rs1, …")

    down = _verb(verbs, "down", _down, "remove a lab with all that runs in it")
    down.add_argument("--all", action="store_true", help="every lab")

    demo = _verb(verbs, "demo", _demo, "show a topology at work, in a lab of its own", named=False)
    demo.add_argument("topology", nargs="?", default="dr", metavar="TOPOLOGY", help="dr, nat, tun")


def _register_up(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = _verb(verbs, "up", _up, "build a lab, or repair it")
    up.add_argument("topology", metavar="TOPOLOGY", help="dr: Direct Routing; nat: NAT; tun: tunnelling")
    up.add_argument("--real-servers", type=int, metavar="COUNT", help="how many (3; nat, tun: 2)")
    up.add_argument(
        "--router", action="store_true", help="put the client behind a router, in another network"
    )
    up.add_argument(
        "--bare",
        action="store_true",
        help="only addresses, gateways and web servers: no VIP, no ARP setting, no ip_forward, no table",
    )
    up.add_argument(
        "--mode",
        choices=CHOICES,
        default="",
        help="how the director attaches its data plane, as `xlvs attach --mode`; with xdp the lab also "
        "has what native XDP needs of its wires (tc, by the first `ipvsadm -A`)",
    )
    up.add_argument(
        "--network",
        metavar="CIDR",
        help="the lab's network (192.0.2.0/24); nat, tun: that of the VIP (192.168.219.0/24)",
    )
    up.add_argument(
        "--inside-network",
        metavar="CIDR",
        help="nat, tun: the real servers' network, behind the director or a router (192.168.56.0/24)",
    )
    up.add_argument("--vip", metavar="ADDRESS", help="the virtual address (….100)")
    up.add_argument("--dip", metavar="ADDRESS", help="the director's own (….10; nat, tun: ….134)")
    up.add_argument(
        "--inside-dip",
        metavar="ADDRESS",
        help="nat: the director's own inside, the real servers' default gateway (….100)",
    )
    up.add_argument("--client", metavar="ADDRESS", help="the client's (….2; behind a router 203.0.113.2)")
    up.add_argument(
        "--rip",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="a real server's (….101, …; nat, tun: inside, ….135, …); repeatable",
    )
    up.add_argument(
        "--gue-port",
        metavar="PORT",
        action="append",
        type=int,
        default=[],
        help="tun: a UDP port on which the real servers take GUE (6080); repeatable",
    )
    up.add_argument(
        "--interface", metavar="NAME", default="eth0", help="name of each node's first interface (eth0)"
    )
    up.add_argument("--quiet", "-q", action="store_true", help="say only how it ended")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    *,
    named: bool = True,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    if named:
        parser.add_argument(
            "--name", metavar="NAME", help="which lab; may be left out where only one can be meant"
        )
    parser.set_defaults(run=run)
    return parser


def _progress(line: str) -> None:
    print(f"  {line}", flush=True)


def _silence(_line: str) -> None:
    pass


def _request(arguments: argparse.Namespace) -> Request:
    from xlvs.lab.addresses import Request

    return Request(
        arguments.network,
        arguments.vip,
        arguments.dip,
        arguments.client,
        tuple(arguments.rip),
        arguments.real_servers,
        arguments.interface,
        arguments.router,
        arguments.inside_network,
        arguments.inside_dip,
        tuple(arguments.gue_port),
    )


def _up(arguments: argparse.Namespace) -> int:
    from xlvs.lab import lifecycle

    record = lifecycle.new_record(
        arguments.topology, arguments.name, _request(arguments), bare=arguments.bare, mode=arguments.mode
    )
    changed = lifecycle.up(record, _silence if arguments.quiet else _progress)
    addresses = record.addresses
    print(
        f"lab {record.name!r} {'is up' if changed else 'is up already, nothing to do'}: VIP {addresses.vip}"
    )
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from xlvs.lab import lifecycle, state

    if arguments.all and arguments.name is not None:
        raise UsageError("--all and --name contradict each other")
    known = state.names()
    if arguments.all:
        wanted = known
    elif arguments.name is not None:
        wanted = [arguments.name]
    else:
        wanted = [state.find(None).name]
    for name in wanted:
        if not lifecycle.down(name, _progress):
            others = f"there are: {' '.join(known)}" if known else "there is none at all"
            raise UsageError(f"there is no lab {name!r}", others)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from xlvs.lab import state, status

    labs = [status.summary(name) for name in state.names()]
    if arguments.json:
        json.dump(labs, sys.stdout, indent=2)
        print()
    elif not labs:
        print("no labs; make one: xlvs lab up dr")
    else:
        rows = [("NAME", "TOPOLOGY", "STATE", "VIP", "NODES")]
        rows += [
            (lab["name"], lab["topology"] or "-", lab["state"], lab["vip"] or "-", " ".join(lab["nodes"]))
            for lab in labs
        ]
        _print_table(rows)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from xlvs.lab import state, status

    lab = status.details(state.find(arguments.name))
    if arguments.json:
        json.dump(lab, sys.stdout, indent=2)
        print()
        return 0
    lacks = f" ({lab['lacks']}); repair it by the command that made it" if lab["lacks"] else ""
    print(f"lab {lab['name']!r}, {lab['state']}{lacks}: {lab['summary']}")
    print(f"  VIP      {lab['vip']}  {lab['vip6'] or ''}".rstrip())
    inside = f", inside {lab['inside_network']}" if lab["inside_network"] else ""
    print(f"  network  {lab['network']}{inside}")
    if lab["mode"]:
        print(f"  mode     {lab['mode']}")
    if lab["gue_ports"]:
        ports = ", ".join(map(str, lab["gue_ports"]))
        print(f"  tunl0    on real servers; it takes IPIP, GRE, and GUE on UDP port {ports}")
    rows = [("NODE", "INTERFACE", "MAC", "ADDRESSES", "PROCESSES")]
    for name, node in lab["nodes"].items():
        first, *others = node["interfaces"]
        processes = f"{node['processes']}{', nginx' if node['web'] else ''}"
        rows.append((name, first["name"], first["mac"], " ".join(first["addresses"]), processes))
        rows += [("", wire["name"], wire["mac"], " ".join(wire["addresses"]), "") for wire in others]
    _print_table(rows, indent="  ")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    from xlvs.lab import lifecycle, node, state

    name, command = _name_after_node(arguments)
    if arguments.rest is not None:  # a -- behind the first word is the command's own
        command = [*command, *(("--",) if command else ()), *arguments.rest]
    if not command:
        raise UsageError("no command was given", "as in: xlvs lab exec director -- ipvsadm -Ln")
    record = state.find(name)
    lifecycle.plan_of(record).node(arguments.node)
    node.replace_process(record, arguments.node, command)
    return 0


def _name_after_node(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The lab's name, which may also stand behind the node, and the command's words before any ``--``."""
    words: list[str] = arguments.command
    if len(words) > 1 and words[0] == "--name":
        return words[1], words[2:]
    if words and words[0].startswith("--name="):
        return words[0].partition("=")[2], words[1:]
    return arguments.name, words


def _shell(arguments: argparse.Namespace) -> int:
    from xlvs.lab import lifecycle, node, state

    record = state.find(arguments.name)
    lifecycle.plan_of(record).node(arguments.node)
    startup = str(record.node_folder(arguments.node) / "bashrc")
    node.replace_process(record, arguments.node, ["bash", "--rcfile", startup])
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from xlvs.lab import demo

    return demo.run(arguments.topology)


def _print_table(rows: Sequence[tuple[str, ...]], indent: str = "") -> None:
    rows = [tuple(map(shown, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"{indent}{'  '.join(cells)}".rstrip())
