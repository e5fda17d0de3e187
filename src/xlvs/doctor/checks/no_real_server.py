# SPDX-License-Identifier: GPL-2.0-only
"""A virtual service has no real server.

The service is there and nobody serves it: somebody forgot `-a`, or a daemon has taken
out all real servers because their checks fail.  The director refuses each client
itself (by ICMP "port unreachable"), even where a program on it listens on that port.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding

RANK = 16
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "ipvsadm -A -t {vip}:8085 -s rr"),),
        restores=(("director", "ipvsadm -D -t {vip}:8085"),),
        hosts=("director",),
        mended=False,
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for services without any real server."""
    for director, table, entry in cluster.services():
        if not entry.destinations:
            words = mends.service_words(entry.service.key)
            yield Finding(
                director.name,
                f"{words} has no real server",
                (f"{table.command} -L -n {words}: no destination",),
                "All of its clients are refused at once.",
                advice=f"{table.command} -a {words} -r …; where a daemon looks after the table, see why it "
                "has taken them out: xlvs status",
            )
