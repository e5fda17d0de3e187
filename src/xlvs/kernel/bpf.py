# SPDX-License-Identifier: GPL-2.0-only
"""The bpf(2) system call: maps, pins, links, test runs.

Raw system calls, no libbpf: a command that only reads or changes pinned maps
starts in milliseconds with them.  Every function raises `OSError` with the
kernel's errno; what that means to an operator is for the caller to say.  Only
a machine whose number for the call is not known is `Unavailable` right here.
File descriptors are close-on-exec, as the kernel makes them.
"""

from __future__ import annotations

import ctypes
import os
import time
from struct import Struct

from xlvs.errors import Unavailable

SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}

_MEMBARRIER_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365}
_MEMBARRIER_GLOBAL = 1

# enum bpf_cmd (include/uapi/linux/bpf.h)
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_MAP_GET_NEXT_KEY = 4
_PROG_LOAD = 5
_OBJ_PIN = 6
_OBJ_GET = 7
_PROG_TEST_RUN = 10
_OBJ_GET_INFO_BY_FD = 15
_MAP_LOOKUP_BATCH = 24
_MAP_UPDATE_BATCH = 26
_MAP_DELETE_BATCH = 27
_LINK_CREATE = 28
_LINK_UPDATE = 29
_LINK_DETACH = 34

# enum bpf_prog_type
XDP_PROGRAM = 6

# enum bpf_attach_type
XDP = 37
TCX_INGRESS = 46
TCX_EGRESS = 47

XDP_FLAGS_SKB_MODE = 1 << 1
"""Generic XDP, run for an skb by the network stack."""
XDP_FLAGS_DRV_MODE = 1 << 2
"""Native XDP, run for a frame by the interface's driver."""

BEFORE = 1 << 3
"""For `create_link` at TC: in front of the programs that are there (BPF_F_BEFORE); 0 is behind them."""

_ATTRIBUTES_SIZE = 128

SUMMED_UP = 4
"""For `run_program`: the incoming device has summed the packet up, and the kernel checks afterwards that
the sum is still the packet's; `OSError` with EBADMSG where it is not (BPF_F_TEST_SKB_CHECKSUM_COMPLETE,
since Linux 6.16)."""

LIVE_FRAMES = 2
"""For `run_program` at XDP: each run's verdict is carried out, with a frame of its own; none comes back
(BPF_F_TEST_XDP_LIVE_FRAMES, since Linux 5.18)."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES_SIZE)
    return _call_in_place(command, buffer)


def _call_in_place(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    machine = os.uname().machine
    number = SYSCALL_NUMBERS.get(machine)
    if number is None:
        raise Unavailable(
            f"xlvs does not know the system call bpf(2) of the machine {machine!r} (uname -m)",
            f"It knows {', '.join(SYSCALL_NUMBERS)}. A 64-bit machine that goes by a 32-bit name "
            "(setarch, linux32) has to be called by its own.",
        )
    result: int = _libc.syscall(number, command, attributes, _ATTRIBUTES_SIZE)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _path_attributes(path: str, fd: int) -> tuple[bytes, object]:
    name = ctypes.create_string_buffer(os.fsencode(path))
    return Struct("=QII").pack(ctypes.addressof(name), fd, 0), name


def open_pin(path: str) -> int:
    """Open a pinned map, program or link; returns a file descriptor."""
    attributes, _alive = _path_attributes(path, 0)
    return _call(_OBJ_GET, attributes)


def pin(path: str, fd: int) -> None:
    """Pin a map, program or link under a path on a bpffs."""
    attributes, _alive = _path_attributes(path, fd)
    _call(_OBJ_PIN, attributes)


def _element_attributes(fd: int, key: bytes, value: object, flags: int) -> tuple[bytes, object]:
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_address = ctypes.addressof(value) if isinstance(value, ctypes.Array) else 0
    attributes = Struct("=I4xQQQ").pack(fd, ctypes.addressof(key_buffer), value_address, flags)
    return attributes, key_buffer


def lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value of a key, or None where the map has no such key."""
    value = ctypes.create_string_buffer(value_size)
    attributes, _alive = _element_attributes(fd, key, value, 0)
    try:
        _call(_MAP_LOOKUP_ELEM, attributes)
    except FileNotFoundError:
        return None
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Set a key's value."""
    buffer = ctypes.create_string_buffer(value, len(value))
    attributes, _alive = _element_attributes(fd, key, buffer, 0)
    _call(_MAP_UPDATE_ELEM, attributes)


