# SPDX-License-Identifier: GPL-2.0-only
"""Persistent services, services of all ports, and connection thresholds: as kernel IPVS has them."""

from __future__ import annotations

import pytest

from tests.guest.scenario import KERNEL, XLVS, Play, Scenario, differences

PERSISTENT = Scenario.parse(
    "a client stays with its real server, and templates are listed",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr -p 100
    < -a -t {vip}:80 -r {rs1} -g
    < -a -t {vip}:80 -r {rs2} -g
    < -a -t {vip}:80 -r {rs3} -g
    < -A -t {vip}:81 -s rr -p 50 -M 255.255.255.252
    < -a -t {vip}:81 -r {rs1} -g
    < -a -t {vip}:81 -r {rs2} -g
    < -A -u {vip}:53 -s rr -p
    < -a -u {vip}:53 -r {rs1} -g
    < -a -u {vip}:53 -r {rs2} -g
    < -A -t [{vip6}]:80 -s rr -p 60 -M 64
    < -a -t [{vip6}]:80 -r [{rs1_6}]:80 -g
    < -a -t [{vip6}]:80 -r [{rs2_6}]:80 -g
    ipvsadm -L -n
    ipvsadm -S -n
    open a tcp {vip}:80
    open b tcp {vip}:80
    open c tcp {vip}:80 from 10.0.0.201:1001
    open d tcp {vip}:80 from 10.0.0.202:1001
    open e tcp {vip}:80 from 10.0.0.203:1001
    open f tcp {vip}:80 from 10.0.0.201:1002
    open g tcp {vip}:81 from 10.0.0.201:1003
    open h tcp {vip}:81 from 10.0.0.202:1003
    open i tcp {vip}:81 from 10.0.0.203:1003
    open j tcp {vip}:81 from 10.0.0.204:1003
    open k tcp {vip}:81
    open l udp {vip}:53
    open m udp {vip}:53
    open n tcp [{vip6}]:80
    open o tcp [{vip6}]:80
    ipvsadm -L -n
    ipvsadm -L -n --persistent-conn
    connections
    close a
    close c
    reset b
    open p tcp {vip}:80
    ipvsadm -e -t {vip}:80 -r {rs1} -g -w 0
    ipvsadm -e -t {vip}:80 -r {rs2} -g -w 0
    open q tcp {vip}:80
    open r tcp {vip}:80 from 10.0.0.201:1005
    open s tcp {vip}:80 from 10.0.0.204:1005
    ipvsadm -d -t {vip}:80 -r {rs3}
    open t tcp {vip}:80 from 10.0.0.202:1006
    open u tcp {vip}:80 from 10.0.0.203:1006
    open v tcp {vip}:80 from 10.0.0.201:1006
    connections
    ipvsadm -a -t {vip}:80 -r {rs3} -g
    ipvsadm -e -t {vip}:80 -r {rs1} -g -w 1
    open w tcp {vip}:80 from 10.0.0.202:1007
    open x tcp {vip}:80 from 10.0.0.203:1007
    connections
    ipvsadm -L -n --persistent-conn
    wait 3
    ipvsadm -L -n --stats
    """,
)

LIFE = Scenario.parse(
    "templates outlive their connections, and their time while they have some",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr -p 20
    < -a -t {vip}:80 -r {rs1} -g
    < -a -t {vip}:80 -r {rs2} -g
    < -A -u {vip}:53 -s rr -p 30
    < -a -u {vip}:53 -r {rs1} -g
    < -a -u {vip}:53 -r {rs2} -g
    open a tcp {vip}:80
    open b tcp {vip}:80 from 10.0.0.201:1001
    reset b
    open c udp {vip}:53
    connections
    wait 17
    open d tcp {vip}:80
    connections
    wait 12
    connections
    wait 20
    connections
    open e tcp {vip}:80 from 10.0.0.201:1002
    open f tcp {vip}:80
    connections
    wait 70
    connections
    ipvsadm -L -n --persistent-conn
    """,
    servers=2,
)

ALL_PORTS = Scenario.parse(
    "all ports of an address, and of FTP",
    """
    listen tcp 2021
    ipvsadm -R
    < -A -t {vip}:0 -s rr -p 100
    < -a -t {vip}:0 -r {rs1}:0 -g
    < -a -t {vip}:0 -r {rs2}:0 -g
    < -A -t {vip}:443 -s rr
    < -a -t {vip}:443 -r {rs3} -g
    < -A -t [{vip6}]:21 -s rr -p 100
    < -a -t [{vip6}]:21 -r [{rs1_6}]:21 -g
    < -a -t [{vip6}]:21 -r [{rs2_6}]:21 -g
    ipvsadm -L -n
    ipvsadm -S -n
    open a tcp {vip}:80
    open b tcp {vip}:8080
    open c tcp {vip}:443
    open d tcp {vip}:81 from 10.0.0.201:1001
    open e tcp {vip}:80 from 10.0.0.201:1002
    open f udp {vip}:53
    open g tcp [{vip6}]:21
    open h tcp [{vip6}]:2021
    open i tcp [{vip6}]:82
    connections
    ipvsadm -D -t {vip}:0
    open j tcp {vip}:80
    open k tcp {vip}:443
    ipvsadm -E -t [{vip6}]:21 -s rr
    open l tcp [{vip6}]:2021
    open m tcp [{vip6}]:21 from 2001:db8::1:4000
    connections
    ipvsadm -L -n --persistent-conn
    """.replace("2001:db8::1:4000", "{client_6}:4000"),
)

THRESHOLDS = Scenario.parse(
    "upper and lower thresholds",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {rs1} -g -x 2 -y 1
    < -a -t {vip}:80 -r {rs2} -g -x 4
    < -A -u {vip}:53 -s wlc
    < -a -u {vip}:53 -r {rs1} -g -x 1
    < -a -u {vip}:53 -r {rs2} -g -x 2 -w 5
    ipvsadm -L -n --thresholds
    ipvsadm -a -t {vip}:80 -r {rs3} -g -x 2 -y 3
    open a tcp {vip}:80
    open b tcp {vip}:80
    open c tcp {vip}:80
    open d tcp {vip}:80
    open e tcp {vip}:80
    open f tcp {vip}:80
    open g tcp {vip}:80
    open h tcp {vip}:80
    ipvsadm -L -n --thresholds
    ipvsadm -e -t {vip}:80 -r {rs1} -g -x 3 -y 1
    open i tcp {vip}:80
    open j tcp {vip}:80
    open k udp {vip}:53
    open l udp {vip}:53
    open m udp {vip}:53
    open n udp {vip}:53
    reset a
    reset b
    reset c
    wait 14
    ipvsadm -L -n --thresholds
    open o tcp {vip}:80
    open p tcp {vip}:80
    open q tcp {vip}:80
    ipvsadm -e -t {vip}:80 -r {rs2} -g
    open r tcp {vip}:80
    ipvsadm -L -n --thresholds
    """,
)


SCENARIOS = (PERSISTENT, LIFE, ALL_PORTS, THRESHOLDS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_as_in_kernel_ipvs(scenario: Scenario, played: dict[str, list[Play]]) -> None:
    plays = played[scenario.name]
    assert [each.director for each in plays] == [KERNEL, XLVS]
    told = differences(plays)
    assert not told, "\n".join(told)
