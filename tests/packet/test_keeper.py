# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd's table on the real data plane: a function of configuration, health and decisions, deaths included.

The histories are those of tests/unit/daemon, where the table is in memory; here the daemon dies as
well by kill -9 in the middle of a reload, at any line of what writes the table.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.packet import children
from tests.packet.director import Director, new_director
from tests.packet.test_deaths import WHERE
from tests.unit.daemon.examples import Bench
from tests.unit.daemon.test_table import FOREIGN, Histories, configurations
from xlvs.daemon import reconcile
from xlvs.datapath import open_datapath
from xlvs.keepalived.configuration import Configuration
from xlvs.model import Service

WRITERS = (*WHERE, reconcile.__file__)


@pytest.fixture(scope="module")
def director() -> Iterator[Director]:
    with new_director() as made:
        yield made


class Standing:
    """The data plane of this network namespace, opened for each call, as a test's own hands do."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with open_datapath(write=True) as datapath:
                return getattr(datapath, name)(*arguments)

        return call


class RealBench(Bench):
    """A keeper whose rounds write the real table."""

    @contextmanager
    def _open(self, write: bool) -> Any:
        with open_datapath(write=write) as datapath:
            yield datapath


def die_at(line: int, change: Callable[[], object]) -> None:
    """Make a change in a child that is killed at the n-th line of what writes the table."""

    def change_and_die() -> None:
        left = line

        def trace(frame: FrameType, event: str, _argument: object) -> object:
            nonlocal left
            if frame.f_code.co_filename not in WRITERS:
                return None
            if event == "line":
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        change()
        sys.settrace(None)

    assert children.status_of(children.start(change_and_die)) in (0, -signal.SIGKILL)


class RealHistories(Histories):
    """The same histories, on the data plane."""

    bench_class = RealBench

    @staticmethod
    def empty_table() -> Any:
        standing = Standing()
        standing.flush()
        standing.add_service(Service(FOREIGN))
        return standing

    @rule(new=configurations, line=st.integers(1, 400))
    def killed_in_a_reload(self, new: Configuration, line: int) -> None:
        """A reload whose round ends half-way, by kill -9; then a new start."""
        self.bench.configure(new)
        die_at(line, self.bench.round)
        self.killed()


@pytest.mark.usefixtures("director")
def test_the_table_outlives_any_history() -> None:
    run_state_machine_as_test(
        RealHistories,
        settings=settings(
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
