# SPDX-License-Identifier: GPL-2.0-only
"""ip_forward is off where packets need it.

Kernel IPVS sends masqueraded answers by way of FORWARD, which needs ip_forward.
For xlvs it does not matter (a note says what real servers cannot do without
it: begin connections of their own through the director).  A router that does not
forward is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import FAULT, NOTE, Finding, Mend

RANK = 52
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(("router", "sysctl -w net.ipv4.ip_forward=0"),),
        restores=(("router", "sysctl -w net.ipv4.ip_forward=1"),),
        hosts=("router",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at directors that masquerade, and at routers."""
    for router in cluster.hosts:
        if router.role == "router" and not router.setting("net.ipv4.ip_forward"):
            yield Finding(
                router.name,
                f"ip_forward is off on the router {router.name}",
                ("net.ipv4.ip_forward is 0",),
                "Nothing passes from one network to the other.",
                (_on(router.name),),
            )
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
            (_on(director.name),),
            severity=FAULT if kernel else NOTE,
        )


def _on(host: str) -> Mend:
    return Mend(host, "sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv4.ip_forward=0")
