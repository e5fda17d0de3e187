# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs attach`` and ``xlvs detach``: where the packet path runs."""

from __future__ import annotations

import argparse
import sys

from xlvs.datapath.modes import CHOICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.load import Capacity

_ATTACH_HELP = """\
Load the data plane into this network namespace if it is not loaded yet, and
attach it to the interfaces named, or to every Ethernet interface that is up.
Ports of a bridge or bond are left out: attach to the bridge or bond itself.
So are, unless they are named, interfaces by which no client's packets come: a
container's at the host's end, dummies, VRFs. The first `xlvsadm -A` does the
same by itself.

What was attached once is attached again when it is made anew under its name,
in its mode, and without names so is whatever comes up later, as long as
somebody follows interfaces: xlvs-interfaces.service, xlvsd, `xlvs run` or
`xlvs follow`. With --only that holds for those that are named and for nothing
else any more. In a name * stands for any characters and ? for any one."""

_DETACH_HELP = """\
Without an interface: end the data plane of this network namespace. Its
services, real servers, connections, counters, mark rules and settings are
forgotten; save them first with `xlvs save`. With interfaces: only stop serving
packets that come in by those, also when they come back, until `xlvs attach`
names them or says all. In a name * stands for any characters and ? for any one."""

_ATTACH_EPILOG = """\
examples:
  xlvs attach                              every Ethernet interface that is up
  xlvs attach --connections 2000000        sizes can be chosen when loading only
  xlvs attach --mode auto eth0             what suits the interface, and why
  xlvs attach --mode xdp-generic eth0      XDP as well as TC
  xlvs attach --mode tc eth0               TC alone again
  xlvs attach --only bond0 bond1           these, and no other one now or later
  xlvs attach 'tap*'                       all of such names, and those that come"""

_DETACH_EPILOG = """\
examples:
  xlvs save; xlvs detach                   `xlvs load` brings it back
  xlvs detach eth1                         stop serving what comes in by eth1
  xlvs detach 'eth*'                       ... by any of such names, now and later"""

_NAMED_AT_ONCE = 8

_XLVSD_PATIENCE = 2.0
"""Seconds in which xlvsd is to say what it keeps."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    attach = subparsers.add_parser(
        "attach",
        help="attach the data plane to interfaces",
        description=_ATTACH_HELP,
        epilog=_ATTACH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    attach.add_argument("interfaces", nargs="*", metavar="INTERFACE")
    attach.add_argument(
        "--mode",
        choices=CHOICES,
        help="tc: TC ingress, complete; xdp: also XDP, run by the interface's driver; "
        "xdp-generic: also XDP, run by the network stack; auto: xdp for a NIC whose driver has it, else tc "
        "(default: what the interface has, a new one tc)",
    )
    attach.add_argument(
        "--only", action="store_true", help="take all others off, and attach no other one that comes"
    )
    add_sizes(attach)
    attach.set_defaults(run=_attach)

    detach = subparsers.add_parser(
        "detach",
        help="take the data plane off, with everything it holds",
        description=_DETACH_HELP,
        epilog=_DETACH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    detach.add_argument("interfaces", nargs="*", metavar="INTERFACE")
    detach.set_defaults(run=_detach)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much the table can hold."""
    for name, what in (
        ("connections", "connections that certainly fit"),
        ("services", "virtual services"),
        ("destinations", "real servers, those of all services together"),
    ):
        parser.add_argument(f"--{name}", type=_size, metavar="N", help=f"when loading: {what}")


def _size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 26:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {1 << 26}")
    return int(text)


def capacity_of(arguments: argparse.Namespace) -> Capacity | None:
    """The sizes given; None where none was."""
    from xlvs.datapath.load import Capacity

    sizes = {
        name: getattr(arguments, name) for name in Capacity.__slots__ if getattr(arguments, name) is not None
    }
    return Capacity(**sizes) if sizes else None


