# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs realserver``: this machine as a real server: set it up, look at it, take it back."""

from __future__ import annotations

import argparse
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xlvs.realserver.setup import Outcome
    from xlvs.realserver.wanted import RealServer

SCHEMA = 1
"""Raised when a field of the JSON output changes its meaning or goes."""
EXIT_FAULT = 1

_HELP = """\
Make this machine a real server, of an xlvs director or of any other IPVS director, and
take it back. What was there before is noted, and put back by `remove`.

Under Direct Routing (dr) and tunnelling (tun) a real server has the VIP, too, and must
not tell anybody: that is the ARP problem. Under NAT it has none, and its answers
have to go back by the director."""

_EPILOG = """\
examples:
  xlvs realserver add --vip 192.0.2.100                        Direct Routing
  xlvs realserver add --vip 192.0.2.100,2001:db8::100 --service tcp:80
  xlvs realserver add --vip 192.0.2.100 --arp nft              where sysctls are not ours, as in containers
  xlvs realserver add --vip 192.0.2.100 --arp redirect         no VIP here: NAT takes packets to it
  xlvs realserver add --vip 192.0.2.100 --method tun --tunnel ipip,gue
  xlvs realserver add --vip 192.0.2.100 --method nat --director 198.51.100.10
  xlvs realserver check
  xlvs realserver remove --vip 192.0.2.100"""

_ADD = """\
Set up real servers of one VIP or several. To repeat it does no harm: what is in place
stays, what somebody has changed is mended, and a VIP that is set up already is set up
as it is asked for now."""

_ADD_EPILOG = """\
ways to solve the ARP problem (--arp):
  sysctl    arp_ignore 1, arp_announce 2, for all interfaces and lo (the usual way)
  hidden    the setting of that name, of kernels that were patched for it
  nft       ARP about the VIP is dropped by nftables
  ebpf      the same by an eBPF program at the interfaces
  redirect  no VIP at all: packets to it are redirected to this machine by NAT
  none      somebody else has solved it

IPv6's VIP on lo is silent without any of these. A VIP on an Ethernet interface
(--device) needs nft or ebpf, IPv4's as well as IPv6's.

examples:
  xlvs realserver add --vip 192.0.2.100
  xlvs realserver add --vip 2001:db8::100 --device eth0 --arp ebpf
  xlvs realserver add --vip 192.0.2.100 --method tun --tunnel gue --gue-port 6080
  xlvs realserver add --vip 192.0.2.100 --method nat --director 198.51.100.10
  xlvs realserver add --vip 192.0.2.100 --method nat --director 198.51.100.10 \\
      --route policy --service tcp:80"""

