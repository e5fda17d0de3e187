# SPDX-License-Identifier: GPL-2.0-only
"""Bringing the attachments to what the operator asked for, after interfaces have come, gone or changed.

`plan` says what there is to do, from what there is; it does not matter which events have led
there, or how many were missed.  So whoever follows interfaces (`xlvs follow`, `xlvs run`,
xlvsd) looks at all of them after each announcement of the kernel, and two that do it at once
do it once.

In the order of one look: ports of a bridge or bond are let go before their masters are taken, for
a bond takes no port with an XDP program while it has one itself.  So native XDP waits, at TC,
until an interface is up, and a bond has ports: else it could keep them from joining.

Names are what is wanted, and udev gives most NICs another one a moment after they appear.  One that
still has the kernel's name waits until it is up; and what was attached by itself and has another
name since is what that name says.  What the operator attached, he may rename.
"""

from __future__ import annotations

from collections.abc import Collection

from xlvs.datapath import intent as wanted
from xlvs.datapath.attach import Attacher
from xlvs.datapath.fitness import provisional, unfit
from xlvs.datapath.intent import Intent
from xlvs.datapath.maps import Maps
from xlvs.datapath.modes import AUTO, TC, XDP
from xlvs.datapath.xdp import best_mode
from xlvs.errors import Unusable, XlvsError
from xlvs.kernel import bpffs, rtnetlink
from xlvs.kernel.grace_period import Hurry
from xlvs.kernel.lock import table_lock


class Plan:
    """What there is to do: interfaces to detach, with the reason, then those to attach, with the mode.

    ``renamed`` are those that are right under their new names.
    """

    __slots__ = ("attach", "detach", "renamed")

    def __init__(self) -> None:
        self.detach: list[tuple[rtnetlink.Link, str]] = []
        self.attach: list[tuple[rtnetlink.Link, str]] = []
        self.renamed: list[rtnetlink.Link] = []


def plan(
    links: list[rtnetlink.Link],
    modes: dict[int, str],
    intent: Intent,
    bystanders: Collection[int] = (),
    unnamed: Collection[int] = (),
) -> Plan:
    """What there is to do where ``modes`` says by index in which mode each interface is attached.

    ``bystanders`` are none of every interface, ``unnamed`` have no name yet to go by.  An interface
    that is attached and not wanted (one that the operator has renamed, or that is down by now) is
    left alone.
    """
    made = Plan()
    for link in links:
        if link.loopback:
            continue
        has, reason = modes.get(link.index, ""), unfit(link, links)
        came_as = intent.came.get(link.index, link.name)
        asked = intent.mode_of(link.name, link.up, link.index in bystanders)
        if has and not reason and not asked and came_as != link.name:
            reason = f"it came as {came_as}, and is not wanted by this name"
        if reason:
            if has:
                made.detach.append((link, reason))
            continue
        if not asked or (link.index in unnamed and not has):
            continue
        mode = _untried(link, _possible(link, links, asked), intent)
        wrong = has != mode if came_as != link.name else has == TC
        if not has or (wrong and mode != has) or (has != TC and _has_vlans(link, links)):
            made.attach.append((link, mode))
        elif came_as != link.name:
            made.renamed.append(link)
    return made


def _untried(link: rtnetlink.Link, mode: str, intent: Intent) -> str:
    """That mode, or TC where the interface has refused it: trying may make its driver start again."""
    return TC if (link.index, mode) in intent.tried else mode


def _possible(link: rtnetlink.Link, links: list[rtnetlink.Link], mode: str) -> str:
    """The mode that an interface can have by now of the one that was asked for."""
    if mode == AUTO:
        mode = best_mode(link)[0]
    if mode == XDP and (not link.up or (link.kind == "bond" and not _has_ports(link, links))):
        return TC
    return TC if _has_vlans(link, links) else mode


def _has_ports(link: rtnetlink.Link, links: list[rtnetlink.Link]) -> bool:
    return any(other.master == link.index for other in links)


