# SPDX-License-Identifier: GPL-2.0-only
"""FTP under NAT: what is expected, entered, counted and kept, as kernel IPVS with ip_vs_ftp does."""

from __future__ import annotations

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play

# The real server is in the client's network: redirects would show it the short way.
# A control connection's minute more is not compared: the kernel's timer of 900 seconds
# may be sixteen late.  That it goes on after them is.
FTP = Scenario.parse(
    "FTP under NAT",
    """
    listen tcp 50000
    listen tcp 50001
    listen tcp 5001
    run director modprobe ip_vs_ftp
    run director sh -c "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding"
    run director sh -c "for each in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$each; done"
    run rs1 sh -c "for each in /proc/sys/net/ipv6/conf/*/accept_redirects; do echo 0 >$each; done"
    run rs1 ip route add {client} via {dip}
    run rs1 ip -6 route add {client_6} via {dip_6}
    ipvsadm -R
    < -A -t {vip}:21 -s rr
    < -a -t {vip}:21 -r {rs1}:21 -m
    < -A -t [{vip6}]:21 -s rr
    < -a -t [{vip6}]:21 -r [{rs1_6}]:21 -m
    open c tcp {vip}:21
    ask c PASV
    answer c 227 Entering Passive Mode ({rs1_ftp},195,80).
    connections
    ipvsadm -L -n
    open d tcp {vip}:50000
    connections
    ipvsadm -L -n
    send d 100
    ask c PORT {client_ftp},19,137
    connections
    ipvsadm -L -n
    open e tcp {client}:5001 on rs1 from {rs1}:20
    connections
    ipvsadm -L -n
    close d
    connections
    ask c EPSV
    answer c 229 Entering Extended Passive Mode (|||50001|)
    open f tcp {vip}:50001
    ask c EPRT |1|{client}|5002|
    open g tcp {client}:5002 on rs1 from {rs1}:20
    open h tcp [{vip6}]:21
    ask h EPSV 2
    answer h 229 Entering Extended Passive Mode (|||50001|)
    connections
    open i tcp [{vip6}]:50001
    ask h EPRT |2|{client_6}|5001|
    open j tcp [{client_6}]:5001 on rs1 from [{rs1_6}]:20
    ask h EPSV
    answer h 229 Entering Extended Passive Mode (|||50000|)
    connections
    ipvsadm -L -n
    wait 125
    connections
    wait 500
    send f 100
    send i 100
    wait 310
    ask c NOOP
    ask h NOOP
    connections
    ipvsadm -L -n
    """,
    servers=1,
)


def test_as_in_kernel_ipvs(fast_guest: Guest) -> None:
    plays = play(fast_guest, [FTP])
    assert [each.director for each in plays] == [KERNEL, XLVS]
    told = differences(plays)
    assert not told, "\n".join(told)
