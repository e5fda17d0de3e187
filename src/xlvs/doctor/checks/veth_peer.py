# SPDX-License-Identifier: GPL-2.0-only
"""Native XDP on a veth whose other end has no XDP program.

What a native XDP program sends out of a veth (XDP_TX, redirects) vanishes without a
trace unless the other end runs an XDP program, too; any will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding, Mend

RANK = 92
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "xlvs attach --mode xdp {interface}"),),
        restores=(("director", "xlvs attach --mode tc {interface}"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at veths of directors; the other end counts where it is on a host that is seen."""
    for director in cluster.directors:
        for link in director.links:
            if link.kind != "veth" or link.xdp != "native":
                continue
            peer = next((each for each in director.links if each.index == link.peer
                         and each.peer == link.index), None)  # fmt: skip
            if peer is not None and peer.xdp:
                continue
            ours = any(hook.startswith("xdp") for hook in director.director.hooks.get(link.name, ()))
            attach = f"xlvs attach --mode {{}} {quote(link.name)}"
            yield Finding(
                director.name,
                f"{link.name} of {director.name} is a veth with native XDP, and its other end "
                + ("has no XDP program" if peer else "cannot be seen"),
                (f"ip -details link show {link.name}: veth, xdp", f"its other end is number {link.peer}"),
                "If the other end has no XDP program, all that XDP sends by this interface vanishes.",
                (Mend(director.name, attach.format("tc"), attach.format("xdp")),) if ours else (),
                "or give the other end a program that passes all"
                if ours
                else f"take the program off (ip link set dev {quote(link.name)} xdpdrv off), or give "
                "the other end one that passes all",
                severity=WARNING,
            )
