# SPDX-License-Identifier: GPL-2.0-only
"""What systemd wants to hear (sd_notify(3)): ready, reloading, stopping, and that we are alive."""

from __future__ import annotations

import contextlib
import os
import socket
import time

_PATIENCE = 1.0
"""Seconds to wait for room in systemd's queue."""


def tell(*lines: str, patience: float = _PATIENCE) -> None:
    """Send a message to whoever started us, if he listens, waiting ``patience`` seconds for room at most.

    Nothing is checked meanwhile: a systemd that is stuck must not stop us.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.settimeout(patience)
        sending.sendto("\n".join(lines).encode(), address)


def alive() -> None:
    """What the watchdog wants to hear; where there is no room for it, others are waiting there already."""
    tell("WATCHDOG=1", patience=0)


def reloading() -> None:
    """A reload begins (systemd needs the monotonic time with it)."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_seconds() -> float | None:
    """How often we must say that we are alive, half of what is allowed; None where nobody asks."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return max(0.1, int(os.environ["WATCHDOG_USEC"]) / 2e6)
    except (KeyError, ValueError):
        return None
