# SPDX-License-Identifier: GPL-2.0-only
"""Network namespaces that cannot outlive the test run.

A namespace is held by a sleeping child, which the kernel ends with us,
however we end.  It has no name, so nothing is left to tidy away.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from xlvs.kernel.namespaces import CLONE_NEWNET, network_namespace

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _become_holder() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


@contextmanager
def new_namespace() -> Iterator[str]:
    """A new network namespace with ``lo`` up; gives the path of its file."""
    holder = subprocess.Popen(["sleep", "infinity"], preexec_fn=_become_holder)
    try:
        path = f"/proc/{holder.pid}/ns/net"
        with network_namespace(path):
            ip("link set lo up")
        yield path
    finally:
        holder.kill()
        holder.wait()


def ip(command: str) -> None:
    """Run iproute2's ``ip`` in this thread's network namespace."""
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)
