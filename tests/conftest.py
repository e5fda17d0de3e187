# SPDX-License-Identifier: GPL-2.0-only
"""What every tier of tests shares: its marker, labs that are taken down, and a look at what is left."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from tests.labs import DEADLINE, Lab, dead_pin_folders, left_behind
from xlvs.lab import lifecycle
from xlvs.lab.addresses import Request

# How long an example takes is the machine's business, which has other things to do.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_TESTS = Path(__file__).parent
_TIERS_OF_ROOT = ("packet", "netns", "guest")
_DEAD_BEFORE = pytest.StashKey[set[str]]()
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's marker is the folder that it stands in; some tiers need root."""
    for item in items:
        tier = item.path.relative_to(_TESTS).parts[0]
        item.add_marker(tier)
        if tier in _TIERS_OF_ROOT and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason=f"{tier} tests need root"))


@pytest.fixture(scope="session", autouse=True)
def _no_lab_left() -> Iterator[None]:
    """Fail the run if a lab of this process is left at its end."""
    yield
    if os.geteuid() == 0:
        assert not left_behind(f"t{os.getpid()}-")


def _is_worker(session: pytest.Session) -> bool:
    """Whether this process runs tests for another one, as several do side by side."""
    return hasattr(session.config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    """Say how a worker ended that vanished: by which signal, by itself, or not (its pipe was closed)."""
    worker = report.node.gateway._io.popen
    with suppress(subprocess.TimeoutExpired):
        worker.wait(5)
    report.longrepr = f"{report.longrepr}\nIts worker, process {worker.pid}, ended with {worker.returncode}"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what others have left."""
    if os.geteuid() == 0 and not _is_worker(session):
        session.config.stash[_DEAD_BEFORE] = dead_pin_folders()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a pin of a namespace that is gone is left, by whichever process."""
    if os.geteuid() != 0 or _is_worker(session) or session.config.option.collectonly:
        return
    before = session.config.stash[_DEAD_BEFORE]
    left = dead_pin_folders() - before
    # The suite's other half may be about to remove those of a lab that it is taking down.
    end = time.monotonic() + DEADLINE
    while left and time.monotonic() < end:
        time.sleep(0.2)
        left &= dead_pin_folders()
    if left:
        print(f"\nleft behind, pins of namespaces that are gone: {', '.join(sorted(left))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def lab_name() -> Iterator[str]:
    """A name that no other lab has; a lab of that name is taken down at the end."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    yield name
    lifecycle.down(name, lambda _line: None)


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """A function that builds a lab: of a topology (dr), ``bare`` or not, with the fields of `Request`."""
    made: list[str] = []

    def make(topology: str = "dr", *, bare: bool = False, **request: object) -> Lab:
        name = f"t{os.getpid()}-{next(_numbers)}"
        made.append(name)
        record = lifecycle.new_record(topology, name, Request(**request), bare=bare)  # type: ignore[arg-type]
        lifecycle.up(record, lambda _line: None)
        return Lab(record)

    yield make
    for name in made:
        lifecycle.down(name, lambda _line: None)


@pytest.fixture(scope="module")
def _standing_labs() -> Iterator[dict[tuple[object, ...], tuple[Lab, str]]]:
    """The labs that tests of a module share, and the tables that they were built with."""
    made: dict[tuple[object, ...], tuple[Lab, str]] = {}
    yield made
    for lab, _ in made.values():
        lifecycle.down(lab.name, lambda _line: None)


@pytest.fixture
def shared_lab(
    _standing_labs: dict[tuple[object, ...], tuple[Lab, str]],
) -> Iterator[Callable[..., Lab]]:
    """Like `make_lab`, for tests that change nothing but the director's table.

    All of a module that ask alike get the same lab, each with the table that it was built with.
    """
    used: dict[str, tuple[Lab, str]] = {}

    def share(topology: str = "dr", **request: object) -> Lab:
        wanted = (topology, *sorted(request.items()))
        if wanted not in _standing_labs:
            name = f"t{os.getpid()}-{next(_numbers)}"
            record = lifecycle.new_record(topology, name, Request(**request), bare=False)  # type: ignore[arg-type]
            lab = Lab(record)
            _standing_labs[wanted] = lab, ""  # is taken down even if it cannot be built
            lifecycle.up(record, lambda _line: None)
            _standing_labs[wanted] = lab, lab.type("director", "ipvsadm -Sn")
        lab, table = _standing_labs[wanted]
        used[lab.name] = lab, table
        return lab

    yield share
    for lab, table in used.values():
        lab.type("director", f"ipvsadm -C && ipvsadm -R <<'END'\n{table}END")
