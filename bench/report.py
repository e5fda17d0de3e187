# SPDX-License-Identifier: GPL-2.0-only
"""What a part of the benchmark leaves: figures as JSON, tables as text, bars as SVG, and goals."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bars import Bar, Chart, figure, svg
from bench.rounds import Figure

RESULTS = Path(__file__).parent / "results"
SCHEMA = 1
"""Raised when a field of the JSON changes its meaning or goes."""

Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Goal:
    """What the budget asks of one ratio or figure, and what it was."""

    what: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps to its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def as_json(self) -> dict[str, object]:
        """For the file of results."""
        return {
            "what": self.what,
            "value": significant(self.value),
            "at_least" if self.at_least else "at_most": self.bound,
            "met": self.met,
        }

    def __str__(self) -> str:
        asked = f"{'at least' if self.at_least else 'at most'} {figure(self.bound)}"
        return f"{self.what:<66}{asked:>16}{figure(self.value):>10}  {'met' if self.met else 'MISSED'}"


def significant(value: float) -> float:
    """To six digits that count."""
    return float(f"{value:.6g}")


def table(title: str, unit: str, figures: Figures, against: str = "") -> list[str]:
    """Figures as lines of text, with the ratio of minima to that of ``against``."""
    last = f"{'/ ' + against:>14}" if against else ""
    lines = ["", f"{title}; {unit}", f"{'':<48}{'min':>12}{'median':>12}{'max':>12}{last}"]
    for name, one in figures.items():
        ratio = f"{one.minimum / figures[against].minimum:14.2f}" if against else ""
        columns = "".join(f"{figure(value):>12}" for value in (one.minimum, one.median, one.maximum))
        lines.append(f"{name:<48}{columns}{ratio}")
    return lines


def goals_table(goals: Sequence[Goal]) -> list[str]:
    """The goals as lines of text; nothing where there are none."""
    return ["", "Budget", *map(str, goals)] if goals else []


def chart(
    title: str, unit: str, figures: Figures, *, best: str = "median", others: Container[str] | None = None
) -> Chart:
    """Bars of figures, medians unless ``best`` names another.

    Rows of xlvs have a colour of their own: those with that word, or all but ``others``.
    """
    return Chart(
        title,
        unit,
        [
            Bar(
                name,
                float(getattr(one, best)),
                one.minimum,
                one.maximum,
                "xlvs" in name if others is None else name not in others,
            )
            for name, one in figures.items()
        ],
    )


def write(
    part: str,
    figures: Mapping[str, Figures],
    *,
    units: Mapping[str, str],
    rounds: int,
    goals: Sequence[Goal] = (),
    lines: Iterable[str] = (),
    charts: Sequence[Chart] = (),
    more: Mapping[str, object] | None = None,
) -> None:
    """Write ``bench/results/<part>.json``, ``.txt`` and ``.svg``, and say so.

    ``figures`` and ``units`` are by group; ``lines`` are the tables that were
    shown, ``more`` is what else belongs into the JSON.
    """
    RESULTS.mkdir(exist_ok=True)
    content = {
        "schema": SCHEMA,
        "part": part,
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "rounds": rounds,
        "units": dict(units),
        "figures": {
            group: {name: one.as_json() for name, one in of_group.items()}
            for group, of_group in figures.items()
        },
        "goals": [goal.as_json() for goal in goals],
        **(more or {}),
    }
    (RESULTS / f"{part}.json").write_text(json.dumps(content, indent=2) + "\n")
    (RESULTS / f"{part}.txt").write_text("\n".join(lines).strip("\n") + "\n")
    (RESULTS / f"{part}.svg").write_text(svg(charts))
    print(f"\nWritten: {RESULTS / part}.json, .txt, .svg")
