# SPDX-License-Identifier: GPL-2.0-only
"""What the budget asks of a packet's nanoseconds."""

from __future__ import annotations

from bench import packet_goals, walk
from bench.report import Goal
from bench.rounds import Figure


def _figures(**minima: float) -> dict[str, Figure]:
    return {name.replace("_", " "): Figure(value, value, value) for name, value in minima.items()}


_ONE_FLOW = _figures(
    **{
        "F1": 25, "DR, XDP": 20, "DR, TC": 60, "DR, UDP, XDP": 22, "DR, UDP, TC": 90, "DR, IPv6, XDP": 29,
        "NAT, to the client, XDP": 25, "NAT, to the client, TC": 99, "NAT, IPv6, to the client, TC": 99,
        "tunnel, GRE, TC": 70.5,
    }
)  # fmt: skip


def _met(goals: list[Goal]) -> dict[str, bool]:
    return {goal.what: goal.met for goal in goals}


def test_differences_are_asked_at_the_best_hook_of_a_kind() -> None:
    """What XDP forwards is compared there, with DR at XDP; the rest at TC with DR at TC."""
    assert _met(packet_goals.established(1, _ONE_FLOW)) == {
        "DR at XDP, 1 flow / F1": True,
        "DR, UDP, XDP: ns above DR": True,
        "DR, IPv6, XDP: ns above DR": False,
        "NAT, to the client, XDP: ns above DR": True,
        "tunnel, GRE, TC: ns above DR": False,
    }


def test_the_walks_part_of_a_tunnel_is_not_the_tunnels() -> None:
    """One of the two calls by which room is made, and taken back."""
    goals = packet_goals.established(
        1, _figures(**{"DR, XDP": 20, "tunnel, GRE, XDP": 33, "tx": 10, "room": 16, "F1": 25})
    )
    assert _met(goals)["tunnel, GRE, XDP: ns above DR"]
    assert goals[-1].value == 10


def test_each_number_of_flows_has_a_bound_of_its_own() -> None:
    for flows, bound in packet_goals.ESTABLISHED.items():
        for minimum, met in ((bound * 100, True), (bound * 100 + 1, False)):
            figures = _figures(**{"F1": 50, "DR, XDP": minimum, "F1 beside DR, XDP": 100})
            assert packet_goals.established(flows, figures)[0].met == met
    assert packet_goals.established(7, _ONE_FLOW) == []


def test_new_flows_beside_an_insert() -> None:
    minima = {f"new, {each}": 130.0 for each in ("rr", "wrr", "dh", "sh", "mh")} | {"new, sh": 131.0}
    goals = packet_goals.of_all({}, _figures(**{walk.INSERT: 100.0}, **minima))
    assert [goal.what for goal in goals if not goal.met] == [
        "new flow, sh, 1,000 real servers / hash insert"
    ]
    assert packet_goals.of_all({}, None) == []
