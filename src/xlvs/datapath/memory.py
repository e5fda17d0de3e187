# SPDX-License-Identifier: GPL-2.0-only
"""A data plane in a dictionary: the kernel's table with its rules, and no packets.

It is what a listing shows where nothing is loaded (an empty one), and what
tests drive.  It accepts everything that IPVS knows and refuses what the
kernel refuses, in the kernel's order (Linux 6.1, ``ip_vs_ctl.c``).  It lives
and dies with the process.  `xlvsadm -L` imports this module: it must stay as
light as the model.
"""

from __future__ import annotations

from xlvs.datapath.rows import NOTHING, connection_row, row_of
from xlvs.errors import (
    DestinationExists,
    InvalidOperation,
    NoSuchDestination,
    NoSuchService,
    OutOfRange,
    SchedulerNotFound,
    ServiceExists,
)
from xlvs.model import (
    IPV6,
    NO_SCHEDULER,
    PERSISTENCE_ENGINES,
    SCHEDULERS,
    TUNNEL,
    Destination,
    DestinationEntry,
    Rates,
    Service,
    ServiceEntry,
    ServiceKey,
    Stats,
    Timeouts,
    Totals,
    added,
    is_unicast,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xlvs.datapath.rows import ConnectionRow, ServiceRow, Table
    from xlvs.model import Connection, MarkRule


class MemoryDatapath:
    """An implementation of `xlvs.datapath.interface.Datapath` without any packet.

    It can start with ``services`` and ``connections``, so that tests can give
    the counters which no traffic makes here.
    """

    def __init__(
        self, services: Iterable[ServiceEntry] = (), connections: Iterable[Connection] = ()
    ) -> None:
        self._services = {entry.service.key: entry for entry in services}
        self._connections = tuple(connections)
        self._timeouts = Timeouts()
        self._mark_rules: list[MarkRule] = []
        self._sysctls: dict[str, str] = {}

    def version(self) -> tuple[int, int, int]:
        """The version of IPVS in every kernel since 2.6."""
        return (1, 2, 1)

    def size(self) -> int:
        """The kernel's default number of connection hash buckets."""
        return 4096

    def services(self) -> list[ServiceEntry]:
        """Every service with its destinations and counters, in the order they were added."""
        return list(self._services.values())

    def table(self, counted: str = NOTHING) -> list[ServiceRow]:
        """The same as rows, without an object for each."""
        return [row_of(entry, counted) for entry in self._services.values()]

    def service(self, key: ServiceKey) -> ServiceEntry:
        """One service; raises `NoSuchService`."""
        try:
            return self._services[key]
        except KeyError:
            raise NoSuchService("No such service") from None

    def row(self, key: ServiceKey) -> ServiceRow:
        """The same as a row."""
        return row_of(self.service(key))

    def add_service(self, service: Service) -> None:
        """Add a service; raises `ServiceExists`, `SchedulerNotFound`, `InvalidOperation`."""
        if service.key in self._services:
            raise ServiceExists("Service already exists")
        _check_service(service)
        self._services[service.key] = ServiceEntry(service)

    def add_services(self, table: Table) -> None:
        """Add services with their real servers, newest first, all or nothing."""
        new: dict[ServiceKey, ServiceEntry] = {}
        for service, destinations in table:
            if service.key in self._services or service.key in new:
                raise ServiceExists("Service already exists")
            _check_service(service)
            for destination in destinations:
                _check_destination(service.key, destination)
                _check_address(destination.address)
            if len({(one.address, one.port) for one in destinations}) != len(destinations):
                raise DestinationExists("Destination already exists")
            new[service.key] = ServiceEntry(service, tuple(map(DestinationEntry, destinations)))
        self._services.update(new)

    def edit_service(self, service: Service) -> None:
        """Change the service with the same key; raises `NoSuchService`, `SchedulerNotFound`."""
        entry = self.service(service.key)
        _check_service(service)
        self._services[service.key] = entry.replace(service=service)

    def delete_service(self, key: ServiceKey) -> None:
        """Remove a service and its destinations; raises `NoSuchService`."""
        self.service(key)
        del self._services[key]

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Add a real server; raises `NoSuchService`, `DestinationExists`, `InvalidOperation`."""
        entry = self.service(key)
        _check_destination(key, destination)
        if _position(entry, destination.address, destination.port) is not None:
            raise DestinationExists("Destination already exists")
        _check_address(destination.address)
        added = DestinationEntry(destination)
        self._services[key] = entry.replace(destinations=(added, *entry.destinations))

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Change a real server; raises `NoSuchService`, `NoSuchDestination`, `InvalidOperation`."""
        entry = self.service(key)
        _check_destination(key, destination)
        position = _position(entry, destination.address, destination.port)
        if position is None:
            raise NoSuchDestination("No such destination")
        changed = list(entry.destinations)
        changed[position] = changed[position].replace(destination=destination)
        self._services[key] = entry.replace(destinations=tuple(changed))

    def delete_destination(self, key: ServiceKey, address: bytes, port: int) -> None:
        """Remove a real server; raises `NoSuchService`, `NoSuchDestination`."""
        entry = self.service(key)
        position = _position(entry, address, port)
        if position is None:
            raise NoSuchDestination("No such destination")
        left = entry.destinations[:position] + entry.destinations[position + 1 :]
        self._services[key] = entry.replace(destinations=left)

    def flush(self) -> None:
        """Remove every service."""
        self._services.clear()

    def replace(self, table: Table) -> None:
        """Put these services in the place of all that are there; see `Datapath.replace`."""
        for service, destinations in table:
            _check_service(service)
            for destination in destinations:
                _check_destination(service.key, destination)
                _check_address(destination.address)
        old, self._services = self._services, {}
        for service, destinations in table:
            entry = old.get(service.key, ServiceEntry(service))
            known = {(one.destination.address, one.destination.port): one for one in entry.destinations}
            entries = (
                known.get((one.address, one.port), DestinationEntry(one)).replace(destination=one)
                for one in destinations
            )
            self._services[service.key] = entry.replace(service=service, destinations=tuple(entries))

    def zero(self, key: ServiceKey | None = None) -> None:
        """Zero the counters of one service, or of all; raises `NoSuchService`."""
        entries = self.services() if key is None else [self.service(key)]
        for entry in entries:
            destinations = tuple(one.replace(stats=Stats(), rates=Rates()) for one in entry.destinations)
            self._services[entry.service.key] = entry.replace(
                stats=Stats(), rates=Rates(), destinations=destinations
            )

    def connections(self) -> Iterator[Connection]:
        """The connections that it was made with."""
        return iter(self._connections)

    def connection_rows(self) -> Iterator[list[ConnectionRow]]:
        """The same as rows."""
        yield [connection_row(entry) for entry in self._connections]

    def totals(self) -> Totals:
        """The counters of the services, as if one processor had counted them."""
        entries = self.services()
        stats = added(Stats, [entry.stats for entry in entries])
        return Totals(stats, (stats,), added(Rates, [entry.rates for entry in entries]))

    def timeouts(self) -> Timeouts:
        """The timeouts of ESTABLISHED, FIN_WAIT and UDP."""
        return self._timeouts

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change the timeouts; a field of 0 stays as it is."""
        old = self._timeouts
        self._timeouts = Timeouts(
            timeouts.tcp or old.tcp, timeouts.tcp_fin or old.tcp_fin, timeouts.udp or old.udp
        )

    def mark_rules(self) -> list[MarkRule]:
        """The rules that give packets a firewall mark: the first that matches counts."""
        return list(self._mark_rules)

    def set_mark_rules(self, rules: list[MarkRule]) -> None:
        """Put these rules in the place of all others; raises as `Datapath.set_mark_rules` does."""
        from xlvs.datapath.marks import check

        check(rules)
        self._mark_rules = list(rules)

    def sysctls(self) -> dict[str, str]:
        """Every setting of IPVS by its name in /proc/sys/net/ipv4/vs."""
        from xlvs.datapath import sysctls

        return {**sysctls.defaults(), **self._sysctls}

    def set_sysctls(self, values: dict[str, str]) -> None:
        """Change these settings, all or none; raises as `Datapath.set_sysctls` does."""
        from xlvs.datapath import sysctls

        self._sysctls.update(sysctls.check(values))


def _position(entry: ServiceEntry, address: bytes, port: int) -> int | None:
    for position, one in enumerate(entry.destinations):
        if one.destination.address == address and one.destination.port == port:
            return position
    return None


def _check_service(service: Service) -> None:
    if service.scheduler != NO_SCHEDULER and service.scheduler not in SCHEDULERS:
        raise SchedulerNotFound(f"Scheduler {service.scheduler} not found")
    if service.engine and service.engine not in PERSISTENCE_ENGINES:
        raise SchedulerNotFound(f"Persistence engine {service.engine} not found")
    if service.key.family == IPV6 and not 1 <= service.netmask <= 128:
        raise InvalidOperation(f"The prefix length {service.netmask} is not in 1..128")


def _check_destination(key: ServiceKey, destination: Destination) -> None:
    if destination.family != key.family and destination.method != TUNNEL:
        raise InvalidOperation("Only a tunnel leads to a real server of another address family")
    if destination.weight < 0:
        raise OutOfRange(f"The weight {destination.weight} is below 0")
    if destination.lower_threshold > destination.upper_threshold:
        raise OutOfRange(
            f"The lower threshold {destination.lower_threshold} is above the upper one,"
            f" {destination.upper_threshold}"
        )
    tunnel = destination.tunnel
    if tunnel is not None and tunnel.kind == "gue" and not tunnel.port:
        raise InvalidOperation("A GUE tunnel needs a port")


def _check_address(address: bytes) -> None:
    if not is_unicast(address):
        raise InvalidOperation("The address of a real server must be unicast")
