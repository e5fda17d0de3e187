# SPDX-License-Identifier: GPL-2.0-only
"""The table of global_defs: which keyword is of which shape, and which setting it makes."""

from __future__ import annotations

from xlvs.keepalived.keywords.global_process import (
    config_save_dir,
    enable_snmp_rfc,
    global_defs,
    include_check,
    max_auto_priority,
    min_auto_priority_delay,
    net_namespace_ipvs,
    process_names,
    random_seed,
    reload_check_config,
    reload_file,
    reload_time_file,
    snmp_socket,
    tmp_config_directory,
    umask,
)
from xlvs.keepalived.keywords.global_services import (
    MOST_SECONDS,
    enable_script_security,
    hand_edits,
    lvs_flush_on_stop,
    lvs_sync_daemon,
    lvs_timeouts,
    notification_email,
    script_user,
    smtp_connect_timeout,
    smtp_helo_name,
    smtp_server,
)
from xlvs.keepalived.keywords.global_shapes import (
    fifo_keywords,
    nftables_keywords,
    once,
    once_script,
    process,
    process_name,
    receive_buffer,
    seconds,
)
from xlvs.keepalived.keywords.global_vrrp import (
    disable_local_igmp,
    dynamic_interfaces,
    garp_extra_if,
    garp_refresh,
    min_garp,
    multicast,
    nftables_start_fwmark,
    rx_bufs_multiplier,
    rx_bufs_policy,
    vmac_prefix,
    vrrp_iptables,
    vrrp_version,
)
from xlvs.keepalived.keywords.shapes import flag, number, switch, word
from xlvs.keepalived.numbers import INT_MAX
from xlvs.keepalived.statements import Action, Section

MARKS_BY_ITSELF = "groups are services of their own here, so no marks have to be made"
NO_SNMP = "there is no SNMP agent here"
ONE_PROCESS = "xlvsd is one process; set this for its unit (systemctl edit xlvsd)"

Row = tuple[str, Action, str, str, str]
"""Name, action, arguments, meaning, remark."""


def _mail_rows() -> list[Row]:
    bad = "Invalid value '{}' for global %s specified"
    return [
        (
            "router_id",
            word("router_id", "routerid name missing - ignoring"),
            "TEXT",
            "Names this host in mail and logs; default: the host's name.",
            "",
        ),
        ("notification_email", notification_email, "{ ADDRESS … }", "Who gets mail.", ""),
        (
            "notification_email_from",
            word("mail.sender", "emailfrom missing - ignoring"),
            "ADDRESS",
            "The sender.",
            "",
        ),
        ("smtp_server", smtp_server, "HOST [PORT]", "The mail server; default port 25.", ""),
        ("smtp_helo_name", smtp_helo_name, "NAME", "What HELO says; default: the host's name.", ""),
        ("smtp_connect_timeout", smtp_connect_timeout, "SECONDS", "Default 30.", ""),
        (
            "smtp_alert",
            switch("mail.alert", bad % "smtp_alert"),
            "[BOOL]",
            "Mail about everything that does not say.",
            "",
        ),
        (
            "smtp_alert_vrrp",
            switch("mail.alert_vrrp", bad % "smtp_alert_vrrp"),
            "[BOOL]",
            "…about VRRP.",
            "",
        ),
        (
            "smtp_alert_checker",
            switch("mail.alert_checker", bad % "smtp_alert_checker"),
            "[BOOL]",
            "…about virtual and real servers.",
            "",
        ),
        ("no_email_faults", flag("mail.no_email_faults"), "", "No mail about FAULT.", ""),
        (
            "no_checker_emails",
            switch("mail.no_checker_emails", bad % "no_checker_emails"),
            "[BOOL]",
            "Mail for real servers, not for each of their checkers.",
            "",
        ),
    ]


