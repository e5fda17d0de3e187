# SPDX-License-Identifier: GPL-2.0-only
"""The settings of /proc/sys/net/ipv4/vs do to connections what they do in kernel IPVS."""

from __future__ import annotations

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play

TWO_SERVERS = """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {rs1} METHOD
    < -a -t {vip}:80 -r {rs2} METHOD
    < -A -t {vip}:81 -s rr
    < -a -t {vip}:81 -r {rs1} METHOD
    < -a -t {vip}:81 -r {rs2} METHOD
    < -A -t {vip}:82 -s rr -p 50
    < -a -t {vip}:82 -r {rs1} METHOD
    < -a -t {vip}:82 -r {rs2} METHOD
"""


def _reuse(mode: int, method: str) -> Scenario:
    """Connections that ended, each in its way, and come again from the same port."""
    story = "\n".join(
        f"""
        open {end} tcp {{vip}}:{port} from 10.0.0.201:{number}
        {end.rstrip("0123456789")} {end}
        open {end}again tcp {{vip}}:{port} from 10.0.0.201:{number}
        """
        for number, (end, port) in enumerate(
            (("close1", 80), ("reset1", 81), ("close2", 82), ("reset2", 80), ("close3", 81)), start=1001
        )
    )
    return Scenario.parse(
        f"conn_reuse_mode {mode}, {method}",
        TWO_SERVERS.replace("METHOD", method) + f"sysctl conn_reuse_mode {mode}\n" + story + "connections\n"
        "ipvsadm -L -n",
    )


REUSE = tuple(_reuse(mode, method) for mode in (0, 1, 2, 3) for method in ("-g", "-m"))

REMOVED = Scenario.parse(
    "expire_nodest_conn: the connections of removed real servers end",
    TWO_SERVERS.replace("METHOD", "-m")
    + """
    sysctl expire_nodest_conn 1
    open a tcp {vip}:80 from 10.0.0.201:1001
    open b tcp {vip}:80 from 10.0.0.201:1002
    open c tcp {vip}:82 from 10.0.0.201:1003
    open d tcp {vip}:82 from 10.0.0.202:1003
    connections
    ipvsadm -d -t {vip}:80 -r {rs1}
    ipvsadm -d -t {vip}:82 -r {rs2}
    wait 3
    connections
    ipvsadm -L -n
    ipvsadm -a -t {vip}:80 -r {rs1} -m
    ipvsadm -a -t {vip}:82 -r {rs2} -m
    ipvsadm -L -n
    open e tcp {vip}:82 from 10.0.0.201:1004
    open f tcp {vip}:82 from 10.0.0.202:1004
    connections
    sysctl expire_nodest_conn 0
    ipvsadm -d -t {vip}:80 -r {rs2}
    wait 3
    connections
    """,
)


def _quiesced(reuse: int) -> Scenario:
    return Scenario.parse(
        f"expire_nodest_conn: a quiesced real server gets no new connection on an old port (reuse {reuse})",
        TWO_SERVERS.replace("METHOD", "-g")
        + f"""
        sysctl expire_nodest_conn 1
        sysctl conn_reuse_mode {reuse}
        open a tcp {{vip}}:80 from 10.0.0.201:1001
        open b tcp {{vip}}:80 from 10.0.0.201:1002
        open c tcp {{vip}}:82 from 10.0.0.201:1003
        ipvsadm -e -t {{vip}}:80 -r {{rs1}} -g -w 0
        ipvsadm -e -t {{vip}}:80 -r {{rs2}} -g -w 0
        ipvsadm -e -t {{vip}}:82 -r {{rs1}} -g -w 0
        ipvsadm -e -t {{vip}}:82 -r {{rs2}} -g -w 0
        send a 10
        connections
        close a
        reset c
        ipvsadm -e -t {{vip}}:80 -r {{rs1}} -g -w 1
        ipvsadm -e -t {{vip}}:82 -r {{rs1}} -g -w 1
        open a2 tcp {{vip}}:80 from 10.0.0.201:1001
        reset b
        open b2 tcp {{vip}}:80 from 10.0.0.201:1002
        open c2 tcp {{vip}}:82 from 10.0.0.201:1003
        connections
        """,
    )


