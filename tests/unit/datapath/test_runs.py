# SPDX-License-Identifier: GPL-2.0-only
"""Scheduling runs, against the kernel's rules, without a kernel."""

from __future__ import annotations

from itertools import pairwise
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet.kernel_model import SCHEDULERS, Scheduler, Server
from xlvs.datapath import runs
from xlvs.datapath.runs import GRAIN, Allocator, Run
from xlvs.kernel import abi

weights = st.sampled_from([0, 0, 1, 2, 3, 4, 6, 12, 100]) | st.integers(0, 2147483647)
picks = st.lists(st.tuples(st.integers(0, 50), weights), max_size=8, unique_by=lambda pick: pick[0])
steps = st.lists(
    st.one_of(
        st.integers(1, 12).map(lambda count: ("pick", count)),
        st.tuples(st.just("put"), st.integers(1, 6), st.sampled_from([0, 1, 2, 3, 4, 6, 9])),
        st.tuples(st.just("delete"), st.integers(1, 6)),
    ),
    max_size=40,
)


def _next(run: Run) -> int | None:
    """What the packet path does with a run's cursor, as bpf/abi.h explains it; changes the run."""
    count = len(run.picks)
    if run.scheduler == abi.SCHEDULER_RR:
        for ahead in range(count):
            place = (run.position + ahead) % count
            if run.picks[place][1] > 0:
                run.position = place + 1
                return run.picks[place][0]
        return None
    highest, step = runs.highest_pass(run.picks), runs.weight_step(run.picks)
    while highest:
        for place in range(run.position, count):
            if run.picks[place][1] >= run.current:
                run.position = place + 1
                return run.picks[place][0]
        run.position = 0
        run.current -= step
        if run.current <= 0:
            run.current = highest
    return None


@given(st.sampled_from(sorted(runs.SCHEDULERS)), picks)
def test_joining_at_once_is_joining_one_by_one(scheduler: str, joining: list[tuple[int, int]]) -> None:
    number = runs.SCHEDULERS[scheduler]
    one_by_one = runs.begin(number, [], 7)
    for pick in reversed(joining):
        one_by_one = runs.change(one_by_one, [pick, *one_by_one.picks])
    at_once = runs.joined(number, joining, 7)
    for field in Run.__slots__:
        assert getattr(at_once, field) == getattr(one_by_one, field)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["rr", "wrr"]), steps)
def test_the_sequence_goes_on_as_the_kernels(scheduler: str, history: list[tuple[object, ...]]) -> None:
    known: dict[int, Server] = {}
    model: Scheduler = SCHEDULERS[scheduler]([])
    run = runs.begin(runs.SCHEDULERS[scheduler], [])
    for step in history:
        match step:
            case ("pick", int(count)):
                for _ in range(count):
                    chosen = model.pick()
                    assert _next(run) == (chosen.name if chosen else None)
                continue
            case ("put", int(name), int(weight)):
                server = known.setdefault(name, Server(name))
                server.weight = weight
                if server in model.servers:
                    model.edited()
                else:
                    model.added(server)
            case ("delete", int(name)):
                gone = known.get(name)
                if gone is None or gone not in model.servers:
                    continue
                model.removed(gone)
        run = runs.change(run, [(server.name, server.weight) for server in model.servers])


@given(picks)
def test_steps_and_passes(chosen: list[tuple[int, int]]) -> None:
    positive = [weight for _, weight in chosen if weight > 0]
    step, highest = runs.weight_step(chosen), runs.highest_pass(chosen)
    assert step == (gcd(*positive) if positive else 1)
    if positive:
        assert highest == max(positive) - (step - 1)
        assert (highest - 1) % step == 0  # so the last pass takes weight 1
    else:
        assert highest == 0


@given(st.sampled_from(sorted(runs.SCHEDULERS.values())), picks)
def test_begin(scheduler: int, chosen: list[tuple[int, int]]) -> None:
    run = runs.begin(scheduler, chosen)
    assert (run.scheduler, run.picks, run.position) == (scheduler, chosen, 0)
    assert run.current == (runs.highest_pass(chosen) if scheduler == abi.SCHEDULER_WRR else 0)


