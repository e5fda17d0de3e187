# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs realserver` on a kernel that has tunnel devices, and on one without tcx: Debian's, in the guest."""

from __future__ import annotations

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import PROJECT

VIP, VIP6 = "192.0.2.100", "fd6c:7673::100"
RIP = "192.0.2.101"
PROGRAMS = PROJECT / ".venv/bin"
NAME = "taken"

# Without `xlvs lab exec`: to start a Python is what takes time in the guest.
FUNCTIONS = f"""
in_node() {{ node=$1; shift; ip netns exec xlvs-{NAME}-$node "$@"; }}
add() {{ in_node rs1 {PROGRAMS}/xlvs realserver add --quiet --vip {VIP},{VIP6} "$@"; }}
state() {{
    in_node rs1 sh -c 'ip addr; ip rule; ip route show table all; ip -6 route show table all
        ip fou show; nft list ruleset; grep -rs . /proc/sys/net/ipv4/conf
        tc qdisc show; tc filter show dev eth0 egress'
}}
# By tunnels over IPv4, which the fallback devices of that end take, IPv6's packets too.
ask_by() {{
    in_node director {PROGRAMS}/xlvsadm -R <<END
-C
-A -t {VIP}:80 -s rr
-a -t {VIP}:80 -r {RIP} -i --tun-type $*
-A -t [{VIP6}]:80 -s rr
-a -t [{VIP6}]:80 -r {RIP}:80 -i --tun-type $*
END
    for host in {VIP} [{VIP6}]; do
        echo "$1 $(in_node client curl -g -s -m 20 http://$host/ || echo nobody)"
    done
}}
"""
STORY = f"""
modprobe -a ipip sit ip_gre fou
{PROGRAMS}/xlvs lab up dr --bare --real-servers 1 --quiet --name {NAME} >/dev/null || exit 1
in_node director ip addr add {VIP}/32 dev eth0
in_node director ip addr add {VIP6}/128 dev eth0 nodad preferred_lft 0
# A device that was never up has another queueing discipline than one that was.
for device in tunl0 sit0 gre0; do
    in_node rs1 ip link set $device up
    in_node rs1 ip link set $device down
done
state >/tmp/before
in_node rs1 sysctl -q net.ipv4.conf.all.rp_filter=1
add --method tun --tunnel ipip,gre,gue || exit 1
in_node rs1 {PROGRAMS}/xlvs realserver list --json | grep -c '"decapsulator": "devices"'
ask_by ipip; ask_by gre; ask_by gue --tun-port 6080
add --method tun --tunnel ipip,gre,gue --decap ebpf --arp ebpf || exit 1
ask_by gre --tun-csum; ask_by gue --tun-port 6080
# So many answer; a slow machine may ask twice.
in_node client arping -b -w 1 -I eth0 {VIP} | grep 'reply from' | grep -o '\\[.*\\]' | sort -u | wc -l
in_node rs1 {PROGRAMS}/xlvs realserver check >&2 && echo checked
in_node rs1 tc filter show dev eth0 egress | grep -c xlvs_silence
in_node rs1 {PROGRAMS}/xlvs realserver remove --all >&2
in_node rs1 sysctl -q net.ipv4.conf.all.rp_filter=0
state | diff /tmp/before - && echo as before
"""
BY_TUNNELS = [f"{kind} rs1" for kind in ("ipip", "gre", "gue") for _ in range(2)]


@pytest.mark.timeout(500)
def test_the_kernels_own_tunnel_devices_and_no_tcx(guest: Guest) -> None:
    try:
        told = guest.run(["sh", "-c", FUNCTIONS + STORY], timeout=360)
        assert told.stdout.splitlines() == [
            "2", *BY_TUNNELS, *BY_TUNNELS[2:], "1", "checked", "1", "as before",
        ], told.stderr  # fmt: skip
    finally:
        guest.run([str(PROGRAMS / "xlvs"), "lab", "down", "--name", NAME], timeout=120)
