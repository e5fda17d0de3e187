# SPDX-License-Identifier: GPL-2.0-only
"""Full-size packets to a real server vanish.

A jumbo frame on one side only, or a tunnel over a path that is too narrow for its
headers with a firewall that drops the routers' complaints: small packets
pass, connections are made, and the first large one never arrives.  The
doctor sends a small ping and one of the interface's full size, not to be
fragmented, and is content if a router says "too big".
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend

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
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge what was swallowed."""
    seen: set[str] = set()
    for served in cluster.served():
        address = served.real_server
        passage = (
            cluster.passages.get((served.director.name, address))
            if isinstance(address, IPv4Address)
            else None
        )
        if passage is None or not passage.swallowed or served.name in seen:
            continue
        seen.add(served.name)
        commands: tuple[Mend, ...] = ()
        evidence = [
            f"{served.director.name} pinged {address}: 28 bytes are answered, {passage.size} bytes are not, "
            "and nobody says that they are too big"
        ]
        assigned = served.host.with_address(address) if served.host else None
        link = served.host.link(assigned.interface) if served.host and assigned else None
        if link is not None and link.mtu < passage.size and served.host is not None:
            evidence.append(f"the MTU of {link.name} on {served.name} is {link.mtu}")
            commands = (
                Mend(
                    served.host.name,
                    f"ip link set {link.name} mtu {passage.size}",
                    f"ip link set {link.name} mtu {link.mtu}",
                ),
            )
        yield Finding(
            served.name,
            f"full-size packets to real server {served.name} vanish",
            tuple(evidence),
            "Connections are made, and hang as soon as a client sends much: uploads, long requests, TLS.",
            commands,
            ""
            if commands
            else "give both ends of each segment one MTU, let routers' ICMP \"fragmentation "
            'needed" pass, or have real servers ask for less: ip route change default via … advmss 1400',
        )
