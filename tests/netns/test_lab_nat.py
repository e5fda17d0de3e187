# SPDX-License-Identifier: GPL-2.0-only
"""The lab of two networks: what ``xlvs lab up nat`` makes, bare and not, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.labs import Lab, left_behind, xlvs
from xlvs.lab import state


def up(name: str, *options: str) -> Lab:
    xlvs("lab", "up", "nat", "--name", name, *options)
    record = state.load(name)
    assert record is not None
    return Lab(record)


def status(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(xlvs("lab", "status", "--name", name, "--json").stdout)
    return told


def test_defaults_are_the_tutorials(lab_name: str) -> None:
    lab = up(lab_name)
    told = status(lab_name)
    assert (told["vip"], told["dip"], told["client"]) == (
        "192.168.219.100", "192.168.219.134", "192.168.219.2",
    )  # fmt: skip
    assert told["rips"] == ["192.168.56.135", "192.168.56.136"]
    assert (told["network"], told["inside_network"]) == ("192.168.219.0/24", "192.168.56.0/24")
    assert (told["inside_dip"], told["inside_dip6"]) == ("192.168.56.100", "fd6c:7673:0:2::10")
    assert list(told["nodes"]) == ["director", "client", "rs1", "rs2"]
    assert "inside 192.168.56.0/24" in xlvs("lab", "status", "--name", lab_name).stdout
    assert lab.ask(4) in (["rs1", "rs2"] * 2, ["rs2", "rs1"] * 2)
    # Their networks are two: what the director does not pass on does not arrive.
    assert "unreachable" in lab.type("client", "ping -c 1 -w 1 192.168.56.135; true")


def test_bare_has_addresses_gateways_and_web_servers_only(lab_name: str) -> None:
    lab = up(lab_name, "--bare")
    assert status(lab_name)["table"] == []
    for node in ("director", "rs1", "rs2"):
        assert lab.addresses.vip not in lab.type(node, "ip address show")
        assert lab.type(node, "cat /proc/sys/net/ipv4/ip_forward").strip() == "0"
    for node in ("rs1", "rs2"):
        assert "default via 192.168.56.100 dev eth0" in lab.type(node, "ip route")
        assert "default via fd6c:7673:0:2::10 dev eth0" in lab.type(node, "ip -6 route")
        assert lab.type("director", f"curl -s http://{lab.addresses.rips[int(node[2]) - 1]}/") == f"{node}\n"
    for node in ("director", "client"):
        assert "default" not in lab.type(node, "ip route; ip -6 route")
    assert "->" not in lab.type("director", "ipvsadm -Ln").partition("RemoteAddress")[2]


def test_addresses_are_the_operators(lab_name: str) -> None:
    lab = up(
        lab_name, "--network", "10.1.0.0/16", "--vip", "10.1.9.9", "--dip", "10.1.0.5", "--client",
        "10.1.0.6", "--inside-network", "10.2.0.0/28", "--inside-dip", "10.2.0.14", "--rip", "10.2.0.3",
        "--interface", "eth1",
    )  # fmt: skip
    assert "10.1.0.5/16" in lab.type("director", "ip address show dev eth1")
    assert "10.2.0.14/28" in lab.type("director", "ip address show dev eth0")
    assert lab.ask(2) == ["rs1", "rs1"]
    assert "10.2.0.3:80" in lab.type("director", "ipvsadm -Ln")


def test_a_router_may_stand_outside(lab_name: str) -> None:
    lab = up(lab_name, "--router")
    assert sorted(lab.ask(4)) == ["rs1", "rs1", "rs2", "rs2"]
    assert f"via {lab.addresses.gateway} " in lab.type("client", f"ip route get {lab.addresses.vip}")


@pytest.mark.parametrize(
    "harm",
    [
        "ip -n xlvs-{lab}-director link delete eth1",
        "ip -n xlvs-{lab}-switch link delete inside",
        "ip netns pids xlvs-{lab}-rs1 | xargs kill -9; ip netns delete xlvs-{lab}-rs1",
    ],
)
def test_up_repairs_it(lab_name: str, harm: str) -> None:
    lab = up(lab_name)
    subprocess.run(["sh", "-c", harm.format(lab=lab_name)], check=True)
    up(lab_name)
    for node in ("client", "director"):
        lab.forget_neighbours(node)
    assert sorted(lab.ask(4)) == ["rs1", "rs1", "rs2", "rs2"]
    assert "already" in xlvs("lab", "up", "nat", "--name", lab_name).stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["nat", "--rip", "192.168.219.135"],
            "--rip 192.168.219.135 is outside the network 192.168.56.0/24",
        ),
        (["nat", "--inside-dip", "10.0.0.1"], "--inside-dip 10.0.0.1 is outside the network"),
        (["nat", "--vip", "192.168.56.1"], "--vip 192.168.56.1 is outside the network 192.168.219.0/24"),
        (["nat", "--inside-network", "192.168.0.0/16"], "overlap"),
        (["nat", "--inside-network", "192.168.57.1/24"], "no IPv4 network"),
        (["nat", "--inside-network", "203.0.113.0/24", "--router"], "behind the router"),
        (["nat", "--inside-dip", "192.168.56.9", "--rip", "192.168.56.9"], "already"),
        (["dr", "--inside-network", "10.0.0.0/24"], "xlvs lab up nat"),
        (["dr", "--inside-dip", "10.0.0.1"], "xlvs lab up nat"),
    ],
)
def test_bad_input_changes_nothing(lab_name: str, options: list[str], complaint: str) -> None:
    refused = xlvs("lab", "up", *options, "--name", lab_name, code=2)
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert left_behind(lab_name) == []


def test_help_names_what_is_new() -> None:
    told = xlvs("lab", "up", "--help").stdout
    for word in ("nat: NAT", "--inside-network", "--inside-dip"):
        assert word in told
