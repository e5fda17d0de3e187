# SPDX-License-Identifier: GPL-2.0-only
"""Traffic through a service, in each mode: TCP and UDP, IPv4 and IPv6, short, long and bulky."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time

import pytest

from tests.netns.promises.site import (
    DIP,
    SERVICE,
    SERVICE6,
    VIP,
    VIP6,
    Site,
    eventually,
    rip,
)

_BULK = 24 << 20


@pytest.mark.parametrize(("address", "service"), [(VIP, SERVICE), (VIP6, SERVICE6)])
def test_tcp_is_spread(shared_site: Site, address: str, service: str) -> None:
    shared_site.serve(service, 1, 2)
    names = shared_site.ask(6, address)
    assert sorted(names) == ["rs1"] * 3 + ["rs2"] * 3
    assert names[0] != names[1]


@pytest.mark.parametrize(("address", "service"), [(VIP, f"{VIP}:53"), (VIP6, f"[{VIP6}]:53")])
def test_udp_is_spread(shared_site: Site, address: str, service: str) -> None:
    shared_site.serve(service, 1, 2, protocol="-u")
    assert {shared_site.ask_udp(address) for _ in range(4)} == {"rs1", "rs2"}
    connections = shared_site.director.xlvsadm("-Lcn").splitlines()
    assert sum("UDP" in line and address in line for line in connections) >= 4


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_bulk_arrives_unharmed_through_segmentation_offload(shared_site: Site, address: str) -> None:
    """With TSO and GRO as they are by default, the director sees packets of up to 64 KiB."""
    service = f"[{address}]:5001" if ":" in address else f"{address}:5001"
    shared_site.serve(service, 1)
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()
    with shared_site.client.inside():
        opened = socket.create_connection((address, 5001), 60)
    with opened:
        for _ in range(_BULK // len(block)):
            opened.sendall(block)
            digest.update(block)
        opened.shutdown(socket.SHUT_WR)
        assert opened.recv(128).decode() == f"{_BULK} {digest.hexdigest()}"
    connections = shared_site.director.xlvsadm("-Lcn").splitlines()
    assert any("FIN_WAIT" in line and service in line for line in connections)


def test_a_long_connection_stays_with_its_real_server(shared_site: Site) -> None:
    shared_site.serve(SERVICE, 1, 2)
    with shared_site.connection() as (held, name):
        for round_number in range(5):
            shared_site.ask(3)
            held.sendall(b"%d" % round_number)
            assert held.recv(16) == b"%d" % round_number
        assert "ESTABLISHED" in shared_site.director.xlvsadm("-Lcn")
        assert name in ("rs1", "rs2")


def test_weight_0_quiesces(shared_site: Site) -> None:
    """The open connection goes on; every new one goes elsewhere."""
    shared_site.serve(SERVICE, 1, 2)
    with shared_site.connection() as (held, name):
        quiet = int(name[-1])
        other = f"rs{3 - quiet}"
        shared_site.director.xlvsadm(f"-e -t {SERVICE} -r {rip(quiet)} -g -w 0")
        assert shared_site.ask(6) == [other] * 6
        held.sendall(b"still here")
        assert held.recv(16) == b"still here"
        shared_site.director.xlvsadm(f"-e -t {SERVICE} -r {rip(quiet)} -g -w 1")
        assert set(shared_site.ask(4)) == {"rs1", "rs2"}


def test_ip_forward_may_change_while_traffic_runs(loaded_site: Site) -> None:
    director = loaded_site.director
    loaded_site.serve(SERVICE, 1, 2)
    with loaded_site.connection() as (held, _):
        for value in ("1", "0", "1", "0"):
            director.sysctl("ipv4/ip_forward", value)
            assert set(loaded_site.ask(2)) == {"rs1", "rs2"}
            held.sendall(value.encode())
            assert held.recv(16) == value.encode()


@pytest.mark.parametrize("forward", ["0", "1", "10"])
def test_a_vip_that_leaves_the_director_takes_its_service_along(loaded_site: Site, forward: str) -> None:
    """And both come back together, by no command of ours."""
    director = loaded_site.director
    for value in forward:
        director.sysctl("ipv4/ip_forward", value)
    loaded_site.serve(SERVICE, 1)
    assert loaded_site.ask(1) == ["rs1"]
    neighbour = json.loads(director.type("ip -json link show eth0"))[0]["address"]
    loaded_site.client.type(f"ip neighbour replace {VIP} lladdr {neighbour} dev eth0 nud permanent")
    director.type(f"ip address del {VIP}/32 dev eth0")
    eventually(lambda: not loaded_site.answers(timeout=0.3), "the service is ignored")
    director.type(f"ip address add {VIP}/32 dev eth0")
    eventually(loaded_site.answers, "the service is back")


def test_an_unresolved_real_server_loses_no_packet(shared_site: Site) -> None:
    """The first SYN waits for the ARP answer; a second would be sent after a second only."""
    shared_site.serve(SERVICE, 1, 2)
    times = []
    for _ in range(4):
        shared_site.director.type("ip neighbour flush dev eth0")
        begin = time.monotonic()
        shared_site.ask(1)
        times.append(time.monotonic() - begin)
    assert min(times) < 0.9
    assert sorted(times)[1] < 0.9, times


def test_a_real_server_with_a_new_mac_is_found_again(loaded_site: Site) -> None:
    loaded_site.serve(SERVICE, 1)
    assert loaded_site.ask(2) == ["rs1", "rs1"]
    loaded_site.hosts["rs1"].type("ip link del eth0")
    loaded_site.plug_in("rs1", "eth0", rip(1), rip(1, 6), mac="02:00:00:00:aa:01")
    loaded_site.client.type("ip neighbour flush dev eth0")
    # Its announcement, as any system makes one when an interface comes up.
    loaded_site.hosts["rs1"].type(f"arping -q -c 1 -U -I eth0 {rip(1)} || arping -q -c 1 -I eth0 {DIP}")
    eventually(loaded_site.answers, "the real server answers from its new interface")


def test_a_dead_real_server_harms_no_other(loaded_site: Site) -> None:
    loaded_site.serve(SERVICE, 2)
    loaded_site.director.xlvsadm(f"-a -t {SERVICE} -r {rip(1)} -g")
    with loaded_site.connection() as (held, name):
        assert name == "rs1", "rr begins with the newest"
        loaded_site.hosts["rs2"].type("ip link set eth0 down")
        loaded_site.director.type("ip neighbour flush dev eth0")
        assert sum(loaded_site.answers(timeout=0.4) for _ in range(6)) == 3
        held.sendall(b"unharmed")
        assert held.recv(16) == b"unharmed"
