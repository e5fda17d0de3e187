# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for the table's lock is told for whom."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from xlvs.kernel import lock, waiting


def test_who_holds_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "lock").open("w") as held, (tmp_path / "lock").open() as wanted:
        assert waiting.holder(wanted.fileno()) == 0
        fcntl.flock(held, fcntl.LOCK_EX)
        assert waiting.holder(wanted.fileno()) == os.getpid()
        waiting.say_for_whom(wanted.fileno())
    assert capsys.readouterr().err.startswith(f"waiting for process {os.getpid()} (")


def test_one_that_was_stopped() -> None:
    with subprocess.Popen(
        ["sh", "-c", "echo; read more"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()  # it runs by now
            number = process.pid
            assert waiting.described(number) == f"process {number} (sh -c echo; read more)"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, number, os.WSTOPPED | os.WNOWAIT)
            assert waiting.described(number).endswith(
                f" (sh -c echo; read more, stopped: kill -CONT {number})"
            )
        finally:
            process.kill()


@pytest.mark.parametrize("terminal", [True, False])
def test_waiting_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """Whoever is told lets go of it, so nobody waits; who has no terminal finds it free here."""
    told: list[int] = []
    with (tmp_path / "lock").open("w") as held, (tmp_path / "lock").open() as wanted:

        def tell(descriptor: int) -> None:
            told.append(waiting.holder(descriptor))
            fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr(os, "isatty", lambda _descriptor: terminal)
        monkeypatch.setattr(waiting, "PATIENCE", 0.0)
        monkeypatch.setattr(waiting, "say_for_whom", tell)
        fcntl.flock(held, fcntl.LOCK_EX if terminal else fcntl.LOCK_SH)
        lock._flock(wanted.fileno(), fcntl.LOCK_SH)
    assert told == ([os.getpid()] if terminal else [])
