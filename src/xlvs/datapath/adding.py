# SPDX-License-Identifier: GPL-2.0-only
"""Adding many services with their real servers at once: what a restore of 100,000 lines needs.

One by one, each real server would be a new run of its service.  Here each
service's run is written once, and a record is copied from an image of the
last one that was described alike.  First everything is checked and places are
found, which is all that can fail; then records and runs are written, where no
packet comes upon them; the index of services is last, so that a service is
there with all its real servers or not at all.
"""

from __future__ import annotations

import ctypes
from struct import Struct

from xlvs import errors, model
from xlvs.datapath import runs
from xlvs.datapath.describing import (
    NOTHING_SPECIAL,
    SPECIAL,
    Records,
    check_destination,
    check_route,
    check_service,
    describe,
    describe_service,
    hand_down,
    set_thresholds,
    special,
)
from xlvs.datapath.maps import Maps
from xlvs.datapath.places import Places
from xlvs.datapath.records import fields_of, offset_of, packed_key
from xlvs.datapath.scheduling import Scheduling
from xlvs.kernel import abi, bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Container

    from xlvs.datapath.rows import Table
    from xlvs.kernel import rtnetlink

    _Image = tuple[bytes, bytes, bytes, bytes]
    """A real server's record: what is before, between and after its service and owner; and all of it."""

_INDEX = Struct("=I")
_SERVICE_BYTES = ctypes.sizeof(abi.Service)
_DESTINATION_BYTES = ctypes.sizeof(abi.Destination)
_KEY_BYTES = ctypes.sizeof(abi.ServiceKey)
_RUN = offset_of(abi.Service, "run")
_BINDING = offset_of(abi.Service, "binding")
_BEGUN = offset_of(abi.Service, "begun")
_ITS_SERVICE = offset_of(abi.Destination, "service")
_AFTER_PORT = offset_of(abi.Destination, "family")
_OWNER = offset_of(abi.Destination, "owner")
_INTERFACE = offset_of(abi.Destination, "interface")
_REACH = offset_of(abi.Destination, "reach")
_NEXT_HOP = offset_of(abi.Destination, "next_hop")
_IDLE = offset_of(abi.Destination, "idle_timeout")
_OWN_ADDRESS = offset_of(abi.Destination, "own_address")
_PATH_MTU = offset_of(abi.Destination, "path_mtu")
_LAST_WEIGHT = offset_of(abi.Destination, "last_weight")
_SAID = ((_IDLE, _IDLE + 4), (_OWN_ADDRESS, _PATH_MTU), (_LAST_WEIGHT, _LAST_WEIGHT + 4))
"""What else an operator says of a real server: from where to where in its record."""
_WAY = ((_INTERFACE, _INTERFACE + 4), (_REACH, _REACH + 4), (_NEXT_HOP, _NEXT_HOP + 16))
"""What `Records.note_route` writes."""
_RETURNING = fields_of(
    abi.Destination, "service", "refreshed", "upper_threshold", "lower_threshold", "begun"
)


class _Planned:
    """A service that can be added: its places, and the image that its record is copied from."""

    __slots__ = ("added", "begun", "image", "index", "key", "returning", "run", "service", "start")

    def __init__(self, service: model.Service, key: bytes, index: int) -> None:
        self.service = service
        self.key = key
        self.index = index
        self.image = b""
        self.run: runs.Run
        self.start = 0
        self.begun = 0
        self.added: list[tuple[int, _Image]] = []
        self.returning: list[tuple[int, model.Destination, bytes]] = []


