# SPDX-License-Identifier: GPL-2.0-only
"""One writer at a time: a lock file for each network namespace.

Commands that change the table hold it from their first look to their last
store; listings share it.  It is released with the process, however that ends.
The file is there as long as something is loaded, or about to be: whoever waited
for a file that was removed meanwhile takes the new one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xlvs.errors import Unavailable
from xlvs.kernel.bpffs import make_run_folder, namespace_folder
from xlvs.kernel.namespaces import network_cookie, outermost_process

FOLDER = "/run/xlvs/lock"


def _open(path: str) -> int:
    make_run_folder(os.path.dirname(path))
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _acquire(path: str, operation: int) -> int:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, operation)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def forget(live_cookies: set[int]) -> None:
    """Remove the lock files of network namespaces that are gone."""
    folder = f"/proc/{outermost_process()}/root{FOLDER}"
    if not os.path.isdir(folder):
        return
    live = {f"{cookie:x}" for cookie in live_cookies}
    for name in os.listdir(folder):
        if name in live:
            continue
        # Another command may sweep at the same time; one that holds it is alive after all.
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(f"{folder}/{name}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(f"{folder}/{name}")
            finally:
                os.close(descriptor)


@contextmanager
def table_lock(exclusive: bool) -> Iterator[None]:
    """Hold the table's lock; waits for it.

    Raises `Unavailable` where the lock file cannot be made.
    """
    path = f"/proc/{outermost_process()}/root{FOLDER}/{network_cookie():x}"
    try:
        descriptor = _acquire(path, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    except OSError as error:
        raise Unavailable(
            f"cannot open the lock file under {FOLDER}: {error.strerror}",
            "xlvs keeps its lock and its table under /run/xlvs: /run must be writable.",
        ) from error
    try:
        yield
    finally:
        if exclusive and not _is_loaded():
            os.unlink(path)
        os.close(descriptor)


def _is_loaded() -> bool:
    try:
        return namespace_folder() is not None
    except Unavailable:
        return False  # what stands there is not ours
