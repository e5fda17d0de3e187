# SPDX-License-Identifier: GPL-2.0-only
"""The program that takes packets out of tunnels where the kernel has no devices for it.

It stands at TC ingress (bpf/decapsulate.bpf.c) and needs no device of its own: what was
in a packet comes in by the same interface once more, as if it had come so.
"""

from __future__ import annotations

import ctypes
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from xlvs.kernel import bpf
from xlvs.kernel.libbpf import BpfObject
from xlvs.realserver.wanted import GRE, IPIP, MAX_GUE_PORTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

OBJECT = Path(__file__).parents[1] / "bpf/decapsulate.bpf.o"
PROGRAM = "xlvs_decapsulate"
_TAKES = {IPIP: 1, GRE: 2}


class Configuration(ctypes.Structure):
    """The program's constants, ``.rodata.configuration``; ports in network order."""

    _fields_ = (
        ("interface", ctypes.c_uint32),
        ("kinds", ctypes.c_uint32),
        ("gue_ports", (ctypes.c_uint8 * 2) * MAX_GUE_PORTS),
    )


def configuration(kinds: Iterable[str], gue_ports: Iterable[int], interface: int) -> Configuration:
    """Constants for these kinds of tunnels, and GUE on these ports.

    ``interface`` is the index of that by which packets are handed in, 0 for that which
    they came by.
    """
    filled = Configuration(interface=interface, kinds=sum(_TAKES.get(kind, 0) for kind in set(kinds)))
    for place, port in enumerate(gue_ports):
        filled.gue_ports[place][:] = list(port.to_bytes(2, "big"))
    return filled


def load(
    opened: BpfObject, own: Iterable[str], kinds: Iterable[str], gue_ports: Iterable[int], interface: int = 0
) -> None:
    """Load the program, which opens what comes to one of these addresses of our own.

    Raises `Unavailable`.
    """
    opened.set_constants(".rodata.configuration", bytes(configuration(kinds, gue_ports, interface)))
    opened.load()
    addresses = opened.map_descriptor("own_addresses")
    for address in own:
        bpf.update(addresses, packed(address), bytes(4))


def packed(address: str) -> bytes:
    """An address as programs have it for a key: 16 bytes, IPv4's as ::ffff:192.0.2.1."""
    parsed = ip_address(address)
    return bytes(10) + b"\xff\xff" + parsed.packed if isinstance(parsed, IPv4Address) else parsed.packed
