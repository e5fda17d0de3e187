# SPDX-License-Identifier: GPL-2.0-only
"""Direct Routing or a tunnel to another port than the service's.

Only NAT changes ports.  With Direct Routing and tunnels the packet reaches the
real server as the client sent it, whatever port the table names.  (ipvsadm
puts the service's port there by itself; other programs do not.)
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend

RANK = 65
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "ipvsadm puts the service's port there by itself; the table of kernel IPVS can have it"


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare the ports in the table."""
    for served in cluster.served(model.ROUTE, model.TUNNEL):
        wanted, named = served.service.key.port, served.destination.port
        if not wanted or named == wanted:
            continue
        command = served.table.command
        right = mends.destination_words(served, port=wanted)
        service = mends.service_words(served.service.key)
        odd = mends.endpoint(served.destination.address, named)
        there = any(
            (each.destination.address, each.destination.port) == (served.destination.address, wanted)
            for each in served.entry.destinations
        )
        yield Finding(
            served.director.name,
            f"real server {served.name} has port {named} in the table, but gets packets for port {wanted}",
            (f"{mends.destination_words(served)}",),
            f"If it serves port {named} only, connections that are given to it are refused.",
            (
                Mend(
                    served.director.name,
                    f"{command} -d {service} -r {odd}"
                    if there
                    else f"{command} -a {right} && {command} -d {service} -r {odd}",
                    f"{command} -a {mends.destination_words(served)}"
                    if there
                    else f"{command} -d {service} -r {mends.endpoint(served.destination.address, wanted)}; "
                    f"{command} -a {mends.destination_words(served)}",
                ),
            ),
            f"let it serve port {wanted}, or reach it by NAT (-m), which changes ports",
        )
