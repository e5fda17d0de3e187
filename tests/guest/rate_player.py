# SPDX-License-Identifier: GPL-2.0-only
"""Shows the same packets to kernel IPVS and to xlvs, and what rates each makes of them.

``python -m tests.guest.rate_player PRELOAD`` runs in the guest and prints JSON:
for each director the rates that it showed one after the other, from a burst of
packets on, of the service and of its real server.

Each estimates every two seconds, but when is its own affair.  So the player
first finds out when, and sends the burst at once where nobody estimates: then
it counts as a whole in one estimate of each, and all that follows is formula.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from .raw_player import Director, unused_numbers
from .scenario import KERNEL, XLVS
from .segments import Segment
from .wire import client_addresses, server_addresses, virtual_addresses

PERIOD = 2.0
LOOK = 0.05
"""Seconds between two looks at the rates while the moments of estimates are sought."""
WATCHFUL = 0.5
"""Seconds between two looks while they are watched: they change every two, and a look costs a command."""
DISTANCE = 0.2
"""Seconds that a burst stays away from any estimate; it takes a fraction of that."""
UNTIL_QUIET = 100
"""Seconds after which nothing is left of a rate."""
WATCHED = 25

Rates = tuple[tuple[int, ...], ...]
"""Of the service, then of its real server: the five columns."""


def rates(director: Director, service: str) -> Rates:
    """What the director shows."""
    answer = director.ipvsadm(["-L", "-n", "--rate", "--exact", "-t", service])
    rows = [line.split() for line in answer.splitlines() if line.startswith(("1|TCP", "1|  -> "))]
    return tuple(tuple(map(int, row[-5:])) for row in rows if row[-1].isdigit())


def packets(step: str) -> list[bytes]:
    """A step's packets."""
    return [packet for one in Segment.parse(step).each() for packet in one.packets(1, None)]


def send(directors: list[Director], frames: list[bytes]) -> None:
    """Send packets to all."""
    for director in directors:
        for frame in frames:
            director.wire.send(frame)


def phases(directors: list[Director], service: str) -> list[float]:
    """The moments, within the period, at which rates change: two of each director."""
    found: dict[tuple[str, int], float] = {}
    seen = {director.name: rates(director, service) for director in directors}
    end = time.monotonic() + 4 * PERIOD
    while len(found) < 2 * len(directors):
        if time.monotonic() > end:
            raise SystemExit(f"no rate changes but those of {sorted(found)}")
        time.sleep(LOOK)
        for director in directors:
            now = rates(director, service)
            for place, (one, other) in enumerate(zip(seen[director.name], now, strict=True)):
                if one != other:
                    found.setdefault((director.name, place), time.monotonic() % PERIOD)
            seen[director.name] = now
    return sorted(found.values())


def wait_for_gap(moments: list[float]) -> None:
    """Wait for the middle of the longest time in which nobody estimates."""
    gaps = [
        ((after - before) % PERIOD, before)
        for before, after in zip(moments, [*moments[1:], moments[0] + PERIOD], strict=True)
    ]
    length, before = max(gaps)
    if length - LOOK < 2 * DISTANCE:
        raise SystemExit(f"rates are estimated at {moments}, too close for a burst in between")
    wanted = before + (length - LOOK) / 2
    time.sleep((wanted - time.monotonic()) % PERIOD)


def watch(directors: list[Director], service: str) -> dict[str, list[Rates]]:
    """Each director's rates as they change."""
    shown: dict[str, list[Rates]] = {director.name: [] for director in directors}
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        for director in directors:
            now = rates(director, service)
            if not shown[director.name] or shown[director.name][-1] != now:
                shown[director.name].append(now)
        time.sleep(WATCHFUL)
    return shown


def main() -> int:
    """Play and print."""
    with ExitStack() as stack:
        numbers = unused_numbers(1)
        service = f"{virtual_addresses(numbers[0])[0]}:80"
        directors = []
        for name in (KERNEL, XLVS):
            director = Director(name, "plain", Path(sys.argv[1]))
            stack.callback(director.close, tidy=False)
            stack.callback(director.ipvsadm, ["-D", "-t", service])
            director.wire.take_addresses(numbers)
            director.keep_hooks()
            directors.append(director)
        client = client_addresses(numbers[0], 1)[0]
        for director in directors:
            lines = f"-A -t {service} -s rr\n-a -t {service} -r {server_addresses(1)[0]} -g\n"
            director.ipvsadm(["-R"], lines)
        send(directors, packets(f"packet tcp {client}:40000+100 {service} S"))
        moments = phases(directors, service)
        time.sleep(UNTIL_QUIET)
        # Made beforehand: that takes longer than to send them, and an estimate may come meanwhile.
        burst = packets(f"packet tcp {client}:41000+320 {service} S")
        burst += packets(f"packet tcp {client}:41000+320 {service} A data=500")
        wait_for_gap(moments)
        send(directors, burst)
        shown = watch(directors, service)
        for director in directors:
            director.ipvsadm(["-Z"])
            shown[director.name].append(rates(director, service))
    json.dump(shown, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
