# SPDX-License-Identifier: GPL-2.0-only
"""What is remembered of a real server: what was asked for, and what every change found.

The machine's own record is in /var/lib/xlvs and survives a boot, after which it says
what to set up again; what the changes had found is void then, and looked for anew.
Other network namespaces do not survive one, and have theirs under /run/xlvs, by their
cookies: names and inodes are used again, cookies are not.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from xlvs.errors import UsageError, XlvsError
from xlvs.kernel.bpffs import make_run_folder
from xlvs.kernel.leftovers import RECORDS
from xlvs.kernel.namespaces import network_cookie, outermost_process
from xlvs.realserver import changes, wanted
from xlvs.realserver.changes import Change
from xlvs.realserver.wanted import RealServer

SAVED = Path("/var/lib/xlvs/realserver.json")
FOLDER = Path(RECORDS)
VERSION = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Record:
    """Real servers in the order in which they were added, and the changes that were made for them."""

    servers: list[RealServer] = field(default_factory=list)
    changes: dict[Change, str] = field(default_factory=dict)
    is_applied: bool = True

    def server(self, vip: str) -> RealServer | None:
        """The real server of a VIP."""
        return next((server for server in self.servers if server.vip == vip), None)


def path() -> Path:
    """Where this network namespace's record is, as this process reaches it."""
    process = outermost_process()
    outside = Path(f"/proc/{process}/root")
    if _is_machines_own(process):
        return outside / SAVED.relative_to("/")
    return outside / FOLDER.relative_to("/") / f"{network_cookie():x}.json"


def shown_path() -> str:
    """The same path as processes outside of our mount namespace name it."""
    return str(SAVED if _is_machines_own(outermost_process()) else FOLDER / path().name)


def load() -> Record:
    """What is remembered; empty where nothing is.  Raises `XlvsError` for a record that cannot be read."""
    try:
        text = path().read_text()
    except FileNotFoundError:
        return Record()
    try:
        return parse(text, _BOOT.read_text().strip())
    except (ValueError, TypeError, UsageError) as error:
        raise XlvsError(
            f"the record {shown_path()} cannot be read: {error}",
            "What it held cannot be taken back by xlvs. Move it away, and set up anew what is wanted: "
            "xlvs realserver list shows what is there.",
        ) from error


def parse(text: str, boot: str) -> Record:
    """A record from its text, for the boot of this number; raises `ValueError` or `UsageError`."""
    value = json.loads(text)
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise ValueError(f"it is not of version {VERSION}")
    servers, made = value.get("real_servers"), value.get("changes")
    if not isinstance(servers, list) or not isinstance(made, list):
        raise ValueError("it has no lists of real servers and changes")
    record = Record([wanted.from_json(each) for each in servers])
    if len({server.vip for server in record.servers}) != len(record.servers):
        raise ValueError("a VIP stands in it twice")
    record.is_applied = value.get("boot") == boot
    if record.is_applied:
        record.changes = dict(changes.from_json(each) for each in made)
    return record


def save(record: Record) -> None:
    """Write it, whole or not at all, for root alone; one of no real servers and no changes is removed."""
    target = path()
    if not record.servers and not record.changes:
        with suppress(FileNotFoundError):
            target.unlink()
        return
    value = {
        "version": VERSION,
        "boot": _BOOT.read_text().strip(),
        "real_servers": [wanted.to_json(server) for server in record.servers],
        "changes": [changes.to_json(change, before) for change, before in record.changes.items()],
    }
    try:
        _make_folder(target.parent)
        beside = target.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            json.dump(value, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(descriptor)
        beside.replace(target)
    except OSError as error:
        raise XlvsError(
            f"cannot write the record {shown_path()}: {error.strerror}",
            "without it nothing could be taken back, so nothing was changed",
        ) from error


def _make_folder(folder: Path) -> None:
    if folder.name == FOLDER.name:
        make_run_folder(str(folder))
    else:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)


def _is_machines_own(outermost: int) -> bool:
    return os.stat("/proc/thread-self/ns/net").st_ino == os.stat(f"/proc/{outermost}/ns/net").st_ino
