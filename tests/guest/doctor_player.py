# SPDX-License-Identifier: GPL-2.0-only
"""The doctor where there is kernel IPVS, and where the whole machine may be spoilt: clock, conntrack.

``python -m tests.guest.doctor_player`` runs in the guest.  It builds a lab of NAT whose director is
kernel IPVS, makes mistakes one after another, and prints JSON: for each what the doctor found, what was
left when it had mended, and whether undoing led to exactly what was before.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from xlvs.datapath.kernel import open_kernel
from xlvs.doctor import mending
from xlvs.doctor.checks import judge
from xlvs.doctor.examination import Place, examine
from xlvs.doctor.finding import NOTE, Finding
from xlvs.doctor.mending import Journal
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import lifecycle, namespaces
from xlvs.lab.addresses import Request
from xlvs.model import IPV4, ROUTE, TCP, Destination, Service, ServiceKey

NAME = "examined"
FLOWS = 12
SYSCTLS = "grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward | sort"
TABLE = "ipvsadm -Sn"
XLVSADM = str(Path(sys.executable).parent / "xlvsadm")
XLVS = str(Path(sys.executable).parent / "xlvs")

Found = list[tuple[str, str]]


def run(host: str, command: str) -> tuple[int, str]:
    """Run a command in a node, or (of no name) here; not by the lab, whose `ipvsadm` is xlvs."""
    inside = ["nsenter", f"--net={namespaces.path(f'xlvs-{NAME}-{host}')}"] if host else []
    done = subprocess.run([*inside, "sh", "-c", command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def typed(host: str, command: str) -> str:
    """The same, which has to succeed; what it printed."""
    code, said = run(host, command)
    assert code == 0, f"{host}# {command}: {said}"
    return said


def named(findings: list[Finding]) -> Found:
    return [(finding.check, finding.host) for finding in findings if finding.severity != NOTE]


def tried(places: tuple[Place, ...], state: Callable[[], str], only: str = "") -> tuple[Found, Found, bool]:
    """What is found, what is left after mending, and whether undoing leads to what was before."""

    def look() -> list[Finding]:
        found = judge(examine(places, whole=False, ask=False))
        return [finding for finding in found if only in ("", finding.check)]

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal")
        before, findings = state(), look()
        for done in mending.mend(findings, journal, run):
            assert not done.error, done
        left = named(look()) if named(findings) else []
        for done in mending.undo(journal, run):
            assert not done.error, done
        return named(findings), left, state() == before


def main() -> None:
    """Tell the whole story."""
    record = lifecycle.new_record("nat", NAME, Request(real_servers=1), bare=True)
    lifecycle.up(record, lambda _line: None)
    addresses = record.addresses
    vip, rip = addresses.vip, addresses.rips[0]
    places = tuple(
        Place(each.name, each.role, namespaces.path(record.namespace(each.name)))
        for each in lifecycle.plan_of(record).nodes
    )
    story: dict[str, object] = {}

    def settings() -> str:
        return typed("director", f"{SYSCTLS}; {TABLE}")

    typed("director", f"ip addr add {vip}/32 dev {addresses.interface}; sysctl -qw net.ipv4.ip_forward=1")
    typed("director", f"ipvsadm -A -t {vip}:80 -s rr && ipvsadm -a -t {vip}:80 -r {rip}:80 -m")
    typed("director", "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.accept_redirects=0")
    # To look at other nodes is what takes time in a guest: of these mistakes the director alone knows.
    alone = places[:1]
    story["ip_forward"] = tried(alone, settings)
    typed("director", "sysctl -qw net.ipv4.ip_forward=1")
    with network_namespace(namespaces.path(record.namespace("director"))), open_kernel() as kernel:
        key = ServiceKey(IPV4, TCP, socket.inet_aton(vip), 81)
        kernel.add_service(Service(key, "rr"))
        kernel.add_destination(key, Destination(socket.inet_aton(rip), 8080, ROUTE, 1))
    story["port"] = tried(alone, settings, "port-differs")
    typed("director", f"ipvsadm -D -t {vip}:81")
    typed("director", f"{XLVSADM} -A -t {vip}:80 && {XLVSADM} -a -t {vip}:80 -r {rip}:80 -m")
    story["two tables"] = named(judge(examine(alone, whole=False, ask=False)))
    typed("director", f"{XLVS} detach")

    def set_the_clock() -> None:
        while not looked.wait(0.05):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + 2)

    looked, setter = threading.Event(), threading.Thread(target=set_the_clock)
    setter.start()
    try:
        cluster = examine(places, whole=True)
    finally:
        looked.set()
        setter.join()
    story["clock"] = named(judge(cluster))
    story["asked"] = [answer.as_virtual.outcome for answer in cluster.asked.values()]
    lifecycle.down(NAME, lambda _line: None)

    typed("", "ip link set lo up; "
        "nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; "
              "add rule ip t c ct state new accept'")  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flows:
        for port in range(FLOWS):
            flows.sendto(b"", ("127.0.0.1", 40000 + port))
        typed("", f"sysctl -qw net.netfilter.nf_conntrack_max={FLOWS}")
        story["conntrack"] = tried(
            (Place(""),), lambda: typed("", "sysctl net.netfilter.nf_conntrack_max"), "conntrack"
        )
    json.dump(story, sys.stdout)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()
