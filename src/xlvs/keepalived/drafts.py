# SPDX-License-Identifier: GPL-2.0-only
"""Configurations while they are read: the same things as values, not yet complete.

None is what has not been said; `completion.py` fills it in and makes values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xlvs.keepalived.checks import Checker, Connection, Schedule
from xlvs.keepalived.configuration import GroupEntry, TlsClient
from xlvs.keepalived.origin import Position, Script
from xlvs.keepalived.redundancy import (
    BfdInstance,
    GarpGroup,
    InterfaceAddress,
    InterfaceDelay,
    LinkbeatInterface,
    Route,
    Rule,
    TrackFile,
    TrackGroup,
    TrackProcess,
    TrackScript,
)
from xlvs.keepalived.scripts import ScriptUser
from xlvs.model import Tunnel

if TYPE_CHECKING:
    from xlvs.keepalived.memory import Kept


class Fields:
    """What keywords set fields of, by name."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """What keepalived's messages call it."""
        return ""

    def set(self, field: str, value: object) -> None:
        """Note what was said."""
        setattr(self, field, value)


class Draft(Fields):
    """A configuration while it is read.

    ``settings`` are fields of `GlobalSettings` by name, those of the values
    in it with a dot (``mail.sender``).
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.script_user = ScriptUser()
        self.groups: dict[str, GroupDraft] = {}
        self.virtual_servers: list[VirtualServerDraft | Kept] = []
        """In the order of the file; some are known from an earlier reading, or will be by the next."""
        self.tls: TlsClient | None = None
        self.track_files: dict[str, TrackFile] = {}
        self.bfd_instances: dict[str, BfdInstance] = {}
        self.bfd_weights: dict[str, tuple[int, bool]] = {}
        self.bfd_names: set[str] = set()
        self.instances: dict[str, InstanceDraft] = {}
        self.sync_groups: dict[str, SyncGroupDraft] = {}
        self.track_scripts: dict[str, TrackScript] = {}
        self.track_processes: dict[str, TrackProcess] = {}
        self.track_groups: dict[str, TrackGroup] = {}
        self.garp_groups: list[GarpGroup] = []
        self.garp_interfaces: set[str] = set()
        self.static_addresses: list[InterfaceAddress] = []
        self.static_routes: list[Route] = []
        self.static_rules: list[Rule] = []
        self.linkbeat_interfaces: list[LinkbeatInterface] = []
        self.interface_delays: list[InterfaceDelay] = []
        self.next_rule_preference = {2: 16384, 10: 16384}
        """What rules without a preference get, by family; it counts down."""
        self.missing_interface = False

    def set(self, field: str, value: object) -> None:
        """Note a global setting."""
        self.settings[field] = value

    def get(self, field: str) -> Any:
        """A global setting so far, None if it was not said."""
        return self.settings.get(field)


class GroupDraft:
    """A virtual_server_group."""

    __slots__ = ("entries", "name", "position")

    def __init__(self, name: str, position: Position) -> None:
        self.name = name
        self.position = position
        self.entries: list[GroupEntry] = []


class ServerDraft(Fields):
    """What real servers and sorry servers have in common."""

    __slots__ = ("address", "method", "port", "position", "tunnel")

    def __init__(self, address: bytes, port: int, position: Position) -> None:
        self.address = address
        self.port = port
        self.position = position
        self.method: str | None = None
        self.tunnel: Tunnel | None = None


class SorryServerDraft(ServerDraft):
    """A sorry_server."""

    __slots__ = ("inhibit",)

    def __init__(self, address: bytes, port: int, position: Position) -> None:
        super().__init__(address, port, position)
        self.inhibit = False


class RealServerDraft(ServerDraft):
    """A real_server.

    Checks go to ``written_port``, the port that the configuration names: with a method that cannot
    translate ports, ``port`` becomes the virtual server's, and 0 for a mark.
    """

    __slots__ = (
        "alpha", "bfd_names", "checkers", "connect_timeout", "delay_before_retry", "delay_loop",
        "draft", "inhibit", "lower_threshold", "notify_down", "notify_up", "retry", "slow_start",
        "smtp_alert", "snmp_name", "upper_threshold", "virtual_server", "virtualhost", "warmup", "weight",
        "written_port",
    )  # fmt: skip

    def __init__(
        self, address: bytes, port: int, position: Position, virtual_server: VirtualServerDraft, draft: Draft
    ) -> None:
        self.address = address
        self.port = port
        self.written_port = port
        self.position = position
        self.method = virtual_server.method
        self.tunnel = virtual_server.tunnel
        self.virtual_server = virtual_server
        self.draft = draft
        self.weight: int | None = None
        self.upper_threshold = 0
        self.lower_threshold = 0
        self.alpha: bool | None = None
        self.inhibit: bool | None = None
        self.smtp_alert: bool | None = None
        self.connect_timeout: float | None = None
        self.delay_loop: float | None = None
        self.warmup: float | None = None
        self.retry: int | None = None
        self.delay_before_retry: float | None = None
        self.slow_start: float | None = None
        self.notify_up: Script | None = None
        self.notify_down: Script | None = None
        self.virtualhost = ""
        self.snmp_name = ""
        self.checkers: list[CheckerDraft] = []
        self.bfd_names: set[str] = set()

    @property
    def label(self) -> str:
        return self.virtual_server.label


class VirtualServerDraft(Fields):
    """A virtual_server; ``family`` is 0 while it is not known."""

    __slots__ = (
        "address", "alpha", "connect_timeout", "delay_before_retry", "delay_loop", "draft", "engine",
        "family", "flags", "fwmark", "granularity", "group", "ha_suspend", "hysteresis", "idle_timeout",
        "inhibit", "member", "method", "omega", "one_packet", "persistence", "port", "position", "protocol",
        "quorum", "quorum_down", "quorum_up", "real_servers", "rehome", "reject_gone", "retry", "scheduler",
        "slow_start", "smtp_alert", "snmp_name", "sorry_server", "tunnel", "virtualhost", "warmup", "weight",
    )  # fmt: skip

    def __init__(self, draft: Draft, position: Position) -> None:
        self.draft = draft
        self.position = position
        self.address = b""
        self.port = 0
        self.fwmark = 0
        self.group = ""
        self.member = 0
        self.family = 0
        self.protocol = 0
        self.scheduler = ""
        self.flags = 0
        self.one_packet = False
        self.method: str | None = None
        self.tunnel: Tunnel | None = None
        self.persistence = 0
        self.granularity: int | None = None
        self.engine = ""
        self.idle_timeout = 0
        self.reject_gone = False
        self.rehome = False
        self.quorum = 1
        self.hysteresis = 0
        self.quorum_up: Script | None = None
        self.quorum_down: Script | None = None
        self.alpha = False
        self.omega = False
        self.inhibit = False
        self.ha_suspend = False
        self.smtp_alert: bool | None = None
        self.connect_timeout = 5.0
        self.delay_loop = 60.0
        self.warmup: float | None = None
        self.retry: int | None = None
        self.delay_before_retry: float | None = None
        self.slow_start = 0.0
        self.weight = 1
        self.virtualhost = ""
        self.snmp_name = ""
        self.sorry_server: SorryServerDraft | None = None
        self.real_servers: list[RealServerDraft] = []

    @property
    def label(self) -> str:
        return self.group or "(null)"

    def release(self) -> None:
        """Let go of what refers back to it, when it is complete: so it is gone without the collector."""
        for one in self.real_servers:
            one.checkers = []
        self.real_servers = []


class ConnectionDraft(Fields):
    """Where a checker connects to; an empty address is the real server's, port 0 its port."""

    __slots__ = (
        "address", "bind_address", "bind_interface", "bind_port", "fwmark", "port", "timeout", "via_vip",
    )  # fmt: skip

    def __init__(self) -> None:
        self.address = b""
        self.port = 0
        self.bind_address = b""
        self.bind_port = 0
        self.bind_interface = ""
        self.fwmark = 0
        self.timeout: float | None = None
        self.via_vip = False

    def is_untouched(self) -> bool:
        """Has nothing been said?"""
        return not (
            self.address
            or self.port
            or self.bind_address
            or self.bind_port
            or self.bind_interface
            or self.fwmark
            or self.timeout is not None
            or self.via_vip
        )


