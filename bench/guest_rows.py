# SPDX-License-Identifier: GPL-2.0-only
"""What is measured in the guest, by name, and what follows from it: pure values.

A packet's way has three parts: it is made and arrives, the director does its
work, it is delivered.  The first is not the director's, so it is measured by
itself, dropped at the hook at which the director would first see it, and
subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.report import Goal
from bench.rounds import Figure

FRAMES, SKBS = "frames", "skbs"
"""What a real server's end takes."""

ALONE = "generator alone"
DROPPED_XDP, DROPPED_TC = "dropped at XDP", "dropped at TC"
REDIRECT_XDP, REDIRECT_TC = "bare XDP redirect", "bare TC redirect"
IPVS, XLVS_TC, XLVS_XDP = "kernel IPVS", "xlvs TC", "xlvs XDP"
DR, NAT, ANSWERS = "DR", "NAT", "NAT answers"
METHODS = (DR, NAT, ANSWERS)

_ALL_OF_THEM = 0.9
"""A row is XDP's when it forwards that part: once a second one packet goes by TC, to look anew."""


def row(name: str, method: str) -> str:
    """The name of a row."""
    return f"{name}, {method}" if method else name


def arrival(name: str) -> str:
    """The row of what arrives as this one's packets do, and is dropped."""
    return DROPPED_XDP if name.startswith((XLVS_XDP, REDIRECT_XDP)) else DROPPED_TC


def work(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """What directors and delivery add to a packet's arrival: minima of rows less minima of arrivals."""
    found = {}
    for name, one in figures.items():
        if name not in (ALONE, DROPPED_XDP, DROPPED_TC):
            less = figures[arrival(name)].minimum
            found[name] = Figure(one.minimum - less, one.median - less, one.maximum - less)
    return found


def ratios(figures: Mapping[str, Figure]) -> dict[str, float]:
    """How many times the instructions of xlvs kernel IPVS executes, of what `work` is.

    "less redirect" is the same after a bare XDP redirect of the same packets has been
    taken from both.
    """
    worked = {name: one.minimum for name, one in work(figures).items()}
    bare = worked[REDIRECT_XDP]
    found = {}
    for method in METHODS:
        theirs = worked[row(IPVS, method)]
        for name in (XLVS_XDP, XLVS_TC):
            found[row(name, method)] = theirs / worked[row(name, method)]
        found[f"{row(XLVS_XDP, method)}, less redirect"] = (theirs - bare) / (
            worked[row(XLVS_XDP, method)] - bare
        )
    return found


def goals(figures: Mapping[str, Figure], at_xdp: Mapping[str, float]) -> list[Goal]:
    """What the budget asks; at XDP only of methods that XDP forwards by itself."""
    found = []
    by_row = ratios(figures)
    for method in METHODS:
        xdp, tc = row(XLVS_XDP, method), row(XLVS_TC, method)
        if at_xdp.get(xdp, 0) >= _ALL_OF_THEM:
            found.append(Goal(f"{xdp}: fewer instructions than IPVS, by", by_row[xdp], 3.7, True))
            less = f"{xdp}, less redirect"
            found.append(Goal(f"{less}: fewer than IPVS, by", by_row[less], 8.0, True))
        found.append(Goal(f"{tc}: fewer instructions than IPVS, by", by_row[tc], 1.5, True))
    return found
