# SPDX-License-Identifier: GPL-2.0-only
"""One host as its own kernel describes it: links, addresses, routes, settings, and what follows from them.

`xlvs.doctor.observation` fills it in.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from xlvs.doctor.clock import Clock
from xlvs.doctor.director import Director, Table
from xlvs.doctor.memory import Memory
from xlvs.doctor.rule import Rule

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HIGHEST_COUNTS = ("arp_announce", "arp_ignore", "rp_filter")
"""Of `all` and the interface the higher value counts (kernel: ``IN_DEV_MAXCONF``)."""
TUNNELS = ("ipip", "ip6tnl", "gre", "gretap", "ip6gre", "sit", "fou", "gue")
"""Kinds of devices that take packets out of tunnels."""
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""The setting that makes a router of a host, by IP version."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface; ``peer`` is the number of a veth's other end, ``xdp`` "", "native" or "generic"."""

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    ethernet: bool
    master: str = ""
    peer: int = 0
    xdp: str = ""


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address of an interface.

    ``options`` are the words that `ip addr add` takes besides to make it again as it is.
    ``failed`` is an IPv6 address that found itself taken (RFC 4862, 5.4), and is not used.
    """

    interface: str
    address: Address
    length: int
    options: tuple[str, ...] = ()
    failed: bool = False

    @property
    def network(self) -> Network:
        """The network that the address and its length name."""
        return ip_network(f"{self.address}/{self.length}", strict=False)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route; ``text`` is what `ip route` takes to make it again."""

    destination: Network
    gateway: Address | None
    interface: str
    table: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the ARP or neighbour cache."""

    address: Address
    interface: str
    mac: str
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP socket that listens; ``address`` 0.0.0.0 or :: is every address."""

    address: Address
    port: int


