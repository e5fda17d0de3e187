# SPDX-License-Identifier: GPL-2.0-only
"""Instructions and throughput beside kernel IPVS, in the guest.

    python -m bench.guest --packets 20000 --requests 320 --rounds 3

The guest's clock counts instructions (QEMU's ``-icount``), one for each
nanosecond, so the kernel's packet generator reports instructions a packet.
Then the same once more with a clock like the host's, for packets a second
(of an emulated processor: their ratio means something, not they themselves).
Last, requests end to end in labs, by instructions again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench import report
from bench.guest_requests import beside_kernel_ipvs, over_direct
from bench.guest_rows import ALONE, FRAMES, SKBS, goals, ratios, work
from bench.report import Figures
from bench.requests import WAVE
from bench.rounds import Figure
from tests.guest.runner import Guest

_PROJECT = Path(__file__).parents[1]
_INSTRUCTIONS, _OF_A_REQUEST = "instructions a packet", "instructions a request"
_RECEIVED = {
    FRAMES: "delivered to a veth that takes frames",
    SKBS: "delivered to a veth that makes skbs of them",
}


def _play(player: str, *options: str, icount: bool) -> dict[str, Any]:
    with Guest(cpus=1, icount=icount) as guest:
        words = [sys.executable, "-m", player, *options]
        result = guest.run(words, timeout=800, directory=_PROJECT).check()
    played: dict[str, Any] = json.loads(result.stdout)
    return played


def _figures(taken: dict[str, list[float]]) -> dict[str, Figure]:
    return {name: Figure.of(values) for name, values in taken.items()}


def _rates(taken: dict[str, list[float]]) -> dict[str, Figure]:
    """Packets a second of nanoseconds a packet."""
    return {name: Figure.of([1e9 / value for value in values]) for name, values in taken.items()}


def _times_fewer(what: str, by_row: dict[str, float]) -> list[str]:
    lines = [f"{name:<48}{value:12.2f}" for name, value in by_row.items()]
    return ["", f"Times fewer than kernel IPVS, {what}", *lines]


def main() -> int:
    """Measure, print tables, write ``bench/results/guest.*``."""
    parser = argparse.ArgumentParser(prog="python -m bench.guest", description=__doc__.partition("\n")[0])
    parser.add_argument("--packets", type=int, default=20_000, help="a round of each row")
    parser.add_argument("--requests", type=int, default=320, help="short ones, a round of each row")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.packets < 1000 or options.rounds < 1 or options.requests < WAVE or options.requests % WAVE:
        parser.error(f"at least 1000 packets, one round, and a multiple of {WAVE} requests")
    rounds = ("--rounds", str(options.rounds))
    packets = ("--packets", str(options.packets), *rounds, "--receivers")
    counted = _play("bench.guest_player", *packets, f"{FRAMES},{SKBS}", icount=True)
    timed = _play("bench.guest_player", *packets, FRAMES, icount=False)
    asked = ("--requests", str(options.requests), *rounds)
    requested = _play("bench.guest_lab_player", *asked, icount=True)

    groups: dict[str, Figures] = {}
    units: dict[str, str] = {}
    lines: list[str] = []
    more: dict[str, object] = {"forwarded_at_xdp": counted["at_xdp"], "ratios": {}}
    for receiver, where in _RECEIVED.items():
        figures = _figures(counted["taken"][receiver])
        by_row = ratios(figures)
        more["ratios"][where] = {name: report.significant(value) for name, value in by_row.items()}  # type: ignore[index]
        for name, of_group in ((f"in all, {where}", figures), (f"director's work, {where}", work(figures))):
            groups[name], units[name] = of_group, _INSTRUCTIONS
            lines += report.table(name.capitalize(), _INSTRUCTIONS, of_group)
        lines += _times_fewer(where, by_row)
    rates = _rates(timed["taken"][FRAMES])
    rates.pop(ALONE)
    groups["rate"], units["rate"] = rates, "packets a second, under emulation"
    lines += report.table("Throughput", units["rate"], rates)
    for kind, of_kind in requested["taken"].items():
        figures = _figures(of_kind)
        for part, of_group in (("whole guest", figures), ("over direct", over_direct(figures))):
            name = f"{kind}, {part}"
            by_row = beside_kernel_ipvs(of_group)
            groups[name], units[name] = of_group, _OF_A_REQUEST
            more["ratios"][name] = {each: report.significant(value) for each, value in by_row.items()}  # type: ignore[index]
            lines += report.table(name, _OF_A_REQUEST, of_group) + _times_fewer(name.lower(), by_row)
    budget = goals(_figures(counted["taken"][FRAMES]), counted["at_xdp"])
    lines += report.goals_table(budget)
    print(*lines, sep="\n")
    report.write(
        "guest",
        groups,
        units=units,
        rounds=options.rounds,
        goals=budget,
        lines=lines,
        charts=[report.chart(name.capitalize(), units[name], of_group) for name, of_group in groups.items()],
        more=more,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
