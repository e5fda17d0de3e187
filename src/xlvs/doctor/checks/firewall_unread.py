# SPDX-License-Identifier: GPL-2.0-only
"""A firewall has rules that the doctor cannot judge.

It asks rules of nft about addresses, protocols, ports, the interface, ICMP types and states of connections.
What stands behind a rule that asks more (a mark, a verdict map, flags of TCP) may fare as that
rule wants: the doctor then says nothing of that firewall, neither good nor bad.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, Finding
from xlvs.doctor.rule import Rule

RANK = 97
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "it is no mistake"
_SHOWN = 3


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for rules that could not be understood."""
    for host in cluster.hosts:
        firewalls: dict[str, list[Rule]] = {}
        for rule in host.rules:
            if not rule.understood:
                firewalls.setdefault(rule.place, []).append(rule)
        for place, rules in firewalls.items():
            more = len(rules) - _SHOWN
            yield Finding(
                host.name,
                f"{len(rules)} rules that packets of {place} on {host.name} meet are not evaluated",
                (*map(str, rules[:_SHOWN]), *((f"and {more} more",) if more > 0 else ())),
                "None that the doctor knows of.",
                advice="see for yourself what they do with packets to the VIP: nft list ruleset",
                severity=NOTE,
            )
