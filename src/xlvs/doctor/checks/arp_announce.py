# SPDX-License-Identifier: GPL-2.0-only
"""A real server names the VIP when it asks by ARP.

When a real server answers a client it asks for its gateway, and by default takes
the address of the packet, the VIP, as the sender of the ARP request.  Everybody
who hears that, the router first, then believes the VIP to be at the real server's MAC,
although nobody has asked for it.  arp_announce 2 (of `all` or the interface,
the higher counts) lets it take an address of the interface instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding

RANK = 20
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=0"),
            ("rs1", "sysctl -w net.ipv4.conf.lo.arp_announce=0"),
        ),
        restores=(
            ("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=2"),
            ("rs1", "sysctl -w net.ipv4.conf.lo.arp_announce=2"),
        ),
        hosts=("rs1",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the interfaces by which real servers with a hidden VIP ask."""
    for host, served in cluster.real_server_hosts().values():
        hidden = [each for each in host.hidden_addresses() if each.address.version == 4]
        wanted = cluster.virtual_addresses_of(host, served)
        # With tunnels nobody on the real server's segment asks for the VIP, or sends to it.
        shared = [each for each in hidden if each.address in wanted and each.interface == "lo"]
        shared = [each for each in shared if not host.keeps_silent(each.address)]
        for link in host.ethernet() if shared else ():
            if host.conf(link.name, "arp_announce") >= 2:
                continue
            address = shared[0].address
            yield Finding(
                host.name,
                f"real server {host.name} names the VIP {address} as the sender of its ARP requests",
                (
                    *(
                        f"net.ipv4.conf.{where}.arp_announce is "
                        f"{host.setting(f'net.ipv4.conf.{where}.arp_announce')}"
                        for where in ("all", link.name)
                    ),
                    f"{shared[0]} is on {shared[0].interface}",
                ),
                "Balancing works until the real server asks for its gateway; then the router sends "
                "the VIP's packets to it, past the director, for as long as its ARP cache remembers.",
                (mends.set_conf(host, "all", "arp_announce", 2),),
            )
            break
