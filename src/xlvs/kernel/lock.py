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

from xlvs.errors import Unavailable
from xlvs.kernel.bpffs import make_run_folder, namespace_folder
from xlvs.kernel.namespaces import network_cookie, outermost_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

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
            _flock(descriptor, operation)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, operation: int) -> None:
    """Lock, and wait for it; who waits long at a terminal is told for whom."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        if not os.isatty(2):
            fcntl.flock(descriptor, operation)
            return
        from threading import Timer

        from xlvs.kernel.waiting import PATIENCE, say_for_whom

        teller = Timer(PATIENCE, say_for_whom, (descriptor,))
        teller.daemon = True
        teller.start()
        try:
            fcntl.flock(descriptor, operation)
        finally:
            teller.cancel()


def cookies(of: str) -> list[str]:
    """The network namespaces that have a lock file in the folder ``of``, by their cookies in hexadecimal."""
    try:
        return os.listdir(f"/proc/{outermost_process()}/root{of}")
    except FileNotFoundError:
        return []


def forget(dead: set[str], of: str) -> None:
    """Remove the lock files, in the folder ``of``, of namespaces that are gone: cookies in hexadecimal."""
    from contextlib import suppress

    folder = f"/proc/{outermost_process()}/root{of}"
    for name in dead:
        # Another command may sweep at the same time; one that holds it is alive after all.
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(f"{folder}/{name}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(f"{folder}/{name}")
            finally:
                os.close(descriptor)


def table_lock(exclusive: bool) -> TableLock:
    """The table's lock, to be held for a ``with`` block; entering waits for it.

    Entering raises `Unavailable` where the lock file cannot be made.
    """
    return TableLock(exclusive)


class TableLock:
    """This network namespace's lock; see `table_lock`."""

    def __init__(self, exclusive: bool) -> None:
        self._exclusive = exclusive
        self._path = ""
        self._descriptor = -1

    def __enter__(self) -> None:
        self._path = f"/proc/{outermost_process()}/root{FOLDER}/{network_cookie():x}"
        try:
            self._descriptor = _acquire(self._path, fcntl.LOCK_EX if self._exclusive else fcntl.LOCK_SH)
        except OSError as error:
            raise Unavailable(
                f"cannot open the lock file under {FOLDER}: {error.strerror}",
                "xlvs keeps its lock and its table under /run/xlvs: /run must be writable.",
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._exclusive and not _is_loaded():
                os.unlink(self._path)
        finally:
            os.close(self._descriptor)


def _is_loaded() -> bool:
    try:
        return namespace_folder() is not None
    except Unavailable:
        return False  # what stands there is not ours
