# SPDX-License-Identifier: GPL-2.0-only
"""The addresses of a lab: chosen by the operator, or by these defaults, and checked.

Pure values.  Every lab may use the same ones: labs do not see each other.
Which networks there are, and who stands in which, is a topology's `Layout`.
Beside each IPv4 network a lab has an IPv6 prefix (unique local, RFC 4193) in
which every node has the same place: the VIP is ``::100``, real server N is
``::100+N`` written in decimal digits, and so on.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from xlvs.errors import UsageError
from xlvs.realserver.wanted import GUE_PORT, MAX_GUE_PORTS

DEFAULT_NETWORK = "192.0.2.0/24"
"""TEST-NET-1 (RFC 5737): nobody's, so that no real network is ever meant."""
OUTSIDE_NETWORK = "203.0.113.0/24"
"""TEST-NET-3: where the client lives when it is behind a router."""
LAB_PREFIX6 = "fd6c:7673::"
OUTSIDE_PREFIX6 = "fd6c:7673:0:1::"
INSIDE_PREFIX6 = "fd6c:7673:0:2::"
MAX_REAL_SERVERS = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """A topology's networks and the places of its nodes in them, where nothing else is asked for.

    ``network`` holds the VIP, the director and the client or the router;
    ``inside_network``, where there is one, the real servers and their gateway:
    the director by its other address or, where there are ``tunnels``, the
    router.  A place counts from the network's beginning; in a small network the
    first free one is taken instead.  ``rule`` says to an operator who has to be
    where.
    """

    rule: str
    network: str = DEFAULT_NETWORK
    inside_network: str = ""
    router: int = 1
    client: int = 2
    director: int = 10
    inside_director: int = 0
    virtual: int = 100
    first_real_server: int = 101
    real_servers: int = 3
    tunnels: bool = False


ONE_NETWORK = Layout(
    rule="Direct Routing needs the VIP, the director and its real servers on one network: "
    "choose it with --network",
)
"""Everybody on one network."""
TWO_NETWORKS = Layout(
    rule="the VIP and the director's address are in the network outside (--network), the real servers "
    "and the director's other address in the one inside (--inside-network)",
    network="192.168.219.0/24",
    inside_network="192.168.56.0/24",
    director=134,
    inside_director=100,
    first_real_server=135,
    real_servers=2,
)
"""Real servers behind the director, with the addresses of the usual NAT tutorial."""
BEHIND_ROUTER = replace(
    TWO_NETWORKS,
    rule="the VIP, the director and the client are in one network (--network), the real servers in "
    "another behind the router (--inside-network)",
    inside_director=0,
    tunnels=True,
)
"""Real servers behind a router, anywhere: the same addresses, but the director has none of theirs."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; None and empty where nothing was said."""

    network: str | None = None
    vip: str | None = None
    dip: str | None = None
    client: str | None = None
    rips: tuple[str, ...] = ()
    real_servers: int | None = None
    interface: str = "eth0"
    router: bool = False
    inside_network: str | None = None
    inside_dip: str | None = None
    gue_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every address of a lab, as text; empty is what it has not.

    ``router`` is the router's address on the lab's network, ``gateway`` its
    address on the client's side, where the client is behind it, and
    ``inside_router`` on the real servers' side, where they are; ``inside_dip``
    is the director's on that side, where they are behind the director.  On
    ``gue_ports`` the real servers take GUE.
    """

    interface: str
    network: str
    vip: str
    dip: str
    client: str
    rips: tuple[str, ...]
    client_network: str
    router: str = ""
    gateway: str = ""
    inside_network: str = ""
    inside_dip: str = ""
    inside_router: str = ""
    gue_ports: tuple[int, ...] = ()

    @property
    def vip6(self) -> str:
        """The VIP's IPv6 counterpart."""
        return f"{LAB_PREFIX6}100"

    @property
    def dip6(self) -> str:
        """The director's own IPv6 address."""
        return f"{LAB_PREFIX6}10"

    @property
    def inside_dip6(self) -> str:
        """The director's IPv6 address on the network inside, empty where it has none."""
        return f"{INSIDE_PREFIX6}10" if self.inside_dip else ""

    @property
    def inside_router6(self) -> str:
        """The router's IPv6 address on the network inside, empty where it has none."""
        return f"{INSIDE_PREFIX6}1" if self.inside_router else ""

    @property
    def rips6(self) -> tuple[str, ...]:
        """The real servers' IPv6 addresses, in the order of ``rips``."""
        prefix = INSIDE_PREFIX6 if self.inside_network else LAB_PREFIX6
        return tuple(f"{prefix}{100 + number}" for number in range(1, len(self.rips) + 1))

    @property
    def client6(self) -> str:
        """The client's IPv6 address, on its side of a router."""
        return f"{OUTSIDE_PREFIX6 if self.gateway else LAB_PREFIX6}2"

    @property
    def router6(self) -> str:
        """The router's IPv6 address on the lab's network, empty without a router."""
        return f"{LAB_PREFIX6}1" if self.router else ""

    @property
    def gateway6(self) -> str:
        """The router's IPv6 address on the client's side, empty where the client is not behind it."""
        return f"{OUTSIDE_PREFIX6}1" if self.gateway else ""


