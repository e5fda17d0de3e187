# SPDX-License-Identifier: GPL-2.0-only
"""Running a function in children of this process, in this thread's network namespace."""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def start(function: Callable[[], None], cpu: int | None = None) -> int:
    """Fork a child that runs a function and ends, 0 or with a traceback and 1; returns its pid."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def is_running(child: int) -> bool:
    """Whether a child has not ended yet; its status is still there for `status_of`."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def status_of(child: int) -> int:
    """Wait for a child; its exit status, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_together(*functions: Callable[[], None], cpus: list[int] | None = None) -> None:
    """Run functions at once, each in a child, on those CPUs in turn; fails if one of them does."""
    children = [
        start(function, cpus[number % len(cpus)] if cpus else None)
        for number, function in enumerate(functions)
    ]
    statuses = [status_of(child) for child in children]
    assert statuses == [0] * len(children)
