# SPDX-License-Identifier: GPL-2.0-only
"""How it scales: real servers, processors, a table that fills, memory.

    python -m bench.scale --rounds 9

New connections a second by scheduler with 10, 100 and 1,000 real servers; two
processors against one; what packets cost while the table fills; the memory of a
million connections beside kernel IPVS's.  See docs/performance.md.
"""

from __future__ import annotations

import argparse

from bench import arrivals, filling, footprint, report, scale_goals, two_cpus, walk
from bench.report import Figures
from bench.rounds import FEWEST, Figure
from bench.scale_goals import SIZES
from xlvs.model import SCHEDULERS

_UNITS = {
    "new connections": "connections a second on one CPU",
    "two CPUs": "nanoseconds for a packet on each",
    "a table that fills": "nanoseconds for a packet",
    "memory of a million connections": "megabytes (10^6)",
}


def _rates(figures: Figures) -> dict[str, Figure]:
    return {
        name: Figure(1e9 / one.maximum, 1e9 / one.median, 1e9 / one.minimum) for name, one in figures.items()
    }


def _memory(connections: int) -> tuple[dict[str, Figure], dict[str, object]]:
    """Megabytes by row, and what stands behind them."""
    single, double = (footprint.of_connections(count) for count in (connections, 2 * connections))
    kernel = footprint.of_kernel()
    megabytes = {
        scale_goals.MEMORY_DR: sum(single.values()) / 1e6,
        scale_goals.MEMORY_NAT: sum(double.values()) / 1e6,
        scale_goals.MEMORY_KERNEL: (kernel["bytes"] * connections + 8 * kernel["buckets"]) / 1e6,
    }
    figures = {name: Figure.of([value]) for name, value in megabytes.items()}
    return figures, {"maps_of_connections": single, "kernel": kernel}


def main() -> int:
    """Measure, print tables, write ``bench/results/scale.*``."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=FEWEST)
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("at least one round")
    print("new connections ...", flush=True)
    new = arrivals.by_scheduler(SCHEDULERS, SIZES, rounds, scale_goals.NEW_FLOWS)
    print("two CPUs ...", flush=True)
    cpus = two_cpus.measured(rounds)
    print("a table that fills ...", flush=True)
    filled = filling.measured(rounds)
    print("memory ...", flush=True)
    memory, behind = _memory(footprint.CONNECTIONS)

    groups = dict(zip(_UNITS, (_rates(new), cpus, filled, memory), strict=True))
    asked = scale_goals.goals(new, cpus, {name: one.minimum for name, one in memory.items()})
    lines = [line for name, of_group in groups.items() for line in _table(name, of_group)]
    lines += report.goals_table(asked)
    print(*lines, sep="\n")
    report.write(
        "scale",
        groups,
        units=_UNITS,
        rounds=rounds,
        goals=asked,
        lines=lines,
        charts=[
            report.chart(
                name.capitalize(), _UNITS[name], of_group, others=(walk.INSERT, scale_goals.MEMORY_KERNEL)
            )
            for name, of_group in groups.items()
        ],
        more=behind,
    )
    return 0


def _table(name: str, figures: Figures) -> list[str]:
    return report.table(name[0].upper() + name[1:], _UNITS[name], figures)


if __name__ == "__main__":
    raise SystemExit(main())
