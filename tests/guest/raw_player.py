# SPDX-License-Identifier: GPL-2.0-only
"""Plays scenarios of raw packets inside the guest: ``python -m tests.guest.raw_player``.

Every director has a wire of its own (see `wire`), and each step is carried
out on all of them before the next: they share the clock and its waits.
xlvs's commands run in this process, which saves starting Python each time.
Reads the order of `oracle.play` from stdin as JSON and writes the
observations to stdout.
"""

from __future__ import annotations

import io
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from xlvs.cli import ipvsadm
from xlvs.datapath import open_datapath

from .ipvsadm_transcript import format_answer
from .player import COMMAND_TIMEOUT, PROGRAMS, SteadyClock, connection_table, without_size
from .scenario import KERNEL, Observation, Play, Scenario
from .segments import Segment, described, forwarded, serial_of
from .wire import (
    CLIENT,
    CLIENTS,
    DIP,
    SERVERS,
    client_addresses,
    open_wire,
    server_addresses,
    take_away,
    virtual_addresses,
)

CONNECTIONS = 8192
"""Room in xlvs's table: sweeping a larger one costs time, and no scenario needs it."""
SOON = 2
"""An entry with no more seconds than this left may end between two steps."""
LATEST = 200
"""Seconds after which an entry is no longer waited for."""
MODES = {"xlvs": "tc", "xlvs-xdp": "xdp-generic"}
"""The directors that are xlvs, and how each is attached."""
COUNTERS = {"--stats", "-Z", "-d", "-D", "-C"}
"""What reads, zeroes or freezes counters: a real server that returns to another service begins at zero..."""
COUNTERS_LAG = 2.5
"""... which is what the kernel had counted two seconds before: the player waits until it has it all."""
PREFIX = "wire-"
NUMBERS = Path("/run/guest/scenarios-played")
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "dh", "sh", "mh", "lblc", "lblcr")


class Director:
    """One director with its wire: takes commands and packets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wire, is_new = open_wire(PREFIX + name)
        if is_new and name != KERNEL:
            self._xlvs("attach", "--mode", MODES[name], "--connections", str(CONNECTIONS))

    def close(self, *, tidy: bool) -> None:
        """Let go of the wire, or take it away with what is loaded into it."""
        if tidy and self.name != KERNEL:
            # Its tables outlive a namespace that is deleted under it.
            self._xlvs("detach")
        self.wire.close()
        if tidy:
            take_away(PREFIX + self.name)

    def ipvsadm(self, words: Sequence[str], stdin: str = "") -> str:
        """A command's whole answer."""
        with self.wire.at_director():
            if self.name == KERNEL:
                done = subprocess.run(
                    ["ipvsadm", *words],
                    input=stdin, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False,
                )  # fmt: skip
                return without_size(format_answer(done.stdout, done.stderr, done.returncode))
            stdout, stderr = io.StringIO(), io.StringIO()
            status = ipvsadm.run(list(words), io.StringIO(stdin), stdout, stderr, open_datapath)
            return without_size(format_answer(stdout.getvalue(), stderr.getvalue(), status))

    def shortest(self, virtual: Sequence[str]) -> int | None:
        """The seconds that the kernel's next entry to one of those addresses has left.

        An entry that is overdue is still there, with 0 seconds, until the
        timer wheel comes round to it.
        """
        marks = {_as_in_proc(address) for address in virtual}
        with self.wire.at_director(), open("/proc/thread-self/net/ip_vs_conn") as table:
            rows = [line.split() for line in table]
        left = [int(row[8]) for row in rows[1:] if row[3] in marks]
        return min(left, default=None)

    def packets(self, segment: Segment, serial: int) -> str:
        """Send a step's packets, numbered from `serial`: who got each, and what came back."""
        sent = {serial + n: one.packet(serial + n) for n, one in enumerate(segment.each())}
        for packet in sent.values():
            self.wire.send(packet)
        got: dict[int, list[str]] = {number: [] for number in sent}
        back = []
        for node, packet in self.wire.seen():
            number = serial_of(packet)
            if node == CLIENT or number not in sent:
                back.append(f"{node} < {described(packet)}")
            elif packet == forwarded(sent[number]):
                got[number].append(node)
            else:
                got[number].append(f"{node}({packet.hex()} for {sent[number].hex()})")
        return "\n".join([" ".join("+".join(nodes) or "-" for nodes in got.values()), *back])

    def _xlvs(self, *words: str) -> None:
        with self.wire.at_director():
            subprocess.run([str(PROGRAMS / "xlvs"), *words], check=True, stdout=sys.stderr)


