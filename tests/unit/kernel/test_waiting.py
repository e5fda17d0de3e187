# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for the table's lock is told for whom."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlvs.kernel import lock, waiting


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, as /run is: elsewhere a file's device may not be what /proc/locks shows (btrfs)."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def test_who_holds_it_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "lock").open("w") as held, (folder / "lock").open() as wanted:
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


def test_waiting_at_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told lets go of it, so nobody waits."""
    told: list[int] = []
    with (folder / "lock").open("w") as held, (folder / "lock").open() as wanted:

        def tell(descriptor: int) -> None:
            told.append(waiting.holder(descriptor))
            fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr(os, "isatty", lambda _descriptor: True)
        monkeypatch.setattr(waiting, "PATIENCE", 0.0)
        monkeypatch.setattr(waiting, "say_for_whom", tell)
        fcntl.flock(held, fcntl.LOCK_EX)
        lock._flock(wanted.fileno(), fcntl.LOCK_SH)
    assert told == [os.getpid()]


def test_waiting_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told, and it is waited for."""
    asked: list[int] = []

    def taken_at_first(_descriptor: int, operation: int) -> None:
        asked.append(operation)
        if operation & fcntl.LOCK_NB:
            raise BlockingIOError

    monkeypatch.setattr(os, "isatty", lambda _descriptor: False)
    monkeypatch.setattr(fcntl, "flock", taken_at_first)
    monkeypatch.setattr(threading, "Timer", None)
    lock._flock(0, fcntl.LOCK_SH)
    assert asked == [fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_SH]
