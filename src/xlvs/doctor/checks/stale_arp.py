# SPDX-License-Identifier: GPL-2.0-only
"""The router still has the VIP at another host's MAC.

After a failover, or after a real server has answered ARP for the VIP, the
router's ARP cache may hold on to the old MAC for minutes, and a permanent
entry for ever.  A director that takes over says so by gratuitous ARP; that may be
lost, or not be believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend

RANK = 42
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("client", "ip neigh replace {vip} lladdr 02:00:00:00:00:99 dev {interface} nud permanent"),
        ),
        restores=(("client", "ip neigh del {vip} dev {interface}"),),
        hosts=("client",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare what clients and routers remember with who has the VIP."""
    for address in cluster.virtual_addresses():
        holders = [host for host in cluster.directors if host.has(address)]
        if not isinstance(address, IPv4Address) or not holders:
            continue
        right = {link.mac for host in holders for link in host.ethernet()}
        # Who answers wrongly at this moment is another check's; what is believed of it, its consequence.
        answering = {heard.sighting.mac for heard in cluster.answers_for(address)}
        for host in cluster.hosts:
            if host.tables or host.role == "real server":
                continue
            for entry in host.neighbours:
                if entry.address != address or entry.mac in right | answering or "FAILED" in entry.states:
                    continue
                state = "permanent" if "PERMANENT" in entry.states else "stale"
                words = f"{address} lladdr {entry.mac} dev {entry.interface} nud {state}"
                yield Finding(
                    host.name,
                    f"{host.name} believes the VIP {address} to be at {cluster.called(entry.mac)}",
                    (
                        f"ip neigh: {words.partition(' nud ')[0]} {' '.join(entry.states)}",
                        f"{holders[0].name} has it, with {' '.join(sorted(right))}",
                    ),
                    "Whatever goes by this host to the VIP goes there, until the entry ages.",
                    (
                        Mend(
                            host.name,
                            f"ip neigh del {address} dev {entry.interface}",
                            f"ip neigh replace {words}",
                        ),
                    ),
                    f"on the director, for all at once: arping -c 3 -U -I INTERFACE {address}",
                )