def _attach(arguments: argparse.Namespace) -> int:
    from xlvs.datapath.activate import activate
    from xlvs.datapath.intent import is_pattern, matches
    from xlvs.errors import UsageError
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    if arguments.only and not arguments.interfaces:
        raise UsageError(
            "--only needs the names of interfaces", "See them: ip link; to end all: xlvs detach"
        )
    require_root()
    capacity = capacity_of(arguments)
    with table_lock(exclusive=True):
        loaded = bpffs.namespace_folder() is not None
        if loaded and capacity:
            raise UsageError(
                "the data plane is loaded already: its sizes stay as they are",
                "To load it anew, forgetting its table: xlvs detach && xlvs attach ...",
            )
        activation = activate(capacity, arguments.interfaces or None, arguments.mode, only=arguments.only)
    for error in activation.refused:
        print(f"xlvs: {error}", file=sys.stderr)
    for link, hook in activation.attached:
        print(f"{link.name}: {hook}" if link.up else f"{link.name}: {hook}, but the interface is down")
        if link.name in activation.reasons:
            print(f"  {activation.reasons[link.name]}")
    for name, what in activation.lacking.items():
        print(f"xlvs: {name}: {what}", file=sys.stderr)
    for link in activation.detached:
        print(f"{link.name}: detached")
    if activation.left_out and not arguments.interfaces:
        print(left_out(activation.left_out))
    for name in filter(is_pattern, arguments.interfaces):
        if not any(matches(name, link.name) for link, _ in activation.attached):
            print(f"{name}: there is none now; attached when one comes up")
    if not (activation.attached or activation.left_out or arguments.interfaces):
        print("No Ethernet interface is up; later: xlvs attach INTERFACE")
    return 0


def left_out(reasons: dict[str, str]) -> str:
    """Text about interfaces that are up and none of every interface, by name with the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    lines = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - _NAMED_AT_ONCE} more" if len(names) > _NAMED_AT_ONCE else ""
        lines.append(f"Left out, because {reason} (to attach one: xlvs attach NAME):")
        lines.append(f"  {' '.join(names[:_NAMED_AT_ONCE])}{more}")
    return "\n".join(lines)


def _detach(arguments: argparse.Namespace) -> int:
    from xlvs.datapath.activate import deactivate
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    require_root()
    if bpffs.root() is None:
        return _nothing_to_detach(arguments.interfaces)
    with table_lock(exclusive=True):
        bpffs.discard_unfinished()
        folder = bpffs.namespace_folder()
        if folder is None:
            return _nothing_to_detach(arguments.interfaces)
        if arguments.interfaces:
            _detach_these(folder, arguments.interfaces)
            return 0
        deactivate(folder)
    print("The data plane is gone, with its table.")
    _warn_of_xlvsd()
    return 0


def _detach_these(folder: str, names: list[str]) -> None:
    from xlvs.datapath import intent
    from xlvs.datapath.attach import Attacher
    from xlvs.kernel.grace_period import Hurry

    intent.check_names(names)
    attacher = Attacher(folder)
    wanted = intent.read(folder)
    there = {link.name for link in attacher.links()}
    # One that is not there may be wanted when it comes: by its name or a pattern, or as every one is.
    links = [
        attacher.link(name)
        for name in names
        if not intent.is_pattern(name)
        and (name in there or not (wanted.every or wanted.mode_of(name, up=True)))
    ]
    found = {link.name for link in links}
    patterns = [name for name in names if intent.is_pattern(name)]
    links += [
        link
        for link in attacher.links()
        if link.name not in found
        and not link.loopback
        and attacher.is_attached(link.index)
        and any(intent.matches(pattern, link.name) for pattern in patterns)
    ]
    with Hurry(len(links)):
        for link in links:
            attacher.detach(link.index)
    for name in names:
        intent.leave(folder, name)
    for link in links:
        print(f"{link.name}: detached; it stays so until: xlvs attach {link.name}")
    for name in names:
        if name not in there:
            print(f"{name}: not attached when {'one comes' if intent.is_pattern(name) else 'it comes back'}")


def _warn_of_xlvsd() -> None:
    """Say that what is gone comes back, where somebody keeps it."""
    from xlvs.daemon import client
    from xlvs.errors import XlvsError

    try:
        daemon = client.ask(_XLVSD_PATIENCE, command="status")
    except XlvsError:
        return
    if daemon.get("datapath") == "ebpf" and daemon.get("virtual_servers"):
        print(
            f"xlvsd (process {daemon['pid']}) keeps it, and makes it anew within seconds. To end both: "
            f"systemctl stop xlvsd, or kill {daemon['pid']}; then xlvs detach",
            file=sys.stderr,
        )


def _nothing_to_detach(interfaces: list[str]) -> int:
    from xlvs.errors import NotLoaded

    if interfaces:
        raise NotLoaded(
            f"nothing is loaded in this network namespace, so nothing is attached to {' '.join(interfaces)}",
            "See what there is: xlvs status",
        )
    print("Nothing is loaded in this network namespace.")
    return 0
