# SPDX-License-Identifier: GPL-2.0-only
"""Nanoseconds for a packet, beside the least that any program could take.

    python -m bench.packet --flows 1,1024 --rounds 9

Established flows by each forwarding method, in both directions of NAT, and new flows
for schedulers, through BPF_PROG_TEST_RUN.  In the same rounds run, as floors: XDP_DROP,
XDP_TX, F0 (parse, MAC, XDP_TX) and F1 (F0 with one look-up in a BPF hash).  See
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import walk
from bench.rounds import FEWEST, Figure, interleaved
from bench.walk import TC, XDP, Traffic, Walk, new_walk
from tests.packet import packets
from tests.packet.director import VIP, VIP6, Director, new_director, real_server, real_server6
from tests.packet.packets import ACK, SYN, packed
from tests.packet.spaces import ip
from xlvs.datapath.load import Capacity
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, Destination, Service, ServiceKey, Tunnel

RESULTS = Path(__file__).parent / "results"
FLOWS = (1, 1024, 131_072, 1_048_576)

_CLIENT, _CLIENT6 = packed("172.16.0.1"), packed("fd02::1")
_TOGETHER = 4096
"""Up to so many flows all kinds of traffic stand in one table; above that, each has its own."""
_SHORTEST = 25_000_000
"""A call is to take that many nanoseconds at least."""
_NEW_FLOWS = 4096
_REAL_SERVERS = 1000
_SCHEDULERS = ("rr", "wrr", "dh", "sh", "mh", "lc", "wlc", "sed", "nq")


@dataclass(frozen=True, slots=True)
class Kind:
    """Traffic of one kind: protocol, address family, forwarding method, tunnel, direction."""

    name: str
    method: str = ROUTE
    protocol: int = packets.TCP
    ipv6: bool = False
    tunnel: Tunnel | None = None
    reverse: bool = False


KINDS = (
    Kind("DR"),
    Kind("DR, UDP", protocol=packets.UDP),
    Kind("DR, IPv6", ipv6=True),
    Kind("NAT, to the real server", MASQUERADE),
    Kind("NAT, to the client", MASQUERADE, reverse=True),
    Kind("NAT, UDP, to the real server", MASQUERADE, protocol=packets.UDP),
    Kind("NAT, IPv6, to the real server", MASQUERADE, ipv6=True),
    Kind("NAT, IPv6, to the client", MASQUERADE, ipv6=True, reverse=True),
    Kind("tunnel, IPIP", TUNNEL, tunnel=Tunnel("ipip")),
    Kind("tunnel, GUE", TUNNEL, tunnel=Tunnel("gue", 6080)),
    Kind("tunnel, GRE", TUNNEL, tunnel=Tunnel("gre")),
)


@contextmanager
def _director(connections: int, floor_flows: int) -> Iterator[tuple[Director, Walk]]:
    with new_director(Capacity(connections, 64, 16_384)) as director:
        ip("route add 172.16.0.0/12 via 10.0.0.18")
        ip("-6 route add fd02::/64 via fd00::12")
        with new_walk(director.maps.folder, director.ifindex, floor_flows) as programs:
            yield director, programs


def _traffic(director: Director, kind: Kind, key: ServiceKey, flags: int) -> Traffic:
    client, server = (_CLIENT6, real_server6(1)) if kind.ipv6 else (_CLIENT, real_server(1))
    ends = (1024, key.port)
    source, destination = client, key.address
    if kind.reverse:
        ends = (key.port, 1024)
        source, destination = server, client
    transport = packets.tcp(*ends, flags) if kind.protocol == packets.TCP else packets.udp(*ends)
    build = packets.ipv6 if kind.ipv6 else packets.ipv4
    packet = packets.with_checksum(build(source, destination, kind.protocol, transport, 64))
    return Traffic(director.frame(packet), kind.reverse)


def _keep_ways(director: Director) -> None:
    """Packets look the way to a real server up again once a second, at TC: not while measured.

    The packet path's clock is the coarse one, behind this one by up to a tick.
    """
    now = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> abi.TICK_SHIFT) - 1
    for index in range(director.maps.settings.destinations_top):
        director.maps.destination(index).refreshed = now & 0xFFFFFFFF


def _established(director: Director, programs: Walk, kind: Kind, flows: int) -> Traffic:
    """A service with that many established flows; returns their traffic."""
    key = director.service(
        1, address=VIP6 if kind.ipv6 else VIP, protocol=kind.protocol, method=kind.method, tunnel=kind.tunnel
    )
    forward = Kind(kind.name, kind.method, kind.protocol, kind.ipv6, kind.tunnel)
    for flags in (SYN, ACK):
        programs.run(
            TC, _traffic(director, forward, key, flags), flows, flows, order=walk.IN_TURN
        )  # fmt: skip
    if kind.method == MASQUERADE and kind.protocol == packets.TCP:
        answering = Kind(kind.name, kind.method, kind.protocol, kind.ipv6, kind.tunnel, reverse=True)
        programs.run(TC, _traffic(director, answering, key, SYN | ACK), flows, flows, order=walk.IN_TURN)
        programs.run(TC, _traffic(director, forward, key, ACK), flows, flows, order=walk.IN_TURN)
    return _traffic(director, kind, key, ACK)


def _measure(
    programs: Walk, director: Director, hook: str, traffic: Traffic, flows: int, shortest: int = _SHORTEST
) -> Callable[[], float]:
    """A measurement of the packet path; fails where it did not forward every packet."""
    _keep_ways(director)
    guess, _ = programs.run(hook, traffic, flows, 2000)
    count = int(shortest / guess)
    event = "xdp_forwarded" if hook == XDP else "forwarded"

    def measure() -> float:
        _keep_ways(director)
        before = director.maps.events()[event]
        taken, _ = programs.run(hook, traffic, flows, count)
        if director.maps.events()[event] - before < count * 0.999:
            raise SystemExit("bench: packets were not forwarded; is the machine very slow?")
        return taken

    return measure


def _floor(programs: Walk, traffic: Traffic, flows: int, name: str, shortest: int) -> Callable[[], float]:
    guess, _ = programs.run(XDP, traffic, flows, 20_000, floor=name)
    count = int(shortest / guess)
    return lambda: programs.run(XDP, traffic, flows, count, floor=name)[0]


def _floors(
    director: Director, programs: Walk, flows: int, shortest: int = _SHORTEST
) -> dict[str, Callable[[], float]]:
    key = ServiceKey(2, packets.TCP, VIP, 80)
    traffic = _traffic(director, Kind("floor"), key, ACK)
    programs.run(XDP, traffic, flows, flows, floor=walk.INSERT, order=walk.IN_TURN)
    return {
        name: _floor(programs, traffic, flows, name, shortest)
        for name in (walk.DROP, walk.TX, walk.F0, walk.F1)
    }


def established(flows: int, rounds: int) -> dict[str, Figure]:
    """Established flows of every kind, by hook, beside the floors."""
    figures: dict[str, Figure] = {}
    groups = [KINDS] if flows <= _TOGETHER else [(kind,) for kind in KINDS[:5]]
    for group in groups:
        with _director(flows * sum(2 if kind.method == MASQUERADE else 1 for kind in group), flows * 2) as (
            director,
            programs,
        ):
            measures = _floors(director, programs, flows)
            for kind in group:
                traffic = _established(director, programs, kind, flows)
                if kind.method == ROUTE:  # what XDP finishes
                    _keep_ways(director)
                    measures[f"{kind.name}, XDP"] = _measure(programs, director, XDP, traffic, flows)
                measures[f"{kind.name}, TC"] = _measure(programs, director, TC, traffic, flows)
            taken = interleaved(measures, rounds)
        if len(groups) > 1:
            # Each group has its own floors: they were measured beside it.
            for name in (walk.DROP, walk.TX, walk.F0, walk.F1):
                figures.setdefault(name, taken[name])
            floor = taken[walk.F1]
            for name, figure in taken.items():
                if name in measures and name not in (walk.DROP, walk.TX, walk.F0, walk.F1):
                    figures[name] = figure
                    figures[f"F1 beside {name}"] = floor
        else:
            figures.update(taken)
    return figures


def cost_beside_floor(director: Director, hook: str, rounds: int) -> float:
    """How many times F1 a packet of one established connection takes; minima, quickly."""
    with new_walk(director.maps.folder, director.ifindex, 16) as programs:
        measures = _floors(director, programs, 1, shortest=2_000_000)
        traffic = _established(director, programs, KINDS[0], 1)
        _keep_ways(director)
        measures[hook] = _measure(programs, director, hook, traffic, 1, shortest=2_000_000)
        figures = interleaved(measures, rounds)
    return figures[hook].minimum / figures[walk.F1].minimum


def new_flows(rounds: int) -> dict[str, Figure]:
    """A new flow by scheduler with a thousand real servers, beside an insert into a BPF hash."""
    count = _NEW_FLOWS * (rounds + 1)
    with _director(count * len(_SCHEDULERS), count * 2) as (director, programs):
        measures: dict[str, Callable[[], float]] = {}
        taken: dict[str, int] = {}

        def fresh(name: str, hook: str, traffic: Traffic, floor: str | None) -> Callable[[], float]:
            def measure() -> float:
                _keep_ways(director)
                first = taken.get(name, 0)
                taken[name] = first + _NEW_FLOWS
                return programs.run(
                    hook, traffic, _NEW_FLOWS, _NEW_FLOWS, floor=floor, first=first, order=walk.IN_TURN
                )[0]

            return measure

        plain = _traffic(director, Kind("floor"), ServiceKey(2, packets.TCP, VIP, 80), SYN)
        measures[walk.INSERT] = fresh(walk.INSERT, XDP, plain, walk.INSERT)
        for scheduler in _SCHEDULERS:
            key = director.unused_key()
            director.table.add_service(Service(key, scheduler))
            for number in range(_REAL_SERVERS):
                server = bytes([10, 0, 16 + number // 250, 1 + number % 250])
                director.table.add_destination(key, Destination(server, key.port, ROUTE, 1 + number % 3))
            ip("route replace 10.0.16.0/20 dev eth0")
            traffic = _traffic(director, Kind(scheduler), key, SYN)
            measures[f"new, {scheduler}"] = fresh(f"new, {scheduler}", TC, traffic, None)
        figures = interleaved(measures, rounds)
        if director.maps.events()["table_full"] or director.maps.events()["no_destination"]:
            raise SystemExit("bench: new flows were dropped")
    return figures


def table(figures: dict[str, Figure], against: str) -> list[str]:
    """The figures as lines of text, with the ratio of minima to one of them."""
    lines = [f"{'':<42}{'min':>8}{'median':>9}{'max':>9}{'/ ' + against:>10}"]
    for name, figure in figures.items():
        if name.startswith("F1 beside"):
            continue
        beside = figures.get(f"F1 beside {name}", figures[against])
        ratio = figure.minimum / beside.minimum
        lines.append(
            f"{name:<42}{figure.minimum:8.1f}{figure.median:9.1f}{figure.maximum:9.1f}{ratio:10.2f}"
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.packet", description=__doc__.partition("\n")[0])
    parser.add_argument("--flows", default=",".join(map(str, FLOWS)), help="powers of two, with commas")
    parser.add_argument("--rounds", type=int, default=FEWEST)
    parser.add_argument("--no-new", action="store_true", help="leave new flows out")
    return parser


def main() -> int:
    """Measure, print tables, write ``bench/results/packet.json``."""
    arguments = _parser().parse_args()
    sizes = [int(text) for text in arguments.flows.split(",")]
    if any(size < 1 or size & (size - 1) or size > 1 << 20 for size in sizes) or arguments.rounds < 1:
        print("bench: flows are powers of two up to 1048576, and rounds at least 1", file=sys.stderr)
        return 2
    results: dict[str, dict[str, Figure]] = {}
    for flows in sizes:
        results[f"established, {flows} flows"] = figures = established(flows, arguments.rounds)
        print(
            f"\nEstablished, {flows} flows; ns for a packet", *table(figures, walk.F1), sep="\n", flush=True
        )
    if not arguments.no_new:
        results["new flows"] = figures = new_flows(arguments.rounds)
        print("\nNew flows, 1,000 real servers; ns", *table(figures, walk.INSERT), sep="\n")
    RESULTS.mkdir(exist_ok=True)
    report = {
        "schema": 1,
        "rounds": arguments.rounds,
        "unit": "nanoseconds for a packet",
        "figures": {
            part: {name: figure.as_json() for name, figure in figures.items()}
            for part, figures in results.items()
        },
    }
    (RESULTS / "packet.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nWritten: {RESULTS / 'packet.json'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
