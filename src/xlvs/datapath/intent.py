# SPDX-License-Identifier: GPL-2.0-only
"""Where the operator wants the packet path: what follows an interface that goes and comes back.

Links end with their interfaces, so what was asked for is kept by name, beside the pins: as
symbolic links on the same bpffs, for a folder there holds nothing else.  So it ends with the
data plane, and ``ls -lR`` shows it.

    wanted/every          every interface that is up and fit, in that mode
    wanted/named/NAME     one that was named, in that mode
    wanted/not/NAME       one that was taken off, and stays off
    wanted/refused/NAME   one that could not be attached when it came, and why

A bpffs takes no dots in names, and an interface's name no colon: one stands for the other.
Writers hold the table's lock alone.
"""

from __future__ import annotations

import os
from contextlib import suppress

from xlvs.datapath.modes import TC

_FOLDER = "wanted"
_EVERY = "every"
_NAMED, _NOT, _REFUSED = "named", "not", "refused"
_LONGEST_REASON = 500


class Intent:
    """What is wanted: ``every`` a mode or empty, ``named`` modes by name, ``detached`` names.

    ``refused`` says by name why an interface that is wanted could not be attached.
    """

    __slots__ = ("detached", "every", "named", "refused")

    def __init__(
        self,
        every: str = "",
        named: dict[str, str] | None = None,
        detached: frozenset[str] = frozenset(),
        refused: dict[str, str] | None = None,
    ) -> None:
        self.every = every
        self.named = named or {}
        self.detached = detached
        self.refused = refused or {}

    def mode_of(self, name: str, up: bool) -> str:
        """The mode in which an interface is wanted that is up or not; empty where it is not wanted.

        Those that nobody named are wanted while they are up: one that is to be a port, or another
        namespace's, is down until then.
        """
        if name in self.detached:
            return ""
        return self.named.get(name) or (self.every if up else "")


def read(folder: str) -> Intent:
    """What is wanted of the data plane whose pins are in that folder."""
    base = f"{folder}/{_FOLDER}"
    return Intent(
        _read(f"{base}/{_EVERY}"),
        _entries(f"{base}/{_NAMED}"),
        frozenset(_entries(f"{base}/{_NOT}")),
        _entries(f"{base}/{_REFUSED}"),
    )


def want_every(folder: str, mode: str | None, again: bool = False) -> None:
    """Want every interface that is fit, in a mode; without one, in the mode wanted so far, or at TC.

    A mode counts for those that were named as well.  What was detached is wanted again, unless
    this is only said ``again``.
    """
    intent = read(folder)
    _write(folder, "", _EVERY, mode or intent.every or TC)
    if mode:
        for name in intent.named:
            _write(folder, _NAMED, name, mode)
    if not again:
        for name in intent.detached:
            _remove(folder, _NOT, name)


def want(folder: str, name: str, mode: str) -> None:
    """Want an interface of that name in a mode."""
    _write(folder, _NAMED, name, mode)
    _remove(folder, _NOT, name)


def leave(folder: str, name: str) -> None:
    """Want an interface of that name no more."""
    _write(folder, _NOT, name, "detached")
    _remove(folder, _NAMED, name)
    _remove(folder, _REFUSED, name)


def note_refused(folder: str, name: str, reason: str) -> None:
    """Note why an interface that is wanted could not be attached; without a reason forget it."""
    if reason:
        _write(folder, _REFUSED, name, reason[:_LONGEST_REASON])
    else:
        _remove(folder, _REFUSED, name)


def _path(folder: str, kind: str, name: str) -> str:
    return "/".join(filter(None, (folder, _FOLDER, kind, name.replace(".", ":"))))


def _read(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _entries(path: str) -> dict[str, str]:
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        return {}
    found = {name.replace(":", "."): _read(f"{path}/{name}") for name in names}
    return {name: text for name, text in found.items() if text}  # a reader holds no lock


def _write(folder: str, kind: str, name: str, text: str) -> None:
    path = _path(folder, kind, name)
    if _read(path) == text:
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{folder}/{_FOLDER}/beside"
    with suppress(FileNotFoundError):
        os.unlink(beside)  # of a command that died
    os.symlink(text, beside)
    os.rename(beside, path)


def _remove(folder: str, kind: str, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_path(folder, kind, name))
