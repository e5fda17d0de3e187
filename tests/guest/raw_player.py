# SPDX-License-Identifier: GPL-2.0-only
"""Plays scenarios of raw packets inside the guest: ``python -m tests.guest.raw_player``.

Every director has wires of its own (see `wire`), and each step is carried out
on all of them before the next: they share the clock and its waits.  The
scenarios of an order share the directors, too, with VIPs and clients of their
own; while one waits, others go on, so that waiting is done once for all.
Those whose commands are about the whole table come last, one by one.

xlvs's commands run in this process, ipvsadm's in a standing program: starting
programs is what costs.  Reads the order of `oracle.play` from stdin as JSON
and writes the observations to stdout.
"""

from __future__ import annotations

import heapq
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from xlvs.datapath import sysctls

from .operators import KernelOperator, Operator, XlvsOperator
from .player import PROGRAMS, TICKS, SteadyClock, connection_table, wait, without_size
from .scenario import KERNEL, Observation, Play, Scenario
from .segments import Complaint, End, Flow, Segment
from .sightings import Sighting, described, ends_of, innermost
from .wire import (
    CLIENT,
    CLIENTS,
    DIP,
    ROUTER,
    SERVERS,
    SHAPES,
    client_addresses,
    client_networks,
    open_wire,
    scenario_of,
    server_addresses,
    take_away,
    virtual_addresses,
)

CONNECTIONS = 8192
"""Room in xlvs's table: sweeping a larger one costs time, and no scenario needs it."""
SOON = 2
"""An entry with no more seconds than this left may end between two steps."""
TEMPLATES_LATE = 10
"""Seconds that a template may live longer in the kernel: its timer is late by up to two at each minute."""
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
WHOLE_TABLE = {("-C",), ("-Z",)}
"""Commands that are about every service there is: a scenario with one of them is played alone."""
FIRST_MARK = 1000
MARKED_PORTS = (9000, 9003)
"""To these ports, first and last, packets of every protocol have their scenario's firewall mark."""
PROTOCOLS = ("tcp", "udp", "sctp")


class Director:
    """One director with its wires: takes commands and packets."""

    def __init__(self, name: str, shape: str, preload: Path) -> None:
        self.name = name
        self._prefix = f"{PREFIX}{shape}-{name}"
        self.wire, is_new = open_wire(self._prefix, SHAPES[shape])
        self._strays: dict[int, list[Sighting]] = {}
        inside = self.wire.at_director
        self.operator: Operator = KernelOperator(inside, preload) if name == KERNEL else XlvsOperator(inside)
        if is_new and isinstance(self.operator, XlvsOperator):
            settings = ("--mode", MODES[name], "--connections", str(CONNECTIONS))
            self.operator.xlvs("attach", *SHAPES[shape].attached, *settings)

    def close(self, *, tidy: bool) -> None:
        """Let go of the wires, or take them away with what is loaded into the director."""
        self.operator.close()
        if tidy and isinstance(self.operator, XlvsOperator):
            # Its tables outlive a namespace that is deleted under it.
            self.operator.xlvs("detach")
        self.wire.close()
        if tidy:
            take_away(self._prefix)

    def ipvsadm(self, words: Sequence[str], stdin: str = "") -> str:
        """A command's whole answer."""
        return without_size(self.operator.ipvsadm(words, stdin))

    def keep_hooks(self) -> None:
        """See to a service of each family that no scenario has.

        Without one the kernel takes its hooks off, and what a scenario does after
        removing its last service would depend on the others of its play.
        """
        self.ipvsadm(["-R"], f"-A -t {DIP[0]}:9\n-A -t [{DIP[1]}]:9\n")

    def set_marks(self, scenarios: Sequence[int]) -> None:
        """Give the packets of these scenarios, and of no others, their marks."""
        first, last = MARKED_PORTS
        both = [(FIRST_MARK + number, virtual_addresses(number)) for number in scenarios]
        if isinstance(self.operator, XlvsOperator):
            rules = [
                f"add {mark} --dst {address} --proto {protocol} --port {first}-{last}\n"
                for mark, pair in both
                for address in pair
                for protocol in PROTOCOLS
            ]
            self._run([str(PROGRAMS / "xlvs"), "mark", "restore"], "".join(rules))
            return
        # IPVS has its marks from netfilter.
        for place, program in enumerate(("iptables-restore", "ip6tables-restore")):
            rules = [
                f"-A PREROUTING -d {pair[place]} -p {protocol} -m multiport --dports {first}:{last} "
                f"-j MARK --set-mark {mark}\n"
                for mark, pair in both
                for protocol in PROTOCOLS
            ]
            self._run([program], "*mangle\n" + "".join(rules) + "COMMIT\n")

    def _run(self, command: Sequence[str], stdin: str) -> None:
        with self.wire.at_director():
            subprocess.run(command, input=stdin, text=True, check=True, stdout=sys.stderr)

    def shortest(self, scenario: int) -> int | None:
        """The seconds that the kernel's next entry of a scenario has left in both directors.

        An entry that is overdue is still there, with 0 seconds, until the
        timer wheel comes round to it.
        """
        virtual = {_as_in_proc(address) for address in virtual_addresses(scenario)}
        # Templates of a firewall mark have that for an address.
        virtual.add(f"{FIRST_MARK + scenario:08X}")
        virtual.add(_mark_in_proc6(FIRST_MARK + scenario))
        with self.wire.at_director(), open("/proc/thread-self/net/ip_vs_conn") as table:
            rows = [line.split() for line in table]
        # Templates are those from port 0.
        left = [
            int(row[8]) - (TEMPLATES_LATE if row[2] == "0000" else 0)
            for row in rows[1:]
            if row[3] in virtual
        ]
        return min(left, default=None)

    def traffic(self, sent: Sequence[tuple[str, bytes]], scenario: int) -> list[Sighting]:
        """Send packets, each from a node; what came out for that scenario since it was last asked."""
        for node, packet in sent:
            self.wire.send(packet, node)
        for sighting in self.wire.seen():
            owner = scenario_of(sighting[1])
            self._strays.setdefault(scenario if owner is None else owner, []).append(sighting)
        return self._strays.pop(scenario, [])


