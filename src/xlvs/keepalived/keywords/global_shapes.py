# SPDX-License-Identifier: GPL-2.0-only
"""What several keywords of global_defs do, beside the usual shapes."""

from __future__ import annotations

from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.shapes import flag, switch
from xlvs.keepalived.numbers import (
    INT_MAX,
    INT_MIN,
    SECOND,
    UINT_MAX,
    read_decimal,
    read_int,
    read_unsigned,
)
from xlvs.keepalived.origin import NotifyFifo
from xlvs.keepalived.scripts import find_user, read_script
from xlvs.keepalived.statements import Action, Cursor

_MOST_PROCESS_NAME = 15
_MOST_RT_PRIORITY = 99
_MOST_TABLE_NAME = 255


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
