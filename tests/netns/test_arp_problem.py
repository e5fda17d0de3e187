# SPDX-License-Identifier: GPL-2.0-only
"""Without the ARP settings, real servers answer for the VIP, and one of them gets everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.labs import Lab

MakeLab = Callable[..., Lab]
SERVERS = ("rs1", "rs2", "rs3")


def set_up_without_arp_settings(lab: Lab) -> None:
    vip = lab.addresses.vip
    lab.type("director", f"ip addr add {vip}/32 dev eth0")
    lab.type("director", f"ipvsadm -A -t {vip}:80 -s rr")
    for server, address in zip(SERVERS, lab.addresses.rips, strict=True):
        lab.type(server, f"ip addr add {vip}/32 dev lo")
        lab.type("director", f"ipvsadm -a -t {vip}:80 -r {address} -g")


@pytest.mark.parametrize("router", [False, True])
def test_client_or_router_stays_with_the_last_server_plugged_in(make_lab: MakeLab, router: bool) -> None:
    lab = make_lab(bare=True, router=router)
    set_up_without_arp_settings(lab)
    asker = "router" if router else "client"

    assert lab.answering_macs(asker) == {lab.mac(node) for node in ("director", *SERVERS)}
    for _ in range(5):  # not by luck
        lab.forget_neighbours(asker)
        assert lab.ask(3) == ["rs3"] * 3
    assert "TCP" not in lab.type("director", "ipvsadm -Lcn")

    for server in SERVERS:
        lab.type(server, "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")
        lab.type(server, "echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce")
    assert lab.answering_macs(asker) == {lab.mac("director")}
    lab.forget_neighbours(asker)
    assert sorted(lab.ask(6)) == ["rs1", "rs1", "rs2", "rs2", "rs3", "rs3"]


def test_the_order_of_the_ports_survives_a_repair(make_lab: MakeLab) -> None:
    """A director that was rebuilt must not be the last one plugged in: it would win the race."""
    from xlvs.lab import lifecycle

    lab = make_lab(bare=True)
    lab.type("director", "ip link delete eth0")
    assert lifecycle.up(lab.record, lambda _line: None)
    set_up_without_arp_settings(lab)
    lab.forget_neighbours()
    assert lab.ask(3) == ["rs3"] * 3
