# SPDX-License-Identifier: GPL-2.0-only
"""Writing records of services and real servers: what may be in them, and what an operator says of each.

Records are written before packets can come upon them; which they can, a
service's run and the index of services say (`ebpf`, `replacing`).
"""

from __future__ import annotations

import ctypes
from operator import add
from struct import Struct

from xlvs import errors, model
from xlvs.datapath import runs
from xlvs.datapath.maps import Maps
from xlvs.datapath.places import Places
from xlvs.datapath.records import (
    CHECKSUMS,
    METHODS,
    STRONGEST_CHECKSUM,
    TUNNEL_PROTOCOLS,
    TUNNEL_SIZES,
    TUNNELS,
    offset_of,
    packed_key,
    record_flags,
    seconds_to_ticks,
    store_address,
    swap_port,
)
from xlvs.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from xlvs.kernel import rtnetlink


_IPV4_HEADER, _IPV6_HEADER = 20, 40

# Of the machine's own order and size: each number is one store.
_TRAFFIC = Struct("5Q")
_NUMBER = Struct("I")
_ESTIMATE_BYTES = ctypes.sizeof(abi.Estimate)
_ZEROED = offset_of(abi.Estimate, "zeroed")
_FTP = swap_port(21)
SPECIAL = ("ftp_services", "any_port_services", "idle_services", "rehoming_services")
"""Settings that count the services for which packets do more than for others."""
NOTHING_SPECIAL = (False,) * len(SPECIAL)


def check_service(service: model.Service) -> None:
    """Raise `TableError` for a service that there cannot be."""
    key = service.key
    if service.scheduler not in runs.SCHEDULERS:
        raise errors.SchedulerNotFound(f"no scheduler is called {service.scheduler!r}")
    if service.engine not in ("", *model.PERSISTENCE_ENGINES):
        raise errors.SchedulerNotFound(f"no persistence engine is called {service.engine!r}")
    if not key.fwmark and key.protocol not in model.PROTOCOL_NAMES:
        raise errors.InvalidOperation("a virtual service needs a protocol")
    if not key.fwmark and key.port == 0 and not service.persistence:
        raise errors.InvalidOperation("a virtual service of all ports has to be persistent")


def check_destination(key: model.ServiceKey, destination: model.Destination) -> None:
    """Raise `TableError` for a real server that the service cannot have."""
    if destination.method not in METHODS:
        raise errors.NotSupported(
            f"xlvs does not have the forwarding method {destination.method}; "
            "it has Direct Routing (-g), NAT (-m) and tunnelling (-i)"
        )
    tunnel = destination.tunnel
    if tunnel and CHECKSUMS[tunnel.checksum] > STRONGEST_CHECKSUM[tunnel.kind]:
        raise errors.InvalidOperation(f"a tunnel of type {tunnel.kind} has no {tunnel.checksum}")
    if destination.lower_threshold > destination.upper_threshold:
        raise errors.OutOfRange("the lower connection threshold is above the upper one")
    if destination.family != key.family and destination.method != model.TUNNEL:
        raise errors.InvalidOperation(
            "a real server of another address family can only be reached by tunnelling"
        )
    if not 0 <= destination.weight <= model.MAX_WEIGHT:
        raise errors.OutOfRange(f"a weight is 0 to {model.MAX_WEIGHT}")


def check_route(destination: model.Destination, route: rtnetlink.Route) -> None:
    """Refuse a real server that cannot be one; the packet path copes with no route at all."""
    from xlvs.kernel.rtnetlink import LOCAL_ROUTE, NO_ROUTE, UNICAST_ROUTE

    if route.kind not in (UNICAST_ROUTE, LOCAL_ROUTE, NO_ROUTE) or not model.is_unicast(destination.address):
        raise errors.InvalidOperation("the real server's address is not a unicast address")


