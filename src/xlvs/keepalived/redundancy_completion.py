# SPDX-License-Identifier: GPL-2.0-only
"""Drafts of VRRP instances and sync groups into values, with keepalived's checks and corrections.

The order is that of vrrp_complete_init() and vrrp_complete_instance()
(vrrp/vrrp.c).
"""

from __future__ import annotations

from typing import Any

from xlvs.keepalived.addresses import is_link_local
from xlvs.keepalived.diagnostics import Findings, Severity
from xlvs.keepalived.drafts import Draft, InstanceDraft, SyncGroupDraft, TrackingDraft
from xlvs.keepalived.origin import Position
from xlvs.keepalived.redundancy import (
    Authentication,
    NotifyScripts,
    Redundancy,
    SyncGroup,
    Tracking,
    VrrpInstance,
)
from xlvs.keepalived.settings import SyncDaemon
from xlvs.keepalived.surroundings import Surroundings
from xlvs.model import IPV4, IPV6

_OWNER = 255
_DEFAULT_PRIORITY = 100
_MOST_ADDRESSES = 255
_DEFAULT_MTU = 1500


def redundancy(draft: Draft, around: Surroundings, findings: Findings) -> Redundancy:
    """All that was said about VRRP, as far as it can be used."""
    if draft.missing_interface:
        findings.add(Severity.BAD_INTERFACE, "Non-existent interface specified in configuration", Position())
    completion = _Completion(draft, around, findings)
    groups = completion.sync_groups()
    instances = completion.instances(groups)
    if instances:
        _check_router_ids(instances, findings)
        _check_sync_daemon(draft, instances, findings)
    return Redundancy(
        instances=instances,
        sync_groups=groups,
        scripts=tuple(draft.track_scripts.values()),
        processes=tuple(draft.track_processes.values()),
        track_groups=tuple(draft.track_groups.values()),
        garp_groups=tuple(draft.garp_groups),
        static_addresses=tuple(draft.static_addresses),
        static_routes=tuple(draft.static_routes),
        static_rules=tuple(draft.static_rules),
        linkbeat_interfaces=tuple(draft.linkbeat_interfaces),
        interface_delays=tuple(draft.interface_delays),
    )


def _check_sync_daemon(draft: Draft, instances: tuple[VrrpInstance, ...], findings: Findings) -> None:
    daemon: SyncDaemon | None = draft.get("lvs_sync_daemon")
    if daemon and daemon.instance and daemon.instance not in {one.name for one in instances}:
        message = f"Unable to find vrrp instance {daemon.instance} for lvs_syncd - clearing lvs_syncd config"
        findings.add(Severity.ERROR, message, daemon.position)
        draft.settings.pop("lvs_sync_daemon")


def _check_router_ids(instances: tuple[VrrpInstance, ...], findings: Findings) -> None:
    """Two instances of one family may not share a router id on one interface."""
    seen: dict[tuple[object, ...], VrrpInstance] = {}
    for one in instances:
        if one.unicast:
            continue
        key = one.family, one.interface, one.virtual_router_id, one.multicast_group
        other = seen.setdefault(key, one)
        if other is not one:
            message = (
                f"{one.name} and {other.name} both use VRID {one.virtual_router_id} with"
                f" IPv{4 if one.family == IPV4 else 6} on interface {one.interface}"
            )
            findings.add(Severity.ERROR, message, one.position)


