# SPDX-License-Identifier: GPL-2.0-only
"""A node's own /etc: what is typed there (`ipvsadm -Sn >/etc/ipvsadm.rules`) stays out of the machine's.

It is an overlay over the machine's /etc, mounted once in the node's folder, with what is
written on a tmpfs beside it; each command in the node has it bound over /etc.  (An overlay
for each command would not do: what two do with one upper folder is not defined.)
A kernel without overlays leaves the node the machine's /etc.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

_MACHINES = "/etc"
_MNT_DETACH = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


def etc(node_folder: Path) -> Path:
    """Where a node's /etc is mounted; a mount point only where the kernel has overlays."""
    return node_folder / "own" / "etc"


def make(node_folder: Path) -> None:
    """Give a node an /etc of its own; one that it has stays."""
    own, merged = node_folder / "own", etc(node_folder)
    if merged.is_mount():
        return
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not own.is_mount() and not _mount("tmpfs", own, "mode=0700"):
        return
    upper, work = own / "written", own / "work"
    for each in (upper, work, merged):
        each.mkdir(exist_ok=True)
    upper.chmod(0o755)  # of which the whole takes it
    _copy_mounted_files(upper)
    _mount("overlay", merged, f"lowerdir={_MACHINES},upperdir={upper},workdir={work}")


def remove_all(lab_folder: Path) -> None:
    """Unmount what nodes of a lab have, whatever state they are in."""
    for point in reversed([each for each in _mount_points() if each.startswith(f"{lab_folder}/")]):
        _libc.umount2(os.fsencode(point), _MNT_DETACH)


def _copy_mounted_files(upper: Path) -> None:
    """Containers have single files mounted in /etc, beneath which an overlay would look."""
    for point in _mount_points():
        path = Path(point)
        if path.parent == Path(_MACHINES) and path.is_file():
            with suppress(OSError):
                shutil.copy2(path, upper / path.name)


def _mount_points() -> list[str]:
    with open("/proc/self/mountinfo") as mounts:
        return [line.split()[4] for line in mounts]


def _mount(kind: str, target: Path, options: str) -> bool:
    done: int = _libc.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, options.encode())
    return done == 0
