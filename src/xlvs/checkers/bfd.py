# SPDX-License-Identifier: GPL-2.0-only
"""BFD_CHECK: the session with a neighbour is up.  It is asked again at each change of the session."""

from __future__ import annotations

from xlvs.bfd.sessions import Sessions
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import BfdCheck


async def check(checker: BfdCheck, sessions: Sessions | None) -> Result:
    """Say how the session is; one that has just begun is given the time to come up."""
    if sessions is None:
        return Result(False, "xlvsd was started without BFD (-B)")
    view = await sessions.settled(checker.name)
    return Result(view.up, view.reason)
