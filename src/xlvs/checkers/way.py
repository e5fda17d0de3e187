# SPDX-License-Identifier: GPL-2.0-only
"""Another way to a real server than the straight one: through the forwarding method, as the VIP.

A check finds its way in its task's context, so that no checker needs to know of it.
"""

from __future__ import annotations

import socket
from contextvars import ContextVar
from typing import Protocol

from xlvs.keepalived.checks import Connection


class Way(Protocol):
    """Opens connections for one check."""

    async def open(self, connection: Connection) -> socket.socket:
        """A connected socket; raises `OSError` with a reason for operators."""

    async def close(self) -> None:
        """Forget the connections, which the check has closed."""


way: ContextVar[Way | None] = ContextVar("way", default=None)
"""The way of the check that is running; None for the straight one."""