class _Completion:
    """Makes the instances and sync groups of one draft."""

    def __init__(self, draft: Draft, around: Surroundings, findings: Findings) -> None:
        self._draft = draft
        self._around = around
        self._findings = findings
        self._checks = not draft.missing_interface

    def _report(
        self, owner: InstanceDraft | SyncGroupDraft, message: str, severity: Severity = Severity.ERROR
    ) -> None:
        """Report, unless an interface is missing: keepalived checks no further then."""
        if self._checks:
            self._findings.add(severity, message, owner.position)

    # Sync groups.

    def sync_groups(self) -> tuple[SyncGroup, ...]:
        """The sync groups that have members."""
        taken: set[str] = set()
        made = []
        for group in self._draft.sync_groups.values():
            members = self._members(group, taken)
            if members:
                made.append(
                    SyncGroup(
                        group.name,
                        members,
                        _tracking(group.tracking),
                        NotifyScripts(**group.scripts),
                        group.notify_priority_changes,
                        group.smtp_alert,
                        group.tracking_weight,
                        group.position,
                    )
                )
        return tuple(made)

    def _members(self, group: SyncGroupDraft, taken: set[str]) -> tuple[str, ...]:
        name = group.name
        if not group.members:
            self._report(group, f"Sync group {name} has no virtual router(s). removing")
            return ()
        members = []
        for member in group.members:
            if member not in self._draft.instances:
                self._report(
                    group,
                    f"Virtual router {member} specified in sync group {name} doesn't exist - ignoring",
                )
            elif member in taken:
                self._report(
                    group,
                    f"Virtual router {member} cannot exist in more than one sync group; ignoring {name}",
                )
            else:
                taken.add(member)
                members.append(member)
        if not members:
            self._report(
                group, f"Sync group {name}, no matching virtual router found in group declaration - removing"
            )
        elif len(members) == 1:
            self._report(
                group, f"Sync group {name} has only 1 virtual router(s) - this probably isn't what you want"
            )
        return tuple(members)

    # Instances.

    def instances(self, groups: tuple[SyncGroup, ...]) -> tuple[VrrpInstance, ...]:
        """The instances that can be run."""
        group_of = {member: group for group in groups for member in group.instances}
        made = []
        for instance in self._draft.instances.values():
            value = self._instance(instance, group_of.get(instance.name))
            if value is not None:
                made.append(value)
        return tuple(made)

    def _instance(self, one: InstanceDraft, group: SyncGroup | None) -> VrrpInstance | None:
        fields = one.fields
        if not fields.get("virtual_router_id"):
            self._report(one, f"({one.name}) the virtual router id must be set")
            return None
        peers = bool(fields.get("unicast_peers"))
        if not one.interface and not peers:
            self._report(one, f"({one.name}) Unknown interface!")
            return None
        strict = fields.get("strict_mode")
        strict = bool(self._draft.get("vrrp.strict")) if strict is None else bool(strict)
        self._settle_version(one, strict)
        if not one.addresses and not self._may_lack_addresses(one, strict):
            return None
        self._settle_state(one, strict)
        self._settle_authentication(one, strict)
        if not self._settle_unicast(one, peers, strict):
            return None
        self._settle_addresses(one, strict)
        self._settle_preemption(one, strict)
        self._settle_strictness(one, strict)
        self._settle_interval(one)
        self._settle_tracking(one, group)
        fields["unicast"] = peers
        fields["advert_interval"] = fields.get("advert_interval", 1.0)
        return VrrpInstance(
            one.name,
            interface=one.interface,
            master=one.state == "MASTER",
            version=one.version,
            family=one.family,
            addresses=tuple(one.addresses),
            excluded_addresses=tuple(one.excluded_addresses),
            routes=tuple(one.routes),
            rules=tuple(one.rules),
            tracking=_tracking(one.tracking),
            notify=NotifyScripts(**one.scripts),
            position=one.position,
            **fields,
        )

    def _settle_version(self, one: InstanceDraft, strict: bool) -> None:
        if one.family == IPV6:
            if one.version == 2 and strict:
                self._report(one, f"({one.name}) cannot use IPv6 with VRRP version 2; setting version 3")
                one.version = 3
            one.version = one.version or 3
        one.family = one.family or IPV4
        one.version = one.version or self._draft.get("vrrp.version") or 2

    def _may_lack_addresses(self, one: InstanceDraft, strict: bool) -> bool:
        if one.version == 3 or strict:
            self._report(one, f"({one.name}) No VIP specified; at least one is required")
            return False
        self._report(one, f"({one.name}) No VIP specified; at least one is sensible")
        return True

    def _settle_state(self, one: InstanceDraft, strict: bool) -> None:
        fields = one.fields
        if not fields.get("priority"):
            fields["priority"] = _OWNER if one.state == "MASTER" else _DEFAULT_PRIORITY
        owner = fields["priority"] == _OWNER
        fitting = "MASTER" if owner else "BACKUP"
        if not one.state:
            one.state = fitting
        elif strict and one.state != fitting:
            self._report(one, f"({one.name}) State MASTER must match being address owner")
            one.state = fitting

    def _settle_authentication(self, one: InstanceDraft, strict: bool) -> None:
        fields = one.fields
        kind = fields.get("authentication", Authentication.NONE)
        if kind is Authentication.NONE:
            return
        if strict:
            wrong = "Strict mode does not support authentication. Ignoring."
        elif one.version == 3:
            wrong = "VRRP version 3 does not support authentication. Ignoring."
        elif not fields.get("password"):
            wrong = "Authentication specified but no password given. Ignoring"
        elif one.family == IPV6 and kind is Authentication.AH:
            wrong = "Cannot use AH authentication with IPv6. ignoring"
        else:
            if kind is Authentication.AH and one.state == "MASTER" and fields["priority"] != _OWNER:
                self._report(
                    one,
                    f"({one.name}) Initial state master is incompatible with AH authentication - clearing",
                )
                one.state = "BACKUP"
            return
        self._report(one, f"({one.name}) {wrong}")
        fields["authentication"] = Authentication.NONE

    def _settle_unicast(self, one: InstanceDraft, peers: bool, strict: bool) -> bool:
        """What unicast demands; False when the instance cannot be run."""
        fields = one.fields
        multicast = self._around.has_multicast(one.interface)
        if strict and peers and one.interface and multicast:
            self._report(one, f"({one.name}) Unicast peers are not supported in strict mode")
            return False
        if not one.interface:
            source: bytes = fields.get("source", b"")
            if not source:
                wrong = f"({one.name}): Unicast instances must have unicast_src_ip or interface"
            elif is_link_local(source):
                wrong = f"({one.name}) Non link-local address required if interface omitted"
            else:
                wrong = ""
            if wrong:
                self._report(one, wrong)
                return False
        if one.unicast_configured and not peers:
            if fields.get("unicast_fault_no_peer"):
                self._findings.add(
                    Severity.NOTE,
                    f"({one.name}) Cannot use unicast without any peers - going to fault state",
                    one.position,
                )
            else:
                self._report(
                    one,
                    f"({one.name}) A unicast keyword has been specified without any unicast peers."
                    " Defaulting to multicast. This usage is deprecated - please update your configuration.",
                    Severity.DEPRECATED,
                )
        if strict and fields.get("vmac_address"):
            self._report(one, f"({one.name}): cannot specify MAC address with strict mode - clearing")
            fields["vmac_address"] = b""
        if one.interface in self._around.interfaces and not multicast and not peers:
            self._report(
                one,
                f"({one.name}) interface {one.interface} does not support multicast,"
                " specify unicast peers - disabling",
            )
        if fields.get("vrf") and (one.interface or not peers):
            why = " out interface" if one.interface else " unicast"
            self._report(one, f"({one.name}) vrf can only be specified with{why} - clearing")
            fields["vrf"] = ""
        if peers and fields.get("multicast_group"):
            self._report(one, f"({one.name}) multicast destination specified with unicast - ignoring")
            fields["multicast_group"] = b""
        return True

    def _settle_addresses(self, one: InstanceDraft, strict: bool) -> None:
        peers = one.fields.get("unicast_peers")
        first = one.addresses[0].address if one.addresses else b""
        if len(first) == 16 and not peers and not is_link_local(first):
            if strict:
                self._report(one, f"({one.name}) the first IPv6 VIP address must be link local")
            else:
                message = f"({one.name}) the first IPv6 VIP address should be link local"
                self._findings.add(Severity.NOTE, message, one.position)
        if one.family == IPV4:
            header = 14 + 20 + 8 + (8 if one.version == 2 else 0)
            header += 24 if one.fields.get("authentication") is Authentication.AH else 0
            most = (_DEFAULT_MTU - header) // 4
        else:
            most = (_DEFAULT_MTU - 14 - 40 - 8) // 16
        most = min(most, _MOST_ADDRESSES)
        if len(one.addresses) > most:
            self._report(
                one,
                f"({one.name}) Number of VIPs ({len(one.addresses)}) exceeds maximum/space available in"
                f" packet (max {most} addresses) - excess moved to eVIPs",
            )
            one.excluded_addresses += one.addresses[most:]
            del one.addresses[most:]
        if not one.interface:
            for addresses, letter in ((one.addresses, ""), (one.excluded_addresses, "e")):
                for address in [entry for entry in addresses if not entry.interface]:
                    self._report(one, f"({one.name}): no interface for {letter}vip - removing")
                    addresses.remove(address)

    def _settle_preemption(self, one: InstanceDraft, strict: bool) -> None:
        fields = one.fields
        if fields.get("nopreempt") and fields["priority"] == _OWNER:
            self._report(
                one,
                f"({one.name}) nopreempt is incompatible with priority {_OWNER}. resetting nopreempt",
            )
            fields["nopreempt"] = False
        if one.state == "MASTER":
            for field, words in (("nopreempt", "nopreempt"), ("preempt_delay", "preempt delay")):
                if fields.get(field):
                    self._report(
                        one,
                        f"({one.name}) Warning - {words} will not work with initial state MASTER - clearing",
                    )
                    fields[field] = 0.0 if field == "preempt_delay" else False
        if fields.get("preempt_delay"):
            for reason, words in ((strict, "strict mode"), (fields.get("nopreempt"), "nopreempt mode")):
                if reason:
                    self._report(one, f"({one.name}) preempt_delay is incompatible with {words} - resetting")
                    fields["preempt_delay"] = 0.0

    def _settle_strictness(self, one: InstanceDraft, strict: bool) -> None:
        """What strict mode takes back."""
        if not strict:
            return
        fields: dict[str, Any] = one.fields
        standing = fields.get("down_timer_adverts") or self._draft.get("vrrp.down_timer_adverts")
        if standing not in (None, 3):
            self._report(
                one, f"({one.name}) down_timer_adverts is incompatible with strict mode - resetting"
            )
            fields["down_timer_adverts"] = 3
        if fields.get("accept") and fields["priority"] != _OWNER and one.version == 2:
            self._report(
                one,
                f"({one.name}) warning - accept mode for VRRP version 2 does not comply with RFC3768"
                " - resetting",
            )
            fields["accept"] = False
        for field, wanted, words in (
            ("garp_lower_prio_repeat", 0, "Strict mode requires no repeat garps. resetting"),
            ("garp_lower_prio_delay", 0, "Strict mode requires no repeat garp delay. resetting"),
            ("lower_prio_no_advert", True, "Strict mode requires no lower priority advert. resetting"),
            (
                "higher_prio_send_advert",
                False,
                "strict mode requires higher_prio_send_advert to be clear. resetting",
            ),
        ):
            if fields.get(field) not in (None, wanted):
                self._report(one, f"({one.name}) {words}")
            fields[field] = wanted
        if fields.get("vmac_xmit_base") and fields.get("use_vmac"):
            self._report(one, f"({one.name}) xmit_base is incompatible with strict mode - resetting")
            fields["vmac_xmit_base"] = False

    def _settle_interval(self, one: InstanceDraft) -> None:
        """Whole seconds in version 2, hundredths in version 3."""
        fields = one.fields
        interval: float = fields.get("advert_interval", 1.0)
        if one.fields.get("vmac_xmit_base") and not one.fields.get("use_vmac"):
            self._report(one, f"({one.name}) vmac_xmit_base is only valid with a vmac")
            fields["vmac_xmit_base"] = False
        if one.version == 2:
            if interval != int(interval):
                self._report(
                    one,
                    f"({one.name}) VRRPv2 advertisement interval {interval:f}s must be an integer. rounding",
                )
                interval = float(max(int(interval + 0.5), 1))
        elif interval >= 40.96:
            self._report(
                one,
                f"({one.name}) VRRPv3 advertisement interval {interval:.2f}s is out of range."
                " Must be less than 40.96s. Setting to 40.95s",
            )
            interval = 40.95
        elif round(interval * 1_000_000) % 10_000:
            self._report(
                one,
                f"({one.name}) VRRPv3 advertisement interval {interval:f}s must be in units of 10ms"
                " - rounding",
            )
            interval = max(int(interval * 100 + 0.5), 1) / 100
        fields["advert_interval"] = interval

    def _settle_tracking(self, one: InstanceDraft, group: SyncGroup | None) -> None:
        """Weights mean nothing in a sync group, nor for the owner of the addresses."""
        tracking = one.tracking
        if one.interface in tracking.interfaces:
            self._report(
                one,
                f"({one.name}) Ignoring track_interface {one.interface} since own interface",
            )
            del tracking.interfaces[one.interface]
        grouped = group is not None and not group.tracking_weight
        if not grouped and one.fields["priority"] != _OWNER:
            return
        why = "SYNC group" if grouped else "address owner"
        for name, tracked in list(tracking.interfaces.items()):
            if tracked.weight:
                self._report(one, f"({one.name}) ignoring {name} tracked interface weight due to {why}")
                del tracking.interfaces[name]
                if grouped:
                    tracking.interfaces[name] = type(tracked)(name, position=tracked.position)
        for standing, kind in ((tracking.scripts, "script"), (tracking.bfd, "bfd")):
            for name in [name for name, tracked in standing.items() if tracked.weight]:
                self._report(one, f"({one.name}) ignoring tracked {kind} {name} with weights due to {why}")
                del standing[name]
        for name, tracked in list(tracking.files.items()):
            if tracked.weight:
                self._report(one, f"({one.name}) ignoring tracked file {name} with weight due to {why}")
                del tracking.files[name]
                if tracked.weight == 1:
                    tracking.files[name] = type(tracked)(name, position=tracked.position)


def _tracking(draft: TrackingDraft) -> Tracking:
    return Tracking(
        tuple(draft.interfaces.values()),
        tuple(draft.scripts.values()),
        tuple(draft.files.values()),
        tuple(draft.processes.values()),
        tuple(draft.bfd.values()),
    )