_BATCH = Struct("=QQQQII16x")
_BATCH_COUNT = 4096


def update_many(fd: int, keys: list[bytes], values: list[bytes]) -> None:
    """Set the values of many keys of a hash with one call; those before a fault are set."""
    _batch(_MAP_UPDATE_BATCH, fd, keys, values)


def delete_many(fd: int, keys: list[bytes]) -> None:
    """Remove many keys of a hash, all of which it has, with one call."""
    _batch(_MAP_DELETE_BATCH, fd, keys, [])


def _batch(command: int, fd: int, keys: list[bytes], values: list[bytes]) -> None:
    if not keys:
        return
    all_keys = ctypes.create_string_buffer(b"".join(keys))
    all_values = ctypes.create_string_buffer(b"".join(values))
    attributes = _BATCH.pack(0, 0, ctypes.addressof(all_keys), ctypes.addressof(all_values), len(keys), fd)
    _call(command, attributes)


def delete(fd: int, key: bytes) -> None:
    """Remove a key; raises `FileNotFoundError` where it is not there."""
    attributes, _alive = _element_attributes(fd, key, None, 0)
    _call(_MAP_DELETE_ELEM, attributes)


def keys(fd: int, size: int) -> list[bytes]:
    """Every key of a map that nobody changes meanwhile; each has ``size`` bytes."""
    found: list[bytes] = []
    following = ctypes.create_string_buffer(size)
    while True:
        attributes, _alive = _element_attributes(fd, found[-1] if found else b"", following, 0)
        if not found:  # a null pointer asks for the first one
            attributes = attributes[:8] + bytes(8) + attributes[16:]
        try:
            _call(_MAP_GET_NEXT_KEY, attributes)
        except FileNotFoundError:
            return found
        found.append(following.raw)


def elements(fd: int, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    """Every key of a hash with its value; what changes meanwhile may be in it or not.

    Raises `OSError`: ENOSPC where thousands of keys have one hash.
    """
    keys = ctypes.create_string_buffer(_BATCH_COUNT * key_size)
    values = ctypes.create_string_buffer(_BATCH_COUNT * value_size)
    place = ctypes.create_string_buffer(8)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_SIZE)
    found: list[tuple[bytes, bytes]] = []
    begin, more = 0, True
    while more:
        _BATCH.pack_into(
            attributes, 0, begin, ctypes.addressof(place), ctypes.addressof(keys), ctypes.addressof(values),
            _BATCH_COUNT, fd,
        )  # fmt: skip
        try:
            _call_in_place(_MAP_LOOKUP_BATCH, attributes)
        except FileNotFoundError:  # these are the last ones
            more = False
        count = _BATCH.unpack_from(attributes.raw)[4]
        begin = ctypes.addressof(place)
        all_keys, all_values = keys.raw, values.raw
        found += [
            (all_keys[i * key_size : (i + 1) * key_size], all_values[i * value_size : (i + 1) * value_size])
            for i in range(count)
        ]
    return found


