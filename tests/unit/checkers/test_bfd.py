# SPDX-License-Identifier: GPL-2.0-only
"""BFD_CHECK says what its session says, and waits until that is known."""

from __future__ import annotations

import asyncio

from xlvs.bfd.engine import View
from xlvs.bfd.sessions import Sessions
from xlvs.checkers.bfd import check
from xlvs.keepalived.checks import BfdCheck, Schedule
from xlvs.keepalived.redundancy import BfdInstance

CHECK = BfdCheck(Schedule(), "one")


def test_without_bfd_it_fails_and_says_so() -> None:
    result = asyncio.run(check(CHECK, None))
    assert not result.ok and "-B" in result.reason


def test_it_waits_until_something_is_known() -> None:
    async def run() -> None:
        told: list[str] = []
        sessions = Sessions(asyncio.get_running_loop(), told.append)
        sessions._wanted = {"one": BfdInstance("one", bytes(4))}
        asked = asyncio.create_task(check(CHECK, sessions))
        await asyncio.sleep(0)
        sessions._told("one", View(False, False, "it begins"))
        await asyncio.sleep(0)
        assert not asked.done()
        sessions._told("one", View(True, True, "it is up"))
        result = await asked
        assert result.ok and result.reason == "it is up" and told == ["one", "one"]
        assert (await check(BfdCheck(Schedule(), "another"), sessions)).ok is False

    asyncio.run(run())
