# SPDX-License-Identifier: GPL-2.0-only
"""A firewall drops ICMP "fragmentation needed".

Path MTU discovery lives by these messages (RFC 1191).  For the VIP's
connections they reach the director, which passes them on to the real server; a client behind a
tunnel's director gets them from it.  Where they are dropped connections hang with the first large packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding
from xlvs.doctor.firewall import Packet, Rule, fate
from xlvs.doctor.host import Host
from xlvs.doctor.mends import accept_in_front

RANK = 63
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(("router", "iptables -A FORWARD -p icmp --icmp-type destination-unreachable -j DROP"),),
        restores=(("router", "iptables -D FORWARD -p icmp --icmp-type destination-unreachable -j DROP"),),
        hosts=("router",),
    ),
    Scenario(
        "dr",
        breaks=(("rs2", "iptables -A INPUT -p icmp -j DROP"),),
        restores=(("rs2", "iptables -D INPUT -p icmp -j DROP"),),
        hosts=("rs2",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the rules of real servers, clients and routers about such an error."""
    virtual = [address for address in cluster.virtual_addresses() if isinstance(address, IPv4Address)]
    servers = {served.host.name for served in cluster.served() if served.host is not None}
    for host in cluster.hosts:
        ways: list[tuple[str, IPv4Address]] = []
        if host.name in servers or host.role == "client":
            own = [each.address for each in host.addresses if isinstance(each.address, IPv4Address)]
            ways += [("INPUT", address) for address in own if not address.is_loopback]
        if host.role == "router":
            ways += [("FORWARD", address) for address in virtual]
        for chain, address in ways:
            decided = fate(host.rules, chain, Packet("icmp", address, icmp="3/4"))
            if decided is not None:
                yield _finding(host, chain, decided)
                break


def _finding(host: Host, chain: str, decided: Rule) -> Finding:
    matches = (("-p", "icmp"), ("--icmp-type", "fragmentation-needed"))
    return Finding(
        host.name,
        f'the firewall of {host.name} drops ICMP "fragmentation needed"',
        (f"{chain}: {decided}",),
        "Connections hang with their first large packet wherever the path is narrower than its ends, "
        "as it is with tunnels.",
        (accept_in_front(host.name, decided, chain, matches),),
    )
