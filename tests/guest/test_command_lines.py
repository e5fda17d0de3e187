# SPDX-License-Identifier: GPL-2.0-only
"""xlvsadm beside the real ipvsadm: thousands of command lines, every byte and exit code."""

from __future__ import annotations

import pytest

from tests.guest.command_lines import CommandLine, generate
from tests.guest.command_oracle import LENGTH, compare, play
from tests.guest.command_player import Answer
from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS

SEED = 1
COUNT = 800
"""A minute of a guest's time; `make oracle-commands` plays 2,000, or as many as one likes."""


@pytest.mark.timeout(600)
def test_random_command_lines(guest: Guest) -> None:
    sessions = generate(COUNT // LENGTH, SEED, LENGTH)
    compared = compare(sessions, play(guest, sessions))
    assert not compared.differences, (
        "\n\n".join(compared.differences[:5])
        + f"\nAgain: python -m tests.guest.command_oracle --seed {SEED} --count {COUNT}"
    )
    assert compared.alike + compared.refused > 0.98 * COUNT, "sessions end early: what is refused?"
    # Each kind of outcome is there, and none is most of it.
    assert set(compared.statuses) == {0, 1, 2, 255}
    assert 0.3 * COUNT < compared.statuses[0] < 0.8 * COUNT


# The comparison itself.


def one_line(line: CommandLine, kernel: Answer, xlvs: Answer) -> tuple[int, int, int]:
    compared = compare([[line]], {KERNEL: [[kernel]], XLVS: [[xlvs]]})
    return compared.alike, compared.refused, len(compared.differences)


@pytest.mark.parametrize("other", [("a\n", "", 0), ("", "b\n", 0), ("", "", 1)])
def test_any_byte_or_status_counts(other: Answer) -> None:
    line = CommandLine(("-L",))
    assert one_line(line, ("", "", 0), ("", "", 0)) == (1, 0, 0)
    assert one_line(line, ("", "", 0), other) == (0, 0, 1)


def test_only_the_order_of_services_is_the_kernels_own() -> None:
    line = CommandLine(("-Ln", "--nosort"))
    one = "title\nTCP  a rr\n  -> 1\n  -> 2\nTCP  b rr\n  -> 3\n"
    other = "title\nTCP  b rr\n  -> 3\nTCP  a rr\n  -> 1\n  -> 2\n"
    assert one_line(line, (one, "", 0), (other, "", 0)) == (1, 0, 0)
    swapped = one.replace("  -> 1\n  -> 2\n", "  -> 2\n  -> 1\n")
    assert one_line(line, (one, "", 0), (swapped, "", 0)) == (0, 0, 1)
    assert one_line(CommandLine(("-Ln",)), (one, "", 0), (other, "", 0)) == (0, 0, 1)


def test_a_session_ends_at_its_first_difference_and_says_what_led_to_it() -> None:
    session = [
        CommandLine(("-A", "-f", "1")),
        CommandLine(("-L",)),
        CommandLine(("-L", "-n")),
        CommandLine(("-C",)),
    ]
    fine: Answer = ("", "", 0)
    answers = {KERNEL: [[fine] * 4], XLVS: [[fine, fine, ("x", "", 0), ("y", "", 0)]]}
    compared = compare([session], answers)
    (told,) = compared.differences
    assert compared.alike == 2
    assert told.startswith("-A -f 1\n-L -n\nkernel:\n")
    assert "1~x" in told


def test_what_xlvs_lacks_ends_a_session_too() -> None:
    line = CommandLine(("-A", "-t", "1.2.3.4:80", "-p", "-M", "255.0.255.0"))
    refusal = ("", "The persistence mask 255.0.255.0 is not supported: its ones have gaps.\n", 2)
    assert one_line(line, ("", "", 0), refusal) == (0, 1, 0)


def test_the_same_seed_gives_the_same_lines() -> None:
    assert generate(3, 5, 20) == generate(3, 5, 20) != generate(3, 6, 20)
    assert generate(3, 5, 20)[1] == generate(2, 5, 20)[1]
