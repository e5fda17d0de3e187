# SPDX-License-Identifier: GPL-2.0-only
"""One host as its own kernel describes it: `observe` looks at everything once.

It works in the network namespace of the thread that calls it, and changes
nothing.  What cannot be read there (a program or a file that is missing) is
empty: a check judges what is there.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from xlvs.doctor import firewall, memory
from xlvs.doctor.director import Director, Table, observe_director
from xlvs.doctor.firewall import Rule
from xlvs.doctor.memory import Memory
from xlvs.errors import XlvsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_CONF = "/proc/sys/net/ipv4/conf"
_SETTINGS = (
    "accept_local", "arp_announce", "arp_filter", "arp_ignore", "forwarding", "proxy_arp",
    "route_localnet", "rp_filter", "send_redirects",
)  # fmt: skip
_HIGHEST_COUNTS = ("arp_announce", "arp_ignore", "rp_filter")
"""Of `all` and the interface the higher value counts (kernel: ``IN_DEV_MAXCONF``)."""
_TUNNELS = ("ipip", "ip6tnl", "gre", "gretap", "ip6gre", "sit", "fou", "gue")
_CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_RAW_VRRP = 112
_ARP_FAMILIES = (firewall.ARP, firewall.NETDEV)
_LISTENING = "0A"

_IP_COMMANDS = "address show\nroute show table all\nneigh show\nrule show\n"


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
    """An address of an interface."""

    interface: str
    address: Address
    length: int
    scope: str = "global"
    label: str = ""

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
    settings: dict[str, str] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    speaks_vrrp: bool = False
    rules: tuple[Rule, ...] = ()
    arp_rules: bool = False
    silenced: frozenset[Address] = frozenset()
    serves_as: tuple[Address, ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()
    conntrack: tuple[int, int] | None = None
    clock: str = ""
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

    def conf(self, interface: str, name: str) -> int:
        """What counts of net.ipv4.conf for an interface: `all` and its own together."""
        everywhere = self.setting(f"net.ipv4.conf.all.{name}")
        here = self.setting(f"net.ipv4.conf.{interface}.{name}")
        return max(everywhere, here) if name in _HIGHEST_COUNTS else everywhere | here

    def keeps_silent(self, address: Address) -> bool:
        """Whether something else than settings keeps the host from answering ARP for an address."""
        return self.arp_rules or address in self.silenced

    def tunnels(self) -> Iterator[Link]:
        """Devices that take packets out of tunnels."""
        return (link for link in self.links if link.kind in _TUNNELS or link.name.startswith("tunl"))

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


def sysctl(interface: str, name: str) -> str:
    """The name of an interface's setting under net.ipv4.conf as sysctl(8) takes it, dots and all."""
    if "." in interface:
        return f"net/ipv4/conf/{interface}/{name}"
    return f"net.ipv4.conf.{interface}.{name}"


def observe(name: str, role: str = "") -> Host:
    """Look at the host whose network namespace this thread is in.

    Raises `XlvsError` where not even ip(8) can be asked.
    """
    shown = _run(["ip", "-json", "-details", "-batch", "-"], _IP_COMMANDS)
    if shown is None:
        raise XlvsError("cannot ask ip(8) about interfaces and routes", "apt-get install iproute2")
    interfaces, routes, neighbours, _rules = _documents(shown)
    own = "/proc/thread-self/net"
    nftables = firewall.tables()
    links = tuple(_link(raw) for raw in interfaces if raw)
    return Host(
        name=name,
        role=role,
        links=links,
        addresses=tuple(_addresses(interfaces)),
        routes=tuple(_routes(routes)),
        neighbours=tuple(_neighbours(neighbours)),
        settings=_settings(),
        listeners=tuple(_listeners(own)),
        speaks_vrrp=_speaks_vrrp(own),
        rules=firewall.observe(_run, nftables),
        arp_rules=_has_arp_rules(own, nftables),
        **_set_up(),
        conntrack=_conntrack(),
        clock=_read(_CLOCK).strip(),
        memory=memory.observe(),
        director=observe_director(own),
    )


def restore_neighbours(entries: list[Neighbour]) -> None:
    """Put these back into this network namespace's neighbour cache where it has another MAC by now."""
    shown = _run(["ip", "-json", "neigh", "show"]) or "[]"
    now = {(each.address, each.interface): each for each in _neighbours(json.loads(shown))}
    for entry in entries:
        present = now.get((entry.address, entry.interface))
        if present is not None and present.mac != entry.mac:
            words = ["neigh", "replace", str(entry.address), "lladdr", entry.mac, "dev", entry.interface]
            _run(["ip", *words, "nud", "stale"])


def _run(command: list[str], given: str = "") -> str | None:
    """What a command prints; None where it is missing or fails."""
    try:
        ran = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=20,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _documents(text: str) -> list[list[dict[str, Any]]]:
    """The arrays that ``ip -json -batch`` prints one after another."""
    decoder = json.JSONDecoder()
    found: list[list[dict[str, Any]]] = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        document, place = decoder.raw_decode(text, place)
        found.append(document)
    if len(found) != _IP_COMMANDS.count("\n"):
        raise XlvsError(
            "ip(8) answers otherwise than expected", "it has to know -json: iproute2 5.0 or later"
        )
    return found


