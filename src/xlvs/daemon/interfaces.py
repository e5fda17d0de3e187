# SPDX-License-Identifier: GPL-2.0-only
"""The daemon follows interfaces: those that come back are attached again, see `xlvs.datapath.following`."""

from __future__ import annotations

import asyncio
import logging
import os

from xlvs.daemon.addresses import AddressWatch
from xlvs.datapath.following import Follower
from xlvs.errors import XlvsError
from xlvs.kernel import followed, rtnetlink

_log = logging.getLogger("xlvsd")


class InterfaceWatch:
    """Looks at the interfaces when it is opened, and soon after each change, in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watch = AddressWatch(loop, self._changed, rtnetlink.link_announcements)
        self._follower = Follower()
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self._mark = -1
        self._said = ""

    def open(self) -> None:
        """Follow; what hinders that is logged."""
        try:
            self._watch.open()
            self._mark = followed.begin()
        except (XlvsError, OSError) as error:
            _log.warning("Interfaces that come back are not attached again: %s", error)
        self._changed()

    async def close(self) -> None:
        """Follow no more, when what is under way has ended."""
        self._watch.close()
        self._again = False
        if self._looking is not None:
            await self._looking
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def _changed(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look())
        else:
            self._again = True

    async def _look(self) -> None:
        while True:
            self._again = False
            try:
                for line in await asyncio.to_thread(self._follower.look):
                    _log.info("Interface %s", line.replace("\n", " "))
                self._said = ""
            except (XlvsError, OSError) as error:
                if str(error) != self._said:
                    _log.warning("Interfaces cannot be followed: %s", str(error).replace("\n", " "))
                self._said = str(error)
            if not self._again:
                return
