# SPDX-License-Identifier: GPL-2.0-only
"""Bringing the attachments to what the operator asked for, after interfaces have come, gone or changed.

`plan` says what there is to do, from what there is; it does not matter which events have led
there, or how many were missed.  So whoever follows interfaces (`xlvs follow`, `xlvs run`,
xlvsd) looks at all of them after each announcement of the kernel, and two that do it at once
do it once.

In the order of one look: ports of a bridge or bond are let go before their masters are taken, for
a bond takes no port with an XDP program while it has one itself.  So native XDP waits, at TC,
until an interface is up, and a bond has ports: else it could keep them from joining.
"""

from __future__ import annotations

from xlvs.datapath import intent as wanted
from xlvs.datapath.attach import Attacher, unfit
from xlvs.datapath.intent import Intent
from xlvs.datapath.maps import Maps
from xlvs.datapath.modes import AUTO, TC, XDP
from xlvs.datapath.xdp import best_mode
from xlvs.errors import Unusable, XlvsError
from xlvs.kernel import bpffs, rtnetlink
from xlvs.kernel.grace_period import Hurry
from xlvs.kernel.lock import table_lock


class Plan:
    """What there is to do: interfaces to detach, with the reason, then those to attach, with the mode."""

    __slots__ = ("attach", "detach")

    def __init__(self) -> None:
        self.detach: list[tuple[rtnetlink.Link, str]] = []
        self.attach: list[tuple[rtnetlink.Link, str]] = []


def plan(links: list[rtnetlink.Link], modes: dict[int, str], intent: Intent) -> Plan:
    """What there is to do where ``modes`` says by index in which mode each interface is attached.

    An interface that is attached and not wanted (one that was renamed, or is down by now) is left alone.
    """
    made = Plan()
    for link in links:
        if link.loopback:
            continue
        has, reason = modes.get(link.index, ""), unfit(link, links)
        if reason:
            if has:
                made.detach.append((link, reason))
            continue
        asked = intent.mode_of(link.name, link.up)
        if not asked:
            continue
        mode = _possible(link, links, asked)
        if not has or (has == TC and mode != TC) or (has != TC and _has_vlans(link, links)):
            made.attach.append((link, mode))
    return made


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
        self._refused: dict[tuple[int, str], str] = {}

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
        due = self._plan(attacher)
        return bool(due.attach or due.detach or attacher.gone())

    def _plan(self, attacher: Attacher) -> Plan:
        links = attacher.links()
        modes = {link.index: attacher.mode(link.index) for link in links if not link.loopback}
        made = plan(links, modes, wanted.read(attacher.folder))
        # An interface has refused a mode as long as it is there: trying may make its driver start
        # again, which would be announced as well.
        there = {link.index for link in links}
        self._refused = {key: text for key, text in self._refused.items() if key[0] in there}
        made.attach = [(link, mode) for link, mode in made.attach if (link.index, mode) not in self._refused]
        return made

    def _bring_about(self, attacher: Attacher) -> list[str]:
        said = []
        attacher.forget_departed()
        due = self._plan(attacher)
        with Hurry(len(due.detach) + len(due.attach)):
            for link, reason in due.detach:
                attacher.detach(link.index)
                said.append(f"{link.name}: detached, {reason}")
            for link, mode in due.attach:
                said += self._attach(attacher, link, mode)
        refused = wanted.read(attacher.folder).refused
        for name in refused.keys() - {link.name for link in attacher.links()}:
            wanted.note_refused(attacher.folder, name, "")
        return said

    def _attach(self, attacher: Attacher, link: rtnetlink.Link, mode: str) -> list[str]:
        """Attach in a mode, at TC where that is refused: an interface in another mode serves, too."""
        try:
            hook = attacher.attach(link, mode)
        except Unusable:
            raise
        except XlvsError as error:
            if all(other.index != link.index for other in rtnetlink.links()):
                return []  # it has gone again meanwhile
            self._refused[link.index, mode] = error.message
            said = [str(error)]
            if mode != TC and not attacher.mode(link.index):
                return said + self._attach(attacher, link, TC)
            if mode == TC:
                wanted.note_refused(attacher.folder, link.name, error.message)
            return said
        wanted.note_refused(attacher.folder, link.name, "")
        return [f"{link.name}: {hook}"]
