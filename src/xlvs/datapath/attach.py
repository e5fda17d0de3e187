# SPDX-License-Identifier: GPL-2.0-only
"""Where the packet path is attached: TC on each interface, XDP where it is wanted, and `lo`.

On an interface clients' packets come in by TC ingress, and what real servers
on the director itself answer leaves by TC egress; by `lo` go the packets of
clients on the director itself.  For XDP see `xlvs.datapath.xdp`, for TC
`xlvs.datapath.hooks`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Collection
from contextlib import suppress

from xlvs.datapath.fitness import bystanders, unfit
from xlvs.datapath.hooks import Pins, TcHook
from xlvs.datapath.modes import AUTO, XDP
from xlvs.datapath.modes import TC as TC
from xlvs.datapath.modes import XDP_GENERIC as XDP_GENERIC
from xlvs.datapath.xdp import PIN, XdpHook, best_mode, lacks
from xlvs.errors import Unavailable, Unusable, UsageError, XlvsError
from xlvs.kernel import abi, rtnetlink
from xlvs.kernel.grace_period import Hurry

MODES = (TC, XDP_GENERIC)
"""Those that every Ethernet interface can have."""


class Attachment:
    """A program on an interface: ``hook`` is ``tcx``, ``clsact``, ``xdp`` or ``xdp-generic``."""

    __slots__ = ("hook", "interface", "program")

    def __init__(self, interface: str, hook: str, program: int) -> None:
        self.interface = interface
        self.hook = hook
        self.program = program


class Attacher:
    """Attaches the programs pinned in one folder to this namespace's interfaces."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._pins = Pins(folder)
        self._ingress = TcHook(self._pins, "xlvs_tc", "ingress")
        self._egress = TcHook(self._pins, "xlvs_tc_out", "egress")
        self._loopback = TcHook(self._pins, "xlvs_tc_lo", "ingress")
        self._xdp = XdpHook(self._pins)
        self.reasons: dict[str, str] = {}
        """Why `AUTO` has chosen what it has, by interface."""
        self.refusals: dict[tuple[int, str], str] = {}
        """What was refused since this was made: by an interface's index and the mode, why."""
        self._links = rtnetlink.links()
        self.bystanders = bystanders(self._links)
        """Interfaces by which no client's packets come, by index, with the reason."""

    def links(self) -> list[rtnetlink.Link]:
        """Every interface of this network namespace, as it was when this was made."""
        return self._links

    def link(self, name: str) -> rtnetlink.Link:
        """The interface of that name; raises `UsageError`."""
        for link in self._links:
            if link.name == name:
                return link
        raise UsageError(f"there is no interface {name}", "See them all: ip link")

    def fitting(self, named: Collection[str] = ()) -> list[rtnetlink.Link]:
        """Every interface that is up and that packets from clients may come in by, or that was named."""
        return [
            link
            for link in self._links
            if link.up
            and (link.index not in self.bystanders or link.name in named)
            and not unfit(link, self._links)
        ]

    def left_out(self) -> dict[str, str]:
        """Interfaces that are up and were not attached because no client's packets come by them, and why."""
        return {
            link.name: self.bystanders[link.index]
            for link in self._links
            if link.up
            and link.index in self.bystanders
            and not self.is_attached(link.index)
            and not unfit(link, self._links)
        }

    def unattached(self) -> list[rtnetlink.Link]:
        """Those of `fitting` that nothing is pinned for."""
        pinned = self._pinned()
        return [link for link in self.fitting() if link.index not in pinned]

    def check_fit(self, link: rtnetlink.Link) -> None:
        """Raise `UsageError` for an interface that the packet path does not belong on."""
        reason = unfit(link, self._links)
        if reason:
            raise UsageError(f"cannot attach to {link.name}: {reason}", "See which there are: ip link")

    def attach(self, link: rtnetlink.Link, mode: str | None) -> str:
        """Attach to an interface; returns the hook that was taken.

        XDP goes with TC, which completes what XDP passes; mode ``tc`` takes an
        XDP program of ours off, None leaves one, ``auto`` chooses, with `reasons`.
        Attaching again is no error.  Raises `XlvsError` with the reason, and then
        leaves the interface as it was.
        """
        self.check_fit(link)
        if mode is None:
            mode = self.mode(link.index) or TC
        if mode == AUTO:
            return self._attach_best(link)
        try:
            return self._attach(link, mode)
        except Unusable:
            raise
        except XlvsError as error:
            self.refusals[link.index, mode] = error.message
            raise

    def _attach(self, link: rtnetlink.Link, mode: str) -> str:
        if mode in PIN:
            self._check_fit_for_xdp(link)
        self._know(link)
        was_attached = self.is_attached(link.index)
        try:
            kind = self._ingress.attach(link)
            self._egress.attach(link)
            if mode in PIN:
                self._xdp.attach(link, mode)
        except XlvsError:
            if not was_attached:
                self.detach(link.index)
            raise
        if mode not in PIN:
            self._xdp.detach(link.index)
            self._know(link)
            return kind
        self._know(link)
        return mode

    def _attach_best(self, link: rtnetlink.Link) -> str:
        mode, self.reasons[link.name] = best_mode(link)
        if mode == XDP:
            try:
                # TC first: it stays where XDP is refused.  Taken off and attached again at once
                # it would meet itself, because the kernel ends links later.
                if not self.is_attached(link.index):
                    self.attach(link, TC)
                return self.attach(link, XDP)
            except (Unavailable, UsageError) as error:
                # Whatever keeps TC from it as well is what the operator is told then.
                self.reasons[link.name] = str(error).partition("\n")[0]
        return self.attach(link, TC)

    def attach_loopback(self) -> None:
        """Attach to `lo`, by which the director's own clients reach a VIP."""
        for link in self._links:
            if link.loopback:
                self._loopback.attach(link)
                self._egress.attach(link)

    def detach(self, index: int) -> None:
        """Take every program of ours off an interface, which may have gone."""
        self._ingress.detach(index)
        self._egress.detach(index)
        self._unknow(index)
        self._xdp.detach(index)

    def detach_all(self) -> None:
        """Take every program of ours off every interface."""
        pinned = self._pinned()
        with Hurry(len(pinned)):
            for index in pinned:
                self.detach(index)

    def _pinned(self) -> set[int]:
        """The indices of interfaces that something was attached to."""
        return {int(name.rpartition("-")[2]) for name in self._pins.links() if "-" in name}

    def departed(self) -> list[int]:
        """Interfaces that have taken the packet path with them into another network namespace.

        The kernel leaves links attached there; packets would be served by this
        namespace's table, and routed by the other's.
        """
        hooks = ("tc", "out", *PIN.values())
        return sorted(
            index for index in self.gone() if any(self._pins.alive(f"{hook}-{index}") for hook in hooks)
        )

    def gone(self) -> set[int]:
        """Interfaces that something is pinned for, and that are no longer in this namespace, or nowhere."""
        return self._pinned() - {link.index for link in self._links}

    def forget_departed(self) -> None:
        """Take every program of ours off interfaces that are `gone`."""
        for index in self.gone():
            self.detach(index)

    def misplaced(self) -> dict[str, str]:
        """Interfaces that are attached and would be refused by now, with the reason."""
        return {
            link.name: unfit(link, self._links)
            for link in self._links
            if not link.loopback and self.is_attached(link.index) and unfit(link, self._links)
        }

    def lacking(self) -> dict[str, str]:
        """Interfaces where native XDP is missing something, with what it is."""
        missing = {link.name: lacks(link, self._xdp.mode(link.index)) for link in self._links}
        return {name: what for name, what in missing.items() if what}

    def is_attached(self, index: int) -> bool:
        """Whether the complete path runs on an interface."""
        return self._ingress.kind(index) != "" and self._egress.kind(index) != ""

    def mode(self, index: int) -> str:
        """The mode in which an interface is attached; empty where it is not."""
        if not self.is_attached(index):
            return ""
        return self._xdp.mode(index) or TC

    def put_back(self, link: rtnetlink.Link, mode: str) -> None:
        """Bring an interface back to what `mode` said of it before."""
        if mode:
            self.attach(link, mode)
        else:
            self.detach(link.index)

    def replace(self, programs: dict[str, int]) -> None:
        """Have every attachment run another program, from one packet to the next.

        ``programs`` are descriptors by name.  Raises `OSError`; some run the
        other program then already.
        """
        for link in self._links:
            ingress = self._loopback if link.loopback else self._ingress
            ingress.replace(link.index, programs[ingress.program_name])
            self._egress.replace(link.index, programs[self._egress.program_name])
            self._xdp.replace(link.index, programs["xlvs_xdp"])

    def attachments(self) -> list[Attachment]:
        """What packets of clients meet where, in order of interface."""
        found = []
        for link in self._links:
            kind = "" if link.loopback else self._ingress.kind(link.index)
            if kind:
                found.append(Attachment(link.name, kind, self._ingress.program(link.index)))
            mode = self._xdp.mode(link.index)
            if mode:
                found.append(Attachment(link.name, mode, self._xdp.program(link.index)))
        return found

    def loopback(self) -> Attachment | None:
        """What the director's own clients meet."""
        for link in self._links:
            kind = self._egress.kind(link.index) if link.loopback else ""
            if kind:
                return Attachment(link.name, kind, self._egress.program(link.index))
        return None

    def _check_fit_for_xdp(self, link: rtnetlink.Link) -> None:
        if link.index >= abi.INTERFACE_LIMIT:
            raise UsageError(
                f"cannot attach to {link.name} at XDP: its index {link.index} is above "
                f"{abi.INTERFACE_LIMIT - 1}",
                f"TC works: xlvs attach --mode tc {link.name}",
            )
        if any(other.kind == "vlan" and other.lower == link.index for other in self._links):
            raise UsageError(
                f"cannot attach to {link.name} at XDP: XDP cannot tell the packets of "
                "its VLAN devices from its own",
                f"TC works: xlvs attach --mode tc {link.name}",
            )

    def _know(self, link: rtnetlink.Link) -> None:
        """Tell XDP the interface's MAC, to which frames of ours are sent, and whether it has native XDP."""
        if link.index >= abi.INTERFACE_LIMIT or len(link.mac) != 6:
            return
        known = abi.INTERFACE_KNOWN
        if self._xdp.mode(link.index) == XDP:
            known |= abi.INTERFACE_NATIVE
        self._note(link.index, abi.Interface(mac=(ctypes.c_uint8 * 6)(*link.mac), known=known))

    def _unknow(self, index: int) -> None:
        """Have no frames sent by an interface that is about to run no XDP: most drivers lose them then.

        TC, which learns its MAC, is off already.  What is damaged knows nothing that counts.
        """
        if index < abi.INTERFACE_LIMIT:
            with suppress(Unusable, OSError):
                self._note(index, abi.Interface())

    def _note(self, index: int, record: abi.Interface) -> None:
        interfaces = self._pins.open("interfaces")
        try:
            size = ctypes.sizeof(record)
            with mmap.mmap(interfaces, abi.INTERFACE_LIMIT * size) as memory:
                memory[index * size : (index + 1) * size] = bytes(record)
        finally:
            os.close(interfaces)
