# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs proc`` beside the kernel's own files in /proc/net, for the same table and traffic."""

from __future__ import annotations

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import Scenario, differences, play

STORY = Scenario.parse(
    "connections, templates and counters; then every kind of service and real server",
    """
    proc ip_vs
    ipvsadm -A -t {vip}:80 -s rr
    ipvsadm -a -t {vip}:80 -r {rs1} -g
    ipvsadm -a -t {vip}:80 -r {rs2} -g
    ipvsadm -A -u {vip}:53 -s rr -p 200 -M 255.255.255.0
    ipvsadm -a -u {vip}:53 -r {rs1} -g
    ipvsadm -A -t [{vip6}]:80 -s rr
    ipvsadm -a -t [{vip6}]:80 -r [{rs1_6}]:80 -g
    ipvsadm -A -t [{vip6}]:81 -s rr -p 300
    ipvsadm -a -t [{vip6}]:81 -r [{rs2_6}]:81 -g
    open a tcp {vip}:80
    open b tcp {vip}:80
    open c udp {vip}:53
    open d tcp [{vip6}]:80
    open e tcp [{vip6}]:81
    send a 1000
    close b
    proc ip_vs
    proc ip_vs_conn
    proc ip_vs_conn_sync
    ipvsadm -D -u {vip}:53
    open f tcp {vip}:80
    ipvsadm -Z -t {vip}:80
    wait 60
    proc ip_vs_conn
    proc ip_vs_stats
    proc ip_vs_stats_percpu
    ipvsadm -Z
    wait 3
    proc ip_vs_stats
    proc ip_vs_stats_percpu
    ipvsadm -C
    proc ip_vs
    ipvsadm -A -t {vip}:80 -s rr
    ipvsadm -a -t {vip}:80 -r {rs1} -g -w 3 -x 5
    ipvsadm -a -t {vip}:80 -r {rs2} -i
    ipvsadm -a -t {vip}:80 -r {rs3}:8080 -m -w 12345678
    ipvsadm -a -t {vip}:80 -r [{rs3_6}]:80 -i --tun-type gue --tun-port 6080
    ipvsadm -A -u {vip}:53 -s wlc -o
    ipvsadm -a -u {vip}:53 -r {rs1} -g
    ipvsadm -A -u {vip}:54 -o -p 30 -M 255.255.255.0
    ipvsadm -A -t {vip}:0 -p
    ipvsadm -A -f 5 -s sh -b sh-port,sh-fallback -p
    ipvsadm -a -f 5 -r {rs1} -g
    ipvsadm -A -f 4294967295 -s mh -o
    ipvsadm -A -f 5 -6 -s wlc -p 70 -M 65
    ipvsadm -a -f 5 -6 -r [{rs1_6}]:0 -i
    ipvsadm -A -t [{vip6}]:80 -s wlc
    ipvsadm -a -t [{vip6}]:80 -r [{rs1_6}]:80 -m -w 9
    ipvsadm -a -t [{vip6}]:80 -r {rs1} -i
    ipvsadm -A -u [{vip6}]:80 -s wlc -o -p 60 -M 64
    proc ip_vs
    proc ip_vs_conn
    proc ip_vs_conn_sync
    """,
)


@pytest.mark.timeout(600)
def test_files_are_the_kernels(fast_guest: Guest) -> None:
    plays = play(fast_guest, [STORY], timeout=500)
    told = differences(plays)
    assert not told, "\n".join(told)
    # Not the likeness of two empty answers.
    seen = {one.step: one.answer for one in plays[0].observations}
    assert "persistent 7500 FFFFFF00" in seen["proc ip_vs"]
    assert "0A000064 0035" in seen["proc ip_vs_conn_sync"] and "LOCAL" in seen["proc ip_vs_conn_sync"]
