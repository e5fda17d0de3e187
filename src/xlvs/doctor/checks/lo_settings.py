# SPDX-License-Identifier: GPL-2.0-only
"""accept_local or forwarding of lo was turned off.

The data plane turns on net.ipv4.conf.lo.accept_local, by which clients on the
director itself get their answers, and, while ip_forward is 0, forwarding
of lo, by which it asks the routing table.  Somebody else's sysctl.conf may turn them off again.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding, Mend

RANK = 90
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "sysctl -w net.ipv4.conf.lo.accept_local=0"),),
        restores=(("director", "sysctl -w net.ipv4.conf.lo.accept_local=1"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the data plane which of its settings are gone."""
    for director in cluster.directors:
        for name, is_on in director.director.lo_settings.items():
            if is_on:
                continue
            local = name.endswith("accept_local")
            yield Finding(
                director.name,
                f"{name} is off, which the data plane had turned on",
                (f"{name} is 0",),
                "Clients on the director itself get no answers from real servers behind it."
                if local
                else "The packet path goes by its last look at the routes, and takes every VIP for its own.",
                (Mend(director.name, f"sysctl -w {name}=1", f"sysctl -w {name}=0"),),
                severity=WARNING,
            )