def _has_vlans(link: rtnetlink.Link, links: list[rtnetlink.Link]) -> bool:
    """Whether it has VLAN devices, whose packets XDP cannot tell from its own."""
    return any(other.kind == "vlan" and other.lower == link.index for other in links)


class Follower:
    """Keeps the attachments of this network namespace's director as they were asked for."""

    def __init__(self) -> None:
        self._refused: set[int] = set()

    def look(self) -> list[str]:
        """Do what there is to do; a line for each thing that was done, or refused for the first time.

        Where nothing is loaded nothing is done.  Raises `XlvsError` where the data plane is damaged
        or another version's, or the kernel does not let us look.
        """
        folder = bpffs.namespace_folder()
        if folder is None:
            self._refused.clear()
            return []
        # Most announcements are about something else: other readers go on then.  Without the lock it
        # would take what another command is just making for what a dead one left.
        with table_lock(exclusive=False):
            if not self._due(Attacher(folder)):
                return []
        with table_lock(exclusive=True):
            folder = bpffs.namespace_folder()
            if folder is None:
                return []
            Maps(folder).close()  # a data plane of this layout?
            return self._bring_about(Attacher(folder))

    def _due(self, attacher: Attacher) -> bool:
        intent = wanted.read(attacher.folder)
        due = self._plan(attacher, intent)
        return bool(due.attach or due.detach or due.renamed or attacher.gone() or _stale(attacher, intent))

    def _plan(self, attacher: Attacher, intent: Intent) -> Plan:
        links = attacher.links()
        modes = {link.index: attacher.mode(link.index) for link in links if not link.loopback}
        unnamed = provisional([link for link in links if link.name in intent.named])
        made = plan(links, modes, intent, attacher.bystanders, unnamed)
        # TC is refused by whoever has the place, and each look would say so again.
        there = {link.index for link in links}
        self._refused &= there
        made.attach = [
            (link, mode) for link, mode in made.attach if mode != TC or link.index not in self._refused
        ]
        return made

    def _bring_about(self, attacher: Attacher) -> list[str]:
        said = []
        folder = attacher.folder
        attacher.forget_departed()
        intent = wanted.read(folder)
        for index in _stale(attacher, intent):
            wanted.forget_interface(folder, index)
        due = self._plan(attacher, wanted.read(folder))
        with Hurry(len(due.detach) + len(due.attach)):
            for link, reason in due.detach:
                attacher.detach(link.index)
                said.append(f"{link.name}: detached, {reason}")
            for link, mode in due.attach:
                said += self._attach(attacher, link, mode)
        for link in due.renamed:
            wanted.note_came(folder, link.index, link.name)
        for name in intent.refused.keys() - {link.name for link in attacher.links()}:
            wanted.note_refused(folder, name, "")
        return said

    def _attach(self, attacher: Attacher, link: rtnetlink.Link, mode: str) -> list[str]:
        """Attach in a mode, at TC where that is refused: an interface in another mode serves, too."""
        folder = attacher.folder
        by_itself = not attacher.mode(link.index) or link.index in wanted.read(folder).came
        try:
            hook = attacher.attach(link, mode)
        except Unusable:
            raise
        except XlvsError as error:
            if all(other.index != link.index for other in rtnetlink.links()):
                return []  # it has gone again meanwhile
            said = [str(error)]
            if mode != TC:
                wanted.note_tried(folder, link.index, mode, error.message)
                return said if attacher.mode(link.index) else said + self._attach(attacher, link, TC)
            self._refused.add(link.index)
            wanted.note_refused(folder, link.name, error.message)
            return said
        wanted.note_refused(folder, link.name, "")
        if by_itself:
            wanted.note_came(folder, link.index, link.name)
        return [f"{link.name}: {hook}"]


def _stale(attacher: Attacher, intent: Intent) -> set[int]:
    """Interfaces of which something is noted, and that have gone."""
    return intent.indices() - {link.index for link in attacher.links()}
