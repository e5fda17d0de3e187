# SPDX-License-Identifier: GPL-2.0-only
"""Many flows in one call of BPF_PROG_TEST_RUN (bench/walk.bpf.c), and its time.

The kernel's own figure for a run is cut to whole nanoseconds and counts what else
the machine does meanwhile; here it is the thread's CPU time, of a call that is
long enough.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct, pack

from xlvs.kernel import bpf, libbpf

_FOLDER = Path(__file__).parent
_SOURCE, _OBJECT = _FOLDER / "walk.bpf.c", _FOLDER / "walk.bpf.o"

XDP, TC = "xdp", "tc"
DROP, TX, F0, F1, LINE, ROOM, INSERT = "drop", "tx", "F0", "F1", "line", "room", "insert"
_FLOORS = {
    DROP: "floor_drop", TX: "floor_tx", F0: "floor_0", F1: "floor_1", INSERT: "floor_insert",
    LINE: "floor_line", ROOM: "floor_room",
}  # fmt: skip
_OURS = len(_FLOORS)
_PORTS = 1 << 15

IN_TURN = (1, 1)
SCATTERED = (1664525, 1013904223)
"""A linear congruence's factor and addend: of full period modulo every power of two."""


class _Control(ctypes.Structure):
    """``struct control`` of walk.bpf.c."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in (
            "next", "position", "mask", "multiplier", "increment", "first", "sum", "length", "reverse",
            "pad",
        )),
        ("word", ctypes.c_uint8 * 16),
        ("other", ctypes.c_uint8 * 16),
        ("ports", ctypes.c_uint8 * 4),
        ("hop", ctypes.c_uint8 * 4),
        ("type", ctypes.c_uint8 * 4),
        ("mac", ctypes.c_uint8 * 6),
        ("end_pad", ctypes.c_uint16),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Traffic:
    """Flows of one kind: ``frame`` is the first one's, from its client or, in ``reverse``, to it.

    The client's address counts up, and its port from 1024.
    """

    frame: bytes
    reverse: bool = False


def flow(client: bytes, number: int) -> tuple[bytes, int]:
    """The client's address and port in a flow; ``client`` is the first one's, packed."""
    last = int.from_bytes(client, "big") + number // _PORTS
    return last.to_bytes(len(client), "big"), 1024 + number % _PORTS


class Walk:
    """The programs around the measured ones, loaded."""

    def __init__(self, opened: libbpf.BpfObject, ours: dict[str, int], interface: int) -> None:
        self._interface = interface
        self._entry = {XDP: opened.program("walk_xdp"), TC: opened.program("walk_tc")}
        self._memory = mmap.mmap(opened.map_descriptor("controls"), mmap.PAGESIZE)
        self._control = _Control.from_buffer(self._memory)
        for place, name in enumerate(_FLOORS.values()):
            _put(opened.map_descriptor("xdp_programs"), place, opened.program(name))
        _put(opened.map_descriptor("xdp_programs"), _OURS, ours[XDP])
        _put(opened.map_descriptor("tc_programs"), _OURS, ours[TC])

    def run(
        self,
        hook: str,
        traffic: Traffic,
        flows: int,
        packets: int,
        *,
        floor: str | None = None,
        first: int = 0,
        order: tuple[int, int] = SCATTERED,
    ) -> tuple[float, int]:
        """Hand over that many packets; returns nanoseconds for each, and the last one's verdict.

        ``flows`` is a power of two.  ``floor`` names one of the floor programs, else it
        is the packet path.  ``first`` is added to flows' numbers.
        """
        self._prepare(traffic, flows, floor, first, order)
        frame = traffic.frame
        if hook == TC:
            context = pack("=8xI28xI", 0, self._interface)
        else:
            context = pack("=IIIIII", 0, len(frame), 0, self._interface, 0, 0)
        began = time.thread_time_ns()
        verdict, _, _ = bpf.run_program(self._entry[hook], frame, repeat=packets, context=context)
        return (time.thread_time_ns() - began) / packets, verdict

    def send(self, traffic: Traffic, flows: int, frames: int, interface: int) -> None:
        """Send frames of flows in turn out of an interface of this namespace, live."""
        self._prepare(traffic, flows, TX, 0, SCATTERED)
        context = pack("=IIIIII", 0, len(traffic.frame), 0, interface, 0, 0)
        bpf.run_program(
            self._entry[XDP], traffic.frame, repeat=frames, context=context, flags=bpf.LIVE_FRAMES
        )

    def _prepare(
        self, traffic: Traffic, flows: int, floor: str | None, first: int, order: tuple[int, int]
    ) -> None:
        control, frame = self._control, traffic.frame
        control.next = _OURS if floor is None else list(_FLOORS).index(floor)
        control.mask = flows - 1
        control.multiplier, control.increment = order
        if order == IN_TURN:
            control.position = flows - 1  # so that the first one is 0
        control.first = first
        control.length = len(frame)
        control.reverse = traffic.reverse
        control.mac[:] = list(frame[:6])
        control.type[:] = list(frame[12:16])
        size, source, hop = (4, 26, frame[22:24]) if frame[12:14] == b"\x08\x00" else (16, 22, frame[21:22])
        ends = (frame[source : source + size], frame[source + size : source + 2 * size])
        client, other = reversed(ends) if traffic.reverse else ends
        last = int.from_bytes(client[-4:], "big").to_bytes(4, sys.byteorder)
        control.word[:] = list((client[:-4] + last).ljust(16, b"\0"))
        control.other[:] = list(other.ljust(16, b"\0"))
        ports = frame[source + 2 * size : source + 2 * size + 4]
        control.ports[:] = list(ports[:2] + bytes(2) if traffic.reverse else bytes(2) + ports[2:])
        control.hop[:] = list(hop.ljust(4, b"\0"))
        if size == 4:
            words = list(Struct("=10H").unpack(frame[14:34]))
            place = 8 if traffic.reverse else 6
            words[5] = words[place] = words[place + 1] = 0
            control.sum = sum(words) % 0xFFFF


def _put(array: int, place: int, program: int) -> None:
    bpf.update(array, pack("=I", place), pack("=I", program))


def build() -> None:
    """Compile the programs if they are older than their source."""
    if not _OBJECT.exists() or _OBJECT.stat().st_mtime < _SOURCE.stat().st_mtime:
        compiler = _FOLDER.parent / "scripts/compile-bpf"
        subprocess.run([compiler, _SOURCE, _OBJECT], check=True)


@contextmanager
def new_walk(folder: str, interface: int, floor_flows: int) -> Iterator[Walk]:
    """The programs around those pinned in a folder; the floor's hash has room for that many flows."""
    build()
    ours = {XDP: bpf.open_pin(f"{folder}/xlvs_xdp"), TC: bpf.open_pin(f"{folder}/xlvs_tc")}
    try:
        with libbpf.BpfObject(str(_OBJECT)) as opened:
            opened.set_entries("floor_flows", floor_flows)
            opened.set_entries("floor_lines", max(2, floor_flows))
            opened.load()
            yield Walk(opened, ours, interface)
    finally:
        for descriptor in ours.values():
            os.close(descriptor)
