# SPDX-License-Identifier: GPL-2.0-only
"""Random command lines of ipvsadm, right and wrong, over a table that evolves.

A session begins with an empty table.  It keeps a rough idea of what is there,
so that most lines mean something; names, spellings and order of the options
are drawn, and every fourth line or so is spoilt in some way.  Data only: what
carries the lines out is `command_player`.

Left out is what cannot be compared: what ends ipvsadm by a signal (``-b ,``),
clusters of addresses that make its order depend on the kernel's hash (they
must fit into half of the 32-bit circle), and what xlvs does not have and says
so (`REFUSED`), which has tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

REFUSED = (("--pe", "sip"), ("-M", "255.0.255.0"), ("--start-daemon", "master"))
"""Options with a value that ipvsadm carries out and xlvsadm refuses (docs/differences.md)."""

VIPS = ("192.0.2.1", "192.0.2.2", "192.0.2.10", "203.0.113.5", "www.example.com", "10.0.0.9")
VIPS6 = ("2001:db8::1", "2001:db8::10", "fd00::1")
PORTS = ("80", "80", "443", "53", "http", "https", "domain", "8080", "21", "65535")
SERVERS = (
    "10.0.0.11",
    "10.0.0.11",
    "10.0.0.12",
    "rs1.example.com",
    "172.16.0.1",
    "192.168.0.7",
    "10.0.0.254",
)
SERVERS6 = ("2001:db8::11", "2001:db8::11", "2001:db8::12", "fd00::11")
MARKS = ("1", "7", "7", "100", "2147483640", "4294967295")
SCHEDULERS = (
    "rr", "wrr", "lc", "wlc", "wlc", "lblc", "lblcr", "dh", "sh", "sh", "sed", "nq", "fo",
    "ovf", "mh", "mh", "none",
)  # fmt: skip
"""Those of Debian's kernel, which has no twos, and none at all."""
NO_SCHEDULERS = ("nosuch", "RR", "wlc ", "", "averyveryverylongschedulername")
FLAGS = {
    "sh": ("sh-port", "sh-fallback", "sh-port,sh-fallback", "flag-1", "flag-3,sh-port"),
    "mh": ("mh-port", "mh-fallback", "mh-fallback,mh-port", "flag-2"),
    "": ("flag-1", "flag-2,flag-3", "flag-1,flag-2,flag-3", "flag-2,"),
}
BAD_FLAGS = ("nope", "sh-port", "mh-port", "flag-4", "flag-1,nope", "flag-1 flag-2", "")
WEIGHTS = ("0", "1", "1", "2", "5", "100", "65535", "65536", "2147483647", "2147483648", "+3", " 4", "007")
THRESHOLDS = ("0", "1", "10", "100", "65535", "2147483647", "2147483648")
TIMEOUTS = ("0", "1", "60", "300", "900", "86400", "2678400")
MASKS = ("255.255.255.0", "255.255.255.255", "255.0.0.0", "255.255.255.128", "128.0.0.0")
PREFIXES = ("1", "24", "64", "96", "127", "128")
ENGINES = ("nosuch", "SIP", "sips")
JUNK = (
    "", "-", "--", "0", "-1", "x", "80", ":", ":80", "a:b", "1.2.3.4", "1.2.3.4:80",
    "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:nosuch", "1.2.3:80", "1:80",
    "0x0a.9:80", "010.1.1.1:80", "256.1.1.1:80", "1.2.3.4.5:80", "[2001:db8::1]:80",
    "[2001:db8::1]", "2001:db8::1", "[1.2.3.4]:80", "[]:80", "[::1:80", "2001:db8::1:80", "::",
    "::1", "::ffff:1.2.3.4", "nosuch.example.com:80", "www.example.com", "www.example.com:http",
    "0.0.0.0:80", "255.255.255.255:80", "224.0.0.1:80", "1e3", "0x10", "99999999999999999999",
    "4294967296", "-0", "1 ", "é", "rr", "master", "backup", "a=b", "=80", "255.255.255.0",
    "129", "2678401", "65536", "256", "gue", "gre", "ipip", "%d", "' '", "\\", "eth0",
    "nosuch", "fe80::1", "ff02::1", "192.0.2.1:80:80",
    "averyverylongwordthatnobodywouldeverthinkoftyping" * 2,
)  # fmt: skip

