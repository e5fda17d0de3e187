# SPDX-License-Identifier: GPL-2.0-only
"""Real servers and clients on the director itself, and one-packet scheduling: as kernel IPVS has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play

REAL_SERVERS_HERE = Scenario.parse(
    "the director is a real server, by each forwarding method",
    """
    listen tcp 8080
    listen udp 5353
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {dip}:8080 -m
    < -A -t {vip}:81 -s rr
    < -a -t {vip}:81 -r {dip} -g
    < -A -t {vip}:82 -s rr
    < -a -t {vip}:82 -r {dip} -i
    < -A -t {vip}:83 -s rr
    < -a -t {vip}:83 -r 127.0.0.1 -g
    < -A -t {vip}:84 -s rr
    < -a -t {vip}:84 -r 127.0.0.1:8080 -m
    < -A -t [{vip6}]:80 -s rr
    < -a -t [{vip6}]:80 -r [{dip_6}]:8080 -m
    < -A -t [{vip6}]:81 -s rr
    < -a -t [{vip6}]:81 -r [{dip_6}]:81 -g
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {dip}:5353 -m
    open masquerade tcp {vip}:80
    open route tcp {vip}:81
    open tunnel tcp {vip}:82
    open loopback tcp {vip}:83
    open masquerade6 tcp [{vip6}]:80
    open route6 tcp [{vip6}]:81
    open datagram udp {vip}:53
    open refused tcp {vip}:84
    send masquerade 3000
    send route 3000
    send masquerade6 3000
    connections
    close route
    close masquerade
    close loopback
    close masquerade6
    reset tunnel
    connections
    wait 3
    ipvsadm -L -n
    ipvsadm -L -n --stats
    """,
)

CLIENTS_HERE = Scenario.parse(
    "clients on the director itself",
    """
    listen tcp 8080
    listen udp 5353
    run rs1 ip route add default via {dip}
    run rs1 ip -6 route add default via {dip_6}
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -a -t {vip}:80 -r {rs1}:8080 -m
    < -A -t {vip}:81 -s rr
    < -a -t {vip}:81 -r {dip} -g
    < -A -t {vip}:82 -s rr
    < -a -t {vip}:82 -r {dip}:8080 -m
    < -A -t {vip}:83 -s rr
    < -a -t {vip}:83 -r 127.0.0.1:8080 -m
    < -A -t [{vip6}]:80 -s rr
    < -a -t [{vip6}]:80 -r [{rs1_6}]:8080 -m
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {rs1}:5353 -m
    < -A -u {vip}:54 -s rr
    < -a -u {vip}:54 -r {rs1}:5454 -m
    run rs1 ip addr del {vip}/32 dev lo
    run rs1 ip -6 addr del {vip6}/128 dev lo
    open remote tcp {vip}:80 on director from {vip}:40001
    open remote-dip tcp {vip}:80 on director from {dip}:40002
    open here tcp {vip}:81 on director from {vip}:40003
    open translated tcp {vip}:82 on director from {vip}:40004
    open loopback tcp {vip}:83 on director from {vip}:40005
    open remote6 tcp [{vip6}]:80 on director from {vip6}:40006
    open datagram udp {vip}:53 on director from {dip}:40007
    open closed udp {vip}:54 on director from {dip}:40008
    send remote 3000
    send here 3000
    send translated 3000
    send remote6 3000
    connections
    close remote
    close here
    close loopback
    reset remote6
    connections
    wait 3
    ipvsadm -L -n
    ipvsadm -L -n --stats
    open loopback-source tcp {vip}:80 on director from 127.0.0.1:40009
    connections
    """,
)

ONE_PACKET = Scenario.parse(
    "one-packet scheduling",
    """
    listen udp 5353
    ipvsadm -R
    < -A -u {vip}:53 -s rr -o
    < -a -u {vip}:53 -r {rs1} -g
    < -a -u {vip}:53 -r {rs2} -g
    < -a -u {vip}:53 -r {rs3} -g
    < -A -u {vip}:54 -s wrr --ops
    < -a -u {vip}:54 -r {rs1}:5353 -m -w 2
    < -a -u {vip}:54 -r {dip}:5353 -m
    < -A -u [{vip6}]:53 -s rr
    < -a -u [{vip6}]:53 -r [{rs1_6}]:53 -g
    < -a -u [{vip6}]:53 -r [{rs2_6}]:53 -g
    ipvsadm -L -n
    ipvsadm -S -n
    open a udp {vip}:53
    send a
    send a 500
    send a
    send a
    open b udp {vip}:54
    send b
    send b
    send b
    open c udp [{vip6}]:53
    send c
    ipvsadm -E -u [{vip6}]:53 -s rr -o
    send c
    open d udp [{vip6}]:53
    send d
    send d
    ipvsadm -E -u {vip}:53 -s rr
    open e udp {vip}:53
    send e
    connections
    wait 3
    ipvsadm -L -n
    ipvsadm -L -n --stats
    """,
)


@pytest.fixture(scope="module", autouse=True)
def guest_of_its_own(shared_fast_guest: Guest) -> Iterator[None]:
    """After these the guest goes.

    Kernel IPVS never lets go of a network device by which it sent to a real server on
    the director itself: its namespace then stays half deleted for ever ("waiting for
    eth0 to become free"), and with it whatever else has to do with namespaces.
    """
    yield
    shared_fast_guest.stop()


@pytest.mark.parametrize("scenario", [REAL_SERVERS_HERE, CLIENTS_HERE, ONE_PACKET], ids=lambda one: one.name)
def test_as_in_kernel_ipvs(fast_guest: Guest, scenario: Scenario) -> None:
    plays = play(fast_guest, [scenario])
    assert [each.director for each in plays] == [KERNEL, XLVS]
    told = differences(plays)
    assert not told, "\n".join(told)
