# SPDX-License-Identifier: GPL-2.0-only
"""Services of a firewall mark: a whole network and several ports, with real nginx and curl."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.labs import Lab

MakeLab = Callable[..., Lab]
NETWORKS = {4: ("198.51.100.0/24", "198.51.100.7", "198.51.100.200"),
            6: ("2001:db8:5::/64", "[2001:db8:5::7]", "[2001:db8:5::200]")}  # fmt: skip
HEADER = "Rule  Mark  Proto  Source  Destination  SourcePorts  Ports\n"
# nginx of a lab listens on port 80.
AND_443 = (
    """conf=$(sed -n 's/.* -c \\([^ ]*\\).*/\\1/p' "$(command -v nginx)") && """
    """sed -i 's/listen 80 /listen 443; &/; s/listen .::.:80 /listen [::]:443 ipv6only=on; &/' "$conf" """
    """&& nginx -s reload"""
)


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    """Two real servers of both networks, which the client reaches by the director; nothing is loaded."""
    made = make_lab(bare=True, real_servers=2)
    for server in ("rs1", "rs2"):
        made.type(server, f"ip route add local {NETWORKS[4][0]} dev lo")
        made.type(server, f"ip -6 route add local {NETWORKS[6][0]} dev lo")
        made.type(server, AND_443)
    made.type("client", f"ip route add {NETWORKS[4][0]} via {made.addresses.dip}")
    made.type("client", f"ip -6 route add {NETWORKS[6][0]} via {made.addresses.dip6}")
    return made


def assert_in_turn(answers: list[str]) -> None:
    assert set(answers) == {"rs1", "rs2"}
    assert answers == [answers[position % 2] for position in range(len(answers))]


def serve(lab: Lab, version: int) -> None:
    """A service of mark 1 with both real servers."""
    family = " -6" if version == 6 else ""
    lab.type("director", f"ipvsadm -A -f 1{family} -s rr")
    for address in lab.addresses.rips6 if version == 6 else lab.addresses.rips:
        lab.type("director", f"ipvsadm -a -f 1{family} -r {address} -g")


def ask(lab: Lab, version: int) -> list[str]:
    """Eight pages, of two addresses and two ports by turns."""
    _, one, other = NETWORKS[version]
    return [lab.ask(1, f"http://{host}:{port}/")[0] for host in (one, other) for port in (80, 443) * 2]


def test_a_network_and_two_ports_are_one_service(lab: Lab) -> None:
    assert lab.type("director", "xlvs mark list") == HEADER
    lab.type("director", "xlvs status", code=3)
    for network, *_ in NETWORKS.values():
        lab.type("director", f"xlvs mark add 1 --dst {network} --proto tcp --port 80,443")
    for version in NETWORKS:
        serve(lab, version)
        assert_in_turn(ask(lab, version))
    listed = lab.type("director", "ipvsadm -Ln").split("\n")[3:]
    assert [line.split()[:4] for line in listed if line.startswith("FWM")] == [
        ["FWM", "1", "rr"],
        ["FWM", "1", "IPv6", "rr"],
    ]
    for address in (*lab.addresses.rips, *(f"[{rip}]" for rip in lab.addresses.rips6)):
        (line,) = (line for line in listed if f"-> {address}:0 " in line)
        assert line.split()[2:4] == ["Route", "1"]
        assert sum(map(int, line.split()[4:])) == 4
    assert f"{NETWORKS[4][1]}:443" in lab.type("director", "ipvsadm -Lcn")
    assert "mark rules       2" in lab.type("director", "xlvs status")

    # Another port is not of the service; the client hears from the director, or nobody.
    assert lab.ask(1, f"http://{NETWORKS[4][1]}:81/") == ["failed"]


def test_rules_and_services_are_two_tables(lab: Lab) -> None:
    network = NETWORKS[4][0]
    lab.type("director", f"xlvs mark add 1 --dst {network}")
    serve(lab, 4)
    services = lab.type("director", "ipvsadm -Sn")
    saved = lab.type("director", "xlvs mark save")
    assert saved == f"add 1 --dst {network}\n"

    lab.type("director", "ipvsadm -C")
    assert lab.type("director", "xlvs mark save") == saved
    assert lab.ask(1, f"http://{NETWORKS[4][1]}/") == ["failed"]
    lab.type("director", f"echo '{services}' | ipvsadm -R")
    assert_in_turn(ask(lab, 4))

    lab.type("director", "ipvsadm -Z -f 1 && xlvs mark clear")
    assert lab.ask(1, f"http://{NETWORKS[4][1]}/") == ["failed"]
    assert lab.type("director", f"echo '{saved.strip()}' | xlvs mark restore") == ""
    assert_in_turn(ask(lab, 4))
    lab.type("director", f"xlvs mark delete 1 --dst {network} && ipvsadm -D -f 1")
    assert lab.type("director", "xlvs mark list") == HEADER
    assert "FWM" not in lab.type("director", "ipvsadm -Ln")
