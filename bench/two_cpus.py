# SPDX-License-Identifier: GPL-2.0-only
"""Two processors at one table: at different flows of one service, and at one flow's entry.

A thread for each, bound to its processor, hands packets over by BPF_PROG_TEST_RUN,
which takes no lock of Python's.  What a packet costs alone and while the other one
works is the thread's processor time, so a machine that others use does not count.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack

from bench.rounds import Figure
from bench.traffic import Kind, establish, keep_ways, new_floored_director
from bench.walk import TC, XDP, Traffic, Walk, new_walk
from tests.packet.director import Director

FLOWS = 1024
_PACKETS = 500_000
"""Of a turn: some tens of milliseconds."""
_OVERLAP = 0.8
"""Of a turn: less, and the two were not at it together."""
_ATTEMPTS = 40

DIFFERENT, SAME = "different flows", "one flow"
ALONE, TOGETHER = "one CPU", "two CPUs"


def name_of(hook: str, flows: str, cpus: str) -> str:
    """The name of a row."""
    return f"{hook.upper()}, {flows}, {cpus}"


class _Worker:
    """A processor with programs of its own around those that are measured."""

    def __init__(self, programs: Walk, cpu: int, first: int) -> None:
        self._programs = programs
        self._cpu = cpu
        self._first = first
        self.taken = 0.0
        self.began = self.ended = 0.0

    def run(self, hook: str, traffic: Traffic, flows: int, packets: int, *, shared: bool) -> None:
        """Hand packets over; in a thread of its own, which it binds."""
        os.sched_setaffinity(0, {self._cpu})
        self.began = time.monotonic()
        first = 0 if shared else self._first
        self.taken, _ = self._programs.run(hook, traffic, flows, packets, first=first)
        self.ended = time.monotonic()


def measured(rounds: int) -> dict[str, Figure]:
    """Nanoseconds for a packet of each row; raises `SystemExit` on a machine with one processor."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        raise SystemExit("bench: this part needs two processors")
    taken: dict[str, list[float]] = {}
    with new_floored_director(8 * FLOWS, 16) as (director, _), ExitStack() as stack:
        folder, interface = director.maps.folder, director.ifindex
        workers = [
            _Worker(stack.enter_context(new_walk(folder, interface, 16)), cpu, number * FLOWS)
            for number, cpu in enumerate(cpus)
        ]
        with new_walk(director.maps.folder, director.ifindex, 16) as programs:
            traffic = establish(director, programs, Kind("DR"), 2 * FLOWS)
        for turn in range(rounds + 1):
            for hook in (XDP, TC):
                for flows, many in ((DIFFERENT, FLOWS), (SAME, 1)):
                    each = [_turn(director, [worker], hook, traffic, many) for worker in workers]
                    alone = sum(each) / len(each)
                    both = _turn(director, workers, hook, traffic, many)
                    if turn:
                        taken.setdefault(name_of(hook, flows, ALONE), []).append(alone)
                        taken.setdefault(name_of(hook, flows, TOGETHER), []).append(both)
    return {name: Figure.of(values) for name, values in taken.items()}


def _turn(director: Director, workers: list[_Worker], hook: str, traffic: Traffic, flows: int) -> float:
    """The mean of what a packet costs them, all at once.

    The turn is taken again where they were not at it together, or where packets were not forwarded
    at this hook: XDP passes on, at little cost, what has a way that is due to be looked up again.
    """
    event = "xdp_forwarded" if hook == XDP else "forwarded"
    for _ in range(_ATTEMPTS):
        keep_ways(director)
        before = director.maps.events()[event]
        threads = [
            threading.Thread(
                target=worker.run,
                args=(hook, traffic, flows, _PACKETS),
                kwargs={"shared": flows == 1},
            )
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        forwarded = director.maps.events()[event] - before
        together = overlap([(worker.began, worker.ended) for worker in workers])
        if forwarded >= 0.999 * _PACKETS * len(workers) and together >= _OVERLAP:
            return sum(worker.taken for worker in workers) / len(workers)
    raise SystemExit("bench: the machine does not give two processors at once; is it very busy?")


def overlap(spans: list[tuple[float, float]]) -> float:
    """Which part of the longest of these spans all of them share."""
    shared = min(end for _, end in spans) - max(begin for begin, _ in spans)
    return max(shared, 0) / max(end - begin for begin, end in spans)