def describe(record: abi.Destination, destination: model.Destination, route: rtnetlink.Route) -> None:
    """Write what an operator says of a real server into its record, which is in service then."""
    from xlvs.kernel.rtnetlink import LOCAL_ROUTE

    record.method = METHODS[destination.method]
    record.weight = destination.weight
    set_thresholds(record, destination)
    record.last_weight = destination.weight or record.last_weight
    store_address(record.own_address, route.source)
    # Without a tunnel, too: connections go on by the method with which they began.
    tunnel = destination.tunnel or model.Tunnel()
    record.tunnel_kind = TUNNELS[tunnel.kind]
    record.tunnel_checksum = CHECKSUMS[tunnel.checksum]
    record.tunnel_port = swap_port(tunnel.port)
    outer = _IPV6_HEADER if record.family == model.IPV6 else _IPV4_HEADER
    # A checksum over the whole packet is TC's to write.
    record.frame_overhead = outer + TUNNEL_SIZES[tunnel.kind] if tunnel.checksum == "nocsum" else 0
    record.frame_protocol[0], record.frame_protocol[1] = TUNNEL_PROTOCOLS[tunnel.kind]
    local = abi.DESTINATION_LOCAL if route.kind == LOCAL_ROUTE else 0
    record.flags = abi.DESTINATION_USED | abi.DESTINATION_AVAILABLE | local


def set_thresholds(record: abi.Destination, destination: model.Destination) -> None:
    """Bound a real server's connections; new bounds count at once (kernel: ``__ip_vs_update_dest``)."""
    upper, lower = destination.upper_threshold, destination.lower_threshold
    if (record.upper_threshold, record.lower_threshold) == (upper, lower):
        return
    record.upper_threshold, record.lower_threshold = upper, lower
    connections = record.active + record.inactive
    enough = lower or upper - upper // 4
    if upper and connections >= upper:
        record.overload = abi.OVERLOADED
    elif not upper or connections < enough:
        record.overload = 0


def special(record: abi.Service) -> tuple[bool, bool, bool, bool]:
    """For what of `SPECIAL` a service counts; for nothing if its record is not in use."""
    key, used = record.key, bool(record.flags)
    return (
        used and key.port == _FTP and key.protocol == model.TCP,
        used and key.port == 0 and key.fwmark == 0,
        used and record.idle_timeout != 0,
        used and bool(record.flags & abi.SERVICE_REHOMES),
    )


def describe_service(record: abi.Service, service: model.Service) -> None:
    """Write what an operator may change of a service into its record, which is in use then."""
    record.persistence = service.persistence
    record.netmask = service.netmask
    flags = abi.SERVICE_USED | record_flags(service.scheduler_flags)
    if service.persistence:
        flags |= abi.SERVICE_PERSISTENT
    if service.one_packet:
        flags |= abi.SERVICE_ONE_PACKET
    if service.reject_gone:
        flags |= abi.SERVICE_REJECTS_GONE
    if service.rehome:
        flags |= abi.SERVICE_REHOMES
    if service.engine:
        flags |= abi.SERVICE_SIP
    record.idle_timeout = service.idle_timeout
    record.flags = flags


def hand_down(service: abi.Service, record: abi.Destination) -> None:
    """Write what a service says of its connections' life into a real server's record, in service."""
    record.idle_timeout = seconds_to_ticks(service.idle_timeout)
    flags = record.flags & ~(abi.DESTINATION_REJECTS_GONE | abi.DESTINATION_REHOMES)
    if service.flags & abi.SERVICE_REJECTS_GONE:
        flags |= abi.DESTINATION_REJECTS_GONE
    if service.flags & abi.SERVICE_REHOMES:
        flags |= abi.DESTINATION_REHOMES
    record.flags = flags