class Side:
    """One scenario on one director: which real server has got which flow."""

    def __init__(self, director: Director, number: int) -> None:
        self.director = director
        self._number = number
        self._servers: dict[Flow, tuple[str, End]] = {}

    def packets(self, segment: Segment, serial: int) -> str:
        """Send a step's packets, numbered from `serial`; what came of them."""
        sent = []
        for place, one in enumerate(segment.each()):
            node, end = self._sender(one.flow) if segment.from_server else (CLIENT, None)
            if node:
                sent += [(node, packet) for packet in one.packets(serial + place, end)]
        return self._exchange(sent, segment)

    def complaint(self, complaint: Complaint, serial: int) -> str:
        """Send an ICMP error; what came of it."""
        node, end = self._sender(complaint.flow) if complaint.from_server else (CLIENT, None)
        return self._exchange([(node, complaint.packet(serial, end))] if node else [], None)

    def _sender(self, flow: Flow) -> tuple[str, End | None]:
        """The masqueraded real server that got a flow's last packet, and its address there; or nobody."""
        node, end = self._servers.get(flow, ("", None))
        if end is None or end.address == flow.virtual:
            return "", None
        return node, end

    def _exchange(self, sent: Sequence[tuple[str, bytes]], segment: Segment | None) -> str:
        sightings = self.director.traffic(sent, self._number)
        if segment and not segment.from_server:
            flows = {(one.flow.client, one.flow.client_port): one.flow for one in segment.each()}
            for node, packet in sightings:
                self._note(node, packet, flows)
        return "\n".join(described(sightings)) if sent or sightings else "-"

    def _note(self, node: str, packet: bytes, flows: dict[tuple[str, int], Flow]) -> None:
        ends = ends_of(innermost(packet))
        flow = flows.get((ends[0].address, ends[0].port)) if ends else None
        if flow and ends and node != CLIENT:
            self._servers[flow] = (node, ends[1])