_CHECK = """\
Look whether each real server is as it has to be, also those that somebody typed by
hand: the address and its netmask, what keeps it silent, tunnels, routes, rp_filter,
and whether anybody listens. Nothing is sent.

Exit status: 0 all is well, 1 a fault was found, 2 it could not be looked at."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``realserver`` and its verbs."""
    noun = subparsers.add_parser(
        "realserver",
        help="this machine as a real server: VIP, ARP, tunnels, routes",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = noun.add_subparsers(metavar="VERB", title="verbs", required=True)
    _register_add(verbs)

    listing = _verb(verbs, "list", _list, "every real server that this machine is, also those made by hand")
    listing.add_argument("--json", action="store_true", help="print one JSON object")

    check = _verb(verbs, "check", _check, "look whether all is as it has to be", _CHECK)
    check.add_argument("--vip", metavar="ADDRESS[,…]", help="of these VIPs (all)")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--quiet", "-q", action="store_true", help="only what is not as it should be")

    remove = _verb(verbs, "remove", _remove, "take real servers back: all as it was before")
    remove.add_argument("--vip", metavar="ADDRESS[,…]", help="of these VIPs")
    remove.add_argument("--all", action="store_true", help="all that xlvs has set up")

    adopt = _verb(verbs, "adopt", _adopt, "take over what somebody typed by hand, and complete it")
    adopt.add_argument("--vip", metavar="ADDRESS[,…]", help="of these VIPs (all there are)")

    _verb(verbs, "apply", _apply, "set up what is recorded: at boot, or after somebody changed something")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str = "",
    epilog: str = "",
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _register_add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    add = _verb(verbs, "add", _add, "set real servers up", _ADD, _ADD_EPILOG)
    add.add_argument(
        "--vip", metavar="ADDRESS[,…]", required=True, help="the virtual addresses, IPv4 and IPv6"
    )
    add.add_argument(
        "--method", choices=("dr", "tun", "nat"), default="dr", help="as the director forwards (dr)"
    )
    add.add_argument(
        "--arp",
        choices=("sysctl", "hidden", "nft", "ebpf", "redirect", "none"),
        help="how the ARP problem is solved (sysctl)",
    )
    add.add_argument("--device", metavar="NAME", help="where the VIP is put (lo)")
    add.add_argument(
        "--interface", metavar="NAME[,…]",
        help="by which the director's packets come (every Ethernet interface); ebpf, tun",
    )  # fmt: skip
    add.add_argument(
        "--service", metavar="PROTOCOL:PORT[,…]", help="what is served, as tcp:80: for check, and NAT"
    )
    add.add_argument("--tunnel", metavar="KIND[,…]", help="tun: some of ipip, gre, gue (ipip)")
    add.add_argument("--gue-port", metavar="PORT[,…]", help="tun: the UDP ports of GUE (6080)")
    add.add_argument(
        "--decap", choices=("auto", "devices", "ebpf"),
        help="tun: the kernel's tunnel devices, or an eBPF program (devices, where the kernel has them)",
    )  # fmt: skip
    add.add_argument(
        "--mss", metavar="BYTES",
        help="tun: the largest segment that clients may send: auto (what fits the tunnel), off, or a number",
    )  # fmt: skip
    add.add_argument(
        "--director", metavar="ADDRESS", help="nat: the director's address, to which answers go"
    )
    add.add_argument(
        "--route", choices=("default", "policy"),
        help="nat: everything goes by the director (default), or answers of --service alone (policy)",
    )  # fmt: skip
    add.add_argument("--quiet", "-q", action="store_true", help="say nothing but errors")


def _add(arguments: argparse.Namespace) -> int:
    from xlvs.kernel.privilege import require_root
    from xlvs.realserver import setup

    servers = _wanted(arguments)
    require_root()
    outcome = setup.add(servers)
    if not arguments.quiet:
        _print_outcome(outcome, "all of it is set up already")
    return 0


def _wanted(arguments: argparse.Namespace) -> list[RealServer]:
    """The real servers that are asked for; raises `UsageError`."""
    from xlvs.errors import UsageError
    from xlvs.realserver import wanted

    method = arguments.method
    tun = method == wanted.TUNNELLING
    arp = arguments.arp or (wanted.NOTHING if method == wanted.NAT else wanted.SYSCTL)
    holds_none = method == wanted.NAT or arp == wanted.REDIRECT
    tunnels = tuple(dict.fromkeys(_words(arguments.tunnel) or ((wanted.IPIP,) if tun else ())))
    ports = tuple(dict.fromkeys(_words(arguments.gue_port)))
    if any(not port.isascii() or not port.isdigit() or len(port) > 5 for port in ports):
        raise UsageError(f"--gue-port {arguments.gue_port!r} is no port", "as in --gue-port 6080")
    director = wanted.addresses(arguments.director, "--director") if arguments.director else ()
    servers = []
    for vip in wanted.addresses(arguments.vip, "--vip"):
        ipv6 = ":" in vip
        gateway = next((each for each in director if (":" in each) == ipv6), director[0] if director else "")
        servers.append(
            wanted.RealServer(
                vip,
                method,
                arp,
                ("" if holds_none else wanted.LOOPBACK) if arguments.device is None else arguments.device,
                tuple(dict.fromkeys(_words(arguments.interface))),
                tuple(dict.fromkeys(map(wanted.service, _words(arguments.service)))),
                tunnels,
                tuple(map(int, ports)) or ((wanted.GUE_PORT,) if wanted.GUE in tunnels else ()),
                arguments.decap or wanted.AUTO,
                _mss(arguments.mss, tun=tun),
                gateway,
                arguments.route or wanted.DEFAULT_ROUTE,
            )
        )
    for server in servers:
        wanted.check(server)
    return servers


def _mss(text: str | None, *, tun: bool) -> int:
    from xlvs.errors import UsageError
    from xlvs.realserver import wanted

    if text is None:
        return wanted.MSS_AUTO if tun else wanted.MSS_OFF
    if text in ("auto", "off"):
        return wanted.MSS_AUTO if text == "auto" else wanted.MSS_OFF
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not int(text):
        raise UsageError(f"--mss {text!r} is no number of bytes", "auto, off, or a number like 1400")
    return int(text)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",")) if text else ()


