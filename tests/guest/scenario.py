# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios: the same story told to kernel IPVS and to xlvs, in one guest.

A `Scenario` is data: a name, a number of real servers, and steps.  `play`
runs scenarios in a guest, each against each director in a network of its own
(see `network`), and `differences` compares what was observed.  Steps, one a
line, with ``{vip}``, ``{vip6}``, ``{rs1}``, ``{rs1_6}``, ``{client}`` and so on
standing for addresses:

    ipvsadm -A -t {vip}:80 -s rr    a command on the director; observed: its whole answer
    sysctl NAME VALUE               a setting of net.ipv4.vs on the director; observed: the complaint
    < LINE                          adds a line to the stdin of the command before it
    open NAME tcp {vip}:80 [from ADDRESS:PORT]
                                    a connection, which stays open; observed: the real server that
                                    got it, "director", "refused" or "no answer"
    open NAME udp {vip}:53 [...]    a datagram, likewise
    open NAME tcp|udp {vip}:80 on NODE from ADDRESS:PORT
                                    the same, of a client on another node, such as the director
    open NAME sctp {vip}:80 [...]   an association; servers listen on the VIP and their own address
    listen tcp|udp|sctp PORT        a port that no "open" names, on which the real servers listen, too
    send NAME [BYTES]               more from the same client socket; observed: as with open
    datagram NODE ADDRESS:PORT {vip}:53 "TEXT"
                                    a datagram with that text, \\r and \\n in it, from a node's address; who
                                    got it (see "listen"), and from where, or "no answer"
    close NAME                      an orderly end: FIN from the client, FIN back, last ACK
    reset NAME                      RST from the client
    run NODE COMMAND...             any command, on "client", "director", "rs1"...; observed: the answer
    proc FILE                       observed: that file of /proc/net, or `xlvs proc FILE`, its rows sorted,
                                    and when each entry of a connection file will expire
    connections [OPTION]            observed: the connection table, sorted, and when each entry will expire
    wait SECONDS                    of the guest's clock; before ``--stats`` at least 2, because the kernel
                                    refreshes what it shows only so often

The kernel lets an entry's timer fire up to an eighth later than the timer says
(its timer wheel is coarse: 16 s for 120, 131 s for 900): look for the end of an
entry before its time, or well after.

Anything that can be written so can be generated, too.  This module does no
I/O but through a guest; the part that runs inside is `player`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .standing import preload_library

if TYPE_CHECKING:
    from .runner import Guest

PROJECT = Path(__file__).resolve().parents[2]

KERNEL = "kernel"
XLVS = "xlvs"
DIRECTORS = (KERNEL, XLVS)
"""Kernel IPVS with the real ipvsadm, and xlvs with xlvsadm."""

TOLERANCE = 5
"""Seconds that the ends of two entries may be apart: each play takes its own time before it makes them."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story to play; see the module's text for its steps."""

    name: str
    steps: tuple[str, ...]
    servers: int = 3
    """How many real servers there are, from 1."""

    @classmethod
    def parse(cls, name: str, text: str, *, servers: int = 3) -> Scenario:
        """Make a scenario of a text with one step a line; empty lines and ``#`` comments go."""
        lines = (line.strip() for line in text.splitlines())
        return cls(name, tuple(line for line in lines if line and not line.startswith("#")), servers)


@dataclass(frozen=True, slots=True)
class Observation:
    """What one step showed."""

    step: str
    answer: str
    ends: tuple[float, ...] = ()
    """When each listed entry will expire, in seconds from the scenario's start; a little may differ."""


@dataclass(frozen=True, slots=True)
class Play:
    """One scenario, played against one director."""

    scenario: str
    director: str
    observations: tuple[Observation, ...]

    def picks(self) -> list[str]:
        """The real servers that the flows got, in order."""
        return [seen.answer for seen in self.observations if seen.step.split()[0] == "open"]


def play(
    guest: Guest,
    scenarios: Sequence[Scenario],
    directors: Sequence[str] = DIRECTORS,
    *,
    timeout: float = 120,
) -> list[Play]:
    """Play scenarios in a guest, each against each director.

    Raises `runner.GuestError` when a network cannot be built or a step cannot
    be carried out; an ipvsadm that fails is an observation.
    """
    order = {
        "leaping_clock": guest.icount,
        "directors": list(directors),
        "preload": str(preload_library()),
        "scenarios": [asdict(scenario) for scenario in scenarios],
    }
    result = guest.run(
        [sys.executable, "-m", "tests.guest.player"],
        stdin=json.dumps(order),
        timeout=timeout,
        directory=PROJECT,
    ).check()
    return [
        Play(
            played["scenario"],
            played["director"],
            tuple(
                Observation(seen["step"], seen["answer"], tuple(seen["ends"]))
                for seen in played["observations"]
            ),
        )
        for played in json.loads(result.stdout)
    ]


def differences(plays: Sequence[Play], tolerance: float = TOLERANCE) -> list[str]:
    """Compare the plays of each scenario by two directors; one text for each that differs.

    `tolerance` is the seconds that the ends of two entries may be apart.  A text
    tells the story up to the first step with different answers, and both answers.
    """
    by_scenario: dict[str, list[Play]] = {}
    for one in plays:
        by_scenario.setdefault(one.scenario, []).append(one)
    texts = []
    for name, (first, *others) in by_scenario.items():
        for other in others:
            difference = _first_difference(first, other, tolerance)
            if difference:
                texts.append(f"scenario {name!r}: {difference}")
    return texts


def _first_difference(one: Play, other: Play, tolerance: float) -> str:
    story: list[str] = []
    for left, right in zip(one.observations, other.observations, strict=True):
        story.append(f"    {left.step}")
        if left.answer == right.answer and _close(left.ends, right.ends, tolerance):
            if left.step.startswith(("open ", "packet ")):
                story[-1] += f"   -> {_first_line(left.answer)}"
            continue
        told = "\n".join(story)
        return f"\n{told}\n{one.director}:\n{_shown(left)}\n{other.director}:\n{_shown(right)}"
    return ""


def _first_line(answer: str) -> str:
    line, _, rest = answer.partition("\n")
    return f"{line} …" if rest else line


def _close(left: Sequence[float], right: Sequence[float], tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))


def _shown(seen: Observation) -> str:
    ends = f"\nexpire at seconds: {[round(end, 1) for end in seen.ends]}" if seen.ends else ""
    return seen.answer.rstrip("\n") + ends
