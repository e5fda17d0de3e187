# SPDX-License-Identifier: GPL-2.0-only
"""SCTP services with real associations: picks, states, counters and ends as in kernel IPVS."""

from __future__ import annotations

import shlex

import pytest

from tests.guest.player import PROGRAMS
from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play

# The checksum is finished where it is made, and not left to a network card that has no need of it.
_WHOLE = "from tests.packet.offloads import leave_nothing_to_the_card as leave; leave('eth0')"
WHOLE_CHECKSUMS = "\n".join(
    f"run {node} {PROGRAMS}/python -c {shlex.quote(_WHOLE)}" for node in ("client", "director", "rs1")
)

ROUTED = Scenario.parse(
    "associations by Direct Routing, over both families",
    """
    ipvsadm -R
    < -A --sctp-service {vip}:80 -s rr
    < -a --sctp-service {vip}:80 -r {rs1} -g
    < -a --sctp-service {vip}:80 -r {rs2} -g
    < -A --sctp-service [{vip6}]:80 -s wlc
    < -a --sctp-service [{vip6}]:80 -r [{rs1_6}]:80 -g
    < -a --sctp-service [{vip6}]:80 -r [{rs2_6}]:80 -g -w 2
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {rs1} -g
    ipvsadm -L -n
    ipvsadm -S -n
    open a sctp {vip}:80
    open b sctp {vip}:80
    open d sctp [{vip6}]:80
    open e sctp [{vip6}]:80
    open g tcp {vip}:80
    send a 3000
    send d 500
    ipvsadm -L -n
    connections
    close a
    close d
    reset b
    reset e
    connections
    ipvsadm -L -n
    open again sctp {vip}:80 from 10.0.0.1:40000
    send again 10
    connections
    open other sctp {vip}:81
    wait 3
    ipvsadm -L -n --stats
    wait 50
    connections
    wait 20
    connections
    ipvsadm -L -n
    ipvsadm -D --sctp-service {vip}:80
    ipvsadm -L -n
    """,
    servers=2,
)


def _masqueraded(name: str, prepared: str) -> Scenario:
    return Scenario.parse(
        name,
        f"""
        listen sctp 8080
        run director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        run director sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
        run rs1 sh -c "ip route add 10.0.0.1/32 via {{dip}}; ip -6 route add {{client_6}}/128 via {{dip_6}}"
        run rs1 sysctl -qw net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_redirects=0
        {prepared}
        ipvsadm -R
        < -A --sctp-service {{vip}}:80 -s rr
        < -a --sctp-service {{vip}}:80 -r {{rs1}}:8080 -m
        < -A --sctp-service {{vip}}:81 -s rr
        < -a --sctp-service {{vip}}:81 -r {{rs1}}:81 -m
        < -A --sctp-service [{{vip6}}]:80 -s rr
        < -a --sctp-service [{{vip6}}]:80 -r [{{rs1_6}}]:8080 -m
        open a sctp {{vip}}:80
        open b sctp {{vip}}:81
        open c sctp [{{vip6}}]:80
        connections
        send a 100
        send b 1001
        send c 1302
        send a 9000
        ipvsadm -L -n
        wait 3
        ipvsadm -L -n --stats
        close a
        reset b
        close c
        connections
        open again sctp {{vip}}:80 from 10.0.0.1:40000
        open again-6 sctp [{{vip6}}]:80
        send again 7
        connections
        ipvsadm -L -n
        wait 3
        ipvsadm -L -n --stats
        wait 50
        connections
        wait 20
        connections
        """,
        servers=1,
    )


REFUSED = Scenario.parse(
    "real servers that do not answer, or refuse",
    """
    ipvsadm -R
    < -A --sctp-service {vip}:80 -s rr
    < -a --sctp-service {vip}:80 -r 10.0.0.99 -g
    < -A --sctp-service {vip}:81 -s rr
    open silent sctp {vip}:80
    connections
    open nobody sctp {vip}:81
    ipvsadm -L -n
    wait 4
    connections
    ipvsadm -L -n
    """,
    servers=1,
)

PERSISTENT = Scenario.parse(
    "persistence",
    """
    ipvsadm -R
    < -A --sctp-service {vip}:80 -s rr -p 50
    < -a --sctp-service {vip}:80 -r {rs1} -g
    < -a --sctp-service {vip}:80 -r {rs2} -g
    open a sctp {vip}:80
    open b sctp {vip}:80
    open c sctp {vip}:80 from 10.0.0.201:1001
    connections
    reset a
    reset c
    open g sctp {vip}:80
    open h sctp {vip}:80 from 10.0.0.201:1001
    connections
    ipvsadm -L -n --persistent-conn
    wait 70
    connections
    """,
    servers=2,
)

SCENARIOS = (
    ROUTED,
    _masqueraded("masqueraded, checksums left to the card", ""),
    _masqueraded("masqueraded, checksums finished", WHOLE_CHECKSUMS),
    REFUSED,
    PERSISTENT,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_as_in_kernel_ipvs(fast_guest: Guest, scenario: Scenario) -> None:
    plays = play(fast_guest, [scenario], timeout=240)
    assert [each.director for each in plays] == [KERNEL, XLVS]
    for one in plays:
        prepared = [seen.answer for seen in one.observations if seen.step.startswith("run ")]
        assert set(prepared) <= {"= 0\n"}, prepared
    told = differences(plays)
    assert not told, "\n".join(told)
    if scenario is not REFUSED:
        assert not set(plays[1].picks()) & {"no answer", "refused"}
