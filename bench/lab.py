# SPDX-License-Identifier: GPL-2.0-only
"""End to end in labs: requests, latency and processor time, beside balancers in user space.

    python -m bench.lab --rounds 9 --seconds 2

A client, a director and two real servers with nginx, in namespaces on one bridge.  What
is compared takes turns in every round: no balancer at all, xlvs at native XDP and at
TC (Direct Routing), HAProxy in TCP mode, nginx stream.  Short connections ask one page
each, kept ones many; a bulk is one stream to the real server, beside a director that does
nothing but send it on.  See docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench import lab_goals, labs, live, proxies, report
from bench.lab_goals import BARE_TC, BULK, BULK_CPU, DIRECT, KEPT, SHORT, XLVS_TC, XLVS_XDP
from bench.loads import Load, iperf3, serve_iperf3, wrk
from bench.programs import sending_on
from bench.proxies import HAPROXY, NGINX
from bench.rounds import Figure
from xlvs.kernel import libbpf
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import namespaces, node
from xlvs.lab.state import Record

_BULK_PORT = 5201


@contextmanager
def _lab(mode: str, what: str = "") -> Iterator[Record]:
    """A lab with iperf3's server on its first real server; in a mode, or with proxies instead."""
    with labs.lab("dr", mode, what) as record:
        serve_iperf3(record, "rs1", _BULK_PORT)
        if mode:
            vip, first = record.addresses.vip, record.addresses.rips[0]
            lines = (f"-A -t {vip}:{_BULK_PORT} -s rr", f"-a -t {vip}:{_BULK_PORT} -r {first} -g")
            labs.typed(record, "director", [f"ipvsadm {line}" for line in lines])
        else:
            proxies.start(record, _BULK_PORT, threads=2)
        yield record


@contextmanager
def _bare_lab() -> Iterator[Record]:
    """A lab whose director sends all that is for the VIP to the first real server, and knows nothing."""
    with _lab("tc", "bare") as record:
        node.run(record, "director", ["xlvs", "detach"]).check_returncode()
        to, own = (_mac(record, where) for where in ("rs1", "director"))
        with network_namespace(namespaces.path(record.namespace("director"))):
            index = socket.if_nametoindex("eth0")
            program = sending_on(index, socket.inet_aton(record.addresses.vip), to + own)
            libbpf.attach_clsact(index, "ingress", program, 1, 1)
        os.close(program)
        yield record


def _mac(record: Record, where: str) -> bytes:
    said = node.run(record, where, ["cat", "/sys/class/net/eth0/address"])
    return bytes.fromhex(said.stdout.strip().replace(":", ""))


class Way:
    """One way from the client to the real servers."""

    def __init__(
        self, record: Record, addresses: tuple[str, ...], web: int = 80, bulk: int = _BULK_PORT
    ) -> None:
        self._record = record
        self._addresses = addresses
        self._web = web
        self._bulk = bulk

    def ask(self, seconds: int, *, short: bool) -> Load:
        """Requests for that long."""
        return wrk(self._record, self._addresses, self._web, seconds, short=short)

    def packets_a_request(self, seconds: int) -> float:
        """How many packets the director forwards for a short request."""
        before = self._forwarded()
        requests = self.ask(seconds, short=True).requests
        return (self._forwarded() - before) / requests

    def _forwarded(self) -> int:
        said = node.run(self._record, "director", ["xlvs", "status", "--json"])
        events = json.loads(said.stdout)["events"]
        return int(events["forwarded"]) + int(events["xdp_forwarded"])

    def push(self, seconds: int) -> tuple[float, float]:
        """A bulk for that long; bits a second, processor seconds for 10^9 bytes."""
        return iperf3(self._record, self._addresses[0], self._bulk, seconds)


def _ways(stack: ExitStack) -> dict[str, Way]:
    plain, tc, xdp = (stack.enter_context(_lab(mode)) for mode in ("", "tc", "xdp"))
    own = (plain.addresses.dip,)
    return {
        DIRECT: Way(plain, plain.addresses.rips),
        XLVS_TC: Way(tc, (tc.addresses.vip,)),
        XLVS_XDP: Way(xdp, (xdp.addresses.vip,)),
        HAPROXY: Way(plain, own, proxies.WEB[HAPROXY], proxies.BULK[HAPROXY]),
        NGINX: Way(plain, own, proxies.WEB[NGINX], proxies.BULK[NGINX]),
    }


def _rounds(ways: dict[str, Way], bare: Way, rounds: int, seconds: int) -> dict[str, dict[str, list[float]]]:
    """By group of figures and way, a figure of each round.  A short round before does not count.

    ``bare`` is a way for bulks alone.
    """
    taken: dict[str, dict[str, list[float]]] = {}

    def note(group: str, name: str, value: float) -> None:
        taken.setdefault(group, {}).setdefault(name, []).append(value)

    # A real server's MAC is known to XDP a second after its first packets.
    for warming in (lambda way: way.ask(2, short=True), lambda way: way.push(1)):
        _each(ways, warming)
    bare.push(1)
    for turn in range(1, rounds + 1):
        for kind, short in ((SHORT, True), (KEPT, False)):
            for name, way in ways.items():
                load = way.ask(seconds, short=short)
                note(lab_goals.rate(kind), name, load.rate)
                note(lab_goals.p99(kind), name, load.p99 * 1000)
                note(lab_goals.cpu(kind), name, load.cpu)
                if load.balancer_cpu and name in proxies.WEB:
                    note(lab_goals.own_cpu(kind), name, load.balancer_cpu)
        for name, way in (*ways.items(), (BARE_TC, bare)):
            bits, cpu = way.push(seconds)
            note(BULK, name, bits / 1e9)
            note(BULK_CPU, name, cpu)
        print(f"round {turn} of {rounds}", flush=True)
    return taken


def _each(ways: dict[str, Way], do: Callable[[Way], object]) -> None:
    for way in ways.values():
        do(way)


def main() -> int:
    """Measure, print tables, write ``bench/results/lab.*``."""
    parser = argparse.ArgumentParser(prog="python -m bench.lab", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="of each load")
    options = parser.parse_args()
    if options.rounds < 1 or not 1 <= options.seconds <= 60:
        parser.error("at least one round; 1 to 60 seconds")
    with ExitStack() as stack:
        ways = _ways(stack)
        bare = stack.enter_context(_bare_lab())
        taken = _rounds(ways, Way(bare, (bare.addresses.vip,)), options.rounds, options.seconds)
        packets = ways[XLVS_TC].packets_a_request(options.seconds)
    figures = {
        group: {name: Figure.of(values) for name, values in of_group.items()}
        for group, of_group in taken.items()
    }
    figures[lab_goals.FRAMES] = live.measured(options.rounds)
    units = lab_goals.UNITS
    asked = lab_goals.goals(figures, packets)
    lines = [line for group in figures for line in report.table(group, units[group], figures[group])]
    by_words = lab_goals.ratios(figures)
    lines += ["", "Ratios of best rounds", *(f"{name:<78}{value:8.2f}" for name, value in by_words.items())]
    lines += report.goals_table(asked)
    print(*lines, sep="\n")
    report.write(
        "lab",
        figures,
        units={group: units[group] for group in figures},
        rounds=options.rounds,
        goals=asked,
        lines=lines,
        charts=[report.chart(group, units[group], figures[group]) for group in figures],
        more={
            "ratios": by_words,
            "packets_of_a_short_request": report.significant(packets),
        },
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
