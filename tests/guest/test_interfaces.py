# SPDX-License-Identifier: GPL-2.0-only
"""xlvs beside kernel IPVS behind a VLAN's tag and behind a bond, by every forwarding method."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.guest.oracle import XLVS_XDP, disagreements, play
from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario

EVERY_METHOD = Scenario.parse(
    "every method",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {rs1} -g
    < -a -t {vip}:80 -r {rs2}:8080 -m
    < -a -t {vip}:80 -r {rs3} -i
    < -a -t {vip}:80 -r {rs4} -g
    < -a -t {vip}:80 -r {rs5}:8080 -m
    < -a -t {vip}:80 -r [{rs6_6}]:80 -i --tun-type gue --tun-port 6080
    < -A -u [{vip6}]:53 -s rr
    < -a -u [{vip6}]:53 -r [{rs1_6}]:53 -m
    < -a -u [{vip6}]:53 -r [{rs2_6}]:53 -g
    < -a -u [{vip6}]:53 -r {rs3} -i --tun-type gre
    packet tcp {client1}:40000+6 {vip}:80 S
    answer tcp {client1}:40000+6 {vip}:80 SA
    packet tcp {client1}:40000+6 {vip}:80 A data=300 options=01010101
    packet tcp {client1}:40000+6 {vip}:80 A data=300
    packet tcp {client1}:40000+6 {vip}:80 A data=1460 df
    packet udp [{client1_6}]:40000+3 [{vip6}]:53 data=100
    packet udp [{client1_6}]:40000+3 [{vip6}]:53 data=100 options=00010400000000
    answer udp [{client1_6}]:40000+3 [{vip6}]:53 data=1200
    icmp {router} tcp {client1}:40000 {vip}:80 3/4 mtu=1300
    icmp {router} tcp {client1}:40001 {vip}:80 3/4 mtu=1300
    icmp {router} tcp {client1}:40002 {vip}:80 3/4 mtu=1300
    icmp server tcp {client1}:40003 {vip}:80 3/1
    icmp server tcp {client1}:40004 {vip}:80 3/1
    packet tcp {client1}:40000+6 {vip}:80 FA ttl=1
    connections
    ipvsadm -L -n --stats
    """,
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("shape", "directors"),
    [("vlan", (KERNEL, XLVS)), ("bond", (KERNEL, XLVS, XLVS_XDP))],
    ids=["vlan", "bond"],
)
def test_same_as_the_kernel(shape: str, directors: Sequence[str], fast_guest: Guest) -> None:
    """With a VLAN both its device and the one beneath are attached: each packet is seen twice."""
    plays = play(fast_guest, [EVERY_METHOD], directors, shape=shape)
    # They went somewhere at all: six connections, each by a server of its own.
    first = next(seen.answer for seen in plays[0].observations if seen.step.startswith("packet"))
    assert {line.split()[0] for line in first.splitlines()} == {f"rs{n}" for n in range(1, 7)}
    found = disagreements(plays)
    assert not found, "\n".join(found.values())
