# SPDX-License-Identifier: GPL-2.0-only
"""A real server does not answer as the VIP, and no other check knows why.

What remains: it was asked as the VIP, through its forwarding method, and the
connection did not come about.  The doctor says what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xlvs.doctor.checks import Scenario, all_checks
from xlvs.doctor.cluster import Asked, Cluster, Served
from xlvs.doctor.finding import NOTE, Finding
from xlvs.doctor.probe import STRANGE_SOURCE

RANK = 99
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("rs2", "ip rule add to {dip} blackhole pref 10"),),
        restores=(("rs2", "ip rule del pref 10"),),
        hosts=("rs2",),
        mended=False,
    ),
)

_EXPLAIN = (
    "arp-flux", "balanced-again", "client-on-subnet", "default-gateway", "firewall", "firewall-neighbours",
    "ip-forward", "link-down", "not-on-segment", "port-differs", "refusing-server", "rp-filter",
    "server-down",
    "service-not-on-vip", "stale-arp", "tunnel-device", "vip-missing-on-director",
    "vip-missing-on-real-server", "vip-netmask", "way-back",
)  # fmt: skip
"""Checks whose findings may be why a real server does not answer."""


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge what is left when all others have had their say about the hosts in question."""
    lost = [
        (served, asked)
        for served in cluster.served()
        if (asked := cluster.answer(served)) is not None
        and not asked.as_virtual.connected
        and served.destination.weight
    ]
    if not lost:
        return
    known = {
        finding.host
        for check in all_checks()
        if check.name in _EXPLAIN
        for finding in check.examine(cluster)
        if finding.severity != NOTE
    }
    for served, asked in lost:
        hosts = {served.name, str(served.real_server), served.director.name}
        routers = {host.name for host in cluster.hosts if host.role == "router"}
        if known.isdisjoint(hosts | routers):
            yield _finding(served, asked)


def _finding(served: Served, asked: Asked) -> Finding:
    answer = asked.as_virtual
    evidence = [
        f"asked as {served.virtual}: {answer.outcome}",
        f"asked on its own address: {asked.plain.outcome}",
    ]
    if served.host is not None:
        evidence += [f"ip rule on {served.name}: {each}" for each in served.host.policy]
    if served.director.route_to(served.real_server) is None:
        evidence.append(f"{served.director.name} has no route to {served.real_server}: ip route")
    if answer.icmp is not None:
        kind, code, sender = answer.icmp
        evidence.append(f"{ip_address(sender)} answered with ICMP type {kind}, code {code}")
    advice = "follow a packet: tcpdump -ni any port "
    if answer.outcome == STRANGE_SOURCE:
        advice = (
            "see what gives its answers another source (rules of nat, ip route … src); tcpdump -ni any port "
        )
    return Finding(
        served.name,
        f"real server {served.name} does not answer as the VIP {served.virtual}",
        tuple(evidence),
        "Connections that are given to this real server fail.",
        advice=f"{advice}{served.port}",
    )
