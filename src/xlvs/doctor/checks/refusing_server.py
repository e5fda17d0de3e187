# SPDX-License-Identifier: GPL-2.0-only
"""A real server that refuses connections attracts them all.

lc, wlc and their like choose the real server with the fewest connections.  One that
refuses at once never has any, so it is chosen again and again: the service looks
down although the other servers are well.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.checks.server_down import LEAST, is_dead
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding
from xlvs.doctor.probe import REFUSED

RANK = 70
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "ipvsadm -E -t {vip}:80 -s lc"), ("rs1", "nginx -s stop")),
        restores=(("director", "ipvsadm -E -t {vip}:80 -s rr"), ("rs1", "nginx")),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge who refuses, under a scheduler that compares loads."""
    for served in cluster.served():
        asked = cluster.answer(served)
        if asked is None or not is_dead(cluster, served):
            continue
        scheduler = served.service.scheduler
        if scheduler not in LEAST or asked.plain.outcome != REFUSED:
            continue
        place = served.place
        others = [other for other in served.entry.destinations if other is not place]
        yield Finding(
            served.director.name,
            f"real server {served.name} refuses connections, and {scheduler} gives it nearly all of them",
            (
                f"{served.director.name} asked {served.name} on port {served.port}: refused (RST)",
                f"it has {place.active} active connections, the others "
                f"{' '.join(str(other.active) for other in others) or 'are none'}; weight "
                f"{served.destination.weight}",
            ),
            "Most connections are refused at once, the more the busier the other servers are.",
            (mends.set_weight(served, 0),),
            f"and see to the service on {served.name}",
        )