def _vips(text: str | None) -> tuple[str, ...] | None:
    from xlvs.realserver import wanted

    return wanted.addresses(text, "--vip") if text else None


def _remove(arguments: argparse.Namespace) -> int:
    from xlvs.errors import UsageError
    from xlvs.kernel.privilege import require_root
    from xlvs.realserver import setup

    vips = _vips(arguments.vip)
    if (vips is None) != arguments.all:
        raise UsageError("say which: --vip ADDRESS[,ADDRESS…], or --all")
    require_root()
    outcome = setup.remove(vips)
    _print_outcome(outcome, "nothing was set up by xlvs")
    return 0


def _apply(_arguments: argparse.Namespace) -> int:
    from xlvs.kernel.privilege import require_root
    from xlvs.realserver import setup

    require_root()
    _print_outcome(setup.apply(), "all of it is in force")
    return 0


def _adopt(arguments: argparse.Namespace) -> int:
    from xlvs.errors import UsageError
    from xlvs.kernel.privilege import require_root
    from xlvs.realserver import byhand, record, setup

    vips = _vips(arguments.vip)
    require_root()
    known = [server.vip for server in record.load().servers]
    found = byhand.real_servers(known)
    lost = [vip for vip in vips or () if vip not in {server.vip for server in found}]
    if lost or not found:
        there = ", ".join(server.vip for server in found) or "none"
        what = f"no real server of {lost[0]} was set up by hand" if lost else "nothing was set up by hand"
        raise UsageError(what, f"those by hand: {there}; those of xlvs: {', '.join(known) or 'none'}")
    for server in found:
        if vips is None or server.vip in vips:
            print(f"{server.vip}: taken over, {_description(server)}")
            _print_outcome(setup.adopt(server), "nothing was missing")
    return 0


def _print_outcome(outcome: Outcome, nothing: str) -> None:
    for line in outcome.done:
        print(f"  {line}")
    for line in outcome.left:
        print(f"xlvs: left as it is: {line}", file=sys.stderr)
    if not outcome.done and not outcome.left:
        print(f"  {nothing}")


def _description(server: RealServer) -> str:
    from xlvs.realserver import wanted

    if server.method == wanted.NAT:
        what = "everything" if server.route == wanted.DEFAULT_ROUTE else ", ".join(server.services)
        return f"nat, {what} by {server.director}"
    parts = [server.method]
    if server.tunnels:
        ports = f" on UDP port {', '.join(map(str, server.gue_ports))}" if server.gue_ports else ""
        parts.append(f"{', '.join(server.tunnels)}{ports} by {server.decapsulator}")
    if server.arp == wanted.REDIRECT:
        parts.append(f"redirected by {'iptables' if server.rule else 'nft'}")
    elif server.ipv6 and server.device in (wanted.LOOPBACK, *wanted.TUNNEL_DEVICES):
        parts.append(f"on {server.device}")
    else:
        parts += [f"ARP by {server.arp}", f"on {server.device}"]
    return ", ".join(parts)


