# SPDX-License-Identifier: GPL-2.0-only
"""proxy_arp answers for the VIP.

A host with proxy_arp answers ARP for every address to which it has a route by
another interface, or, as a router between networks, for hosts that are not
behind it.  It does so for the VIP, too, and its answer may be the one that
is believed.  The doctor asks for the VIP and looks at who answers without having it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding

RANK = 45
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(
            ("router", "sysctl -w net.ipv4.conf.eth0.proxy_arp=1"),
            ("router", "ip route add {vip}/32 via {rip1}"),
        ),
        restores=(
            ("router", "sysctl -w net.ipv4.conf.eth0.proxy_arp=0"),
            ("router", "ip route del {vip}/32 via {rip1}"),
        ),
        hosts=("router",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge who answers for an address that is not its own."""
    for address in cluster.virtual_addresses():
        if not isinstance(address, IPv4Address):
            continue
        for heard in cluster.answers_for(address):
            owner = cluster.owner(heard.sighting.mac)
            if owner is None or owner[0].has(address):
                continue
            host, link = owner
            where = "all" if host.setting("net.ipv4.conf.all.proxy_arp") else link.name
            yield Finding(
                host.name,
                f"{host.name} answers ARP for the VIP {address} for others (proxy_arp)",
                (
                    f"{heard.asker.name} asked for {address} on {heard.sighting.interface}: "
                    f"{cluster.called(heard.sighting.mac)}, answered",
                    f"net.ipv4.conf.{where}.proxy_arp is 1, and {address} is no address of {host.name}",
                ),
                "Whoever believes that answer sends the VIP's packets there instead of to the director.",
                (mends.set_conf(host, where, "proxy_arp", 0),),
            )
