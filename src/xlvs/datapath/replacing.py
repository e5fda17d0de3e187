# SPDX-License-Identifier: GPL-2.0-only
"""Putting a whole table in the place of another: all of it or nothing, from one packet to the next.

First everything is planned: records and runs are found, checked and written
where no packet comes upon them.  Whatever can fail, fails here, and what was
found is simply forgotten again.  Then the index of services gets the new table
beside the old one, under other keys; services that are in both and differ
have a second record there.  One 32-bit store says by which keys packets look
services up.  After it, the first records take over what the second ones say,
and the old keys go.
"""

from __future__ import annotations

import ctypes
from struct import Struct

from xlvs import model
from xlvs.datapath import loopback, runs
from xlvs.datapath.describing import (
    SPECIAL,
    Records,
    check_destination,
    check_route,
    check_service,
    describe,
    describe_service,
    hand_down,
    special,
)
from xlvs.datapath.maps import Maps
from xlvs.datapath.places import Places
from xlvs.datapath.records import packed_key, padded, swap_port
from xlvs.datapath.scheduling import Scheduling
from xlvs.kernel import abi, bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xlvs.kernel import rtnetlink

_INDEX = Struct("=I")


class _Planned:
    """What a service will be: its record, those of its real servers, and a run unless it keeps its own."""

    __slots__ = ("added", "binding", "index", "is_new", "kept", "removed", "run", "service", "start")

    def __init__(self, service: model.Service, index: int, is_new: bool) -> None:
        self.service = service
        self.index = index
        self.is_new = is_new
        self.binding = 0
        self.run: runs.Run | None = None
        self.start = 0
        self.added: list[tuple[int, model.Destination, rtnetlink.Route]] = []
        self.kept: list[tuple[int, model.Destination, rtnetlink.Route]] = []
        self.removed: list[int] = []


class Replacement:
    """One replacement of a table: `plan` each service of the new one, then `switch`.

    The caller holds the table's lock.  ``route_to`` and ``is_local`` answer
    by the kernel's routes.
    """

    def __init__(
        self,
        maps: Maps,
        places: Places,
        scheduling: Scheduling,
        records: Records,
        route_to: Callable[[bytes], rtnetlink.Route],
        is_local: Callable[[model.ServiceKey], bool],
    ) -> None:
        self._maps = maps
        self._places = places
        self._scheduling = scheduling
        self._records = records
        self._route_to = route_to
        self._is_local = is_local
        self._planned: list[_Planned] = []
        self._kept: list[tuple[bytes, int]] = []
        self._has_ipv6 = False

    def plan(self, service: model.Service, destinations: list[model.Destination], index: int | None) -> None:
        """Prepare a service, which has a record if it is in the old table; packets see nothing of it.

        Raises `TableError`.
        """
        check_service(service)
        routes = [self._route_to(one.address) for one in destinations]
        for destination, route in zip(destinations, routes, strict=True):
            check_destination(service.key, destination)
            check_route(destination, route)
        planned = _Planned(service, self._places.service() if index is None else index, index is None)
        if planned.is_new:
            planned.binding = self._records.begin_service(
                planned.index, service, self._is_local(service.key)
            )
        old = None if planned.is_new else self._scheduling.run(planned.index)
        known = {self._endpoint(number): number for number, _ in old.picks} if old else {}
        picks = []
        for destination, route in zip(destinations, routes, strict=True):
            number = known.pop((padded(destination.address), destination.port), None)
            if number is None:
                number = self._records.begin_destination(service.key, planned.index, destination, route)
                planned.added.append((number, destination, route))
            else:
                planned.kept.append((number, destination, route))
            picks.append((number, destination.weight))
        planned.removed = list(known.values())
        self._plan_run(planned, old, picks)
        self._has_ipv6 |= model.IPV6 in (service.key.family, *(one.family for one in destinations))
        self._planned.append(planned)

    def _plan_run(self, planned: _Planned, old: runs.Run | None, picks: list[tuple[int, int]]) -> None:
        scheduler = runs.SCHEDULERS[planned.service.scheduler]
        if old is None or scheduler != old.scheduler:
            if old is not None:
                planned.binding = self._maps.service(planned.index).binding + 1 & 0xFFFFFFFF
            planned.run = runs.begin(scheduler, picks, planned.binding)
        elif picks != old.picks:
            planned.run = runs.change(old, picks)
        if planned.run is not None:
            planned.start = self._scheduling.place(planned.index, planned.run)
            runs.write(self._maps.pool(), planned.start, planned.run)

    def _endpoint(self, number: int) -> tuple[bytes, int]:
        record = self._maps.destination(number)
        return bytes(record.address), swap_port(record.port)

    def keep(self, key: model.ServiceKey, index: int) -> None:
        """Note a service that is in both tables and the same."""
        self._kept.append((packed_key(key), index))

    def switch(self, old_keys: list[bytes]) -> None:
        """Let packets see the new table from one instant to the next; nothing of this can fail.

        ``old_keys`` are those of all services of the old one, which packets find no more then.
        """
        settings = self._maps.settings
        limit = self._maps.limits.services
        if self._has_ipv6:
            loopback.enable(settings, loopback.FORWARDING_IPV6)
        entries = list(self._kept)
        changed = [planned for planned in self._planned if not planned.is_new]
        for planned in self._planned:
            record = self._maps.service(planned.index)
            if not planned.is_new:
                record = self._maps.next_service(planned.index)
                ctypes.pointer(record)[0] = self._maps.service(planned.index)
            record.run = planned.start or record.run
            if planned.binding:
                record.binding = planned.binding
            describe_service(record, planned.service)
            for number, destination, route in planned.added:
                describe(self._maps.destination(number), destination, route)
                hand_down(record, self._maps.destination(number))
            # Too many for a moment, if the old table has them, too: look-ups ask in vain.
            for name, does in zip(SPECIAL, special(record), strict=True):
                setattr(settings, name, getattr(settings, name) + does)
            place = planned.index if planned.is_new else limit + planned.index
            entries.append((packed_key(planned.service.key), place))
        index = self._maps.descriptor("service_index")
        old_names = [self._maps.index_key(key) for key in old_keys]
        names = [self._maps.index_key(key, in_other_table=True) for key, _ in entries]
        bpf.update_many(index, names, [_INDEX.pack(place) for _, place in entries])
        settings.table ^= abi.OTHER_TABLE
        # What packets see is the new table, but for those that are under way in the old one.
        bpf.wait_for_programs()
        # The rest makes it look like any other.
        for planned in changed:
            for number, destination, route in planned.kept:
                describe(self._maps.destination(number), destination, route)
                hand_down(self._maps.next_service(planned.index), self._maps.destination(number))
            old = self._maps.service(planned.index).run
            take_over(self._maps, planned.index)
            self._scheduling.look_again(planned.index)
            if planned.start:
                self._places.free_run(old)
        bpf.update_many(
            index,
            [self._maps.index_key(packed_key(planned.service.key)) for planned in changed],
            [_INDEX.pack(planned.index) for planned in changed],
        )
        bpf.delete_many(index, old_names)
        # Some may have the second records in hand, which the next replacement writes anew.
        bpf.wait_for_programs()

    def clear_up(self) -> None:
        """Take real servers out of use that left services which are in both tables."""
        for planned in self._planned:
            for number in planned.removed:
                self._places.discard(number)


def take_over(maps: Maps, index: int) -> None:
    """Let a service's first record say what its second one does."""
    record, following = maps.service(index), maps.next_service(index)
    for name in ("run", "persistence", "netmask", "binding", "idle_timeout", "flags"):
        setattr(record, name, getattr(following, name))
