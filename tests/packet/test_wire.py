# SPDX-License-Identifier: GPL-2.0-only
"""Frames on a wire: what a test run of a program alone cannot show."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from struct import pack

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    CLIENT_MAC,
    FAR_SERVER,
    FAR_SERVER_MAC,
    INTERFACE_MAC,
    VIP,
    VIP6,
    XDP_PASS,
    XDP_REDIRECT,
    Director,
    new_director,
    real_server,
    real_server6,
    real_server_mac,
)
from tests.packet.icmp_errors import PORT_UNREACHABLE, error_about
from tests.packet.packets import ACK, SYN, TCP, UDP, packed, with_one_hop_less
from tests.packet.spaces import ip
from tests.packet.translated import Masqueraded
from tests.packet.wire import on_wire
from xlvs.datapath.attach import Attacher
from xlvs.datapath.hooks import CLSACT, TCX
from xlvs.datapath.modes import AUTO, TC, XDP, XDP_GENERIC
from xlvs.kernel import abi, bpf
from xlvs.kernel.namespaces import network_namespace
from xlvs.model import MASQUERADE, ROUTE, TUNNEL


@pytest.fixture(scope="module", params=[TC, XDP_GENERIC, XDP])
def attached(request: pytest.FixtureRequest) -> Iterator[Director]:
    """A director that is attached to its interfaces."""
    with new_director(mode=request.param) as made, ExitStack() as stack:
        if request.param == XDP:
            assert set(Attacher(made.maps.folder).lacking()) == {"eth0", "eth1"}
            _let_peers_take_frames(made, stack)
            assert Attacher(made.maps.folder).lacking() == {}
        yield made


def _let_peers_take_frames(director: Director, stack: ExitStack) -> None:
    """A veth takes frames only where a program is; ours passes what is for MACs it does not know."""
    program = bpf.open_pin(f"{director.maps.folder}/xlvs_xdp")
    stack.callback(os.close, program)
    with network_namespace(director.peer):
        for name in ("eth0", "eth1"):
            index = socket.if_nametoindex(name)
            stack.callback(os.close, bpf.create_link(program, index, bpf.XDP, bpf.XDP_FLAGS_DRV_MODE))


def test_where_established_connections_are_forwarded(attached: Director) -> None:
    """XDP sends them, back by the same interface and on by another one."""
    mode = Attacher(attached.maps.folder).mode(attached.ifindex)
    for server, hardware in ((real_server(1), real_server_mac(1)), (FAR_SERVER, FAR_SERVER_MAC)):
        interface = "eth0" if server == real_server(1) else "eth1"
        key = attached.service(1, servers=(server,))
        port = attached.unused_port()
        with on_wire(attached) as wire, on_wire(attached, interface) as far:
            for number, flags in enumerate((SYN, ACK)):
                before = attached.events()
                wire.send(attached.segment(key, port, flags))
                assert far.receive(hardware)
                after = attached.events()
                where = "xdp_forwarded" if number and mode != TC else "forwarded"
                assert after[where] == before[where] + 1


def test_only_frames_of_interfaces_that_take_them_are_sent_to_another(attached: Director) -> None:
    """Without native XDP at the other interface TC sends what came in natively."""
    key = attached.service(1, servers=(FAR_SERVER,))
    port = attached.open(key, ACK)
    other = attached.maps.record("interfaces", abi.Interface, attached.second_ifindex, abi.INTERFACE_LIMIT)
    was = other.known
    other.known &= ~abi.INTERFACE_NATIVE
    try:
        verdict, _ = attached.xdp(attached.segment(key, port, ACK))
    finally:
        other.known = was
    native = Attacher(attached.maps.folder).mode(attached.ifindex) == XDP
    assert verdict == (XDP_PASS if native else XDP_REDIRECT)


def test_what_suits_a_veth(attached: Director) -> None:
    """The kind of interface decides; and what was there before comes back."""
    attacher = Attacher(attached.maps.folder)
    link = attacher.link("eth1")
    before = attacher.mode(link.index)
    assert attacher.attach(link, AUTO) in (TCX, CLSACT)
    assert "veth" in attacher.reasons["eth1"]
    assert attacher.mode(link.index) == TC
    attacher.put_back(link, before)
    assert attacher.mode(link.index) == before


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_to_the_real_servers_mac(attached: Director, address: bytes) -> None:
    """The client's frame comes out with the real server's MAC and one hop less, VIP and all."""
    key = attached.service(1, address=address)
    port = attached.unused_port()
    with on_wire(attached) as wire:
        for flags in (SYN, ACK, ACK):
            frame = attached.segment(key, port, flags, b"hello, there")
            wire.send(frame)
            came = wire.receive(real_server_mac(1))
            assert came == real_server_mac(1) + INTERFACE_MAC + with_one_hop_less(frame)[12:]
    assert attached.listing(key).stats.in_packets == 3
    connection = attached.connection(key, port)
    assert connection is not None
    assert connection.state == "ESTABLISHED"


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize(
    ("address", "client", "server"),
    [(VIP, CLIENT, real_server(1)), (VIP6, CLIENT6, real_server6(1))],
    ids=["ipv4", "ipv6"],
)
def test_nat_there_and_back(
    attached: Director, address: bytes, client: bytes, server: bytes, protocol: int
) -> None:
    _make_the_client_known()
    key = attached.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=8080)
    one = Masqueraded(protocol, (client, attached.unused_port()), (address, key.port), (server, 8080))
    with on_wire(attached) as wire:
        for flags, answer in ((SYN, SYN | ACK), (ACK, ACK)):
            before, after = (attached.frame(packet) for packet in one.asked(b"question", flags))
            wire.send(before)
            came = wire.receive(real_server_mac(1))
            assert came == real_server_mac(1) + INTERFACE_MAC + after[12:]
            before, after = (attached.frame(packet) for packet in one.answered(b"reply", answer))
            wire.send(before)
            assert wire.receive(CLIENT_MAC) == CLIENT_MAC + INTERFACE_MAC + after[12:]
    stats = attached.listing(key).stats
    assert (stats.connections, stats.in_packets, stats.out_packets) == (1, 2, 2)


@pytest.mark.parametrize("server", [real_server(1), real_server6(1)], ids=["by-ipv4", "by-ipv6"])
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_a_tunnel(attached: Director, address: bytes, server: bytes) -> None:
    """The wrapped packet has the ethertype and the neighbour of its outer header."""
    key = attached.service(1, address=address, servers=(server,), method=TUNNEL)
    frame = attached.segment(key, attached.unused_port(), SYN, b"hello")
    inner = with_one_hop_less(frame)[14:]
    with on_wire(attached) as wire:
        wire.send(frame)
        came = wire.receive(real_server_mac(1))
    assert came is not None
    ethertype, outer = (b"\x08\x00", 20) if len(server) == 4 else (b"\x86\xdd", 40)
    assert came[:14] == real_server_mac(1) + INTERFACE_MAC + ethertype
    assert came[14 + outer :] == inner
    assert server in came[14 : 14 + outer]


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_an_error_reaches_the_client(attached: Director, address: bytes) -> None:
    _make_the_client_known()
    key = attached.service(0, address=address)
    frame = attached.segment(key, attached.unused_port(), SYN, b"hello")
    with on_wire(attached) as wire:
        wire.send(frame)
        came = wire.receive(CLIENT_MAC)
    assert came is not None
    expected = error_about(frame, PORT_UNREACHABLE, came)
    assert came == CLIENT_MAC + INTERFACE_MAC + expected[12:]


def _make_the_client_known() -> None:
    """Answers to the client need no asking for its MAC."""
    for client in ("10.0.0.200", "fd00::200"):
        ip(f"neigh replace {client} lladdr {CLIENT_MAC.hex(':')} nud permanent dev eth0")


def test_a_neighbour_is_resolved_and_the_packet_kept(attached: Director) -> None:
    key = attached.service(1, servers=(packed("10.0.0.66"),))
    its_mac = packets.mac("02:00:00:00:00:66")
    frame = attached.segment(key, attached.unused_port(), SYN)
    with on_wire(attached) as wire:
        wire.send(frame)
        question = wire.receive(b"\xff" * 6)
        assert question is not None
        assert question[12:14] == b"\x08\x06"
        assert question[38:42] == packed("10.0.0.66")
        answer = pack(">HHBBH", 1, 0x0800, 6, 4, 2) + its_mac + packed("10.0.0.66")
        answer += INTERFACE_MAC + packed("10.0.0.1")
        wire.send(packets.ethernet(answer, packets.ETHERTYPE_ARP, INTERFACE_MAC, its_mac))
        assert wire.receive(its_mac) == its_mac + INTERFACE_MAC + with_one_hop_less(frame)[12:]


def test_a_tag_that_the_interface_strips(attached: Director) -> None:
    """A tagged frame belongs to the VLAN's own interface, also when its tag is no longer in it."""
    key = attached.service(1)
    port = attached.unused_port()
    frame = attached.segment(key, port, SYN)
    tagged = frame[:12] + pack(">HH", packets.ETHERTYPE_VLAN, 7) + frame[12:]
    before = attached.events()
    with on_wire(attached) as wire:
        wire.send(tagged)
        assert wire.receive(real_server_mac(1), 0.2) is None
        assert attached.connection(key, port) is None
        assert attached.events() == before
        wire.send(frame)
        assert wire.receive(real_server_mac(1)) is not None


