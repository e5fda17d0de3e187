# SPDX-License-Identifier: GPL-2.0-only
"""Bringing the data plane up in this network namespace, and down again, as a whole.

The caller holds the table's lock (`xlvs.kernel.lock`).
"""

from __future__ import annotations

import shutil
import sys

from xlvs.datapath.attach import TC, Attacher
from xlvs.datapath.load import Capacity, Forwarding, load, unload
from xlvs.datapath.maps import Maps
from xlvs.errors import XlvsError
from xlvs.kernel import bpffs


class Activation:
    """What `activate` did: the folder of pins, interfaces with their hooks, refusals."""

    __slots__ = ("attached", "folder", "refused")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.attached: list[tuple[str, str]] = []
        self.refused: list[XlvsError] = []


def activate(
    capacity: Capacity | None = None, interfaces: list[str] | None = None, mode: str = TC
) -> Activation:
    """Load the packet path if it is not loaded, and attach it.

    Without ``interfaces`` it attaches to every one that is up and fit, and an
    interface whose hook is taken is named on stderr and left alone.  Raises
    `XlvsError`; what was not loaded before is then not loaded after.
    """
    folder = bpffs.namespace_folder()
    loaded_here = folder is None
    if folder is None:
        folder = load(capacity)
    activation = Activation(folder)
    maps = Maps(folder)
    try:
        if loaded_here:
            Forwarding.enable(maps.settings)
        attacher = Attacher(maps)
        if interfaces is None:
            for link in attacher.fitting():
                try:
                    activation.attached.append((link.name, attacher.attach(link, mode)))
                except XlvsError as error:
                    activation.refused.append(error)
                    print(f"xlvs: {error}", file=sys.stderr)
        else:
            for link in [attacher.link(name) for name in interfaces]:
                activation.attached.append((link.name, attacher.attach(link, mode)))
    except BaseException:
        if loaded_here:
            deactivate(folder)
        raise
    finally:
        maps.close()
    return activation


def deactivate(folder: str) -> None:
    """Detach everything and forget the table, with its connections."""
    try:
        maps = Maps(folder)
    except XlvsError:
        # Another layout, or damaged: end what can be ended without reading it.
        shutil.rmtree(folder)
        return
    attacher = Attacher(maps)
    for attachment in attacher.attachments():
        attacher.detach(attacher.link(attachment.interface).index)
    Forwarding.restore(maps.settings)
    maps.close()
    unload(folder)
