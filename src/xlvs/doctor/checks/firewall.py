# SPDX-License-Identifier: GPL-2.0-only
"""A firewall drops packets to the VIP, or its answers.

Rules are often written for a host's own address.  Clients' packets reach a real server
with the VIP as their destination (under NAT with its own address, but the
client's as their source), those of a tunnel first in the tunnel's packets; a router sees them on
their way.  The doctor asks each rule of iptables and nft, of all tables but nat, what it would
do with them, and mends by a rule in front.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xlvs import model
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding
from xlvs.doctor.firewall import Drop, Packet, fate
from xlvs.doctor.host import TUNNELS, Address, Host
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
    Scenario(
        "dr6",
        breaks=(("rs1", "ip6tables -A INPUT -d {vip6} -p tcp --dport 80 -j DROP"),),
        restores=(("rs1", "ip6tables -D INPUT -d {vip6} -p tcp --dport 80 -j DROP"),),
        hosts=("rs1",),
    ),
    Scenario(
        "tun",
        breaks=(("router", "iptables -A FORWARD -p 4 -j DROP"),),
        restores=(("router", "iptables -D FORWARD -p 4 -j DROP"),),
        hosts=("router",),
    ),
    Scenario(
        "tun",
        breaks=(("rs2", "iptables -t raw -A PREROUTING -i tunl0 -j DROP"),),
        restores=(("rs2", "iptables -t raw -D PREROUTING -i tunl0 -j DROP"),),
        hosts=("rs2",),
    ),
)
_PROTOCOLS = {number: name.lower() for number, name in model.PROTOCOL_NAMES.items()}
_EPHEMERAL = 49152
"""A client's port, as it may be."""
_CARRIERS = {"gre": "gre", "gue": "udp"}


@dataclass(frozen=True, slots=True)
class _Way:
    """A packet that should pass a host, in words, and the options of iptables that choose it."""

    host: Host
    chain: str
    packet: Packet
    what: str
    matches: tuple[tuple[str, str], ...]


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the rules of real servers, of routers, and of a director of kernel IPVS."""
    seen: set[tuple[str, str]] = set()
    for served in cluster.served():
        for way in _ways(cluster, served):
            address = way.packet.destination or way.packet.source
            version = address.version if address else 4
            decided = fate(way.host.rules_of(version), way.chain, way.packet)
            if decided is not None and (way.host.name, way.what) not in seen:
                seen.add((way.host.name, way.what))
                yield _finding(way, decided)


def _ways(cluster: Cluster, served: Served) -> Iterator[_Way]:
    """Where rules see a client's packet and its answer."""
    key, virtual, host = served.service.key, served.virtual, served.host
    protocol = _PROTOCOLS.get(key.protocol, "")
    if virtual is None or not protocol:
        return
    client = _client(cluster, virtual)
    asked = cluster.answer(served)
    arrived = asked is not None and asked.as_virtual.connected
    tunnelled = served.destination.method == model.TUNNEL
    if host is not None and not arrived and not served.is_local:
        translated = served.destination.method == model.MASQUERADE
        arrives = served.real_server if translated else virtual
        comes_by = _interface(host, served)
        if tunnelled and any(link.kind in TUNNELS for link in host.links):
            yield _outer(host, "INPUT", served, comes_by=comes_by)
        device = next((link.name for link in host.tunnels() if link.up), "") if tunnelled else comes_by
        yield _to(host, "INPUT", protocol, arrives, served.port, client, comes_by=device)
        yield _from(host, "OUTPUT", protocol, arrives, served.port, client)
    for router in cluster.hosts:
        if router.role != "router":
            continue
        outside, inside = _sides(cluster, router, virtual), _leads(router, served.real_server)
        yield _to(router, "FORWARD", protocol, virtual, key.port, client, comes_by=outside,
                  leaves_by=_leads(router, virtual))  # fmt: skip
        yield _from(
            router, "FORWARD", protocol, virtual, key.port, client, comes_by=inside, leaves_by=outside
        )
        if tunnelled and not arrived:
            by = _leads(router, _source(served) or served.real_server)
            yield _outer(router, "FORWARD", served, comes_by=by, leaves_by=inside)
    if served.table.command == "ipvsadm":  # kernel IPVS stands behind INPUT
        yield _to(served.director, "INPUT", protocol, virtual, key.port, client)


