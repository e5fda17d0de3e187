# SPDX-License-Identifier: GPL-2.0-only
"""How often a check must fail, and when the next one is due: keepalived's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.checkers.result import Result
from xlvs.checkers.verdict import Verdict
from xlvs.keepalived.checks import Connection, Schedule, TcpCheck

GOOD, BAD = Result(True, "yes"), Result(False, "no")


def checker(retry: int) -> TcpCheck:
    """A check every 10 s, with retries after 1 s."""
    return TcpCheck(Schedule(delay_loop=10.0, retry=retry, delay_before_retry=1.0), Connection(bytes(4), 80))


@pytest.mark.parametrize("retry", [0, 1, 3])
@pytest.mark.parametrize("before", [None, True])
def test_down_after_so_many_retries(retry: int, before: bool | None) -> None:
    verdict = Verdict(before)
    for _ in range(retry):
        assert verdict.observe(BAD, checker(retry), 5.0) == (False, 1.0)
        assert verdict.up is before
    assert verdict.observe(BAD, checker(retry), 6.0) == (True, 10.0)
    assert verdict.up is False and verdict.since == 6.0 and verdict.reason == "no"
    assert verdict.observe(BAD, checker(retry), 7.0) == (False, 10.0)
    assert verdict.since == 6.0


def test_one_success_is_enough_and_forgets_failures() -> None:
    verdict = Verdict()
    verdict.observe(BAD, checker(1), 1.0)
    assert verdict.observe(GOOD, checker(1), 2.0) == (True, 10.0)
    assert verdict.observe(BAD, checker(1), 3.0) == (False, 1.0)
    assert verdict.observe(GOOD, checker(1), 4.0) == (False, 10.0)
    assert verdict.observe(BAD, checker(1), 5.0) == (False, 1.0)
    assert verdict.up is True


def test_another_weight_is_a_change() -> None:
    verdict = Verdict(True)
    assert verdict.observe(GOOD._replace(weight=3), checker(0), 1.0)[0]
    assert not verdict.observe(GOOD._replace(weight=3), checker(0), 2.0)[0]
    assert verdict.observe(GOOD, checker(0), 3.0)[0]
    assert verdict.since == 0.0


@given(st.lists(st.booleans()), st.integers(0, 4))
def test_up_and_down_by_the_last_results_alone(history: list[bool], retry: int) -> None:
    """Up is: fewer than ``retry`` + 1 failures since the last success; down is not left but by a success."""
    verdict = Verdict()
    for passed in history:
        verdict.observe(GOOD if passed else BAD, checker(retry), 0.0)
    failures = next((at for at, passed in enumerate(reversed(history)) if passed), len(history))
    if failures == len(history):
        assert verdict.up is (False if failures > retry else None)
    else:
        assert verdict.up is (failures <= retry)
