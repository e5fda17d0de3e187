# SPDX-License-Identifier: GPL-2.0-only
"""proxy_arp answers for the VIP.

A host with proxy_arp answers ARP for every address to which it has a route by
another interface, or, as a router between networks, for hosts that are not
behind it.  It does so for the VIP, too, and its answer may be the one that
is believed.  The doctor asks for the VIP and looks at who answers without having it.
IPv6 has proxy_ndp, which answers for addresses that are named (`ip neigh add proxy`).
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, asking
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
    Scenario(
        "tun6",
        breaks=(
            ("router", "sysctl -w net.ipv6.conf.eth0.proxy_ndp=1"),
            ("router", "ip neigh add proxy {vip6} dev eth0"),
        ),
        restores=(
            ("router", "ip neigh del proxy {vip6} dev eth0"),
            ("router", "sysctl -w net.ipv6.conf.eth0.proxy_ndp=0"),
        ),
        hosts=("router",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge who answers for an address that is not its own."""
    for address in cluster.virtual_addresses():
        setting = "proxy_arp" if address.version == 4 else "proxy_ndp"
        for heard in cluster.answers_for(address):
            owner = cluster.owner(heard.sighting.mac)
            if owner is None or owner[0].has(address):
                continue
            host, link = owner
            family = f"net.ipv{address.version}.conf"
            where = "all" if host.setting(f"{family}.all.{setting}") else link.name
            if not host.setting(f"{family}.{where}.{setting}"):
                continue
            yield Finding(
                host.name,
                f"{host.name} answers {asking(address)} for the VIP {address} for others ({setting})",
                (
                    f"{heard.asker.name} asked for {address} on {heard.sighting.interface}: "
                    f"{cluster.called(heard.sighting.mac)}, answered",
                    f"{family}.{where}.{setting} is 1, and {address} is no address of {host.name}",
                ),
                "Whoever believes that answer sends the VIP's packets there instead of to the director.",
                (mends.set_conf(host, where, setting, 0, address.version),),
            )
