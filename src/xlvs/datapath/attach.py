# SPDX-License-Identifier: GPL-2.0-only
"""Where the packet path is attached: TC on each interface, XDP where it is wanted, and `lo`.

On an interface clients' packets come in by TC ingress, and what real servers
on the director itself answer leaves by TC egress; by `lo` go the packets of
clients on the director itself.  XDP is a link pinned as ``links/xdp-IFINDEX``
under this namespace's folder; for TC see `xlvs.datapath.hooks`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from xlvs.datapath.hooks import Pins, TcHook
from xlvs.errors import Unavailable, UsageError, XlvsError
from xlvs.kernel import abi, bpf, rtnetlink

TC = "tc"
XDP_GENERIC = "xdp-generic"
MODES = (TC, XDP_GENERIC)

_PORT_MASTERS = ("bridge", "bond", "team")


class Attachment:
    """A program on an interface: ``hook`` is ``tcx``, ``clsact`` or ``xdp-generic``."""

    __slots__ = ("hook", "interface", "program")

    def __init__(self, interface: str, hook: str, program: int) -> None:
        self.interface = interface
        self.hook = hook
        self.program = program


def unfit(link: rtnetlink.Link, links: list[rtnetlink.Link]) -> str:
    """Why the packet path does not belong on an interface; empty when it does."""
    if link.loopback:
        return "the loopback interface receives nothing from clients"
    if not link.ethernet:
        return "it is not an Ethernet interface"
    for master in links:
        if link.master == master.index and master.kind in _PORT_MASTERS:
            return f"it is a port of the {master.kind} {master.name}: attach to {master.name}"
    return ""


class Attacher:
    """Attaches the programs pinned in one folder to this namespace's interfaces."""

    def __init__(self, folder: str) -> None:
        self._pins = Pins(folder)
        self._ingress = TcHook(self._pins, "xlvs_tc", "ingress")
        self._egress = TcHook(self._pins, "xlvs_tc_out", "egress")
        self._loopback = TcHook(self._pins, "xlvs_tc_lo", "ingress")
        self._links = rtnetlink.links()

    def link(self, name: str) -> rtnetlink.Link:
        """The interface of that name; raises `UsageError`."""
        for link in self._links:
            if link.name == name:
                return link
        raise UsageError(f"there is no interface {name}", "See them all: ip link")

    def fitting(self) -> list[rtnetlink.Link]:
        """Every interface that is up and that packets from clients may come in by."""
        return [link for link in self._links if link.up and not unfit(link, self._links)]

    def check_fit(self, link: rtnetlink.Link) -> None:
        """Raise `UsageError` for an interface that the packet path does not belong on."""
        reason = unfit(link, self._links)
        if reason:
            raise UsageError(f"cannot attach to {link.name}: {reason}", "See which there are: ip link")

    def attach(self, link: rtnetlink.Link, mode: str | None) -> str:
        """Attach to an interface; returns the hook that was taken.

        XDP goes with TC, which completes what XDP passes; mode ``tc`` takes an
        XDP program of ours off, None leaves one.  Attaching again is no error.  Raises
        `XlvsError` with the reason, and then leaves the interface as it was.
        """
        self.check_fit(link)
        if mode is None:
            mode = self.mode(link.index) or TC
        if mode == XDP_GENERIC:
            self._check_fit_for_xdp(link)
        self._know(link)
        was_attached = self.is_attached(link.index)
        try:
            kind = self._ingress.attach(link)
            self._egress.attach(link)
            if mode == XDP_GENERIC:
                self._attach_xdp(link)
        except XlvsError:
            if not was_attached:
                self.detach(link.index)
            raise
        if mode == XDP_GENERIC:
            return XDP_GENERIC
        self._pins.forget(f"xdp-{link.index}")
        return kind

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
        self._pins.forget(f"xdp-{index}")

    def detach_all(self) -> None:
        """Take every program of ours off every interface."""
        for index in self._pinned():
            self.detach(index)

    def _pinned(self) -> set[int]:
        """The indices of interfaces that something was attached to."""
        return {int(name.rpartition("-")[2]) for name in self._pins.links() if "-" in name}

    def departed(self) -> list[int]:
        """Interfaces that have taken the packet path with them into another network namespace.

        The kernel leaves links attached there; packets would be served by this
        namespace's table, and routed by the other's.
        """
        here = {link.index for link in self._links}
        hooks = ("tc", "out", "xdp")
        return sorted(
            index
            for index in self._pinned() - here
            if any(self._pins.alive(f"{hook}-{index}") for hook in hooks)
        )

    def forget_departed(self) -> None:
        """Take every program of ours off interfaces that are no longer in this namespace, or nowhere."""
        for index in self._pinned() - {link.index for link in self._links}:
            self.detach(index)

    def misplaced(self) -> dict[str, str]:
        """Interfaces that are attached and would be refused by now, with the reason."""
        return {
            link.name: unfit(link, self._links)
            for link in self._links
            if not link.loopback and self.is_attached(link.index) and unfit(link, self._links)
        }

    def is_attached(self, index: int) -> bool:
        """Whether the complete path runs on an interface."""
        return self._ingress.kind(index) != "" and self._egress.kind(index) != ""

    def mode(self, index: int) -> str:
        """The mode in which an interface is attached; empty where it is not."""
        if not self.is_attached(index):
            return ""
        return XDP_GENERIC if self._pins.alive(f"xdp-{index}") else TC

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
            if self._pins.alive(f"xdp-{link.index}"):
                self._pins.update(f"xdp-{link.index}", programs["xlvs_xdp"])

    def attachments(self) -> list[Attachment]:
        """What packets of clients meet where, in order of interface."""
        found = []
        for link in self._links:
            kind = "" if link.loopback else self._ingress.kind(link.index)
            if kind:
                found.append(Attachment(link.name, kind, self._ingress.program(link.index)))
            if self._pins.alive(f"xdp-{link.index}"):
                program = self._pins.program(f"xdp-{link.index}")
                found.append(Attachment(link.name, XDP_GENERIC, program))
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
                f"cannot attach to {link.name} at XDP: generic XDP cannot tell the packets of "
                "its VLAN devices from its own",
                f"TC works: xlvs attach --mode tc {link.name}",
            )

    def _know(self, link: rtnetlink.Link) -> None:
        """Tell XDP the interface's MAC: only frames sent to it are ours."""
        if link.index >= abi.INTERFACE_LIMIT or len(link.mac) != 6:
            return
        record = abi.Interface(mac=(ctypes.c_uint8 * 6)(*link.mac), known=1)
        interfaces = self._pins.open("interfaces")
        try:
            bpf.update(interfaces, link.index.to_bytes(4, sys.byteorder), bytes(record))
        finally:
            os.close(interfaces)

    def _attach_xdp(self, link: rtnetlink.Link) -> None:
        if self._pins.alive(f"xdp-{link.index}"):
            return
        program = self._pins.open("xlvs_xdp")
        try:
            attachment = bpf.create_link(program, link.index, bpf.XDP, bpf.XDP_FLAGS_SKB_MODE)
        except OSError as error:
            raise Unavailable(
                f"cannot attach to {link.name} at XDP: {error.strerror}",
                "Another XDP program is there; xlvs leaves it alone. See it: ip link show "
                f"{link.name}. TC works beside it: xlvs attach --mode tc {link.name}"
                if error.errno in (errno.EBUSY, errno.EEXIST)
                else f"TC works without it: xlvs attach --mode tc {link.name}",
            ) from error
        finally:
            os.close(program)
        try:
            bpf.pin(self._pins.path(f"xdp-{link.index}"), attachment)
        finally:
            os.close(attachment)
