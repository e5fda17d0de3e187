# SPDX-License-Identifier: GPL-2.0-only
"""A firewall drops packets to the VIP, or its answers.

Rules are often written for a host's own address.  Clients' packets reach a real server
with the VIP as their destination (under NAT with its own address, but the
client's as their source); a router sees them on their way.  The doctor asks each rule of iptables
and nft what it would do with them, and mends by a rule in front.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs import model
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding
from xlvs.doctor.firewall import Packet, Rule, fate
from xlvs.doctor.host import Host
from xlvs.doctor.mends import accept_in_front

RANK = 44
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("rs1", "iptables -A INPUT -d {vip} -p tcp -j DROP"),),
        restores=(("rs1", "iptables -D INPUT -d {vip} -p tcp -j DROP"),),
        hosts=("rs1",),
    ),
    Scenario(
        "nat",
        breaks=(("rs2", "iptables -A INPUT -p tcp --dport 80 -j REJECT"),),
        restores=(("rs2", "iptables -D INPUT -p tcp --dport 80 -j REJECT"),),
        hosts=("rs2",),
    ),
    Scenario(
        "dr",
        breaks=(("rs3", "iptables -A OUTPUT -s {vip} -j DROP"),),
        restores=(("rs3", "iptables -D OUTPUT -s {vip} -j DROP"),),
        hosts=("rs3",),
    ),
    Scenario(
        "tun",
        breaks=(("router", "iptables -A FORWARD -s {vip} -j DROP"),),
        restores=(("router", "iptables -D FORWARD -s {vip} -j DROP"),),
        hosts=("router",),
    ),
    Scenario(
        "dr",
        breaks=(
            (
                "rs2",
                "nft 'add table inet fw; add chain inet fw input {{ type filter hook input priority 0; "
                "policy drop; }}; add rule inet fw input ct state established,related accept; "
                "add rule inet fw input iifname lo accept; add rule inet fw input ip protocol icmp accept; "
                "add rule inet fw input ip daddr {rip2} tcp dport 80 accept'",
            ),
        ),
        restores=(("rs2", "nft delete table inet fw"),),
        hosts=("rs2",),
    ),
)
_PROTOCOLS = {number: name.lower() for number, name in model.PROTOCOL_NAMES.items()}


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the rules of real servers, of routers, and of a director of kernel IPVS."""
    seen: set[tuple[str, str]] = set()
    for served in cluster.served():
        if not isinstance(served.virtual, IPv4Address):
            continue
        for host, chain, packet in _ways(cluster, served):
            decided = fate(host.rules, chain, packet)
            if decided is not None and (host.name, str(decided)) not in seen:
                seen.add((host.name, str(decided)))
                yield _finding(host, chain, packet, decided)


def _ways(cluster: Cluster, served: Served) -> Iterator[tuple[Host, str, Packet]]:
    """Where rules see a client's packet and its answer."""
    key, virtual = served.service.key, served.virtual
    if not isinstance(virtual, IPv4Address):
        return
    protocol = _PROTOCOLS.get(key.protocol, "")
    translated = served.destination.method == model.MASQUERADE
    arrives = served.real_server if translated else virtual
    asked = cluster.answer(served)
    arrived = asked is not None and asked.as_virtual.connected
    if served.host is not None and isinstance(arrives, IPv4Address) and not arrived:
        yield served.host, "INPUT", Packet(protocol, arrives, served.port)
        yield (
            served.host,
            "OUTPUT",
            Packet(protocol, None, source=arrives, source_port=served.port, state="ESTABLISHED"),
        )
    for router in cluster.hosts:
        if router.role == "router":
            yield router, "FORWARD", Packet(protocol, virtual, key.port)
            yield (
                router,
                "FORWARD",
                Packet(protocol, None, source=virtual, source_port=key.port, state="ESTABLISHED"),
            )
    if served.table.command == "ipvsadm":  # kernel IPVS stands behind INPUT
        yield served.director, "INPUT", Packet(protocol, virtual, key.port)


def _finding(host: Host, chain: str, packet: Packet, decided: Rule) -> Finding:
    answer = packet.destination is None
    address = packet.source if answer else packet.destination
    port = packet.source_port if answer else packet.port
    matches = (
        ("-s" if answer else "-d", str(address)),
        ("-p", packet.protocol),
        ("--sport" if answer else "--dport", str(port)),
    )
    what = "answers from" if answer else "packets to"
    return Finding(
        host.name,
        f"the firewall of {host.name} drops {what} {address}, port {port}",
        (f"{chain}: {decided}",),
        "Connections that go by this host time out"
        + (", or are refused." if decided.target == "REJECT" else "."),
        (accept_in_front(host.name, decided, chain, matches),),
    )
