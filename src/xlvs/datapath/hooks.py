# SPDX-License-Identifier: GPL-2.0-only
"""One TC hook of one interface: ours by a tcx link, or by a clsact filter before Linux 6.6.

An attachment is a link pinned under this namespace's folder, ``links/tc-IFINDEX``
or ``links/out-IFINDEX``; the kernel keeps it while the pin is there.  clsact
filters have no link: a pin of the program, ``links/clsact-IFINDEX`` or
``links/clsact-out-IFINDEX``, marks them, and ``links/qdisc-IFINDEX`` that the
qdisc they are in was made for them.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from xlvs.errors import Unavailable, Unusable
from xlvs.kernel import bpf, rtnetlink

TCX = "tcx"
CLSACT = "clsact"

_HANDLE = 0x786C
DIRECTORS_PRIORITY = 49153
"""The place of the director's own filters in a clsact qdisc: behind those that tc(8) places by itself."""


class Pins:
    """The pins of one namespace's data plane: its programs, and its links by name."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self, name: str) -> int:
        """A map or program of this data plane; raises `Unusable` where its pin has gone."""
        try:
            return bpf.open_pin(f"{self.folder}/{name}")
        except FileNotFoundError as error:
            raise Unusable(
                f"{name} has gone from {self.folder}",
                "What is loaded is damaged. Load it anew: xlvs detach && xlvs attach",
            ) from error

    def links(self) -> list[str]:
        """The names of the links and marks."""
        try:
            return os.listdir(f"{self.folder}/links")
        except FileNotFoundError:
            return []

    def has(self, name: str) -> bool:
        """Whether there is a link or mark of that name."""
        return os.path.exists(self.path(name))

    def path(self, name: str) -> str:
        """Where the link or mark of that name is pinned."""
        return f"{self.folder}/links/{name}"

    def forget(self, name: str) -> None:
        """Remove a link, which detaches it, or a mark."""
        with suppress(FileNotFoundError):  # status, which shares the lock, forgets dead ones too
            os.unlink(self.path(name))

    def detach(self, name: str) -> None:
        """Remove a link; when this returns its place is free, which without asking it is a while later."""
        try:
            descriptor = bpf.open_pin(self.path(name))
        except FileNotFoundError:
            return
        try:
            with suppress(OSError):  # its interface has gone
                bpf.detach_link(descriptor)
        finally:
            os.close(descriptor)
        self.forget(name)

    def put(self, name: str, program: int) -> None:
        """Pin a program in the place of another one; there is a pin of that name at any time."""
        beside = f"{self.folder}/beside"
        with suppress(FileNotFoundError):
            os.unlink(beside)  # of a command that died
        bpf.pin(beside, program)
        os.rename(beside, f"{self.folder}/{name}")

    def update(self, name: str, program: int) -> None:
        """Have a link run another program; nothing where its interface has gone meanwhile."""
        descriptor = bpf.open_pin(self.path(name))
        try:
            bpf.update_link(descriptor, program)
        except OSError as error:
            if error.errno != errno.ENOLINK:
                raise
        finally:
            os.close(descriptor)

    def alive(self, name: str) -> bool:
        """Whether a pinned link still holds its interface; a dead pin is removed."""
        try:
            descriptor = bpf.open_pin(self.path(name))
        except FileNotFoundError:
            return False
        try:
            if bpf.link_interface(descriptor)[1]:
                return True
        finally:
            os.close(descriptor)
        self.forget(name)
        return False

    def program(self, name: str) -> int:
        """The kernel's number of the program that a link attaches."""
        descriptor = bpf.open_pin(self.path(name))
        try:
            return bpf.link_interface(descriptor)[0]
        finally:
            os.close(descriptor)