@dataclass(slots=True)
class Host:
    """What one host is set to.  ``role`` is a lab's word for it, or empty.

    ``policy`` are the rules of `ip rule` besides those that every host has.
    ``speaks_vrrp`` are the IP versions of which it takes VRRP.
    ``serves_as`` are the VIPs for which `xlvs realserver` has set it up, ``silenced`` those of
    them that it keeps silent by other means than sysctls, and does so now; ``lacks`` is what of
    it is no longer so, each with the remedy.
    """

    name: str
    role: str = ""
    links: tuple[Link, ...] = ()
    addresses: tuple[Assigned, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    policy: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    speaks_vrrp: tuple[int, ...] = ()
    rules: tuple[Rule, ...] = ()
    rules6: tuple[Rule, ...] = ()
    arp_rules: bool = False
    silenced: frozenset[Address] = frozenset()
    serves_as: tuple[Address, ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()
    conntrack: tuple[int, int] | None = None
    clock: Clock = field(default_factory=Clock)
    memory: Memory | None = None
    director: Director = field(default_factory=Director)

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of virtual services on this host: xlvs's, the kernel's, or both."""
        return tuple(table for table in (self.director.own, self.director.kernel) if table.services)

    def link(self, name: str) -> Link | None:
        """The interface of that name."""
        return next((link for link in self.links if link.name == name), None)

    def ethernet(self) -> Iterator[Link]:
        """Interfaces that ask and answer by ARP: Ethernet, up, no port of a bridge or bond."""
        return (link for link in self.links if link.ethernet and link.up and not link.master)

    def has(self, address: Address) -> bool:
        """Whether the address is the host's own: on an interface, or by a local route."""
        if any(assigned.address == address for assigned in self.addresses):
            return True
        return any(route.kind == "local" and address in route.destination for route in self.routes)

    def with_address(self, address: Address) -> Assigned | None:
        """Where the address is assigned."""
        return next((each for each in self.addresses if each.address == address), None)

    def setting(self, name: str, default: int = 0) -> int:
        """A sysctl's number; ``default`` where there is none of that name."""
        with suppress(KeyError, ValueError):
            return int(self.settings[name])
        return default

    def conf(self, interface: str, name: str, version: int = 4) -> int:
        """What counts of net.ipv4.conf (or ipv6) for an interface: `all` and its own together."""
        everywhere = self.setting(f"net.ipv{version}.conf.all.{name}")
        here = self.setting(f"net.ipv{version}.conf.{interface}.{name}")
        return max(everywhere, here) if name in _HIGHEST_COUNTS else everywhere | here

    def rules_of(self, version: int) -> tuple[Rule, ...]:
        """The rules that packets of an IP version meet."""
        return self.rules if version == 4 else self.rules6

    def forwards(self, version: int) -> bool:
        """Whether it passes packets of others on.  (IPv6: the kernel asks `all`, not the interface.)"""
        return bool(self.setting(FORWARDING[version]))

    def default_route(self, version: int) -> Route | None:
        """The default route of the main table."""
        return next(
            (
                route
                for route in self.routes
                if route.table == "main"
                and route.destination.prefixlen == 0
                and route.destination.version == version
            ),
            None,
        )

    def keeps_silent(self, address: Address) -> bool:
        """Whether something else than settings keeps the host from answering ARP for an address."""
        return self.arp_rules or address in self.silenced

    def tunnels(self) -> Iterator[Link]:
        """Devices that take packets out of tunnels."""
        return (link for link in self.links if link.kind in TUNNELS or link.name.startswith("tunl"))

    def hidden_addresses(self) -> Iterator[Assigned]:
        """Addresses as a real server has a VIP: where nobody asks for it (lo, a tunnel's device, dummy0)."""
        quiet = {link.name for link in self.links if link.kind == "dummy"} | {"lo"}
        quiet |= {link.name for link in self.tunnels() if link.name.startswith("tunl")}
        others = {link.name for link in self.tunnels()}
        for assigned in self.addresses:
            address = assigned.address
            alone = assigned.length == address.max_prefixlen and assigned.interface in others
            beyond = not address.is_loopback and not address.is_link_local
            if beyond and (assigned.interface in quiet or alone):
                yield assigned

    def interface_towards(self, address: Address) -> str:
        """The Ethernet interface on whose network the address is; empty where it is on none."""
        best = ("", -1)
        for assigned in self.addresses:
            link = self.link(assigned.interface)
            if (
                link is None
                or not link.ethernet
                or not link.up
                or assigned.network.version != address.version
            ):
                continue
            if address in assigned.network and 0 < assigned.length < assigned.address.max_prefixlen:
                best = max(best, (assigned.interface, assigned.length), key=lambda each: each[1])
        return best[0]

    def route_to(self, address: Address) -> Route | None:
        """The most specific route of the main table, as far as the table alone says."""
        fitting = [
            route
            for route in self.routes
            if route.table == "main" and route.destination.version == address.version
            and address in route.destination
        ]  # fmt: skip
        return max(fitting, key=lambda route: route.destination.prefixlen, default=None)

    def bound(self, port: int, version: int) -> list[Address]:
        """The addresses on which a TCP service takes connections of that IP version to a port."""
        found = [each.address for each in self.listeners if each.port == port]
        same = [address for address in found if address.version == version]
        # A socket of :: takes IPv4 too, unless it was told not to, which is not shown; a service
        # that has another socket for IPv4 has told it.
        return same or [address for address in found if version == 4 and int(address) == 0]

    def listens(self, address: Address, port: int) -> bool:
        """Whether a TCP service takes connections to that address and port."""
        return any(each == address or int(each) == 0 for each in self.bound(port, address.version))


def sysctl(interface: str, name: str, version: int = 4) -> str:
    """The name of an interface's setting under net.ipv4.conf (ipv6) as sysctl(8) takes it, dots and all."""
    if "." in interface:
        return f"net/ipv{version}/conf/{interface}/{name}"
    return f"net.ipv{version}.conf.{interface}.{name}"