def load_program(kind: int, instructions: bytes) -> int:
    """Load a program without maps and return its descriptor.

    ``kind`` is one of ``enum bpf_prog_type``, ``instructions`` an array of ``struct bpf_insn``.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = (kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence))
    return _call(_PROG_LOAD, Struct("=IIQQ").pack(*attributes))


def run_program(
    fd: int, packet: bytes, repeat: int = 1, context: bytes = b"", flags: int = 0
) -> tuple[int, bytes, int]:
    """Run an XDP or TC program on a packet (Ethernet header first).

    ``context`` is the beginning of the program's context (``struct __sk_buff``
    or ``struct xdp_md``); without one the packet comes in by ``lo``.  ``flags``
    are the kernel's, such as `SUMMED_UP` or `LIVE_FRAMES`.  Returns
    the verdict, the packet as the program left it, and the mean run time in
    nanoseconds.
    """
    data_in = ctypes.create_string_buffer(packet, len(packet))
    data_out = ctypes.create_string_buffer(0 if flags & LIVE_FRAMES else len(packet) + 512)
    context_in = ctypes.create_string_buffer(context, max(len(context), 1))
    attributes = bytearray(_ATTRIBUTES_SIZE)
    layout = Struct("=IIIIQQIIIIQQI")
    layout.pack_into(
        attributes, 0, fd, 0, len(packet), len(data_out),
        ctypes.addressof(data_in), ctypes.addressof(data_out) if len(data_out) else 0, repeat, 0,
        len(context), 0, ctypes.addressof(context_in) if context else 0, 0, flags,
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(bytes(attributes), _ATTRIBUTES_SIZE)
    _call_in_place(_PROG_TEST_RUN, buffer)
    _, verdict, _, size, _, _, _, duration, *_ = layout.unpack_from(buffer.raw)
    return verdict, data_out.raw[:size], duration


def create_link(program: int, ifindex: int, attach_type: int, flags: int = 0) -> int:
    """Attach a program to an interface; the attachment lives as long as the returned link.

    Raises `OSError`: EINVAL where the kernel does not know the attach type,
    EBUSY where the interface has an XDP program already.
    """
    return _call(_LINK_CREATE, Struct("=IIII").pack(program, ifindex, attach_type, flags))


def wait_for_programs() -> None:
    """Return when every run of a program that has begun by now has ended; some milliseconds.

    What these may still read can be changed then.  It is membarrier(2) for all
    processes: an RCU grace period (kernel/sched/membarrier.c).  Where the kernel
    or a sandbox refuses it, a fifth of a second has to do.
    """
    number = _MEMBARRIER_NUMBERS.get(os.uname().machine)
    if number is None or _libc.syscall(number, _MEMBARRIER_GLOBAL, 0, 0) != 0:
        time.sleep(0.2)


def update_link(link: int, program: int) -> None:
    """Have an attachment run another program from one packet to the next.

    Raises `OSError`: ENOLINK where its interface has gone.
    """
    _call(_LINK_UPDATE, Struct("=IIII").pack(link, program, 0, 0))


def detach_link(link: int) -> None:
    """Take an attachment off its interface at once; a pin alone goes some time after it is removed."""
    _call(_LINK_DETACH, Struct("=I").pack(link))


def _info(fd: int, size: int) -> bytes:
    info = ctypes.create_string_buffer(size)
    _call(_OBJ_GET_INFO_BY_FD, Struct("=IIQ").pack(fd, size, ctypes.addressof(info)))
    return info.raw


def program_id(fd: int) -> int:
    """The kernel's number of a program (``struct bpf_prog_info``)."""
    return int.from_bytes(_info(fd, 8)[4:8], "little")


def link_interface(fd: int) -> tuple[int, int]:
    """A link's program number and interface index; index 0 when the interface is gone."""
    # struct bpf_link_info: type, id, prog_id, padding, then for XDP and TCX the index
    raw = _info(fd, 32)
    return int.from_bytes(raw[8:12], "little"), int.from_bytes(raw[16:20], "little")


def map_layout(fd: int) -> tuple[int, int, int, int, int]:
    """A map's layout: its type, the sizes of keys and values in bytes, its entries, its flags."""
    # struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags
    kind, _, key_size, value_size, entries, flags = Struct("=6I").unpack(_info(fd, 24))
    return kind, key_size, value_size, entries, flags
