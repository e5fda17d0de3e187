# SPDX-License-Identifier: GPL-2.0-only
"""From a command line of ipvsadm to a request: every check it makes by itself.

Options are taken in their order, as ipvsadm takes them, because the order
shows: ``-M`` before an IPv6 service is an IPv4 mask, ``-r`` before ``-t``
finds no port to inherit, and of two faults the first is reported.  Nothing
here asks a data plane or prints.  (ipvsadm 1.31: ``parse_options`` and
``process_options``.)
"""

from __future__ import annotations

import os

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.address import (
    leading_number,
    parse_endpoint,
    parse_group,
    parse_host,
    string_to_number,
)
from xlvs.cli.ipvsadm_grammar import EXIT_REFUSED, CommandLineError
from xlvs.cli.ipvsadm_request import Request
from xlvs.cli.popt import Parser, PoptError
from xlvs.model import (
    DEFAULT_SCHEDULER,
    IPV4,
    IPV6,
    MASQUERADE,
    MAX_WEIGHT,
    ROUTE,
    SCTP,
    TCP,
    TUNNEL,
    UDP,
    Timeouts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_TIMEOUT = 31 * 86400
"""The longest timeout that can be set, in seconds."""
DEFAULT_PERSISTENCE = 360
"""What a bare ``-p`` means, in seconds (ipvsadm's help says 300)."""

_C_INT_MAX = 2147483647
_LONGEST_SCHEDULER = 15
_LONGEST_ENGINE = 16
_LONGEST_SCHEDULER_FLAGS = 127
_LONGEST_INTERFACE = 15

_PROTOCOLS = {"tcp-service": TCP, "udp-service": UDP, "sctp-service": SCTP}
_METHODS = {"masquerading": MASQUERADE, "ipip": TUNNEL, "gatewaying": ROUTE}

SCHEDULER_FLAGS = {
    "flag-1": ("", 1),
    "flag-2": ("", 2),
    "flag-3": ("", 4),
    "sh-fallback": ("sh", 1),
    "sh-port": ("sh", 2),
    "mh-fallback": ("mh", 1),
    "mh-port": ("mh", 2),
}
"""Names of ``-b``: the scheduler they belong to (any if empty), and their bit."""


def parse(arguments: Sequence[str], program: str) -> Request:
    """Turn a command line, without the program's name, into a checked request.

    Raises `CommandLineError` with ipvsadm's text and exit status.
    """
    parser = Parser(grammar.OPTIONS, arguments, posix=_posix_wanted())
    request = Request()
    _take_command(parser, request, program)
    if request.command in (grammar.HELP, grammar.VERSION):
        # ipvsadm looks at nothing that follows.
        if "--extended" in arguments:
            request.options.add("extended")
        return request
    try:
        for option, value in parser:
            _take_option(parser, request, option.name, value)
    except PoptError as error:
        raise CommandLineError(str(error), EXIT_REFUSED, fatal=False) from None
    _take_leftovers(parser.leftovers, request)
    if request.scheduler_flags_text:
        request.scheduler_flags = _scheduler_flags(request)
    grammar.check_command(request.command, request.options)
    _check_service(request)
    _check_server(request)
    if request.command == grammar.LIST:
        _check_listing(request.options)
        if request.connection_tests and "connection" not in request.options:
            raise CommandLineError(
                "--only-service, --only-server and --only-client choose connections: add -c"
            )
    return request


def try_help(program: str) -> CommandLineError:
    """The fault of a command line that does not begin with a command."""
    return CommandLineError(f"Try `{program} -h' or '{program} --help' for more information.", EXIT_REFUSED)


def _posix_wanted() -> bool:
    return "POSIXLY_CORRECT" in os.environ or "POSIX_ME_HARDER" in os.environ


def _take_command(parser: Parser, request: Request, program: str) -> None:
    try:
        option, value = next(parser)
    except (PoptError, StopIteration):
        raise try_help(program) from None
    command = grammar.COMMANDS.get(option.name)
    if command is None:
        raise try_help(program)
    request.command = command
    if value is not None:
        if value not in ("master", "backup"):
            start = command == grammar.START_DAEMON
            raise CommandLineError(
                "illegal start-daemon parameter specified" if start else "illegal start_daemon specified"
            )
        request.daemon_state = value


def _take_option(parser: Parser, request: Request, name: str, value: str | None) -> None:
    if name in grammar.COMMANDS:
        raise CommandLineError(f"invalid option `{parser.current()}'")
    if name not in grammar.UNCHECKED:
        known_as = grammar.MATRIX_NAMES.get(name, name)
        if known_as in request.options:
            raise CommandLineError(f"multiple '{known_as}' options specified")
        request.options.add(known_as)
    handler = _HANDLERS.get(name)
    if handler is not None:
        handler(request, name, value or "")
    elif name == "persistent":
        request.persistence = DEFAULT_PERSISTENCE if value is None else _timeout(value, 1)


def _take_leftovers(leftovers: Sequence[str], request: Request) -> None:
    if request.command == grammar.SET:
        if len(leftovers) < 3:
            raise CommandLineError("--set option requires 3 timeout values")
        request.timeouts = Timeouts(*(_timeout(text, 0) for text in leftovers[:3]))
        leftovers = leftovers[3:]
    if leftovers:
        raise CommandLineError(f"unexpected argument {leftovers[0]}")


def _timeout(text: str, low: int) -> int:
    seconds = string_to_number(text, low, MAX_TIMEOUT)
    if seconds is None:
        raise CommandLineError(f"invalid timeout value `{text}' specified")
    return seconds


# Handlers of the options that carry something: (request, long name, value).


def _take_service(request: Request, name: str, value: str) -> None:
    request.protocol = _PROTOCOLS[name]
    endpoint = parse_endpoint(value, request.protocol)
    if endpoint is None:
        raise CommandLineError("illegal virtual server address[:port] specified")
    request.address, port = endpoint
    request.port = port or 0
    request.family = IPV4 if len(request.address) == 4 else IPV6
    if request.family == IPV6:
        request.netmask = 128


def _take_fwmark(request: Request, _name: str, value: str) -> None:
    fwmark = string_to_number(value, 1, 0xFFFFFFFF)
    if fwmark is None:
        raise CommandLineError(f"invalid fwmark value `{value}' specified")
    request.family = IPV4
    # The kernel does not look at it, but a port's name is looked up by it.
    request.protocol = TCP
    request.fwmark = fwmark


def _take_ipv6(request: Request, _name: str, _value: str) -> None:
    if not request.fwmark:
        error = CommandLineError("-6 used before -f")
        error.message += "\n"  # ipvsadm ends this one twice
        raise error
    request.family = IPV6
    request.netmask = 128


def _take_scheduler(request: Request, _name: str, value: str) -> None:
    request.scheduler = value[:_LONGEST_SCHEDULER]


def _take_scheduler_flags(request: Request, _name: str, value: str) -> None:
    # They are checked last: -s may still follow.
    request.scheduler_flags_text = value[:_LONGEST_SCHEDULER_FLAGS]


def _take_netmask(request: Request, _name: str, value: str) -> None:
    if request.family == IPV6:
        prefix = leading_number(value)
        if not 1 <= prefix <= 128:
            raise CommandLineError("illegal ipv6 netmask specified")
        request.netmask = prefix
        return
    mask = parse_host(value)
    if mask is None:
        raise CommandLineError("illegal virtual server persistent mask specified")
    request.netmask = mask


def _take_engine(request: Request, _name: str, value: str) -> None:
    request.engine = value[:_LONGEST_ENGINE]


def _take_one_packet(request: Request, _name: str, _value: str) -> None:
    request.one_packet = True


def _take_idle_timeout(request: Request, _name: str, value: str) -> None:
    request.idle_timeout = _timeout(value, 1)


def _take_real_server(request: Request, _name: str, value: str) -> None:
    endpoint = parse_endpoint(value, request.protocol)
    if endpoint is None:
        raise CommandLineError("illegal real server address[:port] specified")
    request.real_address, port = endpoint
    request.real_port = request.port if port is None else port


def _take_method(request: Request, name: str, _value: str) -> None:
    request.method = _METHODS[name]


def _number(value: str, low: int, high: int, what: str) -> int:
    number = string_to_number(value, low, high)
    if number is None:
        raise CommandLineError(f"illegal {what} specified")
    return number


def _take_weight(request: Request, _name: str, value: str) -> None:
    request.weight = _number(value, 0, MAX_WEIGHT, "weight")


def _take_upper_threshold(request: Request, _name: str, value: str) -> None:
    request.upper_threshold = _number(value, 0, _C_INT_MAX, "u_threshold")


def _take_lower_threshold(request: Request, _name: str, value: str) -> None:
    request.lower_threshold = _number(value, 0, _C_INT_MAX, "l_threshold")


def _take_tunnel_kind(request: Request, _name: str, value: str) -> None:
    if value not in grammar.TUNNEL_RULES:
        raise CommandLineError("illegal tunnel type specified")
    request.tunnel_kind = value


def _take_tunnel_port(request: Request, _name: str, value: str) -> None:
    request.tunnel_port = _number(value, 1, 65535, "tunnel port")


def _take_tunnel_checksum(request: Request, name: str, _value: str) -> None:
    request.tunnel_checksum = name.removeprefix("tun-")


_DAEMON_RANGES = {
    "syncid": (0, 255),
    "mcast-port": (1, 65535),
    "mcast-ttl": (1, 255),
    "sync-maxlen": (1, 65535 - 20 - 8),
}


def _take_daemon_number(request: Request, name: str, value: str) -> None:
    request.daemon_numbers[name] = _number(value, *_DAEMON_RANGES[name], name)


def _take_daemon_interface(request: Request, _name: str, value: str) -> None:
    request.daemon_interface = value[:_LONGEST_INTERFACE]


def _take_daemon_group(request: Request, _name: str, value: str) -> None:
    group = parse_group(value)
    if group is None:
        family = "IPv6" if ":" in value else "IPv4"
        raise CommandLineError(f"invalid {family} mcast-group `{value}'")
    request.daemon_group = group


def _take_connection_test(request: Request, name: str, value: str) -> None:
    from xlvs.cli.connection_filter import parse_filter

    request.connection_tests.append(parse_filter(name, value))


_HANDLERS: dict[str, Callable[[Request, str, str], None]] = {
    "tcp-service": _take_service,
    "udp-service": _take_service,
    "sctp-service": _take_service,
    "fwmark-service": _take_fwmark,
    "ipv6": _take_ipv6,
    "scheduler": _take_scheduler,
    "sched-flags": _take_scheduler_flags,
    "netmask": _take_netmask,
    "pe": _take_engine,
    "ops": _take_one_packet,
    "idle-timeout": _take_idle_timeout,
    "real-server": _take_real_server,
    "masquerading": _take_method,
    "ipip": _take_method,
    "gatewaying": _take_method,
    "weight": _take_weight,
    "u-threshold": _take_upper_threshold,
    "l-threshold": _take_lower_threshold,
    "tun-type": _take_tunnel_kind,
    "tun-port": _take_tunnel_port,
    "tun-nocsum": _take_tunnel_checksum,
    "tun-csum": _take_tunnel_checksum,
    "tun-remcsum": _take_tunnel_checksum,
    "syncid": _take_daemon_number,
    "mcast-port": _take_daemon_number,
    "mcast-ttl": _take_daemon_number,
    "sync-maxlen": _take_daemon_number,
    "mcast-interface": _take_daemon_interface,
    "mcast-group": _take_daemon_group,
    "only-service": _take_connection_test,
    "only-server": _take_connection_test,
    "only-client": _take_connection_test,
}


# Checks of the whole command line, in ipvsadm's order.


def _scheduler_flags(request: Request) -> int:
    scheduler = request.scheduler or DEFAULT_SCHEDULER
    names = [name for name in request.scheduler_flags_text.split(",") if name]
    if not names:  # ipvsadm crashes on a list of commas
        names = [request.scheduler_flags_text]
    bits = 0
    for name in names:
        if name not in SCHEDULER_FLAGS:
            raise CommandLineError(f"invalid scheduler flag `{name}'")
        owner, bit = SCHEDULER_FLAGS[name]
        if owner and owner != scheduler:
            raise CommandLineError(f"incompatible scheduler flag `{name}'")
        bits |= bit
    return bits


def _check_service(request: Request) -> None:
    if request.command not in (grammar.ADD_SERVICE, grammar.EDIT_SERVICE):
        return
    if not request.fwmark and not request.port and not request.persistence:
        raise CommandLineError("Zero port specified for non-persistent service")
    if request.one_packet and not request.fwmark and request.protocol != UDP:
        raise CommandLineError("One-Packet Scheduling is only for UDP virtual services")
    request.scheduler = request.scheduler or DEFAULT_SCHEDULER


def _check_server(request: Request) -> None:
    if request.command not in (grammar.ADD_SERVER, grammar.EDIT_SERVER):
        return
    # Direct Routing and tunnelling leave the port as it is, so it is the service's.
    if not request.fwmark and request.method in (ROUTE, TUNNEL):
        request.real_port = request.port
    real_family = IPV4 if len(request.real_address) == 4 else IPV6
    if real_family != request.family and request.method != TUNNEL:
        raise CommandLineError("Different address family is allowed only for tunneling servers")
    if request.method != TUNNEL and request.options.intersection(grammar.TUNNEL_OPTIONS):
        raise CommandLineError("Tunnel options conflict with forward method")
    grammar.check_tunnel(request.tunnel_kind, request.options)


def _check_listing(options: set[str]) -> None:
    special = options & {"connection", "timeout", "daemon"}
    counters = options & {"stats", "rate", "thresholds"}
    if (special and counters) or (options & {"timeout", "daemon"} and "persistent-conn" in options):
        raise CommandLineError("options conflicts in the list command")
