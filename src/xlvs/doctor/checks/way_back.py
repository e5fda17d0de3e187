# SPDX-License-Identifier: GPL-2.0-only
"""A real server has no way back to the clients.

With Direct Routing and tunnels a real server answers clients by itself, by its own
route.  Without a default route, or with one by a host that does not forward,
its answers are lost, although the director, on its own segment, gets answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Address, Host

RANK = 49
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(("rs1", "ip route del default && ip route add {dip}/32 via {inside_router}"),),
        restores=(("rs1", "ip route del {dip}/32 && ip route add default via {inside_router}"),),
        hosts=("rs1",),
    ),
    Scenario(
        "tun",
        breaks=(
            ("rs2", "ip route replace default via {rip1} && ip route add {dip}/32 via {inside_router}"),
        ),
        restores=(("rs2", "ip route del {dip}/32 && ip route replace default via {inside_router}"),),
        hosts=("rs2",),
    ),
    Scenario(
        "tun6",
        breaks=(("rs1", "ip -6 route del default && ip route add {dip6}/128 via {inside_router6}"),),
        restores=(("rs1", "ip route del {dip6}/128 && ip route add default via {inside_router6}"),),
        hosts=("rs1",),
    ),
)
_NOWHERE = ("blackhole", "unreachable", "prohibit")


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the route of each real server to the clients that there are."""
    seen: set[tuple[str, int]] = set()
    for served in cluster.served(model.ROUTE, model.TUNNEL):
        if served.host is None or served.virtual is None:
            continue
        if (served.name, served.virtual.version) in seen:
            continue
        for client in _clients(cluster, served.virtual.version):
            reason = _lost(cluster, served.host, client)
            if reason:
                seen.add((served.name, served.virtual.version))
                yield _finding(cluster, served.host, client, reason)
                break


def _clients(cluster: Cluster, version: int) -> list[Address]:
    return [
        each.address
        for host in cluster.hosts
        if host.role == "client"
        for each in host.addresses
        if each.address.version == version
        and not (each.address.is_loopback or each.address.is_link_local)
        and each.address not in cluster.virtual_addresses()
    ]  # fmt: skip


def _lost(cluster: Cluster, host: Host, client: Address) -> str:
    """Why answers to a client do not arrive; empty where nothing says so."""
    if any(link.ethernet and not link.up for link in host.links):
        return ""  # another check's
    route = host.route_to(client)
    if route is None:
        return "no route leads there"
    if route.kind in _NOWHERE:
        return f"ip route: {route.kind} {route.text}"
    gateway = cluster.host_with(route.gateway) if route.gateway else None
    if gateway is not None and not gateway.forwards(client.version):
        # A router that does not has a check of its own.
        return (
            "" if gateway.role == "router" else f"{route.gateway} is {gateway.name}, which does not forward"
        )
    return ""


def _finding(cluster: Cluster, host: Host, client: Address, reason: str) -> Finding:
    gateway = _right_gateway(cluster, host, client)
    present = host.route_to(client)
    commands: tuple[Mend, ...] = ()
    by_default = present is not None and present.destination.prefixlen == 0
    if gateway is not None and (present is None or by_default):
        commands = (mends.replace_default(host, gateway),)
    elif present is not None and not by_default:
        commands = (
            Mend(
                host.name,
                f"ip route del {present.kind} {present.text}",
                f"ip route add {present.kind} {present.text}",
            ),
        )
    return Finding(
        host.name,
        f"real server {host.name} does not reach the client {client}",
        (reason, *((f"ip route: {present.text}",) if present else ())),
        "Connections that are given to this real server time out: its answers are lost.",
        commands,
        "" if commands else "give it the route that the network has: ip route replace default via GATEWAY",
    )


def _right_gateway(cluster: Cluster, host: Host, client: Address) -> Address | None:
    """A router on one of the real server's segments; else what another host of them uses."""
    for router in cluster.hosts:
        for assigned in router.addresses if router.role == "router" else ():
            own = assigned.address
            if own.version == client.version and not own.is_link_local and host.interface_towards(own):
                return own
    return None
