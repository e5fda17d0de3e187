# SPDX-License-Identifier: GPL-2.0-only
"""From results to a verdict: how often a check must fail before a real server counts as down.

keepalived's rules (tcp_epilog() and its like): a failure of one that is up, or not yet
known, is tried again ``retry`` times, ``delay_before_retry`` apart; one success is
enough to be up.  While it is down it is asked every ``delay_loop``.
"""

from __future__ import annotations

from xlvs.checkers.result import Result
from xlvs.keepalived import checks


class Verdict:
    """What is known of one probe: ``up`` is None until something is.

    ``since`` is when ``up`` last changed, ``checked`` when it was asked last, both in
    seconds of the caller's clock; ``reason`` is what the last check said.
    """

    __slots__ = (
        "checked", "failures", "passed", "reason", "seconds", "since", "up", "weight", "weight_change",
    )  # fmt: skip

    def __init__(self, up: bool | None = None, since: float = 0.0, reason: str = "") -> None:
        self.up = up
        self.since = since
        self.reason = reason
        self.checked = 0.0
        self.passed: bool | None = None
        self.seconds = 0.0
        self.failures = 0
        self.weight: int | None = None
        self.weight_change = 0

    def observe(self, result: Result, checker: checks.Checker, now: float) -> tuple[bool, float]:
        """Take a result in; return whether it changes what others see, and the seconds to the next check."""
        schedule = checker.schedule
        self.checked = now
        self.passed = result.ok
        self.reason = result.reason
        self.seconds = result.seconds
        if result.ok:
            self.failures = 0
            changed = (
                self.up is not True
                or self.weight != result.weight
                or self.weight_change != result.weight_change
            )
            if changed:
                if self.up is not True:
                    self.since = now
                self.up = True
                self.weight = result.weight
                self.weight_change = result.weight_change
            return changed, schedule.delay_loop
        if self.up is False:
            return False, schedule.delay_loop
        if self.failures < schedule.retry:
            self.failures += 1
            return False, schedule.delay_before_retry
        self.failures = 0
        self.up = False
        self.since = now
        self.weight = None
        self.weight_change = 0
        return True, schedule.delay_loop
