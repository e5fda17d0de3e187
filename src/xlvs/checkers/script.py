# SPDX-License-Identifier: GPL-2.0-only
"""Scripts run as keepalived runs them: as their user, in a session of their own, to an end.

Whether one may run at all is `xlvs.keepalived.script_security`'s to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from xlvs.keepalived.origin import Script

_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL, as in keepalived."""


async def start(script: Script, *more: str) -> asyncio.subprocess.Process:
    """Start a script with ``more`` arguments, its output to nowhere; raises `OSError`."""
    # Who is not root can run scripts as himself alone.
    change = os.geteuid() == 0
    return await asyncio.create_subprocess_exec(
        *script.arguments,
        *more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        user=script.uid if change else None,
        group=script.gid if change else None,
        extra_groups=[script.gid] if change else None,
    )


async def finish(process: asyncio.subprocess.Process, seconds: float | None) -> int | None:
    """Wait for a script to end; its exit status, below 0 for a signal, None when it took too long.

    One that takes longer than ``seconds`` gets SIGTERM, two seconds later SIGKILL, and
    its children with it.  A cancelled wait ends the script as well.
    """
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        await _end(process)
        return None
    except asyncio.CancelledError:
        _signal(process, signal.SIGKILL)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await process.wait()
    _signal(process, signal.SIGKILL)  # the children that it left, too
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
