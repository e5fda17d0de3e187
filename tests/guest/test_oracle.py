# SPDX-License-Identifier: GPL-2.0-only
"""xlvs beside kernel IPVS: the same scenario, the same observations."""

from __future__ import annotations

import shlex

import pytest

from tests.guest.player import PROGRAMS
from tests.guest.scenario import KERNEL, XLVS, Observation, Play, Scenario, differences

SCHEDULERS = Scenario.parse(
    "four schedulers while weights and servers change",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -A -t {vip}:81 -s wrr
    < -A -t {vip}:82 -s lc
    < -A -t {vip}:83 -s wlc
    """
    + "\n".join(
        f"< -a -t {{vip}}:{port} -r {{rs{server}}} -g -w {weight}"
        for port in range(80, 84)
        for server, weight in ((1, 4), (2, 1), (3, 2))
    )
    + "\n"
    + "\n".join(f"open {port}-{turn} tcp {{vip}}:{port}" for turn in range(9) for port in range(80, 84))
    + """
    ipvsadm -L -n
    close 82-0
    close 82-3
    close 83-0
    close 83-1
    close 83-2
    connections
    ipvsadm -R
    < -e -t {vip}:80 -r {rs1} -g -w 0
    < -e -t {vip}:81 -r {rs1} -g -w 2
    < -e -t {vip}:81 -r {rs2} -g -w 6
    < -d -t {vip}:82 -r {rs2}
    < -e -t {vip}:83 -r {rs1} -g -w 1
    < -a -t {vip}:83 -r {rs4} -g -w 3
    """
    + "\n".join(f"open {port}-x{turn} tcp {{vip}}:{port}" for turn in range(8) for port in range(80, 84))
    + """
    send 80-0 100
    ipvsadm -L -n
    ipvsadm -R
    < -a -t {vip}:82 -r {rs2} -g -w 1
    < -d -t {vip}:81 -r {rs3}
    < -e -t {vip}:80 -r {rs1} -g -w 1
    """
    + "\n".join(f"open {port}-y{turn} tcp {{vip}}:{port}" for turn in range(5) for port in range(80, 84))
    + """
    open elsewhere tcp {vip}:8080
    reset 83-3
    wait 3
    ipvsadm -L -n --stats
    ipvsadm -L -n
    connections
    """,
    servers=4,
)

PROTOCOLS = Scenario.parse(
    "IPv6, UDP and a director that is its own real server",
    """
    ipvsadm -R
    < -A -t [{vip6}]:80 -s wrr
    < -a -t [{vip6}]:80 -r [{rs1_6}]:80 -g -w 1
    < -a -t [{vip6}]:80 -r [{rs2_6}]:80 -g -w 2
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {rs1} -g
    < -a -u {vip}:53 -r {rs2} -g
    < -A -u [{vip6}]:53 -s lc
    < -a -u [{vip6}]:53 -r [{rs1_6}]:53 -g
    < -a -u [{vip6}]:53 -r [{rs2_6}]:53 -g
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r 127.0.0.1 -g
    < -a -t {vip}:80 -r {rs1} -g
    open a tcp [{vip6}]:80
    open b tcp [{vip6}]:80
    open c tcp [{vip6}]:80
    open d tcp [{vip6}]:80
    open e udp {vip}:53
    open f udp {vip}:53
    open g udp {vip}:53
    send e 20
    send f 20
    open h udp [{vip6}]:53
    open i udp [{vip6}]:53
    send h 30
    wait 3
    ipvsadm -L -n --stats
    open j tcp {vip}:80
    open k tcp {vip}:80
    open l tcp {vip}:80 from 10.0.0.202:1234
    close a
    reset b
    close j
    ipvsadm -L -n
    connections
    """,
    servers=2,
)


# IPVS gets its marks from netfilter, xlvs from rules of its own; /proc tells who has the services.
MARK = (
    "set -e; if grep -q FWM /proc/net/ip_vs; then for each in iptables ip6tables; do "
    "$each -t mangle -A PREROUTING -p tcp -m multiport --dports 80,443,8000:8100 -j MARK --set-mark 1; "
    "$each -t mangle -A PREROUTING -p udp -j MARK --set-mark 2; done; "
    "else for all in 0.0.0.0/0 ::/0; do "
    "echo add 1 --dst $all --proto tcp --port 80,443,8000-8100; echo add 2 --dst $all --proto udp; "
    f"done | {PROGRAMS}/xlvs mark restore; fi"
)
MARKS = Scenario.parse(
    "services of firewall marks",
    """
    ipvsadm -R
    < -A -f 1 -s rr
    < -a -f 1 -r {rs1} -g
    < -a -f 1 -r {rs2} -g
    < -A -f 1 -6 -s wrr
    < -a -f 1 -6 -r {rs1_6} -g -w 2
    < -a -f 1 -6 -r {rs2_6} -g -w 1
    < -A -t {vip}:443 -s rr
    < -a -t {vip}:443 -r {rs1} -g
    < -A -t {vip}:81 -s rr
    < -a -t {vip}:81 -r {rs2} -g
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {rs2} -g
    ipvsadm -L -n
    open unmarked tcp {vip}:443
    """
    + f"run director sh -c {shlex.quote(MARK)}"
    + """
    open a tcp {vip}:80
    open b tcp {vip}:443
    open c tcp {vip}:8000
    open d tcp {vip}:8100
    open e tcp {vip}:80
    open f tcp {vip}:81
    open g tcp {vip}:8101
    open h tcp [{vip6}]:80
    open i tcp [{vip6}]:443
    open j tcp [{vip6}]:8050
    open k udp {vip}:53
    send unmarked 10
    send b 20
    close a
    ipvsadm -L -n
    ipvsadm -L -n -f 1
    ipvsadm -S -n
    connections
    ipvsadm -D -f 1
    open l tcp {vip}:443
    open m tcp {vip}:80
    open n tcp [{vip6}]:80
    wait 3
    ipvsadm -L -n --stats
    ipvsadm -Z -f 1 -6
    ipvsadm -E -f 1 -6 -s rr
    ipvsadm -L -n -f 1 -6
    connections
    """,
    servers=2,
)


EXPIRY = Scenario.parse(
    "entries expire with nobody looking after them",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {rs1} -g
    < -a -t {vip}:80 -r {rs2} -g
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {rs1} -g
    open stays tcp {vip}:80
    open closed tcp {vip}:80
    open reset tcp {vip}:80
    open datagram udp {vip}:53
    close closed
    reset reset
    connections
    wait 6
    connections
    wait 6
    connections
    wait 95
    ipvsadm -L -n
    connections
    wait 35
    ipvsadm -L -n
    connections
    wait 135
    connections
    wait 50
    connections
    ipvsadm -L -n
    """,
    servers=2,
)


