# SPDX-License-Identifier: GPL-2.0-only
"""Under NAT a real server's default gateway is not the director.

The director has to translate the answers back, so they must pass through it.  A
real server with another gateway answers by that one: the client gets packets from
an address that it never asked, and drops them.  The doctor connects to
each real server from the VIP, and sees by which interface the answer comes.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding
from xlvs.doctor.host import Address, Host, Route
from xlvs.doctor.probe import SILENT, UNREACHABLE

RANK = 50
SCENARIOS = (
    Scenario(
        "nat",
        breaks=(("rs1", "ip route replace default via {rip2}"),),
        restores=(("rs1", "ip route replace default via {inside_dip}"),),
        hosts=("rs1",),
    ),
    Scenario(
        "nat",
        breaks=(("rs2", "ip route del default"),),
        restores=(("rs2", "ip route add default via {inside_dip}"),),
        hosts=("rs2",),
    ),
    Scenario(
        "nat6",
        breaks=(("rs1", "ip route replace default via {rip6_2}"),),
        restores=(("rs1", "ip route replace default via {inside_dip6}"),),
        hosts=("rs1",),
    ),
)

_EFFECT = (
    "Clients' connections to this real server time out: its answers do not come back through the "
    "director, or come with an address that they do not know."
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the route of each masqueraded real server to clients, and by which way it answers."""
    seen: set[tuple[str, int]] = set()
    for served in cluster.served(model.MASQUERADE):
        if (served.name, served.real_server.version) in seen or served.is_local:
            continue
        if served.host is not None:
            found = _by_route(cluster, served, served.host)
        else:
            found = _by_answer(cluster, served)
        if found is not None:
            seen.add((served.name, served.real_server.version))
            yield found


def _by_route(cluster: Cluster, served: Served, host: Host) -> Finding | None:
    own = _own_address(served.director, host, served.real_server)
    if own is None:
        return None  # there is a router between; then its route counts, too
    route = _route_to_clients(cluster, host, own.version)
    if route is not None and (route.gateway is None or served.director.has(route.gateway)):
        return None
    found = f"its gateway is {route.gateway}" if route and route.gateway else "it has no default route"
    return Finding(
        host.name,
        f"real server {host.name} does not answer through the director: {found}",
        (
            f"ip route: {route.text}" if route else "ip route: nothing leads to the clients",
            f"the director {served.director.name} is {own} here",
        ),
        _EFFECT,
        (mends.replace_default(host, own),),
    )


def _route_to_clients(cluster: Cluster, host: Host, version: int) -> Route | None:
    for client in cluster.hosts:
        for assigned in client.addresses if client.role == "client" else ():
            address = assigned.address
            beyond = not address.is_link_local and not address.is_loopback and not host.has(address)
            if beyond and address.version == version:
                return host.route_to(address)
    return host.default_route(version)


def _own_address(director: Host, host: Host | None, real_server: Address) -> Address | None:
    """The director's address on the real server's segment."""
    interface = director.interface_towards(real_server)
    for assigned in director.addresses:
        here = assigned.interface == interface and real_server in assigned.network
        if here and (host is None or not host.has(assigned.address)):
            return assigned.address
    return None


def _by_answer(cluster: Cluster, served: Served) -> Finding | None:
    asked = cluster.answer(served)
    virtual = served.virtual
    if asked is None or virtual is None or not asked.plain.connected or not served.director.has(virtual):
        return None
    own = _own_address(served.director, None, served.real_server)
    came_by = next(
        (link for link in served.director.links if link.index == asked.as_virtual.interface), None
    )
    went_by = served.director.interface_towards(served.real_server)
    if asked.as_virtual.outcome in (SILENT, UNREACHABLE):
        evidence = f"it answers {served.director.name}'s own address, and not its VIP {virtual}"
    elif asked.as_virtual.connected and came_by is not None and went_by and came_by.name != went_by:
        evidence = f"asked by {went_by} it answered by {came_by.name}, from {asked.as_virtual.mac.hex(':')}"
    else:
        return None
    return Finding(
        served.name, f"real server {served.name} does not answer through the director", (evidence,), _EFFECT,
        advice=f"on {served.name}: ip route replace default via {own or 'the director'}",
    )  # fmt: skip
