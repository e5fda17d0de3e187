# SPDX-License-Identifier: GPL-2.0-only
"""The eBPF data plane's table: model values in, records in pinned maps out, and back.

`EbpfDatapath` implements the `Datapath` interface.  Whoever writes holds the
table's lock (`xlvs.datapath.open_datapath` sees to that); packets are not
held up.  A change is made of stores in such an order that packets, and a
process that dies in between, leave a valid table behind: records first, then
the run, then the run's number, which makes all of it visible at once.
"""

from __future__ import annotations

import ctypes
from struct import Struct

from xlvs import errors, model
from xlvs.datapath import runs
from xlvs.datapath.connections import connection_rows
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
    special,
)
from xlvs.datapath.maps import Maps
from xlvs.datapath.places import Places
from xlvs.datapath.reading import Reader
from xlvs.datapath.records import (
    offset_of,
    packed_key,
    padded,
    seconds_to_ticks,
    ticks_to_seconds,
)
from xlvs.datapath.rows import NOTHING
from xlvs.datapath.scheduling import NO_RECORD, Scheduling
from xlvs.kernel import abi, bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xlvs.datapath.rows import ConnectionRow, ServiceRow, Table
    from xlvs.kernel import rtnetlink

COMPATIBLE_VERSION = (1, 2, 1)
"""The IPVS version whose behaviour this data plane has."""
COMPATIBLE_SIZE = 4096
"""What `-L` prints as the table's size: the kernel's default, for the scripts
that compare; `xlvs status` tells the true one."""

_INDEX = Struct("=I")
_DESTINATION_BYTES = ctypes.sizeof(abi.Destination)


def _described(destination: model.Destination) -> tuple[object, ...]:
    """What an operator says of a real server, as the fields of a row that say it."""
    tunnel = (destination.tunnel or model.Tunnel()) if destination.method == model.TUNNEL else None
    return (
        destination.address, destination.port, destination.method, destination.weight,
        destination.upper_threshold, destination.lower_threshold, tunnel,
    )  # fmt: skip


