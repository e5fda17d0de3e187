# SPDX-License-Identifier: GPL-2.0-only
"""Four tutorials of the field, typed as printed, in labs that have nothing but their addresses."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.labs import XLVS, Lab

MakeLab = Callable[..., Lab]

ARP_SETTINGS = (
    "echo 1 >/proc/sys/net/ipv4/conf/{where}/arp_ignore",
    "echo 2 >/proc/sys/net/ipv4/conf/{where}/arp_announce",
)


def type_arp_settings(lab: Lab, node: str, *interfaces: str) -> None:
    for interface in interfaces:
        for line in ARP_SETTINGS:
            lab.type(node, line.format(where=interface))


def assert_round_robin(answers: list[str], servers: set[str]) -> None:
    """Every server answered, in turn, and nothing else did."""
    assert set(answers) == servers
    turn = answers[: len(servers)]
    assert answers == [turn[position % len(turn)] for position in range(len(answers))]


def test_first_tutorial(make_lab: MakeLab) -> None:
    lab = make_lab(
        bare=True,
        network="123.234.1.0/24",
        vip="123.234.1.101",
        dip="123.234.1.102",
        rips=("123.234.1.111", "123.234.1.112"),
    )
    lab.type("director", "ifconfig eth0:1 123.234.1.101 netmask 255.255.255.0 up")
    lab.type("director", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    lab.type("director", "ipvsadm -A -t 123.234.1.101:80 -s rr")
    for server in ("rs1", "rs2"):
        type_arp_settings(lab, server, "lo", "all")
        lab.type(server, "ifconfig lo:0 123.234.1.101 netmask 255.255.255.255 up")
        lab.type(server, "route add -host 123.234.1.101 dev lo:0")
    lab.type("director", "ipvsadm -a -t 123.234.1.101:80 -r 123.234.1.111 -g")
    lab.type("director", "ipvsadm -a -t 123.234.1.101:80 -r 123.234.1.112 -g")

    assert_round_robin(lab.ask(12), {"rs1", "rs2"})

    screen = watch_for_a_while(lab, "director", "watch -n 1 ipvsadm -Ln")
    assert "Every 1.0s: ipvsadm -Ln" in screen
    assert "123.234.1.101:80 rr" in screen
    assert "123.234.1.111:80" in screen and "123.234.1.112:80" in screen

    connections = [
        line.split() for line in lab.type("director", "ipvsadm -Lcn").splitlines() if line.startswith("TCP")
    ]
    assert len(connections) == 12
    assert {entry[4] for entry in connections} == {"123.234.1.101:80"}
    assert Counter(entry[5] for entry in connections) == {"123.234.1.111:80": 6, "123.234.1.112:80": 6}


def watch_for_a_while(lab: Lab, node: str, line: str) -> str:
    """Type a line that never ends on a terminal, leave it after three seconds; return what it drew."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [XLVS, "lab", "exec", "--name", lab.name, node, "--", "sh", "-c", line],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        start_new_session=True,
    )
    os.close(end)
    drawn = b""
    try:
        finish = time.monotonic() + 3
        while time.monotonic() < finish:
            if select.select([terminal], [], [], 0.1)[0]:
                drawn += os.read(terminal, 65536)
        assert process.poll() is None, f"{line} has ended by itself: {drawn.decode()}"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=10)
        os.close(terminal)
    return drawn.decode()


