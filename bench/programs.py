# SPDX-License-Identifier: GPL-2.0-only
"""eBPF programs of two to four instructions, with which the packet path is compared, and a veth's GRO."""

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


def take_frames(interface: str) -> None:
    """``ethtool -K INTERFACE gro on``: a veth that takes frames without an XDP program of its own."""
    value = ctypes.create_string_buffer(Struct("=II").pack(_ETHTOOL_SGRO, 1))
    request = Struct("=16sQ8x").pack(interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