def _link(raw: dict[str, Any]) -> Link:
    info = raw.get("linkinfo", {})
    modes = {1: "native", 2: "generic", 3: "native"}
    return Link(
        name=raw["ifname"],
        index=raw["ifindex"],
        kind=info.get("info_kind", ""),
        mac=raw.get("address", ""),
        mtu=raw.get("mtu", 0),
        up="UP" in raw["flags"],
        ethernet=raw.get("link_type") == "ether" and "NOARP" not in raw["flags"],
        master=raw.get("master", ""),
        peer=raw.get("link_index", 0) if info.get("info_kind") == "veth" else 0,
        xdp=modes.get(raw.get("xdp", {}).get("mode", 0), ""),
    )


def _addresses(interfaces: list[dict[str, Any]]) -> Iterator[Assigned]:
    for raw in interfaces:
        for each in raw.get("addr_info", []):
            if "local" in each:
                yield Assigned(
                    raw["ifname"],
                    ip_address(each["local"]),
                    each["prefixlen"],
                    each.get("scope", "global"),
                    each.get("label", ""),
                )


def _routes(raw_routes: list[dict[str, Any]]) -> Iterator[Route]:
    for raw in raw_routes:
        gateway = raw.get("gateway")
        whole = "::/0" if gateway and ":" in gateway else "0.0.0.0/0"
        try:
            destination = ip_network(whole if raw["dst"] == "default" else raw["dst"], strict=False)
        except ValueError:
            continue
        words = [raw["dst"]]
        for word, key in (("via", "gateway"), ("dev", "dev"), ("src", "prefsrc"), ("metric", "metric")):
            if key in raw:
                words += [word, str(raw[key])]
        for word in ("proto", "scope"):
            value = raw.get("protocol" if word == "proto" else word)
            if value and value not in ("boot", "global"):
                words += [word, value]
        yield Route(
            destination,
            ip_address(gateway) if gateway else None,
            raw.get("dev", ""),
            raw.get("table", "main"),
            raw.get("type", "unicast"),
            shlex.join(words),
        )


def _neighbours(raw_neighbours: list[dict[str, Any]]) -> Iterator[Neighbour]:
    for raw in raw_neighbours:
        if "lladdr" in raw:
            yield Neighbour(ip_address(raw["dst"]), raw["dev"], raw["lladdr"], tuple(raw.get("state", ())))


def _settings() -> dict[str, str]:
    found = {"net.ipv4.ip_forward": _read("/proc/sys/net/ipv4/ip_forward").strip()}
    with suppress(OSError):
        for interface in os.listdir(_CONF):
            for name in _SETTINGS:
                found[f"net.ipv4.conf.{interface}.{name}"] = _read(f"{_CONF}/{interface}/{name}").strip()
    return found


def _listeners(folder: str) -> Iterator[Listener]:
    for file in ("tcp", "tcp6"):
        for line in _read(f"{folder}/{file}").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTENING:
                address, port = fields[1].split(":")
                yield Listener(_address_of_proc(address), int(port, 16))


def _address_of_proc(text: str) -> Address:
    """An address as /proc/net has it: words in the machine's byte order."""
    words = [int(text[place : place + 8], 16).to_bytes(4, "little") for place in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _has_arp_rules(folder: str, nftables: firewall.Tables) -> bool:
    """Whether arptables or nftables say something of ARP; what, only asking tells."""
    by_nftables = any(family in _ARP_FAMILIES for family, _ in nftables)
    return by_nftables or bool(_read(f"{folder}/arp_tables_names").strip())


def _set_up() -> dict[str, Any]:
    """What `xlvs realserver` has set up here, and how much of it is so."""
    from xlvs.realserver import check, guards, record
    from xlvs.realserver.wanted import EBPF, HIDDEN, NFT

    silenced: set[Address] = set()
    lacks: list[tuple[str, str]] = []
    try:
        servers = record.load().servers
        if not servers:
            return {}
        view = check.View(tuple(server.vip for server in servers))
        for server in servers:
            in_force = not any(wrong for _, wrong in guards.state(server, view.interfaces))
            if server.arp in (EBPF, HIDDEN, NFT) and in_force:
                silenced.add(ip_address(server.vip))
            for finding in check.findings(server, view, recorded=True):
                if finding.level == check.FAULT:
                    lacks.append((finding.what, finding.remedy))
    except XlvsError:
        return {}
    return {
        "silenced": frozenset(silenced),
        "serves_as": tuple(ip_address(server.vip) for server in servers),
        "lacks": tuple(lacks),
    }


def _speaks_vrrp(folder: str) -> bool:
    """Whether a raw socket here takes VRRP (its "port" is the protocol's number)."""
    for line in _read(f"{folder}/raw").splitlines()[1:]:
        if int(line.split()[1].partition(":")[2], 16) == _RAW_VRRP:
            return True
    return False


def _conntrack() -> tuple[int, int] | None:
    folder = "/proc/sys/net/netfilter"
    count, limit = _read(f"{folder}/nf_conntrack_count"), _read(f"{folder}/nf_conntrack_max")
    return (int(count), int(limit)) if count and limit else None