QUIESCENT_TEMPLATE = Scenario.parse(
    "expire_quiescent_template: a client of a quiesced real server gets another",
    TWO_SERVERS.replace("METHOD", "-g")
    + """
    sysctl expire_quiescent_template 1
    open a tcp {vip}:82 from 10.0.0.201:1001
    open b tcp {vip}:82 from 10.0.0.202:1001
    open c tcp {vip}:82 from 10.0.0.203:1001
    ipvsadm -e -t {vip}:82 -r {rs1} -g -w 0
    open a2 tcp {vip}:82 from 10.0.0.201:1002
    open b2 tcp {vip}:82 from 10.0.0.202:1002
    open c2 tcp {vip}:82 from 10.0.0.203:1002
    ipvsadm -e -t {vip}:82 -r {rs1} -g -w 1
    open a3 tcp {vip}:82 from 10.0.0.201:1003
    sysctl expire_quiescent_template 0
    ipvsadm -e -t {vip}:82 -r {rs1} -g -w 0
    ipvsadm -e -t {vip}:82 -r {rs2} -g -w 0
    open a4 tcp {vip}:82 from 10.0.0.201:1004
    open b4 tcp {vip}:82 from 10.0.0.202:1004
    connections
    """,
)


def _taken_over(sloppy: int, method: str) -> Scenario:
    """The director loses its table while a connection is open: an ACK begins it anew, or nothing does."""
    return Scenario.parse(
        f"sloppy_tcp {sloppy}, {method}",
        f"""
        sysctl sloppy_tcp {sloppy}
        sysctl expire_nodest_conn 1
        ipvsadm -A -t {{vip}}:80 -s rr
        ipvsadm -a -t {{vip}}:80 -r {{rs1}} {method}
        open a tcp {{vip}}:80 from 10.0.0.201:1001
        ipvsadm -d -t {{vip}}:80 -r {{rs1}}
        wait 3
        connections
        ipvsadm -a -t {{vip}}:80 -r {{rs1}} {method}
        {"send a 10" if sloppy else ""}
        connections
        ipvsadm -L -n
        """,
    )


def _secure(method: str, sloppy: int) -> Scenario:
    return Scenario.parse(
        f"secure_tcp {method}, sloppy_tcp {sloppy}",
        TWO_SERVERS.replace("METHOD", method)
        + f"""
        sysctl sloppy_tcp {sloppy}
        sysctl secure_tcp 3
        open a tcp {{vip}}:80 from 10.0.0.201:1001
        open b tcp {{vip}}:80 from 10.0.0.201:1002
        open c tcp {{vip}}:80 from 10.0.0.201:1003
        connections
        reset a
        close b
        connections
        open a2 tcp {{vip}}:80 from 10.0.0.201:1001
        open b2 tcp {{vip}}:80 from 10.0.0.201:1002
        connections
        ipvsadm -L -n
        sysctl secure_tcp 0
        open d tcp {{vip}}:81 from 10.0.0.201:1004
        sysctl secure_tcp 1
        open e tcp {{vip}}:81 from 10.0.0.201:1005
        send d 10
        close d
        connections
        """,
    )


HALF_OPEN = """
    run client ip route replace blackhole {rs1}
"""

DROP_PACKET = Scenario.parse(
    "drop_packet drops one in so many that begin a connection",
    """
    ipvsadm -A -u {vip}:53 -s rr
    ipvsadm -a -u {vip}:53 -r {rs1} -g
    ipvsadm -a -u {vip}:53 -r {rs2} -g
    open before udp {vip}:53 from 10.0.0.201:1001
    sysctl am_droprate 3
    sysctl drop_packet 3
    open a udp {vip}:53 from 10.0.0.201:1002
    open b udp {vip}:53 from 10.0.0.201:1003
    send before
    open c udp {vip}:53 from 10.0.0.201:1004
    open d udp {vip}:53 from 10.0.0.201:1005
    open e udp {vip}:53 from 10.0.0.201:1006
    open f udp {vip}:53 from 10.0.0.201:1007
    sysctl am_droprate 1
    sysctl drop_packet 0
    open g udp {vip}:53 from 10.0.0.201:1008
    sysctl drop_packet 1
    open h udp {vip}:53 from 10.0.0.201:1009
    connections
    """,
)

STORIES = (
    *REUSE,
    REMOVED,
    _quiesced(0),
    _quiesced(1),
    QUIESCENT_TEMPLATE,
    *(_taken_over(sloppy, method) for sloppy in (0, 1) for method in ("-g", "-m")),
    *(_secure(method, sloppy) for method in ("-g", "-m") for sloppy in (0, 1)),
    DROP_PACKET,
)


@pytest.mark.parametrize("scenario", STORIES, ids=lambda scenario: scenario.name)
def test_like_the_kernel(fast_guest: Guest, scenario: Scenario) -> None:
    plays = play(fast_guest, [scenario], (KERNEL, XLVS))
    assert not differences(plays), "\n".join(differences(plays))