class RawPlayer:
    """Carries out the scenarios of one order."""

    def __init__(self, directors: Sequence[Director], steady: SteadyClock | None) -> None:
        self._directors = directors
        self._steady = steady
        self._serial = 1

    def play(self, scenario: Scenario, number: int) -> list[Play]:
        """Play a scenario on all directors; it begins with an empty table and VIPs of its own."""
        virtual = virtual_addresses(number)
        places = {"vip": virtual[0], "vip6": virtual[1], "dip": DIP[0], "dip_6": DIP[1]}
        for name, count, addresses in (
            ("rs", SERVERS, server_addresses),
            ("client", CLIENTS, client_addresses),
        ):
            for one in range(1, count + 1):
                places[f"{name}{one}"], places[f"{name}{one}_6"] = addresses(one)
        start = time.monotonic()
        seen: dict[str, list[Observation]] = {director.name: [] for director in self._directors}
        for step, stdin in with_stdin(scenario.steps):
            told, given = step.format(**places), stdin.format(**places)
            for director, observation in zip(
                self._directors, self._carry_out(told, given, virtual, start), strict=True
            ):
                seen[director.name].append(observation)
        for director in self._directors:
            director.ipvsadm(["-C"])
        return [Play(scenario.name, name, tuple(observations)) for name, observations in seen.items()]

    def _carry_out(
        self, step: str, stdin: str, virtual: Sequence[str], start: float
    ) -> Sequence[Observation]:
        verb, *words = shlex.split(step)
        if verb == "ipvsadm":
            if not COUNTERS.isdisjoint([*words, *stdin.split()]):
                with self._leaping():
                    time.sleep(COUNTERS_LAG)
            return [Observation(step, one.ipvsadm(words, stdin)) for one in self._directors]
        if verb == "packet":
            segment = Segment.parse(step)
            first, self._serial = self._serial, self._serial + len(segment.each())
            return [Observation(step, one.packets(segment, first)) for one in self._directors]
        if verb == "connections":
            return [
                connection_table(step, one.ipvsadm(["-L", "-c", "-n"]), time.monotonic() - start, virtual)
                for one in self._directors
            ]
        if verb == "wait":
            self._wait(float(words[0]), virtual)
            return [Observation(step, "") for _ in self._directors]
        raise ValueError(f"not a step of a scenario of raw packets: {step}")

    def _wait(self, seconds: float, virtual: Sequence[str]) -> None:
        """Wait, and on until no entry is about to end or overdue."""
        with self._leaping():
            time.sleep(seconds)
        for _ in range(LATEST):
            left = [one.shortest(virtual) for one in self._directors if one.name == KERNEL]
            if all(soonest is None or soonest > SOON for soonest in left):
                return
            with self._leaping():
                time.sleep(1)

    @contextmanager
    def _leaping(self) -> Iterator[None]:
        if self._steady:
            self._steady.pause()
        try:
            yield
        finally:
            if self._steady:
                self._steady.resume()


def with_stdin(steps: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each step with the ``<`` lines that follow it."""
    paired: list[tuple[str, str]] = []
    for step in steps:
        if step.startswith("<"):
            before, stdin = paired.pop()
            paired.append((before, stdin + step[1:].strip() + "\n"))
        else:
            paired.append((step, ""))
    return paired


def _as_in_proc(address: str) -> str:
    """An address as /proc/net/ip_vs_conn writes it."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address).hex(":", 2)
    return socket.inet_aton(address).hex().upper()


def main() -> int:
    """Play what stdin orders and print what was seen."""
    order = json.load(sys.stdin)
    scenarios = [Scenario(one["name"], tuple(one["steps"]), one["servers"]) for one in order["scenarios"]]
    plays = []
    with ExitStack() as stack:
        steady = SteadyClock() if order["leaping_clock"] else None
        if steady:
            stack.callback(steady.close)
        directors = []
        for name in order["directors"]:
            director = Director(name)
            stack.callback(director.close, tidy=not order["keep"])
            directors.append(director)
        numbers = unused_numbers(len(scenarios))
        for director in directors:
            director.wire.take_addresses(numbers)
        player = RawPlayer(directors, steady)
        for number, scenario in zip(numbers, scenarios, strict=True):
            start = time.monotonic()
            plays += [asdict(play) for play in player.play(scenario, number)]
            print(f"{scenario.name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    json.dump(plays, sys.stdout)
    return 0


def unused_numbers(count: int) -> range:
    """That many numbers for scenarios, none of which this guest has used."""
    try:
        first = int(NUMBERS.read_text())
    except FileNotFoundError:
        subprocess.run(["modprobe", "-a", "ip_vs", *(f"ip_vs_{name}" for name in SCHEDULERS)], check=True)
        first = 0
    NUMBERS.write_text(str(first + count))
    return range(first, first + count)


if __name__ == "__main__":
    sys.exit(main())
