# SPDX-License-Identifier: GPL-2.0-only
"""Putting this version's packet path in the place of the one that is loaded, while packets pass.

The new programs are loaded onto the maps that there are, so that nothing is
copied and nothing stands still; then each attachment is given its new program
by one atomic exchange in the kernel.  While that goes on, and after a command
that died in between, some packets meet the old programs and some the new ones.
Both work on one table: that is what equal ABI_VERSIONs promise.

In order, and whatever dies where, packets are served:

    look      layouts compared, programs verified: nothing has changed yet
    stage     the new programs are pinned in ``upgrade``, beside the old ones
    exchange  interface by interface; then the sweeper's timer, which would
              else keep the old program, and run it, for ever
    settle    the new pins take the old ones' places; the version is noted

What a dead command left in ``upgrade`` the next upgrade throws away, and does
all of it again; until then new attachments run the old programs.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress

from xlvs.datapath.attach import Attacher
from xlvs.datapath.hooks import Pins
from xlvs.datapath.load import (
    OBJECT,
    PROGRAMS,
    map_entries,
    note_version,
    program_version,
    size_maps,
    start_timer,
)
from xlvs.datapath.maps import LOAD_ANEW, Maps
from xlvs.errors import Unavailable, Unusable
from xlvs.kernel import bpf, libbpf

STAGE = "upgrade"

_HASHES = (1, 9)
"""``BPF_MAP_TYPE_HASH``, ``BPF_MAP_TYPE_LRU_HASH``: programs do not depend on their sizes."""
_FIELDS = ("type", "key size", "value size", "number of entries", "flags")


def upgrade(folder: str, only_check: bool = False) -> str:
    """Replace the programs of the data plane pinned under ``folder`` by this version's.

    Returns the version that they had.

    No packet, connection or counter is lost.  With ``only_check`` it goes as
    far as it can without changing anything.  The caller holds the table's lock
    alone.  Raises `Unusable` for tables of another layout, `Unavailable` where
    the kernel refuses; the old programs go on then.
    """
    maps = Maps(folder)
    try:
        before = program_version(maps.settings)
        with load_beside(maps) as loaded:
            if not only_check:
                replace(maps, loaded)
        return before
    finally:
        maps.close()


def is_unfinished(folder: str) -> bool:
    """Whether an upgrade died after it had begun to change something."""
    return os.path.isdir(f"{folder}/{STAGE}")


def load_beside(maps: Maps) -> libbpf.BpfObject:
    """This version's programs, loaded onto the maps of a data plane; it runs as before."""
    limits = maps.limits
    loaded = libbpf.BpfObject(OBJECT)
    try:
        size_maps(loaded, limits)
        for name in map_entries(limits):
            descriptor = maps.descriptor(name)
            _check_layout(name, bpf.map_layout(descriptor), loaded.map_layout(name))
            loaded.reuse_map(name, descriptor)
        loaded.set_constants(".rodata.limits", bytes(limits))
        loaded.load()
    except BaseException:
        loaded.close()
        raise
    return loaded


def _check_layout(name: str, there: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise `Unusable` for a map that this version's programs would misread."""
    for field, has, wants in zip(_FIELDS, there, wanted, strict=True):
        if has != wants and not (field == "number of entries" and wanted[0] in _HASHES):
            raise Unusable(
                f"the loaded map {name} has another layout than this xlvs has: {field} {has}, not {wants}",
                LOAD_ANEW,
            )


def replace(maps: Maps, loaded: libbpf.BpfObject) -> None:
    """Have everything run the programs of ``loaded``, which `load_beside` returned.

    Raises `Unavailable` where the kernel refuses an exchange; those that were
    made are taken back then.
    """
    stage = f"{maps.folder}/{STAGE}"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        os.mkdir(stage, 0o700)
        for name in PROGRAMS:
            loaded.pin_program(name, f"{stage}/{name}")
        _exchange(maps.folder, {name: loaded.program(name) for name in PROGRAMS})
        for name in PROGRAMS:
            os.rename(f"{stage}/{name}", f"{maps.folder}/{name}")
        note_version(maps.settings)
        os.rmdir(stage)
    except (OSError, Unavailable) as error:
        shutil.rmtree(stage, ignore_errors=True)
        reason = error.message if isinstance(error, Unavailable) else error.strerror
        raise Unavailable(
            f"cannot put this packet path in the place of the loaded one, which goes on: {reason}",
            error.hint if isinstance(error, Unavailable) else "Try again: xlvs upgrade",
        ) from error


def _exchange(folder: str, programs: dict[str, int]) -> None:
    """Give every attachment, and the timer, its new program: all of them or none."""
    attacher = Attacher(folder)
    try:
        attacher.replace(programs)
        start_timer(f"{folder}/{STAGE}/xlvs_start")
    except (OSError, Unavailable):
        _take_back(attacher, Pins(folder))
        raise


def _take_back(attacher: Attacher, pins: Pins) -> None:
    with ExitStack() as opened, suppress(OSError, Unavailable):
        old = {}
        for name in PROGRAMS:
            old[name] = pins.open(name)
            opened.callback(os.close, old[name])
        attacher.replace(old)
