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

    By interface ``reasons`` says why a mode was chosen, ``lacking`` what native XDP misses there,
    ``left_out`` why it is none of every interface.  ``detached`` are those that were taken off.
    """

    __slots__ = ("attached", "detached", "folder", "lacking", "left_out", "reasons", "refused")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.attached: list[tuple[rtnetlink.Link, str]] = []
        self.refused: list[XlvsError] = []
        self.reasons: dict[str, str] = {}
        self.lacking: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.detached: list[rtnetlink.Link] = []


def activate(
    capacity: Capacity | None = None,
    interfaces: list[str] | None = None,
    mode: str | None = None,
    again: bool = False,
    only: bool = False,
) -> Activation:
    """Load the packet path if it is not loaded, and attach it.

    Without ``interfaces`` it attaches to every one that is up, fit and no bystander; one
    whose hook is taken is left alone and stands in ``refused``, unless that
    leaves none.  A name may be a pattern, for those that are there and those that come.
    Without ``mode`` an interface keeps the one it has; another
    gets what was said of it before, or of all if none is named now, else TC.  What is only said ``again``
    leaves interfaces alone that were detached, and keeps to those that were named if not all were
    meant.  ``only`` takes all others off, which are then in ``detached``.  Raises `XlvsError`; then
    nothing is loaded or attached that was not before.
    """
    intent.check_names(interfaces or ())
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
                tried = _attach_fitting(attacher, mode, activation, again)
            if activation.refused and not activation.attached:
                raise activation.refused[0]
            _want_fitting(folder, mode, again)
        else:
            tried = _named(attacher, interfaces)
            with Hurry(len(tried)):
                modes = _attach_named(attacher, tried, mode, activation)
            _want_named(attacher, interfaces, modes, mode, only)
            if only:
                _detach_others(attacher, {link.index for link in tried}, activation)
        _note_tried(attacher, tried)
        _attach_loopback(attacher, activation)
        activation.reasons, activation.lacking = attacher.reasons, attacher.lacking()
        activation.left_out = attacher.left_out()
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


def _attach_fitting(
    attacher: Attacher, mode: str | None, activation: Activation, again: bool
) -> list[rtnetlink.Link]:
    before = intent.read(attacher.folder)
    again = again and bool(before.every or before.named)
    tried = []
    for link in attacher.fitting(before.named):
        if again and (
            before.is_detached(link.name) or not (before.every or before.mode_of(link.name, up=True))
        ):
            continue
        tried.append(link)
        said_before = before.mode_of(link.name, up=True) or before.every
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
    return tried


def _want_fitting(folder: str, mode: str | None, again: bool) -> None:
    before = intent.read(folder)
    if not again or before.every or not before.named:
        intent.want_every(folder, mode, again)
    elif mode:  # not all were meant before, and nobody says more now
        for name in before.named:
            intent.want(folder, name, mode)


def _note_tried(attacher: Attacher, links: list[rtnetlink.Link]) -> None:
    """Keep for whoever follows interfaces which of these have refused a mode, and what is forgiven."""
    for link in links:
        intent.forget_interface(attacher.folder, link.index)
        for (index, mode), reason in attacher.refusals.items():
            if index == link.index and mode != TC:
                intent.note_tried(attacher.folder, index, mode, reason)


def _detach_others(attacher: Attacher, wanted: set[int], activation: Activation) -> None:
    others = [
        link
        for link in attacher.links()
        if not link.loopback and link.index not in wanted and attacher.is_attached(link.index)
    ]
    with Hurry(len(others)):
        for link in others:
            attacher.detach(link.index)
            activation.detached.append(link)


def _attach_loopback(attacher: Attacher, activation: Activation) -> None:
    try:
        attacher.attach_loopback()
    except Unusable:
        raise
    except XlvsError as error:
        activation.refused.append(error)


def _named(attacher: Attacher, names: list[str]) -> list[rtnetlink.Link]:
    """The interfaces that are meant; raises `UsageError` for a name that there is not, or not a fit one."""
    found = {name: attacher.link(name) for name in names if not intent.is_pattern(name)}
    for link in found.values():
        attacher.check_fit(link)
    patterns = [name for name in names if intent.is_pattern(name)]
    for link in attacher.fitting({link.name for link in attacher.links()}) if patterns else ():
        if any(intent.matches(pattern, link.name) for pattern in patterns):
            found[link.name] = link
    return list(found.values())


def _attach_named(
    attacher: Attacher, links: list[rtnetlink.Link], mode: str | None, activation: Activation
) -> dict[str, str]:
    """Attach to all of these or none; returns what is wanted of them: modes by name."""
    before = [(link, attacher.mode(link.index)) for link in links]
    wanted = intent.read(attacher.folder)
    named = intent.Intent(named=wanted.named)  # by its name or a pattern
    modes = {
        link.name: mode or its_mode or named.mode_of(link.name, up=True) or TC for link, its_mode in before
    }
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
        modes[link.name] = mode or said_before or modes[link.name]
        intent.note_refused(attacher.folder, link.name, "")
    return modes


def _want_named(
    attacher: Attacher, names: list[str], modes: dict[str, str], mode: str | None, only: bool
) -> None:
    before = intent.read(attacher.folder).named
    wanted = {
        name: mode or before.get(name, TC) if intent.is_pattern(name) else modes[name] for name in names
    }
    if only:
        intent.want_only(attacher.folder, wanted)
        return
    for name, its_mode in wanted.items():
        intent.want(attacher.folder, name, its_mode)


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
