# SPDX-License-Identifier: GPL-2.0-only
"""New flows, by scheduler and number of real servers, beside an insert into a BPF hash."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench import walk
from bench.rounds import Figure, interleaved
from bench.traffic import Kind, keep_ways, new_floored_director, traffic_of
from bench.walk import TC, XDP, Traffic, Walk
from tests.packet import packets
from tests.packet.director import VIP, Director
from tests.packet.packets import SYN
from tests.packet.spaces import ip
from xlvs.model import ROUTE, Destination, Service, ServiceKey

FLOWS = 4096
"""New ones of a round."""
OVERFLOW = 1_000_000


def name_of(scheduler: str, real_servers: int) -> str:
    """The name of a row."""
    return f"{scheduler}, {real_servers:,} real servers"


def add_service(director: Director, scheduler: str, real_servers: int) -> ServiceKey:
    """A service with that many real servers, of weights 1 to 3; for ovf, to which a weight is
    how many connections a real server takes, of more than come."""
    key = director.unused_key()
    lightest = OVERFLOW if scheduler == "ovf" else 1
    servers = (
        Destination(
            bytes([10, 0, 16 + number // 250, 1 + number % 250]), key.port, ROUTE, lightest + number % 3
        )
        for number in range(real_servers)
    )
    # A table's real servers are newest first.
    director.table.add_services([(Service(key, scheduler), list(servers)[::-1])])
    return key


class Arrivals:
    """Measurements in which no flow ever comes twice."""

    def __init__(self, director: Director, programs: Walk, flows: int = FLOWS) -> None:
        self._director = director
        self._programs = programs
        self._flows = flows
        self._next: dict[str, int] = {}

    def through(self, name: str, key: ServiceKey, first: int = 0) -> Callable[[], float]:
        """Nanoseconds for a new flow of a service, whose flows are numbered from ``first``."""
        return self._measure(name, TC, traffic_of(self._director, Kind(name), key, SYN), None, first)

    def insert(self) -> Callable[[], float]:
        """Nanoseconds for a look-up in and an insert into a hash of the kernel's."""
        key = ServiceKey(2, packets.TCP, VIP, 80)
        traffic = traffic_of(self._director, Kind("floor"), key, SYN)
        return self._measure(walk.INSERT, XDP, traffic, walk.INSERT, 0)

    def _measure(
        self, name: str, hook: str, traffic: Traffic, floor: str | None, first: int
    ) -> Callable[[], float]:
        def measure() -> float:
            keep_ways(self._director)
            begin = self._next.get(name, first)
            self._next[name] = begin + self._flows
            return self._programs.run(
                hook, traffic, self._flows, self._flows, floor=floor, first=begin, order=walk.IN_TURN
            )[0]

        return measure


def by_scheduler(
    schedulers: Iterable[str], sizes: Iterable[int], rounds: int, flows: int = FLOWS
) -> dict[str, Figure]:
    """Nanoseconds for a new flow of each, and `walk.INSERT`; ends the benchmark where flows were dropped.

    The hash has room for as many flows as the connection table, which has those of all rows.
    """
    rows = {name_of(scheduler, size): (scheduler, size) for scheduler in schedulers for size in sizes}
    room = flows * (rounds + 1) * len(rows)
    with new_floored_director(room, 2 * room) as (director, programs):
        ip("route replace 10.0.16.0/20 dev eth0")
        arrivals = Arrivals(director, programs, flows)
        measures = {walk.INSERT: arrivals.insert()}
        for name, (scheduler, size) in rows.items():
            measures[name] = arrivals.through(name, add_service(director, scheduler, size))
        figures = interleaved(measures, rounds)
        check_none_dropped(director)
    return figures


def check_none_dropped(director: Director) -> None:
    """End the benchmark where a new flow was not entered."""
    events = director.maps.events()
    if any(events[name] for name in ("table_full", "stateless", "no_destination")):
        raise SystemExit("bench: new flows were dropped, or found no room")
