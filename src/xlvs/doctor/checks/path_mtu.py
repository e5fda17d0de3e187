# SPDX-License-Identifier: GPL-2.0-only
"""Full-size packets to a real server vanish.

A jumbo frame on one side only, or a tunnel over a path that is too narrow for its
headers with a firewall that drops the routers' complaints: small packets
pass, connections are made, and the first large one never arrives.  The
doctor sends a small ping and one of the interface's full size, not to be
fragmented, and is content if a router says "too big".  In a lab it also compares the
MTUs of a segment's interfaces: a router that is narrower than its neighbours takes nothing large from them.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding
from xlvs.doctor.host import Host, Link

RANK = 62
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("rs1", "ip link set {interface} mtu 1400"),),
        restores=(("rs1", "ip link set {interface} mtu 1500"),),
        hosts=("rs1",),
    ),
    Scenario(
        "tun",
        breaks=(("rs2", "ip link set {interface} mtu 1300"),),
        restores=(("rs2", "ip link set {interface} mtu 1500"),),
        hosts=("rs2",),
    ),
    Scenario(
        "tun",
        breaks=(("router", "ip link set eth1 mtu 1400"),),
        restores=(("router", "ip link set eth1 mtu 1500"),),
        hosts=("router",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge what was swallowed; and interfaces of one segment, which have to agree on the MTU."""
    seen: set[str] = set()
    for served in cluster.served():
        address = served.real_server
        passage = cluster.passages.get((served.director.name, address))
        if passage is None or not passage.swallowed or served.name in seen:
            continue
        seen.add(served.name)
        evidence = (
            f"{served.director.name} pinged {address}: {passage.smallest} bytes are answered, "
            f"{passage.size} bytes are not, and nobody says that they are too big"
        )
        narrow = list(_narrow(cluster, passage.size))
        here = [(host, link) for host, link in narrow if served.host is host]
        yield _finding(served.name, served.name, evidence, passage.size, here or narrow)
    servers = {served.host.name for served in cluster.served() if served.host is not None}
    for host, link in _narrow(cluster, 0) if cluster.whole else ():
        if host.role == "router" and not seen & servers:
            wide = max(other.mtu for _, other in _segment(cluster, host, link))
            evidence = f"others of its segment have an MTU of {wide}"
            yield _finding(host.name, f"{link.name} of {host.name}", evidence, wide, [(host, link)])


def _segment(cluster: Cluster, host: Host, link: Link) -> list[tuple[Host, Link]]:
    """The interfaces that have an address in one of an interface's networks, its own among them."""
    networks = {
        each.network
        for each in host.addresses
        if each.interface == link.name and 0 < each.length < each.address.max_prefixlen
        and not each.address.is_link_local
    }  # fmt: skip
    return [
        (other, face)
        for other in cluster.hosts
        for face in other.ethernet()
        if any(each.interface == face.name and each.network in networks for each in other.addresses)
    ]


def _narrow(cluster: Cluster, size: int) -> Iterator[tuple[Host, Link]]:
    """Interfaces with a smaller MTU than others of their segment, and than ``size`` where that is given."""
    for host in cluster.hosts:
        for link in host.ethernet():
            wide = max((other.mtu for _, other in _segment(cluster, host, link)), default=link.mtu)
            if link.mtu < wide and (not size or link.mtu < size):
                yield host, link


def _finding(name: str, whom: str, evidence: str, size: int, narrow: list[tuple[Host, Link]]) -> Finding:
    return Finding(
        name,
        f"full-size packets to {'real server ' if whom == name else ''}{whom} vanish",
        (evidence, *(f"the MTU of {link.name} on {host.name} is {link.mtu}" for host, link in narrow)),
        "Connections are made, and hang as soon as a client sends much: uploads, long requests, TLS.",
        tuple(mends.set_link(host, link.name, f"mtu {size}", f"mtu {link.mtu}") for host, link in narrow),
        ""
        if narrow
        else "give both ends of each segment one MTU, let routers' ICMP \"fragmentation "
        'needed" pass, or have real servers ask for less: ip route change default via … advmss 1400',
    )