class TcHook:
    """TC ingress or egress, and the program that belongs there."""

    def __init__(self, pins: Pins, program: str, direction: str, priority: int = DIRECTORS_PRIORITY) -> None:
        """``direction`` is ``ingress`` or ``egress``, ``priority`` the place in a clsact qdisc."""
        self._priority = priority
        self._pins = pins
        self.program_name = program
        self._direction = direction
        out = direction == "egress"
        self._attach_type = bpf.TCX_EGRESS if out else bpf.TCX_INGRESS
        self._link, self._mark = ("out", "clsact-out") if out else ("tc", "clsact")

    def kind(self, index: int) -> str:
        """`TCX` or `CLSACT` where it is attached, else empty."""
        if self._pins.alive(f"{self._link}-{index}"):
            return TCX
        if self._pins.has(f"{self._mark}-{index}"):
            if self._clsact_program(index):
                return CLSACT
            self._pins.forget(f"{self._mark}-{index}")
        return ""

    def program(self, index: int) -> int:
        """The kernel's number of the program attached to an interface; 0 where none is."""
        kind = self.kind(index)
        if kind == TCX:
            return self._pins.program(f"{self._link}-{index}")
        return self._clsact_program(index) if kind else 0

    def attach(self, link: rtnetlink.Link) -> str:
        """Attach where it is not attached yet; returns the kind.  Raises `Unavailable`."""
        present = self.kind(link.index)
        if present:
            return present
        program = self._pins.open(self.program_name)
        try:
            return self._attach_tcx(link, program) or self._attach_clsact(link, program)
        except OSError as error:
            raise Unavailable(
                f"cannot attach to {link.name} at TC {self._direction}: {error.strerror}",
                self._hint(error.errno, link.name),
            ) from error
        finally:
            os.close(program)

    def replace(self, index: int, program: int) -> None:
        """Where it is attached, run another program, from one packet to the next.

        Raises `OSError`.
        """
        kind = self.kind(index)
        if kind == TCX:
            self._pins.update(f"{self._link}-{index}", program)
        elif kind == CLSACT:
            from xlvs.kernel import libbpf

            libbpf.replace_clsact(index, self._direction, program, _HANDLE, self._priority)
            for mark in (f"{self._mark}-{index}", f"qdisc-{index}"):
                if self._pins.has(mark):  # it would keep the old program in memory
                    self._pins.put(f"links/{mark}", program)

    def detach(self, index: int) -> None:
        """Take the program off an interface, which may have gone."""
        if self._pins.has(f"{self._mark}-{index}"):
            from xlvs.kernel import libbpf

            libbpf.detach_clsact(index, self._direction, _HANDLE, self._priority)
            self._pins.forget(f"{self._mark}-{index}")
        # Somebody else may have removed it, with its filters, so that no mark leads here.
        if self._pins.has(f"qdisc-{index}") and not rtnetlink.has_clsact_filters(index):
            from xlvs.kernel import libbpf

            libbpf.remove_clsact(index)
            self._pins.forget(f"qdisc-{index}")
        self._pins.detach(f"{self._link}-{index}")

    def _clsact_program(self, index: int) -> int:
        from xlvs.kernel import libbpf

        return libbpf.clsact_program(index, self._direction, _HANDLE, self._priority)

    def _attach_tcx(self, link: rtnetlink.Link, program: int) -> str:
        """Attach by tcx (Linux 6.6); empty where the kernel does not know it."""
        try:
            attachment = bpf.create_link(program, link.index, self._attach_type)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return ""
            raise
        try:
            bpf.pin(self._pins.path(f"{self._link}-{link.index}"), attachment)
        finally:
            os.close(attachment)
        return TCX

    def _attach_clsact(self, link: rtnetlink.Link, program: int) -> str:
        from xlvs.kernel import libbpf

        # It takes filters of either direction, and shows them all what comes in.
        if rtnetlink.ingress_qdisc(link.index) == "ingress":
            raise Unavailable(
                f"cannot attach to {link.name} at TC {self._direction}: its qdisc is ingress",
                "clsact takes the same filters, and those of egress. Change it, then put the filters back:\n"
                f"tc qdisc del dev {link.name} ingress && tc qdisc add dev {link.name} clsact && "
                f"xlvs attach {link.name}",
            )
        # The mark comes first: a filter without one would be a stranger's.
        mark = f"{self._mark}-{link.index}"
        bpf.pin(self._pins.path(mark), program)
        try:
            made_qdisc = libbpf.attach_clsact(link.index, self._direction, program, _HANDLE, self._priority)
        except BaseException:
            self._pins.forget(mark)
            raise
        if made_qdisc:
            # One may be left of a qdisc that somebody else has removed.
            self._pins.put(f"links/qdisc-{link.index}", program)
        return CLSACT

    def _hint(self, error: int | None, interface: str) -> str:
        if error in (errno.EEXIST, errno.EBUSY, errno.EINVAL):
            return (
                "Another program has that place; xlvs leaves it alone. "
                f"See it: tc filter show dev {interface} {self._direction}"
            )
        if error == errno.ENODEV:
            return "The interface has gone. See what there is: ip link"
        return "Does the kernel have CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT?"
