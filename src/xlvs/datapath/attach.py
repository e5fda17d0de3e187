# SPDX-License-Identifier: GPL-2.0-only
"""Attaching the packet path to interfaces: tcx where the kernel has it, else clsact; XDP.

An attachment is a link pinned under this namespace's folder, ``links/tc-IFINDEX``
or ``links/xdp-IFINDEX``; the kernel keeps it while the pin is there.  clsact
filters have no link: a pin of the program, ``links/clsact-IFINDEX``, marks them,
and ``links/qdisc-IFINDEX`` that the qdisc they are in was made for them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress

from xlvs.errors import Unavailable, Unusable, UsageError, XlvsError
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

    def __init__(self, folder: str) -> None:
        self._folder = folder
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
        self._forget(f"xdp-{link.index}")
        return hook

    def detach(self, index: int) -> None:
        """Take every program of ours off an interface, which may have gone."""
        if self._has(f"clsact-{index}"):
            from xlvs.kernel import libbpf

            libbpf.detach_clsact(index, _CLSACT_HANDLE, _CLSACT_PRIORITY)
            if self._has(f"qdisc-{index}") and not rtnetlink.has_clsact_filters(index):
                libbpf.remove_clsact(index)
        for kind in ("xdp", "tc", "clsact", "qdisc"):
            self._forget(f"{kind}-{index}")

    def detach_all(self) -> None:
        """Take every program of ours off every interface."""
        for index in {int(name.rpartition("-")[2]) for name in self._names() if "-" in name}:
            self.detach(index)

    def is_attached(self, index: int) -> bool:
        """Whether the complete path runs on an interface."""
        return self._tc_hook(index) != ""

    def mode(self, index: int) -> str:
        """The mode in which an interface is attached; empty where it is not."""
        if not self.is_attached(index):
            return ""
        return XDP_GENERIC if self._alive(f"xdp-{index}") else TC

    def put_back(self, link: rtnetlink.Link, mode: str) -> None:
        """Bring an interface back to what `mode` said of it before."""
        if mode:
            self.attach(link, mode)
        else:
            self.detach(link.index)

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
        interfaces = self._open("interfaces")
        try:
            bpf.update(interfaces, link.index.to_bytes(4, sys.byteorder), bytes(record))
        finally:
            os.close(interfaces)

    def _open(self, name: str) -> int:
        """A map or program of this data plane; raises `Unusable` where its pin has gone."""
        try:
            return bpf.open_pin(f"{self._folder}/{name}")
        except FileNotFoundError as error:
            raise Unusable(
                f"{name} has gone from {self._folder}",
                "What is loaded is damaged. Load it anew: xlvs detach && xlvs attach",
            ) from error

    def _names(self) -> list[str]:
        try:
            return os.listdir(f"{self._folder}/links")
        except FileNotFoundError:
            return []

    def _has(self, name: str) -> bool:
        return os.path.exists(f"{self._folder}/links/{name}")

    def _forget(self, name: str) -> None:
        with suppress(FileNotFoundError):  # status, which shares the lock, forgets dead ones too
            os.unlink(f"{self._folder}/links/{name}")

    def _alive(self, name: str) -> bool:
        """Whether a pinned link still holds its interface; a dead pin is removed."""
        try:
            descriptor = bpf.open_pin(f"{self._folder}/links/{name}")
        except FileNotFoundError:
            return False
        try:
            if bpf.link_interface(descriptor)[1]:
                return True
        finally:
            os.close(descriptor)
        self._forget(name)
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
            self._forget(f"clsact-{index}")
        return ""

    def _attach_tc(self, link: rtnetlink.Link) -> str:
        present = self._tc_hook(link.index)
        if present:
            return present
        program = self._open("xlvs_tc")
        try:
            return self._attach_tcx(link, program) or self._attach_clsact(link, program)
        except OSError as error:
            raise Unavailable(
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

        # The mark comes first: a filter without one would be a stranger's.
        mark = f"clsact-{link.index}"
        bpf.pin(f"{self._folder}/links/{mark}", program)
        try:
            made_qdisc = libbpf.attach_clsact(link.index, program, _CLSACT_HANDLE, _CLSACT_PRIORITY)
        except BaseException:
            self._forget(mark)
            raise
        if made_qdisc:
            bpf.pin(f"{self._folder}/links/qdisc-{link.index}", program)
        return "clsact"

    def _attach_xdp(self, link: rtnetlink.Link) -> None:
        if self._alive(f"xdp-{link.index}"):
            return
        program = self._open("xlvs_xdp")
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