def _interface(host: Host, served: Served) -> str:
    assigned = host.with_address(served.real_server)
    return assigned.interface if assigned else ""


def _leads(host: Host, address: Address) -> str:
    route = host.route_to(address)
    return route.interface if route else ""


def _sides(cluster: Cluster, router: Host, virtual: Address) -> str:
    """The router's interface towards the clients; empty where it is not one."""
    found = {
        _leads(router, each.address)
        for client in cluster.hosts
        if client.role == "client"
        for each in client.addresses
        if each.address.version == virtual.version
        and not (each.address.is_loopback or each.address.is_link_local)
    }
    return found.pop() if len(found) == 1 else ""


def _source(served: Served) -> Address | None:
    """The director's address towards a real server, from which tunnels come."""
    route = served.director.route_to(served.real_server)
    interface = route.interface if route else ""
    for each in served.director.addresses:
        same = each.address.version == served.real_server.version and not each.address.is_link_local
        if each.interface == interface and same and each.address != served.virtual:
            return each.address
    return None


def _client(cluster: Cluster, virtual: Address) -> Address | None:
    """The address of a client; None where none is known."""
    for host in cluster.hosts:
        for each in host.addresses if host.role == "client" else ():
            own = not (each.address.is_loopback or each.address.is_link_local)
            if own and each.address.version == virtual.version and each.address != virtual:
                return each.address
    return None


def _to(
    host: Host, chain: str, protocol: str, address: Address, port: int, client: Address | None, *,
    comes_by: str = "", leaves_by: str = "",
) -> _Way:  # fmt: skip
    packet = Packet(protocol, address, port, client, _EPHEMERAL, interface=comes_by, leaves_by=leaves_by)
    matches = (("-d", str(address)), ("-p", protocol), ("--dport", str(port)))
    return _Way(host, chain, packet, f"packets to {address}, port {port}", matches)


def _from(
    host: Host, chain: str, protocol: str, address: Address, port: int, client: Address | None, *,
    comes_by: str = "", leaves_by: str = "",
) -> _Way:  # fmt: skip
    packet = Packet(
        protocol, client, _EPHEMERAL, address, port, interface=comes_by, leaves_by=leaves_by,
        state="ESTABLISHED",
    )  # fmt: skip
    matches = (("-s", str(address)), ("-p", protocol), ("--sport", str(port)))
    return _Way(host, chain, packet, f"answers from {address}, port {port}", matches)


def _outer(host: Host, chain: str, served: Served, *, comes_by: str, leaves_by: str = "") -> _Way:
    """A tunnel's packet from the director to a real server."""
    tunnel = served.destination.tunnel or model.Tunnel()
    inside = "ipencap" if served.virtual is None or served.virtual.version == 4 else "ipv6"
    carrier = _CARRIERS.get(tunnel.kind, inside)
    address = served.real_server
    port = tunnel.port if tunnel.kind == "gue" else 0
    packet = Packet(carrier, address, port, _source(served), interface=comes_by, leaves_by=leaves_by)
    number = {"ipencap": "4", "ipv6": "41", "gre": "47", "udp": "udp"}[carrier]
    matches = (("-d", str(address)), ("-p", number), *((("--dport", str(port)),) if port else ()))
    return _Way(host, chain, packet, f"{tunnel.kind} tunnels to {address}", matches)


def _finding(way: _Way, decided: Drop) -> Finding:
    return Finding(
        way.host.name,
        f"the firewall of {way.host.name} drops {way.what}",
        (str(decided),),
        "Connections that go by this host time out"
        + (", or are refused." if decided.rule.target == "REJECT" else "."),
        (accept_in_front(way.host.name, decided, way.matches),),
    )
