# SPDX-License-Identifier: GPL-2.0-only
"""Reading the whole table out of the pinned maps, quickly: rows and entries of the model.

A record is read by one `struct` call for the fields that are wanted, whose
places come from the generated layouts: a ctypes view of each record would
take ten times as long.  Nothing here changes anything.
"""

from __future__ import annotations

import ctypes
from itertools import repeat
from struct import Struct

from xlvs import model
from xlvs.datapath import runs
from xlvs.datapath.maps import Maps
from xlvs.datapath.records import (
    CHECKSUM_NAMES,
    METHOD_NAMES,
    TUNNEL_NAMES,
    fields_of,
    model_key,
    rounded_byte_rate,
    rounded_packet_rate,
    scheduler_flags,
    swap_port,
)
from xlvs.datapath.rows import NO_COUNTERS, NOTHING, RATES, STATS
from xlvs.datapath.scheduling import Scheduling
from xlvs.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable

    from xlvs.datapath.rows import Counters, DestinationRow, ServiceRow

_SERVICE = fields_of(abi.Service, "key", "flags", "run", "persistence", "netmask", "idle_timeout")
_DESTINATION = fields_of(
    abi.Destination, "address..method", "weight", "active", "inactive", "persistent", "upper_threshold",
    "lower_threshold",
)  # fmt: skip
_TUNNEL = fields_of(abi.Destination, "tunnel_kind", "tunnel_checksum", "tunnel_port")
_ENDPOINT = Struct("=16sHBB")
"""What stands together in ``address..method``."""
_TRAFFIC = fields_of(abi.Traffic, "connections", "in_packets", "out_packets", "in_bytes", "out_bytes")
_ESTIMATE = fields_of(abi.Estimate, "zeroed", "seen", "rate")

_NO_RATE = bytes(ctypes.sizeof(abi.Traffic))

_SERVICE_BYTES = ctypes.sizeof(abi.Service)
_DESTINATION_BYTES = ctypes.sizeof(abi.Destination)
_TRAFFIC_BYTES = ctypes.sizeof(abi.Traffic)
_ESTIMATE_BYTES = ctypes.sizeof(abi.Estimate)


