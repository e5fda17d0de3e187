# SPDX-License-Identifier: GPL-2.0-only
"""Kernel IPVS and xlvs both have a service of one VIP.

xlvs sees packets first, so the kernel's service never gets one; its listing
shows a cluster that serves nobody, and a daemon that fills the kernel's table
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding

RANK = 93
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "it takes a kernel with IPVS; a test in a virtual machine has one"


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare both tables."""
    for director in cluster.directors:
        own = {entry.service.key for entry in director.director.own.services}
        for entry in director.director.kernel.services:
            if entry.service.key not in own:
                continue
            words = mends.service_words(entry.service.key)
            yield Finding(
                director.name,
                f"{words} is in the kernel's table and in that of xlvs",
                (f"/proc/net/ip_vs: {entry.service.scheduler}, {len(entry.destinations)} real servers",),
                "xlvs serves it; whatever is changed in the kernel's table has no effect on clients.",
                advice=f"decide for one: ipvsadm -D {words} (the kernel's), or xlvsadm -D {words}",
                severity=WARNING,
            )
