# SPDX-License-Identifier: GPL-2.0-only
"""The part of the benchmark about scaling: what the kernel says of memory, overlaps, goals."""

from __future__ import annotations

import pytest

from bench import walk
from bench.arrivals import name_of
from bench.footprint import memlock
from bench.rounds import Figure
from bench.scale_goals import MEMORY_DR, MEMORY_NAT, SIZES, goals, speed_up
from bench.two_cpus import ALONE, DIFFERENT, SAME, TOGETHER, overlap
from bench.two_cpus import name_of as cpus_name
from bench.walk import TC, XDP
from xlvs.model import SCHEDULERS

_MAP = "pos:\t0\nflags:\t02000002\nmap_type:\t2\nkey_size:\t4\nmemlock:\t134086656\nfrozen:\t0\n"
_PROGRAM = "pos:\t0\nprog_type:\t6\nprog_jited:\t1\nmemlock:\t4096\n"


def test_memory_that_is_charged_for_a_map() -> None:
    assert memlock(_MAP) == 134_086_656
    assert memlock(_PROGRAM) is None


@pytest.mark.parametrize(
    ("spans", "part"),
    [
        ([(0.0, 10.0)], 1.0),
        ([(0.0, 10.0), (0.0, 10.0)], 1.0),
        ([(0.0, 10.0), (5.0, 12.0)], 0.5),
        ([(0.0, 4.0), (6.0, 8.0)], 0.0),
    ],
)
def test_how_long_both_were_at_it(spans: list[tuple[float, float]], part: float) -> None:
    assert overlap(spans) == part


def _flat(value: float) -> Figure:
    return Figure(value, value, value)


def _new(lc: float) -> dict[str, Figure]:
    """Nanoseconds: a hash insert 100, every scheduler 120, lc otherwise."""
    found = {name_of(each, size): _flat(120) for each in SCHEDULERS for size in SIZES}
    return found | {walk.INSERT: _flat(100), name_of("lc", 1000): _flat(lc)}


def _cpus(together: float, same: float) -> dict[str, Figure]:
    """Nanoseconds for a packet: 100 alone."""
    found = {}
    for hook in (XDP, TC):
        for flows, both in ((DIFFERENT, together), (SAME, same)):
            found[cpus_name(hook, flows, ALONE)] = _flat(100)
            found[cpus_name(hook, flows, TOGETHER)] = _flat(both)
    return found


def test_two_processors_pass_twice_the_packets_at_the_same_cost() -> None:
    assert speed_up(_cpus(100, 100), XDP) == 2
    assert speed_up(_cpus(125, 100), TC) == 1.6


def test_goals() -> None:
    memory = {MEMORY_DR: 136.0, MEMORY_NAT: 271.0}
    asked = goals(_new(241), _cpus(105, 151), memory)
    missed = [goal.what for goal in asked if not goal.met]
    assert missed == [
        "lc, 1,000 real servers: new flow / rr's",
        "XDP, one flow: a packet on two CPUs / on one",
        "TC, one flow: a packet on two CPUs / on one",
        "megabytes of a million connections, NAT",
    ]
    assert all(goal.met for goal in goals(_new(240), _cpus(105, 150), memory | {MEMORY_NAT: 270.0}))
