# SPDX-License-Identifier: GPL-2.0-only
"""Direct Routing to a real server that is not on the director's segment.

Direct Routing changes nothing but the MAC, so it reaches only hosts of the
director's own segment.  Where the route to the real server has a gateway, the
gateway gets the packet, sees the VIP in it and sends it back to the director.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend

RANK = 60
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "ip route add {rip1}/32 via {client}"),),
        restores=(("director", "ip route del {rip1}/32 via {client}"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the director's route to each real server of Direct Routing."""
    seen: set[tuple[str, str]] = set()
    for served in cluster.served(model.ROUTE):
        director, address = served.director, served.real_server
        route = director.route_to(address)
        if (
            served.is_local
            or route is None
            or route.gateway is None
            or (director.name, str(address)) in seen
        ):
            continue
        seen.add((director.name, str(address)))
        commands: tuple[Mend, ...] = ()
        if director.interface_towards(address) and route.destination.prefixlen > 0:
            commands = (Mend(director.name, f"ip route del {route.text}", f"ip route add {route.text}"),)
        yield Finding(
            director.name,
            f"real server {served.name} ({address}) is behind the gateway {route.gateway}, "
            "where Direct Routing does not reach it",
            (f"ip route: {route.text}", f"{mends.destination_words(served)}"),
            "Connections that are given to this real server go round in circles between director and "
            "gateway until they time out.",
            commands,
            ""
            if commands
            else f"reach it by a tunnel: {served.table.command} -e "
            f"{mends.destination_words(served, method=model.TUNNEL, tunnel=model.Tunnel())}, "
            f"and give {address} a tunl0 with the VIP",
        )
