# SPDX-License-Identifier: GPL-2.0-only
"""What the keywords of global_defs do: a handful of shapes, and those that are like no other.

A shape makes an action for a field of `GlobalSettings`; keywords_global.py says
which keyword has which.
"""

from __future__ import annotations

import os
import re

from xlvs.keepalived.addresses import is_multicast, read_address
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.files import EVERYTHING, Demand
from xlvs.keepalived.numbers import (
    INT_MAX,
    INT_MIN,
    SECOND,
    UINT_MAX,
    read_decimal,
    read_int,
    read_switch,
    read_unsigned,
)
from xlvs.keepalived.origin import NotifyFifo
from xlvs.keepalived.scripts import find_user, read_script
from xlvs.keepalived.settings import FlushOnStop, HandEdits, LvsTimeouts, SyncDaemon
from xlvs.keepalived.statements import Action, Cursor

MOST_SECONDS = UINT_MAX // SECOND
_MOST_LVS_TIMEOUT = 86400 * 31
_MOST_PROCESS_NAME = 15
_MOST_INTERFACE_NAME = 15
_MOST_RT_PRIORITY = 99
NO_SNMP = "there is no SNMP agent here"
ONE_PROCESS = "xlvsd is one process; set this for its unit (systemctl edit xlvsd)"
MARKS_BY_ITSELF = "groups are services of their own here, so no marks have to be made"
_MOST_TABLE_NAME = 255


# Shapes.


def flag(field: str) -> Action:
    """A keyword that says something by being there."""

    def action(draft: Draft, _at: Cursor) -> None:
        draft.set(field, True)

    return action


def switch(field: str, complaint: str) -> Action:
    """``KEYWORD [BOOL]``; ``complaint`` has the wrong word where ``{}`` stands."""

    def action(draft: Draft, at: Cursor) -> None:
        value = read_switch(at)
        if value is None:
            at.report(complaint.format(at.words[1]))
        else:
            draft.set(field, value)

    return action


def word(field: str, missing: str = "") -> Action:
    """``KEYWORD TEXT``; without text ``missing`` is reported, or reading ends where it is empty."""

    def action(draft: Draft, at: Cursor) -> None:
        if missing and len(at.words) < 2:
            at.report(missing)
        else:
            draft.set(field, at.word(1))

    return action


def number(
    field: str,
    complaint: str,
    low: int = 0,
    high: int = UINT_MAX,
    *,
    lenient: bool = True,
    least: int | None = None,
) -> Action:
    """``KEYWORD N``; what is below ``least`` becomes it, and is reported."""

    def action(draft: Draft, at: Cursor) -> None:
        value = read_unsigned(at, at.word(1), low, high, lenient=lenient)
        if value is None:
            at.report(complaint.format(at.words[1]))
            return
        if least is not None and value < least:
            at.report(f"{at.words[0]} must be greater than 0, setting to {least}")
            value = least
        draft.set(field, value)

    return action


def seconds(field: str, complaint: str, low: int, large: float) -> Action:
    """``KEYWORD SECONDS``, with decimals; more than ``large`` is noted."""

    def action(draft: Draft, at: Cursor) -> None:
        value = read_decimal(at, at.word(1), low, UINT_MAX, 6)
        if value is None:
            at.report(complaint.format(at.words[1]))
            return
        draft.set(field, value / SECOND)
        if value / SECOND >= large:
            at.note(f"The {at.words[0]} is very large - {at.words[1]} seconds")

    return action


