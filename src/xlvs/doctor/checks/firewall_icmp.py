# SPDX-License-Identifier: GPL-2.0-only
"""A firewall drops ICMP "fragmentation needed", or IPv6's "packet too big".

Path MTU discovery lives by these messages (RFC 1191, RFC 8201).  For the VIP's
connections they reach the director, which passes them on to the real server; a client behind a
tunnel's director gets them from it.  Where they are dropped connections hang with the first large packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding
from xlvs.doctor.firewall import Drop, Packet, fate
from xlvs.doctor.host import Address, Host
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
    Scenario(
        "tun6",
        breaks=(("router", "ip6tables -A FORWARD -p icmpv6 --icmpv6-type packet-too-big -j DROP"),),
        restores=(("router", "ip6tables -D FORWARD -p icmpv6 --icmpv6-type packet-too-big -j DROP"),),
        hosts=("router",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the rules of real servers, clients and routers about such an error."""
    for version in cluster.versions():
        virtual = [address for address in cluster.virtual_addresses() if address.version == version]
        servers = {served.host.name for served in cluster.served()
                   if served.host is not None and served.real_server.version == version}  # fmt: skip
        for host in cluster.hosts:
            for chain, packet in _ways(host, version, virtual, serves=host.name in servers):
                decided = fate(host.rules_of(version), chain, packet)
                if decided is not None:
                    yield _finding(host, version, decided)
                    break


def _ways(host: Host, version: int, virtual: list[Address], *, serves: bool) -> Iterator[tuple[str, Packet]]:
    """Where such an error meets a host's rules: on its way in, through, and out of it."""
    protocol, error = ("icmp", "3/4") if version == 4 else ("icmpv6", "2")
    if serves or host.role == "client":
        for each in host.addresses:
            there = each.interface if host.link(each.interface) in list(host.ethernet()) else ""
            own = not (each.address.is_loopback or each.address.is_link_local)
            if own and there and each.address.version == version:
                yield "INPUT", Packet(protocol, each.address, interface=there, icmp=error)
    if host.role == "router":
        for address in virtual:
            yield "FORWARD", Packet(protocol, address, icmp=error)
            yield "OUTPUT", Packet(protocol, address, icmp=error)
    for entry in host.director.kernel.services:  # kernel IPVS stands behind INPUT
        if entry.service.key.address and ip_address(entry.service.key.address).version == version:
            yield "INPUT", Packet(protocol, ip_address(entry.service.key.address), icmp=error)


def _finding(host: Host, version: int, decided: Drop) -> Finding:
    matches = (("-p", "icmp"), ("--icmp-type", "fragmentation-needed"))
    name = 'ICMP "fragmentation needed"'
    if version == 6:
        matches = (("-p", "ipv6-icmp"), ("--icmpv6-type", "packet-too-big"))
        name = 'ICMPv6 "packet too big"'
    return Finding(
        host.name,
        f"the firewall of {host.name} drops {name}",
        (str(decided),),
        "Connections hang with their first large packet wherever the path is narrower than its ends, "
        "as it is with tunnels.",
        (accept_in_front(host.name, decided, matches),),
    )