class EbpfDatapath:
    """The table of this network namespace, as the packet path sees it."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._forget_places()
        self._in_change = False
        self._senders_changed = False
        # What a change has found out already; nobody else changes services meanwhile.
        self._indices: dict[bytes, int] | None = None
        self._all_known = False
        self._routes: dict[bytes, rtnetlink.Route] | None = None

    def _forget_places(self) -> None:
        """Go by what the maps say again: places that were taken and not used are free."""
        self._places = Places(self._maps)
        self._scheduling = Scheduling(self._maps, self._places)
        self._records = Records(self._maps, self._places)
        self._reader = Reader(self._maps, self._scheduling)

    # --- reading -----------------------------------------------------------

    def version(self) -> tuple[int, int, int]:
        """See `Datapath.version`."""
        return COMPATIBLE_VERSION

    def size(self) -> int:
        """See `Datapath.size`."""
        return COMPATIBLE_SIZE

    def services(self) -> list[model.ServiceEntry]:
        """See `Datapath.services`."""
        return self._reader.services()

    def table(self, counted: str = NOTHING) -> list[ServiceRow]:
        """See `Datapath.table`."""
        return self._reader.table(counted)

    def service(self, key: model.ServiceKey) -> model.ServiceEntry:
        """See `Datapath.service`."""
        return self._reader.entry(self._find(key))

    def row(self, key: model.ServiceKey) -> ServiceRow:
        """See `Datapath.row`."""
        return self._reader.row(self._find(key))

    def connections(self) -> Iterator[model.Connection]:
        """See `Datapath.connections`."""
        for rows in self.connection_rows():
            for (
                protocol, client, client_port, virtual, virtual_port, destination, port, state, left,
                fwmark, data,
            ) in rows:  # fmt: skip
                yield model.Connection(
                    model.IPV4 if len(client) == 4 else model.IPV6, protocol, client, client_port,
                    virtual, virtual_port, destination, port, state, left, model.SIP if data else "", data,
                    fwmark,
                )  # fmt: skip

    def connection_rows(self) -> Iterator[list[ConnectionRow]]:
        """See `Datapath.connection_rows`."""
        return connection_rows(self._maps)

    def totals(self) -> model.Totals:
        """See `Datapath.totals`."""
        by_cpu = [model.Stats(*row) for row in self._maps.traffic_of_cpus(
            "service", self._maps.settings.services_top
        )]  # fmt: skip
        base = self._maps.settings.total_base
        stats = model.added(model.Stats, by_cpu)
        for name in model.Stats.__slots__:
            setattr(stats, name, getattr(stats, name) - getattr(base, name))
        rates = model.added(model.Rates, [entry.rates for entry in self.services()])
        return model.Totals(stats, tuple(by_cpu), rates)

    def timeouts(self) -> model.Timeouts:
        """See `Datapath.timeouts`."""
        ticks = self._maps.settings.timeout
        return model.Timeouts(
            ticks_to_seconds(ticks[model.TCP_STATES.index("ESTABLISHED")]),
            ticks_to_seconds(ticks[model.TCP_STATES.index("FIN_WAIT")]),
            ticks_to_seconds(ticks[abi.TIMEOUT_UDP]),
        )

    def _find(self, key: model.ServiceKey) -> int:
        packed = packed_key(key)
        if self._indices is not None and packed in self._indices:
            return self._indices[packed]
        if self._all_known:
            raise errors.NoSuchService("no such virtual service")
        name = self._maps.index_key(packed)
        found = bpf.lookup(self._maps.descriptor("service_index"), name, _INDEX.size)
        if found is None:
            raise errors.NoSuchService("no such virtual service")
        index: int = _INDEX.unpack(found)[0]
        if self._indices is not None:
            self._indices[packed] = index
        return index

    def _route_to(self, address: bytes) -> rtnetlink.Route:
        """The kernel's route to an address, asked for once in a change."""
        from xlvs.kernel import rtnetlink  # listings do without it, and start sooner

        if self._routes is None:
            return rtnetlink.route_to(address)
        if address not in self._routes:
            self._routes[address] = rtnetlink.route_to(address)
        return self._routes[address]

    def _routes_to(self, addresses: set[bytes]) -> dict[bytes, rtnetlink.Route]:
        """The kernel's routes to many addresses, and maybe to others, each asked for once in a change."""
        from xlvs.kernel import rtnetlink

        routes = {} if self._routes is None else self._routes
        routes.update(rtnetlink.routes_to([one for one in addresses if one not in routes]))
        return routes

    def _is_local(self, key: model.ServiceKey) -> bool:
        """Whether a service's address is one of the director's."""
        from xlvs.kernel.rtnetlink import LOCAL_ROUTE

        return not key.fwmark and self._route_to(key.address).kind == LOCAL_ROUTE

    # --- changing ----------------------------------------------------------

    def begin_change(self) -> None:
        """Note that a change begins; first mend what a command that died left half done."""
        if self._maps.settings.changing:
            self._repair()
        self._maps.settings.changing = 1
        self._scheduling.may_wait = self._in_change = True
        self._indices, self._routes, self._all_known = {}, {}, False

    def end_change(self) -> None:
        """Note that the table is whole again."""
        self._scheduling.finish()
        self._scheduling.may_wait = self._in_change = False
        self._indices = self._routes = None
        if self._senders_changed:
            self._write_senders()
        self._all_known = False
        self._maps.settings.changing = 0

    def _repair(self) -> None:
        """Drop services that packets cannot find, and real servers that no service has.

        A weight that was noted and not yet scheduled is taken back.
        """
        settings = self._maps.settings
        self._finish_table()
        kept: set[int] = set()
        for index, flags in enumerate(self._maps.flags("services", abi.Service, settings.services_top)):
            if not flags:
                continue
            record = self._maps.service(index)
            name = self._maps.index_key(bytes(record.key))
            found = bpf.lookup(self._maps.descriptor("service_index"), name, _INDEX.size)
            if found is not None and _INDEX.unpack(found)[0] == index and record.run:
                for destination, weight in self._scheduling.run(index).picks:
                    self._maps.destination(destination).weight = weight
                    kept.add(destination)
                self._scheduling.look_again(index)
            else:
                record.run = 0
                record.flags = 0
        for index, flags in enumerate(
            self._maps.flags("destinations", abi.Destination, settings.destinations_top)
        ):
            if flags & abi.DESTINATION_AVAILABLE and index not in kept:
                self._places.discard(index)
        self._count_all()
        self._senders_changed = True

    def _finish_table(self) -> None:
        """Leave the table that packets see alone in the index, and its services with one record each."""
        from xlvs.datapath.replacing import take_over

        names = self._maps.descriptor("service_index")
        limit = self._maps.limits.services
        for name in bpf.keys(names, ctypes.sizeof(abi.ServiceKey)):
            if name[-1] & abi.OTHER_TABLE != self._maps.settings.table:
                bpf.delete(names, name)
                continue
            found = bpf.lookup(names, name, _INDEX.size)
            index = _INDEX.unpack(found)[0] if found else 0
            if index >= limit:
                take_over(self._maps, index - limit)
                bpf.update(names, name, _INDEX.pack(index - limit))

    def _count_all(self) -> None:
        """Tell the packet path for what of `SPECIAL` there are services."""
        settings = self._maps.settings
        flags = self._maps.flags("services", abi.Service, settings.services_top)
        kinds = [special(self._maps.service(index)) for index, used in enumerate(flags) if used]
        for place, name in enumerate(SPECIAL):
            setattr(settings, name, sum(kind[place] for kind in kinds))

    # --- services ----------------------------------------------------------

    def add_service(self, service: model.Service) -> None:
        """See `Datapath.add_service`."""
        try:
            self._find(service.key)
        except errors.NoSuchService:
            pass
        else:
            raise errors.ServiceExists("the virtual service is there already")
        check_service(service)
        index = self._places.service()
        run = runs.begin(runs.SCHEDULERS[service.scheduler], [])
        start = self._places.run(runs.size(run))
        if service.key.family == model.IPV6:
            self._enable_ipv6()
        run.binding = self._records.begin_service(index, service, self._is_local(service.key))
        runs.write(self._maps.pool(), start, run)
        record = self._maps.service(index)
        record.run = start
        describe_service(record, service)
        self._note_senders(record.flags)
        packed = packed_key(service.key)
        name = self._maps.index_key(packed)
        bpf.update(self._maps.descriptor("service_index"), name, _INDEX.pack(index))
        if self._indices is not None:
            self._indices[packed] = index
        self._count(NOTHING_SPECIAL, record)

    def add_services(self, table: Table) -> None:
        """See `Datapath.add_services`."""
        from xlvs.datapath.adding import Addition  # most do without it

        if not table:
            return
        self._scheduling.finish()
        addition = Addition(self._maps, self._places, self._scheduling, self._records, self._routes_to)
        try:
            addition.plan(table, self._known_services())
        except errors.TableError:
            self._forget_places()
            raise
        if addition.has_ipv6:
            self._enable_ipv6()
        addition.write()
        if self._indices is not None:
            self._indices.update(addition.indices)
        self._note_senders(addition.flags)

    def _known_services(self) -> dict[bytes, int]:
        """The records of all services by packed key."""
        if self._indices is not None and self._all_known:
            return self._indices
        top = self._maps.settings.services_top
        indices = {
            bytes(self._maps.service(index).key): index
            for index, used in enumerate(self._maps.flags("services", abi.Service, top))
            if used
        }
        if self._indices is not None:
            self._indices, self._all_known = indices, True
        return indices

    def edit_service(self, service: model.Service) -> None:
        """See `Datapath.edit_service`."""
        self._scheduling.finish()
        index = self._find(service.key)
        check_service(service)
        old = self._scheduling.run(index)
        scheduler = runs.SCHEDULERS[service.scheduler]
        record = self._maps.service(index)
        # The same scheduler goes on, whatever its flags are now (kernel: ip_vs_edit_service).
        if scheduler != old.scheduler:
            run = runs.begin(scheduler, old.picks, record.binding + 1 & 0xFFFFFFFF)
            self._scheduling.switch(index, run, self._scheduling.place(index, run))
            record.binding = run.binding
        before, old_flags = special(record), record.flags
        describe_service(record, service)
        for destination, _ in old.picks:
            hand_down(record, self._maps.destination(destination))
        self._count(before, record)
        self._note_senders(old_flags | record.flags)

    def delete_service(self, key: model.ServiceKey) -> None:
        """See `Datapath.delete_service`."""
        self._scheduling.finish()
        index = self._find(key)
        packed = packed_key(key)
        bpf.delete(self._maps.descriptor("service_index"), self._maps.index_key(packed))
        if self._indices is not None:
            del self._indices[packed]
        self._free_service(index)

    def _free_service(self, index: int) -> None:
        """Take a service's records out of use, when packets find it no more."""
        record = self._maps.service(index)
        before = special(record)
        start, run = record.run, self._scheduling.run(index)
        record.run = 0
        for destination, _ in run.picks:
            self._places.discard(destination)
        old_flags, record.flags = record.flags, 0
        self._note_senders(old_flags)
        self._places.free_service(index)
        self._places.free_run(start)
        self._count(before, record)

    def _enable_ipv6(self) -> None:
        from xlvs.datapath import loopback  # listings do without it

        loopback.enable(self._maps.settings, loopback.FORWARDING_IPV6)

    def _count(self, before: tuple[bool, ...], record: abi.Service) -> None:
        """Tell the packet path of a service that is of other kinds in `SPECIAL` than before."""
        settings = self._maps.settings
        for name, was, does in zip(SPECIAL, before, special(record), strict=True):
            if was != does:
                setattr(settings, name, getattr(settings, name) + does - was)

    def _note_senders(self, flags: int) -> None:
        """Note a change of a service with those flags, or of its real servers.

        The packet path may have to know them by what they send from.
        """
        if flags & abi.SERVICE_SIP or self._maps.settings.sysctl[abi.SYSCTL_NAT_ICMP_SEND]:
            self._senders_changed = True
            if not self._in_change:
                self._write_senders()

    def _write_senders(self) -> None:
        from xlvs.datapath import senders  # most do without it

        senders.write(self._maps, self._scheduling)
        self._senders_changed = False

    def flush(self) -> None:
        """See `Datapath.flush`."""
        self._scheduling.finish()
        known = self._known_services()
        names = [self._maps.index_key(key) for key in known]
        bpf.delete_many(self._maps.descriptor("service_index"), names)
        if self._indices is not None:
            self._indices = {}
        for index in known.values():
            self._free_service(index)

    def replace(self, table: Table) -> None:
        """See `Datapath.replace`."""
        from xlvs.datapath.replacing import Replacement

        self._scheduling.finish()
        before = {
            service.key: (service, [row[:4] + row[7:10] for row in rows])
            for service, _, rows in self.table()
        }
        known = self._known_services()
        replacement = Replacement(
            self._maps, self._places, self._scheduling, self._records, self._route_to, self._is_local
        )
        try:
            for service, destinations in table:
                index = known.get(packed_key(service.key))
                rows = [_described(one) for one in destinations]
                if index is not None and before.get(service.key) == (service, rows):
                    replacement.keep(service.key, index)
                else:
                    replacement.plan(service, destinations, index)
        except errors.TableError:
            self._forget_places()
            raise
        wanted = {packed_key(service.key) for service, _ in table}
        gone = [index for key, index in known.items() if key not in wanted]
        replacement.switch(list(known))
        for index in gone:
            self._free_service(index)
        replacement.clear_up()
        if self._indices is not None:
            self._indices, self._all_known = {}, False
        self._count_all()
        self._note_senders(abi.SERVICE_SIP)

    def zero(self, key: model.ServiceKey | None = None) -> None:
        """See `Datapath.zero`."""
        flags = self._maps.flags("services", abi.Service, self._maps.settings.services_top)
        used = [index for index, value in enumerate(flags) if value]
        for index in used if key is None else [self._find(key)]:
            self._records.reset_base("service", index)
            for destination, _ in self._scheduling.run(index).picks:
                self._records.reset_base("destination", destination)
        if key is None:
            self._reset_total_base()

    def _reset_total_base(self) -> None:
        """Let the counters of all services together begin at 0 from here."""
        settings = self._maps.settings
        rows = self._maps.traffic_of_cpus("service", settings.services_top)
        total = model.added(model.Stats, [model.Stats(*row) for row in rows])
        for name in model.Stats.__slots__:
            setattr(settings.total_base, name, getattr(total, name))

    def set_timeouts(self, timeouts: model.Timeouts) -> None:
        """See `Datapath.set_timeouts`."""
        ticks = self._maps.settings.timeout
        for place, seconds in (
            (model.TCP_STATES.index("ESTABLISHED"), timeouts.tcp),
            (model.TCP_STATES.index("FIN_WAIT"), timeouts.tcp_fin),
            (abi.TIMEOUT_UDP, timeouts.udp),
        ):
            if seconds:
                ticks[place] = seconds_to_ticks(seconds)

    # --- rules that mark packets -------------------------------------------

    def mark_rules(self) -> list[model.MarkRule]:
        """See `Datapath.mark_rules`."""
        from xlvs.datapath import marks  # whoever works on services does without it

        return marks.read(self._maps)

    def set_mark_rules(self, rules: list[model.MarkRule]) -> None:
        """See `Datapath.set_mark_rules`."""
        from xlvs.datapath import marks

        marks.replace(self._maps, rules)

    # --- the kernel's settings ---------------------------------------------

    def sysctls(self) -> dict[str, str]:
        """See `Datapath.sysctls`."""
        from xlvs.datapath import sysctls

        return sysctls.read(self._maps.settings, self._maps.limits.buckets * abi.SLOTS_PER_BUCKET // 2)

    def set_sysctls(self, values: dict[str, str]) -> None:
        """See `Datapath.set_sysctls`."""
        from xlvs.datapath import sysctls

        sysctls.store(self._maps.settings, values)
        if "nat_icmp_send" in values:
            self._senders_changed = True
            if not self._in_change:
                self._write_senders()

    # --- destinations ------------------------------------------------------

    def add_destination(self, key: model.ServiceKey, destination: model.Destination) -> None:
        """See `Datapath.add_destination`."""
        service = self._find(key)
        check_destination(key, destination)
        old = self._scheduling.run(service)
        if self._place_in_run(old, destination.address, destination.port) is not None:
            raise errors.DestinationExists("the virtual service has that real server already")
        route = self._route_to(destination.address)
        check_route(destination, route)
        run = runs.change(old, [(NO_RECORD, destination.weight), *old.picks])
        start = self._scheduling.place_added(service, run, destination)
        if destination.family == model.IPV6:  # a tunnel's, maybe of an IPv4 service
            self._enable_ipv6()
        index = self._records.begin_destination(key, service, destination, route)
        run.picks[0] = (index, destination.weight)
        record = self._maps.destination(index)
        describe(record, destination, route)
        hand_down(self._maps.service(service), record)
        self._scheduling.switch_added(service, run, start)
        self._note_senders(self._maps.service(service).flags)

    def edit_destination(self, key: model.ServiceKey, destination: model.Destination) -> None:
        """See `Datapath.edit_destination`."""
        self._scheduling.finish()
        service = self._find(key)
        check_destination(key, destination)
        old = self._scheduling.run(service)
        place = self._place_in_run(old, destination.address, destination.port)
        if place is None:
            raise errors.NoSuchDestination("the virtual service has no such real server")
        route = self._route_to(destination.address)
        check_route(destination, route)
        index = old.picks[place][0]
        picks = [*old.picks[:place], (index, destination.weight), *old.picks[place + 1 :]]
        run = runs.change(old, picks)
        start = self._scheduling.place(service, run)
        record = self._maps.destination(index)
        describe(record, destination, route)
        hand_down(self._maps.service(service), record)
        self._scheduling.switch(service, run, start)
        self._note_senders(self._maps.service(service).flags)

    def delete_destination(self, key: model.ServiceKey, address: bytes, port: int) -> None:
        """See `Datapath.delete_destination`."""
        self._scheduling.finish()
        service = self._find(key)
        old = self._scheduling.run(service)
        place = self._place_in_run(old, address, port)
        if place is None:
            raise errors.NoSuchDestination("the virtual service has no such real server")
        run = runs.change(old, [*old.picks[:place], *old.picks[place + 1 :]])
        self._scheduling.switch(service, run, self._scheduling.place(service, run))
        self._places.discard(old.picks[place][0])
        self._note_senders(self._maps.service(service).flags)

    def _place_in_run(self, run: runs.Run, address: bytes, port: int) -> int | None:
        sought = padded(address) + port.to_bytes(2, "big")  # as they stand in the record, side by side
        memory = self._maps.memory("destinations", self._maps.limits.destinations * _DESTINATION_BYTES)
        first = offset_of(abi.Destination, "address")
        for place, (index, _) in enumerate(run.picks):
            start = first + index * _DESTINATION_BYTES
            if memory[start : start + len(sought)] == sought:
                return place
        return None
