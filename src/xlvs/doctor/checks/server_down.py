# SPDX-License-Identifier: GPL-2.0-only
"""A real server does not answer at all.

Neither on its own address nor as the VIP does it take connections, and yet it
has a weight: it is given its share of clients.  Kernel and data plane do
not look after real servers; a daemon or the operator has to take it out.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding
from xlvs.doctor.probe import REFUSED

RANK = 13
SCENARIOS = (
    Scenario("dr", breaks=(("rs3", "nginx -s stop"),), restores=(("rs3", "nginx"),), hosts=("director",)),
)

LEAST = ("lc", "wlc", "sed", "nq", "lblc", "lblcr", "twos", "ovf")
"""Schedulers that compare loads: they have a check of their own for servers that refuse."""


def is_dead(cluster: Cluster, served: Served) -> bool:
    """Whether a real server that gets clients takes no connection because nobody listens."""
    asked = cluster.answer(served)
    if asked is None or served.destination.weight == 0:
        return False
    if asked.plain.connected or asked.as_virtual.connected:
        return False
    if served.host is None:
        return True
    return not served.host.bound(served.port, served.real_server.version)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge who refuses or keeps silent."""
    for served in cluster.served():
        asked = cluster.answer(served)
        if asked is None or not is_dead(cluster, served):
            continue
        if served.service.scheduler in LEAST and asked.plain.outcome == REFUSED:
            continue
        own = mends.endpoint(served.destination.address, served.port)
        refused = asked.plain.outcome == REFUSED
        yield Finding(
            served.director.name,
            f"real server {served.name} takes no connections, and has weight {served.destination.weight}",
            (
                f"{served.director.name} asked for {own}: {asked.plain.outcome}",
                *((f"nobody listens on port {served.port} of {served.name}",) if served.host else ()),
            ),
            "Connections that are given to it are "
            + ("refused." if refused else "lost: clients wait, and give up."),
            (mends.set_weight(served, 0),),
            f"and see to the service on {served.name}",
        )
