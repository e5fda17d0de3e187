# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios of raw packets: what operators and clients may do to a director, in any order.

A history begins with services and real servers, goes on with commands,
packets and waits, and ends with a look at everything.  The strategy keeps a
rough idea of the table, so that most commands mean something; some do not,
and both directors must refuse them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .scenario import Scenario
from .wire import CLIENTS, SERVERS

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
TTLS = (64, 64, 64, 64, 128, 255, 2, 1)
WAITS = (4, 12, 35, 65, 130, 130, 310)
OPTIONS = (("01010101", "01" * 40), ("00010400000000",))
"""Of IPv4, then of IPv6: padding that nobody acts upon."""
FIRST_PORT = 40000
PORTS = 5
"""Few, so that clients come back to the ports that they had."""
FEWEST_STEPS, MOST_STEPS = 12, 22

T = TypeVar("T")


class _History:
    """A history while it is drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.steps: list[str] = []
        self._table: dict[str, list[str]] = {}
        self._deleted: list[tuple[str, str]] = []
        self._unused_port = FIRST_PORT + 1000

    def begin(self) -> None:
        """Services and their real servers, all at once."""
        self.steps.append("ipvsadm -R")
        for service in self._draw(st.lists(st.sampled_from(SERVICES), min_size=1, max_size=3, unique=True)):
            self.steps.append(f"< -A {service} -s {self._one_of(*SCHEDULERS)}")
            nodes = self._some_nodes(service, 5)
            self.steps += [f"< {self._server_command('-a', service, node)}" for node in nodes]
            self._table[service] = nodes

    def step(self) -> None:
        """Something that an operator, a client or time may do."""
        kinds: list[Callable[[], None]] = [self._known_flow] * 10 + [self._new_flows] * 6
        kinds += [self._change_server] * 5 + [self._change_service] * 2 + [self._wait] * 2 + [self._look]
        self._one_of(*kinds)()

    def end(self) -> None:
        """A look at everything."""
        # One process for both listings: in the guest, starting one is what costs.
        self.steps += ["connections", "ipvsadm -R", "< -L -n", "< -L -n --stats"]

    # --- clients ---------------------------------------------------------------

    def _known_flow(self) -> None:
        """A packet of a flow that is likely to have been there before."""
        port = FIRST_PORT + self._draw(st.integers(0, PORTS - 1))
        self._packet(str(port), self._one_of(*FLAGS))

    def _new_flows(self) -> None:
        """First packets from ports never used before."""
        count = self._draw(st.integers(1, 9))
        self._packet(f"{self._unused_port}+{count}", self._one_of("S", "S", "S", "S", "S", "A"))
        self._unused_port += count

    def _packet(self, ports: str, flags: str) -> None:
        service = self._a_service()
        protocol, target = ("tcp" if service.startswith("-t") else "udp"), service[3:]
        is_ipv6 = "[" in service
        client = f"client{self._draw(st.integers(1, CLIENTS))}"
        source = f"[{{{client}_6}}]" if is_ipv6 else f"{{{client}}}"
        words = ["packet", protocol, f"{source}:{ports}", target]
        if protocol == "tcp":
            words.append(flags)
        ttl = self._one_of(*TTLS)
        words += [f"ttl={ttl}"] if ttl != 64 else []
        if self._chance(30):
            words.append(f"data={self._draw(st.integers(1, 1400))}")
        if self._chance(8):
            words.append(f"options={self._one_of(*OPTIONS[is_ipv6])}")
        if self._chance(4):
            words.append("checksum=bad")
        self.steps.append(" ".join(words))

    # --- the operator ----------------------------------------------------------

    def _change_server(self) -> None:
        service = self._a_service()
        there = self._table.get(service, [])
        left = [node for name, node in self._deleted if name == service]
        # Mostly one that is there, to edit or delete; or one that was deleted, to add again.
        command = self._one_of("-e", "-d", "-a")
        node = self._one_of(*((left * 3 if command == "-a" else there * 8) + list(_nodes(service))))
        self.steps.append(f"ipvsadm {self._server_command(command, service, node)}")
        if command == "-a" and service in self._table and node not in there:
            there.append(node)
        if command == "-d" and node in there:
            there.remove(node)
            self._deleted.append((service, node))

    def _change_service(self) -> None:
        service = self._a_service()
        command = self._one_of("-E", "-E", "-A", "-A", "-D", "-C")
        if command == "-C":
            for name in list(self._table):
                self._forget(name)
            self.steps.append("ipvsadm -C")
        elif command == "-D":
            self._forget(service)
            self.steps.append(f"ipvsadm -D {service}")
        else:
            self.steps.append(f"ipvsadm {command} {service} -s {self._one_of(*SCHEDULERS)}")
        if command in ("-C", "-D") and self._chance(80):
            # Nothing much happens without a service: it comes back, with what it had.
            self.steps += ["ipvsadm -R", f"< -A {service} -s {self._one_of(*SCHEDULERS)}"]
            nodes = self._some_nodes(service, 3)
            self.steps += [f"< {self._server_command('-a', service, node)}" for node in nodes]
            self._table[service] = nodes
        elif command == "-A":
            self._table.setdefault(service, [])

    def _forget(self, service: str) -> None:
        self._deleted += [(service, node) for node in self._table.pop(service, [])]

    def _server_command(self, command: str, service: str, node: str) -> str:
        is_ipv6 = "[" in service
        address = f"[{{{node}_6}}]" if is_ipv6 else f"{{{node}}}"
        port = service.rpartition(":")[2]
        weight = "" if command == "-d" else f" -g -w {self._one_of(*WEIGHTS)}"
        return f"{command} {service} -r {address}:{port}{weight}"

    def _wait(self) -> None:
        self.steps.append(f"wait {self._one_of(*WAITS)}")
        if self._chance(30):
            self.steps.append(self._one_of("ipvsadm -Z", f"ipvsadm -Z {self._a_service()}"))

    def _look(self) -> None:
        self.steps += ["ipvsadm -L -n", "connections"]

    # --- drawing ---------------------------------------------------------------

    def _a_service(self) -> str:
        """A service, mostly one that is there."""
        return self._one_of(*list(self._table) * 8, *SERVICES)

    def _some_nodes(self, service: str, most: int) -> list[str]:
        return self._draw(st.lists(st.sampled_from(_nodes(service)), min_size=1, max_size=most, unique=True))

    def _one_of(self, *values: T) -> T:
        return self._draw(st.sampled_from(values))

    def _chance(self, percent: int) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 - percent


def _nodes(service: str) -> tuple[str, ...]:
    """Who may be a real server, now and then the director itself.

    For UDP only: the kernel sees the director's own TCP answers, and so other states.
    """
    return NODES * 2 + ("dip",) if service.startswith("-u") else NODES


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, ...]:
    """The steps of a random scenario."""
    history = _History(draw)
    history.begin()
    for _ in range(draw(st.integers(FEWEST_STEPS, MOST_STEPS))):
        history.step()
    history.end()
    return tuple(history.steps)


def generate(count: int, seed_number: int) -> list[Scenario]:
    """That many scenarios, no two alike; the same ones for the same seed."""
    drawn: dict[tuple[str, ...], None] = {}

    @seed(seed_number)
    @settings(
        max_examples=2 * count + 20,  # some come twice
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(histories())
    def collect(steps: tuple[str, ...]) -> None:
        if len(drawn) < count:
            drawn[steps] = None

    collect()
    return [Scenario(f"random {seed_number}-{number}", steps) for number, steps in enumerate(drawn)]
