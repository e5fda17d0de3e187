# SPDX-License-Identifier: GPL-2.0-only
"""Keywords of global_defs about the process, its files and how the configuration is read."""

from __future__ import annotations

import os
import re

from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.files import EVERYTHING, Demand
from xlvs.keepalived.numbers import (
    read_int,
    read_unsigned,
)
from xlvs.keepalived.statements import Cursor

_MOST_RT_PRIORITY = 99
_UMASK_BITS = {
    "IRUSR": 0o400, "IWUSR": 0o200, "IXUSR": 0o100, "IRGRP": 0o40, "IWGRP": 0o20, "IXGRP": 0o10,
    "IROTH": 0o4, "IWOTH": 0o2, "IXOTH": 0o1,
}  # fmt: skip
_CHECKS = {
    "read": Demand.READABLE,
    "match": Demand.MATCH,
    "wildcard_match": Demand.WILDCARD,
    "brace_match": Demand.BRACES,
}


def process_names(draft: Draft, _at: Cursor) -> None:
    """The keyword ``process_names``."""
    for which, name in (
        ("vrrp", "keepalived_vrrp"),
        ("checker", "keepalived_lvs"),
        ("bfd", "keepalived_bfd"),
    ):
        draft.set(f"{which}_process.name", name)


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


def net_namespace_ipvs(draft: Draft, at: Cursor) -> None:
    """The keyword ``net_namespace_ipvs``."""
    if draft.get("net_namespace_ipvs") is not None:
        at.report(f"Duplicate net_namespace_ipvs definition {at.word(1)} - ignoring")
    else:
        draft.set("net_namespace_ipvs", at.words[1] if len(at.words) > 1 else "")


def global_defs(draft: Draft, _at: Cursor) -> Draft:
    """The keyword ``global_defs``."""
    return draft