def test_second_tutorial_shows_which_arp_setting_suffices(make_lab: MakeLab) -> None:
    """An ARP request for the VIP comes in on ens32, so what counts is the higher of `all` and `ens32`.

    The settings of `lo` are never asked: with them alone every real server
    still answers, and the client stays with whoever was first.
    """
    lab = make_lab(
        bare=True,
        network="192.168.219.0/24",
        vip="192.168.219.100",
        dip="192.168.219.134",
        rips=("192.168.219.135", "192.168.219.136"),
        interface="ens32",
    )
    lab.type("director", "ifconfig ens32:1 192.168.219.100 netmask 255.255.255.0 up")
    lab.type("director", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    lab.type("director", "ipvsadm -A -t 192.168.219.100:80 -s rr")
    for server, address in (("rs1", "192.168.219.135"), ("rs2", "192.168.219.136")):
        type_arp_settings(lab, server, "lo")
        lab.type(server, "ifconfig lo:0 192.168.219.100 netmask 255.255.255.255 up")
        lab.type(server, "route add -host 192.168.219.100 dev lo:0")
        lab.type("director", f"ipvsadm -a -t 192.168.219.100:80 -r {address} -g")

    assert lab.answering_macs() == {lab.mac("director"), lab.mac("rs1"), lab.mac("rs2")}
    lab.forget_neighbours()
    assert lab.ask(6) == ["rs2"] * 6
    assert "TCP" not in lab.type("director", "ipvsadm -Lcn"), "no packet should have come to the director"

    for server in ("rs1", "rs2"):
        type_arp_settings(lab, server, "all")
    assert lab.answering_macs() == {lab.mac("director")}
    lab.forget_neighbours()
    assert_round_robin(lab.ask(6), {"rs1", "rs2"})

    # And `all` does it alone.
    for server in ("rs1", "rs2"):
        lab.type(server, "echo 0 >/proc/sys/net/ipv4/conf/lo/arp_ignore")
        lab.type(server, "echo 0 >/proc/sys/net/ipv4/conf/lo/arp_announce")
    assert lab.answering_macs() == {lab.mac("director")}
    lab.forget_neighbours()
    assert_round_robin(lab.ask(6), {"rs1", "rs2"})


def test_third_tutorial_real_servers_take_packets_by_redirect(make_lab: MakeLab) -> None:
    lab = make_lab(
        bare=True, network="192.200.0.0/24", vip="192.200.0.198", rips=("192.200.0.20", "192.200.0.21")
    )
    lab.type(
        "director",
        """cat >>/etc/network/interfaces <<END
auto eth0:0
iface eth0:0 inet static
    address 192.200.0.198
    netmask 255.255.255.0
END""",
    )
    lab.type("director", "ifup eth0:0")
    assert "192.200.0.198" in lab.type("director", "ifconfig eth0:0")
    lab.type("director", "ipvsadm -A -t 192.200.0.198:80 -s rr")
    for server, address in (("rs1", "192.200.0.20"), ("rs2", "192.200.0.21")):
        lab.type("director", f"ipvsadm -a -t 192.200.0.198:80 -r {address} -g")
        lab.type(server, "iptables -t nat -A PREROUTING -d 192.200.0.198 -j REDIRECT")
        assert "192.200.0.198" not in lab.type(server, "ip address"), "the real server should hold no VIP"

    assert lab.answering_macs() == {lab.mac("director")}
    assert_round_robin(lab.ask(8), {"rs1", "rs2"})
    assert "192.200.0.198" in lab.type("director", "cat /etc/network/interfaces")
    assert "192.200.0.198" not in lab.type("rs1", "cat /etc/network/interfaces")


@pytest.mark.parametrize("ip_forward", [0, 1])
def test_fourth_tutorial_director_is_its_own_real_server(make_lab: MakeLab, ip_forward: int) -> None:
    lab = make_lab(bare=True, network="123.234.1.0/24", vip="123.234.1.101", rips=("123.234.1.111",))
    lab.type("director", f"echo {ip_forward} >/proc/sys/net/ipv4/ip_forward")
    lab.type("director", "ifconfig eth0:1 123.234.1.101 netmask 255.255.255.0 up")
    lab.type("director", "nginx")
    type_arp_settings(lab, "rs1", "lo", "all")
    lab.type("rs1", "ifconfig lo:0 123.234.1.101 netmask 255.255.255.255 up")
    lab.type("director", "ipvsadm -A -t 123.234.1.101:80 -s rr")
    lab.type("director", "ipvsadm -a -t 123.234.1.101:80 -r 127.0.0.1 -g")
    lab.type("director", "ipvsadm -a -t 123.234.1.101:80 -r 123.234.1.111 -g")

    assert_round_robin(lab.ask(8), {"director", "rs1"})
    assert "127.0.0.1:80" in lab.type("director", "ipvsadm -Ln")
