# SPDX-License-Identifier: GPL-2.0-only
"""Bringing the data plane up in this network namespace, and down again, as a whole.

The caller holds the table's lock (`xlvs.kernel.lock`).
"""

from __future__ import annotations

from xlvs.datapath import intent, loopback
from xlvs.datapath.attach import TC, Attacher
from xlvs.datapath.load import Capacity, load, unload
from xlvs.datapath.maps import Maps
from xlvs.errors import Unusable, XlvsError
from xlvs.kernel import bpffs, leftovers, rtnetlink
from xlvs.kernel.grace_period import Hurry


class Activation:
    """What `activate` did: the folder of pins, interfaces with their hooks, refusals.

    By interface ``reasons`` says why a mode was chosen, ``lacking`` what native XDP misses there.
    """

    __slots__ = ("attached", "folder", "lacking", "reasons", "refused")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.attached: list[tuple[rtnetlink.Link, str]] = []
        self.refused: list[XlvsError] = []
        self.reasons: dict[str, str] = {}
        self.lacking: dict[str, str] = {}


def activate(
    capacity: Capacity | None = None,
    interfaces: list[str] | None = None,
    mode: str | None = None,
    again: bool = False,
) -> Activation:
    """Load the packet path if it is not loaded, and attach it.

    Without ``interfaces`` it attaches to every one that is up and fit; one
    whose hook is taken is left alone and stands in ``refused``, unless that
    leaves none.  Without ``mode`` an interface keeps the one it has; another
    gets what was said of it before, or of all if none is named now, else TC.  What is only said ``again``
    leaves interfaces alone that were detached.  Raises `XlvsError`; then nothing
    is loaded or attached that was not before.
    """
    folder = bpffs.namespace_folder()
    loaded_here = folder is None
    if folder is None:
        folder = load(capacity)
    activation = Activation(folder)
    try:
        _set_loopback_up(folder)
        attacher = Attacher(folder)
        attacher.forget_departed()
        if interfaces is None:
            with Hurry(len(attacher.unattached())):
                _attach_fitting(attacher, mode, activation, again)
            if activation.refused and not activation.attached:
                raise activation.refused[0]
            intent.want_every(folder, mode, again)
        else:
            with Hurry(len(interfaces)):
                _attach_named(attacher, [attacher.link(name) for name in interfaces], mode, activation)
        _attach_loopback(attacher, activation)
        activation.reasons, activation.lacking = attacher.reasons, attacher.lacking()
    except BaseException:
        if loaded_here:
            deactivate(folder)
        raise
    _note_activated(folder)
    return activation


def _note_activated(folder: str) -> None:
    maps = Maps(folder)
    maps.settings.activated = 1
    maps.close()


def _set_loopback_up(folder: str) -> None:
    maps = Maps(folder)
    try:
        loopback.enable(maps.settings, loopback.FORWARDING_IPV4)
        loopback.enable(maps.settings, loopback.ACCEPT_LOCAL)
        loopback.enable_again(maps.settings)  # IPv6, where it was needed before
    finally:
        maps.close()


def _attach_fitting(attacher: Attacher, mode: str | None, activation: Activation, again: bool) -> None:
    before = intent.read(attacher.folder)
    for link in attacher.fitting():
        if again and link.name in before.detached:
            continue
        said_before = before.named.get(link.name) or before.every
        its_mode = mode or attacher.mode(link.index) or said_before or TC
        try:
            try:
                hook = attacher.attach(link, its_mode)
            except XlvsError as error:
                if mode or its_mode == TC or isinstance(error, Unusable):
                    raise
                activation.refused.append(error)  # nobody has asked for that mode now
                hook = attacher.attach(link, TC)
            activation.attached.append((link, hook))
            intent.note_refused(attacher.folder, link.name, "")
        except Unusable:
            raise
        except XlvsError as error:
            activation.refused.append(error)


def _attach_loopback(attacher: Attacher, activation: Activation) -> None:
    try:
        attacher.attach_loopback()
    except Unusable:
        raise
    except XlvsError as error:
        activation.refused.append(error)


def _attach_named(
    attacher: Attacher, links: list[rtnetlink.Link], mode: str | None, activation: Activation
) -> None:
    for link in links:
        attacher.check_fit(link)
    before = [(link, attacher.mode(link.index)) for link in links]
    wanted = intent.read(attacher.folder)
    modes = {link.name: mode or its_mode or wanted.named.get(link.name) or TC for link, its_mode in before}
    try:
        for link in links:
            activation.attached.append((link, attacher.attach(link, modes[link.name])))
    except BaseException:
        for link, its_mode in before:
            attacher.put_back(link, its_mode)
        raise
    for link, its_mode in before:
        # What was said of one that is attached (auto, say) is more than what came of it.
        said_before = wanted.mode_of(link.name, up=True) if its_mode else ""
        intent.want(attacher.folder, link.name, mode or said_before or modes[link.name])
        intent.note_refused(attacher.folder, link.name, "")


def deactivate(folder: str) -> None:
    """Detach everything and forget the table, with its connections.

    It works also on what is damaged, or has another version's layout; then
    lo's settings are put back without the note of what was changed.  Raises
    `XlvsError` where even the attachments cannot be looked at, and then has
    changed nothing.
    """
    changed = loopback.EVERY
    try:
        maps = Maps(folder)
        changed = maps.settings.loopback_set
        maps.close()
    except Unusable:
        pass
    Attacher(folder).detach_all()
    loopback.restore(changed)
    unload(folder)
    leftovers.sweep()