def test_a_tag_of_priority_alone(attached: Director) -> None:
    """Tag 0 names no VLAN: the frame is the interface's own, and leaves without the tag."""
    key = attached.service(1)
    port = attached.unused_port()
    with on_wire(attached) as wire:
        for flags in (SYN, ACK, ACK):
            frame = attached.segment(key, port, flags)
            wire.send(frame[:12] + pack(">HH", packets.ETHERTYPE_VLAN, 5 << 13) + frame[12:])
            came = wire.receive(real_server_mac(1))
            assert came == real_server_mac(1) + INTERFACE_MAC + with_one_hop_less(frame)[12:]
        frame, another = (attached.segment(key, attached.unused_port(), SYN) for _ in range(2))
        tags = pack(">HHHH", packets.ETHERTYPE_VLAN, 0, packets.ETHERTYPE_VLAN, 7)
        wire.send(frame[:12] + tags + frame[12:])
        wire.send(another)  # what comes out first is this one: beneath the other's tag is a VLAN's
        came = wire.receive(real_server_mac(1))
        assert came == real_server_mac(1) + INTERFACE_MAC + with_one_hop_less(another)[12:]


@pytest.mark.parametrize("method", [ROUTE, TUNNEL, MASQUERADE], ids=["dr", "tun", "nat"])
def test_an_ipv4_route_by_an_ipv6_gateway(attached: Director, method: str) -> None:
    """Fabrics that are routed without IPv4 addresses of their own have such (RFC 8950)."""
    networks = {"10.44.0.0/16": "fd00::b", "10.45.0.0/16": "fd00::c"}
    for network, gateway in networks.items():
        ip(f"-4 route add {network} via inet6 {gateway} dev eth0")
    try:
        client, server = (packed(address) for address in ("10.45.0.1", "10.44.0.1"))
        key = attached.service(1, servers=(server,), method=method)
        one = Masqueraded(TCP, (client, attached.unused_port()), (VIP, key.port), (server, key.port))
        with on_wire(attached) as wire:
            for flags, answer in ((SYN, SYN | ACK), (ACK, ACK), (ACK, ACK)):
                before, after = (attached.frame(packet) for packet in one.asked(b"question", flags))
                wire.send(before)
                came = wire.receive(real_server_mac(1))
                assert came is not None
                assert came[6:14] == INTERFACE_MAC + b"\x08\x00"
                inner = after[14:] if method == MASQUERADE else with_one_hop_less(before)[14:]
                assert came.endswith(inner)
                if method == MASQUERADE:
                    before, after = (attached.frame(packet) for packet in one.answered(b"reply", answer))
                    wire.send(before)
                    came = wire.receive(real_server_mac(2))
                    assert came == real_server_mac(2) + INTERFACE_MAC + after[12:]
    finally:
        for network in networks:
            ip(f"route del {network}")


