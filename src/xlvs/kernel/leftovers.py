# SPDX-License-Identifier: GPL-2.0-only
"""What network namespaces leave behind when they go: their pins, lock files and records."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from itertools import chain

from xlvs.kernel import bpf, bpffs, followed, lock
from xlvs.kernel.namespaces import gone, outermost_process

RECORDS = "/run/xlvs/realserver"
"""What was set up of real servers in network namespaces, a file for each: its cookie, and ``.json``."""
REAL_SERVER = "-realserver"
"""The end of the name of a folder with the pins of real servers' programs; a cookie stands before it.

A bpffs takes no name with a dot in it."""


def sweep() -> None:
    """Remove what network namespaces that are gone left behind: pins, lock files and records.

    Without the right to look into every namespace it removes nothing.
    """
    # Listed before the namespaces are: what another command makes meanwhile is left alone.
    records = f"/proc/{outermost_process()}/root{RECORDS}"
    written = os.listdir(records) if os.path.isdir(records) else []
    mounted = bpffs.root()
    pinned = [name for name in os.listdir(mounted) if _is_ours(f"{mounted}/{name}")] if mounted else []
    locked = {folder: lock.cookies(folder) for folder in (lock.FOLDER, followed.FOLDER)}
    try:
        recorded = (name.partition(".")[0] for name in written)
        dead = gone({*chain.from_iterable(locked.values()), *recorded, *map(_cookie, pinned)})
    except PermissionError:
        return
    for folder, names in locked.items():
        lock.forget(dead.intersection(names), folder)
    for name in written:
        if name.partition(".")[0] in dead:
            with suppress(FileNotFoundError):  # another command sweeps, too
                os.unlink(f"{records}/{name}")
    for name in pinned:
        folder = f"{mounted}/{name}"
        if _cookie(name) in dead and not _is_attached(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _cookie(name: str) -> str:
    return name.removesuffix("-new").removesuffix(REAL_SERVER)


def _is_ours(folder: str) -> bool:
    """Whether a folder is one of pins; tc(8) and ip(8) keep theirs on any bpffs they find."""
    name = os.path.basename(folder)
    has_links = name.endswith(REAL_SERVER) or os.path.isdir(f"{folder}/links")
    return not _cookie(name).strip("0123456789abcdef") and has_links


def _is_attached(folder: str) -> bool:
    """Whether a director's program is still at an interface; a real server's goes with its namespace."""
    links = f"{folder}/links"
    for name in os.listdir(links) if os.path.isdir(links) else []:
        if name.startswith(("clsact-", "qdisc-")):
            continue  # not a link; the filter went with its interface
        try:
            link = bpf.open_pin(f"{links}/{name}")
        except OSError:
            return True  # cannot tell: leave it alone
        try:
            if bpf.link_interface(link)[1] != 0:
                return True
        finally:
            os.close(link)
    return False
