# SPDX-License-Identifier: GPL-2.0-only
"""No director has the VIP.

A director takes packets for the VIP only if the address is its own; nobody
else answers ARP for it either.  A director that stands by is in order: then
another one has the VIP, and answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, asking
from xlvs.doctor.finding import Finding
from xlvs.doctor.host import Address, Host

RANK = 35
_VRRP_MACS = ("00:00:5e:00:01:", "00:00:5e:00:02:")
"""Of IPv4's and IPv6's virtual routers (RFC 5798, 7.3)."""
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "ip addr del {vip}/32 dev {interface}"),),
        restores=(("director", "ip addr add {vip}/32 dev {interface}"),),
        hosts=("director",),
    ),
    Scenario(
        "dr6",
        breaks=(("director", "ip addr del {vip6}/128 dev {interface}"),),
        restores=(("director", "ip addr add {vip6}/128 dev {interface} nodad preferred_lft 0"),),
        hosts=("director",),
    ),
    Scenario(
        "nat",
        breaks=(("director", "ip addr del {vip}/32 dev {interface}"),),
        restores=(("director", "ip addr add {vip}/32 dev {interface}"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for each VIP on the directors that serve it, and on the segment."""
    seen: set[tuple[str, Address]] = set()
    for director, _, entry in cluster.services():
        address = next(iter(_virtual(entry.service.key.address)), None)
        if address is None or director.has(address) or (director.name, address) in seen:
            continue
        seen.add((director.name, address))
        if _is_elsewhere(cluster, director, address):
            continue
        interface = _interface(cluster, director, address)
        yield Finding(
            director.name,
            f"the director {director.name} does not have the VIP {address}",
            (
                f"{mends.service_words(entry.service.key)} is in its table, {address} on no interface",
                f"nobody else answers {asking(address)} for {address}",
            ),
            f"Nobody answers {asking(address)} for the VIP, and packets that come all the same are not "
            "taken: the service is down for everybody.",
            (mends.add_address(director, address, interface),) if interface else (),
            "" if interface else f"ip addr add {address}/{address.max_prefixlen} dev INTERFACE",
        )


def _virtual(packed: bytes) -> Iterator[Address]:
    from ipaddress import ip_address

    if packed:
        yield ip_address(packed)


def _is_elsewhere(cluster: Cluster, director: Host, address: Address) -> bool:
    if any(other.has(address) for other in cluster.directors if other is not director):
        return True
    servers = {str(served.real_server) for served in cluster.served()}
    for heard in cluster.answers_for(address):
        mac = heard.sighting.mac
        # VRRP's virtual MAC is every director's of the group, also of those that stand by.
        unknown = cluster.owner(mac) is None or mac.startswith(_VRRP_MACS)
        if unknown and not cluster.whole:
            known = {str(each) for each in cluster.addresses_of(mac)}
            if not known & servers:
                return True
    return False


def _interface(cluster: Cluster, director: Host, address: Address) -> str:
    """Where the VIP belongs: in whose network it is, else where the real servers are."""
    found = director.interface_towards(address)
    for served in cluster.served():
        found = found or (
            director.interface_towards(served.real_server) if served.director is director else ""
        )
    return found or next((link.name for link in director.ethernet()), "")
