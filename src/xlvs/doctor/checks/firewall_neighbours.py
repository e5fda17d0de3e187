# SPDX-License-Identifier: GPL-2.0-only
"""A firewall drops IPv6's neighbour discovery.

What ARP is to IPv4, messages of ICMPv6 are to IPv6 (RFC 4861), and so they meet the
firewall's rules.  One that drops what it does not know, made with IPv4 in mind, cuts the host off
from its segment: nobody finds its addresses, and it finds nobody's.  Conntrack counts
neither message as part of a connection, so a rule for established ones lets neither pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding
from xlvs.doctor.firewall import Drop, Packet, fate
from xlvs.doctor.host import Host
from xlvs.doctor.mends import accept_in_front
from xlvs.doctor.ndp import solicited

RANK = 43
SCENARIOS = (
    Scenario(
        "dr6",
        breaks=(("rs2", "ip6tables -A INPUT -p icmpv6 --icmpv6-type neighbour-solicitation -j DROP"),),
        restores=(("rs2", "ip6tables -D INPUT -p icmpv6 --icmpv6-type neighbour-solicitation -j DROP"),),
        hosts=("rs2",),
    ),
    Scenario(
        "nat6",
        breaks=(
            (
                "rs1",
                "nft 'add table ip6 fw; "
                "add chain ip6 fw input {{ type filter hook input priority 0; policy drop; }}; "
                "add rule ip6 fw input ct state established,related accept; "
                "add rule ip6 fw input icmpv6 type {{ packet-too-big, nd-neighbor-solicit }} accept; "
                "add rule ip6 fw input tcp dport 80 accept'",
            ),
        ),
        restores=(("rs1", "nft delete table ip6 fw"),),
        hosts=("rs1",),
    ),
)
_MESSAGES = {"135": "neighbour-solicitation", "136": "neighbour-advertisement"}


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the rules of every host that has to do with IPv6's VIPs."""
    if 6 not in cluster.versions():
        return
    concerned = {served.host.name for served in cluster.served()
                 if served.host is not None and served.real_server.version == 6}  # fmt: skip
    for host in cluster.hosts:
        if host.name not in concerned and not host.tables and host.role not in ("router", "client"):
            continue
        drops: dict[str, Drop] = {}
        for chain, number, packet in _messages(host):
            decided = fate(host.rules6, chain, packet)
            if decided is not None:
                drops.setdefault(f"{decided.hook} {number}", decided)
        if drops:
            yield _finding(host, drops)


def _messages(host: Host) -> Iterator[tuple[str, str, Packet]]:
    """What comes to a host and leaves it, for each of its addresses on an Ethernet interface."""
    for link in host.ethernet():
        for each in host.addresses:
            address = each.address
            own = each.interface == link.name and isinstance(address, IPv6Address)
            if not own or not isinstance(address, IPv6Address) or address.is_link_local:
                continue
            for number, to in (("135", solicited(address)), ("136", address)):
                comes = Packet("icmpv6", to, interface=link.name, icmp=number, state="UNTRACKED")
                yield "INPUT", number, comes
                goes = Packet(
                    "icmpv6", None, source=address, leaves_by=link.name, icmp=number, state="UNTRACKED"
                )
                yield "OUTPUT", number, goes


def _finding(host: Host, drops: dict[str, Drop]) -> Finding:
    mends = []
    for key, decided in drops.items():
        number = key.rpartition(" ")[2]
        matches = (("-p", "ipv6-icmp"), ("--icmpv6-type", _MESSAGES[number]))
        mends.append(accept_in_front(host.name, decided, matches))
    return Finding(
        host.name,
        f"the firewall of {host.name} drops neighbour discovery",
        tuple(dict.fromkeys(map(str, drops.values()))),
        "Neighbours do not find the host, or it does not find them: as their caches forget, IPv6 ends "
        "there, while IPv4 is well.",
        tuple(mends),
    )
