# SPDX-License-Identifier: GPL-2.0-only
"""What labs need on the machine itself, made for the first lab and taken back with the last.

/run/network is where ifupdown keeps its state, /var/lib/xlvs is where `xlvs save` writes:
they must exist for a node to have ones of its own.  /run/netns becomes a mount point with the first named
namespace.  Where they were there before, they stay.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xlvs.kernel import bpffs
from xlvs.lab import state

_RUN_NETWORK = Path("/run/network")
_SAVED = Path("/var/lib/xlvs")
_RUN_NETNS = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def make() -> None:
    """Make what is missing and remember it; call with the lab's record written."""
    with _all_labs():
        for folder in (_RUN_NETWORK, _SAVED):
            if not folder.exists():
                with suppress(OSError):  # on a machine that is read-only nothing can be written there
                    folder.mkdir(mode=0o755)
                    _mark(folder).touch()
        if not _is_mount_point(_RUN_NETNS):
            _mark(_RUN_NETNS).touch()


def take_back() -> None:
    """Undo `make` if no lab is left; call with the lab's record removed."""
    with _all_labs():
        if state.names():
            return
        for path in (_RUN_NETWORK, _SAVED, _RUN_NETNS):
            if not _mark(path).exists():
                continue
            _mark(path).unlink()
            # Whoever has put something there meanwhile keeps it.
            with suppress(OSError):
                if not any(path.iterdir()):
                    _libc.umount2(os.fsencode(path), 0)
                    path.rmdir()
        with suppress(OSError):
            state.ROOT.rmdir()


def _mark(path: Path) -> Path:
    return state.ROOT / f".made-{path.name}"


def _is_mount_point(path: Path) -> bool:
    with open("/proc/self/mountinfo") as mounts:
        return any(line.split()[4] == str(path) for line in mounts)


@contextmanager
def _all_labs() -> Iterator[None]:
    """Keep the labs' commands apart for a moment."""
    bpffs.make_run_folder(str(state.ROOT))
    held = os.open(state.ROOT.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