class Addition:
    """One addition to a table: `plan` it, then `write` it.  The caller holds the table's lock.

    ``routes_to`` answers by the kernel's routes.
    """

    def __init__(
        self,
        maps: Maps,
        places: Places,
        scheduling: Scheduling,
        records: Records,
        routes_to: Callable[[set[bytes]], dict[bytes, rtnetlink.Route]],
    ) -> None:
        self._maps = maps
        self._places = places
        self._scheduling = scheduling
        self._records = records
        self._routes_to = routes_to
        self._routes: dict[bytes, rtnetlink.Route] = {}
        self._planned: list[_Planned] = []
        self._service_images: dict[tuple[object, ...], tuple[bytes, tuple[bool, ...]]] = {}
        # Lines that say the same share one value, so it is known by its identity.
        self._destination_images: dict[tuple[object, ...], _Image] = {}
        self._destination_patterns: dict[tuple[object, ...], tuple[bytes, bytes, bytes]] = {}
        self._special = [0] * len(SPECIAL)
        self._first_unused_service = maps.settings.services_top
        self._first_unused_destination = maps.settings.destinations_top
        self.has_ipv6 = False
        self.flags = 0
        """What any of the services has (`enum service_flag`)."""
        self.indices: dict[bytes, int] = {}
        """The records of the services by packed key."""

    def plan(self, table: Table, there: Container[bytes]) -> None:
        """Check what is to be added, and find places; ``there`` are the keys of the services that are.

        Raises `TableError`; packets see nothing, and no record that is in use has changed.
        """
        self._check(table, there)
        place = self._returning_place if self._places.remembers() else self._new_place
        services_memory = self._maps.memory("services", self._maps.limits.services * _SERVICE_BYTES)
        for (service, destinations), key in zip(table, list(self.indices), strict=True):
            index = self._places.service()
            planned = _Planned(service, key, index)
            self.indices[key] = index
            start = index * _SERVICE_BYTES
            bound = _INDEX.unpack_from(services_memory, start + _BINDING)[0] + 1 & 0xFFFFFFFF
            planned.begun = _INDEX.unpack_from(services_memory, start + _BEGUN)[0] + 1 & 0xFFFFFFFF
            picks = [(place(planned, one), one.weight) for one in reversed(destinations)][::-1]
            planned.run = runs.joined(runs.SCHEDULERS[service.scheduler], picks, bound)
            planned.start = self._scheduling.place_new(
                planned.run, destinations, service.key.family == model.IPV6
            )
            planned.image = self._service_image(service)
            self._planned.append(planned)

    def _check(self, table: Table, there: Container[bytes]) -> None:
        checked: set[tuple[int, int]] = set()
        for service, destinations in table:
            key = packed_key(service.key)
            if key in there or key in self.indices:
                raise errors.ServiceExists("the virtual service is there already")
            check_service(service)
            self.indices[key] = 0
            if len({(one.address, one.port) for one in destinations}) != len(destinations):
                raise errors.DestinationExists("the virtual service has that real server already")
            family = service.key.family
            self.has_ipv6 |= family == model.IPV6
            for one in destinations:
                if (id(one), family) not in checked:
                    checked.add((id(one), family))
                    check_destination(service.key, one)
                    self.has_ipv6 |= one.family == model.IPV6
        different = {id(one): one for _, destinations in table for one in destinations}
        self._routes = self._routes_to({one.address for one in different.values()})
        for one in different.values():
            check_route(one, self._routes[one.address])

    def _returning_place(self, planned: _Planned, destination: model.Destination) -> int:
        """The record that a real server had if that is remembered, or a new one."""
        index = self._places.returning(planned.key, destination.address, destination.port)
        if index is None:
            return self._new_place(planned, destination)
        *_, whole = self._destination_image(planned.service, destination)
        planned.returning.append((index, destination, whole))
        return index

    def _new_place(self, planned: _Planned, destination: model.Destination) -> int:
        index = self._places.destination()
        planned.added.append((index, self._destination_image(planned.service, destination)))
        return index

    def write(self) -> None:
        """Write what was planned, and let packets see it."""
        settings = self._maps.settings
        limits = self._maps.limits
        services = self._maps.memory("services", limits.services * _SERVICE_BYTES)
        destinations = self._maps.memory("destinations", limits.destinations * _DESTINATION_BYTES)
        pool = self._maps.pool()
        services_begun: list[int] = []
        destinations_begun: list[int] = []
        # First, so that whoever mends after a death finds what was written.
        settings.services_top = max(settings.services_top, *(one.index + 1 for one in self._planned))
        settings.destinations_top = max(
            settings.destinations_top, *(index + 1 for one in self._planned for index, _ in one.added), 0
        )
        for planned in self._planned:
            number = _INDEX.pack(planned.index)
            for index, (head, middle, tail, _) in planned.added:
                start = index * _DESTINATION_BYTES
                destinations[start : start + _DESTINATION_BYTES] = b"".join(
                    (head, number, middle, planned.key, tail)
                )
                if index < self._first_unused_destination:
                    destinations_begun.append(index)
            runs.write(pool, planned.start, planned.run)
            image = planned.image
            start = planned.index * _SERVICE_BYTES
            services[start : start + _SERVICE_BYTES] = b"".join((
                planned.key, image[_KEY_BYTES:_RUN], _INDEX.pack(planned.start), image[_RUN + 4 : _BINDING],
                _INDEX.pack(planned.run.binding), image[_BINDING + 4 : _BEGUN],
                _INDEX.pack(planned.begun), image[_BEGUN + 4 :],
            ))  # fmt: skip
            if planned.index < self._first_unused_service:
                services_begun.append(planned.index)
            for index, destination, whole in planned.returning:
                if self._take_back(destinations, planned, index, destination, whole):
                    destinations_begun.append(index)
        self._records.reset_bases("service", services_begun)
        self._records.reset_bases("destination", destinations_begun)
        bpf.update_many(
            self._maps.descriptor("service_index"),
            [self._maps.index_key(planned.key) for planned in self._planned],
            [_INDEX.pack(planned.index) for planned in self._planned],
        )
        for name, count in zip(SPECIAL, self._special, strict=True):
            if count:
                setattr(settings, name, getattr(settings, name) + count)

    def _take_back(
        self,
        records: mmap.mmap,
        planned: _Planned,
        index: int,
        destination: model.Destination,
        image: bytes,
    ) -> bool:
        """Let a removed real server join with its record, which connections of it may still read.

        It is what `Records.begin_again`, `describe` and `hand_down` come to;
        returns whether its counters have to begin anew.
        """
        start = index * _DESTINATION_BYTES
        service, refreshed, upper, lower, begun = _RETURNING.unpack_from(records, start)
        if (upper, lower) != (destination.upper_threshold, destination.lower_threshold):
            set_thresholds(self._maps.destination(index), destination)
        records[start + _ITS_SERVICE : start + _INTERFACE] = (
            _INDEX.pack(planned.index) + image[_ITS_SERVICE + 4 : _INTERFACE]
        )
        for first, end in _SAID if refreshed else _SAID + _WAY:
            records[start + first : start + end] = image[first:end]
        # The last: it is in service then.
        records[start : start + _ITS_SERVICE] = image[:_ITS_SERVICE]
        return bool(service != planned.index or begun != planned.begun)

    def _service_image(self, service: model.Service) -> bytes:
        """The record of a service that is like this one, but for its key, run, binding and beginning."""
        key = service.key
        kind = (
            key.fwmark != 0, key.protocol, key.port, service.scheduler_flags, service.persistence,
            service.netmask, service.engine, service.one_packet, service.idle_timeout, service.reject_gone,
            service.rehome,
        )  # fmt: skip
        known = self._service_images.get(kind)
        if known is None:
            record = abi.Service()
            record.key = abi.ServiceKey.from_buffer_copy(packed_key(key))
            describe_service(record, service)
            self.flags |= record.flags
            known = self._service_images[kind] = bytes(record), special(record)
        image, kinds = known
        if kinds != NOTHING_SPECIAL:
            self._special = [count + does for count, does in zip(self._special, kinds, strict=True)]
        return image

    def _destination_image(self, service: model.Service, destination: model.Destination) -> _Image:
        """A real server's record as it begins."""
        kind = (id(destination), service.idle_timeout, service.reject_gone, service.rehome)
        known = self._destination_images.get(kind)
        if known is None:
            route = self._routes[destination.address]
            head, following, rest = self._destination_pattern(service, destination, route)
            place = destination.address.ljust(16, b"\0") + destination.port.to_bytes(2, "big")
            middle = b"".join((place, following, route.next_hop.ljust(16, b"\0"), rest))
            known = (head, middle, b"", b"".join((head, bytes(4), middle, bytes(_KEY_BYTES))))
            self._destination_images[kind] = known
        return known

    def _destination_pattern(
        self, service: model.Service, destination: model.Destination, route: rtnetlink.Route
    ) -> tuple[bytes, bytes, bytes]:
        """What the records of real servers have in common that differ in address, port and next hop alone.

        It is what stands before the service, between port and next hop, and from there to the owner.
        """
        kind = (
            destination.method, destination.weight, destination.upper_threshold, destination.lower_threshold,
            destination.tunnel, len(destination.address), route.kind, route.interface, route.source,
            service.idle_timeout, service.reject_gone, service.rehome,
        )  # fmt: skip
        known = self._destination_patterns.get(kind)
        if known is None:
            record, its_service = abi.Destination(), abi.Service()
            record.family = destination.family
            self._records.note_route(record, route)
            describe(record, destination, route)
            describe_service(its_service, service)
            hand_down(its_service, record)
            image = bytes(record)
            known = image[:_ITS_SERVICE], image[_AFTER_PORT:_NEXT_HOP], image[_NEXT_HOP + 16 : _OWNER]
            self._destination_patterns[kind] = known
        return known
