# SPDX-License-Identifier: GPL-2.0-only
"""Requests by way of kernel IPVS, xlvs and proxies, in the guest: ``python -m bench.guest_lab_player``.

Labs of a client, a director and two real servers with nginx; one for each data plane
and method, and a bare one, whose director is a router, and has HAProxy and nginx stream.
All run on the guest's only processor, whose nanoseconds are instructions.  Writes a JSON object to
stdout: instructions of the whole guest for a request of each round, by kind and row.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import labs, proxies, requests
from bench.guest_requests import ROUTER, ROWS
from bench.guest_rows import DR, IPVS, NAT, XLVS_TC, XLVS_XDP, row
from bench.lab_goals import DIRECT, KEPT, SHORT
from bench.loads import Failed
from bench.proxies import HAPROXY, NGINX
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import namespaces
from xlvs.lab.state import Record

_ROUTED = ("198.51.100.1", "198.51.100.2")
"""Of the real servers once more (RFC 5737), for a client that finds them behind the director."""

_KEPT = 4
"""Times as many requests on kept connections: one takes a quarter of the instructions."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way from a lab's client to its real servers."""

    record: Record
    targets: requests.Targets

    def short(self, count: int) -> float:
        """Instructions for each of so many requests that have a connection of their own."""
        with self._inside():
            return _executed(lambda: requests.ask_once(self.targets, count)) / count

    def kept(self, count: int) -> float:
        """Instructions for each of so many requests on connections that have been used before."""
        with self._inside(), requests.connections(self.targets) as wave:
            requests.ask(wave, requests.WAVE)
            return _executed(lambda: requests.ask(wave, count)) / count

    def _inside(self) -> network_namespace:
        return network_namespace(namespaces.path(self.record.namespace("client")))


def _executed(do: Callable[[], None]) -> int:
    """The instructions of the whole guest meanwhile; what passes while everybody waits is none."""
    before = _processor_time()
    do()
    return _processor_time() - before


def _processor_time() -> int:
    """Nanoseconds in which the processor was not idle (Documentation/scheduler/sched-stats.rst)."""
    time.sleep(0.001)  # the time of who runs is noted when it makes room
    for line in Path("/proc/schedstat").read_text().splitlines():
        if line.startswith("cpu0 "):
            return int(line.split()[7])
    raise Failed("/proc/schedstat has no line of cpu0: is this the guest's kernel?")


def _at(record: Record, *addresses: str, port: int = 80) -> Way:
    return Way(record, [(address, port) for address in addresses])


def _be_a_router(record: Record) -> None:
    """Let a bare lab's director pass packets for the routed addresses on to its real servers."""
    addresses = record.addresses
    settings = "net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0"
    settings += f" net.ipv4.conf.{addresses.interface}.send_redirects=0"
    labs.typed(record, "director", [f"sysctl -qw {settings}"])
    for number, (routed, rip) in enumerate(zip(_ROUTED, addresses.rips, strict=True), start=1):
        labs.typed(record, f"rs{number}", [f"ip addr add {routed}/32 dev lo"])
        labs.typed(record, "director", [f"ip route add {routed} via {rip}"])
        labs.typed(record, "client", [f"ip route add {routed} via {addresses.dip}"])


def _ways(stack: ExitStack) -> dict[str, Way]:
    plain = stack.enter_context(labs.lab("dr"))
    proxies.start(plain, bulk_port=9, threads=1)
    _be_a_router(plain)
    ways = {
        DIRECT: _at(plain, *plain.addresses.rips),
        ROUTER: _at(plain, *_ROUTED),
        HAPROXY: _at(plain, plain.addresses.dip, port=proxies.WEB[HAPROXY]),
        NGINX: _at(plain, plain.addresses.dip, port=proxies.WEB[NGINX]),
    }
    for name, made in (
        (row(IPVS, DR), labs.kernel_ipvs_lab("dr")),
        (row(IPVS, NAT), labs.kernel_ipvs_lab("nat")),
        (row(XLVS_TC, DR), labs.lab("dr", "tc")),
        (row(XLVS_TC, NAT), labs.lab("nat", "tc")),
        (row(XLVS_XDP, DR), labs.lab("dr", "xdp")),
    ):
        record = stack.enter_context(made)
        ways[name] = _at(record, record.addresses.vip)
        print(f"ready: {name}", file=sys.stderr, flush=True)
    return ways


def main() -> int:
    """Measure as told, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.guest_lab_player")
    parser.add_argument("--requests", type=int, required=True, help="short ones, a round of each row")
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    # Labs look for programs there, and whatever they start is scheduled like this: see `requests`.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    subprocess.run(["modprobe", "-a", "ip_vs", "ip_vs_rr"], check=True)
    taken: dict[str, dict[str, list[float]]] = {SHORT: {}, KEPT: {}}
    with ExitStack() as stack:
        ways = _ways(stack)
        gc.disable()
        for turn in range(options.rounds + 1):
            for name in ROWS:
                way = ways[name]
                values = (way.short(options.requests), way.kept(_KEPT * options.requests))
                for kind, value in zip((SHORT, KEPT), values, strict=True):
                    if turn:  # the first time MACs are asked for, and files read
                        taken[kind].setdefault(name, []).append(value)
            time.sleep(1.2)  # xlvs looks a way up again after a second, and knows its MAC from then on
            print(f"requests: round {turn} of {options.rounds}", file=sys.stderr, flush=True)
    json.dump({"taken": taken}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
