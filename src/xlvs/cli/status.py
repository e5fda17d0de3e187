# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs status``: what is attached where, versions, sizes and fill of the tables."""

from __future__ import annotations

import argparse
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xlvs.datapath.attach import Attachment
    from xlvs.datapath.maps import Maps

SCHEMA = 2
"""Raised when a field of the JSON output changes its meaning or goes."""

_EPILOG = """\
examples:
  xlvs status
  xlvs status --json | jq .tables.connections"""

_EVENTS = {
    "forwarded": "packets forwarded at TC",
    "xdp_forwarded": "packets forwarded at XDP",
    "expired": "connections expired",
    "no_destination": "dropped: no real server to choose",
    "strays": "dropped: from a real server, of no connection; it was told (nat_icmp_send)",
    "unavailable": "dropped: the connection's real server was removed",
    "unroutable": "dropped: no route to the real server, or nobody answers for its address there",
    "ttl_exceeded": "dropped: TTL used up",
    "too_big": "dropped: over the MTU to the real server",
    "table_full": "dropped: connection table full, and no way without an entry (NAT, SIP)",
    "stateless": "forwarded by hash, without an entry: connection table full",
    "evicted": "half-open connections that made room in a full table",
    "no_call_id": "dropped: no Call-ID, in a service that goes by it (--pe sip)",
    "defended": "dropped: drop_packet, of those that would begin a connection",
    "unchecked": "tunnelled in several segments, not all with the checksum wanted",
}


_OVERLOAD = {
    "full": "The connection table is full: new connections go by hash, without an entry; NAT's are dropped.",
    "settling": "The connection table was full a moment ago: new connections still go by hash.",
    "remembered": "The connection table was full: packets of connections without an entry go by hash.",
}

