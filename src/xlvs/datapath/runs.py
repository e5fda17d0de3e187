# SPDX-License-Identifier: GPL-2.0-only
"""Scheduling runs: what a scheduler of the packet path works on, and its cursor.

Pure functions.  A run is made anew for each change of a service; these say
with which cursor it starts, so that the sequence of picks goes on as the
kernel's does after the same change (net/netfilter/ipvs/ip_vs_{rr,wrr}.c).
The tables of sh, dh and mh are in `hashing`.
"""

from __future__ import annotations

from math import gcd

from xlvs.datapath import hashing
from xlvs.kernel import abi

SCHEDULERS = {
    "none": abi.SCHEDULER_NONE,
    "rr": abi.SCHEDULER_RR,
    "wrr": abi.SCHEDULER_WRR,
    "lc": abi.SCHEDULER_LC,
    "wlc": abi.SCHEDULER_WLC,
    "lblc": abi.SCHEDULER_LBLC,
    "lblcr": abi.SCHEDULER_LBLCR,
    "dh": abi.SCHEDULER_DH,
    "sh": abi.SCHEDULER_SH,
    "sed": abi.SCHEDULER_SED,
    "nq": abi.SCHEDULER_NQ,
    "fo": abi.SCHEDULER_FO,
    "ovf": abi.SCHEDULER_OVF,
    "mh": abi.SCHEDULER_MH,
    "twos": abi.SCHEDULER_TWOS,
}
"""The schedulers that the packet path has, and their numbers there; ``none`` chooses nobody."""

SCHEDULER_NAMES = {number: name for name, number in SCHEDULERS.items()}

SLOTS = {
    abi.SCHEDULER_SH: abi.HASH_SLOTS,
    abi.SCHEDULER_DH: abi.HASH_SLOTS,
    abi.SCHEDULER_MH: abi.MH_SLOTS,
}
"""The schedulers that look a slot up in a table, and how many slots that has."""

BY_LOAD = frozenset((
    abi.SCHEDULER_LC, abi.SCHEDULER_WLC, abi.SCHEDULER_SED, abi.SCHEDULER_NQ, abi.SCHEDULER_LBLC,
    abi.SCHEDULER_LBLCR,
))  # fmt: skip
"""The schedulers that choose, always or at times, the least loaded."""

GRAIN = 8
"""Runs start at multiples of this many pool elements."""


class Run:
    """A service's destinations in scheduling order, and where the scheduler stands.

    ``picks`` are pairs of destination index and weight, newest first, the
    kernel's list order.  ``position`` counts from 1; 0 is the list's head.
    ``current`` is wrr's current weight.  ``binding`` is the number under which
    the scheduler was bound to the service.  ``table`` is that of sh, dh or mh
    (see `hashing`), empty where nothing can be chosen; `read` leaves it out, and
    ``tree``: which tree of loads is the run's (element 2 in bpf/abi.h), 0 for none.
    """

    __slots__ = ("binding", "current", "picks", "position", "scheduler", "table", "tree")

    def __init__(
        self,
        scheduler: int,
        picks: list[tuple[int, int]],
        position: int = 0,
        current: int = 0,
        binding: int = 0,
    ) -> None:
        self.scheduler = scheduler
        self.picks = picks
        self.position = position
        self.current = current
        self.binding = binding
        self.table: list[int] = []
        self.tree = 0


def weight_step(picks: list[tuple[int, int]]) -> int:
    """wrr's step: the greatest common divisor of the weights above 0, or 1."""
    return gcd(*(weight for _, weight in picks if weight > 0)) or 1


def highest_pass(picks: list[tuple[int, int]]) -> int:
    """The weight of wrr's first pass, so chosen that the last one's is 1."""
    highest = max((weight for _, weight in picks), default=0)
    return max(highest, 0) - (weight_step(picks) - 1)


def begin(scheduler: int, picks: list[tuple[int, int]], binding: int = 0) -> Run:
    """The run of a scheduler that starts afresh."""
    current = highest_pass(picks) if scheduler == abi.SCHEDULER_WRR else 0
    return Run(scheduler, picks, 0, current, binding)


def _surviving_position(old: Run, picks: list[tuple[int, int]]) -> int:
    """Where rr's last pick stands now; if it is gone, the nearest before it that is not."""
    places = {destination: place for place, (destination, _) in enumerate(picks, start=1)}
    for destination, _ in reversed(old.picks[: old.position]):
        if destination in places:
            return places[destination]
    return 0


def change(old: Run, picks: list[tuple[int, int]]) -> Run:
    """The run after a destination was added, removed or given another weight."""
    if old.scheduler == abi.SCHEDULER_RR:
        return Run(old.scheduler, picks, _surviving_position(old, picks), binding=old.binding)
    if old.scheduler == abi.SCHEDULER_WRR:
        step, highest, current = weight_step(picks), highest_pass(picks), old.current
        if current > highest or current == 0:
            current = highest
        elif step > 1:
            current = current // step * step + 1
        return Run(old.scheduler, picks, 0, current, old.binding)
    return Run(old.scheduler, picks, binding=old.binding)