class Records:
    """The records of one table; the caller holds its lock."""

    def __init__(self, maps: Maps, places: Places) -> None:
        self._maps = maps
        self._places = places

    def begin_service(self, index: int, service: model.Service, is_local: bool) -> int:
        """Write which service a free record is for, and no more; returns its scheduler's binding."""
        record = self._maps.service(index)
        binding = record.binding + 1 & 0xFFFFFFFF
        begun = record.begun + 1 & 0xFFFFFFFF
        ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
        record.binding = binding
        record.begun = begun
        record.virtual_local = is_local
        store_address(record.key.address, service.key.address)
        record.key.fwmark = service.key.fwmark
        record.key.port = swap_port(service.key.port)
        record.key.protocol = service.key.protocol
        record.key.family = service.key.family
        self.reset_base("service", index)
        settings = self._maps.settings
        settings.services_top = max(settings.services_top, index + 1)
        return binding

    def begin_destination(
        self, key: model.ServiceKey, service: int, destination: model.Destination, route: rtnetlink.Route
    ) -> int:
        """A record for a real server that joins the service in that record, without what may be edited.

        It is the one that the real server had before, if that is not forgotten yet.
        """
        owner = packed_key(key)
        index = self._places.returning(owner, destination.address, destination.port)
        if index is None:
            index = self._new(owner, destination)
            record = self._maps.destination(index)
            record.service = service
            self.note_route(record, route)
        else:
            self.begin_again(index, service, route)
        return index

    def begin_again(self, index: int, service: int, route: rtnetlink.Route) -> None:
        """Let a real server that was removed join that service with the record that it had."""
        record = self._maps.destination(index)
        if (record.service, record.begun) != (service, self._maps.service(service).begun):
            # It was of another service, if one of the same key (kernel: __ip_vs_update_dest).
            self.reset_base("destination", index)
        record.service = service
        if record.refreshed == 0:
            self.note_route(record, route)
        record.last_weight = 0  # it may come back with another

    @staticmethod
    def note_route(record: abi.Destination, route: rtnetlink.Route) -> None:
        """Write the way to a real server, which holds until the packet path looks for itself."""
        from xlvs.kernel.rtnetlink import UNICAST_ROUTE

        record.interface = route.interface
        store_address(record.next_hop, route.next_hop)
        record.reach = abi.REACH_ROUTE if route.kind == UNICAST_ROUTE else 0
        if len(route.next_hop) == 16:
            record.reach |= abi.REACH_BY_IPV6

    def _new(self, owner: bytes, destination: model.Destination) -> int:
        """A free record, made that of a real server."""
        index = self._places.destination()
        record = self._maps.destination(index)
        ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
        store_address(record.address, destination.address)
        record.port = swap_port(destination.port)
        record.family = destination.family
        record.owner = abi.ServiceKey.from_buffer_copy(owner)
        self.reset_base("destination", index)
        settings = self._maps.settings
        settings.destinations_top = max(settings.destinations_top, index + 1)
        return index

    def reset_base(self, kind: str, index: int) -> None:
        """Let a record's counters begin at 0 from here."""
        self.reset_bases(kind, (index,))

    def reset_bases(self, kind: str, indices: Iterable[int]) -> None:
        """Let the counters of some records, ``service`` or ``destination``, begin at 0 from here."""
        limits = self._maps.limits
        count = limits.services if kind == "service" else limits.destinations
        traffic, (first, *others) = self._maps.counters(kind)
        bases = self._maps.memory(f"{kind}_base", count * _TRAFFIC.size)
        estimates = self._maps.memory(f"{kind}_estimates", count * _ESTIMATE_BYTES)
        unpack, pack = _TRAFFIC.unpack_from, _TRAFFIC.pack_into
        for index in indices:
            place = index * _TRAFFIC.size
            total = unpack(traffic, first + place)
            for row in others:
                more = unpack(traffic, row + place)
                if any(more):
                    total = tuple(map(add, total, more))
            pack(bases, place, *total)
            place = index * _ESTIMATE_BYTES + _ZEROED
            _NUMBER.pack_into(estimates, place, _NUMBER.unpack_from(estimates, place)[0] + 1 & 0xFFFFFFFF)
