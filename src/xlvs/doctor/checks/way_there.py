# SPDX-License-Identifier: GPL-2.0-only
"""No way leads from the director to a real server that cannot be asked for its service.

Nobody connects to a real server of a service by UDP or SCTP, or of a firewall
mark, to see whether it serves.  Whether there is a route to it, and on the director's
own segment a host that answers ARP or neighbour discovery (or at least a ping), can be
told all the same.  While it has a weight and neither, its share of clients gets no answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served, asking
from xlvs.doctor.finding import Finding

RANK = 14
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "ipvsadm -A -u {vip}:53 -s rr && ipvsadm -a -u {vip}:53 -r 198.51.100.53 -g"),),
        restores=(("director", "ipvsadm -D -u {vip}:53"),),
        hosts=("director",),
    ),
    Scenario(
        "dr6",
        breaks=(
            ("director", "ipvsadm -A -u [{vip6}]:53 -s rr"),
            ("director", "ipvsadm -a -u [{vip6}]:53 -r [{rip6_1}f]:53 -g"),
        ),
        restores=(("director", "ipvsadm -D -u [{vip6}]:53"),),
        hosts=("director",),
    ),
)

_NOWHERE = ("blackhole", "unreachable", "prohibit")
"""Kinds of routes by which nothing leaves (ip-route(8))."""


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for real servers of which nobody else can tell that they are out of reach."""
    for served in cluster.served():
        if served.is_local or served.destination.weight == 0 or cluster.answer(served) is not None:
            continue
        evidence = lost_on_the_way(cluster, served)
        if evidence:
            yield Finding(
                served.director.name,
                f"real server {served.name} cannot be reached, and has weight {served.destination.weight}",
                (*evidence, mends.destination_words(served)),
                "What is given to it is lost: clients wait, and give up.",
                (mends.set_weight(served, 0),),
                f"and see to the way to {served.real_server}",
            )


def lost_on_the_way(cluster: Cluster, served: Served) -> tuple[str, ...]:
    """Why packets do not get as far as a real server, as evidence; empty as far as anybody can tell."""
    return _no_route(served) or _nobody_there(cluster, served)


def _no_route(served: Served) -> tuple[str, ...]:
    director, address = served.director, served.real_server
    if director.policy:  # rules may lead past the main table
        return ()
    route = director.route_to(address)
    if route is None:
        return (f"{director.name} has no route to {address}: ip route",)
    return (f"ip route: {route.kind} {route.text}",) if route.kind in _NOWHERE else ()


def _nobody_there(cluster: Cluster, served: Served) -> tuple[str, ...]:
    """On the director's segment silence says something: whoever is there answers ARP."""
    director, address = served.director, served.real_server
    route = director.route_to(address)
    interface = director.interface_towards(address)
    passage = cluster.passages.get((director.name, address))
    if route is None or route.gateway or route.interface != interface or passage is None or passage.small:
        return ()
    known_by_hand = any(
        each.address == address and "PERMANENT" in each.states for each in director.neighbours
    )
    if known_by_hand or cluster.answers_for(address):
        return ()
    return (f"nobody answers {asking(address)} for {address} on {interface}, nor a ping",)
