# SPDX-License-Identifier: GPL-2.0-only
"""XDP on an interface: which mode suits it, the attachment itself, and what it needs of a veth.

Native XDP runs in the interface's driver, before the kernel makes an skb of a frame:
where frames come from a wire that is three times as quick as TC.  Where packets are
skbs already (veth, tap, bridge), each would be made a frame and an skb again, and TC
is quicker.  An attachment is a link pinned as ``links/native-IFINDEX`` or, where the
network stack runs the program, ``links/xdp-IFINDEX``.
"""

from __future__ import annotations

import errno
import os

from xlvs.datapath.hooks import Pins
from xlvs.datapath.modes import TC, XDP, XDP_GENERIC
from xlvs.errors import Unavailable
from xlvs.kernel import bpf, rtnetlink

PIN = {XDP: "native", XDP_GENERIC: "xdp"}
"""What a pin's name begins with, by mode."""

_FLAGS = {XDP: bpf.XDP_FLAGS_DRV_MODE, XDP_GENERIC: bpf.XDP_FLAGS_SKB_MODE}
_OF_FRAMES = ("", "bond")
"""Kinds of interface whose packets come from a wire: NICs have no kind."""


def best_mode(link: rtnetlink.Link) -> tuple[str, str]:
    """The mode that suits an interface, to be tried first, and why."""
    if link.kind in _OF_FRAMES:
        return XDP, "frames come from a wire, and its driver runs XDP"
    return TC, f"packets of a {link.kind} are skbs already, which XDP would turn into frames and back"


class XdpHook:
    """Our program at XDP, on any interface."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    def mode(self, index: int) -> str:
        """`XDP` or `XDP_GENERIC`; empty where our program is not at XDP."""
        for mode, prefix in PIN.items():
            if self._pins.alive(f"{prefix}-{index}"):
                return mode
        return ""

    def program(self, index: int) -> int:
        """The number of the program there."""
        return self._pins.program(self._name(index))

    def attach(self, link: rtnetlink.Link, mode: str) -> None:
        """Attach in a mode, in the place of the other one; raises `Unavailable`, changing nothing."""
        before = self.mode(link.index)
        if before == mode:
            return
        self.detach(link.index)  # the kernel does not have both at once
        try:
            self._attach(link, mode)
        except Unavailable:
            if before:
                self._attach(link, before)
            raise

    def _attach(self, link: rtnetlink.Link, mode: str) -> None:
        program = self._pins.open("xlvs_xdp")
        try:
            attachment = bpf.create_link(program, link.index, bpf.XDP, _FLAGS[mode])
        except OSError as error:
            raise Unavailable(
                f"cannot attach to {link.name} at {mode}: {_reason(error)}", _hint(error, link.name, mode)
            ) from error
        finally:
            os.close(program)
        try:
            bpf.pin(self._pins.path(f"{PIN[mode]}-{link.index}"), attachment)
        finally:
            os.close(attachment)

    def detach(self, index: int) -> None:
        """Take our program off XDP; when this returns another one can be attached."""
        if not self.mode(index):
            return
        name = self._name(index)
        link = bpf.open_pin(self._pins.path(name))
        try:
            bpf.detach_link(link)
        finally:
            os.close(link)
        self._pins.forget(name)

    def replace(self, index: int, program: int) -> None:
        """Where it is attached, run another program, from one packet to the next."""
        if self.mode(index):
            self._pins.update(self._name(index), program)

    def _name(self, index: int) -> str:
        return f"{PIN[self.mode(index)]}-{index}"


def _reason(error: OSError) -> str:
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return "another XDP program is there"
    if error.errno == errno.EOPNOTSUPP:
        return "its driver has no XDP"
    if error.errno in (errno.ERANGE, errno.EINVAL):
        return f"its driver refuses ({error.strerror}); most refuse a large MTU, and LRO"
    return error.strerror or "refused"


def _hint(error: OSError, interface: str, mode: str) -> str:
    beside = f"TC works: xlvs attach --mode tc {interface}"
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return f"xlvs leaves it alone. See it: ip link show {interface}. {beside}"
    if mode == XDP and error.errno != errno.ENODEV:
        return f"What the driver said is in dmesg. {beside}"
    return beside


def lacks(link: rtnetlink.Link, mode: str) -> str:
    """What native XDP on a veth is missing at the other end; empty where nothing is."""
    if mode != XDP or link.kind != "veth":
        return ""
    peer = rtnetlink.veth_peer(link)
    if peer is None or peer.xdp:
        return ""
    return (
        f"its peer {peer.name} has no XDP program: what is sent back by {link.name} does not arrive. "
        "Any that passes packets will do; or xlvs attach --mode tc " + link.name
    )