def _list(arguments: argparse.Namespace) -> int:
    from xlvs.kernel.privilege import require_root
    from xlvs.realserver import byhand, record

    require_root()  # whose the record is: without it all would seem set up by hand
    present = record.load()
    by_hand = byhand.real_servers(server.vip for server in present.servers)
    if arguments.json:
        servers = [_as_json(server, by_hand=False, applied=present.is_applied) for server in present.servers]
        servers += [_as_json(server, by_hand=True, applied=True) for server in by_hand]
        json.dump({"schema": SCHEMA, "real_servers": servers}, sys.stdout, indent=2)
        print()
        return 0
    rows = [(server.vip, _description(server), "xlvs" if present.is_applied else "xlvs, not since this boot")
            for server in present.servers]  # fmt: skip
    rows += [(server.vip, _description(server), "by hand") for server in by_hand]
    if not rows:
        print("this machine is no real server; make it one: xlvs realserver add --vip ADDRESS")
        return 0
    rows.insert(0, ("VIP", "REAL SERVER", "SET UP BY"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _as_json(server: RealServer, *, by_hand: bool, applied: bool) -> dict[str, Any]:
    from xlvs.realserver import wanted

    value = wanted.to_json(server)
    value["mss"] = {wanted.MSS_AUTO: "auto", wanted.MSS_OFF: None}.get(server.mss, server.mss)
    return {**value, "set_up_by": "hand" if by_hand else "xlvs", "applied": applied}


def _check(arguments: argparse.Namespace) -> int:
    from xlvs.errors import UsageError, XlvsError

    try:
        return _checked(arguments)
    except XlvsError as error:
        # 1 says that a fault was found; whoever could not look says so by 2.
        raise UsageError(error.message, error.hint) from error


def _checked(arguments: argparse.Namespace) -> int:
    from xlvs.errors import UsageError
    from xlvs.kernel.privilege import require_root
    from xlvs.realserver import byhand, record
    from xlvs.realserver.check import FAULT, OK, View, findings

    vips = _vips(arguments.vip)
    require_root()
    present = record.load()
    known = [(server, True) for server in present.servers]
    known += [(server, False) for server in byhand.real_servers(server.vip for server, _ in known)]
    chosen = [each for each in known if vips is None or each[0].vip in vips]
    lost = [vip for vip in vips or () if vip not in {server.vip for server, _ in chosen}]
    if lost or not chosen:
        there = ", ".join(server.vip for server, _ in known) or "none"
        what = f"no real server of {lost[0]}" if lost else "this machine is no real server"
        raise UsageError(what, f"there are: {there}; set one up: xlvs realserver add --vip ADDRESS")
    view = View(tuple(server.vip for server, _ in known))
    results = [(server, ours, list(findings(server, view, recorded=ours))) for server, ours in chosen]
    faulty = any(finding.level == FAULT for _, _, found in results for finding in found)
    if arguments.json:
        value = [
            {
                "vip": server.vip,
                "set_up_by": "xlvs" if ours else "hand",
                "findings": [
                    {"level": each.level, "what": each.what, "remedy": each.remedy or None} for each in found
                ],
            }
            for server, ours, found in results
        ]
        json.dump({"schema": SCHEMA, "well": not faulty, "real_servers": value}, sys.stdout, indent=2)
        print()
    else:
        for server, ours, found in results:
            print(f"{server.vip}: {_description(server)}{'' if ours else ', set up by hand'}")
            for each in found:
                if each.level != OK or not arguments.quiet:
                    print(f"  {each.level:<8} {each.what}")
                    if each.remedy:
                        print(f"           {each.remedy}")
    return EXIT_FAULT if faulty else 0
