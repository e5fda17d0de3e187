# SPDX-License-Identifier: GPL-2.0-only
"""Named network namespaces, and the processes that live in them.

Names are kept as iproute2 keeps them, under /run/netns, so that ``ip netns``
shows a lab's nodes.  This module only ever touches a name it is given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from xlvs.errors import XlvsError

_FOLDER = Path("/run/netns")
_GRACE = 1.0
_PATIENCE = 10.0


def path(name: str) -> str:
    """The file through which a namespace is entered."""
    return str(_FOLDER / name)


def exists(name: str) -> bool:
    """Is there a living namespace of that name (not merely a file)?"""
    try:
        return os.stat(path(name)).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def with_prefix(prefix: str) -> list[str]:
    """Every name that begins so, living or not."""
    try:
        return sorted(entry for entry in os.listdir(_FOLDER) if entry.startswith(prefix))
    except FileNotFoundError:
        return []


def add(name: str) -> None:
    """Make a namespace.  Raises `XlvsError` with what the system said."""
    made = _ip("netns", "add", name)
    if made.returncode != 0:
        raise XlvsError(
            f"cannot make the network namespace {name}: {made.stderr.strip()}",
            "this needs root and a kernel with CONFIG_NET_NS; in a container also the capability SYS_ADMIN",
        )


def processes(names: list[str]) -> list[int]:
    """The processes in these namespaces.  One that cannot be looked at is not in them."""
    inodes = {os.stat(path(name)).st_ino for name in names if exists(name)}
    found = []
    for entry in os.listdir("/proc") if inodes else []:
        if entry.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    found.append(int(entry))
    return found


def delete(names: list[str]) -> None:
    """End every process in these namespaces, then remove them with all that is in them.

    Processes are asked first and have a second to comply.  Raises `XlvsError`
    if one cannot be ended.
    """
    _end_processes(names)
    for name in names:
        _unmount_and_unlink(name)


def _end_processes(names: list[str]) -> None:
    begin = time.monotonic()
    waited = False
    while True:
        living = processes(names)
        if not living:
            return
        elapsed = time.monotonic() - begin
        if elapsed > _PATIENCE:
            raise XlvsError(
                f"these processes in the lab's namespaces do not end: {' '.join(map(str, living))}",
                "see what they wait for: cat /proc/PID/stack; then try again",
            )
        # New ones may appear as long as old ones can fork, hence again and again.
        if elapsed > _GRACE or not waited:
            kind = signal.SIGKILL if elapsed > _GRACE else signal.SIGTERM
            for process in living:
                with suppress(ProcessLookupError):
                    os.kill(process, kind)
                    if kind == signal.SIGTERM:
                        os.kill(process, signal.SIGCONT)  # a stopped one could not hear it
            waited = True
        time.sleep(0.02)


def _unmount_and_unlink(name: str) -> None:
    gone = _ip("netns", "delete", name)
    # A name without a namespace behind it: what a command killed in the middle leaves.
    if gone.returncode != 0 and os.path.exists(path(name)):
        with suppress(FileNotFoundError):
            os.unlink(path(name))


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    # In a session of its own: Ctrl-C on the terminal is for us, to hear when this is done.
    return subprocess.run(
        ["ip", *words], capture_output=True, text=True, check=False, start_new_session=True
    )
