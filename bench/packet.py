# SPDX-License-Identifier: GPL-2.0-only
"""Nanoseconds for a packet, beside the least that any program could take.

    python -m bench.packet --flows 1,1024 --rounds 9

Established flows by each forwarding method, in both directions of NAT, and new flows
for schedulers, through BPF_PROG_TEST_RUN.  In the same rounds run, as floors: XDP_DROP,
XDP_TX, F0 (parse, MAC, XDP_TX), F1 (F0 with one look-up in a BPF hash) and one cache
line of each flow's own.  See docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench import packet_goals, report, walk
from bench.arrivals import by_scheduler
from bench.rounds import FEWEST, Figure, interleaved
from bench.traffic import (
    GUESS,
    SHORTEST,
    Kind,
    establish,
    keep_ways,
    measurement,
    new_floored_director,
    traffic_of,
)
from bench.walk import TC, XDP, Traffic, Walk, new_walk
from tests.packet import packets
from tests.packet.director import VIP, Director
from tests.packet.packets import ACK
from xlvs.model import MASQUERADE, TUNNEL, ServiceKey, Tunnel

FLOWS = (1, 1024, 131_072, 1_048_576)

_TOGETHER = 4096
"""Up to so many flows all kinds of traffic stand in one table; above that, each has its own."""
_REAL_SERVERS = 1000
_ESTABLISHED_FLOORS = (walk.DROP, walk.TX, walk.F0, walk.F1, walk.LINE, walk.ROOM)
_FLOORS = (*_ESTABLISHED_FLOORS, walk.INSERT)
_SCHEDULERS = ("rr", "wrr", "dh", "sh", "mh", "lc", "wlc", "sed", "nq")


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


def _floor(programs: Walk, traffic: Traffic, flows: int, name: str, shortest: int) -> Callable[[], float]:
    guess, _ = programs.run(XDP, traffic, flows, GUESS, floor=name)
    count = int(shortest / guess)
    return lambda: programs.run(XDP, traffic, flows, count, floor=name)[0]


def _floors(
    director: Director, programs: Walk, flows: int, shortest: int = SHORTEST
) -> dict[str, Callable[[], float]]:
    key = ServiceKey(2, packets.TCP, VIP, 80)
    traffic = traffic_of(director, Kind("floor"), key, ACK)
    programs.run(XDP, traffic, flows, flows, floor=walk.INSERT, order=walk.IN_TURN)
    return {name: _floor(programs, traffic, flows, name, shortest) for name in _ESTABLISHED_FLOORS}


def established(flows: int, rounds: int) -> dict[str, Figure]:
    """Established flows of every kind, by hook, beside the floors."""
    figures: dict[str, Figure] = {}
    groups = [KINDS] if flows <= _TOGETHER else [(kind,) for kind in KINDS[:5]]
    for group in groups:
        with new_floored_director(
            flows * sum(2 if kind.method == MASQUERADE else 1 for kind in group), flows * 2
        ) as (
            director,
            programs,
        ):
            measures = _floors(director, programs, flows)
            for kind in group:
                traffic = establish(director, programs, kind, flows)
                for hook, name in ((XDP, "XDP"), (TC, "TC")):
                    measures[f"{kind.name}, {name}"] = measurement(programs, director, hook, traffic, flows)
            taken = interleaved(measures, rounds)
        if len(groups) > 1:
            # Each group has its own floors: they were measured beside it.
            for name in _ESTABLISHED_FLOORS:
                figures.setdefault(name, taken[name])
            floor = taken[walk.F1]
            for name, figure in taken.items():
                if name in measures and name not in _ESTABLISHED_FLOORS:
                    figures[name] = figure
                    figures[f"F1 beside {name}"] = floor
        else:
            figures.update(taken)
    return figures


def cost_beside_floor(director: Director, hook: str, rounds: int) -> float:
    """How many times F1 a packet of one established connection takes; minima, quickly."""
    with new_walk(director.maps.folder, director.ifindex, 16) as programs:
        measures = _floors(director, programs, 1, shortest=2_000_000)
        traffic = establish(director, programs, KINDS[0], 1)
        keep_ways(director)
        measures[hook] = measurement(programs, director, hook, traffic, 1, shortest=2_000_000)
        figures = interleaved(measures, rounds)
    return figures[hook].minimum / figures[walk.F1].minimum


def new_flows(rounds: int, schedulers: tuple[str, ...] = _SCHEDULERS) -> dict[str, Figure]:
    """A new flow by scheduler with a thousand real servers, beside an insert into a BPF hash."""
    figures = by_scheduler(schedulers, (_REAL_SERVERS,), rounds)
    return {f"new, {name.partition(',')[0]}" if "," in name else name: one for name, one in figures.items()}


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


def _shown(figures: dict[str, Figure]) -> dict[str, Figure]:
    return {name: figure for name, figure in figures.items() if not name.startswith("F1 beside")}


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
    lines: list[str] = []
    by_flows: dict[int, dict[str, Figure]] = {}
    for flows in sizes:
        results[f"established, {flows} flows"] = by_flows[flows] = figures = established(
            flows, arguments.rounds
        )
        shown = [f"\nEstablished, {flows} flows; ns for a packet", *table(figures, walk.F1)]
        print(*shown, sep="\n", flush=True)
        lines += shown
    if not arguments.no_new:
        results["new flows"] = figures = new_flows(arguments.rounds)
        shown = ["\nNew flows, 1,000 real servers; ns", *table(figures, walk.INSERT)]
        print(*shown, sep="\n")
        lines += shown
    asked = packet_goals.of_all(by_flows, results.get("new flows"))
    lines += report.goals_table(asked)
    print(*report.goals_table(asked), sep="\n")
    report.write(
        "packet",
        results,
        units=dict.fromkeys(results, "nanoseconds for a packet"),
        rounds=arguments.rounds,
        goals=asked,
        lines=lines,
        charts=[
            report.chart(
                part.capitalize(), "ns for a packet", _shown(figures), best="minimum", others=_FLOORS
            )
            for part, figures in results.items()
        ],
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
