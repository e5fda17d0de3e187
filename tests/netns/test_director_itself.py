# SPDX-License-Identifier: GPL-2.0-only
"""The director as its own real server and as its own client, on a real network."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.labs import Lab
from tests.netns import peers
from tests.netns.test_nat import BOTH_FAMILIES, RIPS, RIPS6, SERVERS, VIP, VIP6, ask_datagram, at, serve

MakeLab = Callable[..., Lab]
DIP, DIP6 = "192.168.219.134", "fd6c:7673::10"


def serve_here(lab: Lab, vip: str, port: int, server_port: int, *, udp: bool = False) -> None:
    """Type a NAT service whose only real server is the director."""
    service = f"{'-u' if udp else '-t'} {at(vip, port)}"
    real = at(DIP if vip == VIP else DIP6, server_port)
    lab.type("director", f"ipvsadm -A {service} -s rr; ipvsadm -a {service} -r {real} -m")


def counted(lab: Lab, vip: str, port: int) -> tuple[int, ...]:
    """A service's line of ``--stats --exact``, numbers only."""
    listed = lab.type("director", "ipvsadm -Ln --stats --exact").splitlines()
    line = next(line for line in listed if f" {at(vip, port)} " in line)
    return tuple(map(int, line.split()[2:]))


@BOTH_FAMILIES
def test_a_real_server_here_in_bulk(shared_lab: MakeLab, vip: str) -> None:
    """Its answers leave as the VIP's, segments of any size, and are counted."""
    lab = shared_lab("nat")
    serve_here(lab, vip, 5000, 5001)
    with peers.bulk(lab, "director", 5001):
        connection = peers.connect(lab, vip, 5000)
        assert connection.getpeername()[:2] == (vip, 5000)
        peers.transfer(connection)
    connections, _, _, in_bytes, out_bytes = counted(lab, vip, 5000)
    assert connections == 1
    assert in_bytes > peers.BULK and out_bytes > peers.BULK


@BOTH_FAMILIES
def test_large_datagrams_of_a_real_server_here(shared_lab: MakeLab, vip: str) -> None:
    """The stack cuts its answers up before they are translated."""
    lab = shared_lab("nat")
    serve_here(lab, vip, 53, 5353, udp=True)
    # On its own address: else IPv6 might choose the VIP for an answer's source.
    with peers.echo(lab, "director", 5353, DIP if vip == VIP else DIP6):
        for size in (1, 1400, 4000, 20000):
            assert ask_datagram(lab, vip, 53, os.urandom(size)) == "director"


@BOTH_FAMILIES
def test_a_closed_port_here_is_refused(make_lab: MakeLab, vip: str) -> None:
    """The ICMP error of the director's own stack speaks of the VIP."""
    lab = make_lab("nat")
    serve_here(lab, vip, 81, 8181)
    serve_here(lab, vip, 81, 8181, udp=True)
    assert peers.refusal_time(lab, vip, 81) < 0.9
    with peers.inside(lab, "client"):
        datagrams = socket.socket(peers.family_of(vip), socket.SOCK_DGRAM)
    with datagrams:
        datagrams.settimeout(5)
        datagrams.connect((vip, 81))
        datagrams.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            datagrams.recv(100)


def test_from_outside_nothing_comes_to_loopback_addresses(shared_lab: MakeLab) -> None:
    lab = shared_lab("nat")
    lab.type("director", f"ipvsadm -A -t {VIP}:82 -s rr; ipvsadm -a -t {VIP}:82 -r 127.0.0.1:8282 -m")
    with peers.inside(lab, "director"):
        listening = socket.create_server(("127.0.0.1", 8282))
    with listening:
        lab.type("client", f"curl -s -m 0.5 http://{VIP}:82/", code=28)
        peers.connect(lab, VIP, 82, "director").close()


@BOTH_FAMILIES
def test_clients_here(shared_lab: MakeLab, vip: str) -> None:
    """The director asks its own VIP: real servers behind it and on it answer, as they do others."""
    lab = shared_lab("nat")
    serve(lab, vip, 8080, 80)
    asking = f"for i in 1 2 3 4 5 6; do curl -g -s -m 5 http://{at(vip, 8080)}/; done"
    lab.type("director", "ip neigh flush all")
    answers = lab.type("director", asking).split()
    assert set(answers) == SERVERS and answers == answers[:2] * 3
    listed = lab.type("director", "ipvsadm -Lcn")
    servers = RIPS if vip == VIP else RIPS6
    assert {server for server in servers if at(server, 80) in listed} == set(servers)
    from_the_vip = rf"{re.escape(vip)}\]?:\d+ +{re.escape(at(vip, 8080))} "
    assert re.search(from_the_vip, listed)
    connections, in_packets, out_packets, _, _ = counted(lab, vip, 8080)
    assert connections == 6 and in_packets >= 6 * 5 and out_packets >= 6 * 4


@BOTH_FAMILIES
def test_clients_here_in_bulk(shared_lab: MakeLab, vip: str) -> None:
    lab = shared_lab("nat")
    serve(lab, vip, 5000, 5001, servers=1)
    serve_here(lab, vip, 5010, 5001)
    with ExitStack() as stack:
        for node, port in (("rs1", 5000), ("director", 5010)):
            stack.enter_context(peers.bulk(lab, node, 5001))
            peers.transfer(peers.connect(lab, vip, port, "director"))


