# SPDX-License-Identifier: GPL-2.0-only
"""Instructions and throughput beside kernel IPVS, in the guest.

    python -m bench.guest --packets 20000 --rounds 3

The guest's clock counts instructions (QEMU's ``-icount``), one for each
nanosecond, so the kernel's packet generator reports instructions a packet.
Then the same once more with a clock like the host's, for packets a second
(of an emulated processor: their ratio means something, not they themselves).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench import report
from bench.guest_rows import ALONE, FRAMES, SKBS, goals, ratios, work
from bench.report import Figures
from bench.rounds import Figure
from tests.guest.runner import Guest

_PROJECT = Path(__file__).parents[1]
_INSTRUCTIONS = "instructions a packet"
_RECEIVED = {
    FRAMES: "delivered to a veth that takes frames",
    SKBS: "delivered to a veth that makes skbs of them",
}


def _play(receivers: str, packets: int, rounds: int, *, icount: bool) -> dict[str, Any]:
    with Guest(cpus=1, icount=icount) as guest:
        words = [sys.executable, "-m", "bench.guest_player", "--packets", str(packets)]
        words += ["--rounds", str(rounds), "--receivers", receivers]
        result = guest.run(words, timeout=800, directory=_PROJECT).check()
    played: dict[str, Any] = json.loads(result.stdout)
    return played


def _figures(taken: dict[str, list[float]]) -> dict[str, Figure]:
    return {name: Figure.of(values) for name, values in taken.items()}


def _rates(taken: dict[str, list[float]]) -> dict[str, Figure]:
    """Packets a second of nanoseconds a packet."""
    return {name: Figure.of([1e9 / value for value in values]) for name, values in taken.items()}


def main() -> int:
    """Measure, print tables, write ``bench/results/guest.*``."""
    parser = argparse.ArgumentParser(prog="python -m bench.guest", description=__doc__.partition("\n")[0])
    parser.add_argument("--packets", type=int, default=20_000, help="a round of each row")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.packets < 1000 or options.rounds < 1:
        parser.error("at least 1000 packets, and one round")
    counted = _play(f"{FRAMES},{SKBS}", options.packets, options.rounds, icount=True)
    timed = _play(FRAMES, options.packets, options.rounds, icount=False)

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
        lines += ["", f"Times fewer than kernel IPVS, {where}"]
        lines += [f"{name:<48}{value:12.2f}" for name, value in by_row.items()]
    rates = _rates(timed["taken"][FRAMES])
    rates.pop(ALONE)
    groups["rate"], units["rate"] = rates, "packets a second, under emulation"
    lines += report.table("Throughput", units["rate"], rates)
    asked = goals(_figures(counted["taken"][FRAMES]), counted["at_xdp"])
    lines += report.goals_table(asked)
    print(*lines, sep="\n")
    report.write(
        "guest",
        groups,
        units=units,
        rounds=options.rounds,
        goals=asked,
        lines=lines,
        charts=[report.chart(name.capitalize(), units[name], of_group) for name, of_group in groups.items()],
        more=more,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