class Reader:
    """Reads services with their real servers; the caller holds the table's lock."""

    def __init__(self, maps: Maps, scheduling: Scheduling) -> None:
        self._maps = maps
        self._scheduling = scheduling
        self._plain_row: Callable[[int], ServiceRow] | None = None

    def table(self, counted: str = NOTHING) -> list[ServiceRow]:
        """Every service; see `Datapath.table`."""
        used = self._used()
        if not used:
            return []  # without mapping the rest for it
        read = self._row_reader(counted, together=True)
        return [read(index) for index in used]

    def services(self) -> list[model.ServiceEntry]:
        """Every service; see `Datapath.services`."""
        return [self.entry(index) for index in self._used()]

    def row(self, index: int) -> ServiceRow:
        """The service in one record, without counters."""
        if self._plain_row is None:
            self._plain_row = self._row_reader(NOTHING)
        return self._plain_row(index)

    def entry(self, index: int) -> model.ServiceEntry:
        """The service in one record."""
        service, stats, destinations = self._row_reader(STATS)(index)
        _, rates, with_rates = self._row_reader(RATES)(index)
        entries = [
            model.DestinationEntry(
                model.Destination(address, port, method, weight, upper, lower, tunnel),
                active, inactive, persistent, model.Stats(*counters), model.Rates(*rated[-1]),
            )
            for (
                address, port, method, weight, active, inactive, persistent, upper, lower, tunnel, counters,
            ), rated in zip(destinations, with_rates, strict=True)
        ]  # fmt: skip
        return model.ServiceEntry(service, tuple(entries), model.Stats(*stats), model.Rates(*rates))

    def _used(self) -> list[int]:
        """The service records in use; one without a run was being deleted by a command that died."""
        top = self._maps.settings.services_top
        flags = self._maps.flags("services", abi.Service, top)
        starts = self._maps.column("services", abi.Service, "run", top)
        return [index for index, (used, run) in enumerate(zip(flags, starts, strict=True)) if used and run]

    def _row_reader(self, counted: str, together: bool = False) -> Callable[[int], ServiceRow]:
        limits = self._maps.limits
        services = self._maps.memory("services", limits.services * _SERVICE_BYTES)
        destinations_of = self._destinations_reader(counted, together)
        counters = self._counters_reader("service", counted, together)

        def read(index: int) -> ServiceRow:
            key, flags, run, persistence, netmask, idle_timeout = _SERVICE.unpack_from(
                services, index * _SERVICE_BYTES
            )
            scheduler, destinations = self._scheduling.listed(index, run)
            service = model.Service(
                model_key(key), runs.SCHEDULER_NAMES[scheduler], scheduler_flags(flags), persistence,
                netmask, model.SIP if flags & abi.SERVICE_SIP else "",
                one_packet=bool(flags & abi.SERVICE_ONE_PACKET), idle_timeout=idle_timeout,
                reject_gone=bool(flags & abi.SERVICE_REJECTS_GONE), rehome=bool(flags & abi.SERVICE_REHOMES),
            )  # fmt: skip
            return service, counters(index), destinations_of(destinations)

        return read

    def _destinations_reader(
        self, counted: str, together: bool
    ) -> Callable[[list[int]], list[DestinationRow]]:
        memory = self._maps.memory("destinations", self._maps.limits.destinations * _DESTINATION_BYTES)
        counters = self._counters_reader("destination", counted, together)
        unpack, size = _DESTINATION.unpack_from, _DESTINATION_BYTES
        # Services share real servers: where one is, and how it is reached, is read once.
        endpoints: dict[bytes, tuple[bytes, int, str]] = {}

        def read(indices: list[int]) -> list[DestinationRow]:
            rows = []
            for index in indices:
                packed, weight, active, inactive, persistent, upper, lower = unpack(memory, index * size)
                endpoint = endpoints.get(packed)
                if endpoint is None:
                    endpoint = endpoints[packed] = _endpoint(packed)
                address, port, method = endpoint
                rows.append((
                    address, port, method, weight,
                    # Two CPUs that count one up and down meet in an instant below 0.
                    active if active > 0 else 0, inactive if inactive > 0 else 0,
                    persistent if persistent > 0 else 0,
                    upper, lower, _tunnel(memory, index) if method == model.TUNNEL else None,
                    counters(index) if counted else NO_COUNTERS,
                ))  # fmt: skip
            return rows

        return read

    def _counters_reader(self, kind: str, counted: str, together: bool) -> Callable[[int], Counters]:
        """What reads a record's counters; those of all are read ``together``, or each when asked for."""
        if not counted:
            return lambda _index: NO_COUNTERS
        limits, settings = self._maps.limits, self._maps.settings
        count, top = limits.destinations, settings.destinations_top
        if kind == "service":
            count, top = limits.services, settings.services_top
        if counted == RATES:
            return self._rates_reader(self._maps.memory(f"{kind}_estimates", count * _ESTIMATE_BYTES))
        bases = self._maps.memory(f"{kind}_base", count * _TRAFFIC_BYTES)
        traffic, rows = self._maps.counters(kind)
        if together:
            return _summed(bases, traffic, rows, top).__getitem__
        unpack = _TRAFFIC.unpack_from

        def read(index: int) -> Counters:
            place = index * _TRAFFIC_BYTES
            base = unpack(bases, place)
            connections = in_packets = out_packets = in_bytes = out_bytes = 0
            for row in rows:
                some = unpack(traffic, row + place)
                connections += some[0]
                in_packets += some[1]
                out_packets += some[2]
                in_bytes += some[3]
                out_bytes += some[4]
            return (
                connections - base[0], in_packets - base[1], out_packets - base[2],
                in_bytes - base[3], out_bytes - base[4],
            )  # fmt: skip

        return read

    @staticmethod
    def _rates_reader(estimates: mmap.mmap) -> Callable[[int], Counters]:
        def read(index: int) -> Counters:
            zeroed, seen, rate = _ESTIMATE.unpack_from(estimates, index * _ESTIMATE_BYTES)
            if seen != zeroed or rate == _NO_RATE:
                return NO_COUNTERS
            connections, in_packets, out_packets, in_bytes, out_bytes = _TRAFFIC.unpack(rate)
            return (
                rounded_packet_rate(connections), rounded_packet_rate(in_packets),
                rounded_packet_rate(out_packets), rounded_byte_rate(in_bytes), rounded_byte_rate(out_bytes),
            )  # fmt: skip

        return read


def _endpoint(packed: bytes) -> tuple[bytes, int, str]:
    """Address, port and forwarding method of a real server's record."""
    address, port, family, method = _ENDPOINT.unpack(packed)
    return address[:4] if family == model.IPV4 else address, swap_port(port), METHOD_NAMES[method]


def _tunnel(memory: mmap.mmap, index: int) -> model.Tunnel:
    """The tunnel in a real server's record."""
    kind, checksum, port = _TUNNEL.unpack_from(memory, index * _DESTINATION_BYTES)
    return model.Tunnel(TUNNEL_NAMES[kind], swap_port(port), CHECKSUM_NAMES[checksum])


def _summed(bases: mmap.mmap, traffic: mmap.mmap, rows: list[int], top: int) -> list[Counters]:
    """The counters of the first ``top`` records, field by field: a third of what record by record takes.

    ``rows`` says where those of each CPU begin, in bytes.
    """
    from operator import add, sub  # other listings do without it

    width = _TRAFFIC_BYTES // 8
    base, every = memoryview(bases).cast("Q"), memoryview(traffic).cast("Q")
    fields = []
    for field in range(width):
        counts: Iterable[int] = repeat(0)
        for row in rows:
            start = row // 8
            counts = map(add, counts, every[start + field : start + top * width : width].tolist())
        fields.append(map(sub, counts, base[field : top * width : width].tolist()))
    return list(zip(*fields, strict=True))
