# SPDX-License-Identifier: GPL-2.0-only
"""ipvsadm's whole grammar as tables: its options, and which command takes which.

Data and the one check that reads it.  What a value must look like is
`xlvs.cli.ipvsadm_parse`'s business.  (ipvsadm 1.31: the option table and
the two matrices ``commands_v_options`` and ``tunnel_types_v_options``.)
"""

from __future__ import annotations

from xlvs.cli.popt import OPTIONAL_ARGUMENT, REQUIRED_ARGUMENT, Option, OptionTable
from xlvs.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

EXIT_USAGE = 2
EXIT_REFUSED = 255
"""What a shell sees of the -1 with which ipvsadm reports popt's and the kernel's refusals."""

# Commands, named as ipvsadm's messages name them.
ADD_SERVICE = "add-service"
EDIT_SERVICE = "edit-service"
DELETE_SERVICE = "delete-service"
FLUSH = "flush"
LIST = "list"
ADD_SERVER = "add-server"
DELETE_SERVER = "delete-server"
EDIT_SERVER = "edit-server"
SET = "set"
START_DAEMON = "start-daemon"
STOP_DAEMON = "stop-daemon"
RESTORE = "restore"
SAVE = "save"
ZERO = "zero"
HELP = "help"
VERSION = "version"

COMMANDS = {
    "add-service": ADD_SERVICE,
    "edit-service": EDIT_SERVICE,
    "delete-service": DELETE_SERVICE,
    "clear": FLUSH,
    "list": LIST,
    "zero": ZERO,
    "add-server": ADD_SERVER,
    "edit-server": EDIT_SERVER,
    "delete-server": DELETE_SERVER,
    "set": SET,
    "help": HELP,
    "version": VERSION,
    "restore": RESTORE,
    "save": SAVE,
    "start-daemon": START_DAEMON,
    "stop-daemon": STOP_DAEMON,
}
"""The command that each long option stands for.  It must be the first option."""

OPTIONS = OptionTable(
    (
        Option("add-service", "A"),
        Option("edit-service", "E"),
        Option("delete-service", "D"),
        Option("clear", "C"),
        Option("list", "L"),
        Option("list", "l"),
        Option("zero", "Z"),
        Option("add-server", "a"),
        Option("edit-server", "e"),
        Option("delete-server", "d"),
        Option("set"),
        Option("help", "h"),
        Option("version", "v"),
        Option("restore", "R"),
        Option("save", "S"),
        Option("start-daemon", "", REQUIRED_ARGUMENT),
        Option("stop-daemon", "", REQUIRED_ARGUMENT),
        Option("tcp-service", "t", REQUIRED_ARGUMENT),
        Option("udp-service", "u", REQUIRED_ARGUMENT),
        Option("sctp-service", "", REQUIRED_ARGUMENT),
        Option("fwmark-service", "f", REQUIRED_ARGUMENT),
        Option("scheduler", "s", REQUIRED_ARGUMENT),
        Option("persistent", "p", OPTIONAL_ARGUMENT),
        Option("netmask", "M", REQUIRED_ARGUMENT),
        Option("real-server", "r", REQUIRED_ARGUMENT),
        Option("masquerading", "m"),
        Option("ipip", "i"),
        Option("gatewaying", "g"),
        Option("weight", "w", REQUIRED_ARGUMENT),
        Option("u-threshold", "x", REQUIRED_ARGUMENT),
        Option("l-threshold", "y", REQUIRED_ARGUMENT),
        Option("numeric", "n"),
        Option("connection", "c"),
        Option("mcast-interface", "", REQUIRED_ARGUMENT),
        Option("syncid", "", REQUIRED_ARGUMENT),
        Option("timeout"),
        Option("daemon"),
        Option("stats"),
        Option("rate"),
        Option("thresholds"),
        Option("persistent-conn"),
        Option("nosort"),
        Option("sort"),
        Option("exact", "X"),
        Option("ipv6", "6"),
        Option("ops", "o"),
        Option("pe", "", REQUIRED_ARGUMENT),
        Option("sched-flags", "b", REQUIRED_ARGUMENT),
        Option("mcast-group", "", REQUIRED_ARGUMENT),
        Option("mcast-port", "", REQUIRED_ARGUMENT),
        Option("mcast-ttl", "", REQUIRED_ARGUMENT),
        Option("sync-maxlen", "", REQUIRED_ARGUMENT),
        Option("tun-info"),
        Option("tun-type", "", REQUIRED_ARGUMENT),
        Option("tun-port", "", REQUIRED_ARGUMENT),
        Option("tun-nocsum"),
        Option("tun-csum"),
        Option("tun-remcsum"),
        # ipvsadm has none of these.
        Option("atomic"),
        Option("extended"),
        Option("idle-timeout", "", REQUIRED_ARGUMENT),
        Option("reject-gone"),
        Option("rehome"),
        Option("json"),
        Option("only-service", "", REQUIRED_ARGUMENT),
        Option("only-server", "", REQUIRED_ARGUMENT),
        Option("only-client", "", REQUIRED_ARGUMENT),
    )
)

