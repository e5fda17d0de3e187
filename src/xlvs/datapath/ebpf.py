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
from collections.abc import Iterator
from struct import Struct

from xlvs import errors, model
from xlvs.datapath import loopback, runs
from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.datapath.places import Places
from xlvs.datapath.records import (
    CHECKSUM_NAMES,
    CHECKSUMS,
    METHOD_NAMES,
    METHODS,
    STRONGEST_CHECKSUM,
    TUNNEL_NAMES,
    TUNNELS,
    Slot,
    address,
    model_key,
    packed_key,
    padded,
    record_flags,
    scheduler_flags,
    seconds_to_ticks,
    store_address,
    swap_port,
    ticks_now,
    ticks_to_seconds,
)
from xlvs.datapath.scheduling import NO_RECORD, Scheduling
from xlvs.kernel import abi, bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.kernel import rtnetlink

COMPATIBLE_VERSION = (1, 2, 1)
"""The IPVS version whose behaviour this data plane has."""
COMPATIBLE_SIZE = 4096
"""What `-L` prints as the table's size: the kernel's default, for the scripts
that compare; `xlvs status` tells the true one."""

_INDEX = Struct("=I")
_FTP = swap_port(21)


def _check_route(destination: model.Destination, route: rtnetlink.Route) -> None:
    """Refuse a real server that cannot be one; the packet path copes with no route at all."""
    from xlvs.kernel.rtnetlink import LOCAL_ROUTE, NO_ROUTE, UNICAST_ROUTE

    if route.kind not in (UNICAST_ROUTE, LOCAL_ROUTE, NO_ROUTE) or not model.is_unicast(destination.address):
        raise errors.InvalidOperation("the real server's address is not a unicast address")


def _describe(record: abi.Destination, destination: model.Destination, route: rtnetlink.Route) -> None:
    """Write what an operator says of a real server into its record, which is in service then."""
    from xlvs.kernel.rtnetlink import LOCAL_ROUTE

    record.method = METHODS[destination.method]
    record.weight = destination.weight
    _set_thresholds(record, destination)
    record.last_weight = destination.weight or record.last_weight
    if destination.method == model.TUNNEL:
        tunnel = destination.tunnel or model.Tunnel()
        record.tunnel_kind = TUNNELS[tunnel.kind]
        record.tunnel_checksum = CHECKSUMS[tunnel.checksum]
        record.tunnel_port = swap_port(tunnel.port)
        store_address(record.tunnel_source, route.source)
    local = abi.DESTINATION_LOCAL if route.kind == LOCAL_ROUTE else 0
    record.flags = abi.DESTINATION_USED | abi.DESTINATION_AVAILABLE | local


def _set_thresholds(record: abi.Destination, destination: model.Destination) -> None:
    """Bound a real server's connections; new bounds count at once (kernel: ``__ip_vs_update_dest``)."""
    upper, lower = destination.upper_threshold, destination.lower_threshold
    if (record.upper_threshold, record.lower_threshold) == (upper, lower):
        return
    record.upper_threshold, record.lower_threshold = upper, lower
    connections = record.active + record.inactive
    enough = lower or upper * 3 // 4
    if upper and connections >= upper:
        record.overload = abi.OVERLOADED
    elif not upper or not enough or connections < enough:
        record.overload = 0


def _tunnel(record: abi.Destination) -> model.Tunnel | None:
    if record.method != abi.METHOD_TUNNEL:
        return None
    return model.Tunnel(
        TUNNEL_NAMES[record.tunnel_kind],
        swap_port(record.tunnel_port),
        CHECKSUM_NAMES[record.tunnel_checksum],
    )


def _takes_many_ports(key: model.ServiceKey) -> bool:
    """Whether a service takes more than its own port: FTP, for its data, and one without a port."""
    return not key.fwmark and key.port in (0, 21)


def _describe_service(record: abi.Service, service: model.Service) -> None:
    """Write what an operator may change of a service into its record, which is in use then."""
    record.persistence = service.persistence
    record.netmask = service.netmask
    flags = abi.SERVICE_USED | record_flags(service.scheduler_flags)
    if service.persistence:
        flags |= abi.SERVICE_PERSISTENT
    if service.one_packet:
        flags |= abi.SERVICE_ONE_PACKET
    record.flags = flags


