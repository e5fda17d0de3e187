# SPDX-License-Identifier: GPL-2.0-only
"""The tables of topologies, filled in."""

from __future__ import annotations

import pytest

from xlvs.errors import UsageError
from xlvs.lab.addresses import Request, choose
from xlvs.lab.native import is_prepared
from xlvs.lab.topology import (
    CLIENT,
    DIRECT_ROUTING,
    DIRECTOR,
    NAT,
    REAL_SERVER,
    SWITCH,
    TOPOLOGIES,
    TUNNELLING,
    Topology,
    plan,
    topology,
)


@pytest.mark.parametrize("shape", TOPOLOGIES.values(), ids=TOPOLOGIES)
@pytest.mark.parametrize("router", [False, True])
@pytest.mark.parametrize("ipv6", [False, True])
def test_every_topology_is_complete(shape: Topology, router: bool, ipv6: bool) -> None:
    assert shape is TOPOLOGIES[shape.name]
    addresses = choose(Request(router=router, real_servers=3), shape.layout)
    filled = plan(shape, addresses, bare=False, ipv6=ipv6)
    names = [node.name for node in filled.nodes]
    assert len(set(names)) == len(names)
    # Namespaces are told apart by their names' parts, so neither may hold a '-'.
    assert not any("-" in name or name == SWITCH for name in names)
    assert names[0] == "director", "plugged in first, so that real servers win the race of ARP answers"
    roles = [node.role for node in filled.nodes]
    assert roles.count(DIRECTOR) == 1 and roles.count(CLIENT) == 1 and roles.count(REAL_SERVER) == 3
    ports = [interface.port for node in filled.nodes for interface in node.interfaces]
    assert len(set(ports)) == len(ports)
    assert all(len(port) <= 15 for port in ports), "the kernel's limit"
    macs = {interface.mac for node in filled.nodes for interface in node.interfaces}
    assert len(macs) == len(ports)
    texts = [*filled.table, *(each for node in filled.nodes for each in (*node.commands, *node.routes))]
    assert not any("{" in text for text in texts)
    assert ipv6 or not any("fd6c" in text or "ipv6" in text for text in texts)


def test_bare_types_nothing() -> None:
    filled = plan(DIRECT_ROUTING, choose(Request()), bare=True, ipv6=True)
    assert filled.table == ()
    assert all(node.commands == () for node in filled.nodes)


def test_table_has_every_real_server_in_order() -> None:
    filled = plan(DIRECT_ROUTING, choose(Request(rips=("192.0.2.8", "192.0.2.7"))), bare=False, ipv6=True)
    assert filled.table == (
        "ipvsadm -A -t 192.0.2.100:80 -s rr",
        "ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.8 -g",
        "ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.7 -g",
    )


def test_router_forwards_and_is_everybodys_gateway() -> None:
    filled = plan(DIRECT_ROUTING, choose(Request(router=True)), bare=True, ipv6=True)
    router = filled.node("router")
    assert router.forwards and len(router.interfaces) == 2
    assert filled.node("client").routes == ("default via 203.0.113.1", "default via fd6c:7673:0:1::1")
    for name in ("director", "rs1"):
        assert filled.node(name).routes == ("default via 192.0.2.1", "default via fd6c:7673::1")


def test_outside_interface_has_a_name_of_its_own() -> None:
    filled = plan(DIRECT_ROUTING, choose(Request(router=True, interface="eth1")), bare=True, ipv6=True)
    assert [interface.name for interface in filled.node("router").interfaces] == ["eth1", "eth0"]


def test_director_of_nat_stands_between_its_two_networks() -> None:
    filled = plan(NAT, choose(Request(), NAT.layout), bare=False, ipv6=True)
    outer, inner = filled.node("director").interfaces
    assert (outer.name, outer.addresses) == ("eth0", ("192.168.219.134/24", "fd6c:7673::10/64"))
    assert (inner.name, inner.addresses) == ("eth1", ("192.168.56.100/24", "fd6c:7673:0:2::10/64"))
    assert filled.node("client").interfaces[0].segment == outer.segment != inner.segment
    assert filled.node("client").routes == (), "it knows of the VIP's network only"
    for name in ("rs1", "rs2"):
        server = filled.node(name)
        assert server.interfaces[0].segment == inner.segment
        assert server.routes == ("default via 192.168.56.100", "default via fd6c:7673:0:2::10")
        assert server.commands == ()
    assert filled.table == (
        "ipvsadm -A -t 192.168.219.100:80 -s rr",
        "ipvsadm -a -t 192.168.219.100:80 -r 192.168.56.135:80 -m",
        "ipvsadm -a -t 192.168.219.100:80 -r 192.168.56.136:80 -m",
    )


