# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of what concerns the host's network beside VRRP: static addresses and routes, interfaces."""

from __future__ import annotations

from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.interface_address import read_interface_address
from xlvs.keepalived.keywords.lines import known_interface
from xlvs.keepalived.keywords.route import read_route
from xlvs.keepalived.keywords.rule import read_rule
from xlvs.keepalived.keywords.vrrp_common import NO_VRRP
from xlvs.keepalived.numbers import (
    INT_MAX,
    SECOND,
    read_decimal,
    read_timer,
)
from xlvs.keepalived.origin import Position
from xlvs.keepalived.redundancy import (
    GarpGroup,
    InterfaceDelay,
    LinkbeatInterface,
    TrackGroup,
)
from xlvs.keepalived.statements import Action, Cursor, Section


class _TrackGroupDraft:
    """A track_group."""

    def __init__(self, draft: Draft, name: str, position: Position) -> None:
        self.draft = draft
        self.name = name
        self.position = position


def _track_group(draft: Draft, at: Cursor) -> _TrackGroupDraft:
    name = at.words[1] if len(at.words) > 1 else ""
    if len(at.words) != 2:
        at.report("track_group must have a name - skipping")
        at.skip_block()
    elif name in draft.track_groups:
        at.report(f"track_group {name} already defined")
        at.skip_block()
    else:
        draft.track_groups[name] = TrackGroup(name, position=at.position)
    return _TrackGroupDraft(draft, name, at.position)


def _track_group_members(group: _TrackGroupDraft, at: Cursor) -> None:
    if group.draft.track_groups[group.name].instances:
        at.report(f"Group list already specified for sync group {group.name}")
        at.skip_block()
        return
    words = at.value_words()
    if not words:
        at.report(f"Warning - track group {group.name} has empty group block")
    group.draft.track_groups[group.name] = TrackGroup(group.name, tuple(words), group.position)


def _static_ipaddress(draft: Draft, at: Cursor) -> None:
    for _ in at.value_lines():
        address = read_interface_address(draft, at, static=True)
        if address is not None:
            draft.static_addresses.append(address)


def _static_routes(draft: Draft, at: Cursor) -> None:
    for _ in at.value_lines():
        route = read_route(draft, at, static=True)
        if route is not None:
            draft.static_routes.append(route)


def _static_rules(draft: Draft, at: Cursor) -> None:
    for _ in at.value_lines():
        rule = read_rule(draft, at, static=True)
        if rule is not None:
            draft.static_rules.append(rule)


class _GarpGroupDraft:
    """A garp_group."""

    def __init__(self, draft: Draft, position: Position) -> None:
        self.draft = draft
        self.position = position
        self.garp_interval: float | None = None
        self.gna_interval: float | None = None
        self.interfaces: list[str] = []
        self.shared = False


def _garp_group(draft: Draft, at: Cursor) -> _GarpGroupDraft:
    return _GarpGroupDraft(draft, at.position)


def _garp_interval(field: str) -> Action:
    def action(group: _GarpGroupDraft, at: Cursor) -> None:
        value = read_decimal(at, at.word(1), 0, INT_MAX, 6)
        if value is None:
            at.report(f"garp_group {field} '{at.words[1]}' invalid")
            return
        setattr(group, field, value / SECOND)
        if value >= SECOND:
            at.note(f"The {field} is very large - {at.words[1]} seconds")

    return action


def _take_garp_interface(group: _GarpGroupDraft, at: Cursor, name: str) -> None:
    if not known_interface(group.draft, at, name):
        at.report(f"WARNING - interface {name} specified for garp_group doesn't exist")
    elif name in group.draft.garp_interfaces:
        at.report(f"garp_group already specified for {name} - ignoring")
    else:
        group.draft.garp_interfaces.add(name)
        group.interfaces.append(name)


def _garp_interface(group: _GarpGroupDraft, at: Cursor) -> None:
    _take_garp_interface(group, at, at.word(1))


