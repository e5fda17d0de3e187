# SPDX-License-Identifier: GPL-2.0-only
"""What `xlvs realserver` has set up is no longer so.

A real server that was set up by `xlvs realserver add` is remembered there; somebody, or
another program's configuration, has changed some of it since.  This is said of a
real server that is looked at by itself, where no other check says more.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario, all_checks
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, Finding

RANK = 98
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "in a lab every host is seen, and the other checks say more"


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Say what `xlvs realserver check` finds."""
    faulty = [host for host in cluster.hosts if host.lacks and not cluster.whole]
    if not faulty:
        return
    known = {
        finding.host
        for check in all_checks()
        if check.rank < RANK
        for finding in check.examine(cluster)
        if finding.severity != NOTE
    }
    for host in faulty:
        for what, remedy in host.lacks if host.name not in known else ():
            yield Finding(
                host.name,
                what,
                ("xlvs realserver check",),
                "It does not serve as it was set up to.",
                advice=remedy,
            )
