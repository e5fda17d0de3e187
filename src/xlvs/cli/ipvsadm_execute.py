# SPDX-License-Identifier: GPL-2.0-only
"""Carries out a checked request on a data plane, and words its refusals.

The one place where ipvsadm's commands meet the `Datapath` interface.  What
that interface cannot carry is refused here, before a data plane is opened;
what a data plane lacks, it refuses itself by raising `NotSupported`.
"""

from __future__ import annotations

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli import listing
from xlvs.cli.ipvsadm_grammar import EXIT_REFUSED, EXIT_USAGE, CommandLineError
from xlvs.datapath import rows
from xlvs.errors import (
    DestinationExists,
    InvalidOperation,
    NoSuchDestination,
    NoSuchService,
    NotSupported,
    OutOfRange,
    SchedulerNotFound,
    ServiceExists,
    TableError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xlvs.cli.ipvsadm_request import Request
    from xlvs.datapath.interface import Datapath
    from xlvs.model import Connection

EXIT_LISTING = 1
"""ipvsadm's status when what was to be listed is not there."""

_READS = frozenset((grammar.LIST, grammar.SAVE, grammar.STOP_DAEMON))
_LOADS = frozenset((grammar.ADD_SERVICE, grammar.SET))
_SERVER_COMMANDS = frozenset((grammar.ADD_SERVER, grammar.EDIT_SERVER, grammar.DELETE_SERVER))


def needs_write(request: Request) -> bool:
    """Whether the request changes the data plane."""
    return request.command not in _READS


def needs_load(request: Request) -> bool:
    """Whether the request puts something into the data plane, which then must be there."""
    return request.command in _LOADS


def streams(request: Request) -> bool:
    """Whether the lines of the answer are read from the data plane while they are printed."""
    return request.command == grammar.LIST and "connection" in request.options


def check_carried(request: Request) -> None:
    """Raise `CommandLineError` for what the `Datapath` interface has no word for."""
    if request.command == grammar.START_DAEMON:
        raise CommandLineError(
            "--start-daemon is not supported: xlvs has no connection sync daemon, "
            "and copies no connections to a backup director.",
            EXIT_USAGE,
            fatal=False,
        )


def execute(request: Request, datapath: Datapath) -> Iterable[str]:
    """Do what the request asks and return the lines to print, which are made as they are taken.

    Unless the answer `streams`, they no longer need the data plane.  Raises
    `TableError` when the data plane refuses.
    """
    command = request.command
    if command == grammar.LIST:
        return _list(request, datapath)
    if command == grammar.SAVE:
        return _save(request, datapath)
    if command == grammar.ADD_SERVICE:
        datapath.add_service(request.service())
    elif command == grammar.EDIT_SERVICE:
        datapath.edit_service(request.service())
    elif command == grammar.DELETE_SERVICE:
        datapath.delete_service(request.service_key())
    elif command == grammar.ADD_SERVER:
        datapath.add_destination(request.service_key(), request.destination())
    elif command == grammar.EDIT_SERVER:
        datapath.edit_destination(request.service_key(), request.destination())
    elif command == grammar.DELETE_SERVER:
        datapath.delete_destination(request.service_key(), request.real_address, request.real_port)
    elif command == grammar.FLUSH:
        datapath.flush()
    elif command == grammar.ZERO:
        datapath.zero(request.service_key() if _zeroes_one(request) else None)
    elif command == grammar.SET:
        datapath.set_timeouts(request.timeouts)
    elif command == grammar.STOP_DAEMON:
        raise TableError("No daemon is running")  # there never is one
    else:
        raise AssertionError(f"the command {command} is carried out elsewhere")
    return ()


def refusal(error: TableError, request: Request) -> tuple[str, int]:
    """ipvsadm's text and exit status for what a data plane refused.

    The data plane's hint, if it has one, follows on a line of its own.
    """
    status = EXIT_LISTING if request.command == grammar.LIST else EXIT_REFUSED
    if isinstance(error, NotSupported):
        text, status = error.message, EXIT_USAGE
    elif isinstance(error, NoSuchService):
        text = "Service not defined" if request.command in _SERVER_COMMANDS else "No such service"
    elif isinstance(error, ServiceExists):
        text = "Service already exists"
    elif isinstance(error, SchedulerNotFound):
        text = "Scheduler or persistence engine not found"
    elif isinstance(error, DestinationExists):
        text = "Destination already exists"
    elif isinstance(error, NoSuchDestination):
        text = "No such destination"
    elif isinstance(error, OutOfRange):
        text = "Numerical result out of range"
    elif isinstance(error, InvalidOperation):
        text = "Invalid operation.  Possibly wrong module version, address not unicast, ..."
    else:
        text = error.message
    return (f"{text}\n{error.hint}" if error.hint else text), status


def _zeroes_one(request: Request) -> bool:
    # ipvsadm asks for the whole table when the service's address and port are zero.
    return bool(request.fwmark or request.port or any(request.address))


def _listing_style(request: Request) -> str:
    return next((style for style in listing.STYLES if style in request.options), listing.PLAIN)


_COUNTED = {listing.STATS: rows.STATS, listing.RATE: rows.RATES}


def _list(request: Request, datapath: Datapath) -> Iterable[str]:
    options = request.options
    if "json" in options:
        return _list_as_json(request, datapath)
    form = listing.Format(
        _listing_style(request),
        numeric="numeric" in options,
        exact="exact" in options,
        sort="nosort" not in options,
        extended="extended" in options,
    )
    counted = _COUNTED.get(form.style, rows.NOTHING)
    if "connection" in options:
        return listing.connections(_connection_rows(request, datapath), form)
    if request.has_service():
        return listing.table([rows.row_of(datapath.service(request.service_key()), counted)], form)
    if "timeout" in options:
        return (listing.timeouts_line(datapath.timeouts()),)
    if "daemon" in options:
        return ()  # a line for each that runs
    version_line = listing.version_line(datapath.version(), datapath.size())
    return _after(version_line, listing.table(datapath.table(counted), form))


def _save(request: Request, datapath: Datapath) -> Iterable[str]:
    extended = "extended" in request.options
    form = listing.Format(numeric="numeric" in request.options, extended=extended)
    saved = listing.saved_table(datapath.table(), form)
    return _after(listing.saved_timeouts(datapath.timeouts()), saved) if extended else saved


def _connection_rows(request: Request, datapath: Datapath) -> Iterable[Sequence[rows.ConnectionRow]]:
    if not request.connection_tests:
        return datapath.connection_rows()
    return ([rows.connection_row(one)] for one in _connections(request, datapath))


def _connections(request: Request, datapath: Datapath) -> Iterable[Connection]:
    if not request.connection_tests:
        return datapath.connections()
    from xlvs.cli.connection_filter import chosen

    return chosen(datapath.connections(), request.connection_tests)


def _list_as_json(request: Request, datapath: Datapath) -> Iterable[str]:
    from xlvs.cli import listing_json

    options = request.options
    if "connection" in options:
        return listing_json.connections(_connections(request, datapath))
    if "timeout" in options:
        return listing_json.timeouts(datapath.timeouts())
    if "daemon" in options:
        return listing_json.daemons()
    one = request.has_service()
    return listing_json.table(
        [datapath.service(request.service_key())] if one else datapath.services(),
        datapath.version(),
        datapath.size(),
        stats="stats" in options,
        rates="rate" in options,
        sort="nosort" not in options,
    )


def _after(first: str, rest: Iterable[str]) -> Iterable[str]:
    yield first
    yield from rest
