# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of global_defs, and the few that stand outside of blocks.

Nearly all of them are of a handful of shapes; the tables at the end say which
shape a keyword has and which field of `GlobalSettings` it sets.
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
from xlvs.keepalived.statements import Action, Cursor, Section

_MOST_SECONDS = UINT_MAX // SECOND
_MOST_LVS_TIMEOUT = 86400 * 31
_MOST_PROCESS_NAME = 15
_MOST_INTERFACE_NAME = 15
_MOST_RT_PRIORITY = 99
_NO_SNMP = "there is no SNMP agent here"
_ONE_PROCESS = "xlvsd is one process; set this for its unit (systemctl edit xlvsd)"
_MARKS_BY_ITSELF = "groups are services of their own here, so no marks have to be made"
_MOST_TABLE_NAME = 255


# Shapes.


def _flag(field: str) -> Action:
    """A keyword that says something by being there."""

    def action(draft: Draft, _at: Cursor) -> None:
        draft.set(field, True)

    return action


def _switch(field: str, complaint: str) -> Action:
    """``KEYWORD [BOOL]``; ``complaint`` has the wrong word where ``{}`` stands."""

    def action(draft: Draft, at: Cursor) -> None:
        value = read_switch(at)
        if value is None:
            at.report(complaint.format(at.words[1]))
        else:
            draft.set(field, value)

    return action


def _word(field: str, missing: str = "") -> Action:
    """``KEYWORD TEXT``; without text ``missing`` is reported, or reading ends where it is empty."""

    def action(draft: Draft, at: Cursor) -> None:
        if missing and len(at.words) < 2:
            at.report(missing)
        else:
            draft.set(field, at.word(1))

    return action


def _number(
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


def _seconds(field: str, complaint: str, low: int, large: float) -> Action:
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


def _process(which: str) -> dict[str, Action]:
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
        "no_swap": _flag(f"{which}_process.no_swap"),
        "process_name": _process_name(f"{which}_process.name"),
    }


def _process_name(field: str) -> Action:
    def action(draft: Draft, at: Cursor) -> None:
        draft.set(field, _cut_process_name(at.word(1), at))

    return action


def _cut_process_name(name: str, at: Cursor) -> str:
    if len(name) > _MOST_PROCESS_NAME:
        at.report(f"Process name {name} more than {_MOST_PROCESS_NAME} characters, truncating")
    return name[:_MOST_PROCESS_NAME]


def _process_names(draft: Draft, _at: Cursor) -> None:
    for which, name in (
        ("vrrp", "keepalived_vrrp"),
        ("checker", "keepalived_lvs"),
        ("bfd", "keepalived_bfd"),
    ):
        draft.set(f"{which}_process.name", name)