LETTERS = {
    "add-service": "A", "edit-service": "E", "delete-service": "D", "clear": "C", "list": "L",
    "zero": "Z", "add-server": "a", "edit-server": "e", "delete-server": "d", "help": "h",
    "version": "v", "restore": "R", "save": "S", "tcp-service": "t", "udp-service": "u",
    "fwmark-service": "f", "scheduler": "s", "persistent": "p", "netmask": "M", "real-server": "r",
    "masquerading": "m", "ipip": "i", "gatewaying": "g", "weight": "w", "u-threshold": "x",
    "l-threshold": "y", "numeric": "n", "connection": "c", "exact": "X", "ipv6": "6", "ops": "o",
    "sched-flags": "b",
}  # fmt: skip
"""The options with a letter; the others have a long name only."""
FLAG_OPTIONS = (
    "numeric", "connection", "timeout", "daemon", "stats", "rate", "thresholds",
    "persistent-conn", "nosort", "sort", "exact", "ipv6", "ops", "tun-info", "tun-nocsum",
    "tun-csum", "tun-remcsum", "masquerading", "ipip", "gatewaying",
)  # fmt: skip
VALUE_OPTIONS = (
    "tcp-service", "udp-service", "sctp-service", "fwmark-service", "scheduler", "persistent",
    "netmask", "real-server", "weight", "u-threshold", "l-threshold", "mcast-interface", "syncid",
    "pe", "sched-flags", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "tun-type",
    "tun-port",
)  # fmt: skip
COMMANDS = (
    "add-service", "edit-service", "delete-service", "clear", "list", "zero", "add-server",
    "edit-server", "delete-server", "set", "help", "version", "save", "start-daemon",
    "stop-daemon",
)  # fmt: skip
STYLES = ("stats", "rate", "thresholds", "persistent-conn", "tun-info")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One line: the words after the program's name, and what it reads."""

    words: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """An option with its value, or None where it has none."""

    name: str
    value: str | None = None


@dataclass(slots=True)
class Known:
    """A service that was added, if all went well: how it is named, and its real servers."""

    options: tuple[Given, ...]
    is_ipv6: bool
    servers: list[str] = field(default_factory=list)


def generate(sessions: int, seed: int, length: int) -> list[list[CommandLine]]:
    """That many sessions of so many lines; the same ones for the same seed."""
    return [_Session(Random(f"{seed}/{number}")).lines(length) for number in range(sessions)]


