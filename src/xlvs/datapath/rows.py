# SPDX-License-Identifier: GPL-2.0-only
"""A table as plain tuples: for listings of 100,000 real servers, or of a million connections.

    service row      (service, counters, destination rows)
    destination row  (address, port, method, weight, active, inactive, persistent,
                      upper threshold, lower threshold, tunnel, counters)
    connection row   (protocol, client, client port, virtual, virtual port,
                      destination, destination port, state, expires, fwmark, engine data)

in the model's units.  ``counters`` are the five numbers of `Stats` or of
`Rates` in the order of their constructors, or `NO_COUNTERS` where they were
not asked for.  Address and port come first, so that sorting the rows sorts by
them.  `xlvsadm -L` imports this module: it must stay as light as the model.
"""

from __future__ import annotations

from xlvs.model import Rates, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.model import Connection, Destination, DestinationEntry, Service, ServiceEntry, Tunnel

    Counters = tuple[int, int, int, int, int]
    DestinationRow = tuple[bytes, int, str, int, int, int, int, int, int, Tunnel | None, Counters]
    ServiceRow = tuple[Service, Counters, list[DestinationRow]]
    Table = list[tuple[Service, list[Destination]]]
    ConnectionRow = tuple[int, bytes, int, bytes, int, bytes, int, str, int, int, str]

NOTHING = ""
STATS = "stats"
RATES = "rates"
"""What is to be read besides: nothing, the counters, or their estimated rates."""

NO_COUNTERS = (0, 0, 0, 0, 0)


def row_of(entry: ServiceEntry, counted: str = NOTHING) -> ServiceRow:
    """A service of the model as a row."""
    destinations = [_destination_row(one, counted) for one in entry.destinations]
    return entry.service, _counters(entry, counted), destinations


def connection_row(entry: Connection) -> ConnectionRow:
    """A connection of the model as a row."""
    return (
        entry.protocol, entry.client, entry.client_port, entry.virtual, entry.virtual_port,
        entry.destination, entry.destination_port, entry.state, entry.expires, entry.fwmark,
        entry.engine_data,
    )  # fmt: skip


def _destination_row(entry: DestinationEntry, counted: str) -> DestinationRow:
    destination = entry.destination
    return (
        destination.address, destination.port, destination.method, destination.weight,
        entry.active, entry.inactive, entry.persistent,
        destination.upper_threshold, destination.lower_threshold, destination.tunnel,
        _counters(entry, counted),
    )  # fmt: skip


def _counters(entry: ServiceEntry | DestinationEntry, counted: str) -> Counters:
    if not counted:
        return NO_COUNTERS
    counters: Stats | Rates = entry.stats if counted == STATS else entry.rates
    return (
        counters.connections, counters.in_packets, counters.out_packets,
        counters.in_bytes, counters.out_bytes,
    )  # fmt: skip