def joined(scheduler: int, picks: list[tuple[int, int]], binding: int) -> Run:
    """The run of a new service that these have joined one by one, the last of them first.

    It is what `begin` with nothing and then `change` for each come to.
    """
    current = 0
    if scheduler == abi.SCHEDULER_WRR:
        highest = divisor = 0
        for _, weight in reversed(picks):
            highest, divisor = max(highest, weight), gcd(divisor, weight)
            step = divisor or 1
            first = highest - (step - 1)
            if current > first or current == 0:
                current = first
            elif step > 1:
                current = current // step * step + 1
    return Run(scheduler, picks, 0, current, binding)


def elements_of(count: int, scheduler: int = 0, width: int = 0) -> int:
    """The pool elements that a run of ``count`` picks takes, with a table of such slots behind them."""
    table = hashing.packed_elements(SLOTS[scheduler], width) if width else 0
    return -(-(abi.RUN_HEADER + count + table) // GRAIN) * GRAIN


def size(run: Run) -> int:
    """The pool elements that a run takes."""
    return elements_of(len(run.picks), run.scheduler, _width(run))


def size_at(pool: memoryview, start: int) -> int:
    """The pool elements that the run at ``start`` takes."""
    header = pool[start + 1]
    scheduler = header >> 32
    return elements_of(header & 0xFFFFFFFF, scheduler, pool[start + 2] if scheduler in SLOTS else 0)


def tree_blocks(scheduler: int, count: int) -> int:
    """The blocks that the tree of loads of a run of ``count`` picks takes; 0 if it has none.

    Levels stand behind each other, each with a block for eight of the one below
    (bpf/load_tree.h).
    """
    if scheduler not in BY_LOAD or not abi.LOAD_FEWEST <= count <= abi.LOAD_FANOUT ** (abi.LOAD_HEIGHT + 1):
        return 0
    blocks = 0
    while count > 1:
        count = -(-count // abi.LOAD_FANOUT)
        blocks += count
    return blocks


def tree_at(pool: memoryview, start: int) -> tuple[int, int]:
    """First block and size of the tree of loads that the run at ``start`` has; (0, 0) for none."""
    header = pool[start + 1]
    first = pool[start + 2] & 0xFFFFFFFF if header >> 32 in BY_LOAD else 0
    return (first, tree_blocks(header >> 32, header & 0xFFFFFFFF)) if first else (0, 0)


def _width(run: Run) -> int:
    return hashing.slot_width(max(run.table)) if run.table else 0


def write(pool: memoryview, start: int, run: Run) -> None:
    """Write a run into the pool (layout: bpf/abi.h)."""
    pool[start] = run.position | run.current << 32
    pool[start + 1] = len(run.picks) | run.scheduler << 32
    width = _width(run)
    if run.scheduler == abi.SCHEDULER_WRR:
        pool[start + 2] = highest_pass(run.picks) | weight_step(run.picks) << 32
    else:
        pool[start + 2] = run.tree or width
    pool[start + 3] = run.binding
    first = start + abi.RUN_HEADER
    for offset, (destination, weight) in enumerate(run.picks):
        pool[first + offset] = destination | weight << 32
    if width:
        from array import array  # listings do without it, and what it imports

        first += len(run.picks)
        elements = hashing.pack(run.table, width)
        pool[first : first + len(elements)] = memoryview(array("Q", elements))


def read(pool: memoryview, start: int) -> Run:
    """Read a run back from the pool without its table, its cursor as it is at this moment."""
    cursor, header = pool[start], pool[start + 1]
    first = start + abi.RUN_HEADER
    words = pool[first : first + (header & 0xFFFFFFFF)].tolist()
    picks = [(word & 0xFFFFFFFF, word >> 32) for word in words]
    return Run(header >> 32, picks, cursor & 0xFFFFFFFF, cursor >> 32, pool[start + 3])


def listed(pool: memoryview, start: int) -> tuple[int, list[int]]:
    """The scheduler of the run at ``start``, and the destinations of its picks."""
    header = pool[start + 1]
    first = start + abi.RUN_HEADER
    return header >> 32, [word & 0xFFFFFFFF for word in pool[first : first + (header & 0xFFFFFFFF)].tolist()]


class Allocator:
    """Places for runs in the pool, or for trees of loads in their map.

    What is free follows from the services alone, so a process that died in
    the middle of a change leaks nothing: the next one finds its place free.
    A run that was just replaced may still be read by a packet under way, so
    places go to the end first, and a freed place is not used again by the
    process that freed it while there is another.
    """

    FIRST = GRAIN  # 0 means "no run", or "no tree"

    def __init__(self, size: int, taken: list[tuple[int, int]]) -> None:
        """``taken`` are the (start, size) of the runs in use."""
        self._size = size
        self._taken = dict(taken)
        self._end = max((start + size for start, size in self._taken.items()), default=self.FIRST)

    def allocate(self, need: int) -> int | None:
        """A place for so many elements (of runs a multiple of `GRAIN`), or None when there is none."""
        start = self._end if self._end + need <= self._size else self._gap(need)
        if start is not None:
            self._taken[start] = need
            self._end = max(self._end, start + need)  # a gap may reach past it
        return start

    def free(self, start: int) -> None:
        """Give a place back."""
        self._taken.pop(start, None)

    def _gap(self, need: int) -> int | None:
        place = self.FIRST
        for start, size in sorted(self._taken.items()):
            if start - place >= need:
                return place
            place = start + size
        return place if place + need <= self._size else None