class EbpfDatapath:
    """The table of this network namespace, as the packet path sees it."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._places = Places(maps)
        self._scheduling = Scheduling(maps, self._places)

    # --- reading -----------------------------------------------------------

    def version(self) -> tuple[int, int, int]:
        """See `Datapath.version`."""
        return COMPATIBLE_VERSION

    def size(self) -> int:
        """See `Datapath.size`."""
        return COMPATIBLE_SIZE

    def services(self) -> list[model.ServiceEntry]:
        """See `Datapath.services`."""
        flags = self._maps.flags("services", abi.Service, self._maps.settings.services_top)
        # One without a run was being deleted by a command that died.
        return [
            self._entry(index)
            for index, value in enumerate(flags)
            if value and self._maps.service(index).run
        ]

    def service(self, key: model.ServiceKey) -> model.ServiceEntry:
        """See `Datapath.service`."""
        return self._entry(self._find(key))

    def connections(self) -> Iterator[model.Connection]:
        """See `Datapath.connections`."""
        table = self._maps.connection_slots()
        phases = memoryview(table)[::SLOT_BYTES].tobytes()
        now = ticks_now()
        place = phases.find(abi.PHASE_LIVE)
        while place >= 0:
            connection = self._connection(table[place * SLOT_BYTES : (place + 1) * SLOT_BYTES], now)
            if connection is not None:
                yield connection
            place = phases.find(abi.PHASE_LIVE, place + 1)

    def totals(self) -> model.Totals:
        """See `Datapath.totals`."""
        by_cpu = [model.Stats(*row) for row in self._maps.traffic_of_cpus(
            "service_traffic", self._maps.settings.services_top, self._maps.limits.services
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
        found = bpf.lookup(self._maps.descriptor("service_index"), packed_key(key), _INDEX.size)
        if found is None:
            raise errors.NoSuchService("no such virtual service")
        return int(_INDEX.unpack(found)[0])

    def _entry(self, index: int) -> model.ServiceEntry:
        record = self._maps.service(index)
        run = self._scheduling.run(index)
        service = model.Service(
            model_key(record.key),
            runs.SCHEDULER_NAMES[run.scheduler],
            scheduler_flags(record.flags),
            persistence=record.persistence,
            netmask=record.netmask,
            one_packet=bool(record.flags & abi.SERVICE_ONE_PACKET),
        )
        destinations = tuple(self._destination_entry(number) for number, _ in run.picks)
        return model.ServiceEntry(service, destinations, self._stats("service", index))

    def _destination_entry(self, index: int) -> model.DestinationEntry:
        record = self._maps.destination(index)
        destination = model.Destination(
            address(record.address, record.family), swap_port(record.port),
            METHOD_NAMES[record.method], record.weight, record.upper_threshold,
            record.lower_threshold, _tunnel(record),
        )  # fmt: skip
        return model.DestinationEntry(
            destination,
            max(record.active, 0),
            max(record.inactive, 0),
            max(record.persistent, 0),
            self._stats("destination", index),
        )

    def _stats(self, kind: str, index: int) -> model.Stats:
        now, base = self._counted(kind, index), self._base(kind, index)
        return model.Stats(
            now[0] - base.connections,
            now[1] - base.in_packets,
            now[2] - base.out_packets,
            now[3] - base.in_bytes,
            now[4] - base.out_bytes,
        )

    def _counted(self, kind: str, index: int) -> tuple[int, int, int, int, int]:
        limits = self._maps.limits
        per_row = limits.services if kind == "service" else limits.destinations
        return self._maps.traffic(f"{kind}_traffic", index, per_row)

    def _base(self, kind: str, index: int) -> abi.Traffic:
        limits = self._maps.limits
        count = limits.services if kind == "service" else limits.destinations
        return self._maps.record(f"{kind}_base", abi.Traffic, index, count)

    def _connection(self, raw: bytes, now: int) -> model.Connection | None:
        slot = Slot(raw)
        left = slot.seconds_left(now)
        if left is None:
            return None
        destination = self._maps.destination(slot.destination)
        return model.Connection(
            slot.family, slot.protocol, slot.client, slot.client_port, slot.virtual,
            slot.virtual_port, address(destination.address, destination.family),
            slot.destination_port, slot.state(), left, destination.owner.fwmark,
        )  # fmt: skip

    # --- changing ----------------------------------------------------------

    def begin_change(self) -> None:
        """Note that a change begins; first mend what a command that died left half done."""
        if self._maps.settings.changing:
            self._repair()
        self._maps.settings.changing = 1
        self._scheduling.may_wait = True

    def end_change(self) -> None:
        """Note that the table is whole again."""
        self._scheduling.finish()
        self._scheduling.may_wait = False
        self._maps.settings.changing = 0

    def _repair(self) -> None:
        """Drop services that packets cannot find, and real servers that no service has.

        A weight that was noted and not yet scheduled is taken back.
        """
        settings = self._maps.settings
        kept: set[int] = set()
        for index, flags in enumerate(self._maps.flags("services", abi.Service, settings.services_top)):
            if not flags:
                continue
            record = self._maps.service(index)
            found = bpf.lookup(self._maps.descriptor("service_index"), bytes(record.key), _INDEX.size)
            if found is not None and _INDEX.unpack(found)[0] == index and record.run:
                for destination, weight in self._scheduling.run(index).picks:
                    self._maps.destination(destination).weight = weight
                    kept.add(destination)
            else:
                record.run = 0
                record.flags = 0
        for index, flags in enumerate(
            self._maps.flags("destinations", abi.Destination, settings.destinations_top)
        ):
            if flags & abi.DESTINATION_AVAILABLE and index not in kept:
                self._places.discard(index)
        self._count_services_of_many_ports()

    # --- services ----------------------------------------------------------

    def add_service(self, service: model.Service) -> None:
        """See `Datapath.add_service`."""
        from xlvs.kernel import rtnetlink  # listings do without it, and start sooner

        try:
            self._find(service.key)
        except errors.NoSuchService:
            pass
        else:
            raise errors.ServiceExists("the virtual service is there already")
        self._check_service(service)
        index = self._places.service()
        run = runs.begin(runs.SCHEDULERS[service.scheduler], [])
        start = self._places.run(runs.size(run))
        if service.key.family == model.IPV6:
            loopback.enable(self._maps.settings, loopback.FORWARDING_IPV6)
        record = self._maps.service(index)
        binding = record.binding
        ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
        record.binding = run.binding = binding + 1 & 0xFFFFFFFF
        if not service.key.fwmark:
            route = rtnetlink.route_to(service.key.address)
            record.virtual_local = route.kind == rtnetlink.LOCAL_ROUTE
        store_address(record.key.address, service.key.address)
        record.key.fwmark = service.key.fwmark
        record.key.port = swap_port(service.key.port)
        record.key.protocol = service.key.protocol
        record.key.family = service.key.family
        self._reset_base("service", index)
        runs.write(self._maps.pool(), start, run)
        record.run = start
        _describe_service(record, service)
        settings = self._maps.settings
        settings.services_top = max(settings.services_top, index + 1)
        bpf.update(self._maps.descriptor("service_index"), packed_key(service.key), _INDEX.pack(index))
        if _takes_many_ports(service.key):
            self._count_services_of_many_ports()

    def edit_service(self, service: model.Service) -> None:
        """See `Datapath.edit_service`."""
        self._scheduling.finish()
        index = self._find(service.key)
        self._check_service(service)
        old = self._scheduling.run(index)
        scheduler = runs.SCHEDULERS[service.scheduler]
        record = self._maps.service(index)
        # The same scheduler goes on, whatever its flags are now (kernel: ip_vs_edit_service).
        if scheduler != old.scheduler:
            run = runs.begin(scheduler, old.picks, record.binding + 1 & 0xFFFFFFFF)
            self._scheduling.switch(index, run, self._scheduling.place(index, run))
            record.binding = run.binding
        _describe_service(record, service)

    def delete_service(self, key: model.ServiceKey) -> None:
        """See `Datapath.delete_service`."""
        self._scheduling.finish()
        index = self._find(key)
        bpf.delete(self._maps.descriptor("service_index"), packed_key(key))
        record = self._maps.service(index)
        start, run = record.run, self._scheduling.run(index)
        record.run = 0
        for destination, _ in run.picks:
            self._places.discard(destination)
            # If it comes back, then to another service, whose counts begin at 0
            # (kernel: __ip_vs_update_dest).
            self._reset_base("destination", destination)
        record.flags = 0
        self._places.free_run(start)
        if _takes_many_ports(key):
            self._count_services_of_many_ports()

    def _count_services_of_many_ports(self) -> None:
        """Tell the packet path whether there are such services."""
        settings = self._maps.settings
        flags = self._maps.flags("services", abi.Service, settings.services_top)
        keys = [self._maps.service(index).key for index, value in enumerate(flags) if value]
        settings.ftp_services = sum(key.port == _FTP and key.protocol == model.TCP for key in keys)
        settings.any_port_services = sum(key.port == 0 and key.fwmark == 0 for key in keys)

    def flush(self) -> None:
        """See `Datapath.flush`."""
        for entry in self.services():
            self.delete_service(entry.service.key)

    def zero(self, key: model.ServiceKey | None = None) -> None:
        """See `Datapath.zero`."""
        flags = self._maps.flags("services", abi.Service, self._maps.settings.services_top)
        used = [index for index, value in enumerate(flags) if value]
        for index in used if key is None else [self._find(key)]:
            self._reset_base("service", index)
            for destination, _ in self._scheduling.run(index).picks:
                self._reset_base("destination", destination)
        if key is None:
            self._reset_total_base()

    def _reset_total_base(self) -> None:
        """Let the counters of all services together begin at 0 from here."""
        settings = self._maps.settings
        rows = self._maps.traffic_of_cpus(
            "service_traffic", settings.services_top, self._maps.limits.services
        )
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

    def _check_service(self, service: model.Service) -> None:
        key = service.key
        if service.scheduler not in model.SCHEDULERS:
            raise errors.SchedulerNotFound(f"no scheduler is called {service.scheduler!r}")
        if service.engine:
            raise errors.NotSupported("xlvs does not have persistence engines yet")
        if not key.fwmark and key.protocol not in model.PROTOCOL_NAMES:
            raise errors.InvalidOperation("a virtual service needs a protocol")
        if not key.fwmark and key.port == 0 and not service.persistence:
            raise errors.InvalidOperation("a virtual service of all ports has to be persistent")

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

    # --- destinations ------------------------------------------------------

    def add_destination(self, key: model.ServiceKey, destination: model.Destination) -> None:
        """See `Datapath.add_destination`."""
        from xlvs.kernel import rtnetlink

        service = self._find(key)
        self._check_destination(key, destination)
        old = self._scheduling.run(service)
        if self._place_in_run(old, destination.address, destination.port) is not None:
            raise errors.DestinationExists("the virtual service has that real server already")
        route = rtnetlink.route_to(destination.address)
        _check_route(destination, route)
        run = runs.change(old, [(NO_RECORD, destination.weight), *old.picks])
        start = self._scheduling.place_added(service, run, destination)
        if destination.family == model.IPV6:  # a tunnel's, maybe of an IPv4 service
            loopback.enable(self._maps.settings, loopback.FORWARDING_IPV6)
        index = self._take_record(key, service, destination)
        run.picks[0] = (index, destination.weight)
        record = self._maps.destination(index)
        record.service = service
        if record.refreshed == 0:  # until the packet path looks for itself
            record.interface = route.interface
            store_address(record.next_hop, route.next_hop)
            record.reach = abi.REACH_ROUTE if route.kind == rtnetlink.UNICAST_ROUTE else 0
        record.last_weight = 0  # it may come back with another
        _describe(record, destination, route)
        self._scheduling.switch_added(service, run, start)

    def edit_destination(self, key: model.ServiceKey, destination: model.Destination) -> None:
        """See `Datapath.edit_destination`."""
        self._scheduling.finish()
        from xlvs.kernel import rtnetlink

        service = self._find(key)
        self._check_destination(key, destination)
        old = self._scheduling.run(service)
        place = self._place_in_run(old, destination.address, destination.port)
        if place is None:
            raise errors.NoSuchDestination("the virtual service has no such real server")
        route = rtnetlink.route_to(destination.address)
        _check_route(destination, route)
        index = old.picks[place][0]
        picks = [*old.picks[:place], (index, destination.weight), *old.picks[place + 1 :]]
        run = runs.change(old, picks)
        start = self._scheduling.place(service, run)
        _describe(self._maps.destination(index), destination, route)
        self._scheduling.switch(service, run, start)

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

    def _check_destination(self, key: model.ServiceKey, destination: model.Destination) -> None:
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

    def _place_in_run(self, run: runs.Run, address: bytes, port: int) -> int | None:
        wanted, swapped = padded(address), swap_port(port)
        for place, (index, _) in enumerate(run.picks):
            record = self._maps.destination(index)
            if record.port == swapped and bytes(record.address) == wanted:
                return place
        return None

    def _take_record(self, key: model.ServiceKey, service: int, destination: model.Destination) -> int:
        """A record for a real server: the one it had before, if that is not forgotten yet."""
        owner = packed_key(key)
        index = self._places.returning(owner, destination.address, destination.port)
        if index is not None:
            if self._maps.destination(index).service != service:
                self._reset_base("destination", index)
            return index
        index = self._places.destination()
        record = self._maps.destination(index)
        ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
        store_address(record.address, destination.address)
        record.port = swap_port(destination.port)
        record.family = destination.family
        record.owner = abi.ServiceKey.from_buffer_copy(owner)
        self._reset_base("destination", index)
        settings = self._maps.settings
        settings.destinations_top = max(settings.destinations_top, index + 1)
        return index

    def _reset_base(self, kind: str, index: int) -> None:
        """Let a record's counters begin at 0 from here."""
        base = self._base(kind, index)
        (
            base.connections, base.in_packets, base.out_packets, base.in_bytes, base.out_bytes,
        ) = self._counted(kind, index)  # fmt: skip
