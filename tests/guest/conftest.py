# SPDX-License-Identifier: GPL-2.0-only
"""Guests that tests share: one with a clock like the host's, one with a clock that leaps."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.guest.kernel import DEFAULT_PACKAGE
from tests.guest.runner import Guest
from tests.guest.scenario import Play, Scenario, play

KERNEL_PACKAGE = os.environ.get("XLVS_GUEST_KERNEL", DEFAULT_PACKAGE)
"""What the shared guest boots; the suite can be run on another kernel by naming its Debian package."""


@pytest.fixture(scope="session")
def shared_guest() -> Iterator[Guest]:
    """The guest itself; a test asks for `guest` instead.

    One processor: a second one costs a third more of the host's, for locks and for waking each other.
    """
    shared = Guest(cpus=1, package=KERNEL_PACKAGE)
    yield shared
    shared.stop()


@pytest.fixture(scope="session")
def shared_fast_guest() -> Iterator[Guest]:
    """The guest with the leaping clock; a test asks for `fast_guest` instead."""
    shared = Guest(cpus=1, icount=True, package=KERNEL_PACKAGE)
    yield shared
    shared.stop()


@pytest.fixture
def fast_guest(shared_fast_guest: Guest) -> Guest:
    """A running guest in which waiting costs nothing, and a slow host does not stretch time."""
    if not shared_fast_guest.running:
        shared_fast_guest.start()
    return shared_fast_guest


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, shared_fast_guest: Guest) -> dict[str, list[Play]]:
    """The module's `SCENARIOS`, each played by both directors, by name.

    All at once: it takes longer to begin than to play most of them.
    """
    if not shared_fast_guest.running:
        shared_fast_guest.start()
    scenarios: tuple[Scenario, ...] = request.module.SCENARIOS
    plays = play(shared_fast_guest, scenarios, timeout=120 + 60 * len(scenarios))
    return {scenario.name: [one for one in plays if one.scenario == scenario.name] for scenario in scenarios}


@pytest.fixture
def guest(shared_guest: Guest) -> Guest:
    """A running guest, booted anew only if the test before has lost it."""
    if not shared_guest.running:
        shared_guest.start()
    return shared_guest


_FIRST, _LAST = "test_proc.py", "test_director_itself.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those last that spoil the guest which they share (see their module).

    And those first that need a director nobody has used: later, the one that stays loaded from play
    to play would have to go, and be loaded again.
    """
    items.sort(key=lambda item: (item.path.name != _FIRST, item.path.name == _LAST))
