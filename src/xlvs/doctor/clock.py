# SPDX-License-Identifier: GPL-2.0-only
"""The machine's clock: from what it is read, whether it is synchronised, whether somebody sets it."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_UNSYNCHRONISED = 0x40


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex`` (linux/timex.h), which is 208 bytes long."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("maximum_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 160),
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """``source`` is what it is read from; ``synchronised`` whether the kernel is told that it is right."""

    source: str = ""
    synchronised: bool = True
    maximum_error: float = 0.0
    """Seconds by which it may be wrong, as the kernel reckons it."""


def observe() -> Clock:
    """What the kernel says of the clock; what it does not say counts as in order."""
    try:
        source = SOURCE.read_text().strip()
    except OSError:
        source = ""
    state = _Timex()  # no modes: nothing is changed
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
        return Clock(source)
    return Clock(source, not state.status & _UNSYNCHRONISED, state.maximum_error / 1e6)


def ahead_of_monotonic() -> float:
    """Seconds between the clock and the one that nobody can set: it changes only when the clock is set.

    (A daemon that slews the clock slews both.)
    """
    return (time.time_ns() - time.monotonic_ns()) / 1e9
