# SPDX-License-Identifier: GPL-2.0-only
"""The data plane is not attached to an interface.

Clients' packets that come in by an interface without the packet path are not
balanced: they end at the director itself.  Of an interface that has the VIP that is a
fault; of others (one for management alone) a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import FAULT, NOTE, Finding, Mend

RANK = 38
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "xlvs detach {interface}"),),
        restores=(("director", "xlvs attach {interface}"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look where the packet path runs."""
    for director in cluster.directors:
        virtual = {
            assigned.interface
            for address in cluster.virtual_addresses()
            if (assigned := director.with_address(address)) is not None
        }
        for name in director.director.not_attached:
            yield Finding(
                director.name,
                f"the data plane is not attached to {name} of {director.name}",
                (f"xlvs status: {name} none",),
                "Packets for virtual services that come in by it are not balanced.",
                (Mend(director.name, f"xlvs attach {quote(name)}", f"xlvs detach {quote(name)}"),),
                severity=FAULT if name in virtual else NOTE,
            )
