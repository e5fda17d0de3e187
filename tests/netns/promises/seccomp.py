# SPDX-License-Identifier: GPL-2.0-only
"""Run a command on a kernel that refuses bpf(2): ``seccomp.py ERRNO every|map COMMAND...``

A seccomp filter answers the system call with that error, for every bpf(2) or
for the making of maps only.  To libbpf and to xlvs it is the kernel's answer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from struct import Struct

from xlvs.kernel import bpf

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 16
_BPF_MAP_CREATE = 0


def refuse_bpf(error: int, maps_only: bool) -> None:
    """Have this process, and what it becomes, get ``error`` from bpf(2)."""
    instruction = Struct("=HBBI")
    number = bpf.SYSCALL_NUMBERS[os.uname().machine]
    steps = [(_LOAD_WORD, 0, 0, _NUMBER_OFFSET), (_JUMP_IF_EQUAL, 0, 3 if maps_only else 1, number)]
    if maps_only:
        steps += [(_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_OFFSET), (_JUMP_IF_EQUAL, 0, 1, _BPF_MAP_CREATE)]
    steps += [(_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(instruction.pack(*step) for step in steps))
    program = ctypes.create_string_buffer(Struct("@HP").pack(len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value, filter_address in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(program)),
    ):
        if libc.prctl(option, value, ctypes.c_void_p(filter_address), 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse_bpf(getattr(errno, sys.argv[1]), sys.argv[2] == "map")
    os.execv(sys.argv[3], sys.argv[3:])