def choose(request: Request, layout: Layout = ONE_NETWORK) -> Addresses:
    """Fill in what was not said and check the whole.

    Raises `UsageError` for anything that would not make a working network.
    """
    _check_interface(request.interface)
    network = _network(request.network or layout.network, "--network")
    inside = _inside_network(request, layout, network)
    count = _real_server_count(request, layout)
    gue_ports = _gue_ports(request, layout)
    outside = IPv4Network(OUTSIDE_NETWORK)
    if request.router and request.client is not None:
        outside = IPv4Network((_address(request.client, "--client"), 24), strict=False)
    if inside is not None and request.router and inside.overlaps(outside):
        raise UsageError(
            f"--inside-network {inside} overlaps the network {outside} of the client behind the router",
            "choose another, or the client's by --client",
        )
    servers = network if inside is None else inside
    taken: dict[IPv4Address, str] = {}

    def settle(text: str | None, what: str, within: IPv4Network, place: int) -> str:
        address = _address(text, what) if text is not None else _free(within, place, set(taken), what)
        _check_host(address, what, within, layout.rule)
        if address in taken:
            raise UsageError(
                f"{what} {address} is {taken[address]}'s address already",
                "each node needs an address of its own",
            )
        taken[address] = what
        return str(address)

    # What was said goes first, so that no default takes its place.
    said = [
        (request.vip, "--vip", network, layout.virtual),
        (request.dip, "--dip", network, layout.director),
        (request.client, "--client", outside if request.router else network, layout.client),
        *((rip, "--rip", servers, 0) for rip in request.rips),
    ]
    between = inside is not None and not layout.tunnels
    if inside is not None and between:
        said.insert(0, (request.inside_dip, "--inside-dip", inside, layout.inside_director))
    settled = [settle(*entry) if entry[0] is not None else "" for entry in said]
    chosen = [
        value or settle(None, entry[1], entry[2], entry[3])
        for value, entry in zip(settled, said, strict=True)
    ]
    inside_dip = chosen.pop(0) if between else ""
    vip, dip, client, *rips = chosen
    while len(rips) < count:
        place = layout.first_real_server + len(rips)
        rips.append(settle(None, f"real server {len(rips) + 1}", servers, place))
    routed = request.router or layout.tunnels
    router = settle(None, "the router", network, layout.router) if routed else ""
    inside_router = settle(None, "the router", servers, layout.router) if layout.tunnels else ""
    gateway = settle(None, "the router", outside, layout.router) if request.router else ""
    if request.router and network.overlaps(outside):
        raise UsageError(
            f"the client {client} is in the lab's network {network}, yet a router should stand between",
            "give the client an address outside of it, or leave out --router",
        )
    return Addresses(
        request.interface,
        str(network),
        vip,
        dip,
        client,
        tuple(rips),
        client_network=str(outside if request.router else network),
        router=router,
        gateway=gateway,
        inside_network="" if inside is None else str(inside),
        inside_dip=inside_dip,
        inside_router=inside_router,
        gue_ports=gue_ports,
    )


def check(addresses: Addresses) -> None:
    """Raise `ValueError` (`UsageError` for an interface) for what `choose` could not have returned.

    It may come from a file, and goes from here into shells and ip(8).
    """
    for name, value in asdict(addresses).items():
        several = name in ("rips", "gue_ports")
        wanted = int if name == "gue_ports" else str
        if not all(type(each) is wanted for each in (value if several else (value,))):
            raise ValueError(f"{name} is of another type")
    _check_interface(addresses.interface)
    for network in (addresses.network, addresses.client_network):
        IPv4Network(network)
    if addresses.inside_network:
        IPv4Network(addresses.inside_network)
    for address in (addresses.vip, addresses.dip, addresses.client, *addresses.rips):
        IPv4Address(address)
    for address in (addresses.router, addresses.gateway, addresses.inside_dip, addresses.inside_router):
        if address:
            IPv4Address(address)
    if not 1 <= len(addresses.rips) <= MAX_REAL_SERVERS or len(addresses.gue_ports) > MAX_GUE_PORTS:
        raise ValueError("there are too many real servers, or too few, or too many ports")
    if not all(1 <= port <= 65535 for port in addresses.gue_ports):
        raise ValueError("there is no such port")


