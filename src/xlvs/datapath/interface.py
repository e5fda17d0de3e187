# SPDX-License-Identifier: GPL-2.0-only
"""What every data plane can do: the seam between the front ends and the kernel.

Commands and daemons speak to a `Datapath` and never know which one it is.
Import this module for its types only (under ``TYPE_CHECKING``): it needs
``typing``, which the ipvsadm-compatible command must not load.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from xlvs.datapath.rows import NOTHING
from xlvs.model import (
    Connection,
    Destination,
    MarkRule,
    Service,
    ServiceEntry,
    ServiceKey,
    Timeouts,
    Totals,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import ConnectionRow, ServiceRow, Table


class Datapath(Protocol):
    """A table of virtual services, and the connections that run through it.

    Every change is whole or not at all: a method that raises has changed
    nothing.  `TableError` and its kind say why; `Unavailable` that the data
    plane itself cannot be reached.
    """

    def version(self) -> tuple[int, int, int]:
        """The IPVS version this data plane is equal to, as ``ipvsadm -L`` prints it."""

    def size(self) -> int:
        """The connection table's size as ``ipvsadm -L`` prints it."""

    def services(self) -> list[ServiceEntry]:
        """Every service with its destinations and counters, in no particular order."""

    def table(self, counted: str = NOTHING) -> list[ServiceRow]:
        """The same as rows, without an object for each: see `xlvs.datapath.rows`."""

    def service(self, key: ServiceKey) -> ServiceEntry:
        """One service; raises `NoSuchService`."""

    def row(self, key: ServiceKey) -> ServiceRow:
        """The same as a row of `table`, without counters."""

    def add_service(self, service: Service) -> None:
        """Add a service; raises `ServiceExists`, `SchedulerNotFound`, `InvalidOperation`."""

    def add_services(self, table: Table) -> None:
        """Add services with their real servers, newest first: what `add_service` and, from the
        last of them to the first, `add_destination` would come to, all or nothing, and much faster.

        Packets see a service with all its real servers or not at all.  Raises what those two raise,
        and has changed nothing then.
        """

    def edit_service(self, service: Service) -> None:
        """Change the service with the same key; raises `NoSuchService`, `SchedulerNotFound`."""

    def delete_service(self, key: ServiceKey) -> None:
        """Remove a service and its destinations; raises `NoSuchService`."""

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Add a real server; raises `NoSuchService`, `DestinationExists`, `InvalidOperation`."""

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """Change a real server; raises `NoSuchService`, `NoSuchDestination`."""

    def delete_destination(self, key: ServiceKey, address: bytes, port: int) -> None:
        """Remove a real server; raises `NoSuchService`, `NoSuchDestination`."""

    def flush(self) -> None:
        """Remove every service."""

    def replace(self, table: Table) -> None:
        """Put these services and their real servers, newest first, in the place of all that are there.

        Raises `TableError` for what cannot be, and has changed nothing then.
        What is there before and after keeps its counters and connections.
        Packets look services up in the table as it was or as it will be, never in
        some of both.
        """

    def zero(self, key: ServiceKey | None = None) -> None:
        """Zero the counters of one service, or of all; raises `NoSuchService`."""

    def connections(self) -> Iterator[Connection]:
        """Every live connection, in table order."""

    def connection_rows(self) -> Iterator[list[ConnectionRow]]:
        """The same as rows, some at a time, without an object for each: see `xlvs.datapath.rows`."""

    def totals(self) -> Totals:
        """What all services together have had, those that are gone included."""

    def timeouts(self) -> Timeouts:
        """The timeouts of ESTABLISHED, FIN_WAIT and UDP."""

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change the timeouts; a field of 0 stays as it is."""

    def mark_rules(self) -> list[MarkRule]:
        """The rules that give packets a firewall mark: the first that matches counts."""

    def set_mark_rules(self, rules: list[MarkRule]) -> None:
        """Put these rules in the place of all others, from one packet to the next.

        Raises `RuleExists` where two have the same conditions, `InvalidOperation`
        for a rule that none can be, `TableFull` for too many rules.
        """

    def sysctls(self) -> dict[str, str]:
        """Every setting of IPVS by its name in /proc/sys/net/ipv4/vs, as the file there would read."""

    def set_sysctls(self, values: dict[str, str]) -> None:
        """Change these settings, all or none.

        Raises `InvalidOperation`, `OutOfRange` for a value that the kernel would not
        take, `NotSupported` for one that could have no effect.
        """
