# SPDX-License-Identifier: GPL-2.0-only
"""NAT: the tutorial typed as printed, and what masquerading has to get right on a real network."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from tests.labs import Lab, eventually
from tests.netns import peers
from tests.packet.offloads import leave_nothing_to_the_card
from xlvs.lab import namespaces
from xlvs.lab.capture import Capture

MakeLab = Callable[..., Lab]
VIP, VIP6 = "192.168.219.100", "fd6c:7673::100"
RIPS = ("192.168.56.135", "192.168.56.136")
RIPS6 = ("fd6c:7673:0:2::101", "fd6c:7673:0:2::102")
CLIENT = "192.168.219.2"
SERVERS = {"rs1", "rs2"}
AT_ONCE = 2.5
"""Seconds.  On veth an error comes while the client is still within connect(); over IPv6 the kernel
then hears only the one for the SYN's repetition, a second later (TcpExtLockDroppedIcmps)."""
BOTH_FAMILIES = pytest.mark.parametrize("vip", [VIP, VIP6])


def at(address: str, port: int) -> str:
    """Address and port as ipvsadm and URLs write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def serve(lab: Lab, vip: str, port: int, server_port: int, *, udp: bool = False, servers: int = 2) -> None:
    """Type a NAT service with these real servers."""
    service = f"{'-u' if udp else '-t'} {at(vip, port)}"
    lab.type("director", f"ipvsadm -A {service} -s rr")
    for address in (RIPS if vip == VIP else RIPS6)[:servers]:
        lab.type("director", f"ipvsadm -a {service} -r {at(address, server_port)} -m")


def type_the_tutorial(lab: Lab) -> None:
    lab.type("director", "ifconfig eth0:1 192.168.219.100 netmask 255.255.255.0 up")
    lab.type("director", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    lab.type("director", "ipvsadm -A -t 192.168.219.100:80 -s rr")
    lab.type("director", "ipvsadm -a -t 192.168.219.100:80 -r 192.168.56.135:80 -m")
    lab.type("director", "ipvsadm -a -t 192.168.219.100:80 -r 192.168.56.136:80 -m")


def assert_round_robin(answers: list[str]) -> None:
    assert set(answers) == SERVERS
    assert answers == [answers[position % 2] for position in range(len(answers))]


def test_the_tutorial(make_lab: MakeLab) -> None:
    """Nobody but the director translates: the client only knows the VIP, a real server the client."""
    lab = make_lab("nat", bare=True)
    type_the_tutorial(lab)
    with (
        Capture(lab.record, "client", "eth0", "tcp") as at_client,
        Capture(lab.record, "rs1", "eth0", "tcp") as at_server,
    ):
        assert_round_robin(lab.ask(12))
    assert at_client.count(VIP, CLIENT) >= 12 * 3, "SYN-ACK, page, FIN"
    assert at_client.count(VIP, CLIENT) == at_client.count(target=CLIENT)
    assert not any(at_client.count(address) for address in RIPS)
    assert at_server.count(CLIENT, RIPS[0]) >= 6 * 3
    assert at_server.count(VIP) == at_server.count(target=VIP) == 0

    listed = lab.type("director", "ipvsadm -Ln")
    for address in RIPS:
        assert re.search(rf"-> {address}:80 +Masq +1 +0 +6\b", listed)
    connections = re.findall(
        r"^TCP +\S+ +(\S+) +\S+ +(\S+) +(\S+)", lab.type("director", "ipvsadm -Lcn"), re.M
    )
    assert len(connections) == 12
    assert {state for state, _, _ in connections} <= {"TIME_WAIT", "FIN_WAIT"}
    assert {target for _, target, _ in connections} == {f"{VIP}:80"}
    assert {server for _, _, server in connections} == {f"{address}:80" for address in RIPS}

    rows = re.findall(r"(?:TCP|->) +(\S+:80) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)",
                      lab.type("director", "ipvsadm -Ln --stats"))  # fmt: skip
    counted = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    # Each answer passes the director, and is counted where the client receives it.
    assert counted[f"{VIP}:80"][0] == 12
    assert counted[f"{VIP}:80"][2] == at_client.count(VIP, CLIENT)
    assert counted[f"{VIP}:80"][1] == at_client.count(CLIENT, VIP)
    for column in range(5):
        assert counted[f"{VIP}:80"][column] == sum(counted[f"{address}:80"][column] for address in RIPS)


def test_the_default_gateway_is_what_brings_answers_back(make_lab: MakeLab) -> None:
    lab = make_lab("nat", bare=True)
    type_the_tutorial(lab)
    asking = f"for i in 1 2 3 4; do curl -s -m 1 http://{VIP}/ || echo failed; done"
    lab.type("rs1", "route del default")
    assert sorted(lab.type("client", asking).split()) == ["failed", "failed", "rs2", "rs2"]
    lab.type("rs1", "route add default gw 192.168.56.100")
    assert_round_robin(lab.ask(6))


def test_a_lab_that_is_not_bare_works_at_once(make_lab: MakeLab) -> None:
    lab = make_lab(
        "nat", network="10.1.0.0/24", inside_network="10.2.0.0/28", real_servers=2, interface="ens3"
    )
    assert_round_robin(lab.ask(4))
    assert lab.type("director", "cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert "10.2.0.0/28 dev eth1" in lab.type("director", "ip route")
    assert "10.1.0.100:80" in lab.type("director", "ipvsadm -Ln")


@BOTH_FAMILIES
def test_without_ip_forward(make_lab: MakeLab, vip: str) -> None:
    """Packets of a service and their answers never come to the stack that would forward them."""
    lab = make_lab("nat", bare=True)
    lab.type("director", f"ip address add {VIP}/24 dev eth0; ip address add {VIP6}/64 dev eth0 nodad")
    serve(lab, vip, 80, 80)
    assert lab.type("director", "cat /proc/sys/net/ipv4/ip_forward").strip() == "0"
    assert lab.type("director", "cat /proc/sys/net/ipv6/conf/all/forwarding").strip() == "0"
    assert_round_robin(lab.ask(4, f"http://{at(vip, 80)}/"))


def test_ip_forward_turned_off_again_is_made_good_by_the_next_command(make_lab: MakeLab) -> None:
    """It turns off lo's forwarding too, on which the routing table's answers to us depend."""
    lab = make_lab("nat")
    assert_round_robin(lab.ask(2))
    lab.type("director", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    lab.type("director", f"ipvsadm -e -t {VIP}:80 -r {RIPS[0]}:80 -m -w 1")
    assert_round_robin(lab.ask(4))


@BOTH_FAMILIES
def test_port_translation(shared_lab: MakeLab, vip: str) -> None:
    lab = shared_lab("nat")
    serve(lab, vip, 8080, 80)
    assert_round_robin(lab.ask(6, f"http://{at(vip, 8080)}/"))
    with peers.connect(lab, vip, 8080) as connection:
        assert connection.getpeername()[:2] == (vip, 8080)


@BOTH_FAMILIES
def test_closed_port_of_a_real_server_is_refused_at_once(make_lab: MakeLab, vip: str) -> None:
    """The reset, and for UDP the ICMP error with what it quotes, come translated to the client."""
    lab = make_lab("nat")
    serve(lab, vip, 81, 8181)
    serve(lab, vip, 81, 8181, udp=True)
    assert peers.refusal_time(lab, vip, 81) < 0.9
    with peers.inside(lab, "client"):
        datagrams = socket.socket(peers.family_of(vip), socket.SOCK_DGRAM)
    with datagrams:
        datagrams.settimeout(5)
        datagrams.connect((vip, 81))
        datagrams.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            datagrams.recv(100)


@BOTH_FAMILIES
def test_large_datagrams_both_ways(shared_lab: MakeLab, vip: str) -> None:
    """Those over the MTU go in fragments, of which only the first has ports to translate."""
    lab = shared_lab("nat")
    serve(lab, vip, 53, 5353, udp=True)
    with ExitStack() as stack:
        for server in sorted(SERVERS):
            stack.enter_context(peers.echo(lab, server, 5353))
        heard = set()
        for size in (1, 1400, 4000, 20000):
            for _ in range(2):
                heard.add(ask_datagram(lab, vip, 53, os.urandom(size)))
        assert heard == SERVERS
    assert "UDP" in lab.type("director", "ipvsadm -Lcn")


def ask_datagram(lab: Lab, vip: str, port: int, data: bytes) -> str:
    """Who sent the datagram back, whole and from the VIP."""
    with peers.inside(lab, "client"):
        datagrams = socket.socket(peers.family_of(vip), socket.SOCK_DGRAM)
    with datagrams:
        datagrams.settimeout(5)
        datagrams.sendto(data, (vip, port))
        answer, sender = datagrams.recvfrom(1 << 16)
    name, _, echoed = answer.partition(b" ")
    assert sender[:2] == (vip, port)
    assert echoed == data
    return name.decode()


@BOTH_FAMILIES
def test_bulk_both_ways_through_segmentation_offload(make_lab: MakeLab, vip: str) -> None:
    lab = make_lab("nat")
    serve(lab, vip, 5000, 5001, servers=1)
    with peers.bulk(lab, "rs1", 5001):
        peers.transfer(peers.connect(lab, vip, 5000))
    counted = re.search(r" (\d+) +(\d+) +(\d+) +(\d+)$",
                        next(line for line in lab.type("director", "ipvsadm -Ln --stats").splitlines()
                             if at(vip, 5000) in line).rstrip())  # fmt: skip
    assert counted is not None
    in_packets, out_packets, in_bytes, out_bytes = map(int, counted.groups())
    # Else nothing was left for a device to cut up, and the offloads were not tried.
    assert in_bytes / in_packets > 1500 and out_bytes / out_packets > 1500
    # Single packets, with checksums still to be made, then with finished ones.
    for node in ("client", "rs1"):
        lab.type(node, "ip link set eth0 gso_max_segs 1")
    for _ in range(2):
        with peers.bulk(lab, "rs1", 5001):
            peers.transfer(peers.connect(lab, vip, 5000))
        for node in ("client", "rs1"):
            with peers.inside(lab, node):
                leave_nothing_to_the_card("eth0")
    for node in ("client", "rs1"):
        names, values = re.findall(r"^Tcp: (.*)$", lab.type(node, "cat /proc/net/snmp"), re.M)
        assert dict(zip(names.split(), values.split(), strict=True))["InCsumErrors"] == "0"


def send_less_but_take_all(lab: Lab, node: str, gateway: str) -> None:
    """Tell a node beside a link of MTU 1300 of it, yet have it ask its peers for full segments.

    Else they would send small ones from the start, and need not learn of the MTU.
    """
    lab.type(node, f"ip route replace default via {gateway} mtu 1300 advmss 1440")


@BOTH_FAMILIES
@pytest.mark.parametrize("offload", [True, False])
def test_a_smaller_mtu_inside(make_lab: MakeLab, vip: str, offload: bool) -> None:
    """Without offloads the client has to hear of the MTU, by an ICMP error that comes from the VIP."""
    lab = make_lab("nat")
    serve(lab, vip, 5000, 5001, servers=1)
    lab.type("director", "ip link set eth1 mtu 1300")
    send_less_but_take_all(lab, "rs1", lab.addresses.inside_dip if vip == VIP else lab.addresses.inside_dip6)
    if not offload:
        for node in ("client", "rs1"):
            lab.type(node, "ip link set eth0 gso_max_segs 1")
    with peers.bulk(lab, "rs1", 5001):
        peers.transfer(peers.connect(lab, vip, 5000))
    if not offload:
        assert "mtu 1300" in lab.type("client", f"ip route get {vip}")


@BOTH_FAMILIES
def test_a_smaller_mtu_on_the_way_to_the_client(make_lab: MakeLab, vip: str) -> None:
    """The router's error is for the VIP; its real server is who has to hear it."""
    lab = make_lab("nat", router=True)
    serve(lab, vip, 5000, 5001, servers=1)
    for node in ("client", "rs1"):
        lab.type(node, "ip link set eth0 gso_max_segs 1")
    client = lab.addresses.client if vip == VIP else lab.addresses.client6
    lab.type("router", "ip link set eth1 mtu 1300")
    send_less_but_take_all(lab, "client", lab.addresses.gateway if vip == VIP else lab.addresses.gateway6)
    with peers.bulk(lab, "rs1", 5001):
        peers.transfer(peers.connect(lab, vip, 5000))
    assert "mtu 1300" in lab.type("rs1", f"ip route get {client}")


