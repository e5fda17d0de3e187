# SPDX-License-Identifier: GPL-2.0-only
"""What the budget asks of a packet's nanoseconds: pure values.

By one connection's flow where differences are asked for: with many, the memory that all
rows push out of the cache decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench import walk
from bench.report import Figures, Goal

ESTABLISHED = {1: 0.8, 1024: 1.0, 131_072: 0.45, 1_048_576: 0.45}
"""How many times F1 a packet of Direct Routing may take at XDP, by flows."""
NEW_FLOW = 1.3
_AT_ONCE = ("rr", "wrr", "dh", "sh", "mh")
_ABOVE_DR = {"NAT": 5.0, "tunnel": 10.0, "DR, UDP": 2.0, "DR, IPv6": 8.0}
"""Nanoseconds that a kind of traffic may take above DR, by how its name begins."""
_XDP, _TC = ", XDP", ", TC"


def established(flows: int, figures: Figures) -> list[Goal]:
    """For a table with so many flows."""
    found = []
    one = figures.get(f"DR{_XDP}")
    if one and flows in ESTABLISHED:
        floor = figures.get(f"F1 beside DR{_XDP}", figures[walk.F1])
        counted = "1 flow" if flows == 1 else f"{flows:,} flows"
        found.append(Goal(f"DR at XDP, {counted} / F1", one.minimum / floor.minimum, ESTABLISHED[flows]))
    return found + (_above_dr(figures) if flows == 1 else [])


def _above_dr(figures: Figures) -> list[Goal]:
    """Each kind at XDP where XDP forwards it, else at TC; beside DR at the same hook."""
    found = []
    # The walk makes the packet again what it was: one of the two calls that this floor is made of.
    taken_back = 0.0
    if walk.ROOM in figures:
        taken_back = (figures[walk.ROOM].minimum - figures[walk.TX].minimum) / 2
    for name, one in figures.items():
        kind, hook = (
            (name.removesuffix(_XDP), _XDP) if name.endswith(_XDP) else (name.removesuffix(_TC), _TC)
        )
        if hook == _TC and f"{kind}{_XDP}" in figures:
            continue
        for begins, most in _ABOVE_DR.items():
            # A second family is not asked of what the method adds already.
            if kind.startswith(begins) and not (begins == "NAT" and ("UDP" in kind or "IPv6" in kind)):
                above = one.minimum - figures[f"DR{hook}"].minimum
                if begins == "tunnel" and hook == _XDP:
                    above -= taken_back
                found.append(Goal(f"{name}: ns above DR", above, most))
    return found


def new_flows(figures: Figures) -> list[Goal]:
    """For new flows with 1,000 real servers."""
    insert, found = figures[walk.INSERT].minimum, []
    for each in _AT_ONCE:
        ratio = figures[f"new, {each}"].minimum / insert
        found.append(Goal(f"new flow, {each}, 1,000 real servers / hash insert", ratio, NEW_FLOW))
    return found


def of_all(by_flows: Mapping[int, Figures], new: Figures | None) -> list[Goal]:
    """All that was measured."""
    found = [goal for flows, figures in by_flows.items() for goal in established(flows, figures)]
    return found + (new_flows(new) if new else [])