class RawPlay:
    """One scenario on all directors; `moments` carries it out."""

    def __init__(self, scenario: Scenario, number: int, directors: Sequence[Director]) -> None:
        self._scenario = scenario
        self._number = number
        self._virtual = virtual_addresses(number)
        # Templates of a firewall mark show no VIP.
        self._mentions = (*self._virtual, *client_networks(number))
        self._sides = [Side(director, number) for director in directors]
        self._serial = 1
        self._start = 0.0
        self._observed: list[list[Observation]] = [[] for _ in directors]
        places = {"vip": self._virtual[0], "vip6": self._virtual[1], "dip": DIP[0], "dip_6": DIP[1]}
        places["mark"] = str(FIRST_MARK + number)
        for one in range(1, SERVERS + 1):
            places[f"rs{one}"], places[f"rs{one}_6"] = server_addresses(one)
        for one in range(1, CLIENTS + 1):
            places[f"client{one}"], places[f"client{one}_6"] = client_addresses(number, one)
        places["router"], places["router_6"] = client_addresses(number, ROUTER)
        self._steps = [
            (step.format(**places), stdin.format(**places)) for step, stdin in with_stdin(scenario.steps)
        ]

    def moments(self) -> Iterator[float]:
        """Carry all steps out; stops at each wait, giving the seconds that it lasts."""
        self._start = time.monotonic()
        for step, stdin in self._steps:
            verb, *words = shlex.split(step)
            if verb == "ipvsadm" and not COUNTERS.isdisjoint([*words, *stdin.split()]):
                yield COUNTERS_LAG
                yield from self._until_sure()
            if verb == "wait":
                yield float(words[0])
                yield from self._until_sure()
            for seen, answer in zip(self._observed, self._carry_out(verb, step, words, stdin), strict=True):
                seen.append(answer)
        self._tidy_up()

    def plays(self) -> list[Play]:
        """What was observed."""
        return [
            Play(self._scenario.name, side.director.name, tuple(seen))
            for side, seen in zip(self._sides, self._observed, strict=True)
        ]

    def _carry_out(self, verb: str, step: str, words: Sequence[str], stdin: str) -> list[Observation]:
        if verb == "ipvsadm":
            answers = [side.director.ipvsadm(words, stdin) for side in self._sides]
            owners = (*self._virtual, f"FWM  {FIRST_MARK + self._number} ")
            return [Observation(step, own_services(answer, owners)) for answer in answers]
        if verb == "sysctl":
            return [Observation(step, side.director.operator.sysctl(*words)) for side in self._sides]
        if verb in ("packet", "answer"):
            segment = Segment.parse(step)
            first, self._serial = self._serial, self._serial + len(segment.each())
            return [Observation(step, side.packets(segment, first)) for side in self._sides]
        if verb == "icmp":
            complaint = Complaint.parse(step)
            self._serial += 1
            return [Observation(step, side.complaint(complaint, self._serial)) for side in self._sides]
        if verb == "connections":
            time.sleep(TICKS)
            return [
                without_ends_of_templates(
                    step, side.director.ipvsadm(["-L", "-c", "-n"]),
                    time.monotonic() - self._start, self._mentions,
                )
                for side in self._sides
            ]  # fmt: skip
        if verb == "wait":
            return [Observation(step, "") for _ in self._sides]
        raise ValueError(f"not a step of a scenario of raw packets: {step}")

    def _until_sure(self) -> Iterator[float]:
        """Wait on until no entry is about to end or overdue, and what has ended is gone from both.

        The kernel's timers are late by an eighth, xlvs's sweeper by up to a second.
        """
        for _ in range(LATEST):
            left = [
                side.director.shortest(self._number) for side in self._sides if side.director.name == KERNEL
            ]
            if all(soonest is None or soonest > SOON for soonest in left):
                break
            yield 1
        yield 1

    def _tidy_up(self) -> None:
        """Remove the services, and set back what was set."""
        lines = [line.split() for step, stdin in self._steps for line in (step, *stdin.splitlines())]
        named = {
            f"{words[place]} {words[place + 1]}"
            for words in lines
            for place, word in enumerate(words[:-1])
            if word in ("-t", "-u", "--sctp-service", "-f")
        }
        named |= {f"{service} -6" for service in named if service.startswith("-f")}
        settings = {words[1] for words in lines if words[0] == "sysctl"}
        for side in self._sides:
            side.director.ipvsadm(["-R"], "".join(f"-D {service}\n" for service in sorted(named)))
            for name in settings:
                side.director.operator.sysctl(name, sysctls.defaults()[name])


