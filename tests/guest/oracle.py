# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tests.guest.oracle``: xlvs against kernel IPVS, by random scenarios of raw packets.

Plays random scenarios, or the files named, and shows each difference as the
shortest scenario that still has it.  Put that into a file of the folder
``regressions``, and the tests play it from then on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from .agreed import Answers, forgiving
from .histories import generate
from .kernel import DEFAULT_PACKAGE
from .runner import Guest
from .scenario import KERNEL, PROJECT, XLVS, Observation, Play, Scenario, differences
from .standing import preload_library

XLVS_XDP = "xlvs-xdp"
"""xlvs attached at XDP as well."""
DIRECTORS = (KERNEL, XLVS, XLVS_XDP)
TOLERANCE = 1.6
"""Seconds: entries end at full seconds of two clocks, and xlvs renews its stamps every quarter of one."""
BATCH = 100
"""Scenarios played by one process in the guest."""
REGRESSIONS = Path(__file__).with_name("regressions")


def play(
    guest: Guest,
    scenarios: Sequence[Scenario],
    directors: Sequence[str] = DIRECTORS,
    *,
    shape: str = "plain",
    keep: bool = False,
) -> list[Play]:
    """Play scenarios of raw packets in a guest, each on all directors at once.

    `shape` is the kind of wire, by its name in `wire.SHAPES`; `keep` leaves
    the directors in the guest: the next play will start sooner.
    Raises `runner.GuestError` when a step cannot be carried out.
    """
    plays: list[Play] = []
    for first in range(0, len(scenarios), BATCH):
        batch = scenarios[first : first + BATCH]
        order = {
            "leaping_clock": guest.icount,
            "directors": list(directors),
            "shape": shape,
            "preload": str(preload_library()),
            "keep": keep,
            "scenarios": [asdict(scenario) for scenario in batch],
        }
        result = guest.run(
            [sys.executable, "-m", "tests.guest.raw_player"],
            stdin=json.dumps(order), timeout=300 + 30 * len(batch), directory=PROJECT,
        ).check()  # fmt: skip
        for played in json.loads(result.stdout):
            seen = (
                Observation(one["step"], one["answer"], tuple(one["ends"])) for one in played["observations"]
            )
            plays.append(Play(played["scenario"], played["director"], tuple(seen)))
    return plays


def play_at_once(
    orders: Sequence[tuple[Guest, Sequence[Scenario], Sequence[str]]], *, keep: bool = False
) -> list[Play]:
    """Play orders of guest, scenarios and directors side by side; raises as `play`."""
    with ThreadPoolExecutor(len(orders)) as pool:
        under_way = [pool.submit(play, *order, keep=keep) for order in orders]
        return [one for answer in under_way for one in answer.result()]


def disagreements(plays: Sequence[Play]) -> dict[str, str]:
    """Each scenario that was not alike on all directors, with its first difference that is not agreed."""
    by_scenario: dict[str, list[Play]] = {}
    for one in plays:
        by_scenario.setdefault(one.scenario, []).append(one)
    found = {}
    for name, (kernel, *others) in by_scenario.items():
        texts = [
            text for other in others for text in differences([forgiven(kernel, other), other], TOLERANCE)
        ]
        if texts:
            found[name] = texts[0]
    return found


def _kind(told: str) -> str:
    """The command or verb at which a difference showed."""
    steps = [line for line in told.partition("\nkernel:")[0].splitlines() if line.startswith("    ")]
    return " ".join(word for word in steps[-1].split() if word[0].isalpha() or word[0] == "-")


def forgiven(kernel: Play, xlvs: Play) -> Play:
    """The kernel's play with the answers that xlvs may give by agreement."""
    seen = tuple(
        Observation(one.step, forgiving(answers)[0], one.ends)
        for one, answers in zip(kernel.observations, _answers(kernel, xlvs), strict=True)
    )
    return Play(kernel.scenario, kernel.director, seen)


def _answers(kernel: Play, xlvs: Play) -> list[Answers]:
    steps = [seen.step for seen in kernel.observations]
    return [
        Answers(one.step, one.answer, other.answer, steps[:place])
        for place, (one, other) in enumerate(zip(kernel.observations, xlvs.observations, strict=True))
    ]


def agreements_used(plays: Sequence[Play]) -> set[str]:
    """The names of the agreed differences that happened."""
    kernels = {one.scenario: one for one in plays if one.director == KERNEL}
    return {
        name
        for one in plays
        for answers in _answers(kernels[one.scenario], one)
        for name in forgiving(answers)[1]
    }


