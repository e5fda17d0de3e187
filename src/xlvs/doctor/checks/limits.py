# SPDX-License-Identifier: GPL-2.0-only
"""A table of the data plane is full, or nearly.

A full connection table drops new connections; one of services or real servers
refuses new entries.  Sizes are chosen when the data plane is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding

RANK = 88
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "sizes are chosen when the data plane is loaded, and to load it anew ends its connections"
_NEARLY = 0.9
_OPTIONS = {
    "connections": "--connections", "virtual services": "--services", "real servers": "--destinations",
}  # fmt: skip


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare what is in each table with its room."""
    for director in cluster.hosts:
        for name, (used, room) in director.director.fill.items():
            if used < room * _NEARLY:
                continue
            dropped = director.director.events.get("table_full", 0) if name == "connections" else 0
            yield Finding(
                director.name,
                f"the table of {name} on {director.name} is {'full' if used >= room else 'nearly full'}",
                (
                    f"xlvs status: {used} of {room}",
                    *((f"{dropped} packets were dropped for it",) if dropped else ()),
                ),
                "New connections are dropped." if name == "connections" else "More cannot be added.",
                advice=f"xlvs save; xlvs detach; xlvs attach {_OPTIONS[name]} {4 * room}; xlvs load",
                severity=WARNING,
            )
