# SPDX-License-Identifier: GPL-2.0-only
"""The command line of xlvsd: keepalived's options, read as getopt_long(3) reads them.

One table has every option, what it does here, and a word for those that do
nothing here or cannot be had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from xlvs.errors import UsageError

DEFAULT_FILE = "/etc/keepalived/keepalived.conf"


class Argument(Enum):
    """What follows an option."""

    NONE = 0
    REQUIRED = 1
    OPTIONAL = 2


@dataclass(frozen=True, slots=True)
class Option:
    """An option.  With ``refusal`` it ends the command, with ``remark`` it is taken and noted."""

    short: str
    long: str
    meaning: str
    argument: Argument = Argument.NONE
    value: str = ""
    remark: str = ""
    refusal: str = ""


_ONE_PROCESS = "xlvsd is one process"
_NO_VRRP = "xlvsd runs no VRRP"
_NO_SNMP = "xlvsd has no SNMP agent"

OPTIONS = (
    Option("f", "use-file", "Read that configuration", Argument.REQUIRED, "FILE"),
    Option("t", "config-test", "Test the configuration and say what is wrong", Argument.OPTIONAL, "LOGFILE"),
    Option("n", "dont-fork", "Stay in the foreground"),
    Option("l", "log-console", "Log to standard error"),
    Option("D", "log-detail", "Log more"),
    Option(
        "S", "log-facility", "Log by that syslog facility", Argument.REQUIRED, "0-7|local0-7|user|daemon"
    ),
    Option("G", "no-syslog", "Do not log to syslog"),
    Option("I", "dont-release-ipvs", "Leave the table as it is at the end"),
    Option("i", "config-id", "What @ID lines are compared with", Argument.REQUIRED, "ID"),
    Option("e", "all-config", "Each include must find what it names"),
    Option("p", "pid", "Write the process's number there", Argument.REQUIRED, "FILE"),
    Option("u", "umask", "The mask for files that are written", Argument.REQUIRED, "MASK"),
    Option(
        "",
        "datapath",
        "Keep the table of xlvs's packet path (the default), or that of kernel IPVS",
        Argument.REQUIRED,
        "ebpf|kernel",
    ),
    Option("C", "check", "Health checks and the table only: all that xlvsd does"),
    Option("m", "core-dump", "Allow a core dump"),
    Option(
        "",
        "signum",
        "Print a signal's number: STOP, RELOAD, DATA, STATS, STATS_CLEAR, JSON",
        Argument.REQUIRED,
        "NAME",
    ),
    Option("v", "version", "Print the version"),
    Option("h", "help", "Print this"),
    Option("P", "vrrp", "VRRP only", refusal=f"{_NO_VRRP}: run `keepalived -P` beside it"),
    Option(
        "s",
        "namespace",
        "Run in that network namespace",
        Argument.REQUIRED,
        "NAME",
        refusal="start it there: ip netns exec NAME xlvsd",
    ),
    Option("T", "genhash", "Print a page's digest", refusal="use: curl -s URL | md5sum"),
    Option("B", "no_bfd", "Keep no BFD sessions: each BFD_CHECK fails"),
    Option("", "all", "Run all processes", remark=_ONE_PROCESS),
    Option("R", "dont-respawn", "Do not restart processes", remark=f"{_ONE_PROCESS}; systemd restarts it"),
    Option("d", "dump-conf", "Dump the configuration", remark="send SIGUSR1 for what it has"),
    Option("X", "release-vips", "Release VIPs", remark=_NO_VRRP),
    Option("V", "dont-release-vrrp", "Keep VIPs", remark=_NO_VRRP),
    Option("r", "vrrp_pid", "VRRP's number", Argument.REQUIRED, "FILE", remark=_ONE_PROCESS),
    Option(
        "c",
        "checkers_pid",
        "The checkers' number",
        Argument.REQUIRED,
        "FILE",
        remark=f"{_ONE_PROCESS}: use -p",
    ),
    Option("b", "bfd_pid", "BFD's number", Argument.REQUIRED, "FILE", remark=_ONE_PROCESS),
    Option("a", "address-monitoring", "Log addresses that come and go", remark="see `ip monitor address`"),
    Option("x", "snmp", "SNMP", remark=_NO_SNMP),
    Option("A", "snmp-agent-socket", "Its socket", Argument.REQUIRED, "SOCKET", remark=_NO_SNMP),
    Option(
        "M",
        "core-dump-pattern",
        "Where core dumps go",
        Argument.OPTIONAL,
        "PATTERN",
        remark="set kernel.core_pattern yourself",
    ),
)
"""Every option, in the order in which the help has them."""

_BY_SHORT = {option.short: option for option in OPTIONS if option.short}
_BY_LONG = {option.long: option for option in OPTIONS}


@dataclass(slots=True)
class CommandLine:
    """What was asked for: for each long option the value that was given last, empty where it takes none."""

    values: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    """A line for each option that does nothing here."""

    def has(self, name: str) -> bool:
        """Was that option given?"""
        return name in self.values


def read_options(arguments: Sequence[str]) -> CommandLine:
    """Read a command line.  `UsageError` for what is unknown, incomplete or cannot be had."""
    line = CommandLine()
    for option, value in _options(list(arguments)):
        shown = f"-{option.short}" if option.short else f"--{option.long}"
        if option.refusal:
            raise UsageError(f"{shown} ({option.long}) is not supported: {option.refusal}")
        if option.remark:
            line.remarks.append(f"{shown} ({option.long}) does nothing here: {option.remark}")
        line.values[option.long] = value
        line.counts[option.long] = line.counts.get(option.long, 0) + 1
    return line


def _options(arguments: list[str]) -> Iterator[tuple[Option, str]]:
    """The options of a command line with their values."""
    arguments.reverse()
    while arguments:
        word = arguments.pop()
        if word == "--":
            break
        if word.startswith("--"):
            yield _long(word, arguments)
        elif word.startswith("-") and word != "-":
            yield from _cluster(word, arguments)
        else:
            arguments.append(word)
            break
    if arguments:
        raise UsageError(f"Unexpected argument(s): {' '.join(reversed(arguments))}")


def _long(word: str, arguments: list[str]) -> tuple[Option, str]:
    """A long option, whole or as far as it is unambiguous."""
    name, equals, value = word[2:].partition("=")
    matches = [one for long, one in _BY_LONG.items() if long.startswith(name)]
    exact = _BY_LONG.get(name)
    if exact is None and len(matches) != 1:
        raise UsageError(f"Unknown option {word}")
    option = exact or matches[0]
    if equals and option.argument is Argument.NONE:
        raise UsageError(f"Option --{option.long} takes no value")
    if option.argument is Argument.REQUIRED:
        if not equals and arguments:
            value = arguments.pop()
        if not value:
            raise UsageError(f"Missing parameter for option --{option.long}")
    return option, value


def _cluster(word: str, arguments: list[str]) -> Iterator[tuple[Option, str]]:
    """Short options in one word; the first that takes a value takes the rest of it."""
    for index, letter in enumerate(word[1:], 2):
        option = _BY_SHORT.get(letter)
        if option is None:
            raise UsageError(f"Unknown option -{letter}")
        if option.argument is Argument.NONE:
            yield option, ""
            continue
        value = word[index:]
        if option.argument is Argument.REQUIRED and not value:
            if not arguments:
                raise UsageError(f"Missing parameter for option -{letter}")
            value = arguments.pop()
        yield option, value
        return


def usage() -> str:
    """The help."""
    lines = [
        "usage: xlvsd [OPTION]...",
        "",
        "Virtual servers with health checks, configured by keepalived.conf.",
        "",
    ]
    for option in OPTIONS:
        short = f"-{option.short}," if option.short else "   "
        value = {
            Argument.NONE: "",
            Argument.REQUIRED: f"={option.value}",
            Argument.OPTIONAL: f"[={option.value}]",
        }
        head = f"  {short} --{option.long}{value[option.argument]}"
        why = option.refusal or option.remark
        fate = "not supported: " if option.refusal else "does nothing here: "
        meaning = f"{option.meaning} ({fate}{why})" if why else option.meaning
        lines.append(f"{head:<30} {meaning}" if len(head) < 30 else f"{head}\n{'':<30} {meaning}")
    lines += [
        "",
        f"The configuration is {DEFAULT_FILE} unless -f names another.",
        "",
        "examples:",
        "  xlvsd -t                      test the configuration; 0: good, 5: faulty, 4: unusable",
        "  xlvsd -t -f new.conf          test another one",
        "  xlvsd -n -l                   run in the foreground, log to standard error",
        "  xlvsd -n -l --datapath kernel the same, with kernel IPVS",
        "  kill -HUP $(pidof xlvsd)      reload",
    ]
    return "\n".join(lines) + "\n"
