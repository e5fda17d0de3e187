# SPDX-License-Identifier: GPL-2.0-only
"""What native XDP in a lab's director needs at the other ends of its wires, in the switch.

A NIC needs none of it.  A veth hands what leaves by XDP_TX only to a peer that
runs XDP itself, so the switch's ports to the director get a program that
passes every packet; and it loses what a sender has left for the card to
compute, so those ports finish checksums.  See docs/performance.md.

Nothing is pinned: the program lives and dies with the port.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from struct import Struct
from typing import Any

from xlvs.errors import XlvsError
from xlvs.kernel import bpf, libbpf
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import namespaces, offloads
from xlvs.lab.topology import DIRECTOR, NATIVE, Interface, Plan

_PASS_EVERY_PACKET = Struct("=BBhiBBhi").pack(0xB7, 0, 0, 2, 0x95, 0, 0, 0)
"""``r0 = XDP_PASS; exit`` (include/uapi/linux/bpf.h, struct bpf_insn)."""


def prepare(switch: str, plan: Plan) -> None:
    """Make the director's ports ready; harmless where they are.  Raises `XlvsError`."""
    ports = [wire.port for wire in _wires(plan)]
    if not ports:
        return
    with network_namespace(namespaces.path(switch)):
        program = bpf.load_program(bpf.XDP_PROGRAM, _PASS_EVERY_PACKET)
        try:
            for port in ports:
                libbpf.attach_xdp(socket.if_nametoindex(port), program)
                offloads.finish_checksums(port)
        except OSError as error:
            raise XlvsError(
                f"cannot make the switch's port {port} ready for native XDP: {error.strerror}",
                "a lab with --mode xdp-generic, or tc, needs nothing of it",
            ) from error
        finally:
            os.close(program)


def is_prepared(plan: Plan, switch_links: list[dict[str, Any]]) -> bool:
    """Do the director's ports, among the switch's `wiring.links`, run XDP where they should?"""
    with_xdp = {link["ifname"] for link in switch_links if "xdp" in link}
    return with_xdp.issuperset(wire.port for wire in _wires(plan))


def _wires(plan: Plan) -> Iterator[Interface]:
    """The director's, in a lab whose director runs native XDP."""
    for node in plan.nodes:
        if plan.mode == NATIVE and node.role == DIRECTOR:
            yield from node.interfaces
