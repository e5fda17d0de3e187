# SPDX-License-Identifier: GPL-2.0-only
"""Under NAT a client is on the real servers' own segment.

The real server answers a client of its own segment directly, as ARP finds it:
the answer does not pass the director, keeps the real server's address, and the client drops it.
A route to such clients by way of the director is needed on the real server.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import WARNING, Finding, Mend
from xlvs.doctor.host import Address, Host

RANK = 55
SCENARIOS = (
    Scenario(
        "nat",
        breaks=(("rs1", "ip route add {client}/32 dev {interface}"),),
        restores=(("rs1", "ip route del {client}/32 dev {interface}"),),
        hosts=("rs1",),
    ),
)

_EFFECT = "Connections of that client to this real server time out; clients elsewhere are served."


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look how each masqueraded real server reaches the clients that there are."""
    seen: set[tuple[str, Address]] = set()
    for served in cluster.served(model.MASQUERADE):
        for client in _clients(cluster, served):
            if (served.name, client) in seen or served.is_local:
                continue
            seen.add((served.name, client))
            if served.host is not None:
                yield from _by_route(served, served.host, client)
            elif _share_a_segment(served, client):
                yield _finding(served, client, f"the director has both on {_segment(served)}", ())


def _clients(cluster: Cluster, served: Served) -> list[Address]:
    from ipaddress import ip_address

    found: dict[Address, None] = {}
    for host in cluster.hosts:
        for assigned in host.addresses if host.role == "client" else ():
            if not assigned.address.is_loopback and not assigned.address.is_link_local:
                found[assigned.address] = None
    known = cluster.clients(served.director, served.service)
    for packed in known.by_client if known else ():
        if not served.director.has(ip_address(packed)):
            found[ip_address(packed)] = None
    wanted = served.real_server.version
    return [address for address in found if address.version == wanted]


def _by_route(served: Served, host: Host, client: Address) -> Iterator[Finding]:
    route = host.route_to(client)
    if route is None or route.gateway is not None or host.has(client):
        return
    interface = served.director.interface_towards(served.real_server)
    own = next((a.address for a in served.director.addresses
                if a.interface == interface and served.real_server in a.network), None)  # fmt: skip
    full = f"{client}/{client.max_prefixlen}"
    exact = route.destination.prefixlen == client.max_prefixlen
    undo = f"ip route replace {route.text}" if exact else f"ip route del {full} via {own}"
    commands = [Mend(host.name, f"ip route replace {full} via {own}", undo)] if own else []
    if served.table.command == "ipvsadm" and own:
        # The kernel's director would tell the real server of the shorter way.
        commands += [
            mends.set_conf(served.director, name, "send_redirects", 0) for name in ("all", interface)
        ]
    yield _finding(served, client, f"ip route on {host.name}: {route.text}", tuple(commands))


def _segment(served: Served) -> str:
    return served.director.interface_towards(served.real_server)


def _share_a_segment(served: Served, client: Address) -> bool:
    here = _segment(served)
    return bool(here) and served.director.interface_towards(client) == here


def _finding(served: Served, client: Address, evidence: str, commands: tuple[Mend, ...]) -> Finding:
    return Finding(
        served.name,
        f"real server {served.name} answers the client {client} directly, past the director",
        (evidence,),
        _EFFECT,
        commands,
        ""
        if commands
        else f"on {served.name}: ip route add {client}/{client.max_prefixlen} via the director, "
        "or put clients and real servers into networks of their own",
        severity=WARNING,
    )
