# SPDX-License-Identifier: GPL-2.0-only
"""The addresses of a lab: chosen by the operator, or by these defaults, and checked.

Pure values.  Every lab may use the same ones: labs do not see each other.
Beside its IPv4 network each lab has an IPv6 prefix (unique local, RFC 4193)
in which every node has the same place: the VIP is ``::100``, real server N is
``::100+N`` written in decimal digits, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from xlvs.errors import UsageError

DEFAULT_NETWORK = "192.0.2.0/24"
"""TEST-NET-1 (RFC 5737): nobody's, so that no real network is ever meant."""
OUTSIDE_NETWORK = "203.0.113.0/24"
"""TEST-NET-3: where the client lives when it is behind a router."""
INSIDE_PREFIX6 = "fd6c:7673::"
OUTSIDE_PREFIX6 = "fd6c:7673:0:1::"
DEFAULT_REAL_SERVERS = 3
MAX_REAL_SERVERS = 64

# Preferred places in a network; in a small network the first free ones.
_ROUTER, _CLIENT, _DIRECTOR, _VIRTUAL = 1, 2, 10, 100


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


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every address of a lab, as text.  ``router`` and ``gateway`` are empty without a router.

    ``gateway`` is the router's address on the client's side.
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

    @property
    def vip6(self) -> str:
        """The VIP's IPv6 counterpart."""
        return f"{INSIDE_PREFIX6}100"

    @property
    def dip6(self) -> str:
        """The director's own IPv6 address."""
        return f"{INSIDE_PREFIX6}10"

    @property
    def rips6(self) -> tuple[str, ...]:
        """The real servers' IPv6 addresses, in the order of ``rips``."""
        return tuple(f"{INSIDE_PREFIX6}{100 + number}" for number in range(1, len(self.rips) + 1))

    @property
    def client6(self) -> str:
        """The client's IPv6 address, on its side of the router."""
        return f"{OUTSIDE_PREFIX6 if self.router else INSIDE_PREFIX6}2"

    @property
    def router6(self) -> str:
        """The router's IPv6 address on the lab's network, empty without a router."""
        return f"{INSIDE_PREFIX6}1" if self.router else ""

    @property
    def gateway6(self) -> str:
        """The router's IPv6 address on the client's side, empty without a router."""
        return f"{OUTSIDE_PREFIX6}1" if self.router else ""


def choose(request: Request) -> Addresses:
    """Fill in what was not said and check the whole.

    Raises `UsageError` for anything that would not make a working network.
    """
    _check_interface(request.interface)
    network = _network(request.network or DEFAULT_NETWORK)
    count = _real_server_count(request)
    outside = IPv4Network(OUTSIDE_NETWORK)
    if request.router and request.client is not None:
        outside = IPv4Network((_address(request.client, "--client"), 24), strict=False)
    taken: dict[IPv4Address, str] = {}

    def settle(text: str | None, what: str, within: IPv4Network, place: int) -> str:
        address = _address(text, what) if text is not None else _free(within, place, set(taken), what)
        _check_host(address, what, within)
        if address in taken:
            raise UsageError(
                f"{what} {address} is {taken[address]}'s address already",
                "each node needs an address of its own",
            )
        taken[address] = what
        return str(address)

    # What was said goes first, so that no default takes its place.
    said = [
        (request.vip, "--vip", network, _VIRTUAL),
        (request.dip, "--dip", network, _DIRECTOR),
        (request.client, "--client", outside if request.router else network, _CLIENT),
        *((rip, "--rip", network, 0) for rip in request.rips),
    ]
    settled = [settle(*entry) if entry[0] is not None else "" for entry in said]
    chosen = [
        value or settle(None, entry[1], entry[2], entry[3])
        for value, entry in zip(settled, said, strict=True)
    ]
    vip, dip, client, *rips = chosen
    while len(rips) < count:
        rips.append(settle(None, f"real server {len(rips) + 1}", network, _VIRTUAL + 1 + len(rips)))
    router = settle(None, "the router", network, _ROUTER) if request.router else ""
    gateway = settle(None, "the router", outside, _ROUTER) if request.router else ""
    if request.router and network.overlaps(outside):
        raise UsageError(
            f"the client {client} is in the lab's network {network}, yet a router should stand between",
            "give the client an address outside of it, or leave out --router",
        )
    client_network = str(outside if request.router else network)
    return Addresses(
        request.interface, str(network), vip, dip, client, tuple(rips), client_network, router, gateway
    )


def _check_interface(name: str) -> None:
    # The kernel's own rule (dev_valid_name) and no ':', which is for aliases.
    odd = not name or len(name.encode()) > 15 or name in (".", "..") or not name.isascii()
    if odd or any(letter in "/:\\" or letter.isspace() or not letter.isprintable() for letter in name):
        raise UsageError(
            f"--interface {name!r} is no name for an interface",
            "use 1 to 15 letters and digits, as in eth0 or ens32",
        )
    if name in ("lo", "all", "default"):
        raise UsageError(
            f"--interface {name} is taken: every node has it already", "choose another, as eth0"
        )


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text, strict=True)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise UsageError(
            f"--network {text} is no IPv4 network: {error}", "write it as 192.0.2.0/24, host bits zero"
        ) from None
    if network.prefixlen > 29 or network.prefixlen < 8:
        raise UsageError(
            f"--network {network} does not do: a lab needs a prefix length from 8 to 29",
            "a /24 has room for everything",
        )
    return network


def _real_server_count(request: Request) -> int:
    said = request.real_servers
    if request.rips and said is not None and said != len(request.rips):
        raise UsageError(
            f"--real-servers {said} and {len(request.rips)} times --rip contradict each other",
            "give one of the two",
        )
    count = len(request.rips) or (DEFAULT_REAL_SERVERS if said is None else said)
    if not 1 <= count <= MAX_REAL_SERVERS:
        raise UsageError(f"{count} real servers do not do: a lab has 1 to {MAX_REAL_SERVERS}")
    return count


def _address(text: str, what: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise UsageError(f"{what} {text} is no IPv4 address: {error}") from None


def _check_host(address: IPv4Address, what: str, network: IPv4Network) -> None:
    if address not in network:
        raise UsageError(
            f"{what} {address} is outside the network {network}",
            "Direct Routing needs the VIP, the director and its real servers on one network: "
            "choose it with --network",
        )
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
        f"--network {network} has no address left for {what}", "take a larger network or fewer real servers"
    )