class CheckerDraft(Fields):
    """A checker of any kind; subclasses make the value.

    ``default_delay_before_retry`` None is the checker's delay_loop.
    """

    __slots__ = (
        "alpha", "connection", "delay_before_retry", "delay_loop", "log_all_failures", "position",
        "real_server", "retry", "warmup",
    )  # fmt: skip

    default_retry = 1
    default_delay_before_retry: float | None = 1.0
    connects = True

    def __init__(self, real_server: RealServerDraft, position: Position) -> None:
        self.real_server = real_server
        self.position = position
        self.connection = ConnectionDraft()
        self.alpha: bool | None = None
        self.delay_loop: float | None = None
        self.warmup: float | None = None
        self.retry: int | None = None
        self.delay_before_retry: float | None = None
        self.log_all_failures = False

    def finish(self, schedule: Schedule, connection: Connection, /) -> Checker:
        """The checker's value, with everything that it inherits."""
        raise NotImplementedError


class TrackingDraft:
    """What an instance or a sync group tracks, by kind and name."""

    __slots__ = ("bfd", "files", "interfaces", "processes", "scripts")

    def __init__(self) -> None:
        from xlvs.keepalived.redundancy import Tracked

        self.interfaces: dict[str, Tracked] = {}
        self.scripts: dict[str, Tracked] = {}
        self.files: dict[str, Tracked] = {}
        self.processes: dict[str, Tracked] = {}
        self.bfd: dict[str, Tracked] = {}


class InstanceDraft(Fields):
    """A vrrp_instance: fields of `VrrpInstance` by name, and what decides while it is read."""

    def __init__(self, draft: Draft, name: str, position: Position) -> None:
        self.draft = draft
        self.name = name
        self.position = position
        self.fields: dict[str, Any] = {}
        self.tracking = TrackingDraft()
        self.scripts: dict[str, Script] = {}
        self.notifies: set[str] = set()
        self.family = 0
        self.version = 0
        self.state = ""
        self.interface = ""
        self.addresses: list[InterfaceAddress] = []
        self.excluded_addresses: list[InterfaceAddress] = []
        self.routes: list[Route] = []
        self.rules: list[Rule] = []
        self.unicast_configured = False

    @property
    def label(self) -> str:
        return self.name

    def set(self, field: str, value: object) -> None:
        self.fields[field] = value


class SyncGroupDraft(Fields):
    """A vrrp_sync_group."""

    def __init__(self, draft: Draft, name: str, position: Position) -> None:
        self.draft = draft
        self.name = name
        self.position = position
        self.members: tuple[str, ...] | None = None
        self.tracking = TrackingDraft()
        self.scripts: dict[str, Script] = {}
        self.notifies: set[str] = set()
        self.smtp_alert: bool | None = None
        self.notify_priority_changes: bool | None = None
        self.tracking_weight = False

    @property
    def label(self) -> str:
        return self.name
