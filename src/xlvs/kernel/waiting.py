# SPDX-License-Identifier: GPL-2.0-only
"""Who holds a lock that somebody at a terminal has been waiting for, in a line for him.

A command that was stopped (Ctrl-Z) while it changes the table keeps all others waiting.
"""

from __future__ import annotations

import os
import sys

PATIENCE = 2.0
"""Seconds after which whoever waits is told for whom."""
_STOPPED = "Tt"


def say_for_whom(descriptor: int) -> None:
    """Tell standard error who holds the lock of an open file, if it is known."""
    try:
        process = holder(descriptor)
        if process:
            print(f"waiting for {described(process)}, which has the table", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # it was released meanwhile, or may not be looked at


def holder(descriptor: int) -> int:
    """The process that holds the lock (flock(2)) of an open file, 0 for none that is seen from here.

    Raises `OSError` without /proc.
    """
    found = os.fstat(descriptor)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            words = line.split()
            # 1: FLOCK ADVISORY WRITE 4711 00:1a:567 0 EOF; an arrow after the number: that one waits.
            if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and int(words[4]) > 0:
                return int(words[4])
    return 0


def described(process: int) -> str:
    """A process by its number, command line and, where it is stopped, how to have it go on."""
    with open(f"/proc/{process}/cmdline", "rb") as file:
        words = file.read().decode("utf-8", "backslashreplace").split("\0")
    with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
        state = file.read().rpartition(")")[2].split()[0]
    # Of a script the interpreter stands before it.
    names = [os.path.basename(word) for word in words[:2] if word]
    script = len(names) > 1 and names[0].startswith("python")
    text = " ".join([*names[script:][:1], *words[1 + script :]]).strip()
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    stopped = f", stopped: kill -CONT {process}" if state in _STOPPED else ""
    return f"process {process} ({shown}{stopped})"