# The last step is for xlvs: how it is attached on this kernel.
TWO_SERVERS = Scenario.parse(
    "round robin",
    """
    ipvsadm -A -t {vip}:80 -s rr
    ipvsadm -a -t {vip}:80 -r {rs1} -g
    ipvsadm -a -t {vip}:80 -r {rs2} -g
    open a tcp {vip}:80
    open b tcp {vip}:80
    open c tcp {vip}:80
    open d tcp {vip}:80
    ipvsadm -L -n
    send a 1000
    close a
    run director uname -r
    run director tc filter show dev eth0 ingress
    """,
    servers=2,
)

COMPARED = (SCHEDULERS, PROTOCOLS, MARKS, EXPIRY)
SCENARIOS = (TWO_SERVERS, *COMPARED)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("director", [KERNEL, XLVS])
def test_round_robin(director: str, played: dict[str, list[Play]]) -> None:
    """What is compared below is not that nothing works."""
    (one,) = (one for one in played[TWO_SERVERS.name] if one.director == director)
    assert [seen.answer for seen in one.observations[:3]] == ["= 0\n"] * 3
    first, second, *_ = one.picks()
    assert {first, second} == {"rs1", "rs2"}
    assert one.picks() == [first, second, first, second]
    # They really went through the director: it has two active connections for each.
    listing, *_, release, filters = one.observations[-5:]
    assert listing.answer.count("Route   1      2          0") == 2
    # No tcx before 6.6: there the program must be a clsact filter.
    if director == XLVS and "1|6.1." in release.answer:
        assert "direct-action" in filters.answer


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", COMPARED, ids=lambda scenario: scenario.name)
def test_same_as_the_kernel(scenario: Scenario, played: dict[str, list[Play]]) -> None:
    plays = played[scenario.name]
    assert [one.director for one in plays] == [KERNEL, XLVS]
    for one in plays:
        prepared = [seen.answer for seen in one.observations if seen.step.startswith("run ")]
        assert set(prepared) <= {"= 0\n"}, prepared
    told = differences(plays)
    assert not told, "\n".join(told)


def test_differences_tell_the_story_so_far() -> None:
    def played(director: str, pick: str, end: float) -> Play:
        listing = Observation("connections", "the table", (end,))
        return Play("short", director, (Observation("open a", "rs1"), Observation("open b", pick), listing))

    assert differences([played(KERNEL, "rs2", 100), played(XLVS, "rs2", 96.5)]) == []
    (told,) = differences([played(KERNEL, "rs2", 100), played(XLVS, "rs1", 100)])
    assert told == "scenario 'short': \n    open a   -> rs1\n    open b\nkernel:\nrs2\nxlvs:\nrs1"
    (told,) = differences([played(KERNEL, "rs2", 100), played(XLVS, "rs2", 60)])
    assert told.endswith("xlvs:\nthe table\nexpire at seconds: [60]")
