# SPDX-License-Identifier: GPL-2.0-only
"""eBPF programs of a few instructions, with which the packet path is compared, and a veth's GRO."""

from __future__ import annotations

import ctypes
import fcntl
import socket
from struct import Struct

from xlvs.kernel import bpf

SCHED_CLS = 3
"""The kind of programs at TC (``enum bpf_prog_type``)."""
XDP_DROP, XDP_TX, TC_ACT_SHOT = 1, 3, 2

# struct bpf_insn, and codes of include/uapi/linux/bpf.h
_INSTRUCTION = Struct("=BBhi")
_CALL, _EXIT, _SET, _HELPER_REDIRECT = 0x85, 0x95, 0xB7, 23
_COPY, _ADD, _SET_LONG, _LOAD_HALF, _LOAD_WORD = 0xBF, 0x07, 0x18, 0x69, 0x61
_STORE_WORD, _STORE_LONG, _UNLESS, _IF_ABOVE = 0x63, 0x7B, 0x56, 0x2D
_DATA, _DATA_END = 76, 80  # in struct __sk_buff
_TYPE, _DESTINATION, _HEADERS = 12, 30, 34  # in an Ethernet frame of IPv4
_SIOCETHTOOL, _ETHTOOL_SGRO = 0x8946, 0x2C


def _program(kind: int, *instructions: tuple[int, int, int, int]) -> int:
    """Load a program of a few instructions (code, register, offset, immediate)."""
    return bpf.load_program(kind, b"".join(_INSTRUCTION.pack(*each) for each in instructions))


def returning(kind: int, verdict: int) -> int:
    """A program that does nothing but return a verdict."""
    return _program(kind, (_SET, 0, 0, verdict), (_EXIT, 0, 0, 0))


def redirecting(kind: int, index: int) -> int:
    """``return bpf_redirect(index, 0)``."""
    to, flags = (_SET, 1, 0, index), (_SET, 2, 0, 0)
    return _program(kind, to, flags, (_CALL, 0, 0, _HELPER_REDIRECT), (_EXIT, 0, 0, 0))


def sending_on(index: int, address: bytes, macs: bytes) -> int:
    """A program for TC that sends what is for an IPv4 address out by an interface, with these MACs.

    ``macs`` are the next hop's and the interface's own.  Nothing is checked, looked up or counted.
    """
    first, last = int.from_bytes(macs[:8], "little"), int.from_bytes(macs[8:], "little", signed=True)
    target = int.from_bytes(address, "little", signed=True)
    halves = [(half & 0xFFFFFFFF ^ 0x80000000) - 0x80000000 for half in (first, first >> 32)]
    body = (
        (_SET, 0, 0, -1),
        (_LOAD_WORD, 2 | 1 << 4, _DATA, 0), (_LOAD_WORD, 3 | 1 << 4, _DATA_END, 0),
        (_COPY, 4 | 2 << 4, 0, 0), (_ADD, 4, 0, _HEADERS), (_IF_ABOVE, 4 | 3 << 4, 12, 0),
        (_LOAD_HALF, 4 | 2 << 4, _TYPE, 0), (_UNLESS, 4, 10, 0x0008),
        (_LOAD_WORD, 4 | 2 << 4, _DESTINATION, 0), (_UNLESS, 4, 8, target),
        (_SET_LONG, 4, 0, halves[0]), (0, 0, 0, halves[1]), (_STORE_LONG, 2 | 4 << 4, 0, 0),
        (_SET, 4, 0, last), (_STORE_WORD, 2 | 4 << 4, 8, 0),
        (_SET, 1, 0, index), (_SET, 2, 0, 0), (_CALL, 0, 0, _HELPER_REDIRECT),
        (_EXIT, 0, 0, 0),
    )  # fmt: skip
    return _program(SCHED_CLS, *body)


def take_frames(interface: str) -> None:
    """``ethtool -K INTERFACE gro on``: a veth that takes frames without an XDP program of its own."""
    value = ctypes.create_string_buffer(Struct("=II").pack(_ETHTOOL_SGRO, 1))
    request = Struct("=16sQ8x").pack(interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