MATRIX_NAMES = {
    "tcp-service": "service-address",
    "udp-service": "service-address",
    "sctp-service": "service-address",
    "fwmark-service": "service-address",
    "masquerading": "forwarding-method",
    "ipip": "forwarding-method",
    "gatewaying": "forwarding-method",
}
"""The name under which the matrix knows a long option, where it is another one."""

UNCHECKED = frozenset(("sort", "ipv6"))
"""Options that the matrix does not know: any command takes them, any number of times."""

OPTION_ORDER = (
    "numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server",
    "forwarding-method", "weight", "u-threshold", "l-threshold", "mcast-interface", "timeout",
    "daemon", "stats", "rate", "thresholds", "persistent-conn", "nosort", "syncid", "exact", "ops",
    "pe", "sched-flags", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "tun-info",
    "tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum", "atomic", "extended",
    "idle-timeout", "reject-gone", "rehome", "json", "only-service", "only-server", "only-client",
)  # fmt: skip
"""The order in which faults are looked for, and so which of several is reported."""

TUNNEL_OPTIONS = ("tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum")


class CommandLineError(UsageError):
    """A fault in the command line, with ipvsadm's text and exit status.

    ``fatal`` faults end ipvsadm at once, also in the middle of a restore;
    the others fail one line of it.
    """

    def __init__(self, message: str, status: int = EXIT_USAGE, fatal: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.fatal = fatal


class Rules:
    """Which options a command or a tunnel type needs, may have, and may have one of."""

    __slots__ = ("exclusive", "permitted", "required")

    def __init__(self, required: str = "", optional: str = "", exclusive: str = "") -> None:
        self.required = frozenset(required.split())
        self.exclusive = frozenset(exclusive.split())
        self.permitted = self.required | self.exclusive | frozenset(optional.split())


_SERVICE_OPTIONS = "scheduler persistent netmask ops pe sched-flags idle-timeout reject-gone rehome"
_SERVER_OPTIONS = (
    "forwarding-method weight u-threshold l-threshold tun-type tun-port tun-nocsum tun-csum tun-remcsum"
)

COMMAND_RULES = {
    ADD_SERVICE: Rules("service-address", _SERVICE_OPTIONS),
    EDIT_SERVICE: Rules("service-address", _SERVICE_OPTIONS),
    DELETE_SERVICE: Rules("service-address"),
    FLUSH: Rules(),
    LIST: Rules(
        optional="numeric stats rate thresholds persistent-conn nosort syncid exact tun-info extended"
        " json only-service only-server only-client",
        exclusive="connection service-address timeout daemon",
    ),
    ADD_SERVER: Rules("service-address real-server", _SERVER_OPTIONS),
    DELETE_SERVER: Rules("service-address real-server"),
    EDIT_SERVER: Rules("service-address real-server", _SERVER_OPTIONS),
    SET: Rules(),
    START_DAEMON: Rules(optional="mcast-interface syncid mcast-group mcast-port mcast-ttl sync-maxlen"),
    STOP_DAEMON: Rules(optional="syncid"),
    RESTORE: Rules(optional="atomic extended"),
    SAVE: Rules(optional="numeric extended"),
    ZERO: Rules(optional="service-address"),
}

TUNNEL_RULES = {
    "ipip": Rules(),
    "gue": Rules("tun-port", exclusive="tun-nocsum tun-csum tun-remcsum"),
    "gre": Rules(exclusive="tun-nocsum tun-csum"),
}


def check_command(command: str, given: AbstractSet[str]) -> None:
    """Raise `CommandLineError` if the command does not go with the options given."""
    _check(OPTION_ORDER, COMMAND_RULES[command], given, f"'{command}' command")


def check_tunnel(kind: str, given: AbstractSet[str]) -> None:
    """Raise `CommandLineError` if the tunnel type does not go with the tunnel options given."""
    # The type itself is no option of the type: TUNNEL_OPTIONS[0] stays out.
    _check(TUNNEL_OPTIONS[1:], TUNNEL_RULES[kind], given, f"'{kind}' tunnel type")


def _check(order: tuple[str, ...], rules: Rules, given: AbstractSet[str], subject: str) -> None:
    exclusive = ""
    for name in order:
        if name not in given:
            if name in rules.required:
                raise CommandLineError(f"You need to supply the '{name}' option for the {subject}")
            continue
        if name not in rules.permitted:
            raise CommandLineError(f"Illegal '{name}' option with the {subject}")
        if name in rules.exclusive:
            if exclusive:
                raise CommandLineError(
                    f"The option '{name}' conflicts with the '{exclusive}' option in the {subject}"
                )
            exclusive = name
