# SPDX-License-Identifier: GPL-2.0-only
"""Connection tracking is full.

Where netfilter tracks connections a full table drops what is new ("nf_conntrack:
table full, dropping packet").  xlvs is no part of it; kernel IPVS with conntrack, NAT by
iptables on real servers, and routers are.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding, Mend

RANK = 87
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "the limit is the whole machine's; a test in a virtual machine sets it"
_NEARLY = 0.9


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare each host's count with the limit."""
    for host in cluster.hosts:
        if host.conntrack is None:
            continue
        count, limit = host.conntrack
        if limit == 0 or count < limit * _NEARLY:
            continue
        yield Finding(
            host.name,
            f"connection tracking on {host.name} is {'full' if count >= limit else 'nearly full'}",
            (f"net.netfilter.nf_conntrack_count is {count}, nf_conntrack_max {limit}",),
            "New connections are dropped, at random as it seems, when many come at a time.",
            (
                Mend(
                    host.name,
                    f"sysctl -w net.netfilter.nf_conntrack_max={4 * limit}",
                    f"sysctl -w net.netfilter.nf_conntrack_max={limit}",
                ),
            ),
            "or track nothing that goes to the VIP: iptables -t raw -A PREROUTING -d VIP -j CT --notrack",
            severity=WARNING,
        )
