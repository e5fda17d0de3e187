# SPDX-License-Identifier: GPL-2.0-only
"""A strict reverse path filter drops packets that are in order.

With rp_filter 1 a host drops what comes in by another interface than the one
by which it would answer.  What comes out of a tunnel has a client's address, to
which the way is never the tunnel's device; and real servers with two networks may
get clients' packets by one and answer by the other.  The higher value
of `all` and the interface counts; 2 is loose, and enough.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Host

RANK = 48
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(("rs1", "sysctl -w net.ipv4.conf.tunl0.rp_filter=1"),),
        restores=(("rs1", "sysctl -w net.ipv4.conf.tunl0.rp_filter=0"),),
        hosts=("rs1",),
    ),
    Scenario(
        "tun",
        breaks=(("rs2", "sysctl -w net.ipv4.conf.all.rp_filter=1"),),
        restores=(("rs2", "sysctl -w net.ipv4.conf.all.rp_filter=0"),),
        hosts=("rs2",),
    ),
)
_STRICT = 1
_LOOSE = 2


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the interfaces by which real servers get clients' packets."""
    for host, served in cluster.real_server_hosts(model.TUNNEL, model.ROUTE).values():
        tunnelled = not served or any(each.destination.method == model.TUNNEL for each in served)
        for link in host.tunnels() if tunnelled else ():
            if host.conf(link.name, "rp_filter") == _STRICT and link.up:
                yield _finding(host, link.name, "what comes out of the tunnel")
        for name in _odd_ways(host, served):
            yield _finding(host, name, "what the director sends there, to be answered by another interface")


def _odd_ways(host: Host, served: list[Served]) -> Iterator[str]:
    """Strict interfaces by which packets of clients come, and by which they are not answered."""
    default = next((r for r in host.routes if r.table == "main" and r.destination.prefixlen == 0
                    and r.destination.version == 4), None)  # fmt: skip
    found = set()
    for each in served:
        assigned = host.with_address(each.real_server)
        if each.destination.method != model.ROUTE or default is None or assigned is None:
            continue
        strict = assigned.address.version == 4 and host.conf(assigned.interface, "rp_filter") == _STRICT
        if strict and assigned.interface != default.interface:
            found.add(assigned.interface)
    yield from sorted(found)


def _finding(host: Host, interface: str, what: str) -> Finding:
    commands: list[Mend] = [mends.set_conf(host, interface, "rp_filter", _LOOSE)]
    return Finding(
        host.name,
        f"real server {host.name} drops {what}: rp_filter is strict on {interface}",
        tuple(
            f"net.ipv4.conf.{where}.rp_filter is {host.setting(f'net.ipv4.conf.{where}.rp_filter')}"
            for where in ("all", interface)
        ),
        "Connections that are given to this real server time out; its own address answers.",
        tuple(commands),
    )
