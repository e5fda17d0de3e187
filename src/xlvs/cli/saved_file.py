# SPDX-License-Identifier: GPL-2.0-only
"""The file of `xlvs save` and `xlvs load`: a table as the commands that make it.

Reading it makes a `MemoryDatapath`, whose rules are the kernel's: a file that
could not be loaded is found out before anything is touched.
"""

from __future__ import annotations

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.address import format_endpoint
from xlvs.cli.ipvsadm_execute import execute, refusal
from xlvs.cli.ipvsadm_grammar import CommandLineError
from xlvs.cli.ipvsadm_parse import parse
from xlvs.cli.mark_rule import format_line, parse_lines
from xlvs.cli.sysctl import short_name
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import TableError, UsageError, XlvsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xlvs.datapath.interface import Datapath
    from xlvs.model import ServiceEntry, ServiceKey

    Wanted = MemoryDatapath

_PROGRAMS = ("ipvsadm", "xlvsadm")
_MARK_WORDS = ("xlvs", "mark")
_SYSCTL_WORDS = ("xlvs", "sysctl")
_BUILDERS = (grammar.ADD_SERVICE, grammar.ADD_SERVER, grammar.SET)


def write(datapath: Datapath) -> Iterator[str]:
    """The lines of the file."""
    yield "# Written by `xlvs save`, for `xlvs load`.\n"
    timeouts = datapath.timeouts()
    yield f"ipvsadm --set {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}\n"
    thresholds = {
        (entry.service.key, one.destination.address, one.destination.port): one.destination
        for entry in datapath.services()
        for one in entry.destinations
        if one.destination.upper_threshold or one.destination.lower_threshold
    }
    # A chunk may have several lines.
    for saved in "".join(execute(parse(["-S", "-n"], "ipvsadm"), datapath)).splitlines():
        line, bounds = _with_readable_mark(saved), ""
        if thresholds and line.startswith("-a "):  # which ipvsadm does not save
            request = parse(line.split(), "ipvsadm")
            place = (request.service_key(), request.real_address, request.real_port)
            if place in thresholds:
                destination = thresholds[place]
                bounds = f" -x {destination.upper_threshold} -y {destination.lower_threshold}"
        yield f"ipvsadm {line}{bounds}\n"
    for rule in datapath.mark_rules():
        yield f"{' '.join(_MARK_WORDS)} {format_line(rule)}\n"
    defaults = MemoryDatapath().sysctls()
    for name, value in datapath.sysctls().items():
        if value != defaults.get(name, value):
            yield f"{' '.join(_SYSCTL_WORDS)} {name}={value}\n"


def _with_readable_mark(line: str) -> str:
    """Mend what ipvsadm saves of marks from 2^31 on: negative numbers, which it does not take again."""
    command, option, value, *rest = line.split()
    if option == "-f" and value.startswith("-"):
        return " ".join([command, option, str(int(value) + (1 << 32)), *rest])
    return line


def read(text: str, name: str) -> MemoryDatapath:
    """The table that a file of that name describes; raises `UsageError` with the line that is wrong."""
    table = MemoryDatapath()
    rules = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if tuple(words[:2]) == _MARK_WORDS:
                rules += parse_lines(" ".join(words[2:]))
                table.set_mark_rules(rules)
            elif tuple(words[:2]) == _SYSCTL_WORDS:
                _set(words[2:], table)
            else:
                _carry_out(words[1:] if words[0] in _PROGRAMS else words, table)
        except XlvsError as error:
            raise UsageError(
                f"{name}, line {number}: {error.message.removeprefix('line 1: ').strip()}",
                error.hint or "Nothing was changed.",
            ) from error
    return table


def _carry_out(words: list[str], table: MemoryDatapath) -> None:
    request = parse(words, "ipvsadm")
    if request.command not in _BUILDERS:
        raise CommandLineError(f"a table is made of -A, -a and --set, not of {words[0]}")
    try:
        execute(request, table)
    except TableError as error:
        raise UsageError(refusal(error, request)[0]) from error


def _set(words: list[str], table: MemoryDatapath) -> None:
    for word in words:
        typed, equals, value = word.partition("=")
        name = short_name(typed)
        if not equals or name not in table.sysctls():
            raise UsageError(f"IPVS has no setting like {word}", "See them all: xlvs sysctl")
        table.set_sysctls({name: value})


def bring_about(wanted: MemoryDatapath, datapath: Datapath) -> None:
    """Make a data plane's table the one that is wanted.

    What is there already is left alone.  Raises `TableError` with the table as
    it was, if the data plane refuses something that IPVS knows.
    """
    before = MemoryDatapath(datapath.services())
    before.set_timeouts(datapath.timeouts())
    before.set_mark_rules(datapath.mark_rules())
    before.set_sysctls(_changed(datapath, MemoryDatapath()))
    try:
        _bring_about(wanted, datapath)
    except TableError:
        _bring_about(before, datapath)
        raise


def _bring_about(wanted: MemoryDatapath, datapath: Datapath) -> None:
    there = {entry.service.key: entry for entry in datapath.services()}
    for entry in wanted.services():
        try:
            _bring_service_about(entry, there.pop(entry.service.key, None), datapath)
        except TableError as error:
            raise type(error)(f"{_name(entry.service.key)}: {error.message}", error.hint) from error
    for key in there:
        datapath.delete_service(key)
    datapath.set_timeouts(wanted.timeouts())
    if datapath.mark_rules() != wanted.mark_rules():
        datapath.set_mark_rules(wanted.mark_rules())
    changed = _changed(wanted, datapath)
    if changed:
        datapath.set_sysctls(changed)


def _changed(wanted: Datapath, there: Datapath) -> dict[str, str]:
    """The settings of IPVS to make, where they are not so already."""
    now = there.sysctls()
    return {name: value for name, value in wanted.sysctls().items() if now.get(name, value) != value}


def _name(key: ServiceKey) -> str:
    return f"mark {key.fwmark}" if key.fwmark else format_endpoint(key.address, key.port)


def _bring_service_about(wanted: ServiceEntry, there: ServiceEntry | None, datapath: Datapath) -> None:
    key = wanted.service.key
    if there is None:
        datapath.add_service(wanted.service)
    elif there.service != wanted.service:
        datapath.edit_service(wanted.service)
    old = {}
    if there is not None:
        old = {
            (one.destination.address, one.destination.port): one.destination for one in there.destinations
        }
    # The newest stands first; adding them from the other end makes the same order.
    for entry in reversed(wanted.destinations):
        destination = entry.destination
        known = old.pop((destination.address, destination.port), None)
        try:
            if known is None:
                datapath.add_destination(key, destination)
            elif known != destination:
                datapath.edit_destination(key, destination)
        except TableError as error:
            server = format_endpoint(destination.address, destination.port)
            raise type(error)(f"real server {server}: {error.message}", error.hint) from error
    for address, port in old:
        datapath.delete_destination(key, address, port)
