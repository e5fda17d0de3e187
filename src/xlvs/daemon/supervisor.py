# SPDX-License-Identifier: GPL-2.0-only
"""What systemd wants to hear (sd_notify(3)): ready, reloading, stopping, and that we are alive."""

from __future__ import annotations

import contextlib
import os
import socket
import time


def tell(*lines: str) -> None:
    """Send a message to whoever started us, if he listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.sendto("\n".join(lines).encode(), address)


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
