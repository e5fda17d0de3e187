# SPDX-License-Identifier: GPL-2.0-only
"""Frames through a director as through a machine with one processor and a NIC: live frames.

    source: eth0 ── eth0 [director]

BPF_PROG_TEST_RUN makes frames at the source's end of a veth and sends them (XDP_TX); the
director sends them back, and an XDP program at the source drops them.  All of it on one
processor: what a frame takes is what making, receiving, balancing, sending and dropping
it take.  Counted is processor time, of the thread and of its processor's softirq thread.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import walk
from bench.programs import SCHED_CLS, XDP_DROP, XDP_TX, redirecting, returning, take_frames
from bench.rounds import Figure, interleaved
from bench.traffic import Kind, keep_ways, traffic_of
from bench.walk import TC, Traffic, Walk, new_walk
from tests.packet.director import Director, new_director
from tests.packet.packets import ACK, SYN
from tests.packet.spaces import ip
from xlvs.datapath.load import Capacity
from xlvs.kernel import bpf, libbpf
from xlvs.kernel.namespaces import network_namespace

FLOWS = (1, 1024, 131_072)
_FRAMES = 200_000
"""Of a round."""
_ARRIVED = 0.995
"""Fewer than that part, and frames were lost: a ring was full, because the processor was taken away."""
_ATTEMPTS = 8

BARE_XDP, BARE_TC = "XDP_TX, nothing looked up", "TC redirect, nothing looked up"
XLVS_XDP, XLVS_TC = "xlvs XDP, DR", "xlvs TC, DR"


def name_of(row: str, flows: int) -> str:
    """The name of a row."""
    return f"{row}, {flows:,} flows" if flows > 1 else f"{row}, one flow"


class _Source:
    """What sends frames to a director, from the other end of its wire."""

    def __init__(self, director: Director, programs: Walk, traffic: Traffic, flows: int) -> None:
        self._director = director
        self._programs = programs
        self._traffic = traffic
        self._flows = flows

    def measure(self) -> float:
        """Nanoseconds for a frame; again where too many were lost."""
        with network_namespace(self._director.peer):
            index = socket.if_nametoindex("eth0")
            for _ in range(_ATTEMPTS):
                keep_ways(self._director)
                before, arrived = _taken(), _received()
                self._programs.send(self._traffic, self._flows, _FRAMES, index)
                taken = _taken() - before
                if _received() - arrived >= _ARRIVED * _FRAMES:
                    return taken * 1e9 / _FRAMES
        raise SystemExit("bench: frames are lost; is the machine very busy?")


def _received() -> int:
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == "eth0:")


def _taken() -> float:
    """Processor seconds of this thread, and of the softirq thread of the processor that it is bound to."""
    (cpu,) = os.sched_getaffinity(0)
    return time.thread_time() + _softirq_seconds(cpu)


def _softirq_seconds(cpu: int) -> float:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (process / "comm").read_text() == f"ksoftirqd/{cpu}\n":
            return int((process / "schedstat").read_text().split()[0]) / 1e9
    return 0.0


@contextmanager
def _director(row: str, flows: int) -> Iterator[Callable[[], float]]:
    mode = {XLVS_XDP: "xdp", XLVS_TC: "tc"}.get(row)
    with (
        new_director(Capacity(max(flows, 1024), 64, 64), mode) as director,
        new_walk(director.maps.folder, director.ifindex, 16) as programs,
    ):
        ip("route add 172.16.0.0/12 via 10.0.0.18")
        key = director.service(1)
        for flags in (SYN, ACK):
            opening = traffic_of(director, Kind(row), key, flags)
            programs.run(TC, opening, flows, flows, order=walk.IN_TURN)
        if row == BARE_XDP:
            libbpf.attach_xdp(director.ifindex, returning(bpf.XDP_PROGRAM, XDP_TX))
        elif row == BARE_TC:
            libbpf.attach_clsact(director.ifindex, "ingress", redirecting(SCHED_CLS, director.ifindex), 1, 1)
        if row in (BARE_TC, XLVS_TC):
            take_frames("eth0")
        with network_namespace(director.peer):
            libbpf.attach_xdp(socket.if_nametoindex("eth0"), returning(bpf.XDP_PROGRAM, XDP_DROP))
        yield _Source(director, programs, traffic_of(director, Kind(row), key, ACK), flows).measure


def measured(rounds: int) -> dict[str, Figure]:
    """Nanoseconds for a frame of each row, on one processor."""
    allowed = os.sched_getaffinity(0)
    rows = [(BARE_XDP, 1), *((XLVS_XDP, flows) for flows in FLOWS), (BARE_TC, 1)]
    rows += [(XLVS_TC, flows) for flows in FLOWS]
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with ExitStack() as stack:
            measures = {
                name_of(row, flows): stack.enter_context(_director(row, flows)) for row, flows in rows
            }
            return interleaved(measures, rounds)
    finally:
        os.sched_setaffinity(0, allowed)