def _script_rows() -> list[Row]:
    startup, startup_timeout = once_script("startup_script", "startup")
    shutdown, shutdown_timeout = once_script("shutdown_script", "shutdown")
    fifo, fifo_script = fifo_keywords("notify_fifo", "")
    vrrp_fifo, vrrp_fifo_script = fifo_keywords("vrrp_notify_fifo", "vrrp_")
    lvs_fifo, lvs_fifo_script = fifo_keywords("lvs_notify_fifo", "lvs_")
    run = "COMMAND [USER [GROUP]]"
    return [
        (
            "script_user",
            script_user,
            "USER [GROUP]",
            "Who runs scripts; default: keepalived_script, or the daemon's user.",
            "",
        ),
        (
            "enable_script_security",
            enable_script_security,
            "",
            "Refuse scripts that others than root can change.",
            "",
        ),
        ("startup_script", startup, run, "Run before anything else.", ""),
        ("startup_script_timeout", startup_timeout, "SECONDS", "Default 10.", ""),
        ("shutdown_script", shutdown, run, "Run at the end.", ""),
        ("shutdown_script_timeout", shutdown_timeout, "SECONDS", "Default 10.", ""),
        ("notify_fifo", fifo, "PATH [USER [GROUP]]", "A FIFO that gets a line for each event.", ""),
        ("notify_fifo_script", fifo_script, run, "Reads it.", ""),
        ("vrrp_notify_fifo", vrrp_fifo, "PATH [USER [GROUP]]", "The same for VRRP alone.", ""),
        ("vrrp_notify_fifo_script", vrrp_fifo_script, run, "Reads it.", ""),
        (
            "lvs_notify_fifo",
            lvs_fifo,
            "PATH [USER [GROUP]]",
            "The same for virtual and real servers alone.",
            "",
        ),
        ("lvs_notify_fifo_script", lvs_fifo_script, run, "Reads it.", ""),
    ]


def _lvs_rows() -> list[Row]:
    return [
        ("lvs_timeouts", lvs_timeouts, "[tcp N] [tcpfin N] [udp N]", "As `ipvsadm --set`, in seconds.", ""),
        (
            "lvs_sync_daemon",
            lvs_sync_daemon,
            "IF [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]",
            "Connection sync that follows a VRRP instance.",
            "",
        ),
        ("lvs_flush", flag("lvs_flush"), "", "Begin with an empty table.", ""),
        (
            "lvs_flush_on_stop",
            lvs_flush_on_stop,
            "[VS]",
            "On stop empty the whole table, or remove whole services.",
            "",
        ),
        ("lvs_flush_onstop", lvs_flush_on_stop, "[VS]", "Its old name.", ""),
        (
            "checker_log_all_failures",
            switch("checker_log_all_failures", "Invalid value for checker_log_all_failures specified"),
            "[BOOL]",
            "For all checkers.",
            "",
        ),
        (
            "rs_init_notifies",
            switch("rs_init_notifies", "Invalid value '{}' for global rs_init_notifies specified"),
            "[BOOL]",
            "Run notify_up, notify_down and quorum scripts for the first state, too.",
            "",
        ),
        (
            "hand_edits",
            hand_edits,
            "report|repair|adopt",
            "What becomes of changes that others make to the table; default repair. xlvs's own.",
            "",
        ),
        (
            "start_unchecked",
            switch("start_unchecked", "Invalid value '{}' for start_unchecked specified"),
            "[BOOL]",
            "Real servers serve before their first check, as in keepalived. xlvs's own.",
            "",
        ),
    ]


