# SPDX-License-Identifier: GPL-2.0-only
"""The VIP stands on a real server's lo with a netmask of its own network.

On lo a netmask means that every address of that network is the host's own.  A
real server with 192.0.2.100/24 there takes its whole segment for itself: it
answers nobody on it, its gateway included.  A VIP on lo, or on a tunnel's
device, is a /32 (IPv6: /128).
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding

RANK = 25
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("rs1", "ip addr del {vip}/32 dev lo"), ("rs1", "ip addr add {vip}/24 dev lo")),
        restores=(("rs1", "ip addr del {vip}/24 dev lo"), ("rs1", "ip addr add {vip}/32 dev lo")),
        hosts=("rs1",),
    ),
    Scenario(
        "dr6",
        breaks=(
            ("rs1", "ip addr del {vip6}/128 dev lo && ip addr add {vip6}/64 dev lo nodad preferred_lft 0"),
        ),
        restores=(
            ("rs1", "ip addr del {vip6}/64 dev lo && ip addr add {vip6}/128 dev lo nodad preferred_lft 0"),
        ),
        hosts=("rs1",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the addresses on lo and on tunnels' devices."""
    methods = (model.ROUTE, model.TUNNEL, model.MASQUERADE)
    for host, _ in cluster.real_server_hosts(*methods).values():
        for assigned in host.hidden_addresses():
            full = assigned.address.max_prefixlen
            if assigned.length == full:
                continue
            yield Finding(
                host.name,
                f"{host.name} has {assigned} on {assigned.interface}: the whole network {assigned.network} "
                "counts as its own",
                (f"ip addr show dev {assigned.interface}: {assigned}",),
                f"Hosts in {assigned.network}, the gateway among them, get no answers from it: clients "
                "that are given to it time out.",
                (
                    mends.delete_address(host, assigned),
                    mends.add_address(host, assigned.address, assigned.interface),
                ),
            )
