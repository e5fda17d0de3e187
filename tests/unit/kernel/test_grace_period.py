# SPDX-License-Identifier: GPL-2.0-only
"""The machine's setting that shortens grace periods is ours for a moment, and is put back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xlvs.kernel import grace_period
from xlvs.kernel.grace_period import MANY, Hurry

pytestmark = pytest.mark.unit


class Machine:
    """A file that stands in for the setting, and the folder of the mark."""

    def __init__(self, folder: Path) -> None:
        self.setting = folder / "rcu_expedited"
        self.mark = folder / "hurry/rcu_expedited"
        self.set(0)

    def set(self, value: int) -> None:
        self.setting.write_text(f"{value}\n")

    def value(self) -> int:
        return int(self.setting.read_text())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(grace_period, "SETTING", str(made.setting))
    monkeypatch.setattr(grace_period, "FOLDER", str(made.mark.parent))
    return made


def test_for_as_long_as_there_is_much_to_do(machine: Machine) -> None:
    with Hurry(MANY):
        assert machine.value() == 1
    assert machine.value() == 0 and not machine.mark.exists()
    with Hurry(MANY - 1):
        assert machine.value() == 0 and not machine.mark.exists()


def test_put_back_whatever_happens(machine: Machine) -> None:
    with pytest.raises(KeyboardInterrupt), Hurry(MANY):
        raise KeyboardInterrupt
    assert machine.value() == 0 and not machine.mark.exists()


ENDED = """\
import os, sys
from xlvs.kernel import grace_period
grace_period.SETTING, grace_period.FOLDER = sys.argv[1:3]
with grace_period.Hurry(grace_period.MANY):
    print(open(grace_period.SETTING).read(), flush=True)
    os.kill(os.getpid(), int(sys.argv[3]))
    print("it goes on")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_put_back_by_one_that_a_signal_ends(machine: Machine, number: signal.Signals) -> None:
    words = [str(machine.setting), str(machine.mark.parent), str(int(number))]
    ran = subprocess.run([sys.executable, "-c", ENDED, *words], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (-number, "1\n"), ran.stderr
    assert machine.value() == 0 and not machine.mark.exists()
    with Hurry(MANY):
        assert signal.getsignal(number) is not signal.SIG_DFL
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("interfaces", [1, MANY])
def test_what_the_operator_has_set_stays(machine: Machine, interfaces: int) -> None:
    machine.set(1)
    with Hurry(interfaces):
        assert machine.value() == 1 and not machine.mark.exists()
    assert machine.value() == 1


@pytest.mark.parametrize("inner", [1, MANY])
def test_two_at_once(machine: Machine, inner: int) -> None:
    """In two network namespaces, say: whoever came first puts it back."""
    with Hurry(MANY):
        with Hurry(inner):
            assert machine.value() == 1
        assert machine.value() == 1 and machine.mark.exists()
    assert machine.value() == 0 and not machine.mark.exists()


@pytest.mark.parametrize("interfaces", [1, MANY])
def test_the_next_one_puts_back_what_a_dead_one_has_set(machine: Machine, interfaces: int) -> None:
    dead = Hurry(MANY)
    dead.__enter__()
    os.close(dead._mark)  # as the kernel does
    assert machine.value() == 1 and machine.mark.exists()
    with Hurry(interfaces):
        assert machine.value() == (interfaces == MANY)
    assert machine.value() == 0 and not machine.mark.exists()


def test_without_such_a_setting(machine: Machine) -> None:
    """Kernels without it, and containers, in which it cannot be written."""
    machine.setting.unlink()
    with Hurry(MANY):
        assert not machine.mark.exists()
    machine.setting.mkdir()  # opens for nobody
    with Hurry(MANY):
        pass
    assert not machine.mark.exists()
