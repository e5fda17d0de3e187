# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tests.guest.keepalived_oracle``: xlvsd against keepalived, by random histories.

A history is a configuration, real servers that fail and come back, reloads with other
configurations, addresses that go and come, and an end: see `keepalived_player`, which plays it.
Shows each step at which the three were not alike, with what led to it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .keepalived_player import DIRECTORS, KEEPALIVED, Seen
from .runner import Guest
from .scenario import PROJECT
from .standing import preload_library

SERVERS = 9
"""Real servers there are; the last is for sorry servers."""
CHECKED = SERVERS - 1
BATCH = 4
Step = tuple[str, str]

GLOBALS = """\
global_defs {
    script_user root
    enable_script_security
    lvs_notify_fifo {folder}/fifo
}
"""
HEADS = (
    "192.0.2.1 80", "192.0.2.1 81", "192.0.2.2 80", "192.0.2.2 0", "2001:db8:1::1 80",
    "fwmark 5", "fwmark 6", "group some",
)  # fmt: skip
GROUP = "virtual_server_group some {\n%s}\n"
GROUP_LINES = ("192.0.2.3 80", "192.0.2.3 81", "192.0.2.4-5 80", "fwmark 7")
SCHEDULERS = ("rr", "wrr", "wlc", "lc", "sed", "nq", "sh", "mh", "dh", "lblc", "fo", "ovf")
SERVER_FLAGS = (
    "alpha", "omega", "ha_suspend", "ops", "hashed", "sh-port", "sh-fallback", "mh-port",
    "sorry_server_inhibit",
)  # fmt: skip
METHODS = ("NAT", "DR", "TUN", "TUN type gre csum", "TUN type gue port 6080")


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server as a configuration has it."""

    number: int
    weight: int = 1
    lines: tuple[str, ...] = ()
    checked: bool = True

    def text(self, head: str) -> str:
        """Its block."""
        address = f"2001:db8::{self.number}" if ":" in head else f"10.0.0.{self.number}"
        port = {"192.0.2.2": 0}.get(head.removesuffix(" 0"), 80)
        lines = [f"weight {self.weight}", *self.lines]
        lines += [
            f'notify_{way} "{{folder}}/notify {way} {self.number} of {head}"' for way in ("up", "down")
        ]
        if self.checked:
            lines += ["TCP_CHECK {", "    connect_port 80", "    connect_timeout 3", "}"]
        inner = "".join(f"        {line}\n" for line in lines)
        return f"    real_server {address} {port} {{\n{inner}    }}\n"


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual server as a configuration has it."""

    head: str
    scheduler: str = "wlc"
    method: str = "DR"
    protocol: str = "TCP"
    lines: tuple[str, ...] = ()
    quorum: int = 1
    hysteresis: int = 0
    has_sorry_server: bool = False
    real_servers: tuple[RealServer, ...] = ()

    def text(self) -> str:
        """Its block."""
        lines = [
            "delay_loop 0.7", "retry 1", "delay_before_retry 0.1", f"lb_algo {self.scheduler}",
            f"lb_kind {self.method}", f"quorum {self.quorum}", f"hysteresis {self.hysteresis}", *self.lines,
            *(f'quorum_{way} "{{folder}}/notify quorum {way} of {self.head}"' for way in ("up", "down")),
        ]  # fmt: skip
        if not self.head.startswith("fwmark"):
            lines.append(f"protocol {self.protocol}")
        if self.has_sorry_server:
            lines.append(
                f"sorry_server {f'2001:db8::{SERVERS}' if ':' in self.head else f'10.0.0.{SERVERS}'} 80"
            )
        inner = "".join(f"    {line}\n" for line in lines)
        real_servers = "".join(one.text(self.head) for one in self.real_servers)
        return f"virtual_server {self.head} {{\n{inner}{real_servers}}}\n"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole configuration."""

    servers: tuple[VirtualServer, ...]
    group: tuple[str, ...] = field(default=GROUP_LINES[:2])

    def text(self) -> str:
        """What stands in keepalived.conf."""
        group = GROUP % "".join(f"    {line}\n" for line in self.group)
        return GLOBALS + group + "".join(one.text() for one in self.servers)


class Draw:
    """Draws histories."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def history(self, steps: int) -> list[Step]:
        """A history of so many steps between its beginning and its end."""
        pick = self._random
        one = self.configuration()
        down: set[int] = set(pick.sample(range(1, CHECKED + 1), pick.choice((0, 0, 2))))
        away: set[str] = set()
        made: list[Step] = [("down", " ".join(map(str, sorted(down))))] if down else []
        made.append(("start", one.text()))
        while len(made) < steps + 1:
            match pick.choices(("health", "reload", "address"), (6, 4, 1))[0]:
                case "health":
                    some = set(pick.sample(range(1, CHECKED + 1), pick.choice((1, 1, 2, 4))))
                    verb = pick.choice(("down", "up"))
                    some = some - down if verb == "down" else some & down
                    if some:
                        down ^= some
                        made.append((verb, " ".join(map(str, sorted(some)))))
                case "reload":
                    one = self.changed(one)
                    made.append(("reload", one.text()))
                case _:
                    vip = pick.choice(("192.0.2.1", "192.0.2.2", "2001:db8:1::1"))
                    made.append(("back" if vip in away else "away", vip))
                    away ^= {vip}
        return [*made, *(("back", vip) for vip in sorted(away)), ("stop", "")]

    def configuration(self) -> Configuration:
        """Some virtual servers."""
        heads = self._random.sample(HEADS, self._random.randint(1, 4))
        return Configuration(tuple(self.virtual_server(head) for head in heads), self.group())

    def group(self) -> tuple[str, ...]:
        """What a group has."""
        return tuple(sorted(self._random.sample(GROUP_LINES, self._random.randint(1, len(GROUP_LINES)))))

    def virtual_server(self, head: str) -> VirtualServer:
        """A virtual server."""
        pick = self._random
        numbers = pick.sample(range(1, CHECKED + 1), pick.randint(1, 4))
        made = VirtualServer(
            head, real_servers=tuple(self.real_server(number) for number in numbers),
        )  # fmt: skip
        for _ in range(6):
            made = self._with_another_field(made)
        return made

    def _with_another_field(self, one: VirtualServer) -> VirtualServer:
        pick = self._random
        match pick.randint(0, 7):
            case 0:
                return replace(one, scheduler=pick.choice(SCHEDULERS))
            case 1:
                return replace(one, method=pick.choice(METHODS))
            case 2:
                return replace(one, quorum=pick.randint(1, 8), hysteresis=0)
            case 3:
                return replace(one, hysteresis=pick.randint(0, max(0, one.quorum - 1)))
            case 4:
                return replace(one, has_sorry_server=not one.has_sorry_server)
            case 5:
                lines = set(one.lines) ^ {pick.choice(SERVER_FLAGS)}
                return replace(one, lines=tuple(sorted(lines)))
            case 6:
                lines = {line for line in one.lines if not line.startswith("persistence")}
                if pick.random() < 0.6:
                    lines.add(f"persistence_timeout {pick.choice((60, 300))}")
                    if pick.random() < 0.4:
                        lines.add(f"persistence_granularity {'64' if ':' in one.head else '255.255.255.0'}")
                return replace(one, lines=tuple(sorted(lines)))
            case _:
                return replace(one, protocol=pick.choice(("TCP", "UDP")))

    def real_server(self, number: int) -> RealServer:
        """A real server."""
        pick = self._random
        lines: list[str] = []
        if pick.random() < 0.3:
            lines.append("inhibit_on_failure")
        if pick.random() < 0.15:
            lines += ["uthreshold 100", "lthreshold 50"]
        if pick.random() < 0.1:
            lines.append(f"lvs_method {pick.choice(METHODS)}")
        weight = pick.choice((0, 1, 1, 2, 3, 5))
        return RealServer(number, weight, tuple(lines), checked=pick.random() < 0.9)

    def changed(self, one: Configuration) -> Configuration:
        """The same with some differences."""
        pick = self._random
        servers = list(one.servers)
        for _ in range(pick.randint(1, 3)):
            at = pick.randrange(len(servers)) if servers else -1
            match pick.randint(0, 5) if servers else 5:
                case 0:
                    servers[at] = self._with_another_field(servers[at])
                case 1 | 2:
                    servers[at] = self._with_other_real_servers(servers[at])
                case 3 if len(servers) > 1:
                    del servers[at]
                case 4:
                    one = replace(one, group=self.group())
                case _:
                    free = [head for head in HEADS if head not in {server.head for server in servers}]
                    servers.append(self.virtual_server(pick.choice(free)))
        return replace(one, servers=tuple(servers))

    def _with_other_real_servers(self, one: VirtualServer) -> VirtualServer:
        pick = self._random
        some = list(one.real_servers)
        at = pick.randrange(len(some)) if some else -1
        match pick.randint(0, 3) if some else 3:
            case 0 if len(some) > 1:
                del some[at]
            case 1:
                some[at] = replace(some[at], weight=pick.choice((0, 1, 2, 4, 9)))
            case 2:
                some[at] = self.real_server(some[at].number)
            case _:
                free = set(range(1, CHECKED + 1)) - {server.number for server in some}
                if free:
                    some.insert(pick.randint(0, len(some)), self.real_server(pick.choice(sorted(free))))
        return replace(one, real_servers=tuple(some))


