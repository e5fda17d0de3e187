# SPDX-License-Identifier: GPL-2.0-only
"""VRRP as values: instances, sync groups, what they track, addresses and routes, BFD.

Units: durations are in seconds, addresses packed (network byte order).
A value of None means that the instance has what global_defs say.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from xlvs.keepalived.origin import Position, Script


@dataclass(frozen=True, slots=True)
class TrackFile:
    """track_file: a file with a number.

    ``initialise`` is the number to write when the file is missing (with
    ``overwrite`` also when it is not), None to write none.
    """

    name: str
    path: str
    weight: int = 1
    reverse: bool = False
    initialise: int | None = None
    overwrite: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class TrackScript:
    """vrrp_script.  ``weight`` 0: a failure is FAULT."""

    name: str
    script: Script
    interval: int = 1
    timeout: int = 0
    weight: int = 0
    reverse: bool = False
    rise: int = 1
    fall: int = 1
    init_fail: bool = False
    position: Position = field(default=Position(), compare=False)


class ParameterMatch(enum.Enum):
    """How a process's arguments are compared with those of vrrp_track_process."""

    NONE = "none"
    EXACT = "exact"
    PARTIAL = "partial"
    INITIAL = "initial"


@dataclass(frozen=True, slots=True)
class TrackProcess:
    """vrrp_track_process.  ``quorum_max`` is None for any number."""

    name: str
    path: str
    arguments: tuple[str, ...] = ()
    match: ParameterMatch = ParameterMatch.NONE
    weight: int = 0
    reverse: bool = False
    quorum: int = 1
    quorum_max: int | None = None
    fork_delay: float = 0.0
    terminate_delay: float = 0.0
    full_command: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class Tracked:
    """A line of a track_* block: what is tracked, and what that does to the priority."""

    name: str
    weight: int = 0
    reverse: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class Tracking:
    """All that an instance or a sync group tracks."""

    interfaces: tuple[Tracked, ...] = ()
    scripts: tuple[Tracked, ...] = ()
    files: tuple[Tracked, ...] = ()
    processes: tuple[Tracked, ...] = ()
    bfd: tuple[Tracked, ...] = ()


