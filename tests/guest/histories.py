# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios of raw packets: what operators, clients and networks may do to a director, in any order.

A history begins with services and real servers, goes on with commands,
packets, answers, ICMP errors and waits, and ends with a look at everything.
It keeps a rough idea of the table, so that most commands mean something; some
do not, and both directors must refuse them alike.

To add a kind of service or real server, add to `SERVICES` or `METHODS`; a kind
of event is a method of `_History`, with its weight in `_History.step`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from .scenario import Scenario
from .segments import SERIAL_BYTES, SERVER
from .wire import CLIENTS, MTU, SERVERS

SERVICES = ("-t {vip}:80", "-t {vip}:443", "-u {vip}:53", "-t [{vip6}]:80", "-u [{vip6}]:53")
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
        self._table: dict[str, list[_Server]] = {}
        self._deleted: list[tuple[str, _Server]] = []
        self._flows: list[str] = []
        self._unused_port = FIRST_PORT + 1000

    def begin(self) -> None:
        """Services and their real servers, all at once."""
        self.steps.append("ipvsadm -R")
        for service in self._some_of(SERVICES, 3):
            self._define(service, 5)

    def step(self) -> None:
        """Something that an operator, a client, a real server, a router or time may do."""
        kinds: list[Callable[[], None]] = [self._known_flow] * 9 + [self._new_flows] * 6
        kinds += [self._change_server] * 5 + [self._change_service] * 2 + [self._wait] * 2 + [self._look]
        kinds += [self._big_packet] * 2 + [self._datagram_in_fragments]
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
        self._packet(str(self._usual_port()), self._one_of(*FLAGS), self._a_service())

    def _new_flows(self) -> None:
        """First packets from ports never used before."""
        count = self._random.randint(1, 9)
        flags = self._one_of("S", "S", "S", "S", "S", "A")
        self._packet(f"{self._unused_port}+{count}", flags, self._a_service())
        self._unused_port += count

    def _big_packet(self) -> None:
        """A packet about as long as the way to its real server takes."""
        service = self._a_service()
        # Without DF the kernel fragments, which is agreed upon: now and then is enough.
        whole = "" if "[" in service or self._chance(5) else " df"
        headers = (40 if "[" in service else 20) + (20 if service.startswith("-t") else 8 + SERIAL_BYTES)
        size = self._one_of(*(size for size in BIG if size + headers <= MTU))
        self._packet(str(self._usual_port()), "A", service, f" data={size}{whole}")

    def _datagram_in_fragments(self) -> None:
        service = self._one_of(*[name for name in self._table if name.startswith("-u")], "-u {vip}:53")
        words = f" data={self._random.randint(600, 2800)} fragments={self._one_of(*FRAGMENTS)}"
        self._packet(str(self._usual_port()), "", service, words)

    def _packet(self, ports: str, flags: str, service: str, words: str = "") -> None:
        protocol, flow = self._ends(service, ports)
        if "+" not in ports:
            self._flows.append(f"{protocol} {flow}")
        text = f"packet {protocol} {flow}"
        if protocol == "tcp":
            text += f" {flags}"
        self.steps.append(text + (words or self._small_words("[" in service, protocol)))

    def _ends(self, service: str, ports: str) -> tuple[str, str]:
        """Protocol, and both ends of a flow."""
        client = f"client{self._random.randint(1, CLIENTS)}"
        source = f"[{{{client}_6}}]" if "[" in service else f"{{{client}}}"
        return ("tcp" if service.startswith("-t") else "udp"), f"{source}:{ports} {service[3:]}"

    def _small_words(self, is_ipv6: bool, protocol: str) -> str:
        """What a packet may have besides flags: mostly nothing."""
        ttl = self._one_of(*TTLS)
        words = f" ttl={ttl}" if ttl != 64 else ""
        if self._chance(30):
            words += f" data={self._random.randint(1, 1200)}"
        if self._chance(8):
            words += f" options={self._one_of(*OPTIONS[is_ipv6])}"
        if self._chance(8):
            words += f" tos={self._one_of(1, 2, 3, 16, 184, 252, 255)}"
        if self._chance(4):
            words += " checksum=bad"
        elif protocol == "udp" and self._chance(15):
            words += " checksum=zero"
        return words

    # --- real servers and routers ------------------------------------------------

    def _answer(self) -> None:
        """What the real server of a flow answers, if it is masqueraded."""
        flow = self._a_flow()
        is_tcp = flow.startswith("tcp")
        flags = f" {self._one_of(*ANSWER_FLAGS)}" if is_tcp else ""
        words = self._small_words("[" in flow, "tcp" if is_tcp else "udp")
        if not is_tcp and self._chance(15):
            words = f" data={self._random.randint(600, 2600)} fragments={self._one_of('2', '3')}"
        self.steps.append(f"answer {flow}{flags}{words}")

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
        self.steps.append(f"icmp {sender} {flow} {kind}{words}")

    # --- the operator ----------------------------------------------------------

    def _define(self, service: str, most: int) -> None:
        """A service with real servers, as lines of a command's input."""
        servers = self._some_of(self._possible_servers(service), most)
        self.steps.append(f"< -A {service} -s {self._one_of(*SCHEDULERS)}")
        self.steps += [f"< {self._server_command('-a', service, server)}" for server in servers]
        self._table[service] = servers

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

    def _change_service(self) -> None:
        service = self._a_service()
        # One that is about the whole table is rare: its history cannot share its directors.
        command = self._one_of("-E", "-E", "-E", "-E", "-A", "-A", "-A", "-D", "-D", "-C")
        if command == "-C":
            for name in list(self._table):
                self._forget(name)
            # Without a service of a family the kernel takes its hooks off: docs/differences.md.
            self.steps += ["ipvsadm -C", "ipvsadm -R"]
            for family in (SERVICES[:3], SERVICES[3:]):
                self._define(self._one_of(*family), 3)
        elif command == "-D":
            self._forget(service)
            self.steps.append(f"ipvsadm -D {service}")
        else:
            self.steps.append(f"ipvsadm {command} {service} -s {self._one_of(*SCHEDULERS)}")
        if command == "-D" and self._chance(80):
            # Nothing much happens without a service: it comes back, with what it had.
            self.steps.append("ipvsadm -R")
            self._define(service, 3)
        self._table.setdefault(service, [])

    def _forget(self, service: str) -> None:
        self._deleted += [(service, server) for server in self._table.pop(service, [])]

    def _server_command(self, command: str, service: str, server: _Server) -> str:
        words = ""
        if command != "-d":
            method = self._one_of(*METHODS[self._one_of(*server.methods)])
            words = f" {method} -w {self._one_of(*WEIGHTS)}"
        return f"{command} {service} -r {server.address}{words}"

    def _wait(self) -> None:
        self.steps.append(f"wait {self._one_of(*WAITS)}")
        if self._chance(30):
            self.steps.append(self._one_of("ipvsadm -Z", *[f"ipvsadm -Z {self._a_service()}"] * 4))

    def _look(self) -> None:
        self.steps += ["ipvsadm -L -n", "connections"]

    def _possible_servers(self, service: str) -> tuple[_Server, ...]:
        """Who may be a real server of a service, under the methods of this history.

        Now and then the director itself, for UDP only: the kernel sees the
        director's own TCP answers, and so other states.
        """
        is_ipv6, port = "[" in service, int(service.rpartition(":")[2])
        possible = []
        for node in NODES:
            v4, v6 = f"{{{node}}}", f"[{{{node}_6}}]"
            own, other = (v6, v4) if is_ipv6 else (v4, v6)
            possible.append(_Server(f"{own}:{port}", self._methods))
            if MASQUERADE in self._methods:
                possible.append(_Server(f"{own}:{port + 8000}", (MASQUERADE,)))
            if TUNNEL in self._methods:
                possible.append(_Server(f"{other}:{port}", (TUNNEL,)))
        if service.startswith("-u") and ROUTE in self._methods:
            possible.append(_Server(f"[{{dip_6}}]:{port}" if is_ipv6 else f"{{dip}}:{port}", (ROUTE,)))
        return tuple(possible)

    # --- drawing ---------------------------------------------------------------

    def _a_service(self) -> str:
        """A service, mostly one that is there."""
        return self._one_of(*list(self._table) * 8, *SERVICES)

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
