# SPDX-License-Identifier: GPL-2.0-only
"""Directors for tests of the packet path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.packet.director import Director, new_director
from xlvs.datapath.load import Capacity


@pytest.fixture(scope="module")
def director() -> Iterator[Director]:
    """One director for the tests of a module; each makes services of its own in it."""
    with new_director() as made:
        yield made


@pytest.fixture
def make_director() -> Iterator[Callable[[Capacity], Director]]:
    """A function that makes a director of that capacity for one test, and enters its namespace."""
    with ExitStack() as stack:
        yield lambda capacity: stack.enter_context(new_director(capacity))