def play_all(plays: Sequence[RawPlay], steady: SteadyClock | None) -> None:
    """Carry scenarios out together: the one whose wait ends first goes on first."""
    moments = [play.moments() for play in plays]
    waiting = [(0.0, number) for number in range(len(plays))]
    while waiting:
        end, number = heapq.heappop(waiting)
        remaining = end - time.monotonic()
        if remaining > 0:
            wait(remaining, steady)
        seconds = next(moments[number], None)
        if seconds is not None:
            heapq.heappush(waiting, (time.monotonic() + seconds, number))


def is_about_whole_table(scenario: Scenario) -> bool:
    """Whether a scenario must be played alone: settings are every service's, too."""
    if any(step.startswith("sysctl ") for step in scenario.steps):
        return True
    lines = [step.removeprefix("<").removeprefix("ipvsadm") for step in scenario.steps]
    return any(tuple(line.split()) in WHOLE_TABLE for line in lines)


def without_ends_of_templates(step: str, listing: str, now: float, mentions: Sequence[str]) -> Observation:
    """The connection table as in `connection_table`, but when a template ends counts for nothing.

    Each minute more that it is given begins when the kernel's coarse timer fires
    (test_persistence compares how they end).
    """
    seen = connection_table(step, listing, now, mentions)
    rows = [line for line in seen.answer.splitlines() if "--:--" in line]
    ends = (0.0 if row.split()[3].endswith(":0") else end for row, end in zip(rows, seen.ends, strict=True))
    return Observation(step, seen.answer, tuple(ends))


def own_services(answer: str, owners: Sequence[str]) -> str:
    """An answer without the services, in a listing, that name none of the owners: VIPs and marks."""
    kept = []
    is_own = True
    for line in answer.splitlines(keepends=True):
        if line.startswith(("1|TCP ", "1|UDP ", "1|SCTP ", "1|FWM ")):
            is_own = any(owner in line for owner in owners)
        elif not line.startswith("1|  -> ") or "RemoteAddress" in line:
            is_own = True
        if is_own:
            kept.append(line)
    return "".join(kept)


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


def _mark_in_proc6(mark: int) -> str:
    """A firewall mark in the place of an IPv6 address there."""
    return (mark.to_bytes(4, "big") + bytes(12)).hex(":", 2)


def main() -> int:
    """Play what stdin orders and print what was seen."""
    order = json.load(sys.stdin)
    scenarios = [Scenario(one["name"], tuple(one["steps"]), one["servers"]) for one in order["scenarios"]]
    with ExitStack() as stack:
        steady = SteadyClock() if order["leaping_clock"] else None
        if steady:
            stack.callback(steady.close)
        numbers = unused_numbers(len(scenarios))
        directors = []
        for name in order["directors"]:
            director = Director(name, order["shape"], Path(order["preload"]))
            stack.callback(director.close, tidy=not order["keep"])
            director.wire.take_addresses(numbers)
            directors.append(director)
        marked = [
            number
            for number, scenario in zip(numbers, scenarios, strict=True)
            if any("{mark}" in step for step in scenario.steps)
        ]
        for director in directors if marked else ():
            director.set_marks(marked)
        plays = [
            RawPlay(scenario, number, directors) for number, scenario in zip(numbers, scenarios, strict=True)
        ]
        alone = [is_about_whole_table(scenario) for scenario in scenarios]
        together = [play for play, is_alone in zip(plays, alone, strict=True) if not is_alone]
        for some in (together, *([play] for play, is_alone in zip(plays, alone, strict=True) if is_alone)):
            for director in directors:
                director.keep_hooks()
            play_all(some, steady)
    json.dump([asdict(seen) for play in plays for seen in play.plays()], sys.stdout)
    return 0


def unused_numbers(count: int) -> range:
    """That many numbers for scenarios, none of which this guest has used."""
    try:
        first = int(NUMBERS.read_text())
    except FileNotFoundError:
        modules = ["bonding", "8021q", "ip_vs", *(f"ip_vs_{name}" for name in SCHEDULERS)]
        subprocess.run(["modprobe", "-a", *modules], check=True)
        first = 0
    NUMBERS.write_text(str(first + count))
    return range(first, first + count)


if __name__ == "__main__":
    sys.exit(main())