@pytest.mark.parametrize("virtual", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_routing_rules_for_the_vip(attached: Director, virtual: bytes) -> None:
    """A director with two uplinks: what leaves as one VIP goes by that one's, what leaves as another not."""
    if virtual == VIP:
        family, client, network, gateways = "-4", "10.55.0.1", "10.55.0.0/16", ("10.0.0.12", "10.0.1.10")
        rule, other, server = "10.0.0.100", packed("10.0.0.1"), real_server(1)
    else:
        family, client, network, gateways = "-6", "fd55::1", "fd55::/64", ("fd00::c", "fd01::10")
        rule, other, server = "fd00::100", packed("fd00::1"), real_server6(1)
    ip(f"{family} route add {network} via {gateways[0]}")
    ip(f"{family} route add {network} via {gateways[1]} table 77")
    ip(f"{family} rule add from {rule} lookup 77")
    try:
        with on_wire(attached) as near, on_wire(attached, "eth1") as far:
            by_the_rule, by_the_main_table = (far, FAR_SERVER_MAC), (near, real_server_mac(2))
            for address, (wire, hardware) in (
                (virtual, by_the_rule), (other, by_the_main_table), (virtual, by_the_rule),
            ):  # fmt: skip
                key = attached.service(1, address=address, method=MASQUERADE)
                end = (packed(client), attached.unused_port())
                one = Masqueraded(TCP, end, (address, key.port), (server, key.port))
                near.send(attached.frame(one.asked(b"", SYN)[0]))
                assert near.receive(real_server_mac(1)) is not None
                sent, after = one.answered(b"", SYN | ACK)
                near.send(attached.frame(sent))
                came = wire.receive(hardware)
                assert came is not None
                assert came[14:] == after
                # What the director says itself as the VIP.
                key = attached.service(0, address=address)
                near.send(attached.segment(key, end[1], SYN, client=end[0]))
                assert wire.receive(hardware) is not None
    finally:
        ip(f"{family} rule del from {rule} lookup 77")
        ip(f"{family} route del {network} table 77")
        ip(f"{family} route del {network}")


@pytest.mark.parametrize(
    "destination", [CLIENT_MAC, b"\xff" * 6, packets.mac("01:00:5e:00:00:64")], ids=["other", "all", "group"]
)
def test_a_frame_that_is_not_for_the_interface(attached: Director, destination: bytes) -> None:
    key = attached.service(1)
    port = attached.unused_port()
    before = attached.events()
    with on_wire(attached) as wire:
        frame = attached.segment(key, port, SYN)
        wire.send(destination + frame[6:])
        assert wire.receive(real_server_mac(1), 0.2) is None
    assert attached.connection(key, port) is None
    assert attached.events() == before
