# SPDX-License-Identifier: GPL-2.0-only
"""Where the operator wants the packet path: what follows an interface that goes and comes back.

Links end with their interfaces, so what was asked for is kept by name, beside the pins: as
symbolic links on the same bpffs, for a folder there holds nothing else.  So it ends with the
data plane, and ``ls -lR`` shows it.

    wanted/every          every interface that is up and fit, in that mode
    wanted/named/NAME     one that was named, in that mode; or all of a pattern, ``tap*``
    wanted/not/NAME       one that was taken off, and stays off; or all of a pattern
    wanted/refused/NAME   one that could not be attached when it came, and why

and beside these, of interfaces that are there, what is not to be found out twice:

    wanted/tried/INDEX-MODE   a mode that its driver has refused, and why
    wanted/came/INDEX         the name that it had when it was attached because it had come

A bpffs takes no dots in names, and an interface's name no colon: one stands for the other.
Writers hold the table's lock alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from xlvs.datapath.modes import TC
from xlvs.errors import UsageError

_FOLDER = "wanted"
_EVERY = "every"
_NAMED, _NOT, _REFUSED = "named", "not", "refused"
_TRIED, _CAME = "tried", "came"
_LONGEST_REASON = 500
_IN_NO_NAME = "/: \t\n\v\f\r"
_LONGEST_NAME = 15
_LONGEST_PATTERN = 255


def is_pattern(name: str) -> bool:
    """Whether a name stands for any number of interfaces: ``*`` any characters, ``?`` any one."""
    return "*" in name or "?" in name


def matches(pattern: str, name: str) -> bool:
    """Whether an interface of that name is meant by a pattern, or by its own name."""
    if not is_pattern(pattern):
        return pattern == name
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern.replace("[", "[[]"))


def check_names(names: Iterable[str]) -> None:
    """Raise `UsageError` for a name that no interface can have (kernel: ``dev_valid_name()``)."""
    for name in names:
        letters = name.replace("*", "")
        if (
            name in ("", ".", "..")
            or any(letter in _IN_NO_NAME for letter in name)
            or len(os.fsencode(letters)) > _LONGEST_NAME
            or len(name) > _LONGEST_PATTERN
        ):
            raise UsageError(f"no interface can be called {name!r}", "See them all: ip link")


class Intent:
    """What is wanted: ``every`` a mode or empty, ``named`` modes by name, ``detached`` names.

    ``refused`` says by name why an interface that is wanted could not be attached, ``tried`` by
    index and mode why that mode was refused.  ``came`` has names, by the index of the interface.
    """

    __slots__ = ("came", "detached", "every", "named", "refused", "tried")

    def __init__(
        self,
        every: str = "",
        named: dict[str, str] | None = None,
        detached: frozenset[str] = frozenset(),
        refused: dict[str, str] | None = None,
        tried: dict[tuple[int, str], str] | None = None,
        came: dict[int, str] | None = None,
    ) -> None:
        self.every = every
        self.named = named or {}
        self.detached = detached
        self.refused = refused or {}
        self.tried = tried or {}
        self.came = came or {}

    def mode_of(self, name: str, up: bool, bystander: bool = False) -> str:
        """The mode in which an interface is wanted that is up or not; empty where it is not wanted.

        Those whose own name nobody gave are wanted while they are up: one that is to be a port, or
        another namespace's, is down until then.  A ``bystander`` is none of every.
        """
        if self.is_detached(name):
            return ""
        said = self.named.get(name)
        if said or not up:
            return said or ""
        for pattern in sorted(self.named, key=len, reverse=True):
            if matches(pattern, name):
                return self.named[pattern]
        return "" if bystander else self.every

    def is_detached(self, name: str) -> bool:
        """Whether an interface is to stay off: a name goes before a pattern, and off before on."""
        if name in self.detached or name in self.named:
            return name in self.detached
        return any(matches(pattern, name) for pattern in self.detached)

    def indices(self) -> set[int]:
        """The interfaces of which something is noted."""
        return {index for index, _ in self.tried} | self.came.keys()


def read(folder: str) -> Intent:
    """What is wanted of the data plane whose pins are in that folder."""
    base = f"{folder}/{_FOLDER}"
    return Intent(
        _read(f"{base}/{_EVERY}"),
        _entries(f"{base}/{_NAMED}"),
        frozenset(_entries(f"{base}/{_NOT}")),
        _entries(f"{base}/{_REFUSED}"),
        {_index_and_mode(name): why for name, why in _entries(f"{base}/{_TRIED}").items()},
        {int(index): name for index, name in _entries(f"{base}/{_CAME}").items()},
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


def want_only(folder: str, modes: dict[str, str]) -> None:
    """Want interfaces of these names, in these modes, and nothing else that was wanted before."""
    _remove(folder, "", _EVERY)
    before = read(folder)
    for name in before.named.keys() - modes.keys():
        _remove(folder, _NAMED, name)
    for name in before.detached:
        _remove(folder, _NOT, name)
    for name, mode in modes.items():
        want(folder, name, mode)


def want(folder: str, name: str, mode: str) -> None:
    """Want an interface of that name in a mode, or those of a pattern."""
    before = read(folder)
    _write(folder, _NAMED, name, mode)
    for detached in before.detached:
        if matches(name, detached):
            _remove(folder, _NOT, detached)


def leave(folder: str, name: str) -> None:
    """Want an interface of that name no more, or those of a pattern, named ones included."""
    before = read(folder)
    _write(folder, _NOT, name, "detached")
    for named in before.named:
        if matches(name, named):
            _remove(folder, _NAMED, named)
    for refused in before.refused:
        if matches(name, refused):
            _remove(folder, _REFUSED, refused)


def note_refused(folder: str, name: str, reason: str) -> None:
    """Note why an interface that is wanted could not be attached; without a reason forget it."""
    if reason:
        _write(folder, _REFUSED, name, reason[:_LONGEST_REASON])
    else:
        _remove(folder, _REFUSED, name)


def note_tried(folder: str, index: int, mode: str, reason: str) -> None:
    """Note that an interface has refused a mode, and why."""
    _write(folder, _TRIED, f"{index}-{mode}", reason[:_LONGEST_REASON])


def note_came(folder: str, index: int, name: str) -> None:
    """Note the name of an interface that has come and was attached."""
    _write(folder, _CAME, str(index), name)


def forget_interface(folder: str, index: int) -> None:
    """Forget what was noted of an interface: it has gone, or the operator has attached it himself."""
    _remove(folder, _CAME, str(index))
    for tried, mode in read(folder).tried:
        if tried == index:
            _remove(folder, _TRIED, f"{index}-{mode}")


def _index_and_mode(name: str) -> tuple[int, str]:
    index, _, mode = name.partition("-")
    return int(index), mode


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