def _vrrp_rows() -> list[Row]:
    def said(name: str) -> str:
        return f"Invalid value for {name} specified"

    return [
        ("vrrp_version", vrrp_version, "2|3", "Default 2.", ""),
        ("vrrp_mcast_group4", multicast(4, 4), "ADDRESS", "Default 224.0.0.18.", ""),
        ("vrrp_mcast_group6", multicast(6, 16), "ADDRESS", "Default ff02::12.", ""),
        (
            "vrrp_garp_master_delay",
            number("vrrp.garp_delay", "vrrp_garp_master_delay '{}' invalid - ignoring", 0, MOST_SECONDS),
            "SECONDS",
            "Default 5.",
            "",
        ),
        (
            "vrrp_garp_master_repeat",
            number("vrrp.garp_repeat", "vrrp_garp_master_repeat '{}' invalid - ignoring", least=1),
            "N",
            "Default 5.",
            "",
        ),
        ("vrrp_garp_master_refresh", garp_refresh, "SECONDS", "Default 0: never.", ""),
        (
            "vrrp_garp_master_refresh_repeat",
            number(
                "vrrp.garp_refresh_repeat",
                "vrrp_garp_master_refresh_repeat '{}' invalid - ignoring",
                least=1,
            ),
            "N",
            "Default 1.",
            "",
        ),
        (
            "vrrp_garp_lower_prio_delay",
            number(
                "vrrp.garp_lower_prio_delay",
                "vrrp_garp_lower_prio_delay '{}' invalid - ignoring",
                0,
                MOST_SECONDS,
            ),
            "SECONDS",
            "Default: garp_master_delay.",
            "",
        ),
        (
            "vrrp_garp_lower_prio_repeat",
            number("vrrp.garp_lower_prio_repeat", "Invalid vrrp_garp_lower_prio_repeat '{}'", 0, INT_MAX),
            "N",
            "Default: garp_master_repeat.",
            "",
        ),
        (
            "vrrp_down_timer_adverts",
            number("vrrp.down_timer_adverts", "Invalid vrrp_down_timer_adverts [1:100] '{}'", 1, 100),
            "N",
            "Default 3.",
            "",
        ),
        (
            "vrrp_garp_interval",
            seconds("vrrp.garp_interval", "vrrp_garp_interval '{}' is invalid", 1, 1),
            "SECONDS",
            "Between gratuitous ARP messages.",
            "",
        ),
        (
            "vrrp_gna_interval",
            seconds("vrrp.gna_interval", "vrrp_gna_interval '{}' is invalid", 1, 1),
            "SECONDS",
            "Between unsolicited neighbour advertisements.",
            "",
        ),
        ("vrrp_min_garp", min_garp, "[BOOL]", "One gratuitous ARP, none repeated.", ""),
        (
            "vrrp_garp_extra_if",
            garp_extra_if,
            "[all] SECONDS",
            "Gratuitous ARP on other interfaces of the addresses.",
            "",
        ),
        ("vrrp_vmac_garp_intvl", garp_extra_if, "[all] SECONDS", "Its old name.", ""),
        (
            "vrrp_lower_prio_no_advert",
            switch("vrrp.lower_prio_no_advert", said("vrrp_lower_prio_no_advert")),
            "[BOOL]",
            "No answer to adverts of lower priority.",
            "",
        ),
        (
            "vrrp_higher_prio_send_advert",
            switch("vrrp.higher_prio_send_advert", said("vrrp_higher_prio_send_advert")),
            "[BOOL]",
            "A last advert when a higher priority comes.",
            "",
        ),
        (
            "vrrp_check_unicast_src",
            flag("vrrp.check_unicast_src"),
            "",
            "Only peers may send unicast adverts.",
            "",
        ),
        (
            "vrrp_skip_check_adv_addr",
            flag("vrrp.skip_check_adv_addr"),
            "",
            "Look at an advert's addresses once per master.",
            "",
        ),
        ("vrrp_strict", flag("vrrp.strict"), "", "RFC 5798 to the letter.", ""),
        (
            "vrrp_notify_priority_changes",
            switch(
                "vrrp.notify_priority_changes",
                "Invalid value '{}' for global vrrp_notify_priority_changes specified",
            ),
            "[BOOL]",
            "Events for priorities, too.",
            "",
        ),
        (
            "fifo_write_vrrp_states_on_reload",
            flag("vrrp.fifo_write_states_on_reload"),
            "",
            "Repeat states into FIFOs after a reload.",
            "",
        ),
        (
            "vrrp_startup_delay",
            seconds("vrrp.startup_delay", "vrrp_startup_delay '{}' is invalid", 1000, 60),
            "SECONDS",
            "Before the first VRRP.",
            "",
        ),
        ("log_unknown_vrids", flag("vrrp.log_unknown_vrids"), "", "Log adverts of others.", ""),
        ("dynamic_interfaces", dynamic_interfaces, "[allow_if_changes]", "Interfaces may come later.", ""),
        (
            "default_interface",
            word("vrrp.default_interface", "default_interface requires interface name"),
            "IF",
            "For static addresses that name none.",
            "",
        ),
        ("disable_local_igmp", disable_local_igmp, "", "No IGMP for link-local groups.", ""),
        (
            "vmac_prefix",
            vmac_prefix("vrrp.vmac_prefix", "vmac"),
            "TEXT",
            "Begins the names of VMAC interfaces.",
            "",
        ),
        (
            "vmac_addr_prefix",
            vmac_prefix("vrrp.vmac_addr_prefix", "vmac_addr"),
            "TEXT",
            "…of those for addresses.",
            "",
        ),
        ("vrrp_rx_bufs_policy", rx_bufs_policy, "MTU|ADVERT|BYTES", "Receive buffers.", ""),
        ("vrrp_rx_bufs_multiplier", rx_bufs_multiplier, "N", "Default 3.", ""),
        ("vrrp_iptables", vrrp_iptables, "", "The old way; nftables is used.", ""),
    ]


