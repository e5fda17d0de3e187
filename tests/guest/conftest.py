# SPDX-License-Identifier: GPL-2.0-only
"""Guests that tests share: one with a clock like the host's, two with a clock that leaps."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.guest.kernel import DEFAULT_PACKAGE
from tests.guest.runner import Guest

KERNEL_PACKAGE = os.environ.get("XLVS_GUEST_KERNEL", DEFAULT_PACKAGE)
"""What the shared guest boots; the suite can be run on another kernel by naming its Debian package."""


@pytest.fixture(scope="session")
def shared_guest() -> Iterator[Guest]:
    """The guest itself; a test asks for `guest` instead."""
    shared = Guest(package=KERNEL_PACKAGE)
    yield shared
    shared.stop()


@pytest.fixture(scope="session")
def shared_fast_guest() -> Iterator[Guest]:
    """The guest with the leaping clock; a test asks for `fast_guest` instead."""
    shared = Guest(cpus=1, icount=True, package=KERNEL_PACKAGE)
    yield shared
    shared.stop()


@pytest.fixture(scope="session")
def another_fast_guest() -> Iterator[Guest]:
    """One more of them; a test asks for `second_fast_guest` instead."""
    another = Guest(cpus=1, icount=True, package=KERNEL_PACKAGE)
    yield another
    another.stop()


@pytest.fixture
def fast_guest(shared_fast_guest: Guest) -> Guest:
    """A running guest in which waiting costs nothing, and a slow host does not stretch time."""
    if not shared_fast_guest.running:
        shared_fast_guest.start()
    return shared_fast_guest


@pytest.fixture
def second_fast_guest(another_fast_guest: Guest) -> Iterator[Guest]:
    """A second such guest, for a test that has work for two processors; it goes after the test."""
    another_fast_guest.start()
    yield another_fast_guest
    another_fast_guest.stop()


@pytest.fixture
def guest(shared_guest: Guest) -> Guest:
    """A running guest, booted anew only if the test before has lost it."""
    if not shared_guest.running:
        shared_guest.start()
    return shared_guest