def _receive_buffer(field: str, name: str) -> tuple[Action, Action]:
    def size(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(f"{name}_rcv_bufs size missing")
            return
        value = read_unsigned(at, at.words[1], lenient=False)
        if value is None:
            at.report(f"{name}_rcv_bufs size ({at.words[1]}) invalid")
        elif value:
            draft.set(f"{field}.size", value)

    return size, _switch(
        f"{field}.force", f"Invalid value '{{}}' for global {name}_rcv_bufs_force specified"
    )


def _fifo(field: str, prefix: str) -> tuple[Action, Action]:
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


def _notification_email(draft: Draft, at: Cursor) -> None:
    words = at.value_words()
    if not words:
        at.report("Warning - empty notification_email block")
        return
    draft.set("mail.recipients", (*(draft.get("mail.recipients") or ()), *words))


def _smtp_server(draft: Draft, at: Cursor) -> None:
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


def _smtp_helo_name(draft: Draft, at: Cursor) -> None:
    if len(at.words) > 1:
        draft.set("mail.helo_name", at.words[1])


def _smtp_connect_timeout(draft: Draft, at: Cursor) -> None:
    timeout = read_unsigned(at, at.word(1), 0, _MOST_SECONDS)
    if timeout is None:
        at.report(f"smtp_connect_timeout '{at.words[1]}' must be in [0, {_MOST_SECONDS}] - ignoring")
        return
    if timeout == 0:
        at.report("smtp_conect_timeout must be greater than 0, setting to 1")
    draft.set("mail.connect_timeout", float(timeout or 1))


# Scripts.


def _once_script(field: str, kind: str) -> tuple[Action, Action]:
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


def _script_user(draft: Draft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("No script username specified")
    else:
        draft.script_user.set(at, at.words[1], at.words[2] if len(at.words) > 2 else "")


def _enable_script_security(draft: Draft, _at: Cursor) -> None:
    draft.set("enable_script_security", True)
    draft.script_user.security = True


# LVS.


def _lvs_timeouts(draft: Draft, at: Cursor) -> None:
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


def _lvs_flush_on_stop(draft: Draft, at: Cursor) -> None:
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


def _lvs_sync_daemon(draft: Draft, at: Cursor) -> None:
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


def _hand_edits(draft: Draft, at: Cursor) -> None:
    try:
        draft.set("hand_edits", HandEdits(at.word(1)))
    except ValueError:
        at.report(f"Unknown hand_edits '{at.words[1]}': one of report, repair, adopt - ignoring")


# VRRP.


def _dynamic_interfaces(draft: Draft, at: Cursor) -> None:
    draft.set("vrrp.dynamic_interfaces", True)
    if len(at.words) > 1:
        if at.words[1] == "allow_if_changes":
            draft.set("vrrp.allow_if_changes", True)
        else:
            at.report(f"Unknown dynamic_interfaces option '{at.words[1]}'")


def _multicast(number: int, length: int) -> Action:
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


def _garp_refresh(draft: Draft, at: Cursor) -> None:
    value = read_unsigned(at, at.word(1))
    if value is None:
        at.report(f"Invalid vrrp_garp_master_refresh '{at.words[1]}' - ignoring")
    draft.set("vrrp.garp_refresh", value or 0)


def _min_garp(draft: Draft, at: Cursor) -> None:
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


def _garp_extra_if(draft: Draft, at: Cursor) -> None:
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


def _vrrp_version(draft: Draft, at: Cursor) -> None:
    value = read_int(at, at.word(1), 2, 3)
    if value is None:
        at.report("VRRP Error: Version must be either 2 or 3")
    else:
        draft.set("vrrp.version", value)


def _rx_bufs_policy(draft: Draft, at: Cursor) -> None:
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


def _rx_bufs_multiplier(draft: Draft, at: Cursor) -> None:
    if len(at.words) != 2:
        at.report("Invalid vrrp_rx_bufs_multiplier")
        return
    value = read_unsigned(at, at.words[1], 1, lenient=False)
    if value is None:
        at.report(f"Invalid vrrp_rx_bufs_multiplier {at.words[1]}")
    else:
        draft.set("vrrp.rx_bufs_multiplier", value)


def _vmac_prefix(field: str, what: str) -> Action:
    def action(draft: Draft, at: Cursor) -> None:
        if draft.get(field):
            at.report(f"{what} prefix has already been specified - ignoring {at.word(1)}")
        else:
            draft.set(field, at.word(1))

    return action


def _disable_local_igmp(draft: Draft, at: Cursor) -> None:
    if not os.access("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", os.W_OK):
        at.report("kernel does not support /proc/sys/net/ipv4/igmp_link_local_mcast_reports")
    else:
        draft.set("vrrp.disable_local_igmp", True)


# nftables.


def _nftables(field: str, what: str, default: str, start_mark: int) -> tuple[Action, Action]:
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


def _nftables_start_fwmark(draft: Draft, at: Cursor) -> None:
    value = read_unsigned(at, at.word(1), 1, lenient=False)
    if value is None:
        message = f"invalid ipvs nftables start_fwmark priority '{at.words[1]}'"
        at.report(message, Severity.INVALID_NUMBER)
    else:
        draft.set("nftables_ipvs.start_fwmark", value)


def _vrrp_iptables(draft: Draft, at: Cursor) -> None:
    at.report(
        "iptables not supported, using nftables instead. Please replace 'vrrp_iptables and"
        " 'vrrp_ipsets' with 'nftables' config option"
    )
    draft.set("nftables.table", "keepalived")


# The process.


def _snmp_socket(draft: Draft, at: Cursor) -> None:
    if len(at.words) > 2:
        at.report("Too many parameters specified for snmp_socket - ignoring")
    elif len(at.words) < 2:
        at.report("SNMP error : snmp socket name missing")
    elif draft.get("snmp.socket"):
        at.report(f"SNMP socket already set to {draft.get('snmp.socket')} - ignoring")
    else:
        draft.set("snmp.socket", at.words[1])


def _enable_snmp_rfc(draft: Draft, _at: Cursor) -> None:
    draft.set("snmp.rfcv2", True)
    draft.set("snmp.rfcv3", True)


def _max_auto_priority(draft: Draft, at: Cursor) -> None:
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


def _min_auto_priority_delay(draft: Draft, at: Cursor) -> None:
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


def _umask(draft: Draft, at: Cursor) -> None:
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


def _random_seed(draft: Draft, at: Cursor) -> None:
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


def _include_check(_draft: Draft, at: Cursor) -> None:
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


def _config_save_dir(draft: Draft, at: Cursor) -> None:
    name = at.word(1)
    if os.path.exists(name) and not os.path.isdir(name):
        at.report(f"config_save_dir {name} exists and is not a directory")
    else:
        draft.set("config_save_dir", name.removesuffix("/") or name)


def _reload_check_config(draft: Draft, at: Cursor) -> None:
    draft.set("reload_check", at.words[1] if len(at.words) > 1 else "/dev/null")


def _reload_time_file(draft: Draft, at: Cursor) -> None:
    if len(at.words) != 2:
        at.report("reload_time_file invalid")
    else:
        draft.set("reload_time_file", at.words[1])


def _reload_file(draft: Draft, at: Cursor) -> None:
    draft.set("reload_file", at.words[1] if len(at.words) > 1 else "default")


def _tmp_config_directory(draft: Draft, at: Cursor) -> None:
    if draft.get("tmp_config_directory"):
        at.report("tmp_config_directory already specified - ignoring")
    elif len(at.words) > 1:
        draft.set("tmp_config_directory", at.words[1])
    else:
        at.report("tmp_config_directory missing directory name")


def _once(field: str, missing: str, duplicate: str) -> Action:
    def action(draft: Draft, at: Cursor) -> None:
        if len(at.words) < 2:
            at.report(missing)
        elif draft.get(field):
            at.report(f"Duplicate {duplicate} definition {at.words[1]} - ignoring")
        else:
            draft.set(field, at.words[1])
            draft.set("use_pid_dir", True)

    return action


def _net_namespace_ipvs(draft: Draft, at: Cursor) -> None:
    if draft.get("net_namespace_ipvs") is not None:
        at.report(f"Duplicate net_namespace_ipvs definition {at.word(1)} - ignoring")
    else:
        draft.set("net_namespace_ipvs", at.words[1] if len(at.words) > 1 else "")


def _global_defs(draft: Draft, _at: Cursor) -> Draft:
    return draft


Row = tuple[str, Action, str, str, str]
"""Name, action, arguments, meaning, remark."""


def _mail_rows() -> list[Row]:
    bad = "Invalid value '{}' for global %s specified"
    return [
        (
            "router_id",
            _word("router_id", "routerid name missing - ignoring"),
            "TEXT",
            "Names this host in mail and logs; default: the host's name.",
            "",
        ),
        ("notification_email", _notification_email, "{ ADDRESS … }", "Who gets mail.", ""),
        (
            "notification_email_from",
            _word("mail.sender", "emailfrom missing - ignoring"),
            "ADDRESS",
            "The sender.",
            "",
        ),
        ("smtp_server", _smtp_server, "HOST [PORT]", "The mail server; default port 25.", ""),
        ("smtp_helo_name", _smtp_helo_name, "NAME", "What HELO says; default: the host's name.", ""),
        ("smtp_connect_timeout", _smtp_connect_timeout, "SECONDS", "Default 30.", ""),
        (
            "smtp_alert",
            _switch("mail.alert", bad % "smtp_alert"),
            "[BOOL]",
            "Mail about everything that does not say.",
            "",
        ),
        (
            "smtp_alert_vrrp",
            _switch("mail.alert_vrrp", bad % "smtp_alert_vrrp"),
            "[BOOL]",
            "…about VRRP.",
            "",
        ),
        (
            "smtp_alert_checker",
            _switch("mail.alert_checker", bad % "smtp_alert_checker"),
            "[BOOL]",
            "…about virtual and real servers.",
            "",
        ),
        ("no_email_faults", _flag("mail.no_email_faults"), "", "No mail about FAULT.", ""),
        (
            "no_checker_emails",
            _switch("mail.no_checker_emails", bad % "no_checker_emails"),
            "[BOOL]",
            "Mail for real servers, not for each of their checkers.",
            "",
        ),
    ]


def _script_rows() -> list[Row]:
    startup, startup_timeout = _once_script("startup_script", "startup")
    shutdown, shutdown_timeout = _once_script("shutdown_script", "shutdown")
    fifo, fifo_script = _fifo("notify_fifo", "")
    vrrp_fifo, vrrp_fifo_script = _fifo("vrrp_notify_fifo", "vrrp_")
    lvs_fifo, lvs_fifo_script = _fifo("lvs_notify_fifo", "lvs_")
    run = "COMMAND [USER [GROUP]]"
    return [
        (
            "script_user",
            _script_user,
            "USER [GROUP]",
            "Who runs scripts; default: keepalived_script, or the daemon's user.",
            "",
        ),
        (
            "enable_script_security",
            _enable_script_security,
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
        ("lvs_timeouts", _lvs_timeouts, "[tcp N] [tcpfin N] [udp N]", "As `ipvsadm --set`, in seconds.", ""),
        (
            "lvs_sync_daemon",
            _lvs_sync_daemon,
            "IF [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]",
            "Connection sync that follows a VRRP instance.",
            "",
        ),
        ("lvs_flush", _flag("lvs_flush"), "", "Begin with an empty table.", ""),
        (
            "lvs_flush_on_stop",
            _lvs_flush_on_stop,
            "[VS]",
            "On stop empty the whole table, or remove whole services.",
            "",
        ),
        ("lvs_flush_onstop", _lvs_flush_on_stop, "[VS]", "Its old name.", ""),
        (
            "checker_log_all_failures",
            _switch("checker_log_all_failures", "Invalid value for checker_log_all_failures specified"),
            "[BOOL]",
            "For all checkers.",
            "",
        ),
        (
            "rs_init_notifies",
            _switch("rs_init_notifies", "Invalid value '{}' for global rs_init_notifies specified"),
            "[BOOL]",
            "Run notify_up, notify_down and quorum scripts for the first state, too.",
            "",
        ),
        (
            "hand_edits",
            _hand_edits,
            "report|repair|adopt",
            "What becomes of changes that others make to the table; default repair. xlvs's own.",
            "",
        ),
        (
            "start_unchecked",
            _switch("start_unchecked", "Invalid value '{}' for start_unchecked specified"),
            "[BOOL]",
            "Real servers serve before their first check, as in keepalived. xlvs's own.",
            "",
        ),
    ]


def _vrrp_rows() -> list[Row]:
    def said(name: str) -> str:
        return f"Invalid value for {name} specified"

    return [
        ("vrrp_version", _vrrp_version, "2|3", "Default 2.", ""),
        ("vrrp_mcast_group4", _multicast(4, 4), "ADDRESS", "Default 224.0.0.18.", ""),
        ("vrrp_mcast_group6", _multicast(6, 16), "ADDRESS", "Default ff02::12.", ""),
        (
            "vrrp_garp_master_delay",
            _number("vrrp.garp_delay", "vrrp_garp_master_delay '{}' invalid - ignoring", 0, _MOST_SECONDS),
            "SECONDS",
            "Default 5.",
            "",
        ),
        (
            "vrrp_garp_master_repeat",
            _number("vrrp.garp_repeat", "vrrp_garp_master_repeat '{}' invalid - ignoring", least=1),
            "N",
            "Default 5.",
            "",
        ),
        ("vrrp_garp_master_refresh", _garp_refresh, "SECONDS", "Default 0: never.", ""),
        (
            "vrrp_garp_master_refresh_repeat",
            _number(
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
            _number(
                "vrrp.garp_lower_prio_delay",
                "vrrp_garp_lower_prio_delay '{}' invalid - ignoring",
                0,
                _MOST_SECONDS,
            ),
            "SECONDS",
            "Default: garp_master_delay.",
            "",
        ),
        (
            "vrrp_garp_lower_prio_repeat",
            _number("vrrp.garp_lower_prio_repeat", "Invalid vrrp_garp_lower_prio_repeat '{}'", 0, INT_MAX),
            "N",
            "Default: garp_master_repeat.",
            "",
        ),
        (
            "vrrp_down_timer_adverts",
            _number("vrrp.down_timer_adverts", "Invalid vrrp_down_timer_adverts [1:100] '{}'", 1, 100),
            "N",
            "Default 3.",
            "",
        ),
        (
            "vrrp_garp_interval",
            _seconds("vrrp.garp_interval", "vrrp_garp_interval '{}' is invalid", 1, 1),
            "SECONDS",
            "Between gratuitous ARP messages.",
            "",
        ),
        (
            "vrrp_gna_interval",
            _seconds("vrrp.gna_interval", "vrrp_gna_interval '{}' is invalid", 1, 1),
            "SECONDS",
            "Between unsolicited neighbour advertisements.",
            "",
        ),
        ("vrrp_min_garp", _min_garp, "[BOOL]", "One gratuitous ARP, none repeated.", ""),
        (
            "vrrp_garp_extra_if",
            _garp_extra_if,
            "[all] SECONDS",
            "Gratuitous ARP on other interfaces of the addresses.",
            "",
        ),
        ("vrrp_vmac_garp_intvl", _garp_extra_if, "[all] SECONDS", "Its old name.", ""),
        (
            "vrrp_lower_prio_no_advert",
            _switch("vrrp.lower_prio_no_advert", said("vrrp_lower_prio_no_advert")),
            "[BOOL]",
            "No answer to adverts of lower priority.",
            "",
        ),
        (
            "vrrp_higher_prio_send_advert",
            _switch("vrrp.higher_prio_send_advert", said("vrrp_higher_prio_send_advert")),
            "[BOOL]",
            "A last advert when a higher priority comes.",
            "",
        ),
        (
            "vrrp_check_unicast_src",
            _flag("vrrp.check_unicast_src"),
            "",
            "Only peers may send unicast adverts.",
            "",
        ),
        (
            "vrrp_skip_check_adv_addr",
            _flag("vrrp.skip_check_adv_addr"),
            "",
            "Look at an advert's addresses once per master.",
            "",
        ),
        ("vrrp_strict", _flag("vrrp.strict"), "", "RFC 5798 to the letter.", ""),
        (
            "vrrp_notify_priority_changes",
            _switch(
                "vrrp.notify_priority_changes",
                "Invalid value '{}' for global vrrp_notify_priority_changes specified",
            ),
            "[BOOL]",
            "Events for priorities, too.",
            "",
        ),
        (
            "fifo_write_vrrp_states_on_reload",
            _flag("vrrp.fifo_write_states_on_reload"),
            "",
            "Repeat states into FIFOs after a reload.",
            "",
        ),
        (
            "vrrp_startup_delay",
            _seconds("vrrp.startup_delay", "vrrp_startup_delay '{}' is invalid", 1000, 60),
            "SECONDS",
            "Before the first VRRP.",
            "",
        ),
        ("log_unknown_vrids", _flag("vrrp.log_unknown_vrids"), "", "Log adverts of others.", ""),
        ("dynamic_interfaces", _dynamic_interfaces, "[allow_if_changes]", "Interfaces may come later.", ""),
        (
            "default_interface",
            _word("vrrp.default_interface", "default_interface requires interface name"),
            "IF",
            "For static addresses that name none.",
            "",
        ),
        ("disable_local_igmp", _disable_local_igmp, "", "No IGMP for link-local groups.", ""),
        (
            "vmac_prefix",
            _vmac_prefix("vrrp.vmac_prefix", "vmac"),
            "TEXT",
            "Begins the names of VMAC interfaces.",
            "",
        ),
        (
            "vmac_addr_prefix",
            _vmac_prefix("vrrp.vmac_addr_prefix", "vmac_addr"),
            "TEXT",
            "…of those for addresses.",
            "",
        ),
        ("vrrp_rx_bufs_policy", _rx_bufs_policy, "MTU|ADVERT|BYTES", "Receive buffers.", ""),
        ("vrrp_rx_bufs_multiplier", _rx_bufs_multiplier, "N", "Default 3.", ""),
        ("vrrp_iptables", _vrrp_iptables, "", "The old way; nftables is used.", ""),
    ]


def _process_rows() -> list[Row]:
    rows: list[Row] = [
        ("process_name", _process_name("process_name"), "NAME", "The parent's name.", _ONE_PROCESS),
        ("process_names", _process_names, "", "Names that tell processes apart.", _ONE_PROCESS),
        ("max_auto_priority", _max_auto_priority, "[N]", "Raise the priority when late.", _ONE_PROCESS),
        (
            "min_auto_priority_delay",
            _min_auto_priority_delay,
            "MICROSECONDS",
            "How late that is.",
            _ONE_PROCESS,
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
        actions = _process(which)
        for what, action in actions.items():
            rows.append((f"{which}_{what}", action, arguments[what], "Of one process.", _ONE_PROCESS))
        old = actions["rlimit_rttime"]
        rows.append((f"{which}_rlimit_rtime", old, "MICROSECONDS", "Its old name.", _ONE_PROCESS))
        if which == "checker":
            named = actions["process_name"]
            rows.append(
                ("lvs_process_name", named, "NAME", "The old name of checker_process_name.", _ONE_PROCESS)
            )
    for name in (
        "vrrp_netlink_cmd",
        "vrrp_netlink_monitor",
        "process_monitor",
        "lvs_netlink_cmd",
        "lvs_netlink_monitor",
    ):
        size, force = _receive_buffer(name, name)
        rows.append((f"{name}_rcv_bufs", size, "BYTES", "A netlink socket's receive buffer.", ""))
        rows.append((f"{name}_rcv_bufs_force", force, "[BOOL]", "Beyond rmem_max, if it must be.", ""))
    return rows


def _other_rows() -> list[Row]:
    nftables, nftables_priority = _nftables("nftables", "nftables", "keepalived", 0)
    ipvs, ipvs_priority = _nftables("nftables_ipvs", "ipvs nftables", "keepalived_ipvs", 1000)
    bus = "there is no D-Bus service here; see `xlvs events --follow`"
    return [
        ("nftables", nftables, "[TABLE]", "The table for no_accept and the like.", ""),
        ("nftables_priority", nftables_priority, "N", "Its chains' priority.", ""),
        ("nftables_ifindex", _flag("nftables.use_ifindex"), "", "Interfaces by number in it.", ""),
        ("nftables_ipvs", ipvs, "[TABLE]", "One mark for a virtual server group.", _MARKS_BY_ITSELF),
        ("nftables_ipvs_priority", ipvs_priority, "N", "", _MARKS_BY_ITSELF),
        ("nftables_ipvs_start_fwmark", _nftables_start_fwmark, "MARK", "", _MARKS_BY_ITSELF),
        ("nftables_counters", _flag("nftables_counters"), "", "Count packets in the tables.", ""),
        ("snmp_socket", _snmp_socket, "ADDRESS", "", _NO_SNMP),
        ("enable_traps", _flag("snmp.traps"), "", "", _NO_SNMP),
        ("enable_snmp_vrrp", _flag("snmp.vrrp"), "", "", _NO_SNMP),
        ("enable_snmp_keepalived", _flag("snmp.vrrp"), "", "", _NO_SNMP),
        ("enable_snmp_checker", _flag("snmp.checker"), "", "", _NO_SNMP),
        ("enable_snmp_rfc", _enable_snmp_rfc, "", "", _NO_SNMP),
        ("enable_snmp_rfcv2", _flag("snmp.rfcv2"), "", "", _NO_SNMP),
        ("enable_snmp_rfcv3", _flag("snmp.rfcv3"), "", "", _NO_SNMP),
        ("enable_dbus", _flag("enable_dbus"), "", "", bus),
        (
            "dbus_service_name",
            _word("dbus_service_name", "dbus_service_name missing - ignoring"),
            "NAME",
            "",
            bus,
        ),
        ("umask", _umask, "BITS", "Of the files that are written.", ""),
        ("random_seed", _random_seed, "N", "Makes ${_RANDOM} repeatable.", ""),
        (
            "include_check",
            _include_check,
            "[[+|-]read|match|wildcard_match|brace_match …]",
            "What includes must find.",
            "",
        ),
        ("reload_check_config", _reload_check_config, "[LOGFILE]", "Test before a reload.", ""),
        ("reload_time_file", _reload_time_file, "PATH", "When to reload.", ""),
        ("reload_repeat", _flag("reload_repeat"), "", "…again and again.", ""),
        ("reload_file", _reload_file, "[PATH]", "Is there while a reload goes on.", ""),
        ("config_save_dir", _config_save_dir, "FOLDER", "Keep what was read, for debugging.", ""),
        (
            "tmp_config_directory",
            _tmp_config_directory,
            "FOLDER",
            "",
            "the configuration is read once, so no copy is made",
        ),
        (
            "data_use_instance",
            _switch("data_use_instance", "Invalid value '{}' for global date_use_instance specified"),
            "[BOOL]",
            "The instance in the names of dumps.",
            "",
        ),
    ]


GLOBAL_DEFS = Section("global_defs")
for _rows in (_mail_rows, _script_rows, _lvs_rows, _vrrp_rows, _process_rows, _other_rows):
    for _name, _action, _arguments, _meaning, _remark in _rows():
        GLOBAL_DEFS.add(_name, _action, _arguments, _meaning, remark=_remark)


def add_global_roots(root: Section) -> None:
    """Enter global_defs and what else is read before everything else."""
    root.add("linkbeat_use_polling", _flag("vrrp.linkbeat_use_polling"), "", "Poll links of all interfaces.")
    root.add(
        "net_namespace", _once("net_namespace", "net_namespace name missing - ignoring", "net_namespace"),
        "NAME", "Run in that network namespace.",
    )  # fmt: skip
    root.add("net_namespace_ipvs", _net_namespace_ipvs, "[NAME]", "Keep the table in that one.")
    root.add(
        "namespace_with_ipsets", _flag("namespace_with_ipsets"), "", "",
        remark="no ipsets are used here",
    )  # fmt: skip
    root.add("use_pid_dir", _flag("use_pid_dir"), "", "Pid files in /run/keepalived.")
    root.add(
        "instance", _once("instance", "instance name missing - ignoring", "instance"),
        "NAME", "Names this of several instances.",
    )  # fmt: skip
    root.add(
        "child_wait_time", _number("child_wait_time", "Invalid child_wait_time {}", lenient=False),
        "SECONDS", "", remark=_ONE_PROCESS,
    )  # fmt: skip
    root.add("global_defs", _global_defs, "", "What holds for everything.", block=GLOBAL_DEFS)
