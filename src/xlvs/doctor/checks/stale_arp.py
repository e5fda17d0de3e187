# SPDX-License-Identifier: GPL-2.0-only
"""The router still has the VIP at another host's MAC.

After a failover, or after a real server has answered ARP for the VIP, the
router's ARP cache may hold on to the old MAC for minutes, and a permanent
entry for ever.  A director that takes over says so by gratuitous ARP; that may be
lost, or not be believed.  In a lab the doctor also compares what hosts remember of one
another: a director with an old MAC of a real server loses its connections.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Address, Host, Neighbour

RANK = 42
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("client", "ip neigh replace {vip} lladdr 02:00:00:00:00:99 dev {interface} nud permanent"),
        ),
        restores=(("client", "ip neigh del {vip} dev {interface}"),),
        hosts=("client",),
    ),
    Scenario(
        "dr6",
        breaks=(
            ("client", "ip neigh replace {vip6} lladdr 02:00:00:00:00:99 dev {interface} nud permanent"),
        ),
        restores=(("client", "ip neigh del {vip6} dev {interface}"),),
        hosts=("client",),
    ),
    Scenario(
        "dr",
        breaks=(
            ("director", "ip neigh replace {rip2} lladdr 02:00:00:00:00:99 dev {interface} nud permanent"),
        ),
        restores=(("director", "ip neigh del {rip2} dev {interface}"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare what clients and routers remember with who has the VIP."""
    for address in cluster.virtual_addresses():
        holders = [host for host in cluster.directors if host.has(address)]
        if not holders:
            continue
        right = {link.mac for host in holders for link in host.links if link.ethernet}
        # Who answers wrongly at this moment is another check's; what is believed of it, its consequence.
        answering = {heard.sighting.mac for heard in cluster.answers_for(address)}
        for host in cluster.hosts:
            if host.tables or host.role == "real server":
                continue
            for entry in host.neighbours:
                if entry.address != address or entry.mac in right | answering or "FAILED" in entry.states:
                    continue
                yield _finding(
                    cluster, host, entry, f"the VIP {address}",
                    f"{holders[0].name} has it, with {' '.join(sorted(right))}",
                    f"on the director, for all at once: arping -c 3 -U -I INTERFACE {address}"
                    if address.version == 4 else "",
                )  # fmt: skip
    yield from _of_one_another(cluster)


def _of_one_another(cluster: Cluster) -> Iterator[Finding]:
    """Entries for other hosts' own addresses, which are on one host each."""
    virtual = cluster.virtual_addresses()
    owners: dict[Address, set[str]] = {}
    for host in cluster.hosts:
        for link in host.ethernet():
            for each in host.addresses:
                if each.interface == link.name and each.address not in virtual:
                    owners.setdefault(each.address, set()).add(link.mac)
    for host in cluster.hosts:
        for entry in host.neighbours:
            right = owners.get(entry.address, set())
            if len(right) != 1 or entry.mac in right or "FAILED" in entry.states:
                continue
            if any(heard.sighting.mac == entry.mac for heard in cluster.answers_for(entry.address)):
                continue  # it is answered for by two: another check's
            its = cluster.owner(next(iter(right)))
            whose = f"{its[0].name} ({entry.address})" if its else str(entry.address)
            yield _finding(cluster, host, entry, whose, f"it has {' '.join(right)}", "")


def _finding(cluster: Cluster, host: Host, entry: Neighbour, what: str, truth: str, advice: str) -> Finding:
    where = shlex.quote(entry.interface)
    state = "permanent" if "PERMANENT" in entry.states else "stale"
    words = f"{entry.address} lladdr {entry.mac} dev {where}"
    return Finding(
        host.name,
        f"{host.name} believes {what} to be at {cluster.called(entry.mac)}",
        (f"ip neigh: {words} {' '.join(entry.states)}", truth),
        "Whatever goes by this host to that address goes there, until the entry ages"
        + (": this one never does." if state == "permanent" else "."),
        (
            Mend(
                host.name,
                f"ip neigh del {entry.address} dev {where}",
                f"ip neigh replace {words} nud {state}",
            ),
        ),
        advice,
    )
