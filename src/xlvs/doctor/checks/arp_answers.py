# SPDX-License-Identifier: GPL-2.0-only
"""A real server answers ARP for the VIP.

With Direct Routing every real server has the VIP, and Linux answers ARP for
any address of the host on any interface.  Whoever asks believes the answer that comes
last, and from then on the real server gets all of his packets, past the director: no balancing,
and no other server when it fails.  The doctor asks for the VIP on the segment and says
whose MAC answers; on a real server alone it looks at arp_ignore, of which the
higher value of `all` and the interface counts.  With IPv6 only addresses of the interface itself
are answered for, so a VIP on lo is silent, and one on an Ethernet interface is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, asking
from xlvs.doctor.finding import Finding
from xlvs.doctor.host import Address, Host

RANK = 10
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("rs2", "sysctl -w net.ipv4.conf.all.arp_ignore=0"),
            ("rs2", "sysctl -w net.ipv4.conf.lo.arp_ignore=0"),
        ),
        restores=(
            ("rs2", "sysctl -w net.ipv4.conf.all.arp_ignore=1"),
            ("rs2", "sysctl -w net.ipv4.conf.lo.arp_ignore=1"),
        ),
        hosts=("rs2",),
    ),
    Scenario(
        "dr",
        breaks=(("rs3", "ip addr add {vip}/32 dev {interface}"), ("rs3", "ip addr del {vip}/32 dev lo")),
        restores=(("rs3", "ip addr del {vip}/32 dev {interface}"), ("rs3", "ip addr add {vip}/32 dev lo")),
        hosts=("rs3",),
    ),
    Scenario(
        "dr6",
        breaks=(("rs3", "ip addr add {vip6}/128 dev {interface} nodad preferred_lft 0"),),
        restores=(("rs3", "ip addr del {vip6}/128 dev {interface}"),),
        hosts=("rs3",),
    ),
)

_EFFECT = (
    "Clients, or their router, send to this real server directly: everything goes to it, nothing "
    "is balanced, and when it fails the service fails."
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge what answered, and real servers that nobody could ask about."""
    servers = cluster.real_server_hosts()
    seen: set[tuple[str, Address]] = set()
    for address in cluster.virtual_addresses():
        # Of directors that are real servers, too, one may answer: it is the director then.
        director = next(
            (
                each
                for each in cluster.directors
                if _serves(each, address) and cluster.announces(each, address)
            ),
            None,
        )
        for heard in cluster.answers_for(address):
            owner = cluster.owner(heard.sighting.mac)
            evidence = (
                f"{heard.asker.name} asked for {address} on {heard.sighting.interface}: "
                f"{cluster.called(heard.sighting.mac)}, answered",
            )
            if owner is None:
                if not cluster.is_own_real_server(heard.asker, address):
                    yield from _from_afar(cluster, address, heard.sighting.mac, evidence)
                continue
            host, link = owner
            if (
                host is director
                or host.name not in servers
                or not host.has(address)
                or (host.name, address) in seen
            ):
                continue
            seen.add((host.name, address))
            yield _finding(host, link.name, address, evidence)
    for host, served in servers.values():
        for address in cluster.virtual_addresses_of(host, served):
            asked = cluster.whole or host.keeps_silent(address)
            if isinstance(address, IPv4Address) and not asked and (host.name, address) not in seen:
                yield from _by_its_settings(host, address)


def _serves(director: Host, address: Address) -> bool:
    return any(
        entry.service.key.address == address.packed for table in director.tables for entry in table.services
    )


def _by_its_settings(host: Host, address: Address) -> Iterator[Finding]:
    for link in host.ethernet():
        if host.conf(link.name, "arp_ignore") == 0 and host.has(address):
            yield _finding(host, link.name, address, ())
            return


def _finding(host: Host, interface: str, address: Address, evidence: tuple[str, ...]) -> Finding:
    settings: tuple[str, ...] = ()
    commands = []
    if address.version == 4:
        settings = tuple(
            f"net.ipv4.conf.{where}.arp_ignore is {host.setting(f'net.ipv4.conf.{where}.arp_ignore')}"
            for where in ("all", interface)
        )
        if host.conf(interface, "arp_ignore") < 1:
            commands.append(mends.set_conf(host, "all", "arp_ignore", 1))
    # arp_ignore 1 hides only what is not on the interface itself.
    open_to_all = {link.name for link in host.links if link.ethernet}
    for assigned in host.addresses:
        if assigned.address != address or assigned.interface not in open_to_all:
            continue
        commands.append(mends.delete_address(host, assigned))
        if not any(each.address == address and each.interface == "lo" for each in host.addresses):
            commands.append(mends.add_address(host, address, "lo"))
        settings += (f"{assigned} is on {assigned.interface}, where nothing hides it",)
    return Finding(
        host.name, f"real server {host.name} answers {asking(address)} for the VIP {address}",
        evidence + settings, _EFFECT, tuple(commands),
    )  # fmt: skip


def _from_afar(cluster: Cluster, address: Address, mac: str, evidence: tuple[str, ...]) -> Iterator[Finding]:
    """A MAC that is known only for the real server's address it answers for."""
    for own in sorted(cluster.addresses_of(mac), key=lambda each: each.version != address.version):
        if any(served.real_server == own for served in cluster.served()):
            yield Finding(
                str(own), f"real server {own} answers {asking(address)} for the VIP {address}", evidence,
                _EFFECT, advice=f"on {own}: xlvs realserver add --vip {address}; or by hand: "
                + ("sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
                   if address.version == 4 else "take it from the Ethernet interface, and give it to lo"),
            )  # fmt: skip
            return
