# SPDX-License-Identifier: GPL-2.0-only
"""Two hosts have the VIP.

Two directors that both believe to be the active one (split brain), a director
that died without giving the VIP up, or a host that was given the address by
mistake: both answer ARP, and each client is served by whichever answered last.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Heard, asking
from xlvs.doctor.finding import Finding
from xlvs.doctor.host import Address, Host

RANK = 40
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("client", "ip addr add {vip}/32 dev {interface}"),),
        restores=(("client", "ip addr del {vip}/32 dev {interface}"),),
        hosts=("client",),
    ),
    Scenario(
        "dr6",
        breaks=(("client", "ip addr add {vip6}/128 dev {interface} nodad"),),
        restores=(("client", "ip addr del {vip6}/128 dev {interface}"),),
        hosts=("client",),
    ),
)

_EFFECT = (
    "Each client, or the router for all, sends to whichever answered last: connections break off "
    "or are refused whenever an ARP cache forgets."
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Count the hosts that answer for a VIP, those aside that have it as real servers."""
    for address in cluster.virtual_addresses():
        holders = [host for host in cluster.directors if host.has(address)]
        first = holders[0] if holders else None
        for heard in cluster.answers_for(address):
            owner = cluster.owner(heard.sighting.mac)
            if owner is None:
                yield from _stranger(cluster, address, heard, first)
                continue
            host = owner[0]
            second = first is not None and host is not first and host.has(address)
            if first is not None and second and not _serves(cluster, host, address):
                yield _finding(cluster, address, heard, host, first)


def _serves(cluster: Cluster, host: Host, address: Address) -> bool:
    """Whether the host has the VIP as a real server of it: then it should hide it."""
    return any(served.host is host and served.virtual == address for served in cluster.served())


def _finding(cluster: Cluster, address: Address, heard: Heard, host: Host, director: Host) -> Finding:
    assigned = host.with_address(address)
    return Finding(
        host.name,
        f"{host.name} has the VIP {address} as well as the director {director.name}",
        (
            f"{heard.asker.name} asked for {address} on {heard.sighting.interface}: "
            f"{cluster.called(heard.sighting.mac)}, answered",
            *((f"{assigned} is on {assigned.interface} of {host.name}",) if assigned else ()),
        ),
        _EFFECT,
        (mends.delete_address(host, assigned),) if assigned else (),
    )


def _stranger(cluster: Cluster, address: Address, heard: Heard, director: Host | None) -> Iterator[Finding]:
    servers = {served.real_server for served in cluster.served()}
    if director is None or heard.asker is not director:
        return
    if not servers.isdisjoint(cluster.addresses_of(heard.sighting.mac)):
        return  # a real server, which is another check's
    yield Finding(
        director.name,
        f"another host answers {asking(address)} for the VIP {address} of {director.name}",
        (
            f"{director.name} asked for {address} on {heard.sighting.interface}: "
            f"{cluster.called(heard.sighting.mac)}, answered",
        ),
        _EFFECT,
        advice=f"find the host with the MAC {heard.sighting.mac} and take {address} from it; of two "
        "directors with VRRP, see why they do not hear each other (firewall, router id, password)",
    )