class _Session:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._services: list[Known] = []

    def lines(self, length: int) -> list[CommandLine]:
        return [self._line() for _ in range(length)]

    def _line(self) -> CommandLine:
        if self._happens(0.05):
            return self._restore()
        command, *options = self._command()
        if self._happens(0.25):
            options = self._spoilt_options(options)
        words = self._spelt(command, options)
        if self._happens(0.08):
            words = self._spoilt_words(words)
        return CommandLine(tuple(words))

    def _restore(self) -> CommandLine:
        lines = []
        for _ in range(self._random.randrange(8)):
            line = self._line_of_a_restore()
            if self._happens(0.1):
                line = self._random.choice(
                    ("# a comment", "ipvsadm " + line, line.replace(" ", "\t"), "", "  ")
                )
            lines.append(line)
        return CommandLine(
            (self._random.choice(("-R", "--restore")),), "".join(f"{line}\n" for line in lines)
        )

    def _line_of_a_restore(self) -> str:
        command, *options = self._command()
        if self._happens(0.12):
            options = self._spoilt_options(options)
        words = self._spelt(command, options)
        return " ".join(word for word in words if word)

    # --- right lines --------------------------------------------------------

    def _command(self) -> list[Given]:
        choose: Callable[[], list[Given]] = self._weighted(
            (
                (20 if len(self._services) < 6 else 4, self._add_service),
                (6, self._edit_service),
                (4, self._delete_service),
                (26 if self._services else 2, self._add_server),
                (9, self._edit_server),
                (5, self._delete_server),
                (26, self._list),
                (5, self._save),
                (3, self._zero),
                (2, self._set),
                (1, self._clear),
                (3, self._daemon),
                (0.4, lambda: [Given(self._random.choice(("help", "version")))]),
            )
        )
        return choose()

    def _add_service(self) -> list[Given]:
        known = self._new_service()
        if self._happens(0.9):
            self._services.append(known)
        return [Given("add-service"), *known.options, *self._service_options(known)]

    def _new_service(self) -> Known:
        kind = self._random.random()
        if kind < 0.15:
            is_ipv6 = self._happens(0.3)
            mark = Given("fwmark-service", self._random.choice(MARKS))
            return Known((mark, Given("ipv6")) if is_ipv6 else (mark,), is_ipv6)
        is_ipv6 = kind > 0.8
        address = f"[{self._random.choice(VIPS6)}]" if is_ipv6 else self._random.choice(VIPS)
        protocol = self._random.choice(
            ("tcp-service", "tcp-service", "tcp-service", "udp-service", "udp-service", "sctp-service")
        )
        port = "0" if self._happens(0.05) else self._random.choice(PORTS)
        if protocol == "udp-service" and port in ("http", "https"):
            port = "domain"
        elif protocol == "tcp-service" and port == "domain":
            port = "http"
        return Known((Given(protocol, f"{address}:{port}"),), is_ipv6)

    def _service_options(self, known: Known) -> list[Given]:
        options = []
        scheduler = ""
        if self._happens(0.75):
            scheduler = self._random.choice(NO_SCHEDULERS if self._happens(0.05) else SCHEDULERS)
            options.append(Given("scheduler", scheduler))
        no_port = (known.options[0].value or "").endswith(":0")
        if self._happens(0.95 if no_port else 0.2):
            seconds = self._random.choice(TIMEOUTS[1:]) if self._happens(0.7) else None
            options.append(Given("persistent", seconds))
            if self._happens(0.5):
                options.append(Given("netmask", self._random.choice(PREFIXES if known.is_ipv6 else MASKS)))
        if known.options[0].name != "tcp-service" and self._happens(0.2):
            options.append(Given("ops"))
        if self._happens(0.12):
            options.append(Given("sched-flags", self._random.choice(FLAGS.get(scheduler, FLAGS[""]))))
        if self._happens(0.02):
            options.append(Given("pe", self._random.choice(ENGINES)))
        return options

    def _some_service(self) -> Known:
        if not self._services or self._happens(0.08):
            return self._new_service()
        return self._random.choice(self._services)

    def _edit_service(self) -> list[Given]:
        known = self._some_service()
        return [Given("edit-service"), *known.options, *self._service_options(known)]

    def _delete_service(self) -> list[Given]:
        known = self._some_service()
        if known in self._services:
            self._services.remove(known)
        return [Given("delete-service"), *known.options]

    def _add_server(self) -> list[Given]:
        known = self._some_service()
        method = self._random.choice(("", "gatewaying", "masquerading", "masquerading", "ipip"))
        of_family6 = known.is_ipv6 != (self._happens(0.4) if method == "ipip" else self._happens(0.02))
        host = self._random.choice(SERVERS6 if of_family6 else SERVERS)
        server = host
        if self._happens(0.7):
            port = self._random.choice((*PORTS, "0"))
            port = "8080" if not port.isdigit() and known.options[0].name != "tcp-service" else port
            server = f"[{host}]:{port}" if of_family6 else f"{host}:{port}"
        known.servers.append(server)
        return [
            Given("add-server"),
            *known.options,
            Given("real-server", server),
            *self._server_options(method),
        ]

    def _server_options(self, method: str) -> list[Given]:
        options = [Given(method)] if method else []
        if self._happens(0.5):
            options.append(Given("weight", self._random.choice(WEIGHTS)))
        if self._happens(0.2):
            options.append(Given("u-threshold", self._random.choice(THRESHOLDS)))
        if self._happens(0.15):
            options.append(Given("l-threshold", self._random.choice(THRESHOLDS)))
        if method == "ipip" and self._happens(0.6):
            kind = self._random.choice(("ipip", "gue", "gre"))
            options.append(Given("tun-type", kind))
            if kind == "gue":
                options.append(Given("tun-port", self._random.choice(("6080", "1", "65535"))))
            if kind != "ipip" and self._happens(0.5):
                checksums = ("tun-nocsum", "tun-csum", "tun-remcsum" if kind == "gue" else "tun-csum")
                options.append(Given(self._random.choice(checksums)))
        return options

    def _some_server(self, known: Known) -> Given:
        servers = known.servers or ["[2001:db8::11]:80" if known.is_ipv6 else "10.0.0.11:80"]
        return Given("real-server", self._random.choice(servers))

    def _edit_server(self) -> list[Given]:
        known = self._some_service()
        method = self._random.choice(("", "gatewaying", "masquerading", "ipip"))
        return [
            Given("edit-server"), *known.options, self._some_server(known), *self._server_options(method)
        ]  # fmt: skip

    def _delete_server(self) -> list[Given]:
        known = self._some_service()
        return [Given("delete-server"), *known.options, self._some_server(known)]

    def _list(self) -> list[Given]:
        special = self._random.random()
        if special < 0.04:
            return [Given("list"), Given("timeout")]
        if special < 0.07:
            return [Given("list"), Given("daemon")]
        if special < 0.14:
            persistent = [Given("persistent-conn")] if self._happens(0.3) else []
            return [Given("list"), Given("connection"), *self._numeric(), *persistent]
        options = [*self._numeric()]
        if self._happens(0.5):
            options += [
                Given(style) for style in self._random.sample(STYLES, self._random.choice((1, 1, 1, 2)))
            ]
        if self._happens(0.15):
            options.append(Given("exact"))
        if self._happens(0.15):
            options.append(Given(self._random.choice(("sort", "nosort"))))
        if self._happens(0.3):
            options += self._some_service().options
        return [Given("list"), *options]

    def _numeric(self) -> list[Given]:
        return [Given("numeric")] if self._happens(0.7) else []

    def _save(self) -> list[Given]:
        return [Given("save"), *self._numeric()]

    def _zero(self) -> list[Given]:
        return [Given("zero"), *(self._some_service().options if self._happens(0.5) else ())]

    def _set(self) -> list[Given]:
        return [Given("set"), *(Given("", self._random.choice(TIMEOUTS)) for _ in range(3))]

    def _clear(self) -> list[Given]:
        self._services.clear()
        return [Given("clear")]

    def _daemon(self) -> list[Given]:
        if self._happens(0.3):
            return [Given("stop-daemon", self._random.choice(("master", "backup"))), *self._syncid(0.3)]
        # ipvsadm would carry out a right --start-daemon: one option too many stops both.
        role = self._random.choice(("master", "backup", "neither", ""))
        values = {
            "mcast-interface": ("eth0", "nosuch"),
            "mcast-group": ("224.0.0.82", "ff02::1", "1.2.3.4", "::1", "x"),
            "mcast-port": ("8848", "0", "65536"),
            "mcast-ttl": ("1", "0", "256"),
            "sync-maxlen": ("1", "65508"),
        }
        names = self._random.sample(sorted(values), 2)
        some = [Given(name, self._random.choice(values[name])) for name in names]
        return [
            Given("start-daemon", role),
            *self._syncid(0.5),
            *some,
            Given(self._random.choice(FLAG_OPTIONS[:9])),
        ]

    def _syncid(self, probability: float) -> list[Given]:
        if not self._happens(probability):
            return []
        return [Given("syncid", self._random.choice(("0", "5", "255", "256", "-1", "x")))]

    # --- wrong ones ---------------------------------------------------------

    def _spoilt_options(self, options: list[Given]) -> list[Given]:
        options = list(options)
        for _ in range(self._random.choice((1, 1, 1, 2))):
            where = self._random.randrange(len(options) + 1)
            what = self._random.randrange(6)
            if what == 0:
                options.insert(where, Given(self._random.choice(FLAG_OPTIONS)))
            elif what == 1:
                name = self._random.choice(VALUE_OPTIONS)
                options.insert(where, Given(name, self._value(name)))
            elif what == 2 and options:
                del options[where - 1]
            elif what == 3 and options:
                options[where - 1] = Given(options[where - 1].name, self._random.choice(JUNK))
            elif what == 4 and options:
                options.insert(where, self._random.choice(options))
            else:
                self._random.shuffle(options)
        return [option for option in options if not self._is_refused(option)]

    def _value(self, name: str) -> str:
        if self._happens(0.3):
            return self._random.choice(JUNK)
        some = {
            "scheduler": (*SCHEDULERS, *NO_SCHEDULERS),
            "persistent": TIMEOUTS,
            "netmask": (*MASKS, *PREFIXES),
            "weight": WEIGHTS,
            "u-threshold": THRESHOLDS,
            "l-threshold": THRESHOLDS,
            "fwmark-service": MARKS,
            "sched-flags": (*FLAGS["sh"], *FLAGS["mh"], *BAD_FLAGS),
            "tun-type": ("ipip", "gue", "gre", "udp"),
            "real-server": (*SERVERS, *SERVERS6),
            "pe": ENGINES,
            "tcp-service": tuple(f"{vip}:80" for vip in VIPS),
            "udp-service": tuple(f"{vip}:53" for vip in VIPS),
            "sctp-service": tuple(f"{vip}:0" for vip in VIPS),
        }
        return self._random.choice(some.get(name, ("1", "5", "300", "70000")))

    def _is_refused(self, option: Given) -> bool:
        return option.name == "pe" and option.value == "sip"

    def _spoilt_words(self, words: list[str]) -> list[str]:
        words = list(words)
        what = self._random.randrange(7)
        where = self._random.randrange(len(words) + 1)
        if what == 0:
            words.insert(where, self._random.choice(JUNK))
        elif what == 1 and words:
            del words[where - 1]
        elif what == 2:
            words.insert(
                where, self._random.choice(("--nosuch", "-q", "--add", "--stat", "-W", "-tn", "--=x"))
            )
        elif what == 3 and words:
            words[where - 1] += self._random.choice(("x", "=", "=x", " ", "n", "L"))
        elif what == 4:
            words.insert(where, self._word_of(self._random.choice(COMMANDS)))
        elif what == 5:
            words.insert(where, "--")
        else:
            words = words[:where]
        return words

    # --- spelling -----------------------------------------------------------

    def _spelt(self, command: Given, options: Sequence[Given]) -> list[str]:
        """The words of a line; mostly as people write it, sometimes in another way that popt allows."""
        words = self._words(command)
        combinable = len(words) == 1 and not words[0].startswith("--") and len(words[0]) == 2
        for option in options:
            next_words = self._words(option)
            first = next_words[0]
            if combinable and len(first) >= 2 and first[0] == "-" != first[1] and self._happens(0.35):
                words[-1] += first[1:]
                words += next_words[1:]
            else:
                words += next_words
            combinable = not option.value and not words[-1].startswith("--") and words[-1].startswith("-")
        return words

    def _words(self, option: Given) -> list[str]:
        if not option.name:
            return [option.value or ""]
        word = self._word_of(option.name)
        if option.value is None:
            return [word]
        spelling = self._random.random()
        if spelling < 0.8 and option.name != "persistent":
            return [word, option.value]
        if word.startswith("--") or spelling > 0.95:
            return [f"{word}={option.value}"]
        # A bare word after -p is its value as well.
        return [word, option.value] if spelling < 0.6 else [word + option.value]

    def _word_of(self, name: str) -> str:
        letter = LETTERS.get(name)
        if name == "list" and self._happens(0.15):
            return "-l"
        return f"-{letter}" if letter and self._happens(0.8) else f"--{name}"

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def _weighted(
        self, choices: Sequence[tuple[float, Callable[[], list[Given]]]]
    ) -> Callable[[], list[Given]]:
        weights = [weight for weight, _ in choices]
        return self._random.choices([choice for _, choice in choices], weights)[0]