def process(which: str) -> dict[str, Action]:
    """The keywords about one of keepalived's processes, by what follows its name."""

    def priority(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(f"No {which} process priority specified")
            return
        value = read_int(at, at.words[1], -20, 19)
        if value is None:
            at.report(f"Invalid {which} process priority specified")
        else:
            draft.set(f"{which}_process.priority", value)

    def rt_priority(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(f"No {which} process real-time priority specified")
            return
        value = read_int(at, at.words[1])
        if value is None:
            at.report(f"{which} process real-time priority '{at.words[1]}' invalid")
            return
        nearest = min(max(value, 1), _MOST_RT_PRIORITY)
        if nearest != value:
            bound = "less than minimum" if value < 1 else "greater than maximum"
            limit = "minimum" if value < 1 else "maximum"
            at.report(f"{which} process real-time priority {value} {bound} {nearest} - setting to {limit}")
        draft.set(f"{which}_process.rt_priority", nearest)

    def cpu_affinity(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(f"No {which} cpu_id set specified")
            return
        chosen = []
        for word in at.words[1:]:
            value = read_int(at, word, 0, at.surroundings.processors - 1)
            if value is None:
                at.report(f"Invalid cpu_id:{word} specified for {which} process")
                return
            chosen.append(value)
        draft.set(f"{which}_process.cpu_affinity", tuple(chosen))

    def rlimit(draft: Draft, at: Cursor) -> None:
        value = read_unsigned(at, at.word(1), 1)
        if value is None:
            at.report(f"Invalid {which} real-time limit - {at.words[1]}")
        else:
            draft.set(f"{which}_process.rlimit_rttime", max(value, 2))

    return {
        "priority": priority,
        "rt_priority": rt_priority,
        "cpu_affinity": cpu_affinity,
        "rlimit_rttime": rlimit,
        "no_swap": flag(f"{which}_process.no_swap"),
        "process_name": process_name(f"{which}_process.name"),
    }


def process_name(field: str) -> Action:
    """A keyword for a process's name."""

    def action(draft: Draft, at: Cursor) -> None:
        draft.set(field, _cut_process_name(at.word(1), at))

    return action


def _cut_process_name(name: str, at: Cursor) -> str:
    if len(name) > _MOST_PROCESS_NAME:
        at.report(f"Process name {name} more than {_MOST_PROCESS_NAME} characters, truncating")
    return name[:_MOST_PROCESS_NAME]


def process_names(draft: Draft, _at: Cursor) -> None:
    """The keyword ``process_names``."""
    for which, name in (
        ("vrrp", "keepalived_vrrp"),
        ("checker", "keepalived_lvs"),
        ("bfd", "keepalived_bfd"),
    ):
        draft.set(f"{which}_process.name", name)


def receive_buffer(field: str, name: str) -> tuple[Action, Action]:
    """The keywords for a netlink socket's receive buffer: its size, and whether to force it."""

    def size(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(f"{name}_rcv_bufs size missing")
            return
        value = read_unsigned(at, at.words[1], lenient=False)
        if value is None:
            at.report(f"{name}_rcv_bufs size ({at.words[1]}) invalid")
        elif value:
            draft.set(f"{field}.size", value)

    return size, switch(f"{field}.force", f"Invalid value '{{}}' for global {name}_rcv_bufs_force specified")


def fifo_keywords(field: str, prefix: str) -> tuple[Action, Action]:
    """The keywords for a FIFO and for its script."""

    def fifo(draft: Draft, at: Cursor) -> None:
        standing: NotifyFifo = draft.get(field) or NotifyFifo()
        if len(at.words) < 2:
            at.report(f"No {prefix}notify_fifo name specified")
            return
        if standing.path:
            at.report(f"{prefix}notify_fifo already specified - ignoring {at.words[1]}")
            return
        if len(at.words) > 2:
            ids = find_user(at, at.words[2], at.words[3] if len(at.words) > 3 else "")
        else:
            ids = draft.script_user.ids(at)
        if ids is None:
            at.note(f"Invalid user/group for {prefix} fifo {at.words[1]} - ignoring")
            return
        draft.set(field, NotifyFifo(at.words[1], *ids, standing.script, at.position))

    def script(draft: Draft, at: Cursor) -> None:
        standing: NotifyFifo = draft.get(field) or NotifyFifo()
        if len(at.words) < 2:
            at.report(f"No {prefix}notify_fifo_script specified")
        elif standing.script:
            at.report(f"{prefix}notify_fifo_script already specified - ignoring {at.words[1]}")
        else:
            found = read_script(at, draft.script_user, f"{prefix}notify_fifo")
            draft.set(field, NotifyFifo(standing.path, standing.uid, standing.gid, found, standing.position))

    return fifo, script


# Mail.


def notification_email(draft: Draft, at: Cursor) -> None:
    """The keyword ``notification_email``."""
    words = at.value_words()
    if not words:
        at.report("Warning - empty notification_email block")
        return
    draft.set("mail.recipients", (*(draft.get("mail.recipients") or ()), *words))


def smtp_server(draft: Draft, at: Cursor) -> None:
    """The keyword ``smtp_server``."""
    import socket

    text = at.word(1)
    port = read_unsigned(at, at.words[2] if len(at.words) > 2 else "25", 1, 65535)
    address = read_address(text) if not set(text) & set("-/") else b""
    if not address and port is not None:
        try:
            found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
            address = socket.inet_pton(found[0][0], str(found[0][4][0]).partition("%")[0])
        except (OSError, UnicodeError, ValueError, IndexError):
            address = b""
    if not address or port is None:
        at.report(f"Invalid smtp server {text} {at.words[2] if len(at.words) > 2 else 25}")
        return
    draft.set("mail.server", address)
    draft.set("mail.server_port", port)


def smtp_helo_name(draft: Draft, at: Cursor) -> None:
    """The keyword ``smtp_helo_name``."""
    if len(at.words) > 1:
        draft.set("mail.helo_name", at.words[1])


def smtp_connect_timeout(draft: Draft, at: Cursor) -> None:
    """The keyword ``smtp_connect_timeout``."""
    timeout = read_unsigned(at, at.word(1), 0, MOST_SECONDS)
    if timeout is None:
        at.report(f"smtp_connect_timeout '{at.words[1]}' must be in [0, {MOST_SECONDS}] - ignoring")
        return
    if timeout == 0:
        at.report("smtp_conect_timeout must be greater than 0, setting to 1")
    draft.set("mail.connect_timeout", float(timeout or 1))


# Scripts.


def once_script(field: str, kind: str) -> tuple[Action, Action]:
    """The keywords for a script that is run once, and for its timeout."""

    def script(draft: Draft, at: Cursor) -> None:
        if draft.get(field):
            at.report(f"{kind} script already specified")
        elif len(at.words) < 2:
            at.report(f"{kind} script missing")
        else:
            found = read_script(at, draft.script_user, kind)
            if found is None:
                at.report(f"Invalid {kind} script")
            draft.set(field, found)

    def timeout(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(f"{kind}_script_timeout requires value")
            return
        value = read_unsigned(at, at.words[1], 1, 1000)
        if value is None:
            at.report(f"{kind}_script_timeout '{at.words[1]}' must be in [1, 1000] - ignoring")
        else:
            draft.set(f"{field}_timeout", value)

    return script, timeout


def script_user(draft: Draft, at: Cursor) -> None:
    """The keyword ``script_user``."""
    if len(at.words) < 2:
        at.report("No script username specified")
    else:
        draft.script_user.set(at, at.words[1], at.words[2] if len(at.words) > 2 else "")


def enable_script_security(draft: Draft, _at: Cursor) -> None:
    """The keyword ``enable_script_security``."""
    draft.set("enable_script_security", True)
    draft.script_user.security = True


# LVS.


def lvs_timeouts(draft: Draft, at: Cursor) -> None:
    """The keyword ``lvs_timeouts``."""
    if len(at.words) < 3:
        at.report("lvs_timeouts requires at least one option")
        return
    fields = {"tcp": "tcp", "tcpfin": "tcp_fin", "udp": "udp"}
    standing: LvsTimeouts = draft.get("lvs_timeouts") or LvsTimeouts()
    values = {name: getattr(standing, name) for name in fields.values()}
    index = 1
    while index < len(at.words):
        name = at.words[index]
        index += 1
        if name not in fields:
            at.report(f"Unknown option {name} specified for lvs_timeouts")
        elif index == len(at.words):
            at.report(f"No value specified for lvs_timeout {name} - ignoring")
        else:
            value = read_unsigned(at, at.words[index], 0, _MOST_LVS_TIMEOUT, lenient=False)
            if value is None:
                at.report(f"Invalid lvs_timeout {name} ({at.words[index]}) - ignoring")
            else:
                values[fields[name]] = value
            index += 1
    draft.set("lvs_timeouts", LvsTimeouts(**values))


def lvs_flush_on_stop(draft: Draft, at: Cursor) -> None:
    """The keyword ``lvs_flush_on_stop``."""
    if len(at.words) == 1:
        draft.set("lvs_flush_on_stop", FlushOnStop.ALL)
    elif at.words[1] == "VS":
        draft.set("lvs_flush_on_stop", FlushOnStop.SERVICES)
    else:
        at.report(f"Unknown lvs_flush_on_stop type {at.words[1]}")


_SYNC_NUMBERS: dict[str, tuple[str, int, int]] = {
    "maxlen": ("max_length", 1, 65535 - 20 - 8),
    "port": ("port", 1, 65535),
    "ttl": ("ttl", 1, 255),
}


def lvs_sync_daemon(draft: Draft, at: Cursor) -> None:
    """``IF [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]``."""
    standing: SyncDaemon | None = draft.get("lvs_sync_daemon")
    if standing:
        at.report(
            f"lvs_sync_daemon has already been specified as {standing.interface}"
            f" {standing.instance} - ignoring"
        )
        return
    if len(at.words) < 2:
        at.report("lvs_sync_daemon requires interface")
        return
    if len(at.words[1]) > _MOST_INTERFACE_NAME:
        at.report(f"lvs_sync_daemon interface name '{at.words[1]}' too long - ignoring")
        return
    instance = ""
    sync_id: int | None = None
    numbers = {"max_length": 0, "port": 0, "ttl": 0}
    group = b""
    index = 2
    while index < len(at.words):
        name = at.words[index]
        last = index == len(at.words) - 1
        if name == "inst":
            if instance:
                at.report(
                    f"lvs_sync_daemon vrrp instance has already been specified as {instance} - ignoring"
                )
            else:
                instance = at.word(index + 1)
            index += 1
        elif name in ("id", "group", *_SYNC_NUMBERS) and last:
            default = ", defaulting to vrid" if name == "id" else " - ignoring"
            at.report(f"No value specified for lvs_sync_daemon {name}{default}")
        elif name == "id":
            index += 1
            sync_id = _sync_id(at, at.words[index], sync_id)
        elif name in _SYNC_NUMBERS:
            index += 1
            field, low, high = _SYNC_NUMBERS[name]
            value = read_unsigned(at, at.words[index], low, high, lenient=False)
            if value is None:
                at.report(f"Invalid lvs_sync_daemon {name} ({at.words[index]}) - ignoring")
            else:
                numbers[field] = value
        elif name == "group":
            index += 1
            group = _multicast_group(at, at.words[index])
        elif index == 2:
            instance = name
        elif index == 3:
            sync_id = _sync_id(at, name, sync_id)
            if sync_id is not None:
                at.report('Please use keyword "id" before lvs_sync_daemon SYNCID')
        else:
            at.report(f"Unknown option {name} specified for lvs_sync_daemon")
        index += 1
    daemon = SyncDaemon(at.words[1], instance, sync_id, group=group, position=at.position, **numbers)
    draft.set("lvs_sync_daemon", daemon)


def _sync_id(at: Cursor, text: str, otherwise: int | None) -> int | None:
    value = read_unsigned(at, text, 0, 255, lenient=False)
    if value is None:
        at.report(f"Invalid syncid ({text}) - defaulting to vrid")
        return otherwise
    return value


def _multicast_group(at: Cursor, text: str) -> bytes:
    group = read_address(text)
    if not group:
        at.report(f"Invalid lvs_sync_daemon group ({text}) - ignoring")
    elif not is_multicast(group):
        at.report(f"lvs_sync_daemon group address {text} is not multicast - ignoring")
        return b""
    return group


def hand_edits(draft: Draft, at: Cursor) -> None:
    """The keyword ``hand_edits``."""
    try:
        draft.set("hand_edits", HandEdits(at.word(1)))
    except ValueError:
        at.report(f"Unknown hand_edits '{at.words[1]}': one of report, repair, adopt - ignoring")


# VRRP.


def dynamic_interfaces(draft: Draft, at: Cursor) -> None:
    """The keyword ``dynamic_interfaces``."""
    draft.set("vrrp.dynamic_interfaces", True)
    if len(at.words) > 1:
        if at.words[1] == "allow_if_changes":
            draft.set("vrrp.allow_if_changes", True)
        else:
            at.report(f"Unknown dynamic_interfaces option '{at.words[1]}'")


def multicast(number: int, length: int) -> Action:
    """The keyword ``vrrp_mcast_group4`` or ``vrrp_mcast_group6``."""
    name = f"vrrp_mcast_group{number}"

    def action(draft: Draft, at: Cursor) -> None:
        text = at.word(1)
        address = read_address(text)
        if not address:
            at.report(f"Can't parse {name} [{text}]. Skipping")
        elif len(address) != length:
            at.report(f"{name} [{text}] is not IPv{number}. Skipping")
        elif not is_multicast(address):
            at.report(f"{name} [{text}] is not multicast. Skipping")
        else:
            if length == 16 and address[1] & 0xF != 2:
                at.report(f"{name} [{text}] should be link-local multicast.", Severity.WARNING)
            draft.set(f"vrrp.multicast_group{number}", address)

    return action


def garp_refresh(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_garp_master_refresh``."""
    value = read_unsigned(at, at.word(1))
    if value is None:
        at.report(f"Invalid vrrp_garp_master_refresh '{at.words[1]}' - ignoring")
    draft.set("vrrp.garp_refresh", value or 0)


def min_garp(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_min_garp``."""
    value = read_switch(at)
    if value is None:
        at.report("Invalid value for vrrp_min_garp specified")
    elif value:
        # What has been said stands: these are defaults.
        for field, default, least in (
            ("garp_repeat", 5, 1), ("garp_refresh_repeat", 1, 0), ("garp_delay", 5, 0),
        ):  # fmt: skip
            if draft.get(f"vrrp.{field}") in (None, default):
                draft.set(f"vrrp.{field}", least)


def garp_extra_if(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_garp_extra_if``."""
    name = at.words[0]
    if name == "vrrp_vmac_garp_intvl":
        at.report(f'Keyword "{name}" is deprecated - please use "vrrp_garp_extra_if"', Severity.DEPRECATED)
    delay = 0
    for word in at.words[1:]:
        if word == "all":
            draft.set("vrrp.garp_extra_if_all", True)
            continue
        value = read_unsigned(at, word, 1, 86400)
        if value is None:
            at.report(f"{name} '{word}' invalid - ignoring")
            return
        delay = value
    if not delay:
        at.report(f"{name} specified without time - ignoring")
    else:
        draft.set("vrrp.garp_extra_if", delay)


def vrrp_version(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_version``."""
    value = read_int(at, at.word(1), 2, 3)
    if value is None:
        at.report("VRRP Error: Version must be either 2 or 3")
    else:
        draft.set("vrrp.version", value)


def rx_bufs_policy(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_rx_bufs_policy``."""
    if len(at.words) < 2:
        at.report("vrrp_rx_bufs_policy missing")
        return
    size = 0
    policies = set()
    for word in at.words[1:]:
        if word.upper() in ("MTU", "ADVERT"):
            policies.add(word.upper())
            continue
        value = read_unsigned(at, at.words[1], lenient=False)
        if value is None:
            at.report(f"Invalid vrrp_rx_bufs_policy {word}")
        else:
            size = value
    if size and policies:
        at.report("Cannot set vrrp_rx_bufs_policy size and policy, ignoring policy")
        policies.clear()
    elif len(policies) == 2:
        at.report("Cannot set both vrrp_rx_bufs_policy MTU and ADVERT, ignoring ADVERT")
        policies.remove("ADVERT")
    draft.set("vrrp.rx_bufs_size", size)
    draft.set("vrrp.rx_bufs_mtu", "MTU" in policies)
    draft.set("vrrp.rx_bufs_advert", "ADVERT" in policies)


def rx_bufs_multiplier(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_rx_bufs_multiplier``."""
    if len(at.words) != 2:
        at.report("Invalid vrrp_rx_bufs_multiplier")
        return
    value = read_unsigned(at, at.words[1], 1, lenient=False)
    if value is None:
        at.report(f"Invalid vrrp_rx_bufs_multiplier {at.words[1]}")
    else:
        draft.set("vrrp.rx_bufs_multiplier", value)


def vmac_prefix(field: str, what: str) -> Action:
    """A keyword for what names of VMAC interfaces begin with."""

    def action(draft: Draft, at: Cursor) -> None:
        if draft.get(field):
            at.report(f"{what} prefix has already been specified - ignoring {at.word(1)}")
        else:
            draft.set(field, at.word(1))

    return action


def disable_local_igmp(draft: Draft, at: Cursor) -> None:
    """The keyword ``disable_local_igmp``."""
    if not os.access("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", os.W_OK):
        at.report("kernel does not support /proc/sys/net/ipv4/igmp_link_local_mcast_reports")
    else:
        draft.set("vrrp.disable_local_igmp", True)


# nftables.


def nftables_keywords(field: str, what: str, default: str, start_mark: int) -> tuple[Action, Action]:
    """The keywords for a table of nftables, and for its chains' priority."""

    def table(draft: Draft, at: Cursor) -> None:
        if draft.get(f"{field}.table"):
            at.report(f"{what} already specified - ignoring")
            return
        name = at.words[1] if len(at.words) > 1 else default
        if len(name) > _MOST_TABLE_NAME:
            at.report(f"{what} table name too long - ignoring")
            return
        draft.set(f"{field}.table", name)
        if start_mark:
            draft.set(f"{field}.start_fwmark", start_mark)

    def priority(draft: Draft, at: Cursor) -> None:
        value = read_int(at, at.word(1), INT_MIN, INT_MAX, lenient=False)
        if value is None:
            at.report(f"invalid {what} chain priority '{at.words[1]}'", Severity.INVALID_NUMBER)
        else:
            draft.set(f"{field}.priority", value)

    return table, priority


def nftables_start_fwmark(draft: Draft, at: Cursor) -> None:
    """The keyword ``nftables_start_fwmark``."""
    value = read_unsigned(at, at.word(1), 1, lenient=False)
    if value is None:
        message = f"invalid ipvs nftables start_fwmark priority '{at.words[1]}'"
        at.report(message, Severity.INVALID_NUMBER)
    else:
        draft.set("nftables_ipvs.start_fwmark", value)


def vrrp_iptables(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_iptables``."""
    at.report(
        "iptables not supported, using nftables instead. Please replace 'vrrp_iptables and"
        " 'vrrp_ipsets' with 'nftables' config option"
    )
    draft.set("nftables.table", "keepalived")


# The process.


def snmp_socket(draft: Draft, at: Cursor) -> None:
    """The keyword ``snmp_socket``."""
    if len(at.words) > 2:
        at.report("Too many parameters specified for snmp_socket - ignoring")
    elif len(at.words) < 2:
        at.report("SNMP error : snmp socket name missing")
    elif draft.get("snmp.socket"):
        at.report(f"SNMP socket already set to {draft.get('snmp.socket')} - ignoring")
    else:
        draft.set("snmp.socket", at.words[1])


def enable_snmp_rfc(draft: Draft, _at: Cursor) -> None:
    """The keyword ``enable_snmp_rfc``."""
    draft.set("snmp.rfcv2", True)
    draft.set("snmp.rfcv3", True)


def max_auto_priority(draft: Draft, at: Cursor) -> None:
    """The keyword ``max_auto_priority``."""
    if len(at.words) < 2:
        draft.set("max_auto_priority", _MOST_RT_PRIORITY)
        return
    value = read_int(at, at.words[1], -1, _MOST_RT_PRIORITY)
    if value is None:
        at.report(
            f"max_auto_priority '{at.words[1]}' must be in [0, {_MOST_RT_PRIORITY}]"
            " (or -1 to disable) - ignoring"
        )
    else:
        draft.set("max_auto_priority", value)


def min_auto_priority_delay(draft: Draft, at: Cursor) -> None:
    """The keyword ``min_auto_priority_delay``."""
    if len(at.words) < 2:
        at.report("min_auto_priority_delay requires delay time")
        return
    value = read_int(at, at.words[1], 1, 10000000)
    if value is None:
        at.report(f"min_auto_priority_delay '{at.words[1]}' must be in [1, 10000000] - ignoring")
    else:
        draft.set("min_auto_priority_delay", value)


_UMASK_BITS = {
    "IRUSR": 0o400, "IWUSR": 0o200, "IXUSR": 0o100, "IRGRP": 0o40, "IWGRP": 0o20, "IXGRP": 0o10,
    "IROTH": 0o4, "IWOTH": 0o2, "IXOTH": 0o1,
}  # fmt: skip


def umask(draft: Draft, at: Cursor) -> None:
    """The keyword ``umask``."""
    first = at.word(1)
    if first[:1].isdigit() and first.isascii():
        if len(at.words) != 2:
            at.report("Extra parameter(s) to umask option")
            return
        found = re.fullmatch(r"0[xX]([0-9a-fA-F]{1,8})|(0[0-7]{0,9})|([1-9][0-9]{0,9})", first)
        value = -1
        if found:
            value = int(found[1], 16) if found[1] else int(found[2], 8) if found[2] else int(found[3])
        if not 0 <= value <= 0o777:
            at.report(f"invalid umask value {first}")
            return
        draft.set("umask", value)
        return
    bits = 0
    text = "".join(at.words[1:])
    for name in text.split("|"):
        if name[:5] not in _UMASK_BITS:
            at.report(f"Unknown umask bit {name}" if name else "umask missing bit value")
            return
        if len(name) > 5:
            at.report(f"Invalid umask syntax {text}")
            return
        bits |= _UMASK_BITS[name]
    draft.set("umask", bits)


def random_seed(draft: Draft, at: Cursor) -> None:
    """The keyword ``random_seed``."""
    value = read_unsigned(at, at.word(1), lenient=False)
    if value is None:
        at.report(f"random_seed {at.words[1]} invalid")
    else:
        draft.set("random_seed", value)
        at.reader.definitions.seed(value)


_CHECKS = {
    "read": Demand.READABLE,
    "match": Demand.MATCH,
    "wildcard_match": Demand.WILDCARD,
    "brace_match": Demand.BRACES,
}


def include_check(_draft: Draft, at: Cursor) -> None:
    """``[[+|-]read|match|wildcard_match|brace_match …]``; all of them where none is said."""
    reader = at.reader
    if len(at.words) == 1:
        reader.demand = EVERYTHING
        return
    for index, word in enumerate(at.words[1:]):
        sign = word[:1] if word[:1] in ("+", "-") else ""
        if not sign:
            if index:
                at.report(f"Duplicate include_check '{word}' specified - ignoring")
                continue
            reader.demand = Demand.NOTHING
        name = word.removeprefix(sign)
        if name not in _CHECKS:
            at.report(f"Unknown include_check type '{name}' - ignoring")
        elif sign == "+":
            reader.demand |= _CHECKS[name]
        elif sign == "-":
            reader.demand &= ~_CHECKS[name]
        else:
            reader.demand = Demand.READABLE | _CHECKS[name]


def config_save_dir(draft: Draft, at: Cursor) -> None:
    """The keyword ``config_save_dir``."""
    name = at.word(1)
    if os.path.exists(name) and not os.path.isdir(name):
        at.report(f"config_save_dir {name} exists and is not a directory")
    else:
        draft.set("config_save_dir", name.removesuffix("/") or name)


def reload_check_config(draft: Draft, at: Cursor) -> None:
    """The keyword ``reload_check_config``."""
    draft.set("reload_check", at.words[1] if len(at.words) > 1 else "/dev/null")


def reload_time_file(draft: Draft, at: Cursor) -> None:
    """The keyword ``reload_time_file``."""
    if len(at.words) != 2:
        at.report("reload_time_file invalid")
    else:
        draft.set("reload_time_file", at.words[1])


def reload_file(draft: Draft, at: Cursor) -> None:
    """The keyword ``reload_file``."""
    draft.set("reload_file", at.words[1] if len(at.words) > 1 else "default")


def tmp_config_directory(draft: Draft, at: Cursor) -> None:
    """The keyword ``tmp_config_directory``."""
    if draft.get("tmp_config_directory"):
        at.report("tmp_config_directory already specified - ignoring")
    elif len(at.words) > 1:
        draft.set("tmp_config_directory", at.words[1])
    else:
        at.report("tmp_config_directory missing directory name")


def once(field: str, missing: str, duplicate: str) -> Action:
    """A keyword that may be there once, and asks for pid files of its own."""

    def action(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(missing)
        elif draft.get(field):
            at.report(f"Duplicate {duplicate} definition {at.words[1]} - ignoring")
        else:
            draft.set(field, at.words[1])
            draft.set("use_pid_dir", True)

    return action


def net_namespace_ipvs(draft: Draft, at: Cursor) -> None:
    """The keyword ``net_namespace_ipvs``."""
    if draft.get("net_namespace_ipvs") is not None:
        at.report(f"Duplicate net_namespace_ipvs definition {at.word(1)} - ignoring")
    else:
        draft.set("net_namespace_ipvs", at.words[1] if len(at.words) > 1 else "")


def global_defs(draft: Draft, _at: Cursor) -> Draft:
    """The keyword ``global_defs``."""
    return draft
