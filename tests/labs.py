# SPDX-License-Identifier: GPL-2.0-only
"""Labs as tests use them: lines typed in nodes, pages asked for, and what is left in the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from xlvs.kernel import bpffs
from xlvs.kernel.namespaces import gone
from xlvs.lab import lifecycle, node
from xlvs.lab.state import Record

XLVS = str(Path(sys.executable).parent / "xlvs")
DEADLINE = 60.0


class Lab:
    """A running lab."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.addresses = record.addresses
        self.name = record.name

    def type(self, where: str, line: str, *, code: int = 0) -> str:
        """Type a line in a node's shell; return what it printed; its exit code must be as expected."""
        ran = node.run(self.record, where, ["sh", "-c", line])
        printed = ran.stdout + ran.stderr
        assert ran.returncode == code, f"{where}# {line}\nended with {ran.returncode}:\n{printed}"
        return printed

    def ask(self, times: int, url: str | None = None) -> list[str]:
        """Ask a URL (the VIP's page) so many times, one connection each; return the answers."""
        target = url or f"http://{self.addresses.vip}/"
        asking = f"for i in $(seq {times}); do curl -g -s -m 5 '{target}' || echo failed; done"
        return self.type("client", asking).split()

    def answering_macs(self, where: str = "client", address: str | None = None) -> set[str]:
        """The MACs that answer one ARP request for the VIP."""
        interface = self.addresses.interface
        heard = self.type(where, f"arping -b -w 1 -I {interface} {address or self.addresses.vip}; true")
        return {mac.lower() for mac in re.findall(r"\[([0-9A-F:]{17})\]", heard)}

    def mac(self, where: str) -> str:
        """The MAC of a node's first interface."""
        return lifecycle.plan_of(self.record).node(where).interfaces[0].mac

    def forget_neighbours(self, where: str = "client") -> None:
        """Empty a node's ARP cache."""
        self.type(where, "ip neigh flush all")


def xlvs(
    *words: str, code: int | None = 0, timeout: float = 60, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the ``xlvs`` command; its exit code must be as expected, unless None."""
    ran = subprocess.run(
        [XLVS, *words], capture_output=True, text=True, timeout=timeout, check=False, input=typed
    )
    assert code is None or ran.returncode == code, (
        f"xlvs {words}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
    )
    return ran


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds; fail after a deadline that a slow machine can meet."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"after {DEADLINE:.0f} seconds still not so: {what}"
        time.sleep(0.02)


def left_behind(name_prefix: str) -> list[str]:
    """Namespaces, folders, mounts, lock files and web servers of labs whose names begin so."""
    found = [
        f"/run/netns/{entry}" for entry in _entries("/run/netns") if entry.startswith(f"xlvs-{name_prefix}")
    ]
    found += [
        f"/run/xlvs/lab/{entry}" for entry in _entries("/run/xlvs/lab") if entry.startswith(name_prefix)
    ]
    found += [
        f"/run/xlvs/{entry}" for entry in _entries("/run/xlvs") if entry.startswith(f"lab-{name_prefix}")
    ]
    for command in map(_command, filter(str.isdigit, _entries("/proc"))):
        if command.startswith("nginx:") and f"/run/xlvs/lab/{name_prefix}" in command:
            found.append(command)
    with open("/proc/self/mountinfo") as mounts:
        found += [line for line in mounts if f"xlvs-{name_prefix}" in line or f"lab/{name_prefix}" in line]
    return found


def dead_pin_folders() -> set[str]:
    """The folders of pins whose network namespace is gone."""
    mounted = bpffs.root()
    if mounted is None:
        return set()
    folders = {entry for entry in _entries(mounted) if os.path.isdir(f"{mounted}/{entry}")}
    dead = gone({folder.partition("-")[0] for folder in folders})
    return {folder for folder in folders if folder.partition("-")[0] in dead}


def _command(process: str) -> str:
    """A process's command line; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
