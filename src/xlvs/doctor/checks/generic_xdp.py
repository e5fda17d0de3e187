# SPDX-License-Identifier: GPL-2.0-only
"""An interface without XDP support runs XDP in the network stack, slowly.

Where a driver has no XDP, and on interfaces whose packets come from no wire (veth, tap, bridge),
xdp-generic makes a frame of each packet and a packet of it again.  TC, which does
without, is the complete path and quicker there; native XDP, where the driver
has it, is the quickest.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, WARNING, Finding, Mend

RANK = 91
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "xlvs attach --mode xdp-generic {interface}"),),
        restores=(("director", "xlvs attach --mode tc {interface}"),),
        hosts=("director",),
    ),
)
_OF_FRAMES = ("", "bond")
"""Kinds of interface whose packets come from a wire: NICs have no kind."""


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the modes in which xlvs has XDP, and where it could have it."""
    for director in cluster.directors:
        for name, hooks in director.director.hooks.items():
            link = director.link(name)
            at_xdp = any(hook.startswith("xdp") for hook in hooks)
            if link is None or name == "lo":
                continue
            if at_xdp and link.xdp == "generic":
                yield _slow(director.name, name)
            elif not at_xdp and link.kind in _OF_FRAMES:
                yield Finding(
                    director.name,
                    f"{name} of {director.name} has the packet path at TC alone",
                    (f"xlvs status: {name} {' '.join(hooks)}",),
                    "None: TC is the complete path. XDP in the driver, if it has that, is quicker.",
                    advice=f"xlvs attach --mode auto {quote(name)}",
                    severity=NOTE,
                )


def _slow(director: str, name: str) -> Finding:
    attach = f"xlvs attach --mode {{}} {quote(name)}"
    return Finding(
        director,
        f"{name} of {director} runs XDP in the network stack, slowly",
        (f"ip -details link show {name}: xdpgeneric",),
        "None but speed: fewer packets a second, and more delay under load.",
        (Mend(director, attach.format("tc"), attach.format("xdp-generic")),),
        f"where the driver has XDP: {attach.format('xdp')}",
        severity=WARNING,
    )