_FORWARDING = (
    "to ask the routing table while forwarding is off",
    "the packet path goes by its last look at\nthe routes, and takes every VIP for the director's.",
)
_LO_SETTINGS = {
    "net.ipv4.conf.lo.forwarding": _FORWARDING,
    "net.ipv6.conf.lo.forwarding": _FORWARDING,
    "net.ipv4.conf.lo.accept_local": (
        "for clients on the director itself",
        "clients on the director itself get no answers from\nreal servers behind it.",
    ),
}
"""By sysctl: what it was turned on for, and what is missing without it."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "status",
        help="what is attached where, versions, sizes and fill of the tables",
        description="Show the data plane of this network namespace. Exit code 3 when none is loaded.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    from xlvs.datapath.maps import Maps
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    require_root()
    report = _machine()
    if bpffs.namespace_folder() is not None:
        with table_lock(exclusive=False):
            folder = bpffs.namespace_folder()
            if folder is not None:  # else it was detached while we waited for the lock
                maps = Maps(folder)
                try:
                    report.update(_loaded(maps))
                finally:
                    maps.close()
    from xlvs.daemon import client

    report["daemon"] = client.status()
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(_page(report)))
        if report["daemon"] is not None:
            from xlvs.cli import daemon

            print("\n".join(daemon.page(report["daemon"])))
    return 0 if report["loaded"] else 3


def _machine() -> dict[str, Any]:
    from xlvs import __version__

    return {
        "schema": SCHEMA,
        "xlvs": __version__,
        "kernel": os.uname().release,
        "loaded": False,
    }


def _loaded(maps: Maps) -> dict[str, Any]:
    from xlvs.datapath import intent, loopback, marks
    from xlvs.datapath.attach import Attacher
    from xlvs.datapath.load import fill, program_version
    from xlvs.datapath.overload import overload
    from xlvs.datapath.upgrade import is_unfinished
    from xlvs.kernel import abi, bpffs, followed

    settings, limits = maps.settings, maps.limits
    attacher = Attacher(maps.folder)
    own_clients = attacher.loopback()
    wanted = intent.read(maps.folder)
    connections, capacity = fill(maps)
    phase, since = overload(settings)
    services = sum(1 for flags in maps.flags("services", abi.Service, settings.services_top) if flags)
    destinations = sum(
        1
        for flags in maps.flags("destinations", abi.Destination, settings.destinations_top)
        if flags & abi.DESTINATION_AVAILABLE
    )
    return {
        "loaded": True,
        "loaded_at": settings.loaded_at,
        "program_version": program_version(settings),
        "abi_version": settings.abi_version,
        "upgrade_unfinished": is_unfinished(maps.folder),
        "pins": bpffs.outside_path(maps.folder),
        "attached": [_attachment(found) for found in attacher.attachments()],
        "own_clients": _attachment(own_clients) if own_clients else None,
        "not_attached": [
            link.name for link in attacher.fitting(wanted.named) if not attacher.is_attached(link.index)
        ],
        "left_out": attacher.left_out(),
        "wanted": {
            "every": wanted.every or None,
            "named": wanted.named,
            "detached": sorted(wanted.detached),
            "refused": wanted.refused,
            "gone": sorted(
                name
                for name in wanted.named.keys() - {link.name for link in attacher.links()}
                if not intent.is_pattern(name)
            ),
            "tried": {
                link.name: {mode: why for (index, mode), why in wanted.tried.items() if index == link.index}
                for link in attacher.links()
                if any(index == link.index for index, _ in wanted.tried)
            },
        },
        "followed": followed.is_followed(),
        "misplaced": attacher.misplaced(),
        "lacking": attacher.lacking(),
        "departed": attacher.departed(),
        "tables": {
            "connections": {
                "used": connections,
                "capacity": capacity,
                "slots": limits.buckets * abi.SLOTS_PER_BUCKET,
            },
            "services": {"used": services, "capacity": limits.services},
            "destinations": {"used": destinations, "capacity": limits.destinations},
            "mark_rules": {"used": marks.count(settings), "capacity": abi.MARK_RULES},
        },
        "overload": {"state": phase, "seconds_since_full": since},
        "lo_settings_changed": loopback.changed(settings),
        "lo_settings": loopback.wanted(settings),
        "events": maps.events(),
    }


def _unattached(report: dict[str, Any]) -> Iterator[str]:
    """The lines of interfaces that packets pass by, or that have gone."""
    from xlvs.datapath.intent import Intent

    wanted = report["wanted"]
    for name in report["not_attached"]:
        how = f"attach it: xlvs attach {name}"
        if name in wanted["refused"]:
            how = wanted["refused"][name]
        elif Intent(detached=frozenset(wanted["detached"])).is_detached(name):
            how = f"detached; {how}"
        yield f"{name:<16} none         ({how})"
    for name in wanted["gone"]:
        again = (
            "attached when it comes back" if report["followed"] else f"if it comes back: xlvs attach {name}"
        )
        yield f"{name:<16} gone         ({again})"


def _attachment(found: Attachment) -> dict[str, Any]:
    return {"interface": found.interface, "hook": found.hook, "program_id": found.program}


def _page(report: dict[str, Any]) -> list[str]:
    lines = [f"xlvs {report['xlvs']} on Linux {report['kernel']}"]
    if not report["loaded"] and (report["daemon"] or {}).get("datapath") == "kernel":
        return [*lines, "The packet path is not loaded here: xlvsd keeps the table of kernel IPVS."]
    if not report["loaded"]:
        return [*lines, "Nothing is loaded in this network namespace; the first xlvsadm -A does it."]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report["loaded_at"]))
    lines.append(
        f"Packet path {report['program_version']}, loaded {since}, table layout {report['abi_version']}"
    )
    if report["program_version"] != report["xlvs"]:
        lines.append(f"Go over to {report['xlvs']}, losing nothing: xlvs upgrade")
    if report["upgrade_unfinished"]:
        lines.append("An upgrade has died half-way: old and new programs run. End it: xlvs upgrade")
    lines.append(f"Pins: {report['pins']}")
    lines += [f"{name} was turned on: {_LO_SETTINGS[name][0]}" for name in report["lo_settings_changed"]]
    lines += [
        f"{name} was turned off since: {_LO_SETTINGS[name][1]}\nTurn it on again: xlvs attach"
        for name, on in report["lo_settings"].items()
        if not on
    ]
    lines += ["", "Interface        Hook         Program"]
    for found in report["attached"]:
        lines.append(f"{found['interface']:<16} {found['hook']:<12} {found['program_id']}")
    if report["own_clients"]:
        found = report["own_clients"]
        lines.append(
            f"{found['interface']:<16} {found['hook']:<12} {found['program_id']:<8} "
            "(clients on the director itself)"
        )
    lines += _unattached(report)
    for name, reason in report["misplaced"].items():
        lines.append(f"{name} is attached, but now {reason}; then: xlvs detach {name}")
    lines += [f"{name}: {what}" for name, what in report["lacking"].items()]
    for index in report["departed"]:
        lines.append(
            f"Interface number {index} has gone to another network namespace, with the packet path on it: "
            "xlvs attach takes it off"
        )
    for name, modes in report["wanted"]["tried"].items():
        lines += [f"{why}; not tried again until: xlvs attach {name}" for why in modes.values()]
    if report["left_out"] and report["wanted"]["every"]:
        from xlvs.cli.attach import left_out

        lines.append(left_out(report["left_out"]))
    if not report["attached"] and not report["not_attached"]:
        lines.append("none: no Ethernet interface is up")
    if report["followed"]:
        lines.append("Interfaces are followed: those that are wanted are attached when they come.")
    else:
        lines += [
            "Nobody attaches interfaces that come back, or new ones. Somebody would:",
            "systemctl enable --now xlvs-interfaces; or without systemd: xlvs follow",
        ]
    lines += ["", "Table            Used         Capacity"]
    for name, table in report["tables"].items():
        if name == "mark_rules" and not table["used"]:
            continue  # few have any
        lines.append(f"{name.replace('_', ' '):<16} {table['used']:<12} {table['capacity']}")
    overload = report["overload"]
    if overload["state"] in _OVERLOAD:
        lines += [
            "",
            _OVERLOAD[overload["state"]],
            f"{overload['seconds_since_full']} s ago a connection found no room. Make it larger, forgetting "
            "connections:",
            "xlvs save; xlvs detach; xlvs load --connections N",
        ]
    lines += ["", "Events"]
    for name, text in _EVENTS.items():
        lines.append(f"{report['events'][name]:>12}  {text}")
    if report["events"]["unchecked"]:
        lines += [
            "",
            "Tunnels with checksums got packets that GRO had put together: those of GUE left without one,",
            "and GRE's last parts are lost. Turn GRO off where they come in: ethtool -K DEV gro off",
        ]
    return lines