def _check_interface(name: str) -> None:
    # The kernel takes far more (dev_valid_name); this name is typed into shells.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", name):
        raise UsageError(
            f"--interface {name!r} is no name for an interface",
            "use 1 to 15 letters and digits, as in eth0 or ens32",
        )
    if name in ("lo", "all", "default"):
        raise UsageError(
            f"--interface {name} is taken: every node has it already", "choose another, as eth0"
        )


def _network(text: str, what: str) -> IPv4Network:
    try:
        network = IPv4Network(text, strict=True)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise UsageError(
            f"{what} {text} is no IPv4 network: {error}", "write it as 192.0.2.0/24, host bits zero"
        ) from None
    if network.prefixlen > 29 or network.prefixlen < 8:
        raise UsageError(
            f"{what} {network} does not do: a lab needs a prefix length from 8 to 29",
            "a /24 has room for everything",
        )
    return network


def _inside_network(request: Request, layout: Layout, network: IPv4Network) -> IPv4Network | None:
    """The real servers' own network, None where they are on the lab's."""
    if request.inside_network is not None and not layout.inside_network:
        raise UsageError(
            f"--inside-network {request.inside_network} does not do: the real servers of this topology "
            "have no network of their own",
            "in NAT and with tunnels they have: xlvs lab up nat, xlvs lab up tun",
        )
    if request.inside_dip is not None and (layout.tunnels or not layout.inside_network):
        raise UsageError(
            f"--inside-dip {request.inside_dip} does not do: the director of this topology stands in one "
            "network only",
            "in NAT it stands between two: xlvs lab up nat",
        )
    if not layout.inside_network:
        return None
    inside = _network(request.inside_network or layout.inside_network, "--inside-network")
    if inside.overlaps(network):
        raise UsageError(
            f"--inside-network {inside} and --network {network} overlap",
            f"the {'router' if layout.tunnels else 'director'} stands between two networks: "
            "choose them apart",
        )
    return inside


def _gue_ports(request: Request, layout: Layout) -> tuple[int, ...]:
    """The UDP ports on which real servers take GUE; none where there are no tunnels."""
    if not layout.tunnels:
        if request.gue_ports:
            raise UsageError(
                f"--gue-port {request.gue_ports[0]} does not do: there are no tunnels in this topology",
                "there are in: xlvs lab up tun",
            )
        return ()
    ports = tuple(dict.fromkeys(request.gue_ports or (GUE_PORT,)))
    for port in ports:
        if not 1 <= port <= 65535:
            raise UsageError(f"--gue-port {port} is no UDP port", "they go from 1 to 65535")
    if len(ports) > MAX_GUE_PORTS:
        raise UsageError(f"{len(ports)} times --gue-port do not do: a lab has {MAX_GUE_PORTS} at most")
    return ports


def _real_server_count(request: Request, layout: Layout) -> int:
    said = request.real_servers
    if request.rips and said is not None and said != len(request.rips):
        raise UsageError(
            f"--real-servers {said} and {len(request.rips)} times --rip contradict each other",
            "give one of the two",
        )
    count = len(request.rips) or (layout.real_servers if said is None else said)
    if not 1 <= count <= MAX_REAL_SERVERS:
        raise UsageError(f"{count} real servers do not do: a lab has 1 to {MAX_REAL_SERVERS}")
    return count


def _address(text: str, what: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise UsageError(f"{what} {text} is no IPv4 address: {error}") from None


def _check_host(address: IPv4Address, what: str, network: IPv4Network, rule: str) -> None:
    if address not in network:
        raise UsageError(f"{what} {address} is outside the network {network}", rule)
    if address in (network.network_address, network.broadcast_address):
        raise UsageError(f"{what} {address} is the network's own or broadcast address in {network}")
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise UsageError(f"{what} {address} is not an address of one machine")


def _free(network: IPv4Network, place: int, taken: set[IPv4Address], what: str) -> IPv4Address:
    """The address at this place in the network, or where that is impossible the first free one."""
    if place < network.num_addresses - 1 and network[place] not in taken:
        return network[place]
    for number in range(1, network.num_addresses - 1):
        if network[number] not in taken:
            return network[number]
    raise UsageError(
        f"the network {network} has no address left for {what}",
        "take a larger network or fewer real servers",
    )
