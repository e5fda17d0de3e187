# SPDX-License-Identifier: GPL-2.0-only
"""A real server of weight 0 was forgotten.

Weight 0 takes a real server out of service while its connections end.  This
one has none left, and answers: somebody forgot to give it back its weight, or to
remove it.  The others carry its share.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.checks.way_there import lost_on_the_way
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding

RANK = 75
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "ipvsadm -e -t {vip}:80 -r {rip2} -g -w 0"),),
        restores=(("director", "ipvsadm -e -t {vip}:80 -r {rip2} -g -w 1"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for real servers of weight 0 without connections; one that does not answer is rightly out."""
    for served in cluster.served():
        if served.destination.weight or served.place.active:
            continue
        # What is inactive of TCP has ended already; of UDP it is all that there is.
        if served.place.inactive and served.service.key.protocol != model.TCP:
            continue
        asked = cluster.answer(served)
        if asked is not None and not asked.as_virtual.connected:
            continue
        if asked is None and not served.is_local and lost_on_the_way(cluster, served):
            continue
        weights = sorted(
            place.destination.weight for place in served.entry.destinations if place.destination.weight
        )
        usual = weights[len(weights) // 2] if weights else 1
        yield Finding(
            served.director.name,
            f"real server {served.name} has weight 0 and no connections left",
            (
                f"{mends.destination_words(served)}: no active connections",
                "it takes connections" if asked else "it could not be asked",
            ),
            "The other real servers carry its share"
            + ("." if weights else ": there is none, so clients are not served at all."),
            (mends.set_weight(served, usual),),
            f"or remove it: {served.table.command} -d {mends.service_words(served.service.key)} -r "
            f"{mends.endpoint(served.destination.address, served.destination.port)}",
            severity=WARNING,
        )
