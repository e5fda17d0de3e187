# SPDX-License-Identifier: GPL-2.0-only
"""A director that stands by as a real server balances again what it is given.

Of two machines that are director and real server, both, one has the VIP and gives
connections to itself and to the other, which has the VIP hidden. If that one has a table
of the same service, it chooses a real server for these packets once more: another machine, or the
first, which gives them back. They go to and fro until their TTL is used up. IPVS does the same.
The director that stands by needs an empty table, or none; VRRP's notify scripts see to that.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding
from xlvs.doctor.host import Host

RANK = 37
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("rs1", "ipvsadm -A -t {vip}:80 -s rr"),
            ("rs1", "ipvsadm -a -t {vip}:80 -r {rip1} -g"),
            ("rs1", "ipvsadm -a -t {vip}:80 -r {rip2} -g"),
        ),
        restores=(("rs1", "xlvs detach"),),
        hosts=("rs1",),
        mended=False,
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for directors that are real servers of a service of theirs, and may give it to others."""
    for director, table, entry in cluster.services():
        own = [
            served
            for served in cluster.served(model.ROUTE, model.TUNNEL, model.LOCAL)
            if served.director is director and served.service.key == entry.service.key
        ]
        others = [served for served in own if not served.is_local and served.destination.weight]
        if not others or others[0].virtual is None or not _stands_by(cluster, director, others[0]):
            continue
        words = mends.service_words(entry.service.key)
        yield Finding(
            director.name,
            f"the director {director.name} balances again what it is given as a real server of {words}",
            (
                f"{others[0].virtual} is hidden on {director.name}, as on a real server",
                f"{words} is in its table, with {' '.join(str(served.real_server) for served in others)}",
            ),
            "Connections that are given to it go on to others, and to and fro between two such directors "
            "until the TTL is used up: their clients wait in vain.",
            advice=f"while it stands by: {table.command} -D {words} (of keepalived.conf: systemctl stop "
            "xlvsd); VRRP's notify_backup and notify_master can do that, and the opposite",
        )


def _stands_by(cluster: Cluster, director: Host, served: Served) -> bool:
    """Whether others give it connections of that service, as far as can be seen."""
    address = served.virtual
    if address is None or cluster.announces(director, address):
        return False
    if cluster.is_own_real_server(director, address):
        return True
    return any(
        other.host is director and other.virtual == address and other.destination.weight
        for other in cluster.served(model.ROUTE, model.TUNNEL)
    )
