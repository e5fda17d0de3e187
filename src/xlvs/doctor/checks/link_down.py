# SPDX-License-Identifier: GPL-2.0-only
"""An interface is down.

An interface with addresses that is down, of a director or a real server: by hand, by a
script that did not end, or because nobody brings it up at boot.  Its routes have gone
with it, and do not all come back by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend

RANK = 11
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("rs3", "ip link set {interface} down"),),
        restores=(("rs3", "ip link set {interface} up && ip addr add {rip6_3}/64 dev {interface} nodad"),),
        hosts=("rs3",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the Ethernet interfaces with addresses of whoever serves."""
    servers = {served.host.name for served in cluster.served() if served.host is not None}
    for host in cluster.hosts:
        if host.name not in servers and not host.tables:
            continue
        for link in host.links:
            addresses = [str(each) for each in host.addresses if each.interface == link.name]
            if not link.ethernet or link.up or link.master or not addresses:
                continue
            yield Finding(
                host.name,
                f"{link.name} of {host.name} is down",
                (f"ip link show {link.name}: not UP", f"it has {' '.join(addresses)}"),
                "Whoever is to reach this host by it does not.",
                (Mend(host.name, f"ip link set {link.name} up", f"ip link set {link.name} down"),),
            )