def _process_rows() -> list[Row]:
    rows: list[Row] = [
        ("process_name", process_name("process_name"), "NAME", "The parent's name.", ONE_PROCESS),
        ("process_names", process_names, "", "Names that tell processes apart.", ONE_PROCESS),
        ("max_auto_priority", max_auto_priority, "[N]", "Raise the priority when late.", ONE_PROCESS),
        (
            "min_auto_priority_delay",
            min_auto_priority_delay,
            "MICROSECONDS",
            "How late that is.",
            ONE_PROCESS,
        ),
    ]
    arguments = {
        "priority": "N",
        "rt_priority": "N",
        "cpu_affinity": "CPU …",
        "rlimit_rttime": "MICROSECONDS",
        "no_swap": "",
        "process_name": "NAME",
    }
    for which in ("vrrp", "checker", "bfd"):
        actions = process(which)
        for what, action in actions.items():
            rows.append((f"{which}_{what}", action, arguments[what], "Of one process.", ONE_PROCESS))
        old = actions["rlimit_rttime"]
        rows.append((f"{which}_rlimit_rtime", old, "MICROSECONDS", "Its old name.", ONE_PROCESS))
        if which == "checker":
            named = actions["process_name"]
            rows.append(
                ("lvs_process_name", named, "NAME", "The old name of checker_process_name.", ONE_PROCESS)
            )
    for name in (
        "vrrp_netlink_cmd",
        "vrrp_netlink_monitor",
        "process_monitor",
        "lvs_netlink_cmd",
        "lvs_netlink_monitor",
    ):
        size, force = receive_buffer(name, name)
        rows.append((f"{name}_rcv_bufs", size, "BYTES", "A netlink socket's receive buffer.", ""))
        rows.append((f"{name}_rcv_bufs_force", force, "[BOOL]", "Beyond rmem_max, if it must be.", ""))
    return rows


def _other_rows() -> list[Row]:
    nftables, nftables_priority = nftables_keywords("nftables", "nftables", "keepalived", 0)
    ipvs, ipvs_priority = nftables_keywords("nftables_ipvs", "ipvs nftables", "keepalived_ipvs", 1000)
    bus = "there is no D-Bus service here; see `xlvs events --follow`"
    return [
        ("nftables", nftables, "[TABLE]", "The table for no_accept and the like.", ""),
        ("nftables_priority", nftables_priority, "N", "Its chains' priority.", ""),
        ("nftables_ifindex", flag("nftables.use_ifindex"), "", "Interfaces by number in it.", ""),
        ("nftables_ipvs", ipvs, "[TABLE]", "One mark for a virtual server group.", MARKS_BY_ITSELF),
        ("nftables_ipvs_priority", ipvs_priority, "N", "", MARKS_BY_ITSELF),
        ("nftables_ipvs_start_fwmark", nftables_start_fwmark, "MARK", "", MARKS_BY_ITSELF),
        ("nftables_counters", flag("nftables_counters"), "", "Count packets in the tables.", ""),
        ("snmp_socket", snmp_socket, "ADDRESS", "", NO_SNMP),
        ("enable_traps", flag("snmp.traps"), "", "", NO_SNMP),
        ("enable_snmp_vrrp", flag("snmp.vrrp"), "", "", NO_SNMP),
        ("enable_snmp_keepalived", flag("snmp.vrrp"), "", "", NO_SNMP),
        ("enable_snmp_checker", flag("snmp.checker"), "", "", NO_SNMP),
        ("enable_snmp_rfc", enable_snmp_rfc, "", "", NO_SNMP),
        ("enable_snmp_rfcv2", flag("snmp.rfcv2"), "", "", NO_SNMP),
        ("enable_snmp_rfcv3", flag("snmp.rfcv3"), "", "", NO_SNMP),
        ("enable_dbus", flag("enable_dbus"), "", "", bus),
        (
            "dbus_service_name",
            word("dbus_service_name", "dbus_service_name missing - ignoring"),
            "NAME",
            "",
            bus,
        ),
        ("umask", umask, "BITS", "Of the files that are written.", ""),
        ("random_seed", random_seed, "N", "Makes ${_RANDOM} repeatable.", ""),
        (
            "include_check",
            include_check,
            "[[+|-]read|match|wildcard_match|brace_match …]",
            "What includes must find.",
            "",
        ),
        ("reload_check_config", reload_check_config, "[LOGFILE]", "Test before a reload.", ""),
        ("reload_time_file", reload_time_file, "PATH", "When to reload.", ""),
        ("reload_repeat", flag("reload_repeat"), "", "…again and again.", ""),
        ("reload_file", reload_file, "[PATH]", "Is there while a reload goes on.", ""),
        ("config_save_dir", config_save_dir, "FOLDER", "Keep what was read, for debugging.", ""),
        (
            "tmp_config_directory",
            tmp_config_directory,
            "FOLDER",
            "",
            "the configuration is read once, so no copy is made",
        ),
        (
            "data_use_instance",
            switch("data_use_instance", "Invalid value '{}' for global date_use_instance specified"),
            "[BOOL]",
            "The instance in the names of dumps.",
            "",
        ),
    ]


