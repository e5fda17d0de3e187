# SPDX-License-Identifier: GPL-2.0-only
"""The shapes a lab can have, as data.

A `Topology` is a table: kinds of nodes, the segments that their interfaces
are on, and the commands that an operator would type to set them up.  `plan`
fills in addresses and gives a `Plan`, which the other modules carry out
without knowing which topology it is.  A new topology is a new table here, not
new code elsewhere.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from xlvs.errors import UsageError
from xlvs.lab.addresses import BEHIND_ROUTER, ONE_NETWORK, TWO_NETWORKS, Addresses, Layout
from xlvs.realserver.wanted import DEVICES, IPIP, MSS_OFF, RealServer, as_typed
from xlvs.realserver.wanted import TUNNELLING as TUNNELLING_METHOD

SWITCH = "switch"
"""The namespace that holds the bridges: one for each segment."""
NATIVE = "xdp"
"""The mode of ``xlvs attach`` that needs something of the switch."""
DIRECTOR = "director"
CLIENT = "client"
ROUTER = "router"
REAL_SERVER = "real server"


@dataclass(frozen=True, slots=True)
class Leg:
    """One interface of a kind of node; the texts may hold ``{placeholders}``."""

    segment: str
    address: str
    address6: str
    interface: str = "{interface}"


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind of node.

    ``setup`` is what an operator types there once addresses and wires are in
    place, ``setup6`` what follows where the kernel has IPv6.  A ``real_server``
    is set up as one of the VIPs, in this way.  One that ``unwraps`` has a tunl0
    that takes packets out of tunnels.
    """

    name: str
    role: str
    legs: tuple[Leg, ...]
    default_route: str = ""
    default_route6: str = ""
    forwards: bool = False
    web: bool = False
    unwraps: bool = False
    setup: tuple[str, ...] = ()
    setup6: tuple[str, ...] = ()
    real_server: RealServer | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """A shape of lab.

    ``nodes`` stand in the order in which they are plugged into the switch,
    ``nodes_with_router`` those for a client behind a router; a kind whose role
    is `REAL_SERVER` stands for all of them.  ``table`` and ``table_entry`` (once
    for each real server) are typed in the director last.
    """

    name: str
    summary: str
    layout: Layout
    nodes: tuple[NodeKind, ...]
    nodes_with_router: tuple[NodeKind, ...]
    table: tuple[str, ...]
    table_entry: str


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of one node.  ``port`` is its other end, in the switch; addresses have prefix lengths."""

    name: str
    segment: str
    port: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a lab, everything filled in."""

    name: str
    role: str
    interfaces: tuple[Interface, ...]
    routes: tuple[str, ...]
    forwards: bool
    web: bool
    unwraps: bool
    setup: tuple[str, ...]
    real_servers: tuple[RealServer, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """All that an operator would type there."""
        return (*self.setup, *((as_typed(self.real_servers),) if self.real_servers else ()))


@dataclass(frozen=True, slots=True)
class Plan:
    """A lab to be: nodes in the order in which they are plugged in, and the director's table.

    ``mode`` is where its data plane is attached, empty where the first ``ipvsadm -A`` does it.
    """

    nodes: tuple[Node, ...]
    table: tuple[str, ...]
    segments: tuple[str, ...] = field(default=())
    mode: str = ""

    @property
    def attaching(self) -> tuple[str, ...]:
        """What an operator would type in the director before its table."""
        return (f"xlvs attach --mode {self.mode}",) if self.mode else ()

    def node(self, name: str) -> Node:
        """The node of that name; raises `UsageError` naming those there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = " ".join(node.name for node in self.nodes)
        raise UsageError(f"there is no node {name!r} in this lab", f"its nodes are: {known}")


_VIP = ""
"""Filled in by `plan`."""
_LAN, _OUTSIDE, _INSIDE = "lan", "outside", "inside"

_DIRECTOR = NodeKind(
    name="director",
    role=DIRECTOR,
    legs=(Leg(_LAN, "{dip}/{prefix}", "{dip6}/64"),),
    setup=("ip addr add {vip}/32 dev {interface}",),
    # Deprecated, so that what the director itself begins has its own address: the
    # newest one would be taken else, and real servers have the VIP, too.
    setup6=("ip addr add {vip6}/128 dev {interface} nodad preferred_lft 0",),
)
_CLIENT = NodeKind(name="client", role=CLIENT, legs=(Leg(_LAN, "{client}/{client_prefix}", "{client6}/64"),))
_REAL_SERVER = NodeKind(
    name="rs{number}",
    role=REAL_SERVER,
    legs=(Leg(_LAN, "{rip}/{prefix}", "{rip6}/64"),),
    web=True,
    real_server=RealServer(_VIP),
)


def _behind_router(kind: NodeKind, legs: tuple[Leg, ...] = (), gateway: str = "router") -> NodeKind:
    """The same kind of node with a default route, and other legs if given."""
    return replace(
        kind,
        legs=legs or kind.legs,
        default_route=f"{{{gateway}}}",
        default_route6=f"{{{gateway}6}}",
    )


_ROUTER = NodeKind(
    name="router",
    role=ROUTER,
    legs=(
        Leg(_LAN, "{router}/{prefix}", "{router6}/64"),
        Leg(_OUTSIDE, "{gateway}/{client_prefix}", "{gateway6}/64", interface="{second_interface}"),
    ),
    forwards=True,
)
_CLIENT_OUTSIDE = _behind_router(
    _CLIENT, (Leg(_OUTSIDE, "{client}/{client_prefix}", "{client6}/64"),), gateway="gateway"
)

# With an address in both networks, and between them.
_DIRECTOR_BETWEEN = replace(
    _DIRECTOR,
    legs=(
        *_DIRECTOR.legs,
        Leg(_INSIDE, "{inside_dip}/{inside_prefix}", "{inside_dip6}/64", interface="{second_interface}"),
    ),
    setup=(*_DIRECTOR.setup, "echo 1 >/proc/sys/net/ipv4/ip_forward"),
    setup6=(*_DIRECTOR.setup6, "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"),
)
# Its answers have to come back through the director, hence the default route;
# of the VIP it knows nothing.
_REAL_SERVER_INSIDE = NodeKind(
    name="rs{number}",
    role=REAL_SERVER,
    legs=(Leg(_INSIDE, "{rip}/{inside_prefix}", "{rip6}/64"),),
    default_route="{inside_dip}",
    default_route6="{inside_dip6}",
    web=True,
)

# It takes client's packets out of the director's and answers by itself, as the
# VIP, with no way through the director.  Nobody asks for the VIP by ARP there.
_REAL_SERVER_BEHIND_ROUTER = NodeKind(
    name="rs{number}",
    role=REAL_SERVER,
    legs=(Leg(_INSIDE, "{rip}/{inside_prefix}", "{rip6}/64"),),
    default_route="{inside_router}",
    default_route6="{inside_router6}",
    web=True,
    unwraps=True,
    # Big packets have to show their clients the smaller MTU, so nothing clamps them.
    real_server=RealServer(
        _VIP, TUNNELLING_METHOD, device="tunl0", tunnels=(IPIP,), decapsulator=DEVICES, mss=MSS_OFF
    ),
)
_ROUTER_TO_REAL_SERVERS = replace(
    _ROUTER,
    legs=(
        _ROUTER.legs[0],
        Leg(_INSIDE, "{inside_router}/{inside_prefix}", "{inside_router6}/64", "{second_interface}"),
    ),
)
_ROUTER_TO_ALL = replace(
    _ROUTER_TO_REAL_SERVERS,
    legs=(*_ROUTER_TO_REAL_SERVERS.legs, replace(_ROUTER.legs[1], interface="{third_interface}")),
)

# The director is plugged in first.  A bridge floods to its newest port first,
# so where several nodes answer ARP for the VIP, the last real server's answer
# is the first to arrive, and the one that is believed.
DIRECT_ROUTING = Topology(
    name="dr",
    summary="Direct Routing: director, real servers and client (or a router) on one network",
    layout=ONE_NETWORK,
    nodes=(_DIRECTOR, _CLIENT, _REAL_SERVER),
    nodes_with_router=(
        _behind_router(_DIRECTOR),
        _ROUTER,
        _CLIENT_OUTSIDE,
        _behind_router(_REAL_SERVER),
    ),
    table=("ipvsadm -A -t {vip}:80 -s rr",),
    table_entry="ipvsadm -a -t {vip}:80 -r {rip} -g",
)

NAT = Topology(
    name="nat",
    summary="NAT: client (or a router) outside, real servers inside, the director between the two networks",
    layout=TWO_NETWORKS,
    nodes=(_DIRECTOR_BETWEEN, _CLIENT, _REAL_SERVER_INSIDE),
    nodes_with_router=(_behind_router(_DIRECTOR_BETWEEN), _ROUTER, _CLIENT_OUTSIDE, _REAL_SERVER_INSIDE),
    table=("ipvsadm -A -t {vip}:80 -s rr",),
    table_entry="ipvsadm -a -t {vip}:80 -r {rip}:80 -m",
)

TUNNELLING = Topology(
    name="tun",
    summary="Tunnelling: client and director on one network, the real servers in another behind a router",
    layout=BEHIND_ROUTER,
    nodes=(
        _behind_router(_DIRECTOR),
        _ROUTER_TO_REAL_SERVERS,
        _behind_router(_CLIENT),
        _REAL_SERVER_BEHIND_ROUTER,
    ),
    nodes_with_router=(
        _behind_router(_DIRECTOR),
        _ROUTER_TO_ALL,
        _CLIENT_OUTSIDE,
        _REAL_SERVER_BEHIND_ROUTER,
    ),
    table=("ipvsadm -A -t {vip}:80 -s rr",),
    table_entry="ipvsadm -a -t {vip}:80 -r {rip} -i",
)

TOPOLOGIES = {topology.name: topology for topology in (DIRECT_ROUTING, NAT, TUNNELLING)}


def topology(name: str) -> Topology:
    """The topology of that name; raises `UsageError` naming those there are."""
    if name not in TOPOLOGIES:
        known = " ".join(TOPOLOGIES)
        raise UsageError(f"there is no topology {name!r}", f"known are: {known}")
    return TOPOLOGIES[name]


def plan(shape: Topology, addresses: Addresses, *, bare: bool, ipv6: bool, mode: str = "") -> Plan:
    """Fill a topology with addresses.

    ``bare`` leaves out all setup; ``ipv6`` follows the machine; ``mode`` is one
    of ``xlvs attach``, empty for none.
    """
    values = _placeholders(addresses)
    kinds = shape.nodes_with_router if addresses.gateway else shape.nodes
    nodes: list[Node] = []
    table = [command.format_map(values) for command in shape.table]
    for kind in kinds:
        if kind.role != REAL_SERVER:
            nodes.append(_node(kind, values, bare, ipv6))
            continue
        for number, (rip, rip6) in enumerate(zip(addresses.rips, addresses.rips6, strict=True), start=1):
            its_values = {**values, "number": str(number), "rip": rip, "rip6": rip6}
            nodes.append(_node(kind, its_values, bare, ipv6))
            table.append(shape.table_entry.format_map(its_values))
    segments = dict.fromkeys(interface.segment for node in nodes for interface in node.interfaces)
    return Plan(tuple(nodes), () if bare else tuple(table), tuple(segments), mode)


def _placeholders(addresses: Addresses) -> dict[str, str]:
    names = ("interface", "vip", "dip", "client", "router", "gateway", "inside_dip", "inside_router")
    names6 = ("vip6", "dip6", "client6", "router6", "gateway6", "inside_dip6", "inside_router6")
    # Only kinds with an inside leg ask for its prefix length.
    inside = addresses.inside_network
    return {
        **{name: getattr(addresses, name) for name in names + names6},
        "prefix": str(IPv4Network(addresses.network).prefixlen),
        "client_prefix": str(IPv4Network(addresses.client_network).prefixlen),
        "inside_prefix": str(IPv4Network(inside).prefixlen) if inside else "",
        "second_interface": "eth1" if addresses.interface != "eth1" else "eth0",
        "third_interface": "eth2" if addresses.interface != "eth2" else "eth0",
    }


def _node(kind: NodeKind, values: dict[str, str], bare: bool, ipv6: bool) -> Node:
    name = kind.name.format_map(values)
    interfaces = []
    for leg in kind.legs:
        address = leg.address.format_map(values)
        addresses = (address, leg.address6.format_map(values)) if ipv6 else (address,)
        port = name if leg is kind.legs[0] else f"{name}-{leg.segment}"
        interfaces.append(
            Interface(leg.interface.format_map(values), leg.segment, port, _mac(address), addresses)
        )
    routes = [f"default via {kind.default_route.format_map(values)}"] if kind.default_route else []
    if kind.default_route6 and ipv6:
        routes.append(f"default via {kind.default_route6.format_map(values)}")
    setup = kind.setup + kind.setup6 if ipv6 else kind.setup
    commands = () if bare else tuple(command.format_map(values) for command in setup)
    vips = (values["vip"], values["vip6"]) if ipv6 else (values["vip"],)
    served = (
        () if bare or not kind.real_server else tuple(replace(kind.real_server, vip=vip) for vip in vips)
    )
    return Node(
        name,
        kind.role,
        tuple(interfaces),
        tuple(routes),
        kind.forwards,
        kind.web,
        kind.unwraps,
        commands,
        served,
    )


def _mac(address: str) -> str:
    """A locally administered MAC that shows the IPv4 address it belongs to."""
    packed = IPv4Address(address.partition("/")[0]).packed
    return ":".join(f"{octet:02x}" for octet in b"\x02\x00" + packed)
