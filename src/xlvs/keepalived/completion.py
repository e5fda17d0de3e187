# SPDX-License-Identifier: GPL-2.0-only
"""Drafts of virtual servers into values: defaults, what is inherited, what keepalived corrects.

The checks and their order are those of keepalived's validate_check_config()
and link_vsg_to_vs() (check/check_data.c, check/ipwrapper.c).
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.keepalived.addresses import family_of
from xlvs.keepalived.checks import Checker, Connection, Schedule
from xlvs.keepalived.configuration import (
    DEFAULT_PERSISTENCE,
    GroupEntry,
    RealServer,
    SorryServer,
    VirtualServer,
    VirtualServerGroup,
    trio,
)
from xlvs.keepalived.diagnostics import Findings, Severity
from xlvs.keepalived.drafts import (
    CheckerDraft,
    Draft,
    GroupDraft,
    RealServerDraft,
    ServerDraft,
    VirtualServerDraft,
)
from xlvs.keepalived.memory import Kept, RecordingFindings, replay
from xlvs.keepalived.origin import Position
from xlvs.model import (
    DEFAULT_SCHEDULER,
    IPV4,
    IPV6,
    MASQUERADE,
    TCP,
    TUNNEL,
    UDP,
    Destination,
    Service,
    ServiceKey,
    Tunnel,
)

MOST_SERVICES = 65536
"""How many services one range may stand for; a firewall mark is the way for more."""

_Schedules = dict[tuple[object, ...], Schedule]


class Completion:
    """Turns the virtual servers of a draft into values; one is made for each reading."""

    def __init__(self, draft: Draft, findings: Findings) -> None:
        self._draft = draft
        self._findings = findings
        self._schedules: _Schedules = {}
        self._log_all = bool(draft.get("checker_log_all_failures"))
        alert = draft.get("mail.alert_checker")
        self._alert = alert if alert is not None else draft.get("mail.alert")

    @property
    def defaults(self) -> tuple[object, ...]:
        """The global settings that virtual servers take over."""
        return self._log_all, self._alert

    def groups(self) -> tuple[VirtualServerGroup, ...]:
        """All virtual_server_groups."""
        return tuple(
            VirtualServerGroup(group.name, tuple(group.entries), group.position)
            for group in self._draft.groups.values()
        )

    def virtual_servers(self) -> tuple[VirtualServer, ...]:
        """All virtual servers that can be used, in the order of the file."""
        entries = [
            one for one in self._draft.virtual_servers if isinstance(one, Kept) or self._has_group(one)
        ]
        members: dict[str, int] = {}
        for one in entries:
            if not isinstance(one, Kept) and one.group:
                one.member = members.get(one.group, 0)
                members[one.group] = one.member + 1
        made = []
        seen: dict[ServiceKey, Position] = {}
        for one in entries:
            value = self._of_block(one) if isinstance(one, Kept) else self._complete(one)
            if value is not None and self._is_new(value, seen):
                made.append(value)
        return tuple(made)

    def _of_block(self, kept: Kept) -> VirtualServer | None:
        """The virtual server of a block; it is complete from then on."""
        draft, kept.draft = kept.draft, None
        if draft is None:
            replay(kept.completed, self._findings)
            return kept.server
        findings = self._findings
        self._findings = RecordingFindings(findings, kept.completed)
        try:
            kept.server = self._complete(draft)
        finally:
            self._findings = findings
        return kept.server

    def _complete(self, draft: VirtualServerDraft) -> VirtualServer | None:
        server = self._virtual_server(draft)
        draft.release()
        return server

    def _report(self, server: VirtualServerDraft, message: str, severity: Severity = Severity.ERROR) -> None:
        self._findings.add(severity, message, server.position)

    def _note(self, position: Position, message: str) -> None:
        self._findings.add(Severity.NOTE, message, position)

    def _is_new(self, server: VirtualServer, seen: dict[ServiceKey, Position]) -> bool:
        """Does no earlier virtual server have one of its services?"""
        for service in server.services:
            first = seen.get(service.key)
            if first is not None:
                message = f"Virtual server {server.name} is there already, at {first} - ignoring this one"
                self._note(server.position, message)
                return False
        for service in server.services:
            seen[service.key] = server.position
        return True

    # Groups.

    def _has_group(self, server: VirtualServerDraft) -> bool:
        """Is its group there, and of a family that fits?  (link_vsg_to_vs())"""
        if not server.group:
            return True
        group = self._draft.groups.get(server.group)
        if group is None:
            message = (
                f"Virtual server group {server.group} specified but not configured"
                f" - ignoring virtual server {name_of(server)}"
            )
            self._note(server.position, message)
            return False
        families = {entry.family for entry in group.entries}
        both = {IPV4, IPV6} <= families
        only = 0 if both else IPV4 if IPV4 in families else IPV6 if IPV6 in families else 0
        if (both and server.family) or (only and server.family not in (0, only)):
            message = (
                f"{server.group}: address family doesn't match virtual server {name_of(server)} - ignoring"
            )
            self._note(server.position, message)
            return False
        if only:
            server.family = only
        elif not server.family and 0 in families:
            self._note(
                server.position,
                f"{server.group}: Virtual server {name_of(server)} address family cannot be determined,"
                " defaulting to IPv4",
            )
        return True

    # Virtual servers.

    def _virtual_server(self, server: VirtualServerDraft) -> VirtualServer | None:
        name = name_of(server)
        if not server.real_servers:
            self._report(server, f"Virtual server {name} has no real servers - ignoring")
            return None
        group = self._draft.groups.get(server.group) if server.group else None
        entries = group.entries if group else []
        marks = [entry for entry in entries if not entry.first] if group else []
        ranges = [entry for entry in entries if entry.first] if group else []
        self._check_service(server, name, group, marks, ranges)
        name = name_of(server)
        real_servers = self._real_servers(server, name)
        self._check_sorry_server(server, name)
        weight = sum(_weight(one) for one in real_servers)
        if server.quorum > weight:
            self._report(
                server,
                f"Warning - quorum {server.quorum} for {name} exceeds total weight of real servers"
                f" {weight}, reducing quorum to {weight}",
            )
            server.quorum = weight
        if server.hysteresis >= server.quorum:
            self._report(
                server,
                f"Virtual server {name}: hysteresis {server.hysteresis} >= quorum {server.quorum};"
                f" setting hysteresis to {max(server.quorum - 1, 0)}",
            )
            server.hysteresis = max(server.quorum - 1, 0)
        self._check_ports(server, name, real_servers, group, marks, ranges)
        services = self._services(server, ranges, marks)
        if not services:
            return None
        one = server.sorry_server
        sorry = SorryServer(_destination(one, 1), one.inhibit, one.position) if one else None
        alert = server.smtp_alert if server.smtp_alert is not None else self._alert
        return VirtualServer(
            services=services,
            real_servers=tuple(self._real_server(server, one) for one in real_servers),
            protocol=server.protocol,
            address=server.address,
            port=server.port,
            fwmark=server.fwmark,
            group=server.group,
            member=server.member,
            family=server.family or IPV4,
            quorum=server.quorum,
            hysteresis=server.hysteresis,
            quorum_up=server.quorum_up,
            quorum_down=server.quorum_down,
            alpha=server.alpha,
            omega=server.omega,
            ha_suspend=server.ha_suspend,
            smtp_alert=bool(alert),
            sorry_server=sorry,
            virtualhost=server.virtualhost,
            snmp_name=server.snmp_name,
            delay_loop=server.delay_loop,
            position=server.position,
        )

    def _check_service(
        self,
        server: VirtualServerDraft,
        name: str,
        group: GroupDraft | None,
        marks: list[GroupEntry],
        ranges: list[GroupEntry],
    ) -> None:
        """What must hold for the services themselves; corrected where keepalived corrects it."""
        if server.ha_suspend and (server.fwmark or marks):
            self._report(
                server, f"Virtual server {name}: cannot use ha_suspend with fwmarks - clearing ha_suspend"
            )
            server.ha_suspend = False
        if ranges or (not group and not server.fwmark):
            if not server.protocol:
                self._report(server, f"Virtual server {name}: no protocol set - defaulting to UDP")
                server.protocol = UDP
                name = name_of(server)
            if server.one_packet and server.protocol != UDP:
                self._report(
                    server, f"Virtual server {name}: one packet scheduling requires UDP - resetting"
                )
                server.one_packet = False
            if not server.persistence and not group and not server.fwmark and not server.port:
                self._set_persistence(server, name)
        if not server.persistence and any(not entry.port for entry in ranges):
            self._set_persistence(server, name)
        if server.protocol and ((group and marks and not ranges) or (not group and server.fwmark)):
            self._report(
                server,
                f"Warning: Virtual server {name}: protocol specified for fwmark - protocol will be ignored",
            )
            server.protocol = 0
            name = name_of(server)
        if not server.scheduler:
            self._report(
                server,
                f"Virtual server {name}: no scheduler set, setting default '{DEFAULT_SCHEDULER}'",
            )
            server.scheduler = DEFAULT_SCHEDULER

    def _set_persistence(self, server: VirtualServerDraft, name: str) -> None:
        self._report(
            server, f"Virtual server {name}: zero port only valid for persistent services - setting"
        )
        server.persistence = DEFAULT_PERSISTENCE

    def _real_servers(self, server: VirtualServerDraft, name: str) -> list[RealServerDraft]:
        """Its real servers without duplicates, each with a forwarding method."""
        kept: dict[tuple[bytes, int], RealServerDraft] = {}
        for one in server.real_servers:
            key = one.address, one.port
            if key in kept:
                shown = trio(one.address, one.port, server.protocol)
                self._findings.add(
                    Severity.ERROR,
                    f"VS {name}: real server {shown} is duplicated - removing second rs",
                    one.position,
                )
                continue
            kept[key] = one
            if one.method is None:
                self._inherit_method(server, one, name)
            inhibit = server.inhibit if one.inhibit is None else one.inhibit
            sorry = server.sorry_server
            if sorry and (sorry.address, sorry.port) == key and sorry.inhibit != inhibit:
                shown = trio(one.address, one.port, server.protocol)
                self._report(
                    server,
                    f"Virtual server {name}: real server {shown} matches sorry server, but inhibit setting"
                    f" differs, {'sett' if inhibit else 'clear'}ing on sorry server",
                )
                sorry.inhibit = inhibit
        return list(kept.values())

    def _check_sorry_server(self, server: VirtualServerDraft, name: str) -> None:
        if server.sorry_server and server.sorry_server.method is None:
            self._inherit_method(server, server.sorry_server, name)

    def _inherit_method(self, server: VirtualServerDraft, one: ServerDraft, name: str) -> None:
        if server.method is None:
            self._report(server, f"Virtual server {name}: no forwarding method set, setting default NAT")
            server.method = MASQUERADE
        one.method = server.method
        one.tunnel = server.tunnel

    def _check_ports(
        self,
        server: VirtualServerDraft,
        name: str,
        real_servers: list[RealServerDraft],
        group: GroupDraft | None,
        marks: list[GroupEntry],
        ranges: list[GroupEntry],
    ) -> None:
        """Only NAT can translate ports: other methods have the virtual server's, and none for marks."""
        candidates: list[tuple[ServerDraft, bool]] = [(one, False) for one in real_servers]
        if server.sorry_server:
            candidates.append((server.sorry_server, True))
        if group:
            self._check_group_ports(server, name, candidates, marks, ranges)
            return
        for one, is_sorry in candidates:
            if one.method == MASQUERADE:
                if not is_sorry and not server.fwmark and not one.port:
                    one.port = server.port
            elif server.fwmark:
                if one.port:
                    shown = _shown(server, one, is_sorry)
                    which = "virtual server" if is_sorry else "fwmark virtual server"
                    self._report(server, f"WARNING - {which} {name}, {shown} has port specified - clearing")
                    one.port = 0
            elif one.port and one.port != server.port:
                shown = _shown(server, one, is_sorry)
                self._report(
                    server, f"WARNING - virtual server {name} and {shown} ports don't match - resetting"
                )
                one.port = server.port
            else:
                one.port = server.port

    def _check_group_ports(
        self,
        server: VirtualServerDraft,
        name: str,
        candidates: list[tuple[ServerDraft, bool]],
        marks: list[GroupEntry],
        ranges: list[GroupEntry],
    ) -> None:
        for one, is_sorry in candidates:
            if one.method == MASQUERADE or not one.port:
                continue
            shown = _shown(server, one, is_sorry)
            if marks:
                self._report(
                    server,
                    f"WARNING - fwmark virtual server {name}, {shown} has port specified"
                    " - port will be ignored",
                )
            if any(entry.port != one.port for entry in ranges):
                if is_sorry:
                    message = (
                        f"WARNING - virtual server {name}, {shown} has port specified - port will be ignored"
                    )
                else:
                    message = f"virtual server {name} and {shown} ports don't match"
                self._report(server, message)

    # Values.

    def _services(
        self, server: VirtualServerDraft, ranges: list[GroupEntry], marks: list[GroupEntry]
    ) -> tuple[Service, ...]:
        if not server.group:
            if server.fwmark:
                return (self._service(server, ServiceKey(server.family or IPV4, fwmark=server.fwmark)),)
            key = ServiceKey(server.family, server.protocol, server.address, server.port)
            return (self._service(server, key),)
        services = []
        for entry in ranges:
            count = int.from_bytes(entry.last, "big") - int.from_bytes(entry.first, "big") + 1
            if count > MOST_SERVICES:
                self._note(
                    entry.position,
                    f"this range has {count:,} addresses; more than {MOST_SERVICES:,} are not made into"
                    " services - ignoring it. Use a fwmark and `xlvs mark`.",
                )
                continue
            for address in _addresses(entry):
                key = ServiceKey(family_of(address), server.protocol, address, entry.port)
                services.append(self._service(server, key))
        for entry in marks:
            family = entry.family or server.family or IPV4
            services.append(self._service(server, ServiceKey(family, fwmark=entry.fwmark)))
        return tuple(services)

    def _service(self, server: VirtualServerDraft, key: ServiceKey) -> Service:
        return Service(
            key,
            server.scheduler,
            server.flags,
            server.persistence,
            server.granularity,
            server.engine,
            server.one_packet,
            server.idle_timeout,
            server.reject_gone,
            server.rehome,
        )

    def _real_server(self, server: VirtualServerDraft, one: RealServerDraft) -> RealServer:
        alpha = server.alpha if one.alpha is None else one.alpha
        alert = one.smtp_alert if one.smtp_alert is not None else self._alert
        return RealServer(
            _destination(one, _weight(one), one.upper_threshold, one.lower_threshold),
            tuple([self._checker(server, one, checker, alpha) for checker in one.checkers]),
            server.inhibit if one.inhibit is None else one.inhibit,
            alpha,
            one.notify_up,
            one.notify_down,
            alert is None or bool(alert),
            one.virtualhost,
            one.snmp_name,
            server.slow_start if one.slow_start is None else one.slow_start,
            one.position,
        )

    def _checker(
        self, server: VirtualServerDraft, one: RealServerDraft, checker: CheckerDraft, alpha: bool
    ) -> Checker:
        """A checker with all that it inherits: its own word, its real server's, the virtual server's."""
        delay_loop = _first(checker.delay_loop, one.delay_loop, server.delay_loop)
        retry = _first(checker.retry, one.retry, server.retry)
        before_retry = _first(
            checker.delay_before_retry,
            one.delay_before_retry,
            server.delay_before_retry,
            checker.default_delay_before_retry,
        )
        fields = (
            delay_loop,
            _first(checker.warmup, one.warmup, server.warmup, delay_loop),
            checker.default_retry if retry is None else retry,
            delay_loop if before_retry is None else before_retry,
            alpha if checker.alpha is None else checker.alpha,
            checker.log_all_failures or self._log_all,
        )
        schedule = self._schedules.get(fields)
        if schedule is None:
            schedule = self._schedules[fields] = Schedule(*fields)  # type: ignore[arg-type]
        connection = checker.connection
        port = one.written_port or one.port
        if connection.via_vip:
            port = one.port  # that is where clients' packets go
            self._note_way(server, one, checker)
        timeout = connection.timeout
        if timeout is None:
            timeout = server.connect_timeout if one.connect_timeout is None else one.connect_timeout
        return checker.finish(
            schedule,
            Connection(
                connection.address or one.address,
                connection.port or port,
                connection.bind_address,
                connection.bind_port,
                connection.bind_interface,
                connection.fwmark,
                timeout,
                connection.via_vip,
            ),
        )

    def _note_way(self, server: VirtualServerDraft, one: RealServerDraft, checker: CheckerDraft) -> None:
        """A check through a VIP that has none, or none by TCP, can only fail: say so beforehand."""
        if server.fwmark:
            wrong = "a virtual server by fwmark has no virtual address"
        elif server.protocol != TCP:
            wrong = "the virtual server is not one of TCP"
        elif server.address and len(server.address) != len(one.address):
            wrong = "the real server is not of the virtual address's family"
        else:
            return
        self._note(checker.position, f"'via vip': {wrong}, so the check fails: remove 'via vip'")


