# SPDX-License-Identifier: GPL-2.0-only
"""Whether somebody follows the interfaces of this network namespace: a lock file for each.

Followers share it; it is released with the process, however that ends.  Looking takes nothing
that another look would see.
"""

from __future__ import annotations

import fcntl
import os
from struct import Struct

from xlvs.kernel.bpffs import make_run_folder
from xlvs.kernel.namespaces import network_cookie, outermost_process

FOLDER = "/run/xlvs/follow"

_FLOCK = Struct("hhqqi4x")
"""``struct flock``: type, whence, start, length, process."""


def _path() -> str:
    return f"/proc/{outermost_process()}/root{FOLDER}/{network_cookie():x}"


def begin() -> int:
    """Be a follower until the descriptor that this returns is closed; raises `OSError`."""
    path = _path()
    make_run_folder(os.path.dirname(path))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # By open file, not by process: another descriptor that this process closes leaves it.
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_followed() -> bool:
    """Whether there is a follower; raises `PermissionError` for a caller who is not root."""
    try:
        descriptor = os.open(_path(), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    finally:
        os.close(descriptor)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
