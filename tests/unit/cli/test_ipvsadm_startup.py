# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsadm -Ln`` runs at every tick of ``watch``: what it imports is bounded here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SOURCE = Path(__file__).parents[3] / "src"

SLOW = {
    "argparse", "asyncio", "ctypes", "dataclasses", "enum", "inspect", "ipaddress", "json", "logging",
    "pathlib", "re", "shutil", "signal", "socket", "struct", "subprocess", "tempfile", "traceback", "typing",
}  # fmt: skip
"""Modules that a listing in numbers has no use for, here or in the modules that it is made of."""

SCRIPT = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from xlvs.cli.ipvsadm import run
from xlvs.datapath.memory import MemoryDatapath
from xlvs.model import Destination, DestinationEntry, Service, ServiceEntry, ServiceKey

class Opened:
    def __enter__(self):
        real = tuple(DestinationEntry(Destination(bytes(length), 80)) for length in (4, 16))
        keys = (ServiceKey(2, 6, bytes(4), 80), ServiceKey(10, 6, bytes(16), 80), ServiceKey(2, fwmark=1))
        return MemoryDatapath([ServiceEntry(Service(key), real) for key in keys])
    def __exit__(self, *_):
        pass

status = run(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr, lambda write, load, locked: Opened())
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


def start(*arguments: str) -> set[str]:
    """Run a command line in a bare interpreter and return the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "line", ["-Ln", "-Ln --stats", "-Ln --nosort", "-Sn", "-Lnc", "-L --timeout", "-h", "-v"]
)
def test_reading_imports_nothing_slow(line: str) -> None:
    assert start(*line.split()) & SLOW == set()


def test_the_list_would_notice() -> None:
    # Names do need the resolver, so the guard is seen to work.
    assert "socket" in start("-L")


OPEN_SCRIPT = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from xlvs.cli import ipvsadm
import xlvs.datapath, xlvs.datapath.ebpf, xlvs.kernel.bpffs, xlvs.kernel.lock, xlvs.kernel.privilege
print(*sys.modules)
"""
"""What a listing of a loaded data plane imports, `socket` for names apart."""

ALLOWED = {"ctypes", "struct"}
"""Of the slow ones: there is no way to a map without them."""


def test_a_loaded_data_plane_needs_little_more() -> None:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", OPEN_SCRIPT], capture_output=True, text=True, check=True
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported & SLOW == ALLOWED
    assert not imported & {"site", "contextlib", "functools", "collections", "array"}
    assert "xlvs.kernel.rtnetlink" not in done.stdout.split()


def test_starts_within_three_times_a_bare_interpreter() -> None:
    def seconds(*command: str) -> float:
        """Processor time of one run, which a busy machine disturbs less than the clock."""
        nowhere = subprocess.DEVNULL
        child = subprocess.Popen([sys.executable, *command], stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = status
        assert status == 0
        return usage.ru_utime + usage.ru_stime

    bare, listing = [], []
    for _ in range(20):
        bare.append(seconds("-S", "-c", "pass"))
        listing.append(seconds("-IS", "-c", SCRIPT, "-Ln"))
    assert min(listing) < 3 * min(bare)