@BOTH_FAMILIES
def test_errors_for_clients_here(make_lab: MakeLab, vip: str) -> None:
    """A real server's refusal, and the director's own where it has no real server to choose."""
    lab = make_lab("nat")
    serve(lab, vip, 81, 8181, udp=True)
    service = f"-u {at(vip, 82)}"
    lab.type("director", f"ipvsadm -A {service} -s rr")
    for port in (81, 82):
        with peers.inside(lab, "director"):
            datagrams = socket.socket(peers.family_of(vip), socket.SOCK_DGRAM)
        with datagrams:
            datagrams.settimeout(5)
            datagrams.connect((vip, port))
            datagrams.send(b"anybody there?")
            with pytest.raises(ConnectionRefusedError):
                datagrams.recv(100)


def test_local_traffic_of_no_service_is_left_alone(shared_lab: MakeLab) -> None:
    """Also under the VIP's address, and on loopback addresses."""
    lab = shared_lab("nat")
    before = counted(lab, VIP, 80)
    for address in (VIP, VIP6, DIP, "127.0.0.1", "::1"):
        with peers.bulk(lab, "director", 5001):
            peers.transfer(peers.connect(lab, address, 5001, "director"))
    assert counted(lab, VIP, 80) == before


@pytest.fixture
def small_lo() -> Iterator[Callable[[Lab], None]]:
    """Have datagrams by a director's `lo` be cut up; it is as it was afterwards."""
    with ExitStack() as stack:

        def cut(lab: Lab) -> None:
            lab.type("director", "ip link set lo mtu 1500")
            stack.callback(lab.type, "director", "ip link set lo mtu 65536")

        yield cut


def test_local_fragments_of_no_service_are_left_alone(
    shared_lab: MakeLab, small_lo: Callable[[Lab], None]
) -> None:
    """They keep the route that they have: from outside nothing comes to loopback addresses."""
    lab = shared_lab("nat")
    small_lo(lab)
    for source, target in ((DIP, DIP), (VIP, DIP), (DIP6, DIP6), ("::1", "::1"), ("127.0.0.1", "127.0.0.2"),
                           (DIP, "127.0.0.1"), ("127.0.0.1", DIP)):  # fmt: skip
        with peers.inside(lab, "director"):
            sockets = [socket.socket(peers.family_of(target), socket.SOCK_DGRAM) for _ in range(2)]
        with sockets[0] as sender, sockets[1] as receiver:
            sender.bind((source, 0))
            receiver.bind((target, 0))
            receiver.settimeout(5)
            data = os.urandom(4000)
            sender.sendto(data, receiver.getsockname())
            assert receiver.recv(1 << 16) == data, f"{source} to {target}"


@BOTH_FAMILIES
def test_fragments_of_clients_here(shared_lab: MakeLab, small_lo: Callable[[Lab], None], vip: str) -> None:
    """To a real server behind the director, and to one on it."""
    lab = shared_lab("nat")
    small_lo(lab)
    serve(lab, vip, 54, 5354, udp=True, servers=1)
    serve_here(lab, vip, 55, 5354, udp=True)
    with ExitStack() as stack:
        for node, address in (("rs1", "::"), ("director", DIP if vip == VIP else DIP6)):
            stack.enter_context(peers.echo(lab, node, 5354, address))
        for port, name in ((54, b"rs1"), (55, b"director")):
            with peers.inside(lab, "director"):
                datagrams = stack.enter_context(socket.socket(peers.family_of(vip), socket.SOCK_DGRAM))
            datagrams.settimeout(5)
            for size in (10, 4000, 20000):
                data = os.urandom(size)
                datagrams.sendto(data, (vip, port))
                assert datagrams.recv(1 << 16) == name + b" " + data


@BOTH_FAMILIES
def test_one_packet_scheduling(shared_lab: MakeLab, vip: str) -> None:
    """One socket's datagrams go to one real server after the other, and leave no entry."""
    lab = shared_lab("dr", real_servers=3)
    vip = lab.addresses.vip if vip == VIP else lab.addresses.vip6
    rips = lab.addresses.rips if ":" not in vip else lab.addresses.rips6
    service = f"-u {at(vip, 5353)}"
    lab.type("director", f"ipvsadm -A {service} -s rr -o")
    for rip in rips:
        lab.type("director", f"ipvsadm -a {service} -r {at(rip, 5353)} -g")
    assert re.search(rf"UDP +{re.escape(at(vip, 5353))} rr ops", lab.type("director", "ipvsadm -Ln"))
    assert f"-A {service} -s rr -o" in lab.type("director", "ipvsadm -Sn")
    with ExitStack() as stack:
        for node in ("rs1", "rs2", "rs3"):
            stack.enter_context(peers.echo(lab, node, 5353))
        with peers.inside(lab, "client"):
            datagrams = stack.enter_context(socket.socket(peers.family_of(vip), socket.SOCK_DGRAM))
        datagrams.settimeout(5)
        heard = []
        for size in (10, 100, 3000) * 3:  # those over the MTU in fragments
            # Not connected: a server on the wildcard address answers with its own.
            datagrams.sendto(os.urandom(size), (vip, 5353))
            heard.append(datagrams.recv(1 << 16).split(b" ")[0])
    assert sorted(set(heard)) == [b"rs1", b"rs2", b"rs3"] and heard == heard[:3] * 3
    assert "UDP" not in lab.type("director", "ipvsadm -Lcn")
    assert counted(lab, vip, 5353)[0] == 9
