# SPDX-License-Identifier: GPL-2.0-only
"""What is measured of scaling, by name, and what the budget asks of it: pure values."""

from __future__ import annotations

from collections.abc import Mapping

from bench.arrivals import name_of
from bench.report import Figures, Goal
from bench.two_cpus import ALONE, DIFFERENT, SAME, TOGETHER
from bench.two_cpus import name_of as cpus_name
from bench.walk import TC, XDP

SIZES = (10, 100, 1000)
NEW_FLOWS = 1024
"""Of each scheduler and size, a round."""
_COMPARING = ("lc", "wlc", "sed", "nq")

MEMORY_DR = "xlvs, DR or tunnel, IPv4"
MEMORY_NAT = "xlvs, NAT, IPv4, with the entries of answers"
MEMORY_KERNEL = "kernel IPVS (slab objects and hash buckets)"


def speed_up(cpus: Figures, hook: str) -> float:
    """How many times the packets of one CPU two of them pass, at different flows."""
    alone, together = (cpus[cpus_name(hook, DIFFERENT, count)].minimum for count in (ALONE, TOGETHER))
    return 2 * alone / together


def goals(new: Figures, cpus: Figures, memory: Mapping[str, float]) -> list[Goal]:
    """``new`` and ``cpus`` are nanoseconds, ``memory`` megabytes."""
    most = SIZES[-1]
    minima = {name: one.minimum for name, one in new.items()}
    rr = minima[name_of("rr", most)]
    found = [
        Goal(f"{name}: new flow / rr's", minima[name] / rr, 2.0)
        for name in (name_of(each, most) for each in _COMPARING)
    ]
    for hook in (XDP, TC):
        found.append(Goal(f"{hook.upper()}: packets of two CPUs / of one", speed_up(cpus, hook), 1.9, True))
        alone, together = (cpus[cpus_name(hook, SAME, count)].minimum for count in (ALONE, TOGETHER))
        found.append(Goal(f"{hook.upper()}, one flow: a packet on two CPUs / on one", together / alone, 1.5))
    found.append(Goal("megabytes of a million connections, DR", memory[MEMORY_DR], 136.0))
    found.append(Goal("megabytes of a million connections, NAT", memory[MEMORY_NAT], 270.0))
    return found
