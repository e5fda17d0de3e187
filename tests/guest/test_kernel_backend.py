# SPDX-License-Identifier: GPL-2.0-only
"""The backend for kernel IPVS: what ipvsadm sees of its changes, and what becomes of them on eBPF.

The guest plays (`backend_player`); the same lines are played here on the eBPF data plane.
"""

from __future__ import annotations

import io
import json
import sys

import pytest

from tests.guest.backend_player import LISTINGS, PORT, RIP
from tests.guest.ipvsadm_transcript import format_answer
from tests.guest.runner import Guest
from tests.guest.scenario import PROJECT
from tests.packet.director import new_director
from xlvs.cli import ipvsadm
from xlvs.datapath import open_datapath

LINES = """\
-A -t 203.0.113.1:80 -s rr
-A -t 203.0.113.1:80 -s wrr
-a -t 203.0.113.1:80 -r 198.51.100.1 -g -w 3 -x 100 -y 50
-a -t 203.0.113.1:80 -r 198.51.100.2:8080 -m
-a -t 203.0.113.1:80 -r 198.51.100.2:8080 -m
-a -t 203.0.113.1:80 -r 198.51.100.3 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 203.0.113.1:80 -r 198.51.100.4 -i --tun-type gre
-a -t 203.0.113.1:80 -r 198.51.100.5 -i
-a -t 203.0.113.1:80 -r [2001:db8:1::6]:80 -i --tun-type gue --tun-port 6081 --tun-remcsum
-a -t 203.0.113.1:80 -r [2001:db8:1::7]:80 -g
-a -t 203.0.113.1:80 -r 198.51.100.8 -g -w 2147483647
-a -t 203.0.113.1:80 -r 198.51.100.9 -x 5 -y 9
-a -t 203.0.113.1:80 -r 224.0.0.1
-a -t 203.0.113.9:80 -r 198.51.100.1
-e -t 203.0.113.1:80 -r 198.51.100.1 -g -w 0
-e -t 203.0.113.1:80 -r 198.51.100.77 -g
-d -t 203.0.113.1:80 -r 198.51.100.5
-d -t 203.0.113.1:80 -r 198.51.100.5
-E -t 203.0.113.1:80 -s sh -b sh-port,sh-fallback -p 120 -M 255.255.255.0
-E -t 203.0.113.9:80 -s rr
-D -t 203.0.113.9:80
-Z -t 203.0.113.9:80
-A -u 203.0.113.1:5060 -s wlc -o --pe sip -p 60
-E -u 203.0.113.1:5060 -s wlc -o -p 60
-A -u 203.0.113.1:5061 -s mh -b mh-port -p --pe sip
-A --sctp-service 203.0.113.1:9 -s none
-A -t [2001:db8::1]:80 -s lblc -p 60 -M 64
-a -t [2001:db8::1]:80 -r [2001:db8:1::1]:80 -m -w 9
-a -t [2001:db8::1]:80 -r 198.51.100.1:80 -i
-A -f 5 -s sed
-a -f 5 -r 198.51.100.1 -g
-A -f 4294967295 -6 -s nq -p 70 -M 65
-A -f 6 -s rr
-a -f 6 -r 198.51.100.1 -g
-D -f 6
--set 1000 0 77
-Z
"""


def by_ebpf(words: list[str]) -> str:
    """What xlvsadm answers, with its own data plane."""
    stdout, stderr = io.StringIO(), io.StringIO()
    status = ipvsadm.run(words, io.StringIO(), stdout, stderr, open_datapath)
    return format_answer(stdout.getvalue(), stderr.getvalue(), status)


@pytest.mark.timeout(400)
def test_kernel_ipvs_is_a_data_plane(guest: Guest) -> None:
    player = [sys.executable, "-m", "tests.guest.backend_player"]
    played = guest.run(player, stdin=LINES, directory=PROJECT, timeout=300)
    assert not played.exit_code, played.stderr
    found = json.loads(played.stdout)
    for moment, listing, theirs, ours in found["seen"]:
        assert ours == theirs, f"{moment}: ipvsadm {listing}"
    with new_director():
        for line, answer in found["answers"]:
            assert by_ebpf(line.split()) == answer, f"ipvsadm {line}"
        for moment, listing, _, ours in found["seen"][: len(LISTINGS)]:
            assert by_ebpf(listing.split()) == ours, f"{moment}: ipvsadm {listing}"
    # Not the likeness of two empty tables.
    saved = next(ours for _, listing, _, ours in found["seen"] if listing == "-S -n")
    assert len(saved.splitlines()) == 17, saved
    assert found["facts"] == [
        "1 1 1 1 1 of all, True, ASSURED",
        "0 0 1 1 1 of all, True, ASSURED",
        # One table in the place of another; then two that the kernel refuses half-way.
        "80/rr:2w2,1w1 81/rr:1w1",
        "80/wlc:3w3,1w9 82/rr:2w2",
        *["SchedulerNotFound: Scheduler twos not found\n"
          "This kernel lacks it, or its module cannot be loaded: modprobe ip_vs_twos"] * 2,
        "80/wlc:3w3,1w9 82/rr:2w2",
        "NotSupported: kernel IPVS goes by the marks of netfilter, and has no rules of its own\n"
        "Mark packets there: nft add rule ... meta mark set MARK, or iptables -j MARK",
        "NotSupported: kernel IPVS has no idle_timeout: TCP 192.0.2.1:81 needs the eBPF data plane\n"
        "Leave idle_timeout out, or run xlvsd without --datapath kernel",
        "InvalidOperation: the kernel does not take the timeouts 1073741824, 0, 0",
        "InvalidOperation: the kernel does not take '9' for drop_entry: Invalid argument\n"
        "What it has now: cat /proc/sys/net/ipv4/vs/drop_entry",
        "0 1 '3\\t50'",
        "",
        # xlvsd: the real server passes its check, fails, passes; then the daemon ends.
        f"{RIP}:{PORT} Masq 7",
        "no real server",
        "kernel: up False",
        f"{RIP}:{PORT} Masq 7",
        "exit 0, no service",
        "The data plane refuses a change of TCP 192.0.2.1:81: "
        "kernel IPVS has no idle_timeout: TCP 192.0.2.1:81 needs the eBPF data plane",
        "IP Virtual Server version 1.2.1 (size=4096)",
    ], played.stderr  # fmt: skip
