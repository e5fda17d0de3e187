# SPDX-License-Identifier: GPL-2.0-only
"""ip_forward is off where packets need it.

Kernel IPVS sends masqueraded answers by way of FORWARD, which needs ip_forward
(for IPv6 net.ipv6.conf.all.forwarding).
For xlvs it does not matter (a note says what real servers cannot do without
it: begin connections of their own through the director).  A router that does not
forward is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import FAULT, NOTE, Finding
from xlvs.doctor.host import FORWARDING

RANK = 52
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(("router", "sysctl -w net.ipv4.ip_forward=0"),),
        restores=(("router", "sysctl -w net.ipv4.ip_forward=1"),),
        hosts=("router",),
    ),
    Scenario(
        "tun6",
        breaks=(("router", "sysctl -w net.ipv6.conf.all.forwarding=0"),),
        restores=(("router", "sysctl -w net.ipv6.conf.all.forwarding=1"),),
        hosts=("router",),
    ),
)
_NAMES = {4: "ip_forward", 6: "forwarding of IPv6"}


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at directors that masquerade, and at routers."""
    for router in cluster.hosts:
        for version in cluster.versions() if router.role == "router" else ():
            if not router.forwards(version):
                yield Finding(
                    router.name,
                    f"{_NAMES[version]} is off on the router {router.name}",
                    (f"{FORWARDING[version]} is 0",),
                    f"Nothing of IPv{version} passes from one network to the other.",
                    (mends.forward(router, version),),
                )
    seen: set[tuple[str, str, int]] = set()
    for served in cluster.served(model.MASQUERADE):
        director, command, version = served.director, served.table.command, served.real_server.version
        if director.forwards(version) or (director.name, command, version) in seen:
            continue
        seen.add((director.name, command, version))
        kernel = command == "ipvsadm"
        yield Finding(
            director.name,
            f"{_NAMES[version]} is off on {director.name}, and "
            + ("kernel IPVS masquerades" if kernel else "its real servers are behind NAT"),
            (f"{FORWARDING[version]} is 0",),
            "Real servers' answers are dropped: every connection times out."
            if kernel
            else "None: xlvs does without. What real servers begin themselves is not forwarded.",
            (mends.forward(director, version),),
            severity=FAULT if kernel else NOTE,
        )
