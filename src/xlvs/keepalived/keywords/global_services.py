# SPDX-License-Identifier: GPL-2.0-only
"""Keywords of global_defs about mail, scripts and virtual servers."""

from __future__ import annotations

from xlvs.keepalived.addresses import is_multicast, read_address
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.numbers import (
    SECOND,
    UINT_MAX,
    read_unsigned,
)
from xlvs.keepalived.settings import FlushOnStop, HandEdits, LvsTimeouts, SyncDaemon
from xlvs.keepalived.statements import Cursor

MOST_SECONDS = UINT_MAX // SECOND
_MOST_LVS_TIMEOUT = 86400 * 31
_MOST_INTERFACE_NAME = 15
_SYNC_NUMBERS: dict[str, tuple[str, int, int]] = {
    "maxlen": ("max_length", 1, 65535 - 20 - 8),
    "port": ("port", 1, 65535),
    "ttl": ("ttl", 1, 255),
}


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
