# SPDX-License-Identifier: GPL-2.0-only
"""Persistence sends all clients of one proxy to one real server.

A persistent service keeps a client's address with one real server.  Behind a proxy, a
NAT gateway or a CDN thousands of clients have one address, so they are all
sent to one real server, which gives under the load while others idle.  The
doctor counts connections by client address.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.director import Table
from xlvs.doctor.finding import WARNING, Finding
from xlvs.model import ServiceEntry

RANK = 80
ENOUGH = 20
"""Of fewer connections nothing can be said."""
_REQUESTS = f"for i in $(seq {ENOUGH}); do curl -s -m 5 -o /dev/null http://{{{{vip}}}}:{{port}}/; done"
SCENARIOS = (
    Scenario(
        "nat",
        breaks=(
            ("director", "ipvsadm -A -t {vip}:8081 -s wlc -p 300"),
            ("director", "ipvsadm -a -t {vip}:8081 -r {rip1}:80 -m"),
            ("director", "ipvsadm -a -t {vip}:8081 -r {rip2}:80 -m"),
            ("client", _REQUESTS.format(port=8081)),
        ),
        restores=(("director", "ipvsadm -D -t {vip}:8081"),),
        hosts=("director",),
    ),
)


def busiest(
    cluster: Cluster, director: str, least: int = ENOUGH
) -> Iterator[tuple[Table, ServiceEntry, bytes, int, int]]:
    """Services of a director of which one client address has more than half of the connections:
    (table, service, client, its connections, all)."""
    for host, table, entry in cluster.services():
        clients = cluster.clients(host, entry.service)
        if host.name != director or clients is None or table.command != "xlvsadm" or clients.total < least:
            continue
        client, count = max(clients.by_client.items(), key=lambda item: item[1])
        weighted = [place for place in entry.destinations if place.destination.weight]
        one_server = len(clients.servers_of[client]) == 1 and len(weighted) > 1
        if 2 * count > clients.total and one_server:
            yield table, entry, client, count, clients.total


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge persistent services."""
    for director in cluster.directors:
        for table, entry, client, count, total in busiest(cluster, director.name):
            service = entry.service
            if not service.persistence or service.engine:
                continue
            servers = director.director.clients[service.key].servers_of[client]
            yield Finding(
                director.name,
                f"persistence gives all connections of {ip_address(client)} to one real server",
                (
                    f"{count} of the {total} connections of {mends.service_words(service.key)} come from "
                    f"{ip_address(client)}, all of them to {ip_address(next(iter(servers)))}",
                    f"persistent {service.persistence} seconds, netmask {service.netmask}",
                ),
                "If that address is a proxy's or a NAT gateway's, one real server carries all who are "
                "behind it, and is slow; the others idle.",
                (mends.edit_service(director, table.command, entry, service.replace(persistence=0)),),
                "or keep persistence, for the sake of sessions, and have the proxy name several addresses",
                severity=WARNING,
            )
