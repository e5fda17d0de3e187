# SPDX-License-Identifier: GPL-2.0-only
"""Replays the transcripts of the real ipvsadm, byte for byte.

The transcripts were recorded on kernel IPVS; here the same commands run on
the data plane in memory.  Names resolve by the table that the recording used (conftest.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.ipvsadm_transcript import Step, format_answer, parse
from xlvs.cli.ipvsadm import run
from xlvs.datapath.memory import MemoryDatapath

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parents[2] / "golden" / "ipvsadm"
REFUSED = FOLDER / "refused.txt"
"""Here every command is one that xlvs does not have."""
TRANSCRIPTS = sorted(path for path in FOLDER.glob("*.txt") if path != REFUSED)


class Player:
    """Runs the steps of a transcript, one after the other, on one table."""

    def __init__(self) -> None:
        self.datapath = MemoryDatapath()

    @contextmanager
    def open(self, *, write: bool, load: bool, locked: bool = True) -> Iterator[MemoryDatapath]:  # noqa: ARG002
        yield self.datapath

    def play(self, step: Step) -> tuple[str, str, int]:
        stdout, stderr = io.StringIO(), io.StringIO()
        status = run(list(step.arguments), io.StringIO(step.stdin), stdout, stderr, self.open)
        return stdout.getvalue(), stderr.getvalue(), status


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_answers_as_ipvsadm_does(path: Path) -> None:
    player = Player()
    differences = []
    for step in parse(path.read_text()):
        if step.directive == "reset":
            player = Player()
            continue
        expected = format_answer(step.stdout, step.stderr, step.exit_code)
        actual = format_answer(*player.play(step))
        if actual != expected:
            command = " ".join(step.arguments)
            differences.append(f"{path.name}:{step.line}: {command}\n{expected}--- but xlvsadm:\n{actual}")
    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences)


def test_refuses_what_it_does_not_have() -> None:
    player = Player()
    refused = 0
    for step in parse(REFUSED.read_text()):
        if step.directive:
            continue
        stdout, stderr, status = player.play(step)
        assert (stdout, status) == ("", 2), step
        assert "not supported" in stderr, step
        refused += 1
    assert refused > 5


def test_there_are_hundreds_of_cases() -> None:
    commands = [step for path in TRANSCRIPTS for step in parse(path.read_text()) if not step.directive]
    assert len(commands) > 1500
    assert {0, 1, 2, 255} <= {step.exit_code for step in commands}
