# SPDX-License-Identifier: GPL-2.0-only
"""The director has the VIP and does not answer ARP for it.

A VIP on the director's lo is hidden there by the very arp_ignore that real servers
need; or arp_ignore, set for all, hides more than it should.  With IPv6 lo hides it always,
and an address that somebody had before (duplicate address detection) is not used.  The director
has the address, so all seems well, but nobody can find it.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, asking
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Address, Host

RANK = 36
_BESIDE = ("macvlan", "ipvlan")
"""Kinds of devices that get what comes in by the interface that they stand on."""
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("director", "sysctl -w net.ipv4.conf.all.arp_ignore=1"),
            ("director", "ip addr del {vip}/32 dev {interface} && ip addr add {vip}/32 dev lo"),
        ),
        restores=(
            ("director", "sysctl -w net.ipv4.conf.all.arp_ignore=0"),
            ("director", "ip addr del {vip}/32 dev lo && ip addr add {vip}/32 dev {interface}"),
        ),
        hosts=("director",),
    ),
    Scenario(
        "dr6",
        breaks=(
            (
                "director",
                "ip addr del {vip6}/128 dev {interface} && ip addr add {vip6}/128 dev lo preferred_lft 0",
            ),
        ),
        restores=(
            (
                "director",
                "ip addr del {vip6}/128 dev lo && "
                "ip addr add {vip6}/128 dev {interface} nodad preferred_lft 0",
            ),
        ),
        hosts=("director",),
    ),
    Scenario(
        "nat",
        breaks=(("director", "sysctl -w net.ipv4.conf.all.arp_ignore=8"),),
        restores=(("director", "sysctl -w net.ipv4.conf.all.arp_ignore=0"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge directors that were asked and kept silent; alone, those whose settings say so."""
    for address in cluster.virtual_addresses():
        holders = [host for host in cluster.directors if host.has(address)]
        if not holders:
            continue
        askers = [
            host
            for host in cluster.hosts
            if not host.tables and host.role in ("client", "router") and host.interface_towards(address)
        ]
        macs = {link.mac for host in holders for link in host.links}
        answered = any(heard.sighting.mac in macs for heard in cluster.answers_for(address))
        # Who stands by as a real server hides it: another director has it, and answers.
        if cluster.answers_for(address) and all(
            cluster.is_own_real_server(each, address) for each in holders
        ):
            continue
        if answered or (cluster.whole and not askers):
            continue
        director = holders[0]
        assigned = director.with_address(address)
        its_link = director.link(assigned.interface) if assigned else None
        if its_link is not None and not its_link.up:
            continue  # another check's
        interface = _asked_on(director, address)
        hides = bool(interface) and _hides(director, interface, address)
        if not hides and not askers:
            continue
        where = f"{assigned} is on {assigned.interface}" if assigned else f"{address} is a local route"
        yield Finding(
            director.name,
            f"the director {director.name} does not answer {asking(address)} for the VIP {address}",
            (
                *(
                    (f"{askers[0].name} asked for {address}: {director.name} did not answer",)
                    if askers
                    else ()
                ),
                where,
                *(("duplicate address detection found it taken",) if assigned and assigned.failed else ()),
                *(f"{name} is {director.setting(name)}" for name in _names(interface, address)),
            ),
            "Clients, or their router, do not find the VIP: the service is down for all whose ARP cache "
            "has forgotten it.",
            tuple(_commands(director, interface, address)) if hides else (),
            ""
            if hides
            else f"look at what drops {asking(address)} on {director.name}: nft list ruleset, "
            + ("arptables -L" if address.version == 4 else "ip6tables-save"),
        )


def _asked_on(director: Host, address: Address) -> str:
    """The interface that hears who asks for the VIP: a macvlan that has it (VRRP's virtual MAC) hears it
    besides the one that it stands on, and answers by its own settings."""
    assigned = director.with_address(address)
    its_link = director.link(assigned.interface) if assigned else None
    if its_link is not None and its_link.kind in _BESIDE and its_link.ethernet:
        return its_link.name
    return director.interface_towards(address)


def _names(interface: str, address: Address) -> Iterator[str]:
    if address.version == 4:
        for name in ("all", interface) if interface else ("all",):
            yield f"net.ipv4.conf.{name}.arp_ignore"


def _hides(director: Host, interface: str, address: Address) -> bool:
    """Whether the settings keep an interface from answering for an address of the host."""
    assigned = director.with_address(address)
    elsewhere = assigned is None or assigned.interface != interface
    if address.version == 6:
        return elsewhere or (assigned is not None and assigned.failed)
    level = director.conf(interface, "arp_ignore")
    return level >= 3 or (level > 0 and elsewhere)


def _commands(director: Host, interface: str, address: Address) -> Iterator[Mend]:
    for name in ("all", interface) if address.version == 4 else ():
        if director.setting(f"net.ipv4.conf.{name}.arp_ignore") >= 3:
            yield mends.set_conf(director, name, "arp_ignore", 1)
    assigned = director.with_address(address)
    if assigned is not None and (assigned.interface == "lo" or assigned.failed):
        yield mends.delete_address(director, assigned)
        yield mends.add_address(director, address, interface)