@given(
    st.sampled_from(sorted(runs.SCHEDULERS.values())),
    picks,
    st.integers(0, 8),
    st.integers(0, 2147483647),
    st.integers(0, 3),
)
def test_a_run_is_read_as_it_was_written(
    scheduler: int, chosen: list[tuple[int, int]], position: int, current: int, place: int
) -> None:
    pool = memoryview(bytearray(b"\xaa" * 8 * 64)).cast("Q")
    start = place * GRAIN
    size = runs.elements_of(len(chosen))
    runs.write(pool, start, Run(scheduler, chosen, position, current))
    found = runs.read(pool, start)
    assert (found.scheduler, found.picks) == (scheduler, chosen)
    assert (found.position, found.current) == (position, current)
    assert pool[start + 1] & 0xFFFFFFFF == len(chosen)
    untouched = [*pool[:start].tolist(), *pool[start + size :].tolist()]
    assert set(untouched) <= {0xAAAAAAAAAAAAAAAA}


requests = st.lists(st.integers(0, 60) | st.just(-1), max_size=60)


@given(st.integers(2, 60), requests, st.booleans())
def test_places_never_overlap(size: int, wanted: list[int], forgets: bool) -> None:
    """Also when each change is made by another process, which knows only what is in use."""
    elements = size * GRAIN
    allocator = Allocator(elements, [])
    used: dict[int, int] = {}
    for count in wanted:
        if count < 0:
            if used:
                start = next(iter(used))
                allocator.free(start)
                del used[start]
            continue
        if forgets:
            taken = [(start, runs.elements_of(each)) for start, each in used.items()]
            allocator = Allocator(elements, taken)
        need = runs.elements_of(count)
        place = allocator.allocate(need)
        if place is None:
            ends = sorted((start, start + runs.elements_of(each)) for start, each in used.items())
            edges = [(0, GRAIN), *ends, (elements, elements)]
            assert all(after[0] - before[1] < need for before, after in pairwise(edges))
            continue
        assert place >= GRAIN
        assert place % GRAIN == 0
        assert place + need <= elements
        for start, each in used.items():
            assert place + need <= start or start + runs.elements_of(each) <= place
        used[place] = count


def test_a_place_that_was_just_freed_rests() -> None:
    """A packet under way may still read it."""
    allocator = Allocator(1000, [(8, 8)])
    allocator.free(8)
    assert allocator.allocate(8) == 16
    assert allocator.allocate(8) == 24


def test_blocks_of_trees() -> None:
    """A block for eight picks, one for eight blocks, up to a single one; none where a walk is quicker."""
    counts = (1, 16, 17, 64, 65, 512, 513, 1000, 8**7, 8**7 + 1)
    blocks = [runs.tree_blocks(abi.SCHEDULER_WLC, count) for count in counts]
    assert blocks == [0, 0, 3 + 1, 8 + 1, 9 + 2 + 1, 64 + 8 + 1, 65 + 9 + 2 + 1, 125 + 16 + 2 + 1, 299593, 0]
    assert runs.tree_blocks(abi.SCHEDULER_RR, 1000) == 0
    assert runs.tree_blocks(abi.SCHEDULER_LBLCR, 1000) == 144


def test_a_run_says_which_tree_it_has() -> None:
    pool = memoryview(bytearray(8 * 256)).cast("Q")
    run = Run(abi.SCHEDULER_SED, [(number, 1) for number in range(20)])
    run.tree = 40 | 7 << 32
    runs.write(pool, 8, run)
    assert runs.tree_at(pool, 8) == (40, 4)
    assert runs.read(pool, 8).picks == run.picks
    run.tree = 0
    runs.write(pool, 8, run)
    assert runs.tree_at(pool, 8) == (0, 0)
    weighted = Run(abi.SCHEDULER_WRR, run.picks)
    runs.write(pool, 8, weighted)
    assert runs.tree_at(pool, 8) == (0, 0)
    assert runs.size_at(pool, 8) == runs.size(weighted)
