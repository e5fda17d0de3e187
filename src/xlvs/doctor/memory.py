# SPDX-License-Identifier: GPL-2.0-only
"""How much memory a command here may still take: the machine's, and what its control groups leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that are left, and the file that says so."""

    available: int
    source: str


def observe(meminfo: Path = MEMINFO, own_group: Path = OWN_GROUP, groups: Path = GROUPS) -> Memory | None:
    """The least that the machine and any control group above this process leave; None: not known.

    Control groups of version 2 are looked at.
    """
    found = []
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            found.append(Memory(int(line.split()[1]) << 10, f"{meminfo}: MemAvailable"))
    path = next((line[3:] for line in _read(own_group).splitlines() if line.startswith("0::")), "")
    folder = groups / path.strip("/")
    while path and folder != groups and groups in folder.parents:
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdecimal() and used.isdecimal():
            found.append(Memory(max(int(limit) - int(used), 0), f"{folder}/memory.max"))
        folder = folder.parent
    return min(found, key=lambda each: each.available, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
