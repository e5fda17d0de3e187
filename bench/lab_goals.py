# SPDX-License-Identifier: GPL-2.0-only
"""What is measured in labs, by name, and what follows from it: pure values.

Of rates the best round of each way is compared, of processor time the cheapest: on a
machine that others use these are what repeats.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench import live
from bench.proxies import HAPROXY
from bench.report import Figures, Goal, significant

DIRECT, XLVS_TC, XLVS_XDP = "direct, no balancer", "xlvs TC", "xlvs XDP"
BARE_TC = "bare TC redirect, nothing looked up"
SHORT, KEPT = "Short connections", "Kept connections"
BULK, BULK_CPU = "Bulk, one stream", "Bulk, one stream: processor time of all"


FRAMES = "Frames, made and dropped on the same CPU"
"""What `live` measures."""


def rate(kind: str) -> str:
    """The name of the group of rates of a kind of connections."""
    return f"{kind}: requests"


def p99(kind: str) -> str:
    """The name of the group of latencies."""
    return f"{kind}: 99th percentile"


def cpu(kind: str) -> str:
    """The name of the group of processor times of all that takes part."""
    return f"{kind}: processor time of all"


def own_cpu(kind: str) -> str:
    """The name of the group of processor times of balancers' own processes."""
    return f"{kind}: processor time of the balancer's processes"


UNITS = {
    **{rate(kind): "requests a second" for kind in (SHORT, KEPT)},
    **{p99(kind): "milliseconds" for kind in (SHORT, KEPT)},
    **{cpu(kind): "seconds for 100,000 requests" for kind in (SHORT, KEPT)},
    **{own_cpu(kind): "seconds for 100,000 requests" for kind in (SHORT, KEPT)},
    BULK: "gigabits a second",
    BULK_CPU: "seconds for 10^9 bytes",
    FRAMES: "nanoseconds of processor time for a frame",
}


def extra_cpu(figures: Mapping[str, Figures], kind: str, name: str) -> float:
    """Processor seconds for 100,000 requests above those without a balancer."""
    of_kind = figures[cpu(kind)]
    return of_kind[name].minimum - of_kind[DIRECT].minimum


def ratios(figures: Mapping[str, Figures]) -> dict[str, float]:
    """xlvs beside HAProxy and beside no balancer, by words.

    What was done in the same time wobbles with what else the machine does; what was done for
    the same processor time does not.
    """
    found = {}
    for name in (XLVS_TC, XLVS_XDP):
        for kind in (SHORT, KEPT):
            rates = figures[rate(kind)]
            found[f"{name}, {kind.lower()}: requests / HAProxy's"] = (
                rates[name].maximum / rates[HAPROXY].maximum
            )
            found[f"{name}, {kind.lower()}: extra processor time / HAProxy's"] = extra_cpu(
                figures, kind, name
            ) / extra_cpu(figures, kind, HAPROXY)
            found[f"{name}, {kind.lower()}: requests for the same processor time / HAProxy's"] = (
                figures[cpu(kind)][HAPROXY].minimum / figures[cpu(kind)][name].minimum
            )
        bulk, bulk_cpu = figures[BULK], figures[BULK_CPU]
        found[f"{name}, bulk / direct"] = bulk[name].maximum / bulk[DIRECT].maximum
        found[f"{name}, bulk for the same processor time / direct"] = (
            bulk_cpu[DIRECT].minimum / bulk_cpu[name].minimum
        )
    bare = figures[BULK][BARE_TC].maximum
    found[f"{BARE_TC}, bulk / direct"] = bare / figures[BULK][DIRECT].maximum
    found[f"{XLVS_TC}, bulk / a bare redirect's"] = figures[BULK][XLVS_TC].maximum / bare
    return {name: significant(value) for name, value in found.items()}


def packet_work(figures: Mapping[str, Figures], packets: float) -> dict[str, float]:
    """What a director's packet work takes of what HAProxy's process takes for a short request.

    ``packets`` come for one from a client.  A frame's figure has its making and dropping in it.
    """
    haproxy = figures[own_cpu(SHORT)][HAPROXY].minimum
    return {
        row: figures[FRAMES][live.name_of(row, 1024)].minimum * packets * 100_000 / 1e9 / haproxy
        for row in (live.XLVS_XDP, live.XLVS_TC)
    }


def goals(figures: Mapping[str, Figures], packets: float) -> list[Goal]:
    """What the budget asks: in labs of the mode that suits a veth, TC; of frames of both."""
    by_words = ratios(figures)
    frames = {name: one.minimum for name, one in figures[FRAMES].items()}
    bare = {row: frames[live.name_of(row, 1)] for row in (live.BARE_XDP, live.BARE_TC)}
    found = []
    for row, beside, flows, bound in (
        (live.XLVS_XDP, live.BARE_XDP, 1, 0.75),
        (live.XLVS_XDP, live.BARE_XDP, 131_072, 0.6),
        (live.XLVS_TC, live.BARE_TC, 1, 0.95),
    ):
        name = live.name_of(row, flows)
        found.append(Goal(f"{name}: frames / a bare program's", bare[beside] / frames[name], bound, True))
    found += [
        Goal(f"{row}: packet work of a short request / HAProxy's process", part, 1 / 30)
        for row, part in packet_work(figures, packets).items()
    ]
    return found + [
        Goal(what, by_words[what], bound, at_least)
        for what, bound, at_least in (
            (f"{XLVS_TC}, {SHORT.lower()}: requests / HAProxy's", 1.9, True),
            (f"{XLVS_TC}, {KEPT.lower()}: requests / HAProxy's", 1.7, True),
            (f"{XLVS_TC}, {SHORT.lower()}: extra processor time / HAProxy's", 0.28, False),
            (f"{XLVS_TC}, {KEPT.lower()}: extra processor time / HAProxy's", 0.35, False),
            (f"{XLVS_TC}, bulk / direct", 0.97, True),
        )
    ]
