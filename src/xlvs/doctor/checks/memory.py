# SPDX-License-Identifier: GPL-2.0-only
"""A director has little memory left.

What the data plane was loaded with it keeps, but what lblc, lblcr and SIP
remember takes more as it fills, 70 MB at most.  And `xlvs explain` tries a
packet on a copy of the tables, which takes as much as they do.  The doctor
looks at what the machine has left, and the control group in which it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, WARNING, Finding

RANK = 89
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "it is the whole machine's"
_GROWTH = 70 << 20


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Compare what is left with what the tables may still take, and with a copy of them."""
    for director in cluster.hosts:
        memory, tables = director.memory, director.director.table_bytes
        if not tables or memory is None or memory.available >= max(_GROWTH, tables):
            continue
        scarce = memory.available < _GROWTH
        yield Finding(
            director.name,
            f"{director.name} has {memory.available >> 20} MiB of memory left",
            (
                f"{memory.source}: {memory.available >> 20} MiB are left",
                f"the tables take {tables >> 20} MiB",
            ),
            "Tables that grow cannot, and the kernel may end processes."
            if scarce
            else "None for clients; xlvs explain is refused.",
            advice="free memory, or load smaller tables: xlvs save; xlvs detach; "
            "xlvs attach --connections N; xlvs load",
            severity=WARNING if scarce else NOTE,
        )
