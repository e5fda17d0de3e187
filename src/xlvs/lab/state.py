# SPDX-License-Identifier: GPL-2.0-only
"""What is remembered of a lab: a folder under /run, a record in it, a lock beside it.

The record is written before the first namespace is made and removed after the
last one is gone, so that whatever interrupts a command, the next one knows.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from xlvs.datapath.modes import CHOICES
from xlvs.errors import NotPermitted, UsageError, XlvsError
from xlvs.kernel import bpffs
from xlvs.lab import addresses, topology
from xlvs.lab.addresses import Addresses

ROOT = Path("/run/xlvs/lab")
STARTING = "starting"
"""Being built, or left half built by a command that was killed."""
READY = "ready"
_RECORD_VERSION = 1
_LOCK_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Record:
    """Everything needed to find, check, repair and remove a lab."""

    name: str
    topology: str
    addresses: Addresses
    bare: bool
    ipv6: bool
    mode: str = ""
    phase: str = STARTING

    @property
    def folder(self) -> Path:
        """The lab's folder; it is removed with the lab."""
        return ROOT / self.name

    def node_folder(self, node: str) -> Path:
        """What belongs to one node."""
        return nodes_folder(self.name) / node

    def namespace(self, node: str) -> str:
        """The name of a node's network namespace, as ``ip netns`` shows it."""
        return f"xlvs-{self.name}-{node}"

    def same_lab(self, other: Record) -> bool:
        """Was the same asked for, whatever became of it?"""
        return replace(self, phase=READY) == replace(other, phase=READY)

    def save(self, phase: str) -> Record:
        """Write the record with this phase, whole or not at all; return it."""
        record = replace(self, phase=phase)
        bpffs.make_run_folder(str(ROOT))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        new = self.folder / "record.new"
        new.write_text(json.dumps({"version": _RECORD_VERSION, **asdict(record)}, indent=1))
        new.replace(self.folder / "record.json")
        return record


def nodes_folder(lab: str) -> Path:
    """Where the folders of a lab's nodes are, whether there is a record of it or not."""
    return ROOT / lab / "nodes"


def check_name(name: str) -> str:
    """Return the name if a lab can have it; raises `UsageError`."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise UsageError(
            f"{name!r} is no name for a lab", "use 1 to 32 small letters, digits and '-', as in web-test"
        )
    return name


def names() -> list[str]:
    """The labs there are, whole or half, in order.  Raises `NotPermitted`."""
    _check_permitted()
    try:
        return sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def load(name: str) -> Record | None:
    """The record of a lab; None if there is none, or none that can be read."""
    try:
        record = parse_record((ROOT / name / "record.json").read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return record if record is not None and record.name == name else None


def parse_record(text: str) -> Record | None:
    """A record from what `Record.save` wrote; None unless it is one that a lab can be built from."""
    try:
        raw = json.loads(text)
        if type(raw) is not dict or raw.pop("version") != _RECORD_VERSION:
            return None
        fields = raw.pop("addresses")
        if type(fields) is not dict:
            return None
        for several in ("rips", "gue_ports"):
            fields[several] = tuple(fields.get(several, ()))
        record = Record(addresses=Addresses(**fields), **raw)
        _check(record)
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        return None
    return record


def _check(record: Record) -> None:
    """Raise `UsageError` or `ValueError` for a record that no command has written."""
    if not all(type(text) is str for text in (record.name, record.topology, record.mode, record.phase)):
        raise ValueError("a name is no text")
    if not all(type(choice) is bool for choice in (record.bare, record.ipv6)):
        raise ValueError("a choice is neither true nor false")
    if record.phase not in (STARTING, READY):
        raise ValueError(f"there is no phase {record.phase!r}")
    if record.mode not in ("", *CHOICES):
        raise ValueError(f"there is no mode {record.mode!r}")
    check_name(record.name)
    addresses.check(record.addresses)
    topology.plan(topology.topology(record.topology), record.addresses, bare=record.bare, ipv6=record.ipv6)


def find(name: str | None) -> Record:
    """The lab of that name, or without a name the one that must be meant.

    That is the lab this process runs in, else the only one, else the only one
    that is named after its topology.  Raises `UsageError`.
    """
    if name is None:
        name = os.environ.get("XLVS_LAB") or _only_lab(names())
    record = load(check_name(name)) if name in names() else None
    if record is None:
        others = names()
        known = f"there are: {' '.join(others)}" if others else "make one: xlvs lab up dr"
        if name in others:
            known = f"its record cannot be read; remove what is left: xlvs lab down --name {name}"
        raise UsageError(f"there is no lab {name!r}", known)
    return record


def _only_lab(known: list[str]) -> str:
    if not known:
        raise UsageError("there is no lab", "make one: xlvs lab up dr")
    if len(known) == 1:
        return known[0]
    named_by_default = [name for name in known if (record := load(name)) and record.topology == name]
    if len(named_by_default) == 1:
        return named_by_default[0]
    raise UsageError("there are several labs; say which", f"--name NAME, one of: {' '.join(known)}")


def remove(name: str) -> None:
    """Remove a lab's folder, and the common ones if it was the last."""
    shutil.rmtree(ROOT / name, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(ROOT)


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lab for one command; others wait.  Raises `NotPermitted`, `XlvsError` after two minutes."""
    _check_permitted()
    path = ROOT.parent / f"lab-{name}.lock"
    try:
        bpffs.make_folder(str(ROOT.parent), 0o711)
        held = _acquire(path, name)
    except OSError as error:
        raise XlvsError(
            f"cannot write {error.filename or path}: {error.strerror}",
            f"labs keep their records under {ROOT}: /run must be writable and have room",
        ) from error
    try:
        yield
    finally:
        # Removed while held: whoever waits for it sees that and takes a new one.
        with suppress(OSError):
            path.unlink()
        os.close(held)


def _acquire(path: Path, name: str) -> int:
    deadline = time.monotonic() + _LOCK_PATIENCE
    told = False
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(held).st_ino:
                return held
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOENT):
                raise
        os.close(held)
        if time.monotonic() > deadline:
            raise XlvsError(
                f"another command has been at work on the lab {name!r} for {_LOCK_PATIENCE:.0f} seconds",
                f"see which one holds {path}: fuser -v {path}",
            )
        if not told:
            print(f"waiting for another command at work on the lab {name!r}", file=sys.stderr)
            told = True
        time.sleep(0.05)


def _check_permitted() -> None:
    if os.geteuid() != 0:
        raise NotPermitted("labs are made of network namespaces, which only root may handle", "try sudo")
