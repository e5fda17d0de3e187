# SPDX-License-Identifier: GPL-2.0-only
"""Setting real servers up and taking them back, whole or not at all.

The record is written before anything is changed, with all that the changes found: who
is killed half-way leaves nothing that the next command could not take back.  The
caller is root, in the network namespace that is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from xlvs.errors import UsageError, XlvsError
from xlvs.kernel.lock import table_lock
from xlvs.realserver import guards, plan, record, sysctl, tunnels
from xlvs.realserver.changes import Change, addresses
from xlvs.realserver.record import Record
from xlvs.realserver.wanted import (
    DEVICES,
    EBPF,
    HIDDEN,
    LOOPBACK,
    NAT,
    TUNNELLING,
    RealServer,
    check,
)


@dataclass(slots=True)
class Outcome:
    """What a command has done, in the words of an operator, and what it could not put back."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def add(servers: Iterable[RealServer]) -> Outcome:
    """Set these up beside those that there are; a VIP that is there already is set up as it says now.

    Raises `XlvsError`, and has changed nothing then.
    """
    chosen = list(servers)
    for server in chosen:
        check(server)
    with table_lock(exclusive=True):
        present = record.load()
        chosen = [_resolve(server) for server in chosen]
        _refuse_conflicts(chosen, present)
        vips = {server.vip: server for server in chosen}
        kept = [vips.pop(server.vip, server) for server in present.servers]
        return _converge(present, [*kept, *vips.values()])


def remove(vips: Iterable[str] | None) -> Outcome:
    """Take these VIPs' real servers back, all of them for None; what others need stays.

    Raises `UsageError` for a VIP that is not set up.
    """
    with table_lock(exclusive=True):
        present = record.load()
        gone = [server.vip for server in present.servers] if vips is None else list(vips)
        for vip in gone:
            if present.server(vip) is None:
                known = ", ".join(server.vip for server in present.servers) or "none"
                raise UsageError(
                    f"no real server of {vip} was set up here by xlvs",
                    f"there are: {known}; what was typed by hand is taken over by: xlvs realserver adopt",
                )
        return _converge(present, [server for server in present.servers if server.vip not in gone])


def apply() -> Outcome:
    """Set up what is recorded: after a boot, or where somebody has changed something since."""
    with table_lock(exclusive=True):
        present = record.load()
        return _converge(present, present.servers)


def adopt(server: RealServer) -> Outcome:
    """Take over a real server that somebody set up by hand: what is there of it counts as made by xlvs.

    What it lacks is added.  Nobody has noted what was there before, so removing it
    leaves the kernel's own values.
    """
    check(server)
    with table_lock(exclusive=True):
        present = record.load()
        if present.server(server.vip) is not None:
            raise UsageError(f"the real server of {server.vip} is xlvs's already", "xlvs realserver list")
        chosen = _resolve(server)
        typed = {change: change.without() for change in plan.changes([chosen]) if change.is_made()}
        known = replace(present, changes={**typed, **present.changes})
        return _converge(known, [*present.servers, chosen], restore=present)


def _converge(present: Record, servers: list[RealServer], restore: Record | None = None) -> Outcome:
    """Bring the machine from what is recorded to these real servers; where that fails, all the way back."""
    wanted = plan.changes(servers)
    befores = dict(present.changes)
    fresh = [change for change in wanted if change not in befores]
    befores |= {change: change.look() for change in fresh}
    outcome = Outcome()
    made: list[Change] = []
    guards.check(servers)
    record.save(Record(_union(present.servers, servers), befores))
    try:
        outcome.done += guards.put(_union(present.servers, servers))
        for change in wanted:
            if not change.is_made():
                made.append(change)
                change.make(befores[change])
                outcome.done.append(str(change))
        for change in [each for each in reversed(befores) if each not in wanted]:
            _take_back(change, befores[change], outcome)
        outcome.done += guards.take(present.servers, servers)
    except BaseException:
        for change in reversed(made):
            if change in fresh:
                change.undo(befores[change])
        guards.take(_union(present.servers, servers), present.servers)
        record.save(restore or present)
        raise
    record.save(Record(servers, {change: befores[change] for change in wanted}))
    return outcome


def _take_back(change: Change, before: str, outcome: Outcome) -> None:
    was_made = change.is_made()
    try:
        left = change.undo(before)
    except XlvsError as error:
        left = error.message
    if left:
        outcome.left.append(left)
    elif was_made and not change.is_made():
        outcome.done.append(f"taken back: {change}")


def _union(some: list[RealServer], others: list[RealServer]) -> list[RealServer]:
    """All of them; of one VIP the latter."""
    return list({server.vip: server for server in (*some, *others)}.values())


def _resolve(server: RealServer) -> RealServer:
    """Settle what depends on this machine: who opens tunnels.  Raises `XlvsError` for what it cannot do."""
    if server.arp == HIDDEN and not sysctl.has_hidden():
        raise XlvsError(
            "this kernel has no setting `hidden`", "few ever had; --arp sysctl does the same on all others"
        )
    if server.method != TUNNELLING or server.decapsulator == EBPF:
        return server
    lacking = tunnels.lacking(server)
    if lacking and server.decapsulator == DEVICES:
        raise XlvsError(
            f"the kernel's own devices cannot open these tunnels: {lacking}",
            "--decap ebpf needs none of them",
        )
    return replace(server, decapsulator=EBPF if lacking else DEVICES)


def _refuse_conflicts(chosen: list[RealServer], present: Record) -> None:
    """Raise `UsageError` where a VIP is in a place that makes it loud, or answers had two ways."""
    shown = addresses()
    for server in chosen:
        ours = present.server(server.vip)
        for link in shown:
            for each in link["addr_info"]:
                if each["local"] == server.vip and (ours is None or ours.device != link["ifname"]):
                    _refuse_place(server, link["ifname"], each["prefixlen"])
        interface = {link["ifname"] for link in shown}
        if server.device and server.device not in interface:
            raise UsageError(f"there is no interface {server.device}", "see what there is: ip link")
    gateways: dict[tuple[bool, str], str] = {}
    vips = {server.vip for server in chosen}
    for server in (*chosen, *(each for each in present.servers if each.vip not in vips)):
        if server.method != NAT:
            continue
        gateway = gateways.setdefault((server.ipv6, server.route), server.director)
        if gateway != server.director:
            raise UsageError(
                f"answers go by one director; {server.director} and {gateway} are two",
                "remove one of the real servers first: xlvs realserver list",
            )


def _refuse_place(server: RealServer, device: str, length: int) -> None:
    whole = 128 if server.ipv6 else 32
    if device == server.device and length == whole:
        return
    found = f"{server.vip}/{length} is on {device} already"
    if not server.device:
        raise UsageError(
            f"{found}, but this real server is to hold no VIP",
            f"ip address del {server.vip}/{length} dev {device}",
        )
    if device == LOOPBACK:
        raise UsageError(
            f"{found}, which makes {'a whole network' if length != whole else 'it'} this machine's own",
            f"ip address del {server.vip}/{length} dev lo, then do this again",
        )
    raise UsageError(
        f"{found}, where it answers ARP and neighbour solicitations",
        "A director holds its VIP there, and is its own real server without any set-up (-r 127.0.0.1). "
        f"If this is none: ip address del {server.vip}/{length} dev {device}",
    )
