# SPDX-License-Identifier: GPL-2.0-only
"""The listings as JSON: ``xlvsadm -L --json``, described in docs/json.md.

Every function yields text, whole lines of one JSON object, as its parts come:
a million connections take no more memory than one.  Addresses and ports are
always numbers: a program has no use for names.
"""

from __future__ import annotations

import json

from xlvs.cli.address import format_address
from xlvs.model import IPV4, PROTOCOL_NAMES, TUNNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from xlvs.model import (
        Connection,
        Destination,
        DestinationEntry,
        Rates,
        Service,
        ServiceEntry,
        ServiceKey,
        Stats,
        Timeouts,
    )

SCHEMA = 1
"""Raised when a field changes its meaning or goes; that one joins does not raise it."""

_COUNTERS = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")
_FLAG_NAMES = {
    "sh": ((1, "sh-fallback"), (2, "sh-port")),
    "mh": ((1, "mh-fallback"), (2, "mh-port")),
}
_OTHER_FLAG_NAMES = ((1, "flag-1"), (2, "flag-2"), (4, "flag-3"))


def table(
    entries: Sequence[ServiceEntry],
    version: tuple[int, int, int],
    size: int,
    *,
    stats: bool,
    rates: bool,
    sort: bool,
) -> Iterator[str]:
    """``"listing": "services"``; counters and rates only where they are asked for."""
    head = {"version": "%d.%d.%d" % version, "size": size}  # noqa: UP031
    ordered = _sorted(entries) if sort else entries
    return _object("services", head, (_service(entry, stats, rates) for entry in ordered))


def connections(entries: Iterable[Connection]) -> Iterator[str]:
    """``"listing": "connections"``, each on a line of its own."""
    return _object("connections", {}, (_connection(entry) for entry in entries))


def timeouts(values: Timeouts) -> Iterator[str]:
    """``"listing": "timeouts"``."""
    fields = {"tcp": values.tcp, "tcp_fin": values.tcp_fin, "udp": values.udp}
    yield f"{_text({**_head('timeouts'), **fields})}\n"


def daemons() -> Iterator[str]:
    """``"listing": "daemons"``: there are none."""
    return _object("daemons", {}, ())


def _object(listing: str, head: dict[str, Any], parts: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One object with an array of the listing's name, a part a line."""
    yield f'{_text({**_head(listing), **head})[:-1]}, "{listing}": ['
    separator = "\n"
    for part in parts:
        yield f"{separator}{_text(part)}"
        separator = ",\n"
    yield "\n]}\n"


def _head(listing: str) -> dict[str, Any]:
    return {"schema": SCHEMA, "listing": listing}


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value)


def _sorted(entries: Sequence[ServiceEntry]) -> list[ServiceEntry]:
    """By the numbers, where ipvsadm's order turns round for addresses that are far apart."""
    return [
        entry.replace(destinations=tuple(sorted(entry.destinations, key=_destination_rank)))
        for entry in sorted(entries, key=_service_rank)
    ]


def _service_rank(entry: ServiceEntry) -> tuple[int, int, int, bytes, int]:
    key = entry.service.key
    return key.fwmark, key.family, key.protocol, key.address, key.port


def _destination_rank(entry: DestinationEntry) -> tuple[int, bytes, int]:
    destination = entry.destination
    return destination.family, destination.address, destination.port


def _service(entry: ServiceEntry, stats: bool, rates: bool) -> dict[str, Any]:
    service = entry.service
    fields = {
        **key_fields(service.key),
        "scheduler": service.scheduler,
        "scheduler_flags": _scheduler_flags(service),
        "persistence": _persistence(service),
        "one_packet": service.one_packet,
        "idle_timeout": service.idle_timeout or None,
        "reject_gone": service.reject_gone,
        "rehome": service.rehome,
    }
    _count(fields, entry, stats, rates)
    fields["real_servers"] = [_destination(one, stats, rates) for one in entry.destinations]
    return fields


def key_fields(key: ServiceKey) -> dict[str, Any]:
    """What identifies a service, as fields."""
    family = _family(key.family)
    if key.fwmark:
        return {"family": family, "fwmark": key.fwmark, "protocol": None, "address": None, "port": None}
    return {
        "family": family,
        "fwmark": None,
        "protocol": PROTOCOL_NAMES[key.protocol].lower(),
        "address": format_address(key.address),
        "port": key.port,
    }


def _persistence(service: Service) -> dict[str, Any] | None:
    if not service.persistence:
        return None
    return {
        "timeout": service.persistence,
        "prefix_length": service.netmask,
        "engine": service.engine or None,
    }


def _scheduler_flags(service: Service) -> list[str]:
    names = _FLAG_NAMES.get(service.scheduler, _OTHER_FLAG_NAMES)
    return [name for bit, name in names if service.scheduler_flags & bit]


def _destination(entry: DestinationEntry, stats: bool, rates: bool) -> dict[str, Any]:
    destination = entry.destination
    fields: dict[str, Any] = {
        "address": format_address(destination.address),
        "port": destination.port,
        "method": destination.method,
        "weight": destination.weight,
        "upper_threshold": destination.upper_threshold,
        "lower_threshold": destination.lower_threshold,
        "tunnel": _tunnel(destination),
        "active_connections": entry.active,
        "inactive_connections": entry.inactive,
        "persistent_connections": entry.persistent,
    }
    _count(fields, entry, stats, rates)
    return fields


def _tunnel(destination: Destination) -> dict[str, Any] | None:
    if destination.method != TUNNEL:
        return None
    tunnel = destination.tunnel
    if tunnel is None:
        return {"type": "ipip", "port": None, "checksum": "nocsum"}
    return {"type": tunnel.kind, "port": tunnel.port or None, "checksum": tunnel.checksum}


def _count(fields: dict[str, Any], entry: ServiceEntry | DestinationEntry, stats: bool, rates: bool) -> None:
    if stats:
        fields["stats"] = _counters(entry.stats)
    if rates:
        fields["rates"] = _counters(entry.rates)


def _counters(counted: Stats | Rates) -> dict[str, int]:
    return {name: getattr(counted, name) for name in _COUNTERS}


def _connection(entry: Connection) -> dict[str, Any]:
    return {
        "family": _family(entry.family),
        "protocol": PROTOCOL_NAMES.get(entry.protocol, "ip").lower(),
        "state": entry.state,
        "expires": entry.expires,
        "client": format_address(entry.client),
        "client_port": entry.client_port,
        # The template of a mark's service has the mark where others have an address.
        "virtual": format_address(entry.virtual) if entry.protocol else None,
        "virtual_port": entry.virtual_port,
        "real_server": format_address(entry.destination),
        "real_server_port": entry.destination_port,
        "fwmark": entry.fwmark or None,
    }


def _family(family: int) -> str:
    return "ipv4" if family == IPV4 else "ipv6"
