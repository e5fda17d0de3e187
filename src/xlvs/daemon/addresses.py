# SPDX-License-Identifier: GPL-2.0-only
"""Hearing at once of addresses that come to this host and go: for ``ha_suspend`` (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

_IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x10, 0x100
"""``RTMGRP_IPV4_IFADDR``, ``RTMGRP_IPV6_IFADDR``."""
_SETTLE = 0.05
"""Seconds: the kernel tells of an address before it takes its local route away."""
_MESSAGES = 65536


def announcements() -> socket.socket:
    """A socket on which the kernel announces every change of an address; raises `OSError`."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        made.bind((0, _IPV4_ADDRESSES | _IPV6_ADDRESSES))
    except BaseException:
        made.close()
        raise
    return made


class AddressWatch:
    """Calls ``changed`` soon after addresses have changed, while it is open."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        announced_on: Callable[[], socket.socket] = announcements,
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._announced_on = announced_on
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen, if that is not so already; raises `OSError`."""
        if self._socket is None:
            self._socket = self._announced_on()
            self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        # What it says does not matter; if some of it did not fit (ENOBUFS), something has changed, too.
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while self._socket.recv(_MESSAGES):
                pass
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._changed()
