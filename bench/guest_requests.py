# SPDX-License-Identifier: GPL-2.0-only
"""What requests cost in the guest's labs, by name, and what follows from it: pure values."""

from __future__ import annotations

from collections.abc import Mapping

from bench.guest_rows import DR, IPVS, NAT, XLVS_TC, XLVS_XDP, row
from bench.lab_goals import DIRECT
from bench.proxies import HAPROXY, NGINX
from bench.rounds import Figure

ROUTER = "Linux as a router, no balancer"
BEHIND_NAT = (row(IPVS, NAT), row(XLVS_TC, NAT))
ROWS = (
    DIRECT,
    ROUTER,
    row(IPVS, DR),
    row(XLVS_TC, DR),
    row(XLVS_XDP, DR),
    *BEHIND_NAT,
    HAPROXY,
    NGINX,
)
"""Who takes its turn in every round, in this order."""


def over_direct(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """What each way adds to a request without a balancer: less the minimum of that."""
    less = figures[DIRECT].minimum
    return {
        name: Figure(one.minimum - less, one.median - less, one.maximum - less)
        for name, one in figures.items()
        if name != DIRECT
    }


def beside_kernel_ipvs(figures: Mapping[str, Figure]) -> dict[str, float]:
    """How many times each one's instructions kernel IPVS executes, by minima.

    NAT is laid beside NAT, all else beside Direct Routing.  Of whole requests that is
    requests a second over kernel IPVS's, where each instruction takes the same time.
    """
    return {
        name: figures[row(IPVS, NAT if name in BEHIND_NAT else DR)].minimum / one.minimum
        for name, one in figures.items()
        if not name.startswith(IPVS)
    }
