# SPDX-License-Identifier: GPL-2.0-only
"""Weights so large that wrr cannot honour them with the connections there are.

wrr gives a real server of a large weight connection after connection until the others'
turn comes: a round takes as many connections as the weights add up to, divided by
their greatest common divisor.  With weights of 1000 and 999 it is true on
average over thousands, and far from it over tens.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from math import gcd

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import WARNING, Finding

RANK = 85
_ENOUGH = 10
_REQUESTS = "for i in $(seq 12); do curl -s -m 5 -o /dev/null http://{{vip}}:{port}/; done"
SCENARIOS = (
    Scenario(
        "nat",
        breaks=(
            ("director", "ipvsadm -A -t {vip}:8084 -s wrr"),
            ("director", "ipvsadm -a -t {vip}:8084 -r {rip1}:80 -m -w 301"),
            ("director", "ipvsadm -a -t {vip}:8084 -r {rip2}:80 -m -w 200"),
            ("client", _REQUESTS.format(port=8084)),
        ),
        restores=(("director", "ipvsadm -D -t {vip}:8084"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare each wrr service's shares with its weights, where it has not come round once."""
    by_service: dict[tuple[str, str, object], list[Served]] = {}
    for served in cluster.served():
        if served.service.scheduler == "wrr" and served.destination.weight:
            key = (served.director.name, served.table.command, served.service.key)
            by_service.setdefault(key, []).append(served)
    for those in by_service.values():
        weights = [served.destination.weight for served in those]
        counted = [served.place.stats.connections for served in those]
        turn = _turn(weights)
        if turn <= _short(len(those)) or not _ENOUGH <= sum(counted) < turn:
            continue
        if not _is_far(weights, counted):
            continue
        small = _smaller(weights)
        director = those[0].director
        yield Finding(
            director.name,
            f"{mends.service_words(those[0].service.key)} had {sum(counted)} connections, and wrr needs "
            f"{turn} to honour its weights",
            tuple(
                f"{served.name}: weight {weight}, {count} connections, by weight "
                f"{sum(counted) * weight / sum(weights):.0f}"
                for served, weight, count in zip(those, weights, counted, strict=True)
            ),
            "Some real servers get far more than their share for long stretches, others nothing.",
            tuple(
                mends.set_weight(served, weight)
                for served, weight in zip(those, small, strict=True)
                if weight != served.destination.weight
            ),
            severity=WARNING,
        )


def _is_far(weights: list[int], counted: list[int]) -> bool:
    """Whether somebody's share of connections is off by more than a quarter of all."""
    total, every = sum(counted), sum(weights)
    return any(
        abs(count / total - weight / every) > 0.25 for count, weight in zip(counted, weights, strict=True)
    )


def _smaller(weights: list[int]) -> list[int]:
    """Weights of about the same proportions, with a round of few connections."""
    highest = max(weights)
    for top in range(10, 0, -1):
        small = [max(1, round(weight * top / highest)) for weight in weights]
        if _turn(small) <= _short(len(small)):
            break
    return small


def _turn(weights: list[int]) -> int:
    """The connections of a round."""
    return sum(weights) // reduce(gcd, weights)


def _short(servers: int) -> int:
    """A round that is short enough for so many real servers."""
    return max(_ENOUGH, 2 * servers)