@BOTH_FAMILIES
def test_a_smaller_mtu_outside(make_lab: MakeLab, vip: str) -> None:
    """The director itself is the router whose link towards the client takes less than the real server's."""
    lab = make_lab("nat")
    serve(lab, vip, 5000, 5001, servers=1)
    for node in ("client", "rs1"):
        lab.type(node, "ip link set eth0 gso_max_segs 1")
    lab.type("director", "ip link set eth0 mtu 1300")
    # The client knows, as in `send_less_but_take_all`.
    lab.type("client", f"ip route add {vip} dev eth0 mtu 1300 advmss 1440")
    with peers.bulk(lab, "rs1", 5001):
        peers.transfer(peers.connect(lab, vip, 5000))
    client = lab.addresses.client if vip == VIP else lab.addresses.client6
    assert "mtu 1300" in lab.type("rs1", f"ip route get {client}")


def test_killing_every_process_does_not_touch_traffic(make_lab: MakeLab) -> None:
    lab = make_lab("nat")
    serve(lab, VIP, 5000, 5001, servers=1)
    director = lab.record.namespace("director")
    with peers.bulk(lab, "rs1", 5001):
        held = peers.connect(lab, VIP, 5000)
        for _ in range(3):
            lab.type(
                "director", "ipvsadm -Ln >/dev/null & ipvsadm -Lcn >/dev/null & xlvs status >/dev/null &"
            )
            for process in namespaces.processes([director]):
                with suppress(ProcessLookupError):  # it was quicker
                    os.kill(process, signal.SIGKILL)
            eventually(lambda: not namespaces.processes([director]), "no process lives in the director")
            assert_round_robin(lab.ask(4))
        peers.transfer(held)
        assert namespaces.processes([director]) == []


