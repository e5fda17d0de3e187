# SPDX-License-Identifier: GPL-2.0-only
"""global_defs as values, each default as keepalived 2.2.7 has it.

Units: durations are in seconds, addresses packed, ports in host order.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from xlvs.keepalived.origin import NotifyFifo, Position, Script


class FlushOnStop(enum.Enum):
    """What ``lvs_flush_on_stop`` removes: nothing (one by one instead), everything, our services."""

    NO = "no"
    ALL = "all"
    SERVICES = "VS"


class HandEdits(enum.Enum):
    """What becomes of changes that others make to the table: reported, and then…"""

    REPORT = "report"
    """…left."""
    REPAIR = "repair"
    """…undone."""
    ADOPT = "adopt"
    """…kept until the configuration changes."""


@dataclass(frozen=True, slots=True)
class Mail:
    """Whom to send mail about changes to, and how.

    Nothing is sent unless ``server`` and ``recipients`` are there.  ``server``
    is packed; ``sender`` and ``helo_name`` are empty for defaults made of the
    host's name.  ``alert``, ``alert_vrrp`` and ``alert_checker`` are None
    where the configuration does not say.
    """

    recipients: tuple[str, ...] = ()
    sender: str = ""
    server: bytes = b""
    server_port: int = 25
    helo_name: str = ""
    connect_timeout: float = 30.0
    alert: bool | None = None
    alert_vrrp: bool | None = None
    alert_checker: bool | None = None
    no_email_faults: bool = False
    no_checker_emails: bool = False


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Scheduling of the process that does one job (vrrp, checker, bfd).

    0 and empty are the system's default; ``rlimit_rttime`` is in microseconds.
    """

    name: str = ""
    priority: int = 0
    no_swap: bool = False
    rt_priority: int = 0
    cpu_affinity: tuple[int, ...] = ()
    rlimit_rttime: int = 10000


@dataclass(frozen=True, slots=True)
class LvsTimeouts:
    """``lvs_timeouts``, in seconds; 0 leaves the one in force."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """``lvs_sync_daemon``: the connection sync that follows a VRRP instance.

    ``sync_id`` is None for the instance's virtual router id.  0 and empty
    values are IPVS's defaults.
    """

    interface: str
    instance: str = ""
    sync_id: int | None = None
    max_length: int = 0
    port: int = 0
    ttl: int = 0
    group: bytes = b""
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class ReceiveBuffer:
    """A netlink socket's receive buffer in bytes (0: the kernel's), and whether to exceed rmem_max."""

    size: int = 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Nftables:
    """A table of nftables that keepalived keeps for itself.  None of it is made for `start_fwmark` 0."""

    table: str
    priority: int = -1
    use_ifindex: bool = False
    start_fwmark: int = 0


@dataclass(frozen=True, slots=True)
class VrrpDefaults:
    """What VRRP instances start from, and what holds for all of them.

    ``garp_lower_prio_delay`` and ``garp_lower_prio_repeat`` are None for what
    ``garp_delay`` and ``garp_repeat`` say.
    """

    version: int = 2
    multicast_group4: bytes = bytes((224, 0, 0, 18))
    multicast_group6: bytes = bytes.fromhex("ff020000000000000000000000000012")
    garp_delay: int = 5
    garp_repeat: int = 5
    garp_refresh: int = 0
    garp_refresh_repeat: int = 1
    garp_lower_prio_delay: int | None = None
    garp_lower_prio_repeat: int | None = None
    garp_interval: float = 0.0
    gna_interval: float = 0.0
    garp_extra_if: int = 0
    garp_extra_if_all: bool = False
    down_timer_adverts: int = 3
    lower_prio_no_advert: bool = False
    higher_prio_send_advert: bool = False
    check_unicast_src: bool = False
    skip_check_adv_addr: bool = False
    strict: bool = False
    notify_priority_changes: bool = False
    startup_delay: float = 0.0
    log_unknown_vrids: bool = False
    dynamic_interfaces: bool = False
    allow_if_changes: bool = False
    default_interface: str = ""
    disable_local_igmp: bool = False
    linkbeat_use_polling: bool = False
    vmac_prefix: str = ""
    vmac_addr_prefix: str = ""
    rx_bufs_mtu: bool = False
    rx_bufs_advert: bool = False
    rx_bufs_size: int = 0
    rx_bufs_multiplier: int = 3
    fifo_write_states_on_reload: bool = False


@dataclass(frozen=True, slots=True)
class Snmp:
    """Which SNMP agents are asked for.  There is none here: `xlvsd -t` says so."""

    socket: str = ""
    traps: bool = False
    vrrp: bool = False
    checker: bool = False
    rfcv2: bool = False
    rfcv3: bool = False


@dataclass(frozen=True, slots=True)
class GlobalSettings:
    """global_defs, and the few keywords that stand outside of blocks.

    ``router_id`` is empty for the host's name.  ``reload_check`` is the file
    for what a check before a reload finds, empty for no such check.
    ``max_auto_priority`` -1 never raises the priority, 0 is unset.
    ``script_user`` and ``script_group`` are names, empty when not given;
    ``script_uid`` and ``script_gid`` are who runs scripts that name no user.
    ``umask`` is None where the command line's or the default holds.
    """

    router_id: str = ""
    mail: Mail = Mail()
    instance: str = ""
    net_namespace: str = ""
    net_namespace_ipvs: str | None = None
    use_pid_dir: bool = False
    child_wait_time: int = 5
    process_name: str = ""
    vrrp_process: ProcessSettings = ProcessSettings()
    checker_process: ProcessSettings = ProcessSettings()
    bfd_process: ProcessSettings = ProcessSettings()
    max_auto_priority: int = 0
    min_auto_priority_delay: int = 1000000

    enable_script_security: bool = False
    script_user: str = ""
    script_group: str = ""
    script_uid: int = 0
    script_gid: int = 0
    startup_script: Script | None = None
    startup_script_timeout: int = 10
    shutdown_script: Script | None = None
    shutdown_script_timeout: int = 10
    notify_fifo: NotifyFifo = NotifyFifo()
    vrrp_notify_fifo: NotifyFifo = NotifyFifo()
    lvs_notify_fifo: NotifyFifo = NotifyFifo()

    lvs_timeouts: LvsTimeouts = LvsTimeouts()
    lvs_sync_daemon: SyncDaemon | None = None
    lvs_flush: bool = False
    lvs_flush_on_stop: FlushOnStop = FlushOnStop.NO
    checker_log_all_failures: bool = False
    rs_init_notifies: bool = False
    hand_edits: HandEdits = HandEdits.REPAIR
    start_unchecked: bool = False

    vrrp: VrrpDefaults = VrrpDefaults()
    nftables: Nftables | None = None
    nftables_ipvs: Nftables | None = None
    nftables_counters: bool = False
    snmp: Snmp = Snmp()
    enable_dbus: bool = False
    dbus_service_name: str = ""

    vrrp_netlink_cmd: ReceiveBuffer = ReceiveBuffer()
    vrrp_netlink_monitor: ReceiveBuffer = ReceiveBuffer()
    lvs_netlink_cmd: ReceiveBuffer = ReceiveBuffer()
    lvs_netlink_monitor: ReceiveBuffer = ReceiveBuffer()
    process_monitor: ReceiveBuffer = ReceiveBuffer()

    umask: int | None = None
    random_seed: int | None = None
    reload_check: str = ""
    reload_time_file: str = ""
    reload_repeat: bool = False
    reload_file: str = ""
    config_save_dir: str = ""
    tmp_config_directory: str = ""
    data_use_instance: bool = False
    namespace_with_ipsets: bool = False