_NO_RELOAD_TIME = "xlvsd reloads when it is told to: systemctl reload xlvsd"
_NO_NETLINK = "xlvsd needs no such socket: leave it out"
_FOR_VRRP = "it is for VRRP, which xlvsd does not run: see `keepalived -P`"
_WITHOUT_EFFECT = {
    "lvs_sync_daemon": "connections are not synchronized: leave it out",
    "lvs_netlink_cmd_rcv_bufs": _NO_NETLINK,
    "lvs_netlink_cmd_rcv_bufs_force": _NO_NETLINK,
    "lvs_netlink_monitor_rcv_bufs": _NO_NETLINK,
    "lvs_netlink_monitor_rcv_bufs_force": _NO_NETLINK,
    "process_monitor_rcv_bufs": _FOR_VRRP,
    "process_monitor_rcv_bufs_force": _FOR_VRRP,
    "vrrp_notify_fifo": _FOR_VRRP,
    "vrrp_notify_fifo_script": _FOR_VRRP,
    "smtp_alert_vrrp": _FOR_VRRP,
    "no_email_faults": _FOR_VRRP,
    "nftables": _FOR_VRRP,
    "nftables_priority": _FOR_VRRP,
    "nftables_ifindex": _FOR_VRRP,
    "nftables_counters": _FOR_VRRP,
    "reload_check_config": "xlvsd always does: a configuration that cannot be run changes nothing",
    "reload_time_file": _NO_RELOAD_TIME,
    "reload_repeat": _NO_RELOAD_TIME,
    "reload_file": "no file says so: wait for `systemctl reload xlvsd`, or see `xlvs events`",
    "config_save_dir": "nothing is saved there: leave it out",
    "data_use_instance": "the files of SIGUSR1 and SIGUSR2 have no instance's name",
}
"""What is read, and changes nothing here: what to do instead."""

GLOBAL_DEFS = Section("global_defs")
for _rows in (_mail_rows, _script_rows, _lvs_rows, _vrrp_rows, _process_rows, _other_rows):
    for _name, _action, _arguments, _meaning, _remark in _rows():
        _why = _remark or _WITHOUT_EFFECT.get(_name, "") or (_FOR_VRRP if _rows is _vrrp_rows else "")
        GLOBAL_DEFS.add(_name, _action, _arguments, _meaning, remark=_why)


def add_global_roots(root: Section) -> None:
    """Enter global_defs and what else is read before everything else."""
    root.add(
        "linkbeat_use_polling", flag("vrrp.linkbeat_use_polling"), "", "Poll links of all interfaces.",
        remark=_FOR_VRRP,
    )  # fmt: skip
    root.add(
        "net_namespace", once("net_namespace", "net_namespace name missing - ignoring", "net_namespace"),
        "NAME", "Run in that network namespace.",
        remark="xlvsd runs where it is started: ip netns exec NAME xlvsd",
    )  # fmt: skip
    root.add(
        "net_namespace_ipvs", net_namespace_ipvs, "[NAME]", "Keep the table in that one.",
        remark="xlvsd keeps the table where it is started: ip netns exec NAME xlvsd",
    )  # fmt: skip
    root.add(
        "namespace_with_ipsets", flag("namespace_with_ipsets"), "", "",
        remark="no ipsets are used here",
    )  # fmt: skip
    root.add(
        "use_pid_dir", flag("use_pid_dir"), "", "Pid files in /run/keepalived.",
        remark="xlvsd writes a pid file only where -p says",
    )  # fmt: skip
    root.add(
        "instance", once("instance", "instance name missing - ignoring", "instance"),
        "NAME", "Names this of several instances.",
    )  # fmt: skip
    root.add(
        "child_wait_time", number("child_wait_time", "Invalid child_wait_time {}", lenient=False),
        "SECONDS", "", remark=ONE_PROCESS,
    )  # fmt: skip
    root.add("global_defs", global_defs, "", "What holds for everything.", block=GLOBAL_DEFS)
