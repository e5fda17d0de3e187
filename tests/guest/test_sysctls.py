# SPDX-License-Identifier: GPL-2.0-only
"""The settings of /proc/sys/net/ipv4/vs do to connections what they do in kernel IPVS."""

from __future__ import annotations

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play


def _services(*ports: int, persistent: tuple[int, ...] = ()) -> str:
    """Services with two real servers each."""
    lines = ["ipvsadm -R"]
    for port in (*ports, *persistent):
        lines.append(f"< -A -t {{vip}}:{port} -s rr" + (" -p 50" if port in persistent else ""))
        lines += [f"< -a -t {{vip}}:{port} -r {{rs{number}}} -g" for number in (1, 2)]
    return "\n".join(lines)


def _reuse(mode: int) -> str:
    """Connections that ended, each in its way, and come again from the same port."""
    steps = [f"sysctl conn_reuse_mode {mode}"]
    for number, (end, port) in enumerate((("close", 80), ("reset", 81), ("close", 82), ("reset", 82)), 1001):
        name, source = f"{end}{mode}{port}", f"10.0.0.{201 + mode}:{number}"
        steps += [
            f"open {name} tcp {{vip}}:{port} from {source}",
            f"{end} {name}",
            f"open {name}again tcp {{vip}}:{port} from {source}",
        ]
    return "\n".join(steps)


def _quiesced(mode: int) -> str:
    """Real servers lose their weight; SYNs on connections that are open, closed and reset."""
    client, kept = f"10.0.0.{201 + mode}", f"kept{mode}"
    return f"""
        sysctl conn_reuse_mode {mode}
        open a{mode} tcp {{vip}}:80 from {client}:1001
        open b{mode} tcp {{vip}}:80 from {client}:1002
        open c{mode} tcp {{vip}}:82 from {client}:1003
        open {kept} tcp {{vip}}:80 from {client}:1004
        ipvsadm -e -t {{vip}}:80 -r {{rs1}} -g -w 0
        ipvsadm -e -t {{vip}}:80 -r {{rs2}} -g -w 0
        ipvsadm -e -t {{vip}}:82 -r {{rs1}} -g -w 0
        ipvsadm -e -t {{vip}}:82 -r {{rs2}} -g -w 0
        send {kept} 10
        close a{mode}
        reset b{mode}
        reset c{mode}
        ipvsadm -e -t {{vip}}:80 -r {{rs1}} -g -w 1
        ipvsadm -e -t {{vip}}:82 -r {{rs1}} -g -w 1
        open a{mode}2 tcp {{vip}}:80 from {client}:1001
        open b{mode}2 tcp {{vip}}:80 from {client}:1002
        open c{mode}2 tcp {{vip}}:82 from {client}:1003
        connections
        """


STORIES = (
    Scenario.parse(
        "conn_reuse_mode",
        _services(80, 81, persistent=(82,))
        + "\n"
        + "\n".join(map(_reuse, range(4)))
        + "\nconnections\nipvsadm -L -n",
    ),
    Scenario.parse(
        "expire_nodest_conn: the connections of removed real servers end",
        _services(80, persistent=(82,))
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
        ipvsadm -a -t {vip}:80 -r {rs1} -g
        ipvsadm -a -t {vip}:82 -r {rs2} -g
        ipvsadm -L -n
        open e tcp {vip}:82 from 10.0.0.201:1004
        open f tcp {vip}:82 from 10.0.0.202:1004
        connections
        sysctl expire_nodest_conn 0
        ipvsadm -d -t {vip}:80 -r {rs2}
        wait 3
        connections
        """,
    ),
    Scenario.parse(
        "expire_nodest_conn: a quiesced real server gets no new connection on an old port",
        _services(80, persistent=(82,)) + "\nsysctl expire_nodest_conn 1\n" + _quiesced(0) + _quiesced(1),
    ),
    Scenario.parse(
        "expire_quiescent_template: a client of a quiesced real server gets another",
        _services(persistent=(82,))
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
    ),
    Scenario.parse(
        "sloppy_tcp: a segment of a connection that the director does not know",
        _services(80, 81)
        + """
        sysctl sloppy_tcp 1
        sysctl expire_nodest_conn 1
        open a tcp {vip}:80 from 10.0.0.201:1001
        open b tcp {vip}:81 from 10.0.0.201:1002
        ipvsadm -d -t {vip}:80 -r {rs1}
        ipvsadm -d -t {vip}:80 -r {rs2}
        ipvsadm -d -t {vip}:81 -r {rs1}
        ipvsadm -d -t {vip}:81 -r {rs2}
        wait 3
        connections
        ipvsadm -a -t {vip}:80 -r {rs2} -g
        ipvsadm -a -t {vip}:81 -r {rs2} -g
        send a 10
        connections
        sysctl secure_tcp 3
        send b 10
        connections
        ipvsadm -L -n
        """,
    ),
    Scenario.parse(
        "secure_tcp",
        _services(80, 81)
        + """
        sysctl secure_tcp 3
        open a tcp {vip}:80 from 10.0.0.201:1001
        open b tcp {vip}:80 from 10.0.0.201:1002
        open c tcp {vip}:80 from 10.0.0.201:1003
        connections
        reset a
        close b
        connections
        open a2 tcp {vip}:80 from 10.0.0.201:1001
        open b2 tcp {vip}:80 from 10.0.0.201:1002
        connections
        ipvsadm -L -n
        sysctl secure_tcp 0
        open d tcp {vip}:81 from 10.0.0.201:1004
        sysctl secure_tcp 1
        open e tcp {vip}:81 from 10.0.0.201:1005
        send d 10
        close d
        connections
        """,
    ),
    Scenario.parse(
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
        sysctl drop_packet 0
        open g udp {vip}:53 from 10.0.0.201:1008
        sysctl drop_packet 1
        open h udp {vip}:53 from 10.0.0.201:1009
        connections
        """,
    ),
)


@pytest.mark.timeout(600)
def test_like_the_kernel(fast_guest: Guest) -> None:
    told = differences(play(fast_guest, STORIES, (KERNEL, XLVS), timeout=500))
    assert not told, "\n".join(told)