def play(
    guest: Guest, histories: Sequence[Sequence[Step]], timeout: float = 0
) -> list[list[dict[str, Seen]]]:
    """Play histories; for each, and each step, what every director came to.  Raises `runner.GuestError`."""
    order = {
        "servers": SERVERS,
        "preload": str(preload_library()),
        "histories": [list(one) for one in histories],
    }
    result = guest.run(
        [sys.executable, "-m", "tests.guest.keepalived_player"],
        stdin=json.dumps(order), directory=PROJECT,
        timeout=timeout or 300 + sum(30 * len(one) for one in histories),
    ).check()  # fmt: skip
    played: list[list[dict[str, Seen]]] = json.loads(result.stdout)
    return played


def disagreements(history: Sequence[Step], seen: Sequence[dict[str, Seen]]) -> list[str]:
    """The steps of a history at which the directors were not alike, and how."""
    found = []
    for number, (step, at) in enumerate(zip(history, seen, strict=True)):
        for name in DIRECTORS[1:]:
            for what in ("table", "told"):
                theirs, ours = at[KEEPALIVED][what], at[name][what]
                if theirs != ours:
                    rest = step[1] if len(step[1]) < 60 else ""
                    found.append(
                        f"step {number}, {step[0]} {rest}: {what} of {name}\n"
                        + "".join(f"    keepalived only: {one}\n" for one in _more(theirs, ours))
                        + "".join(f"    xlvsd only:      {one}\n" for one in _more(ours, theirs))
                    )
    return found


def _more(some: list[str], others: list[str]) -> list[str]:
    left = list(others)
    more = []
    for one in some:
        if one in left:
            left.remove(one)
        else:
            more.append(one)
    return more


def main() -> int:
    """Read the command line and play; 1 when there is a difference."""
    parser = argparse.ArgumentParser(
        prog="tests.guest.keepalived_oracle", description="Random histories: keepalived against xlvsd."
    )
    parser.add_argument("--count", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which ones (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="of each (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="show histories that differ")
    options = parser.parse_args()
    different = 0
    with Guest(cpus=1, icount=True) as guest:
        for first in range(0, options.count, BATCH):
            seeds = range(options.seed + first, options.seed + min(first + BATCH, options.count))
            histories = [Draw(seed).history(options.steps) for seed in seeds]
            for seed, history, seen in zip(seeds, histories, play(guest, histories), strict=True):
                found = disagreements(history, seen)
                print(f"{seed}: {len(history)} steps, {len(found)} differences", flush=True)
                different += bool(found)
                if found and options.show:
                    print(
                        "\n".join(
                            f"--- {number}: {verb}\n{rest}" for number, (verb, rest) in enumerate(history)
                        )
                    )
                print("".join(found), end="", flush=True)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