@dataclass(frozen=True, slots=True)
class BfdInstance:
    """bfd_instance.  Intervals are in milliseconds; ``max_hops`` -1 is any number.

    ``vrrp`` and ``checker`` say who hears of the session's state.
    """

    name: str
    neighbor: bytes
    source: bytes = b""
    min_rx: float = 10.0
    min_tx: float = 10.0
    idle_tx: float = 1000.0
    multiplier: int = 5
    passive: bool = False
    ttl: int = 255
    max_hops: int = 0
    weight: int = 0
    reverse: bool = False
    vrrp: bool = True
    checker: bool = True
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address to put on an interface: a VIP, or one of static_ipaddress.

    ``interface`` is empty for the instance's.  ``broadcast`` and ``peer`` are
    packed, empty for none.  ``scope`` is rtnetlink's number.
    ``preferred_lifetime`` is None for the default.
    """

    address: bytes
    prefix_length: int
    interface: str = ""
    broadcast: bytes = b""
    peer: bytes = b""
    scope: int = 0
    label: str = ""
    home: bool = False
    no_dad: bool = False
    manage_temporary: bool = False
    no_prefix_route: bool = False
    auto_join: bool = False
    preferred_lifetime: int | None = None
    no_track: bool = False
    track_group: str = ""
    use_vmac: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class NextHop:
    """A way of a multipath route."""

    via: bytes = b""
    interface: str = ""
    weight: int = 1
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A route as `ip route` would add it.

    ``destination`` is packed, empty with ``prefix_length`` 0 for the default
    route.  ``options`` are (name, value) as written, for what rtnetlink has
    under RTA_METRICS and the like (``mtu``, ``metric``, ``encap``…).
    """

    family: int
    destination: bytes = b""
    prefix_length: int = 0
    kind: str = "unicast"
    via: bytes = b""
    source: bytes = b""
    interface: str = ""
    table: str = "main"
    next_hops: tuple[NextHop, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    no_track: bool = False
    track_group: str = ""
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule as `ip rule` would add it; ``options`` as in `Route`."""

    family: int
    action: str
    source: str = ""
    destination: str = ""
    table: str = ""
    preference: int | None = None
    invert: bool = False
    options: tuple[tuple[str, str], ...] = ()
    no_track: bool = False
    track_group: str = ""
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class TrackGroup:
    """track_group: VRRP instances that decide whether static addresses and routes stand."""

    name: str
    instances: tuple[str, ...] = ()
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class GarpGroup:
    """garp_group: how fast gratuitous ARP (and ND) goes out of some interfaces.

    ``shared``: all ``interfaces`` together, not each by itself.
    """

    garp_interval: float | None = None
    gna_interval: float | None = None
    interfaces: tuple[str, ...] = ()
    shared: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class NotifyScripts:
    """Scripts for changes of state.  ``deleted`` without a script is ``notify_deleted`` alone."""

    master: Script | None = None
    backup: Script | None = None
    fault: Script | None = None
    stop: Script | None = None
    deleted: Script | None = None
    any_state: Script | None = None
    master_rx_lower_pri: Script | None = None


@dataclass(frozen=True, slots=True)
class UnicastPeer:
    """A peer that adverts are sent to."""

    address: bytes
    min_ttl: int = 0
    max_ttl: int = 255


class Authentication(enum.Enum):
    """Authentication of VRRP version 2 (RFC 2338)."""

    NONE = "none"
    PASS = "PASS"
    AH = "AH"


@dataclass(frozen=True, slots=True)
class VrrpInstance:
    """vrrp_instance."""

    name: str
    interface: str = ""
    virtual_router_id: int = 0
    master: bool = False
    priority: int = 100
    version: int = 2
    family: int = 0
    advert_interval: float = 1.0
    authentication: Authentication = Authentication.NONE
    password: bytes = b""
    addresses: tuple[InterfaceAddress, ...] = ()
    excluded_addresses: tuple[InterfaceAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    tracking: Tracking = Tracking()
    notify: NotifyScripts = NotifyScripts()
    notify_deleted: bool = False
    notify_priority_changes: bool | None = None
    smtp_alert: bool | None = None
    nopreempt: bool = False
    preempt_delay: float = 0.0
    source: bytes = b""
    track_source: bool = False
    multicast_group: bytes = b""
    unicast: bool = False
    unicast_peers: tuple[UnicastPeer, ...] = ()
    unicast_ttl: int | None = None
    unicast_fault_no_peer: bool = False
    check_unicast_src: bool = False
    old_unicast_checksum: str = ""
    use_vmac: bool = False
    vmac_interface: str = ""
    vmac_address: bytes = b""
    use_vmac_addr: bool = False
    vmac_xmit_base: bool = False
    use_ipvlan: bool = False
    ipvlan_mode: str = "bridge"
    ipvlan_address: str = ""
    vrf: str = ""
    dont_track_primary: bool = False
    linkbeat_use_polling: bool = False
    promote_secondaries: bool = False
    native_ipv6: bool = False
    accept: bool | None = None
    skip_check_adv_addr: bool | None = None
    strict_mode: bool | None = None
    garp_delay: int | None = None
    garp_repeat: int | None = None
    garp_refresh: int | None = None
    garp_refresh_repeat: int | None = None
    garp_lower_prio_delay: int | None = None
    garp_lower_prio_repeat: int | None = None
    garp_extra_if: int | None = None
    garp_extra_if_all: bool = False
    down_timer_adverts: int | None = None
    lower_prio_no_advert: bool | None = None
    higher_prio_send_advert: bool | None = None
    kernel_rx_buf_size: int = 0
    debug: int = 0
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class SyncGroup:
    """vrrp_sync_group: instances that are MASTER together or not at all."""

    name: str
    instances: tuple[str, ...] = ()
    tracking: Tracking = Tracking()
    notify: NotifyScripts = NotifyScripts()
    notify_priority_changes: bool | None = None
    smtp_alert: bool | None = None
    tracking_weight: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class LinkbeatInterface:
    """An interface whose link is polled; ``method`` is MII, ETHTOOL, IOCTL or empty for any."""

    name: str
    method: str = ""
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class InterfaceDelay:
    """How long an interface must be down, or up, before that counts."""

    name: str
    down: float
    up: float = 0.0
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class Redundancy:
    """All that a configuration says about VRRP, and about addresses that stand without it."""

    instances: tuple[VrrpInstance, ...] = ()
    sync_groups: tuple[SyncGroup, ...] = ()
    scripts: tuple[TrackScript, ...] = ()
    processes: tuple[TrackProcess, ...] = ()
    track_groups: tuple[TrackGroup, ...] = ()
    garp_groups: tuple[GarpGroup, ...] = ()
    static_addresses: tuple[InterfaceAddress, ...] = ()
    static_routes: tuple[Route, ...] = ()
    static_rules: tuple[Rule, ...] = ()
    linkbeat_interfaces: tuple[LinkbeatInterface, ...] = ()
    interface_delays: tuple[InterfaceDelay, ...] = ()
