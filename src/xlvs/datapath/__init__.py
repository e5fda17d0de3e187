# SPDX-License-Identifier: GPL-2.0-only
"""Data planes, and how to open the one of this network namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.interface import Datapath


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


@contextmanager
def open_datapath(write: bool = False, load: bool = False, locked: bool = True) -> Iterator[Datapath]:
    """Open this network namespace's table, under its lock, for the ``with`` block.

    ``write`` holds the lock alone, for changes.  ``load`` loads the packet
    path, and attaches it at TC to every interface that is up, where nothing
    is loaded yet; without it an unloaded data plane is an empty table, and
    nothing is loaded by looking at it.  Without ``locked`` no lock is taken:
    for `Datapath.connections` alone, which packets change all the time anyway.

    Raises `NotPermitted` for a caller who is not root, `Unavailable` where
    this machine cannot do it.
    """
    from xlvs.errors import XlvsError
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    require_root()
    if not load and bpffs.namespace_folder() is None:
        yield _empty()
        return
    with table_lock(exclusive=write) if locked else nullcontext():
        from xlvs.datapath import loopback
        from xlvs.datapath.ebpf import EbpfDatapath
        from xlvs.datapath.maps import Maps

        folder = bpffs.namespace_folder()
        if folder is None and not load:
            yield _empty()  # it was detached while we waited for the lock
            return
        if folder is None:
            folder = _activate()
        maps = Maps(folder)
        datapath = EbpfDatapath(maps)
        try:
            if not write:
                yield datapath
                return
            if load and not maps.settings.activated:
                _activate()  # a command that died had only begun to
            loopback.enable_again(maps.settings)  # ip_forward may have turned it off
            datapath.begin_change()
            try:
                yield datapath
            except XlvsError:
                datapath.end_change()  # a refusal leaves the table whole
                raise
            datapath.end_change()
        finally:
            maps.close()
