# SPDX-License-Identifier: GPL-2.0-only
"""The guest boots, runs commands like the host would, and never stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.guest.runner import Guest, GuestError, GuestTimeout
from tests.guest.scenario import PROJECT


def test_answer_comes_back_whole(guest: Guest) -> None:
    script = "cat; echo second; echo wrong >&2; echo kept >$GUEST_OUTPUT/file; exit 37"
    result = guest.run(["sh", "-c", script], stdin="first\n")
    assert (result.exit_code, result.stdout, result.stderr) == (37, "first\nsecond\n", "wrong\n")
    assert (result.output_dir / "file").read_text() == "kept\n"


def test_words_environment_and_directory_reach_the_command(guest: Guest, tmp_path: Path) -> None:
    script = 'printf "%s\\n" "$PWD" "$COLOUR" "$@"'
    command = ["sh", "-c", script, "sh", "two words", "it's", "$HOME"]
    result = guest.run(command, environment={"COLOUR": "sky blue"}, directory=tmp_path)
    assert result.stdout.splitlines() == [str(tmp_path), "sky blue", "two words", "it's", "$HOME"]


def test_command_killed_by_a_signal(guest: Guest) -> None:
    assert guest.run(["sh", "-c", "kill -TERM $$"]).exit_code == 128 + signal.SIGTERM


def test_failing_command_can_be_an_exception(guest: Guest) -> None:
    with pytest.raises(GuestError, match="exit status 3 in the guest\nseen"):
        guest.run(["sh", "-c", "echo seen; exit 3"]).check()


def test_writes_stay_in_the_guest(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host\n")
    guest.run(["sh", "-c", "echo guest >file; echo new >other"], directory=tmp_path).check()
    assert guest.run(["cat", "file", "other"], directory=tmp_path).stdout == "guest\nnew\n"
    assert (tmp_path / "file").read_text() == "host\n"
    assert not (tmp_path / "other").exists()


def test_only_a_loopback_interface(guest: Guest) -> None:
    links = json.loads(guest.run(["ip", "-json", "link"]).check().stdout)
    assert [link["ifname"] for link in links] == ["lo"]
    assert "UP" in links[0]["flags"]


def test_file_systems_that_tests_need(guest: Guest) -> None:
    wanted = {"/": "overlay", "/run": "tmpfs", "/dev/shm": "tmpfs", "/sys/fs/bpf": "bpf", "/proc": "proc"}
    mounts = [line.split() for line in guest.run(["cat", "/proc/mounts"]).stdout.splitlines()]
    assert wanted.items() <= {mount[1]: mount[2] for mount in mounts}.items()


def test_every_scheduler_of_the_kernel_loads(guest: Guest) -> None:
    schedulers = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"]
    guest.run(["modprobe", "-a", "ip_vs", *(f"ip_vs_{name}" for name in schedulers)]).check()
    assert "IPVS v1.2.1" in guest.run(["ipvsadm", "--version"]).check().stdout


def test_timeout_switches_the_guest_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with Guest(cpus=1) as guest:
        assert emulators(tmp_path)
        with pytest.raises(GuestTimeout, match="took too long running sh\nstdout: begun"):
            guest.run(["sh", "-c", "echo begun; sleep 600"], timeout=2)
        assert not guest.running
        assert not emulators(tmp_path)
        with pytest.raises(GuestError, match=r"no guest to run true in: .* given up while running sh"):
            guest.run(["true"])
    assert not list(tmp_path.iterdir())


def test_panic_is_reported_with_the_console() -> None:
    with (
        Guest(cpus=1) as guest,
        pytest.raises(GuestError, match=r"died while running sh(.|\n)*Kernel panic - not syncing: sysrq"),
    ):
        guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"])


def test_clock_leaps_while_idle(fast_guest: Guest) -> None:
    start = time.monotonic()
    result = fast_guest.run(["sh", "-c", "date +%s; sleep 3000; date +%s"])
    took = time.monotonic() - start
    before, after = map(int, result.stdout.split())
    assert after - before >= 3000
    assert took < 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_emulator_dies_with_its_runner(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.guest.run", "--", "sleep", "600"],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as runner:
        wait_until(lambda: bool(emulators(tmp_path)))
        runner.send_signal(number)
        runner.wait(10)
    wait_until(lambda: not emulators(tmp_path))
    if number is not signal.SIGKILL:
        assert not list(tmp_path.iterdir())


def test_command_line(tmp_path: Path) -> None:
    script = "cat /proc/sys/kernel/hostname; echo apart >&2; echo file >$GUEST_OUTPUT/f; exit 5"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.guest.run",
            "--cpus=1",
            f"--output={tmp_path}",
            "--",
            "sh",
            "-c",
            script,
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "guest\n", "apart\n")
    assert (tmp_path / "f").read_text() == "file\n"


def emulators(folder: Path) -> list[str]:
    """The process ids of emulators whose exchange folder is below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"qemu-system" in command and os.fsencode(folder) in command:
                found.append(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until(holds: object, seconds: float = 20) -> None:
    """Wait for a condition; fail when it does not come true."""
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
