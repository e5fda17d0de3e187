# SPDX-License-Identifier: GPL-2.0-only
"""The data plane is not attached to an interface.

Clients' packets that come in by an interface without the packet path are not
balanced: they end at the director itself.  What masqueraded real servers answer by one
leaves with their own addresses, which clients drop.  Of an interface that has the VIP, or
leads to such a real server, that is a fault; of others (one for management alone) a note.
Interfaces without Ethernet headers (WireGuard, tun) have no place for it at all.
Interfaces that come back, or up after the first `xlvsadm -A`, are attached by themselves where
somebody follows them (`xlvs-interfaces.service`, xlvsd, `xlvs run`, `xlvs follow`): then only
those are named that were detached by hand, or could not be attached.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from xlvs import model
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import FAULT, NOTE, Finding, Mend
from xlvs.doctor.host import Address, Host

RANK = 38
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "xlvs detach {interface}"),),
        restores=(("director", "xlvs attach {interface}"),),
        hosts=("director",),
    ),
    Scenario(
        "nat",
        breaks=(("director", "xlvs detach eth1"),),
        restores=(("director", "xlvs attach eth1"),),
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
        inside = _answering_by(cluster, director)
        for name in director.director.not_attached:
            evidence = f"xlvs status: {name} none"
            effect = "Packets for virtual services that come in by it are not balanced."
            if name in director.director.refused:
                evidence += f"; {director.director.refused[name]}"
            elif not director.director.followed:
                evidence += "; nobody follows interfaces that come back, or new ones"
            if name in inside:
                evidence += f"; the masqueraded real server {inside[name]} is reached by it"
                effect += " Answers of real servers there leave untranslated: their clients time out."
            yield Finding(
                director.name,
                f"the data plane is not attached to {name} of {director.name}",
                (evidence,),
                effect,
                (Mend(director.name, f"xlvs attach {quote(name)}", f"xlvs detach {quote(name)}"),),
                severity=FAULT if name in virtual or name in inside else NOTE,
            )
        for name in sorted(inside.keys() - director.director.not_attached - director.director.hooks.keys()):
            yield Finding(
                director.name,
                f"the data plane cannot be attached to {name} of {director.name}",
                (f"the masqueraded real server {inside[name]} is reached by it",),
                "Answers of real servers there leave untranslated: their clients time out.",
                advice="reach these real servers by an Ethernet interface, or without NAT (-g, -i)",
            )


def _answering_by(cluster: Cluster, director: Host) -> dict[str, Address]:
    """The interfaces by which answers of masqueraded real servers come, each with one of these."""
    found: dict[str, Address] = {}
    for served in cluster.served(model.MASQUERADE):
        route = director.route_to(served.real_server)
        ours = served.director is director and served.table is director.director.own
        if ours and not served.is_local and route is not None:
            found.setdefault(route.interface, served.real_server)
    return found
