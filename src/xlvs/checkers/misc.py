# SPDX-License-Identifier: GPL-2.0-only
"""MISC_CHECK: a script says how a real server is."""

from __future__ import annotations

import signal

from xlvs.checkers import script
from xlvs.checkers.connection import refusal
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import MiscCheck


async def check(checker: MiscCheck) -> Result:
    """Run the script once."""
    path = checker.script.path
    try:
        process = await script.start(checker.script)
    except OSError as error:
        return Result(False, f"{path} cannot be run: {refusal(error)}")
    return judge(checker, await script.finish(process, checker.timeout))


def judge(checker: MiscCheck, status: int | None) -> Result:
    """What an exit status says; None is that of a script that was ended because it took too long."""
    path = checker.script.path
    if status is None:
        return Result(False, f"{path} timed out after {checker.timeout:g} s")
    if status < 0:
        return Result(False, f"{path} was ended by {signal.Signals(-status).name}")
    if status == 0:
        return Result(True, f"{path} exited with status 0")
    if checker.dynamic and status >= 2:
        return Result(True, f"{path} exited with status {status}", weight=status - 2)
    return Result(False, f"{path} exited with status {status}")
