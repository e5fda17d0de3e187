# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tests.guest.command_oracle``: xlvsadm against the real ipvsadm, by random command lines.

Both carry out the same sessions (`command_lines`) in one guest; every stdout,
stderr and exit code is compared, byte for byte.  A session ends at its first
difference, which is shown with the lines that led to it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .command_lines import CommandLine, generate
from .command_player import Answer
from .ipvsadm_transcript import format_answer
from .kernel import DEFAULT_PACKAGE
from .runner import Guest
from .scenario import KERNEL, PROJECT, XLVS
from .standing import preload_library

LENGTH = 50
"""Lines of a session."""
NOT_HERE = ("xlvs does not have ", " is not supported: ")
"""How xlvsadm refuses what it lacks; from such a line on the two tables differ."""
AGREED_STARTS = ("--start-daemon is not supported: ",)
"""Refusals after which the tables are still alike, because the player undoes what the kernel did."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a play: lines that were alike, and each session that was not."""

    alike: int
    refused: int
    """Lines that xlvsadm refused for want of something; their sessions end there."""
    differences: list[str]
    statuses: dict[int, int]
    """How many lines ended with which exit code."""


def play(guest: Guest, sessions: Sequence[Sequence[CommandLine]]) -> dict[str, list[list[Answer]]]:
    """Carry sessions out in a guest: the answers of both directors.  Raises `runner.GuestError`."""
    order = {
        "preload": str(preload_library()),
        "sessions": [[(line.words, line.stdin) for line in session] for session in sessions],
    }
    result = guest.run(
        [sys.executable, "-m", "tests.guest.command_player"],
        stdin=json.dumps(order), timeout=120 + sum(map(len, sessions)), directory=PROJECT,
    ).check()  # fmt: skip
    answers: dict[str, list[list[Answer]]] = json.loads(result.stdout)
    return answers


def compare(sessions: Sequence[Sequence[CommandLine]], answers: dict[str, list[list[Answer]]]) -> Comparison:
    """Lay the answers side by side."""
    alike = refused = 0
    differences = []
    statuses: dict[int, int] = {}
    for session, kernel, xlvs in zip(sessions, answers[KERNEL], answers[XLVS], strict=True):
        for place, (line, one, other) in enumerate(zip(session, kernel, xlvs, strict=True)):
            if other[1].startswith(AGREED_STARTS):
                refused += 1
            elif any(text in other[1] for text in NOT_HERE):
                refused += 1
                break
            elif comparable(line, one) != comparable(line, other):
                differences.append(_told(session[:place], kernel, line, one, other))
                break
            else:
                alike += 1
                statuses[one[2]] = statuses.get(one[2], 0) + 1
    return Comparison(alike, refused, differences, statuses)


def comparable(line: CommandLine, answer: Answer) -> Answer:
    """An answer without the order of services where the kernel's hash decides it."""
    stdout, stderr, status = answer
    if not any("nosort" in text for text in (*line.words, line.stdin)):
        return stdout, stderr, status
    blocks: list[str] = []
    for row in stdout.splitlines(keepends=True):
        if row.startswith("  -> ") and blocks:
            blocks[-1] += row
        else:
            blocks.append(row)
    return "".join(sorted(blocks)), stderr, status


def _told(
    before: Sequence[CommandLine], answers: Sequence[Answer], line: CommandLine, one: Answer, other: Answer
) -> str:
    told = [_shown(done) for done, (_, _, status) in zip(before, answers, strict=False) if status == 0]
    changes = [text for text in told if not text.startswith(("-L", "-l", "-S", "--list", "--save"))]
    return "\n".join(
        [*changes, f"{_shown(line)}\nkernel:\n{format_answer(*one)}xlvs:\n{format_answer(*other)}"]
    )


def _shown(line: CommandLine) -> str:
    return "\n".join([shlex.join(line.words), *(f"< {given}" for given in line.stdin.splitlines())])


def main() -> int:
    """Read the command line and play; 1 when there is a difference."""
    parser = argparse.ArgumentParser(
        prog="tests.guest.command_oracle", description="Random command lines: ipvsadm against xlvsadm."
    )
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="lines (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which ones (default: %(default)s)")
    parser.add_argument("--kernel", default=DEFAULT_PACKAGE, metavar="PACKAGE", help="Debian kernel package")
    parser.add_argument("--differences", type=int, default=5, metavar="N", help="show so many")
    parser.add_argument("--print", action="store_true", help="print the lines and play nothing")
    options = parser.parse_args()
    sessions = generate(-(-options.count // LENGTH), options.seed, LENGTH)
    if options.print:
        for session in sessions:
            print(*map(_shown, session), "", sep="\n")
        return 0
    start = time.monotonic()
    with Guest(package=options.kernel) as guest:
        compared = compare(sessions, play(guest, sessions))
    for told in compared.differences[: options.differences]:
        print(f"\n{told}")
    seconds = time.monotonic() - start
    print(f"{compared.alike} lines alike {asdict(compared)['statuses']}, {compared.refused} refused, "
          f"{len(compared.differences)} of {len(sessions)} sessions differ; {seconds:.0f} s")  # fmt: skip
    return 1 if compared.differences else 0


if __name__ == "__main__":
    sys.exit(main())
