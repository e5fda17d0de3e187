# SPDX-License-Identifier: GPL-2.0-only
"""ip_forward is off where the packets of NAT need it.

Kernel IPVS sends masqueraded answers by way of FORWARD, which needs ip_forward.
For xlvs it does not matter (a note says what real servers cannot do without
it: begin connections of their own through the director).
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import FAULT, NOTE, Finding, Mend

RANK = 52
SCENARIOS: tuple[Scenario, ...] = ()  # it takes kernel IPVS, which not every kernel has


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at directors that masquerade."""
    seen: set[tuple[str, str]] = set()
    for served in cluster.served(model.MASQUERADE):
        director, command = served.director, served.table.command
        if director.setting("net.ipv4.ip_forward") or (director.name, command) in seen:
            continue
        if served.real_server.version != 4:
            continue
        seen.add((director.name, command))
        kernel = command == "ipvsadm"
        yield Finding(
            director.name,
            f"ip_forward is off on {director.name}, and "
            + ("kernel IPVS masquerades" if kernel else "its real servers are behind NAT"),
            ("net.ipv4.ip_forward is 0",),
            "Real servers' answers are dropped: every connection times out."
            if kernel
            else "None: xlvs does without. What real servers begin themselves is not forwarded.",
            (Mend(director.name, "sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv4.ip_forward=0"),),
            severity=FAULT if kernel else NOTE,
        )
