# SPDX-License-Identifier: GPL-2.0-only
"""All that the doctor has seen: hosts, and what the network answered.  Checks read nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from xlvs import model
from xlvs.doctor.arp import Sighting
from xlvs.doctor.director import Clients, Table
from xlvs.doctor.host import Address, Host, Link
from xlvs.doctor.path import Passage
from xlvs.doctor.probe import Answer
from xlvs.model import Destination, DestinationEntry, Service, ServiceEntry


@dataclass(frozen=True, slots=True)
class Served:
    """A real server of a virtual service in a director's table; ``host`` where it can be looked at."""

    director: Host
    table: Table
    entry: ServiceEntry
    place: DestinationEntry
    host: Host | None

    @property
    def service(self) -> Service:
        """The virtual service."""
        return self.entry.service

    @property
    def destination(self) -> Destination:
        """The real server as the operator defined it."""
        return self.place.destination

    @property
    def virtual(self) -> Address | None:
        """The VIP; None for a service of a firewall mark."""
        address = self.service.key.address
        return ip_address(address) if address else None

    @property
    def real_server(self) -> Address:
        """The real server's address."""
        return ip_address(self.destination.address)

    @property
    def name(self) -> str:
        """The real server's name, or its address where its host is not known."""
        return self.host.name if self.host else str(self.real_server)

    @property
    def port(self) -> int:
        """The port that clients' packets have when they reach the real server."""
        if self.destination.method == model.MASQUERADE:
            return self.destination.port or self.service.key.port
        return self.service.key.port

    @property
    def is_local(self) -> bool:
        """Whether the director itself is this real server."""
        return self.director.has(self.real_server)


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of asking a real server: directly, from the director's own address; and as the VIP."""

    plain: Answer
    as_virtual: Answer


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer to ARP or neighbour discovery, and the host that asked."""

    asker: Host
    sighting: Sighting


def asking(address: Address) -> str:
    """The word for how one asks who has an address."""
    return "ARP" if address.version == 4 else "neighbour discovery"


Key = tuple[str, str, model.ServiceKey, bytes, int]


def key_of(served: Served) -> Key:
    """By what the answers of a real server are kept."""
    return (
        served.director.name, served.table.command, served.service.key,
        served.destination.address, served.destination.port,
    )  # fmt: skip


@dataclass(slots=True)
class Cluster:
    """``whole`` is whether every host of the cluster could be looked at, as in a lab."""

    hosts: tuple[Host, ...]
    whole: bool = False
    heard: list[Heard] = field(default_factory=list)
    asked: dict[Key, Asked] = field(default_factory=dict)
    passages: dict[tuple[str, Address], Passage] = field(default_factory=dict)
    clock_step: float = 0.0
    """Seconds by which somebody has set this machine's clock while the doctor looked."""

    @property
    def directors(self) -> tuple[Host, ...]:
        """Hosts with virtual services."""
        return tuple(host for host in self.hosts if host.tables)

    def served(self, *methods: str) -> Iterator[Served]:
        """Every real server of every virtual service, of these forwarding methods (all by default)."""
        for director in self.directors:
            for table in director.tables:
                for entry in table.services:
                    for place in entry.destinations:
                        if methods and place.destination.method not in methods:
                            continue
                        host = self.host_with(ip_address(place.destination.address), besides=director)
                        yield Served(director, table, entry, place, host)

    def services(self) -> Iterator[tuple[Host, Table, ServiceEntry]]:
        """Every virtual service."""
        for director in self.directors:
            for table in director.tables:
                for entry in table.services:
                    yield director, table, entry

    def virtual_addresses(self) -> list[Address]:
        """Every VIP of every table, and what the mark rules name as single addresses."""
        found: dict[Address, None] = {}
        for _, _, entry in self.services():
            if entry.service.key.address:
                found[ip_address(entry.service.key.address)] = None
        for director in self.directors:
            for rule in director.director.mark_rules:
                if rule.destination.length == 8 * len(rule.destination.address):
                    found[ip_address(rule.destination.address)] = None
        return list(found)

    def versions(self) -> tuple[int, ...]:
        """The IP versions of which there are VIPs."""
        return tuple(sorted({address.version for address in self.virtual_addresses()}))

    def host_with(self, address: Address, besides: Host | None = None) -> Host | None:
        """The host with that address on an interface; of a loopback address, none: all have it."""
        if address.is_loopback:
            return None
        for host in self.hosts:
            if host is not besides and host.with_address(address) is not None:
                return host
        return None

    def real_server_hosts(self, *methods: str) -> dict[str, tuple[Host, list[Served]]]:
        """Hosts that are real servers, with what they serve; those of methods that are not NAT's by default.

        A real server that is looked at alone, without its director, serves nothing that is known.
        """
        found: dict[str, tuple[Host, list[Served]]] = {}
        for served in self.served(*(methods or (model.ROUTE, model.TUNNEL))):
            if served.host is not None:
                found.setdefault(served.host.name, (served.host, []))[1].append(served)
        if not self.whole:
            for host in self.hosts:
                if not host.tables and any(host.hidden_addresses()):
                    found.setdefault(host.name, (host, []))
        return found

    def virtual_addresses_of(self, host: Host, served: list[Served]) -> list[Address]:
        """The VIPs that a real server should have, or, seen alone, those that it has."""
        found = dict.fromkeys(each.virtual for each in served if each.virtual is not None)
        if not found and not self.whole:
            found = dict.fromkeys(each.address for each in host.hidden_addresses())
        return list(found)

    def owner(self, mac: str) -> tuple[Host, Link] | None:
        """Whose MAC that is, among the hosts."""
        for host in self.hosts:
            for link in host.links:
                if link.mac == mac and link.ethernet and not link.name.startswith("tunl"):
                    return host, link
        return None

    def called(self, mac: str) -> str:
        """A MAC, with the name of the host that has it, or the address it answers for as far as is known."""
        owner = self.owner(mac)
        if owner is not None:
            return f"{mac}, {owner[1].name} of {owner[0].name}"
        addresses = self.addresses_of(mac)
        return f"{mac}, which is {' '.join(map(str, addresses))}" if addresses else f"{mac}, an unknown host"

    def addresses_of(self, mac: str) -> list[Address]:
        """The addresses besides VIPs for which that MAC has answered, or stands in a neighbour cache."""
        virtual = self.virtual_addresses()
        found: dict[Address, None] = {}
        for heard in self.heard:
            if heard.sighting.mac == mac and heard.sighting.address not in virtual:
                found[heard.sighting.address] = None
        for host in self.hosts:
            for neighbour in host.neighbours:
                own = not neighbour.address.is_link_local and neighbour.address not in virtual
                if neighbour.mac == mac and own:
                    found[neighbour.address] = None
        return list(found)

    def answers_for(self, address: Address) -> list[Heard]:
        """Every answer for an address, each MAC once."""
        by_mac: dict[str, Heard] = {}
        for heard in self.heard:
            if heard.sighting.address == address:
                by_mac.setdefault(heard.sighting.mac, heard)
        return list(by_mac.values())

    def announces(self, host: Host, address: Address) -> bool:
        """Whether the host was heard to answer for an address, or has it where nothing hides it."""
        if any(
            (owner := self.owner(heard.sighting.mac)) is not None and owner[0] is host
            for heard in self.answers_for(address)
        ):
            return True
        hidden = any(each.address == address for each in host.hidden_addresses())
        return not self.whole and host.has(address) and not hidden

    def is_own_real_server(self, director: Host, address: Address) -> bool:
        """Whether a director has the VIP hidden, as real servers have it, and is one of it itself.

        So it stands by: another one announces the VIP, or should.
        """
        hidden = any(each.address == address for each in director.hidden_addresses())
        return hidden and any(
            served.director is director and served.virtual == address and served.is_local
            for served in self.served()
        )

    def answer(self, served: Served) -> Asked | None:
        """What became of asking it; None where it was not asked."""
        return self.asked.get(key_of(served))

    def clients(self, host: Host, service: Service) -> Clients | None:
        """The connections of a service, by client."""
        return host.director.clients.get(service.key)
