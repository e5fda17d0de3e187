# SPDX-License-Identifier: GPL-2.0-only
"""What clients see of a real server's end: with --reject-gone and --rehome at once, else nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.labs import Lab
from tests.netns import peers

MakeLab = Callable[..., Lab]
REQUEST = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n"
PATIENCE, SILENCE = 5.0, 1.0
METHODS = {"dr": "-g", "nat": "-m", "tun": "-i"}


def _connected(lab: Lab, vip: str, port: int) -> tuple[socket.socket, str]:
    """A connection that has had an answer, and the real server's name."""
    connection = peers.connect(lab, vip, port)
    connection.sendall(REQUEST)
    connection.settimeout(PATIENCE)
    return connection, connection.recv(1 << 16).rpartition(b"\r\n\r\n")[2].decode().strip()


@pytest.mark.parametrize("topology", ["dr", "nat", "tun"])
@pytest.mark.parametrize("is_ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_client_hears_at_once(shared_lab: MakeLab, topology: str, is_ipv6: bool) -> None:
    lab = shared_lab(topology)
    vip = lab.addresses.vip6 if is_ipv6 else lab.addresses.vip
    service = f"-t [{vip}]:80" if is_ipv6 else f"-t {vip}:80"
    rips = lab.addresses.rips6 if is_ipv6 else lab.addresses.rips
    servers = [f"[{rip}]:80" if is_ipv6 else f"{rip}:80" for rip in rips]
    lab.type("director", f"ipvsadm -C; ipvsadm -A {service} -s rr --reject-gone")
    for server in servers:
        lab.type("director", f"ipvsadm -a {service} -r {server} {METHODS[topology]}")
    assert f"-A {service} -s rr --reject-gone\n" in lab.type("director", "ipvsadm -Sn")
    told, name = _connected(lab, vip, 80)
    others = [_connected(lab, vip, 80) for _ in servers[1:]]
    lab.type("director", f"ipvsadm -d {service} -r {servers[int(name.removeprefix('rs')) - 1]}")
    with ExitStack() as stack:
        for connection in (told, *(other for other, _ in others)):
            stack.enter_context(connection)
        told.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            told.recv(1)
        for connection, other in others:
            connection.sendall(REQUEST)
            assert other.encode() in connection.recv(1 << 16)


def test_without_it_there_is_silence(make_lab: MakeLab) -> None:
    """As with kernel IPVS."""
    lab = make_lab("dr", real_servers=1)
    vip, rip = lab.addresses.vip, lab.addresses.rips[0]
    with _connected(lab, vip, 80)[0] as connection:
        lab.type("director", f"ipvsadm -d -t {vip}:80 -r {rip}")
        connection.settimeout(SILENCE)
        connection.sendall(REQUEST)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_udp_flow_goes_on_elsewhere(make_lab: MakeLab) -> None:
    lab = make_lab("dr", real_servers=2)
    vip = lab.addresses.vip
    service = f"-u {vip}:5353"
    lab.type("director", f"ipvsadm -A {service} -s rr --rehome --reject-gone --idle-timeout 20")
    for number in (1, 2):
        lab.type("director", f"ipvsadm -a {service} -r {lab.addresses.rips[number - 1]}")
    with (
        peers.echo(lab, "rs1", 5353, vip),
        peers.echo(lab, "rs2", 5353, vip),
        peers.inside(lab, "client"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(PATIENCE)
        client.connect((vip, 5353))

        def ask() -> str:
            client.send(b"word")
            return client.recv(100).decode().split()[0]

        first = ask()
        assert ask() == first
        assert "00:1" in lab.type("director", "ipvsadm -Lcn | grep UDP")
        lab.type("director", f"ipvsadm -d {service} -r {lab.addresses.rips[int(first[2:]) - 1]}")
        second = ask()
        assert {first, second} == {"rs1", "rs2"}
        assert ask() == second
        lab.type("director", f"ipvsadm -d {service} -r {lab.addresses.rips[int(second[2:]) - 1]}")
        client.send(b"word")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
