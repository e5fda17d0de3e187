# SPDX-License-Identifier: GPL-2.0-only
"""Interfaces change under an attached data plane: it serves on, or says what to do."""

from __future__ import annotations

import json
import socket

import pytest

from tests.netns.promises.site import SERVICE, VIP, Host, Site, eventually, rip
from tests.packet.offloads import leave_nothing_to_the_card
from xlvs.datapath.attach import MODES, XDP_GENERIC


def _has_filters(host: Host, interface: str) -> bool:
    """Whether anything is attached to an interface; `bpftool` of Debian 12 does not know tcx."""
    shown = json.loads(host.type(f"ip -json -details link show {interface}"))[0]
    return bool(shown.get("xdp")) and shown["xdp"].get("mode", 0) != 0


@pytest.mark.parametrize("mode", MODES)
def test_down_renamed_and_up_again(site: Site, mode: str) -> None:
    director = site.director
    director.xlvs(f"attach --mode {mode}")
    site.serve(SERVICE, 1)
    hooks = director.hooks()["eth0"]
    with site.connection() as (held, _):
        director.type("ip link set eth0 down; ip link set eth0 name wan0; ip link set wan0 up")
        director.type("ip address show wan0 | grep -q 192.0.2.10/24")
        assert director.hooks() == {"wan0": hooks}
        held.sendall(b"still here")
        assert held.recv(64) == b"still here"
    assert site.ask(2) == ["rs1", "rs1"]


def test_a_smaller_mtu_and_a_larger_one_again(site: Site) -> None:
    """Clients are told of a smaller MTU towards real servers, within seconds, and big packets pass later."""
    director = site.director
    site.serve(SERVICE, 1)
    with site.client.inside():
        leave_nothing_to_the_card("eth0")  # what is to be cut up by it is not compared with an MTU
    # By an interface of its own: a veth does not even receive what is longer than its MTU.
    director.sysctl("ipv4/conf/all/arp_ignore", "1")  # the VIP is eth0's
    site.plug_in("director", "eth1")
    director.type(f"ip route add {rip(1)}/32 dev eth1 src 192.0.2.10")
    payload = bytes(range(256)) * 200
    with site.connection() as (held, _):
        for mtu in (1500, 1280, 1500):
            before = director.status()["events"]["too_big"]
            director.type(f"ip link set eth1 mtu {mtu}")
            site.client.type("ip route flush cache")

            def passes() -> bool:
                with site.connection() as (fresh, _):
                    fresh.sendall(payload)
                    got = b""
                    while len(got) < len(payload):
                        got += fresh.recv(1 << 16)
                    return got == payload

            assert passes()
            if mtu == 1280:
                eventually(
                    lambda seen=before: passes() and director.status()["events"]["too_big"] > seen,  # type: ignore[misc]
                    "somebody is told of the smaller MTU",
                )
                assert "mtu 1280" in site.client.type(f"ip route get {VIP}")
            held.sendall(b"small")
            assert held.recv(64) == b"small"


@pytest.mark.parametrize("mode", MODES)
def test_an_interface_that_goes_to_another_namespace(site: Site, mode: str) -> None:
    """The kernel leaves the programs on it; status says so, and the next attach takes them off."""
    director = site.director
    site.plug_in("director", "eth1")
    director.xlvs(f"attach --mode {mode}")
    other = site.add_host("other")
    number = _number_of(director, "eth1")
    director.type(f"ip link set eth1 netns {other.name}")
    assert "eth1" not in director.hooks()
    pins = director.pins()
    assert pins is not None
    if director.hooks()["eth0"][0] == "tcx" or mode == XDP_GENERIC:
        assert director.status()["departed"] == [number]
        assert f"Interface number {number} has gone to another network namespace" in director.xlvs("status")
        assert list(pins.glob(f"links/*-{number}"))
    assert _has_filters(other, "eth1") == (mode == XDP_GENERIC)
    director.xlvs("attach")
    assert director.status()["departed"] == []
    assert not list(pins.glob(f"links/*-{number}"))
    assert not _has_filters(other, "eth1")
    other.type(f"ip link set eth1 netns {director.name}")
    director.type("ip link set eth1 up")
    assert director.status()["not_attached"] == ["eth1"]
    director.xlvs("attach eth1")
    assert "eth1" in director.hooks()


def test_a_bridge_takes_an_attached_interface(site: Site) -> None:
    """While they have one MAC the port serves on; status says what to do, and then the bridge serves."""
    director = site.director
    director.xlvs("attach")
    site.serve(SERVICE, 1)
    director.type(
        "mac=$(cat /sys/class/net/eth0/address); ip link add br0 address $mac type bridge;"
        "ip link set br0 up; ip link set eth0 master br0;"
        f"ip address flush dev eth0; ip address add 192.0.2.10/24 dev br0; ip address add {VIP}/32 dev br0"
    )
    assert list(director.status()["misplaced"]) == ["eth0"]
    said = director.xlvs("status")
    assert (
        "eth0 is attached, but now it is a port of the bridge br0: attach to br0; then: xlvs detach eth0"
        in said
    )
    eventually(site.answers, "it serves on")
    director.xlvs("attach br0")
    director.xlvs("detach eth0")
    assert director.status()["misplaced"] == {}
    assert list(director.hooks()) == ["br0"]
    eventually(site.answers, "the bridge serves")
    assert site.ask(2) == ["rs1", "rs1"]
    director.type(f"ip link del br0; ip address add 192.0.2.10/24 dev eth0;ip address add {VIP}/32 dev eth0")
    assert director.status()["attached"] == []
    director.xlvs("attach")
    eventually(site.answers, "the interface serves by itself again")


def test_a_real_servers_interface_goes_and_comes_back(site: Site) -> None:
    """Its connections wait, the others are served; once it is back they go on."""
    director = site.director
    site.serve(SERVICE, 1, 2)
    assert sorted(site.ask(2)) == ["rs1", "rs2"]
    with site.connection() as (first, name), site.connection() as (second, _):
        gone, stays = (first, second) if name == "rs1" else (second, first)
        server = site.hosts["rs1"]
        server.type("ip link set eth0 down")
        stays.sendall(b"stays")
        assert stays.recv(64) == b"stays"
        gone.sendall(b"waits")
        server.type("ip link set eth0 up")
        assert gone.recv(64) == b"waits"
    assert rip(1) in director.xlvsadm("-Ln")


def _number_of(host: Host, interface: str) -> int:
    """An interface's number in a host."""
    with host.inside():
        return socket.if_nametoindex(interface)
