# SPDX-License-Identifier: GPL-2.0-only
"""Kernel IPVS as a data plane: the table that ipvsadm shows, by generic netlink.

Netlink takes one change at a time.  What is to be whole or not at all (`add_services`,
`replace`) is undone where the kernel refuses a part of it; packets that come meanwhile
see some of both.  What kernel IPVS does not have is refused before anything is changed.

Services are in the order of the kernel's hash, real servers newest first.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from xlvs import errors
from xlvs.datapath import kernel_files
from xlvs.datapath import kernel_messages as messages
from xlvs.datapath.comparing import destination_of, is_same
from xlvs.datapath.kernel_refusals import check_has, check_table, not_permitted, refusal
from xlvs.datapath.rows import NO_COUNTERS, NOTHING
from xlvs.kernel.genetlink import Family
from xlvs.model import (
    IPV4,
    IPV6,
    SIP,
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
    from typing import Protocol

    from xlvs.datapath.rows import ConnectionRow, DestinationRow, ServiceRow, Table

    class Talk(Protocol):
        """What of `Family` is needed here."""

        def ask(self, command: int, body: bytes = b"") -> list[dict[int, bytes]]:
            """See `Family.ask`."""

        def ask_many(self, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
            """See `Family.ask_many`."""

        def dump(self, command: int, body: bytes = b"") -> Iterator[dict[int, bytes]]:
            """See `Family.dump`."""


_MODPROBE_SECONDS = 30
_TOGETHER = 16
"""Services to add together: until their real servers follow, they have none."""


@contextmanager
def open_kernel(write: bool = False) -> Iterator[KernelDatapath]:  # noqa: ARG001 - as `open_datapath`
    """Open kernel IPVS of this network namespace; for reading and for changes alike.

    Raises `NotPermitted` for a caller who is not root, `Unavailable` where ip_vs is not loaded.
    """
    from xlvs.kernel.privilege import require_root

    require_root()
    with _family() as family:
        yield KernelDatapath(family)


def _family() -> Family:
    try:
        return Family(messages.FAMILY)
    except FileNotFoundError:
        raise errors.Unavailable(
            "this kernel has no IPVS: the module ip_vs is not loaded",
            "Load it: modprobe ip_vs; at each boot: echo ip_vs >/etc/modules-load.d/ip_vs.conf\n"
            "The eBPF data plane does without that module: leave out --datapath kernel.",
        ) from None
    except OSError as error:
        raise errors.Unavailable(f"generic netlink cannot be used: {error.strerror}") from error


def load_kernel() -> None:
    """Load ip_vs unless it is there, as ipvsadm does; raises as `open_kernel` does."""
    try:
        with open_kernel():
            return
    except errors.NotPermitted:
        raise
    except errors.Unavailable:
        said = _modprobe()
    try:
        with open_kernel():
            return
    except errors.Unavailable as error:
        raise errors.Unavailable(error.message + (f" ({said})" if said else ""), error.hint) from None


def _modprobe() -> str:
    """Have the kernel's own modprobe load ip_vs; returns why it could not."""
    try:
        with open("/proc/sys/kernel/modprobe", encoding="ascii") as file:
            program = file.read().strip() or "/sbin/modprobe"
    except FileNotFoundError:
        return "and this kernel loads no modules"
    try:
        done = subprocess.run(
            [program, "ip_vs"], capture_output=True, text=True, timeout=_MODPROBE_SECONDS, check=False
        )
    except OSError as error:
        return f"{program}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{program} took longer than {_MODPROBE_SECONDS} seconds"
    return " ".join(done.stderr.split())


