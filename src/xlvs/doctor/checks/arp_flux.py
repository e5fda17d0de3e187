# SPDX-License-Identifier: GPL-2.0-only
"""ARP flux: a host with two interfaces on one segment answers by both.

Linux answers ARP on every interface for every address of the host.  With two
interfaces on one segment both answer for the same address, with different
MACs; whoever asks keeps the one that came last.  Packets come in by an
interface where nobody expects them: where the data plane is not attached, or
rp_filter drops them.  The doctor asks and counts the MACs for each address.
(With IPv6 an interface answers for its own addresses alone.)
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Address, Host, Link

RANK = 30
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("switch", "ip link add flux type veth peer name eth5 netns xlvs-{lab}-director"),
            ("switch", "ip link set flux up master lan"),
            ("director", "ip link set eth5 up && ip addr add 192.0.2.11/24 dev eth5"),
        ),
        restores=(("switch", "ip link del flux"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Count who answers; a host seen alone is judged by its settings."""
    seen: set[str] = set()
    asked: dict[Address, dict[str, list[tuple[Link, str]]]] = {}
    for heard in cluster.heard:
        owner = cluster.owner(heard.sighting.mac)
        if owner is not None and heard.sighting.address.version == 4:
            hosts = asked.setdefault(heard.sighting.address, {})
            answer = (owner[1], heard.asker.name)
            if answer not in hosts.setdefault(owner[0].name, []):
                hosts[owner[0].name].append(answer)
    for address, hosts in asked.items():
        for host in cluster.hosts:
            answers = hosts.get(host.name, [])
            links = {link.name: link for link, _ in answers}
            if len(links) > 1 and host.name not in seen and host.has(address):
                seen.add(host.name)
                evidence = tuple(
                    f"{asker} asked for {address}: {link.name} of {host.name}, {link.mac}, answered"
                    for link, asker in dict(zip(links, answers, strict=False)).values()
                )
                yield _finding(host, address, evidence, list(links))
    if not cluster.whole:
        yield from _by_their_settings(cluster)
        yield from _from_afar(cluster)


def _by_their_settings(cluster: Cluster) -> Iterator[Finding]:
    for host in cluster.hosts:
        by_network: dict[object, list[tuple[str, IPv4Address]]] = {}
        ethernet = {link.name for link in host.ethernet()}
        for each in host.addresses:
            if each.interface in ethernet and isinstance(each.address, IPv4Address) and each.length < 32:
                by_network.setdefault(each.network, []).append((each.interface, each.address))
        for places in by_network.values():
            names = list(dict.fromkeys(name for name, _ in places))
            if len(names) > 1 and not any(_keeps_apart(host, name) for name in names):
                evidence = tuple(f"{address} is on {name}" for name, address in places)
                yield _finding(host, places[0][1], evidence, names)


def _keeps_apart(host: Host, name: str) -> bool:
    return host.conf(name, "arp_ignore") > 0 or host.conf(name, "arp_filter") > 0


def _finding(host: Host, address: Address, evidence: tuple[str, ...], names: list[str]) -> Finding:
    settings = tuple(
        f"net.ipv4.conf.{name}.arp_ignore is {host.setting(f'net.ipv4.conf.{name}.arp_ignore')}"
        for name in ("all", *names)
    )
    commands: list[Mend] = []
    if host.setting("net.ipv4.conf.all.arp_ignore") < 1:
        commands.append(mends.set_conf(host, "all", "arp_ignore", 1))
    if host.setting("net.ipv4.conf.all.arp_announce") < 2:
        commands.append(mends.set_conf(host, "all", "arp_announce", 2))
    return Finding(
        host.name,
        f"{host.name} answers ARP for {address} by several interfaces on one segment: {' '.join(names)}",
        evidence + settings,
        "Packets come in by one interface or the other, as the last ARP answer will have it: some "
        "clients are served, others not, and that changes by itself.",
        tuple(commands),
    )


def _from_afar(cluster: Cluster) -> Iterator[Finding]:
    for address in {heard.sighting.address for heard in cluster.heard}:
        if address in cluster.virtual_addresses() or address.version != 4:
            continue
        answers = cluster.answers_for(address)
        if len(answers) > 1:
            yield Finding(
                str(address),
                f"{address} is answered for by {len(answers)} MACs",
                tuple(f"{heard.asker.name} heard {heard.sighting.mac}" for heard in answers),
                "Packets to it arrive at one or the other, as the last ARP answer will have it.",
                advice="one host with two interfaces there: sysctl -w net.ipv4.conf.all.arp_ignore=1 "
                "net.ipv4.conf.all.arp_announce=2 there; two hosts: give one of them another address",
            )
