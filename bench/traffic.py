# SPDX-License-Identifier: GPL-2.0-only
"""Flows of a kind through a director of its own, and their time.

What is measured takes its packets from `walk`, so that one call sees many flows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import walk
from bench.walk import TC, XDP, Traffic, Walk, new_walk
from tests.packet import packets
from tests.packet.director import VIP, VIP6, Director, new_director, real_server, real_server6
from tests.packet.packets import ACK, SYN, packed
from tests.packet.spaces import ip
from xlvs.datapath.load import Capacity
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, ServiceKey, Tunnel

SHORTEST = 25_000_000
"""A call is to take that many nanoseconds at least."""
GUESS = 100_000
"""So many packets say how many take that long: a call costs some 300 us by itself, at XDP."""
_ATTEMPTS = 8
"""A call that loses its processor for a second meets ways that are due to be looked up again."""

_CLIENT, _CLIENT6 = packed("172.16.0.1"), packed("fd02::1")


@dataclass(frozen=True, slots=True)
class Kind:
    """Traffic of one kind: protocol, address family, forwarding method, tunnel, direction."""

    name: str
    method: str = ROUTE
    protocol: int = packets.TCP
    ipv6: bool = False
    tunnel: Tunnel | None = None
    reverse: bool = False


@contextmanager
def new_floored_director(connections: int, floor_flows: int) -> Iterator[tuple[Director, Walk]]:
    """A director with room for so many connections, and a floor's hash with room for its flows."""
    with new_director(Capacity(connections, 64, 16_384)) as director:
        ip("route add 172.16.0.0/12 via 10.0.0.18")
        ip("-6 route add fd02::/64 via fd00::12")
        # XDP does as on an interface that it is attached to natively: NAT, and tunnels.
        record = director.maps.record("interfaces", abi.Interface, director.ifindex, abi.INTERFACE_LIMIT)
        record.known |= abi.INTERFACE_NATIVE
        with new_walk(director.maps.folder, director.ifindex, floor_flows) as programs:
            yield director, programs


def traffic_of(director: Director, kind: Kind, key: ServiceKey, flags: int) -> Traffic:
    """Flows of a service: the first one's frame, from its client or to it."""
    client, server = (_CLIENT6, real_server6(1)) if kind.ipv6 else (_CLIENT, real_server(1))
    ends = (1024, key.port)
    source, destination = client, key.address
    if kind.reverse:
        ends = (key.port, 1024)
        source, destination = server, client
    transport = packets.tcp(*ends, flags) if kind.protocol == packets.TCP else packets.udp(*ends)
    build = packets.ipv6 if kind.ipv6 else packets.ipv4
    packet = packets.with_checksum(build(source, destination, kind.protocol, transport, 64))
    return Traffic(director.frame(packet), kind.reverse)


def keep_ways(director: Director) -> None:
    """Packets look the way to a real server up again once a second, at TC: not while measured.

    The packet path's clock is the coarse one, behind this one by up to a tick.
    """
    now = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> abi.TICK_SHIFT) - 1
    for index in range(director.maps.settings.destinations_top):
        director.maps.destination(index).refreshed = now & 0xFFFFFFFF


def establish(director: Director, programs: Walk, kind: Kind, flows: int) -> Traffic:
    """A service with that many established flows; returns their traffic."""
    key = director.service(
        1, address=VIP6 if kind.ipv6 else VIP, protocol=kind.protocol, method=kind.method, tunnel=kind.tunnel
    )
    forward = Kind(kind.name, kind.method, kind.protocol, kind.ipv6, kind.tunnel)
    for flags in (SYN, ACK):
        programs.run(
            TC, traffic_of(director, forward, key, flags), flows, flows, order=walk.IN_TURN
        )  # fmt: skip
    if kind.method == MASQUERADE and kind.protocol == packets.TCP:
        answering = Kind(kind.name, kind.method, kind.protocol, kind.ipv6, kind.tunnel, reverse=True)
        programs.run(TC, traffic_of(director, answering, key, SYN | ACK), flows, flows, order=walk.IN_TURN)
        programs.run(TC, traffic_of(director, forward, key, ACK), flows, flows, order=walk.IN_TURN)
    return traffic_of(director, kind, key, ACK)


def measurement(
    programs: Walk, director: Director, hook: str, traffic: Traffic, flows: int, shortest: int = SHORTEST
) -> Callable[[], float]:
    """A measurement of the packet path; ends the benchmark where packets are not forwarded."""
    keep_ways(director)
    programs.run(TC, traffic, flows, 1)
    guess, _ = programs.run(hook, traffic, flows, GUESS)
    count = int(shortest / guess)
    event = "xdp_forwarded" if hook == XDP else "forwarded"

    def measure() -> float:
        for _ in range(_ATTEMPTS):
            keep_ways(director)
            if traffic.reverse:  # the way back is TC's to keep: answer.h, struct next_hop
                programs.run(TC, traffic, flows, 1)
            before = director.maps.events()[event]
            taken, _ = programs.run(hook, traffic, flows, count)
            if director.maps.events()[event] - before >= count * 0.999:
                return taken
        raise SystemExit("bench: packets were not forwarded; is the machine very busy?")

    return measure