def test_bare_nat_has_gateways_and_nothing_typed() -> None:
    filled = plan(NAT, choose(Request(), NAT.layout), bare=True, ipv6=False)
    assert filled.table == ()
    assert all(node.commands == () and not node.forwards for node in filled.nodes)
    assert filled.node("rs2").routes == ("default via 192.168.56.100",)


def test_nat_behind_a_router_keeps_the_real_servers_behind_the_director() -> None:
    filled = plan(NAT, choose(Request(router=True), NAT.layout), bare=True, ipv6=True)
    assert filled.node("director").routes == ("default via 192.168.219.1", "default via fd6c:7673::1")
    assert filled.node("rs1").routes == ("default via 192.168.56.100", "default via fd6c:7673:0:2::10")
    assert len(filled.segments) == 3


def test_real_servers_of_tunnels_stand_behind_the_router() -> None:
    filled = plan(TUNNELLING, choose(Request(), TUNNELLING.layout), bare=False, ipv6=True)
    outer, inner = filled.node("router").interfaces
    assert (outer.name, outer.addresses) == ("eth0", ("192.168.219.1/24", "fd6c:7673::1/64"))
    assert (inner.name, inner.addresses) == ("eth1", ("192.168.56.1/24", "fd6c:7673:0:2::1/64"))
    assert len(filled.node("director").interfaces) == 1
    for name in ("director", "client"):
        assert filled.node(name).routes == ("default via 192.168.219.1", "default via fd6c:7673::1")
        assert not filled.node(name).unwraps
    for name in ("rs1", "rs2"):
        server = filled.node(name)
        assert server.unwraps and server.interfaces[0].segment == inner.segment
        assert server.routes == ("default via 192.168.56.1", "default via fd6c:7673:0:2::1")
        assert server.commands == (
            "xlvs realserver add --vip 192.168.219.100,fd6c:7673::100 --method tun --device tunl0"
            " --decap devices --mss off",
        )
    assert filled.table == (
        "ipvsadm -A -t 192.168.219.100:80 -s rr",
        "ipvsadm -a -t 192.168.219.100:80 -r 192.168.56.135 -i",
        "ipvsadm -a -t 192.168.219.100:80 -r 192.168.56.136 -i",
    )


def test_bare_tunnels_have_routes_and_what_unwraps_and_nothing_typed() -> None:
    filled = plan(TUNNELLING, choose(Request(), TUNNELLING.layout), bare=True, ipv6=False)
    assert filled.table == ()
    assert all(node.commands == () for node in filled.nodes)
    assert filled.node("router").forwards and filled.node("rs1").unwraps


@pytest.mark.parametrize("interface", ["eth0", "eth1", "eth2"])
def test_a_router_to_three_networks_has_three_interfaces(interface: str) -> None:
    addresses = choose(Request(router=True, interface=interface), TUNNELLING.layout)
    filled = plan(TUNNELLING, addresses, bare=True, ipv6=True)
    router = filled.node("router").interfaces
    assert {wire.name for wire in router} == {"eth0", "eth1", "eth2"}
    assert router[0].name == interface
    assert filled.node("client").routes == ("default via 203.0.113.1", "default via fd6c:7673:0:1::1")
    assert len(filled.segments) == 3


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="dr"):
        topology("star")
    with pytest.raises(UsageError, match="director client rs1"):
        plan(DIRECT_ROUTING, choose(Request(real_servers=1)), bare=True, ipv6=True).node("rs2")


@pytest.mark.parametrize("shape", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_the_mode_is_typed_before_the_table(shape: Topology) -> None:
    addresses = choose(Request(), shape.layout)
    filled = plan(shape, addresses, bare=False, ipv6=True, mode="xdp")
    assert filled.attaching == ("xlvs attach --mode xdp",)
    assert plan(shape, addresses, bare=False, ipv6=True).attaching == ()


def test_native_xdp_needs_something_of_the_directors_ports_only() -> None:
    addresses = choose(Request(), NAT.layout)
    ports = [{"ifname": "director"}, {"ifname": "director-inside"}, {"ifname": "rs1"}]
    for mode, prepared in (("", True), ("tc", True), ("xdp-generic", True), ("xdp", False)):
        assert is_prepared(plan(NAT, addresses, bare=False, ipv6=True, mode=mode), ports) == prepared
    native = plan(NAT, addresses, bare=False, ipv6=True, mode="xdp")
    assert not is_prepared(native, [{"ifname": "director", "xdp": {}}, ports[1]])
    assert is_prepared(native, [{**port, "xdp": {}} for port in ports[:2]])