class KernelDatapath:
    """The table of kernel IPVS in one network namespace: a `xlvs.datapath.interface.Datapath`."""

    def __init__(self, family: Talk) -> None:
        self._family = family

    # --- reading -----------------------------------------------------------

    def version(self) -> tuple[int, int, int]:
        """See `Datapath.version`."""
        return messages.read_info(self._ask(messages.GET_INFO)[0])[0]

    def size(self) -> int:
        """See `Datapath.size`."""
        return messages.read_info(self._ask(messages.GET_INFO)[0])[1]

    def services(self) -> list[ServiceEntry]:
        """See `Datapath.services`."""
        return [self._entry(*one) for one in self._read_services()]

    def table(self, counted: str = NOTHING) -> list[ServiceRow]:
        """See `Datapath.table`."""
        return [
            (
                service,
                messages.counters(numbers, counted) if counted else NO_COUNTERS,
                self._destinations(service.key, counted),
            )
            for service, numbers in self._read_services()
        ]

    def service(self, key: ServiceKey) -> ServiceEntry:
        """See `Datapath.service`."""
        return self._entry(*self._read_service(key))

    def row(self, key: ServiceKey) -> ServiceRow:
        """See `Datapath.row`."""
        return self._read_service(key)[0], NO_COUNTERS, self._destinations(key, NOTHING)

    def _read_services(self) -> list[tuple[Service, bytes]]:
        found = self._dump(messages.GET_SERVICE)
        return [messages.read_service(one[messages.SERVICE]) for one in found]

    def _read_service(self, key: ServiceKey) -> tuple[Service, bytes]:
        try:
            found = self._ask(messages.GET_SERVICE, messages.service_key(key))
        except OSError as error:
            raise refusal(error, key) from error
        return messages.read_service(found[0][messages.SERVICE])

    def _entry(self, service: Service, numbers: bytes) -> ServiceEntry:
        family = service.key.family
        found = self._dump(messages.GET_DESTINATION, messages.service_key(service.key))
        destinations = (messages.read_destination_entry(one[messages.DESTINATION], family) for one in found)
        return ServiceEntry(service, tuple(destinations), messages.stats(numbers), messages.rates(numbers))

    def _destinations(self, key: ServiceKey, counted: str) -> list[DestinationRow]:
        found = self._dump(messages.GET_DESTINATION, messages.service_key(key))
        return [messages.read_destination(one[messages.DESTINATION], key.family, counted) for one in found]

    def connections(self) -> Iterator[Connection]:
        """See `Datapath.connections`; of which service one is, only a firewall mark's templates tell."""
        for rows in self.connection_rows():
            for row in rows:
                family = IPV4 if len(row[1]) == 4 else IPV6
                yield Connection(family, *row[:9], SIP if row[10] else "", row[10], row[9])

    def connection_rows(self) -> Iterator[list[ConnectionRow]]:
        """See `Datapath.connection_rows`."""
        return kernel_files.connection_rows()

    def totals(self) -> Totals:
        """See `Datapath.totals`."""
        return kernel_files.totals()

    def timeouts(self) -> Timeouts:
        """See `Datapath.timeouts`."""
        return messages.read_timeouts(self._ask(messages.GET_TIMEOUTS)[0])

    def mark_rules(self) -> list[MarkRule]:
        """None: marks are netfilter's here."""
        return []

    def sysctls(self) -> dict[str, str]:
        """Every setting that this kernel has, as its file reads."""
        return kernel_files.settings()

    # --- changing ----------------------------------------------------------

    def add_service(self, service: Service) -> None:
        """See `Datapath.add_service`; `NotSupported` for what only the eBPF data plane has."""
        check_has(service)
        self._change(messages.NEW_SERVICE, messages.service(service), service.key, service)

    def add_services(self, table: Table) -> None:
        """See `Datapath.add_services`; packets may meet a service that has not all its real servers yet."""
        for service, _ in table:
            check_has(service)
        with _Undo() as undo:
            for first in range(0, len(table), _TOGETHER):
                some = table[first : first + _TOGETHER]
                if self._add_together(some):
                    for service, _ in some:
                        undo.by(self.delete_service, service.key)
                else:  # one by one shows which it was, and why
                    for service, destinations in some:
                        self._add_whole(service, destinations, undo)

    def _add_together(self, table: Table) -> bool:
        """Add services with many requests at a time; False, and none is added, where one is refused."""
        keys = [messages.service_key(service.key) for service, _ in table]
        refused = self._ask_many([(messages.NEW_SERVICE, messages.service(service)) for service, _ in table])
        added = [key for place, key in enumerate(keys) if place not in refused]
        if not refused:
            refused = self._ask_many([
                (messages.NEW_DESTINATION, key + messages.destination(one))
                for key, (_, destinations) in zip(keys, table, strict=True)
                for one in reversed(destinations)
            ])  # fmt: skip
        if refused:
            self._ask_many([(messages.DELETE_SERVICE, key) for key in added])
        return not refused

    def _add_whole(self, service: Service, destinations: list[Destination], undo: _Undo) -> None:
        self.add_service(service)
        undo.by(self.delete_service, service.key)
        for destination in reversed(destinations):
            self.add_destination(service.key, destination)

    def edit_service(self, service: Service) -> None:
        """See `Datapath.edit_service`; `NotSupported` for what only the eBPF data plane has."""
        check_has(service)
        self._change(messages.SET_SERVICE, messages.service(service), service.key, service)

    def delete_service(self, key: ServiceKey) -> None:
        """See `Datapath.delete_service`."""
        self._change(messages.DELETE_SERVICE, messages.service_key(key), key)

    def add_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See `Datapath.add_destination`."""
        self._change_destination(messages.NEW_DESTINATION, key, destination)

    def edit_destination(self, key: ServiceKey, destination: Destination) -> None:
        """See `Datapath.edit_destination`."""
        self._change_destination(messages.SET_DESTINATION, key, destination)

    def delete_destination(self, key: ServiceKey, address: bytes, port: int) -> None:
        """See `Datapath.delete_destination`."""
        body = messages.service_key(key) + messages.destination_key(address, port)
        self._change(messages.DELETE_DESTINATION, body, key, None, Destination(address, port))

    def flush(self) -> None:
        """See `Datapath.flush`."""
        self._ask(messages.FLUSH)

    def replace(self, table: Table) -> None:
        """See `Datapath.replace`; packets see each change as it is made, additions before removals.

        Real servers that are new to a service become its newest; the others keep their order.
        """
        check_table(table)
        have = {service.key: (service, rows) for service, _, rows in self.table()}
        with _Undo() as undo:
            for service, destinations in table:
                if service.key not in have:
                    self._add_whole(service, destinations, undo)
                    continue
                old, rows = have[service.key]
                if old != service:
                    self.edit_service(service)
                    undo.by(self.edit_service, old)
                self._bring_in(service.key, rows, destinations, undo)
            wanted = {service.key: destinations for service, destinations in table}
            for key, (old, rows) in have.items():
                if key in wanted:
                    self._take_out(key, rows, wanted[key], undo)
                else:
                    self.delete_service(key)
                    undo.by(self._put_back, old, rows)

    def _bring_in(
        self, key: ServiceKey, rows: list[DestinationRow], destinations: list[Destination], undo: _Undo
    ) -> None:
        there = {(row[0], row[1]): row for row in rows}
        for one in reversed(destinations):
            row = there.get((one.address, one.port))
            if row is None:
                self.add_destination(key, one)
                undo.by(self.delete_destination, key, one.address, one.port)
            elif not is_same(row, one):
                self.edit_destination(key, one)
                undo.by(self.edit_destination, key, destination_of(row))

    def _take_out(
        self, key: ServiceKey, rows: list[DestinationRow], destinations: list[Destination], undo: _Undo
    ) -> None:
        stay = {(one.address, one.port) for one in destinations}
        for row in rows:
            if (row[0], row[1]) not in stay:
                self.delete_destination(key, row[0], row[1])
                undo.by(self.add_destination, key, destination_of(row))

    def _put_back(self, service: Service, rows: list[DestinationRow]) -> None:
        self.add_service(service)
        for row in reversed(rows):
            self.add_destination(service.key, destination_of(row))

    def zero(self, key: ServiceKey | None = None) -> None:
        """See `Datapath.zero`."""
        if key is None:
            self._ask(messages.ZERO)
        else:
            self._change(messages.ZERO, messages.service_key(key), key)

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See `Datapath.set_timeouts`; raises `InvalidOperation` for one that is too long for the kernel."""
        try:
            self._ask(messages.SET_TIMEOUTS, messages.timeouts(timeouts))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise errors.InvalidOperation(
                f"the kernel does not take the timeouts {timeouts.tcp}, {timeouts.tcp_fin}, {timeouts.udp}"
            ) from error

    def set_mark_rules(self, rules: list[MarkRule]) -> None:
        """Raises `NotSupported` for any rule: marks are netfilter's here."""
        if rules:
            raise errors.NotSupported(
                "kernel IPVS goes by the marks of netfilter, and has no rules of its own",
                "Mark packets there: nft add rule ... meta mark set MARK, or iptables -j MARK",
            )

    def set_sysctls(self, values: dict[str, str]) -> None:
        """See `Datapath.set_sysctls`; the kernel itself knows what it takes."""
        kernel_files.set_settings(values)

    # --- talking -----------------------------------------------------------

    def _ask(self, command: int, body: bytes = b"") -> list[dict[int, bytes]]:
        try:
            return self._family.ask(command, body)
        except PermissionError:
            raise not_permitted() from None

    def _ask_many(self, requests: list[tuple[int, bytes]]) -> dict[int, int]:
        refused = self._family.ask_many(requests)
        if errno.EPERM in refused.values():
            raise not_permitted()
        return refused

    def _dump(self, command: int, body: bytes = b"") -> Iterator[dict[int, bytes]]:
        try:
            yield from self._family.dump(command, body)
        except PermissionError:
            raise not_permitted() from None

    def _change_destination(self, command: int, key: ServiceKey, destination: Destination) -> None:
        body = messages.service_key(key) + messages.destination(destination)
        self._change(command, body, key, None, destination)

    def _change(
        self,
        command: int,
        body: bytes,
        key: ServiceKey,
        service: Service | None = None,
        destination: Destination | None = None,
    ) -> None:
        try:
            self._ask(command, body)
        except OSError as error:
            raise refusal(error, key, service, destination) from error


class _Undo:
    """Takes back, last thing first, what was done in a ``with`` block that ends with an exception."""

    def __init__(self) -> None:
        self._ways: list[Callable[[], None]] = []

    def by(self, way: Callable[..., None], *arguments: object) -> None:
        """Note how the last thing is undone."""
        self._ways.append(partial(way, *arguments))

    def __enter__(self) -> _Undo:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for way in reversed(self._ways):
            with suppress(errors.XlvsError):  # somebody else has changed that meanwhile
                way()
