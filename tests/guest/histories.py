# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios of raw packets: what operators, clients and networks may do to a director, in any order.

A history begins with services and real servers, goes on with commands,
packets, answers, ICMP errors and waits, and ends with a look at everything.
It keeps a rough idea of the table, so that most commands mean something; some
do not, and both directors must refuse them alike.

To add a kind of service or real server, add to `SERVICES`, `MORE_SERVICES` or
`METHODS`; a kind of event is a method of `_History`, with its weight in
`_History.step`; what only some histories have is in `CHANCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from .scenario import Scenario
from .segments import CHUNK_BYTES, SERIAL_BYTES, SERVER
from .wire import CLIENTS, MTU, SERVERS


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service that histories may have."""

    words: str
    """As commands name it."""
    protocols: tuple[str, ...]
    ports: tuple[int, ...]
    """To which its clients send."""
    port: int
    """Its own, which its real servers have as well; 0 for none."""

    @property
    def is_ipv6(self) -> bool:
        """Whether its clients are IPv6's."""
        return "6" in self.words.split(":")[0] or self.words.endswith(" -6")

    @property
    def address(self) -> str:
        """Its VIP."""
        return "[{vip6}]" if self.is_ipv6 else "{vip}"


def _of_port(option: str, port: int, *ports: int, ipv6: bool = False) -> Service:
    protocol = {"-t": "tcp", "-u": "udp"}.get(option, "sctp")
    address = "[{vip6}]" if ipv6 else "{vip}"
    return Service(f"{option} {address}:{port}", (protocol,), ports or (port,), port)


SERVICES = (
    _of_port("-t", 80),
    _of_port("-t", 443),
    _of_port("-u", 53),
    _of_port("-t", 80, ipv6=True),
    _of_port("-u", 53, ipv6=True),
)
SCTP, MARKS, ALL_PORTS, FTP = "sctp", "marks", "all ports", "ftp"
MORE_SERVICES = {
    SCTP: (_of_port("--sctp-service", 80), _of_port("--sctp-service", 80, ipv6=True)),
    # The ports are those that have a mark in `raw_player`.
    MARKS: (
        Service("-f {mark}", ("tcp", "udp", "sctp"), (9000, 9001, 9003), 0),
        Service("-f {mark} -6", ("tcp", "udp", "sctp"), (9000, 9001, 9003), 0),
    ),
    ALL_PORTS: (_of_port("-t", 0, 80, 7000, 8080), _of_port("-u", 0, 53, 7000, 9000)),
    FTP: (_of_port("-t", 21, 21, 21, 20, 2021, 45000), _of_port("-t", 21, 21, 1024, ipv6=True)),
}
"""Those of the histories that have such services."""
PERSISTENCE, BOUNDS, ONE_PACKET, SETTINGS, NO_ORPHANS = (
    "persistence", "bounds", "one packet", "settings", "no orphans",
)  # fmt: skip
CHANCES = {
    SCTP: 25, MARKS: 15, ALL_PORTS: 15, FTP: 10,
    PERSISTENCE: 35, BOUNDS: 25, ONE_PACKET: 20, SETTINGS: 8, NO_ORPHANS: 4,
}  # fmt: skip
"""Of how many histories in a hundred it is part."""
PERSISTENT_SECONDS = (10, 50, 50, 100)
NETMASKS = (("255.255.255.0", "255.255.255.252", "255.255.255.254"), ("64", "126", "127"))
"""That leave clients of two scenarios apart; of IPv4, then of IPv6."""
SYSCTLS = (
    "conn_reuse_mode 0", "conn_reuse_mode 1", "conn_reuse_mode 2", "conn_reuse_mode 3",
    "expire_quiescent_template 0", "expire_quiescent_template 1", "sloppy_tcp 0", "sloppy_tcp 1",
    "sloppy_sctp 0", "sloppy_sctp 1", "secure_tcp 0", "secure_tcp 3", "nat_icmp_send 0", "nat_icmp_send 1",
)  # fmt: skip
CHUNKS = (
    "INIT", "INIT", "INIT", "COOKIE-ECHO", "COOKIE-ECHO", "COOKIE-ECHO,DATA", "DATA", "DATA", "SACK",
    "HEARTBEAT", "SHUTDOWN", "SHUTDOWN-ACK", "SHUTDOWN-COMPLETE", "ABORT", "ERROR", "INIT-ACK",
    "COOKIE-ACK,ABORT",
)  # fmt: skip
ANSWER_CHUNKS = (
    "INIT-ACK", "INIT-ACK", "COOKIE-ACK", "COOKIE-ACK", "DATA", "SACK", "SHUTDOWN", "SHUTDOWN-ACK",
    "SHUTDOWN-COMPLETE", "ABORT", "ERROR",
)  # fmt: skip
SCHEDULERS = (
    "rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "dh", "lblc", "lblcr", "lblcr",
    "sh", "sh -b sh-port", "sh -b sh-fallback", "sh -b sh-port,sh-fallback",
    "mh", "mh -b mh-port", "mh -b mh-fallback", "mh -b mh-port,mh-fallback",
)  # fmt: skip
"""What follows ``-s``.  Not twos: it draws lots."""
WEIGHTS = (1, 1, 1, 2, 2, 3, 3, 4, 5, 0, 6, 9, 100, 65535, 1000000, 2147483647)
NODES = tuple(f"rs{n}" for n in range(1, SERVERS + 1))
FLAGS = ("S", "S", "S", "A", "A", "A", "PA", "FA", "FA", "F", "R", "RA", "SA", "SF", "SR", "SP", ".", "P")
ANSWER_FLAGS = ("SA", "SA", "SA", "A", "A", "PA", "FA", "FA", "R", "RA", "S", ".")
TTLS = (64, 64, 64, 64, 128, 255, 2, 1)
WAITS = (4, 12, 35, 65, 130, 130, 310)
OPTIONS = (("01010101", "01" * 40), ("00010400000000",))
"""Of IPv4, then of IPv6: padding that nobody acts upon."""
BIG = (1220, 1300, 1332, 1333, 1352, 1360, 1372, 1400, 1432, 1440, 1452, 1460, 1472)
"""Lengths of payload about where a packet, a tunnel or the smaller MTU is full."""
QUOTES = (28, 28, 48, 60, 128, 548)
FIRST_PORT = 40000
HEADERS = {"tcp": 20, "udp": 8 + SERIAL_BYTES, "sctp": 12 + 4 + CHUNK_BYTES}
"""What a packet of a protocol has between its IP header and its data."""
PORTS = 5
"""Few, so that clients come back to the ports that they had."""
FEWEST_STEPS, MOST_STEPS = 12, 22

ROUTE, MASQUERADE, TUNNEL = "route", "masquerade", "tunnel"
METHODS = {
    ROUTE: ("-g",),
    MASQUERADE: ("-m",),
    TUNNEL: ("-i", "-i", "-i --tun-type gue --tun-port 6080", "-i --tun-type gre"),
}
"""The words of a forwarding method."""
STYLES = (
    (ROUTE,), (MASQUERADE,), (MASQUERADE,), (TUNNEL,), (ROUTE, MASQUERADE, TUNNEL), (MASQUERADE, TUNNEL)
)  # fmt: skip
"""The methods of one history."""
ERRORS = (("3/4", "3/4", "3/1", "3/3", "11/0", "4/0", "5/1"), ("2/0", "2/0", "1/4", "3/0", "4/1"))
"""Kinds of ICMP errors, of IPv4, then of IPv6."""
FRAGMENTS = ("2", "3", "4", "2 order=10", "3 order=021", "3 order=201", "3 order=12", "4 order=3")
"""Ways of a datagram's pieces: all in order, all in another order, none of the first."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Server:
    """A real server of a service, as commands name it."""

    address: str
    methods: tuple[str, ...]
    """Those that it may have."""


class _History:
    """A history while it is drawn."""

    def __init__(self, chance: Random) -> None:
        self._random = chance
        self.steps: list[str] = []
        self._methods = self._one_of(*STYLES)
        self._parts = {part for part, percent in CHANCES.items() if self._chance(percent)}
        more = (one for part, some in MORE_SERVICES.items() if part in self._parts for one in some)
        self._services = (*SERVICES, *more)
        self._table: dict[Service, list[_Server]] = {}
        self._deleted: list[tuple[Service, _Server]] = []
        self._flows: list[str] = []
        self._unused_port = FIRST_PORT + 1000

    def begin(self) -> None:
        """Services and their real servers, all at once."""
        if NO_ORPHANS in self._parts:
            # Only before there are any: docs/differences.md.
            self.steps.append("sysctl expire_nodest_conn 1")
        self.steps.append("ipvsadm -R")
        more = self._services[len(SERVICES) :]
        chosen = self._some_of(SERVICES, 2 if more else 3) + (self._some_of(more, 2) if more else [])
        for service in chosen:
            self._define(service, 5)

    def step(self) -> None:
        """Something that an operator, a client, a real server, a router or time may do."""
        kinds: list[Callable[[], None]] = [self._known_flow] * 9 + [self._new_flows] * 6
        kinds += [self._change_server] * 5 + [self._change_service] * 2 + [self._wait] * 2 + [self._look]
        kinds += [self._big_packet] * 2 + [self._datagram_in_fragments]
        if SETTINGS in self._parts:
            kinds += [self._change_setting] * 3
        if self._flows:
            kinds += [self._error_from_client_side] * 2
            if MASQUERADE in self._methods:
                kinds += [self._answer] * 9 + [self._error_from_server_side] * 2
        self._one_of(*kinds)()

    def end(self) -> None:
        """A look at everything."""
        self.steps += ["connections", "ipvsadm -R", "< -L -n", "< -L -n --stats"]

    # --- clients ---------------------------------------------------------------

    def _known_flow(self) -> None:
        """A packet of a flow that is likely to have been there before."""
        self._packet(self._a_service(), str(self._usual_port()))

    def _new_flows(self) -> None:
        """First packets from ports never used before."""
        count = self._random.randint(1, 9)
        self._packet(self._a_service(), f"{self._unused_port}+{count}")
        self._unused_port += count

    def _big_packet(self) -> None:
        """A packet about as long as the way to its real server takes."""
        service = self._a_service()
        # Without DF the kernel fragments, which is agreed upon: now and then is enough.
        whole = "" if service.is_ipv6 or self._chance(5) else " df"
        protocol = self._one_of(*service.protocols)
        headers = (40 if service.is_ipv6 else 20) + HEADERS[protocol]
        size = self._one_of(*(size for size in BIG if size + headers <= MTU))
        words = {"tcp": "A", "sctp": "DATA"}.get(protocol, "") + f" data={size}{whole}"
        self._packet(service, str(self._usual_port()), protocol, words)

    def _datagram_in_fragments(self) -> None:
        # Not of a firewall mark: netfilter sees the fragments, and the later ones have no port.
        there = [one for one in self._table if one.protocols == ("udp",)]
        service = self._one_of(*there, SERVICES[2])
        words = f" data={self._random.randint(600, 2800)} fragments={self._one_of(*FRAGMENTS)}"
        self._packet(service, str(self._usual_port()), "udp", words)

    def _packet(self, service: Service, ports: str, protocol: str = "", words: str = "") -> None:
        """A client's packet; `words` are what follows its flow."""
        protocol = protocol or self._one_of(*service.protocols)
        client = f"client{self._random.randint(1, CLIENTS)}"
        source = f"[{{{client}_6}}]" if service.is_ipv6 else f"{{{client}}}"
        flow = f"{source}:{ports} {service.address}:{self._one_of(*service.ports)}"
        if "+" not in ports:
            self._flows.append(f"{protocol} {flow}")
        words = words or self._flags(protocol, is_new="+" in ports) + self._small_words(
            service.is_ipv6, protocol
        )
        self.steps.append(f"packet {protocol} {flow} {words.strip()}".rstrip())

    def _flags(self, protocol: str, *, is_new: bool) -> str:
        """A client's flags, or chunks."""
        if protocol == "tcp":
            return self._one_of("S", "S", "S", "S", "S", "A") if is_new else self._one_of(*FLAGS)
        if protocol == "sctp":
            return self._one_of("INIT", "INIT", "INIT", "DATA") if is_new else self._one_of(*CHUNKS)
        return ""

    def _small_words(self, is_ipv6: bool, protocol: str) -> str:
        """What a packet may have besides flags: mostly nothing."""
        ttl = self._one_of(*TTLS)
        words = f" ttl={ttl}" if ttl != 64 else ""
        if self._chance(30):
            # The checksum of SCTP is made bit by bit.
            words += f" data={self._random.randint(1, 60 if protocol == 'sctp' else 1200)}"
        if self._chance(8):
            words += f" options={self._one_of(*OPTIONS[is_ipv6])}"
        if self._chance(8):
            words += f" tos={self._one_of(1, 2, 3, 16, 184, 252, 255)}"
        # Of a damaged SCTP packet the kernel makes a sound one: docs/differences.md.
        if protocol != "sctp" and self._chance(4):
            words += " checksum=bad"
        elif protocol == "udp" and self._chance(15):
            words += " checksum=zero"
        return words

    # --- real servers and routers ------------------------------------------------

    def _answer(self) -> None:
        """What the real server of a flow answers, if it is masqueraded."""
        flow = self._a_flow()
        protocol = flow.split()[0]
        flags = {"tcp": ANSWER_FLAGS, "sctp": ANSWER_CHUNKS}.get(protocol)
        words = (f" {self._one_of(*flags)}" if flags else "") + self._small_words("[" in flow, protocol)
        if protocol == "udp" and self._chance(15):
            words = f" data={self._random.randint(600, 2600)} fragments={self._one_of('2', '3')}"
        self.steps.append(f"answer {flow}{words}")

    def _error_from_client_side(self) -> None:
        flow = self._a_flow()
        client = flow.split()[1]
        router = "[{router_6}]" if "[" in client else "{router}"
        self._error(router if self._chance(70) else client.rpartition(":")[0], flow)

    def _error_from_server_side(self) -> None:
        self._error(SERVER, self._a_flow())

    def _error(self, sender: str, flow: str) -> None:
        is_ipv6 = "[" in flow
        kind = self._one_of(*ERRORS[is_ipv6])
        words = f" mtu={self._one_of(1280, 1300, 1400)}" if kind in ("3/4", "2/0") else ""
        words += f" quote={self._one_of(*QUOTES) + (20 if is_ipv6 else 0)} data={self._one_of(0, 20, 700)}"
        ttl = self._one_of(*TTLS)
        words += f" ttl={ttl}" if ttl != 64 else ""
        # IPv6's is passed on: docs/differences.md.
        words += " checksum=bad" if not is_ipv6 and self._chance(5) else ""
        self.steps.append(f"icmp {sender} {flow} {kind}{words}")

    # --- the operator ----------------------------------------------------------

    def _define(self, service: Service, most: int) -> None:
        """A service with real servers, as lines of a command's input."""
        servers = self._some_of(self._possible_servers(service), most)
        self.steps.append(f"< -A {service.words}{self._way(service)}")
        self.steps += [f"< {self._server_command('-a', service, server)}" for server in servers]
        self._table[service] = servers

    def _way(self, service: Service) -> str:
        """How a service chooses, as the words of its commands."""
        words = f" -s {self._one_of(*SCHEDULERS)}"
        # One of all ports has to be persistent; now and then it is not.
        if (service.words.endswith(":0") and self._chance(95)) or (
            PERSISTENCE in self._parts and self._chance(60)
        ):
            words += f" -p {self._one_of(*PERSISTENT_SECONDS)}"
            if self._chance(35):
                words += f" -M {self._one_of(*NETMASKS[service.is_ipv6])}"
        if ONE_PACKET in self._parts and service.protocols != ("tcp",) and self._chance(60):
            words += " -o"
        return words

    def _change_setting(self) -> None:
        self.steps.append(f"sysctl {self._one_of(*SYSCTLS)}")

    def _let_orphans_end(self) -> None:
        """Real servers were removed; where their connections end with them, that takes a second."""
        if NO_ORPHANS in self._parts:
            self.steps.append("wait 4")

    def _change_server(self) -> None:
        service = self._a_service()
        there = self._table.get(service, [])
        left = [server for name, server in self._deleted if name == service]
        # Mostly one that is there, to edit or delete; or one that was deleted, to add again.
        command = self._one_of("-e", "-d", "-a")
        likely = left * 3 if command == "-a" else there * 8
        server = self._one_of(*likely, *self._possible_servers(service))
        self.steps.append(f"ipvsadm {self._server_command(command, service, server)}")
        if command == "-a" and service in self._table and server not in there:
            there.append(server)
        if command == "-d" and server in there:
            there.remove(server)
            self._deleted.append((service, server))
            self._let_orphans_end()

    def _change_service(self) -> None:
        service = self._a_service()
        # One that is about the whole table is rare: its history cannot share its directors.
        command = self._one_of("-E", "-E", "-E", "-E", "-A", "-A", "-A", "-D", "-D", "-C")
        if command == "-C":
            for name in list(self._table):
                self._forget(name)
            # Without a service of a family the kernel takes its hooks off: docs/differences.md.
            self.steps.append("ipvsadm -C")
            self._let_orphans_end()
            self.steps.append("ipvsadm -R")
            for family in (SERVICES[:3], SERVICES[3:]):
                self._define(self._one_of(*family), 3)
        elif command == "-D":
            self._forget(service)
            self.steps.append(f"ipvsadm -D {service.words}")
            self._let_orphans_end()
        else:
            self.steps.append(f"ipvsadm {command} {service.words}{self._way(service)}")
        if command == "-D" and self._chance(80):
            # Nothing much happens without a service: it comes back, with what it had.
            self.steps.append("ipvsadm -R")
            self._define(service, 3)
        self._table.setdefault(service, [])

    def _forget(self, service: Service) -> None:
        self._deleted += [(service, server) for server in self._table.pop(service, [])]

    def _server_command(self, command: str, service: Service, server: _Server) -> str:
        words = ""
        if command != "-d":
            method = self._one_of(*METHODS[self._one_of(*server.methods)])
            words = f" {method} -w {self._one_of(*WEIGHTS)}"
            if BOUNDS in self._parts and self._chance(60):
                upper = self._random.randint(1, 7)
                words += f" -x {upper}"
                words += f" -y {self._random.randint(1, upper + 1)}" if self._chance(50) else ""
        return f"{command} {service.words} -r {server.address}{words}"

    def _wait(self) -> None:
        self.steps.append(f"wait {self._one_of(*WAITS)}")
        if self._chance(30):
            self.steps.append(self._one_of("ipvsadm -Z", *[f"ipvsadm -Z {self._a_service().words}"] * 4))

    def _look(self) -> None:
        self.steps += ["ipvsadm -L -n", "connections"]

    def _possible_servers(self, service: Service) -> tuple[_Server, ...]:
        """Who may be a real server of a service, under the methods of this history.

        Now and then the director itself, for UDP only: the kernel sees the
        director's own TCP answers, and so other states.
        """
        is_ipv6, port = service.is_ipv6, service.port
        possible = []
        for node in NODES:
            v4, v6 = f"{{{node}}}", f"[{{{node}_6}}]"
            own, other = (v6, v4) if is_ipv6 else (v4, v6)
            possible.append(_Server(f"{own}:{port}", self._methods))
            if MASQUERADE in self._methods:
                possible.append(_Server(f"{own}:{port + 8000}", (MASQUERADE,)))
            if TUNNEL in self._methods:
                possible.append(_Server(f"{other}:{port}", (TUNNEL,)))
        if service.protocols == ("udp",) and ROUTE in self._methods:
            possible.append(_Server(f"[{{dip_6}}]:{port}" if is_ipv6 else f"{{dip}}:{port}", (ROUTE,)))
        return tuple(possible)

    # --- drawing ---------------------------------------------------------------

    def _a_service(self) -> Service:
        """A service, mostly one that is there."""
        return self._one_of(*list(self._table) * 8, *self._services)

    def _a_flow(self) -> str:
        """A flow that a packet was sent on, mostly one of the last."""
        return self._one_of(*self._flows[-4:], *self._flows[-4:], *self._flows)

    def _usual_port(self) -> int:
        return FIRST_PORT + self._random.randint(0, PORTS - 1)

    def _one_of(self, *values: T) -> T:
        return self._random.choice(values)

    def _some_of(self, values: Sequence[T], most: int) -> list[T]:
        """Between one and `most` of them, in any order."""
        return self._random.sample(values, self._random.randint(1, min(most, len(values))))

    def _chance(self, percent: int) -> bool:
        return self._random.randint(0, 99) >= 100 - percent


def history(chance: Random) -> tuple[str, ...]:
    """The steps of a random scenario."""
    made = _History(chance)
    made.begin()
    for _ in range(chance.randint(FEWEST_STEPS, MOST_STEPS)):
        made.step()
    made.end()
    return tuple(made.steps)


def generate(count: int, seed: int, first: int = 0) -> list[Scenario]:
    """That many scenarios; the same ones for the same seed, whichever is the first."""
    return [
        Scenario(f"random {seed}-{number}", history(Random(f"{seed}-{number}")))
        for number in range(first, first + count)
    ]
