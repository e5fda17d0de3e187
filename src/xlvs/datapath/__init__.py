# SPDX-License-Identifier: GPL-2.0-only
"""Data planes, and how to open the one of this network namespace.

Every listing imports this: it does without ``contextlib``, which takes a tenth
of the time that a listing has.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from xlvs.datapath.ebpf import EbpfDatapath
    from xlvs.datapath.interface import Datapath
    from xlvs.datapath.maps import Maps
    from xlvs.kernel.lock import TableLock


def _empty() -> Datapath:
    from xlvs.datapath.memory import MemoryDatapath

    return MemoryDatapath()


def _activate() -> str:
    """Load and attach what is not yet, and say on stderr where that was refused."""
    import sys

    from xlvs.datapath.activate import activate

    activation = activate()
    for error in activation.refused:
        print(f"xlvs: {error}", file=sys.stderr)
    return activation.folder


def open_datapath(write: bool = False, load: bool = False, locked: bool = True) -> Opened:
    """Open this network namespace's table, under its lock, for a ``with`` block.

    ``write`` holds the lock alone, for changes.  ``load`` loads the packet
    path, and attaches it at TC to every interface that is up, where nothing
    is loaded yet; without it an unloaded data plane is an empty table, and
    nothing is loaded by looking at it.  Without ``locked`` no lock is taken:
    for connections alone, which packets change all the time anyway.

    Entering raises `NotPermitted` for a caller who is not root, `Unavailable`
    where this machine cannot do it.
    """
    return Opened(write, load, locked)


class Opened:
    """A table while it is open; see `open_datapath`."""

    def __init__(self, write: bool, load: bool, locked: bool) -> None:
        self._write = write
        self._load = load
        self._locked = locked
        self._lock: TableLock | None = None
        self._maps: Maps | None = None
        self._changing: EbpfDatapath | None = None

    def __enter__(self) -> Datapath:
        from xlvs.kernel import bpffs
        from xlvs.kernel.privilege import require_root

        require_root()
        if not self._load and bpffs.namespace_folder() is None:
            return _empty()
        try:
            return self._open()
        except BaseException:
            self._close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from xlvs.errors import XlvsError

        try:
            # A refusal leaves the table whole; whoever dies in a change leaves it to be mended.
            if self._changing and (error is None or isinstance(error, XlvsError)):
                self._changing.end_change()
        finally:
            self._close()

    def _open(self) -> Datapath:
        from xlvs.datapath.ebpf import EbpfDatapath
        from xlvs.datapath.maps import Maps
        from xlvs.kernel import bpffs
        from xlvs.kernel.lock import table_lock

        if self._locked:
            lock = table_lock(exclusive=self._write)
            lock.__enter__()
            self._lock = lock
        folder = bpffs.namespace_folder()
        if folder is None and not self._load:
            return _empty()  # it was detached while we waited for the lock
        if folder is None:
            folder = _activate()
        self._maps = maps = Maps(folder)
        datapath = EbpfDatapath(maps)
        if self._write:
            from xlvs.datapath import loopback

            if self._load and not maps.settings.activated:
                _activate()  # a command that died had only begun to
            loopback.enable_again(maps.settings)  # ip_forward may have turned it off
            datapath.begin_change()
            self._changing = datapath
        return datapath

    def _close(self) -> None:
        if self._maps:
            self._maps.close()
        if self._lock:
            self._lock.__exit__(None, None, None)
        self._maps = self._lock = None
