# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's settings of IPVS, /proc/sys/net/ipv4/vs: which there are, and those that the packet path has.

Names, defaults and ranges are the kernel's (net/netfilter/ipvs/ip_vs_ctl.c,
Documentation/networking/ipvs-sysctl.rst).  One that can have no effect here
keeps its default, and says why when something else is wanted.  Values are
texts, as files under /proc/sys hold them.
"""

from __future__ import annotations

from xlvs import errors, model
from xlvs.datapath.records import seconds_to_ticks, ticks_to_seconds
from xlvs.kernel import abi

_LOWEST, _HIGHEST = -(1 << 31), (1 << 31) - 1
"""What a C int holds: the range of most."""
_MAX_SECONDS = 8_589_934
"""The longest duration that a kernel of 250 ticks a second takes: 99 days."""
_DAY = 86_400
_AUTOMATIC = (1, 2)
"""The modes of a defence that acts by itself: 2 while it does, else 1."""

_NO_SYNC = "xlvs has no sync daemon yet"
_NO_ESTIMATORS = "rates are estimated by a timer of the packet path, not by processes"


def _on_off(name: str) -> model.Sysctl:
    return model.Sysctl(name, "0", _LOWEST, _HIGHEST)


def _defence(name: str) -> model.Sysctl:
    return model.Sysctl(name, "0", 0, 3)


def _fixed(name: str, default: str | None, reason: str) -> model.Sysctl:
    return model.Sysctl(name, default, refusal=reason)


SYSCTLS = {
    one.name: one
    for one in (
        model.Sysctl("am_droprate", "10", _LOWEST, _HIGHEST),
        model.Sysctl("amemthresh", "1024", _LOWEST, _HIGHEST),
        _fixed("backup_only", "0", _NO_SYNC),
        _on_off("cache_bypass"),
        model.Sysctl("conn_reuse_mode", "1", _LOWEST, _HIGHEST),
        _fixed("conntrack", "0", "the packet path runs before connection tracking and does without it"),
        _defence("drop_entry"),
        _defence("drop_packet"),
        _fixed("est_cpulist", None, _NO_ESTIMATORS),
        _fixed("est_nice", "0", _NO_ESTIMATORS),
        _on_off("expire_nodest_conn"),
        _on_off("expire_quiescent_template"),
        _on_off("ignore_tunneled"),
        model.Sysctl("lblc_expiration", str(_DAY), 0, _MAX_SECONDS),
        model.Sysctl("lblcr_expiration", str(_DAY), 0, _MAX_SECONDS),
        _on_off("nat_icmp_send"),
        model.Sysctl("pmtu_disc", "1", _LOWEST, _HIGHEST),
        model.Sysctl("run_estimation", "1", _LOWEST, _HIGHEST),
        _on_off("schedule_icmp"),
        _defence("secure_tcp"),
        _on_off("sloppy_sctp"),
        _on_off("sloppy_tcp"),
        _fixed("snat_reroute", "1", "answers are always routed as what the director itself sends"),
        _fixed("sync_persist_mode", "0", _NO_SYNC),
        _fixed("sync_ports", "1", _NO_SYNC),
        _fixed("sync_qlen_max", None, _NO_SYNC),
        _fixed("sync_refresh_period", "0", _NO_SYNC),
        _fixed("sync_retries", "0", _NO_SYNC),
        _fixed("sync_sock_size", "0", _NO_SYNC),
        _fixed("sync_threshold", "3\t50", _NO_SYNC),
        _fixed("sync_version", "1", _NO_SYNC),
    )
}
"""Every setting by its name, in the order of `sysctl -a`."""

_DURATIONS = ("lblc_expiration", "lblcr_expiration")
"""Those that the packet path has in ticks, in fields of their own."""


def defaults() -> dict[str, str]:
    """What each setting is where nobody has changed it; without those that each machine has otherwise."""
    return {name: one.default for name, one in SYSCTLS.items() if one.default is not None}


def check(values: dict[str, str]) -> dict[str, str]:
    """The values as they would be listed.

    Raises `InvalidOperation` for a name that is no setting, or a value that is
    no number; `OutOfRange`; `NotSupported` for one that can have no effect here.
    """
    return {name: _checked(name, text) for name, text in values.items()}


def _checked(name: str, text: str) -> str:
    if name not in SYSCTLS:
        raise errors.InvalidOperation(f"IPVS has no setting {name!r}", "See them all: xlvs sysctl")
    one = SYSCTLS[name]
    if one.refusal:
        if one.default is None or text.split() != one.default.split():
            stays = "cannot be set" if one.default is None else f"stays {one.default!r}"
            raise errors.NotSupported(f"{name} {stays}: {one.refusal}")
        return one.default
    number = _number(text)
    if number is None:
        raise errors.InvalidOperation(f"{name} takes a number, not {text!r}")
    if not one.low <= number <= one.high:
        raise errors.OutOfRange(f"{name} is {one.low} to {one.high}, not {number}")
    return str(number)


def _number(text: str) -> int | None:
    """What a file under /proc/sys takes for a number: 8, 010 or 0x8 (kernel: ``proc_get_long``)."""
    written = text.strip(" \t\n")
    digits = written.removeprefix("-")
    is_hexadecimal = digits[:2] in ("0x", "0X")
    if not digits.isascii() or not (digits.isalnum() if is_hexadecimal else digits.isdigit()):
        return None
    base = 16 if is_hexadecimal else 8 if digits.startswith("0") else 10
    try:
        number = int(digits, base)
    except ValueError:
        return None
    return -number if written.startswith("-") else number


def set_defaults(settings: abi.Settings) -> None:
    """Fill the settings of a packet path that is about to be loaded."""
    store(settings, {name: text for name, text in defaults().items() if not SYSCTLS[name].refusal})


def store(settings: abi.Settings, values: dict[str, str]) -> None:
    """Let packets go by these values, which are checked before any is stored; raises as `check`."""
    for name, text in check(values).items():
        if SYSCTLS[name].refusal:
            continue
        if name in _DURATIONS:
            setattr(settings, name, seconds_to_ticks(int(text)))
        else:
            settings.sysctl[_place(name)] = int(text)


def read(settings: abi.Settings, capacity: int) -> dict[str, str]:
    """Every setting as the packet path has it; ``capacity`` is how many connections certainly fit."""
    values = defaults()
    for name, one in SYSCTLS.items():
        if one.refusal:
            continue
        if name in _DURATIONS:
            values[name] = str(ticks_to_seconds(getattr(settings, name)))
            continue
        value = settings.sysctl[_place(name)]
        if one.high == 3 and value in _AUTOMATIC:
            value = _AUTOMATIC[_is_scarce(settings, capacity)]
        values[name] = str(value)
    return values


def _is_scarce(settings: abi.Settings, capacity: int) -> bool:
    """Whether automatic defences act: as the packet path reckons, bpf/defense.h."""
    return max(capacity - settings.occupied, 0) < settings.sysctl[abi.SYSCTL_AMEMTHRESH]


def _place(name: str) -> int:
    return int(getattr(abi, f"SYSCTL_{name.upper()}"))
