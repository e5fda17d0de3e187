# SPDX-License-Identifier: GPL-2.0-only
"""Interleaved rounds: every measurement once in each, so that all meet the same machine.

A machine that others use flips between speeds for minutes at a time.  Minima over
the rounds of one run, and their ratios, repeat; medians do not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

FEWEST = 9
"""Rounds; fewer do not meet the machine's better moments often enough."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The rounds of one measurement, in whatever unit."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """What these rounds, one at least, come to."""
        return cls(min(values), statistics.median(values), max(values))

    def as_json(self) -> dict[str, float]:
        """For the file of results, to six digits that count."""
        values = {"minimum": self.minimum, "median": self.median, "maximum": self.maximum}
        return {name: float(f"{value:.6g}") for name, value in values.items()}


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Figure]:
    """Take each measurement once a round; the first round, in which caches fill, does not count."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if turn:
                taken[name].append(value)
    return {name: Figure.of(values) for name, values in taken.items()}
