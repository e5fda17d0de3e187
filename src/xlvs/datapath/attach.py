# SPDX-License-Identifier: GPL-2.0-only
"""Attaching the packet path to interfaces: tcx where the kernel has it, else clsact; XDP.

An attachment is a link pinned under this namespace's folder, ``links/tc-IFINDEX``
or ``links/xdp-IFINDEX``; the kernel keeps it while the pin is there.  clsact
filters have no link: a pin of the program, ``links/clsact-IFINDEX``, marks them.
"""

from __future__ import annotations

import errno
import os

from xlvs.datapath.maps import Maps
from xlvs.errors import UsageError, XlvsError
from xlvs.kernel import abi, bpf, rtnetlink

TC = "tc"
XDP_GENERIC = "xdp-generic"
MODES = (TC, XDP_GENERIC)

_CLSACT_HANDLE = 0x786C
_CLSACT_PRIORITY = 49152
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

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._folder = maps.folder
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

    def attach(self, link: rtnetlink.Link, mode: str) -> str:
        """Attach to an interface; returns the hook that was taken.

        XDP goes with TC, which completes what XDP passes; mode ``tc`` takes an
        XDP program of ours off.  Attaching again is no error.  Raises
        `XlvsError` with the reason, and then leaves the interface as it was.
        """
        reason = unfit(link, self._links)
        if reason:
            raise UsageError(f"{link.name}: {reason}")
        self._know(link)
        had_tc = self.is_attached(link.index)
        hook = self._attach_tc(link)
        if mode == XDP_GENERIC:
            try:
                self._attach_xdp(link)
            except XlvsError:
                if not had_tc:
                    self.detach(link.index)
                raise
            return XDP_GENERIC
        self._detach_xdp(link.index)
        return hook

    def detach(self, index: int) -> None:
        """Take every program of ours off an interface."""
        if self._has(f"clsact-{index}"):
            from xlvs.kernel import libbpf

            libbpf.detach_clsact(index, _CLSACT_HANDLE, _CLSACT_PRIORITY)
        for name in (f"xdp-{index}", f"tc-{index}", f"clsact-{index}"):
            if self._has(name):
                os.unlink(f"{self._folder}/links/{name}")

    def is_attached(self, index: int) -> bool:
        """Whether the complete path runs on an interface."""
        return self._tc_hook(index) != ""

    def _detach_xdp(self, index: int) -> None:
        if self._has(f"xdp-{index}"):
            os.unlink(f"{self._folder}/links/xdp-{index}")

    def attachments(self) -> list[Attachment]:
        """What is attached where, in order of interface."""
        found = []
        for link in self._links:
            hook = self._tc_hook(link.index)
            if hook:
                found.append(Attachment(link.name, hook, self._program_on(link.index, hook)))
            if self._alive(f"xdp-{link.index}"):
                program = self._program_on(link.index, XDP_GENERIC)
                found.append(Attachment(link.name, XDP_GENERIC, program))
        return found

    def _know(self, link: rtnetlink.Link) -> None:
        """Tell XDP the interface's MAC: only frames sent to it are ours."""
        if link.index < abi.INTERFACE_LIMIT and len(link.mac) == 6:
            record = self._maps.record("interfaces", abi.Interface, link.index, abi.INTERFACE_LIMIT)
            record.mac[:] = list(link.mac)
            record.known = 1

    def _has(self, name: str) -> bool:
        return os.path.exists(f"{self._folder}/links/{name}")

    def _alive(self, name: str) -> bool:
        """Whether a pinned link still holds its interface; a dead pin is removed."""
        path = f"{self._folder}/links/{name}"
        try:
            descriptor = bpf.open_pin(path)
        except OSError:
            return False
        try:
            if bpf.link_interface(descriptor)[1]:
                return True
        finally:
            os.close(descriptor)
        os.unlink(path)
        return False

    def _program_on(self, index: int, hook: str) -> int:
        """The kernel's number of the program that is attached."""
        if hook == "clsact":
            from xlvs.kernel import libbpf

            return libbpf.clsact_program(index, _CLSACT_HANDLE, _CLSACT_PRIORITY)
        kind = "xdp" if hook == XDP_GENERIC else "tc"
        descriptor = bpf.open_pin(f"{self._folder}/links/{kind}-{index}")
        try:
            return bpf.link_interface(descriptor)[0]
        finally:
            os.close(descriptor)

    def _tc_hook(self, index: int) -> str:
        if self._alive(f"tc-{index}"):
            return "tcx"
        if self._has(f"clsact-{index}"):
            from xlvs.kernel import libbpf

            if libbpf.clsact_program(index, _CLSACT_HANDLE, _CLSACT_PRIORITY):
                return "clsact"
            os.unlink(f"{self._folder}/links/clsact-{index}")
        return ""

    def _attach_tc(self, link: rtnetlink.Link) -> str:
        present = self._tc_hook(link.index)
        if present:
            return present
        program = bpf.open_pin(f"{self._folder}/xlvs_tc")
        try:
            return self._attach_tcx(link, program) or self._attach_clsact(link, program)
        except OSError as error:
            raise XlvsError(
                f"cannot attach to {link.name} at TC ingress: {error.strerror}",
                _tc_hint(error.errno, link.name),
            ) from error
        finally:
            os.close(program)

    def _attach_tcx(self, link: rtnetlink.Link, program: int) -> str:
        """Attach by tcx (Linux 6.6); empty where the kernel does not know it."""
        try:
            attachment = bpf.create_link(program, link.index, bpf.TCX_INGRESS)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return ""
            raise
        try:
            bpf.pin(f"{self._folder}/links/tc-{link.index}", attachment)
        finally:
            os.close(attachment)
        return "tcx"

    def _attach_clsact(self, link: rtnetlink.Link, program: int) -> str:
        from xlvs.kernel import libbpf

        libbpf.attach_clsact(link.index, program, _CLSACT_HANDLE, _CLSACT_PRIORITY, replace=False)
        bpf.pin(f"{self._folder}/links/clsact-{link.index}", program)
        return "clsact"

    def _attach_xdp(self, link: rtnetlink.Link) -> None:
        if self._alive(f"xdp-{link.index}"):
            return
        program = bpf.open_pin(f"{self._folder}/xlvs_xdp")
        try:
            attachment = bpf.create_link(program, link.index, bpf.XDP, bpf.XDP_FLAGS_SKB_MODE)
        except OSError as error:
            raise XlvsError(
                f"cannot attach to {link.name} at XDP: {error.strerror}",
                "Another XDP program is there; xlvs leaves it alone. See it: ip link show "
                f"{link.name}. TC works beside it: xlvs attach --mode tc {link.name}"
                if error.errno == errno.EBUSY
                else f"TC works without it: xlvs attach --mode tc {link.name}",
            ) from error
        finally:
            os.close(program)
        try:
            bpf.pin(f"{self._folder}/links/xdp-{link.index}", attachment)
        finally:
            os.close(attachment)


def _tc_hint(error: int | None, interface: str) -> str:
    if error in (errno.EEXIST, errno.EBUSY):
        return (
            "Another program has that place; xlvs leaves it alone. "
            f"See it: tc filter show dev {interface} ingress"
        )
    if error == errno.ENODEV:
        return "The interface has gone. See what there is: ip link"
    return "Does the kernel have CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT?"
