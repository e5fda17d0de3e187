# SPDX-License-Identifier: GPL-2.0-only
"""Why kernel IPVS does not take something, in words: its error numbers say little.

The numbers are those of ``ip_vs_genl_set_cmd`` and what it calls (net/netfilter/ipvs/ip_vs_ctl.c).
"""

from __future__ import annotations

import errno
import socket

from xlvs import errors
from xlvs.datapath.memory import MemoryDatapath
from xlvs.model import IPV6, PROTOCOL_NAMES, Destination, Service, ServiceKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import Table

_ELSEWHERE = ("idle_timeout", "reject_gone", "rehome")
"""Fields of a service, and words of keepalived.conf, that only the eBPF data plane has."""


def check_has(service: Service) -> None:
    """Raise `NotSupported` for what only the eBPF data plane has."""
    for word in _ELSEWHERE:
        if getattr(service, word):
            raise errors.NotSupported(
                f"kernel IPVS has no {word}: {_name(service.key)} needs the eBPF data plane",
                f"Leave {word} out, or run xlvsd without --datapath kernel",
            )


def check_table(table: Table) -> None:
    """Raise `TableError` for a table that cannot be, before a part of it is made."""
    MemoryDatapath().add_services(table)
    for service, _ in table:
        check_has(service)


def refusal(
    error: OSError,
    key: ServiceKey,
    service: Service | None = None,
    destination: Destination | None = None,
) -> errors.XlvsError:
    """The kernel's error number (``ip_vs_genl_set_cmd``) as an error that names what was refused."""
    name = _name(key)
    place = _place_name(destination.address, destination.port) if destination else ""
    number = error.errno
    if number == errno.ESRCH:
        return errors.NoSuchService(f"No such service: {name}")
    if number == errno.EEXIST:
        if destination:
            return errors.DestinationExists(f"Destination already exists: {place} of {name}")
        return errors.ServiceExists(f"Service already exists: {name}")
    if number == errno.ENOENT:
        if destination:
            return errors.NoSuchDestination(f"No such destination: {place} of {name}")
        return _missing_module(service)
    if number == errno.ERANGE:
        return _explained(key, service, destination) or errors.OutOfRange(
            f"A number is out of range: {name}"
        )
    if number == errno.EINVAL:
        whole = f"{place} of {name}" if destination else name
        return _explained(key, service, destination) or errors.InvalidOperation(
            f"The kernel does not take {whole}: {error.strerror}"
        )
    if number in (errno.ENOMEM, errno.ENOSPC):
        return errors.TableFull(f"The kernel has no memory for {place or name}")
    if number in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP):
        return errors.NotSupported(f"This kernel's IPVS does not have {name}: {error.strerror}")
    return errors.InvalidOperation(f"The kernel refuses {place or name}: {error.strerror}")


def _missing_module(service: Service | None) -> errors.TableError:
    scheduler = service.scheduler if service else ""
    engine = service.engine if service else ""
    if not engine:
        return errors.SchedulerNotFound(
            f"Scheduler {scheduler} not found",
            f"This kernel lacks it, or its module cannot be loaded: modprobe ip_vs_{scheduler}",
        )
    return errors.SchedulerNotFound(
        f"Scheduler {scheduler} or persistence engine {engine} not found",
        "This kernel lacks one, or a module cannot be loaded:"
        f" modprobe -a ip_vs_{scheduler} ip_vs_pe_{engine}",
    )


def _explained(
    key: ServiceKey, service: Service | None, destination: Destination | None
) -> errors.TableError | None:
    """What the kernel meant by a bare number: `MemoryDatapath` has the same rules, and words for them."""
    rehearsal = MemoryDatapath()
    try:
        rehearsal.add_service(service or Service(key))
        if destination:
            rehearsal.add_destination(key, destination)
    except errors.TableError as error:
        return error
    return None


def not_permitted() -> errors.NotPermitted:
    return errors.NotPermitted(
        "kernel IPVS cannot be used: permission denied", "It takes root, or the capability CAP_NET_ADMIN."
    )


def _name(key: ServiceKey) -> str:
    if key.fwmark:
        return f"FWM {key.fwmark}{' IPv6' if key.family == IPV6 else ''}"
    return f"{PROTOCOL_NAMES.get(key.protocol, str(key.protocol))} {_place_name(key.address, key.port)}"


def _place_name(address: bytes, port: int) -> str:
    if len(address) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, address)}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, address)}]:{port}"