def _shown(server: VirtualServerDraft, one: ServerDraft, is_sorry: bool) -> str:
    """A real server, or the sorry server, as messages about ports have it."""
    return "sorry server" if is_sorry else f"real server {trio(one.address, one.port, server.protocol)}"


def _first(*values: float | None) -> float | None:
    for value in values:
        if value is not None:
            return value
    return None


def _weight(one: RealServerDraft) -> int:
    return one.virtual_server.weight if one.weight is None else one.weight


def _destination(one: ServerDraft, weight: int, upper: int = 0, lower: int = 0) -> Destination:
    method = one.method or MASQUERADE
    tunnel = (one.tunnel or Tunnel()) if method == TUNNEL else None
    return Destination(one.address, one.port, method, weight, upper, lower, tunnel)


def _addresses(entry: GroupEntry) -> Iterator[bytes]:
    first, last = int.from_bytes(entry.first, "big"), int.from_bytes(entry.last, "big")
    return (number.to_bytes(len(entry.first), "big") for number in range(first, last + 1))


def name_of(server: VirtualServerDraft) -> str:
    """A virtual server as keepalived's messages have it."""
    if server.group:
        return f"[{server.group}]:{server.member}"
    if server.fwmark or not server.address:
        return f"FWM {server.fwmark}"
    return trio(server.address, server.port, server.protocol)
