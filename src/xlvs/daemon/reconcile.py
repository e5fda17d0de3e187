# SPDX-License-Identifier: GPL-2.0-only
"""The table that is there brought to the one that is wanted, by differences alone.

Services that the configuration does not have, and that this daemon has not made, are
others' and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from xlvs.daemon.desired import Wanted
from xlvs.daemon.health import RealServerKey
from xlvs.datapath.comparing import destination_of, is_same
from xlvs.datapath.interface import Datapath
from xlvs.errors import NoSuchService, TableError
from xlvs.model import Destination, Service, ServiceKey

if TYPE_CHECKING:
    from xlvs.datapath.rows import DestinationRow, ServiceRow

MANY_CHANGES = 500
"""From so many on the table is replaced as a whole, which costs less than each by itself."""

Present = dict[ServiceKey, "tuple[Service, dict[RealServerKey, DestinationRow]]"]
"""The table that is there."""


class Change(NamedTuple):
    """One difference: of a service (``place`` is None) or of a real server at ``place``.

    ``have`` is None for what is missing, ``want`` for what is too much.
    """

    key: ServiceKey
    place: RealServerKey | None
    have: Service | Destination | None
    want: Service | Destination | None


class Refusal(NamedTuple):
    """A change that the data plane did not take, and why."""

    change: Change
    error: TableError


def present(rows: Iterable[ServiceRow]) -> Present:
    """Rows of a table by their keys."""
    return {service.key: (service, {(row[0], row[1]): row for row in rows}) for service, _, rows in rows}


def some(datapath: Datapath, keys: Iterable[ServiceKey]) -> Present:
    """Those services that are there, by their keys, without a look at the others."""
    rows = []
    for key in keys:
        try:
            rows.append(datapath.row(key))
        except NoSuchService:
            continue
    return present(rows)


def differences(have: Present, wanted: Wanted, owned: Iterable[ServiceKey] = ()) -> list[Change]:
    """What has to be done, in the order in which to do it.

    ``owned`` are the services that were made for this configuration's forerunners: those
    that are not wanted go.  Real servers are added before others are taken away, so that
    a service is not without one in between.
    """
    first: list[Change] = []
    last: list[Change] = []
    for key, (service, destinations) in wanted.items():
        found = have.get(key)
        if found is None:
            first.append(Change(key, None, None, service))
            first += [Change(key, place, None, one) for place, one in destinations.items()]
            continue
        if found[0] != service:
            first.append(Change(key, None, found[0], service))
        rows = found[1]
        for place, one in destinations.items():
            row = rows.get(place)
            if row is None:
                first.append(Change(key, place, None, one))
            elif not is_same(row, one):
                first.append(Change(key, place, destination_of(row), one))
        if len(rows) != len(destinations) or rows.keys() != destinations.keys():
            last += [
                Change(key, place, destination_of(row), None)
                for place, row in rows.items()
                if place not in destinations
            ]
    last += [Change(key, None, have[key][0], None) for key in owned if key not in wanted and key in have]
    return first + last


def apply(datapath: Datapath, changes: list[Change], have: Present) -> list[Refusal]:
    """Make the changes; return those that were refused, each of which has left the table as it was."""
    if len(changes) >= MANY_CHANGES:
        try:
            if any(change.have is not None or change.key in have for change in changes):
                datapath.replace(_whole(have, changes))
            else:
                # Nothing of what is there is touched: a start, on an empty table or beside others.
                datapath.add_services(_whole({}, changes))
        except TableError:
            pass  # one by one shows which it was, and brings the others about
        else:
            return []
    refusals = []
    for change in changes:
        try:
            _make(datapath, change)
        except TableError as error:
            refusals.append(Refusal(change, error))
    return refusals


def _make(datapath: Datapath, change: Change) -> None:
    key, place, have, want = change
    if place is None:
        if isinstance(want, Service):
            if have is None:
                datapath.add_service(want)
            else:
                datapath.edit_service(want)
        else:
            datapath.delete_service(key)
    elif isinstance(want, Destination):
        if have is None:
            datapath.add_destination(key, want)
        else:
            datapath.edit_destination(key, want)
    else:
        datapath.delete_destination(key, *place)


def _whole(have: Present, changes: list[Change]) -> list[tuple[Service, list[Destination]]]:
    """The whole table after the changes; real servers stand newest first, as if added one by one."""
    services = {key: service for key, (service, _) in have.items()}
    destinations = {
        key: {place: destination_of(row) for place, row in reversed(rows.items())}
        for key, (_, rows) in have.items()
    }
    for key, place, _, want in changes:
        if place is None:
            if isinstance(want, Service):
                services[key] = want
                destinations.setdefault(key, {})
            else:
                del services[key]
        elif isinstance(want, Destination):
            destinations[key][place] = want
        else:
            del destinations[key][place]
    return [(service, list(reversed(destinations[key].values()))) for key, service in services.items()]