def test_what_belongs_to_no_service_is_the_stacks(make_lab: MakeLab) -> None:
    """A real server that reaches out is forwarded if ip_forward says so, and not translated."""
    lab = make_lab("nat", bare=True)
    lab.type("director", f"ip address add {VIP}/24 dev eth0")
    serve(lab, VIP, 80, 80)
    lab.type("client", "ip route add 192.168.56.0/24 via 192.168.219.134; nginx")
    assert lab.type("rs1", f"curl -s -m 0.5 http://{CLIENT}/", code=28) == ""
    assert_round_robin(lab.ask(4))
    lab.type("director", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    with Capture(lab.record, "client", "eth0", "tcp") as at_client:
        assert lab.type("rs1", f"curl -s -m 5 http://{CLIENT}/").strip() == "client"
    assert at_client.count(RIPS[0], CLIENT) >= 3
    assert at_client.count(VIP) == 0
    assert_round_robin(lab.ask(4))


@pytest.mark.parametrize("family", [4, 6])
def test_direct_routing_without_a_real_server_refuses_at_once(make_lab: MakeLab, family: int) -> None:
    """The client hears "port unreachable" instead of waiting for nobody."""
    lab = make_lab("dr", real_servers=1)
    vip = lab.addresses.vip if family == 4 else lab.addresses.vip6
    server = lab.addresses.rips[0] if family == 4 else lab.addresses.rips6[0]
    service = at(vip, 80)
    url = f"http://{service}/"
    if family == 6:
        lab.type(
            "director", f"ipvsadm -A -t {service} -s rr; ipvsadm -a -t {service} -r {at(server, 80)} -g"
        )
    real = at(server, 80)
    assert lab.ask(1, url) == ["rs1"]
    lab.type("director", f"ipvsadm -e -t {service} -r {real} -g -w 0")
    assert peers.refusal_time(lab, vip, 80) < AT_ONCE
    lab.type("director", f"ipvsadm -e -t {service} -r {real} -g -w 1")
    assert lab.ask(1, url) == ["rs1"]
    lab.type("director", f"ipvsadm -d -t {service} -r {real}")
    assert peers.refusal_time(lab, vip, 80) < AT_ONCE
    begin = time.monotonic()
    assert lab.type("client", f"curl -g -s -m 5 '{url}'", code=7) == ""
    assert time.monotonic() - begin < AT_ONCE