def _garp_interfaces(group: _GarpGroupDraft, at: Cursor) -> None:
    words = at.value_words()
    if not words:
        at.report("Warning - empty garp_group interfaces block")
    group.shared = bool(words)
    for word in words:
        _take_garp_interface(group, at, word)


def _end_of_garp_group(group: _GarpGroupDraft, at: Cursor) -> None:
    if group.garp_interval is None and group.gna_interval is None:
        number = sum(one.shared for one in group.draft.garp_groups) + group.shared if group.shared else 0
        at.report(f"garp group {number} does not have any delay set - removing")
        group.draft.garp_interfaces -= set(group.interfaces)
        return
    group.draft.garp_groups.append(
        GarpGroup(
            group.garp_interval, group.gna_interval, tuple(group.interfaces), group.shared, group.position
        )
    )


def _linkbeat_interfaces(draft: Draft, at: Cursor) -> None:
    for words in at.value_lines():
        if not known_interface(draft, at, words[0]):
            message = f"unknown interface {words[0]} specified for linkbeat interface"
            at.report(message, Severity.FATAL)
            continue
        method = words[1] if len(words) > 1 else ""
        if method and (method not in ("MII", "ETHTOOL", "IOCTL") or len(words) > 2):
            at.report(f"extra characters {method} in linkbeat interface")
            method = ""
        draft.linkbeat_interfaces.append(LinkbeatInterface(words[0], method, at.position))


def _interface_up_down_delays(draft: Draft, at: Cursor) -> None:
    for words in at.value_lines():
        if not known_interface(draft, at, words[0]):
            at.report(f"unknown interface {words[0]} specified for up/down delay", Severity.FATAL)
            continue
        if len(words) < 2:
            at.note(f"No timeouts specified for {words[0]} up/down delays")
            continue
        if len(words) > 3:
            at.note(f"Too many parameters for {words[0]} up/down delays")
        delays = [read_timer(at, word, 0, 255 * SECOND) for word in words[1:3]]
        if None in delays:
            at.note(f"Invalid delay for {words[0]}")
            continue
        down, up = delays[0] or 0.0, (delays[1] if len(delays) > 1 else 0.0) or 0.0
        draft.interface_delays.append(InterfaceDelay(words[0], down, up, at.position))


TRACK_GROUP = Section("track_group")
TRACK_GROUP.add("group", _track_group_members, "{ NAME … }", "The instances.")

GARP_GROUP = Section("garp_group", _end_of_garp_group)
GARP_GROUP.add("garp_interval", _garp_interval("garp_interval"), "SECONDS", "Between gratuitous ARP.")
GARP_GROUP.add("gna_interval", _garp_interval("gna_interval"), "SECONDS", "Between advertisements.")
GARP_GROUP.add("interface", _garp_interface, "IF", "An interface by itself.")
GARP_GROUP.add("interfaces", _garp_interfaces, "{ IF … }", "All these together.")


def add_host_network_roots(root: Section) -> None:
    """Enter the blocks of this module."""
    root.add(
        "track_group",
        _track_group,
        "NAME",
        "Instances that static addresses follow.",
        remark=NO_VRRP,
        block=TRACK_GROUP,
    )
    root.add(
        "static_ipaddress", _static_ipaddress, "{ ADDRESS[/LENGTH] dev IF … }", "Addresses.", remark=NO_VRRP
    )
    root.add("static_routes", _static_routes, "{ ROUTE … }", "Routes.", remark=NO_VRRP)
    root.add("static_rules", _static_rules, "{ RULE … }", "Policy rules.", remark=NO_VRRP)
    root.add(
        "garp_group", _garp_group, "", "How fast gratuitous ARP goes out.", remark=NO_VRRP, block=GARP_GROUP
    )
    root.add(
        "linkbeat_interfaces",
        _linkbeat_interfaces,
        "{ IF [MII|ETHTOOL|IOCTL] … }",
        "Links to poll.",
        remark=NO_VRRP,
    )
    root.add(
        "interface_up_down_delays", _interface_up_down_delays, "{ IF DOWN [UP] … }",
        "Before an interface counts as down or up.", remark=NO_VRRP,
    )  # fmt: skip