def shortest(guest: Guest, scenario: Scenario, told: str, limit: float) -> Scenario:
    """The scenario without the steps that its difference, as told, does not need.

    Delta debugging: leave out ever smaller groups of steps, many candidates in
    one play; stops after `limit` seconds with what it has.
    """
    end = time.monotonic() + limit
    wanted = _kind(told)
    steps = list(scenario.steps)
    size = max(len(steps) // 2, 1)
    while time.monotonic() < end:
        starts = range(0, len(steps), size)
        candidates = [
            Scenario(f"without {start}", tuple(steps[:start] + steps[start + size :]))
            for start in starts
            if _is_playable(steps[:start] + steps[start + size :])
        ]
        failing = disagreements(play(guest, candidates, keep=True)) if candidates else {}
        removable = [int(name.split()[1]) for name, told in failing.items() if _kind(told) == wanted]
        if removable:
            steps = _without_groups(guest, steps, removable, size, wanted)
        elif size == 1:
            break
        else:
            size = max(size // 2, 1)
    return Scenario(scenario.name, tuple(steps))


def _without_groups(
    guest: Guest, steps: list[str], starts: Sequence[int], size: int, wanted: str
) -> list[str]:
    """The steps without all those groups, or half of them, if that differs still; else without one."""
    halves = [starts, starts[len(starts) // 2 :], starts[: len(starts) // 2]]
    candidates = {}
    for place, some in enumerate(halves):
        gone = {number for start in some for number in range(start, start + size)}
        kept = tuple(step for number, step in enumerate(steps) if number not in gone)
        if len(some) > 1 and _is_playable(kept):
            candidates[f"half {place}"] = Scenario(f"half {place}", kept)
    failing = disagreements(play(guest, list(candidates.values()), keep=True)) if candidates else {}
    for name, scenario in candidates.items():
        if name in failing and _kind(failing[name]) == wanted:
            return list(scenario.steps)
    return steps[: starts[0]] + steps[starts[0] + size :]


def _is_playable(steps: Sequence[str]) -> bool:
    """Whether no line of input stands without its command."""
    takes_input = False
    for step in steps:
        if step.startswith("<"):
            if not takes_input:
                return False
        else:
            takes_input = step == "ipvsadm -R"
    return bool(steps)


def main() -> int:
    """Read the command line and play; 1 when there is a difference."""
    parser = argparse.ArgumentParser(
        prog="tests.guest.oracle", description="Random scenarios: kernel IPVS against xlvs."
    )
    parser.add_argument(
        "--count", type=int, default=200, metavar="N", help="how many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which ones (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out as many at the start")
    parser.add_argument("--guests", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    parser.add_argument("--kernel", default=DEFAULT_PACKAGE, metavar="PACKAGE", help="Debian kernel package")
    parser.add_argument(
        "--shrink", type=float, default=90, metavar="SECONDS", help="for each difference, 0: not at all"
    )
    parser.add_argument("--differences", type=int, default=5, metavar="N", help="stop after so many")
    parser.add_argument("--print", action="store_true", help="print the scenarios and play nothing")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="play these instead")
    options = parser.parse_args()
    if options.files:
        scenarios = [Scenario.parse(path.stem, path.read_text()) for path in options.files]
    else:
        scenarios = generate(options.count, options.seed, options.first)
    if options.print:
        for scenario in scenarios:
            print(f"# {scenario.name}", *scenario.steps, "", sep="\n")
        return 0
    with ExitStack() as stack:
        # Not from threads: an emulator dies with the thread that has started it.
        guests = [
            stack.enter_context(Guest(cpus=1, icount=True, package=options.kernel))
            for _ in range(options.guests)
        ]
        return _report(guests, scenarios, options.shrink, options.differences)


def _report(guests: Sequence[Guest], scenarios: Sequence[Scenario], shrink: float, most: int) -> int:
    shown = 0
    size = BATCH * len(guests)
    for first in range(0, len(scenarios), size):
        batch = scenarios[first : first + size]
        start = time.monotonic()
        shares = [batch[place :: len(guests)] for place in range(len(guests))]
        orders = [(guest, share, DIRECTORS) for guest, share in zip(guests, shares, strict=True) if share]
        found = disagreements(play_at_once(orders, keep=True))
        print(f"{len(batch)} scenarios, {time.monotonic() - start:.0f} s, {len(found)} differ", flush=True)
        for scenario in batch:
            if scenario.name not in found or shown == most:
                continue
            shown += 1
            _show(guests[0], scenario, found[scenario.name], shrink)
        if shown == most:
            break
    return 1 if shown else 0


def _show(guest: Guest, scenario: Scenario, told: str, shrink: float) -> None:
    """Print the shortest scenario with this difference, and the difference."""
    if shrink:
        scenario = shortest(guest, scenario, told, shrink)
        told = disagreements(play(guest, [scenario], keep=True)).get(scenario.name, told)
    print("\n".join([f"\n# {scenario.name}", *scenario.steps]))
    print("\n".join(f"# {line}" for line in told.splitlines()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
