# SPDX-License-Identifier: GPL-2.0-only
"""BFD sessions beside everything else: in a thread of their own, for they count in milliseconds.

The thread is started with the first session; a configuration without any costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

from xlvs.bfd.engine import Engine, View
from xlvs.keepalived.redundancy import BfdInstance

_END = 2.0


class Sessions:
    """The sessions as the event loop ``loop`` sees them; all methods are to be called there.

    ``changed`` is called with a session's name when there is something new about it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[str], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._views: dict[str, View] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._wanted: dict[str, BfdInstance] = {}
        self._thread: threading.Thread | None = None
        self._inner: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None

    def configure(self, instances: Iterable[BfdInstance]) -> None:
        """Keep these sessions from now on, and no others."""
        wanted = {one.name: one for one in instances}
        if wanted == self._wanted:
            return
        for name, instance in self._wanted.items():
            if name not in wanted or wanted[name].neighbor != instance.neighbor:
                self._views.pop(name, None)
        self._wanted = wanted
        if self._thread is None:
            self._start()
        assert self._inner is not None and self._engine is not None
        self._inner.call_soon_threadsafe(self._engine.configure, list(wanted.values()))

    def _start(self) -> None:
        self._inner = asyncio.new_event_loop()
        self._engine = Engine(self._inner, self._told_inside)
        self._thread = threading.Thread(target=self._inner.run_forever, name="BFD", daemon=True)
        self._thread.start()

    def _told_inside(self, name: str, view: View) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told, name, view)

    def _told(self, name: str, view: View) -> None:
        if name not in self._wanted:
            return
        self._views[name] = view
        self._news.setdefault(name, asyncio.Event()).set()
        self._changed(name)

    async def settled(self, name: str) -> View:
        """What is known of a session, as soon as something is; see `View`."""
        while name in self._wanted:
            view = self._views.get(name, View())
            if view.settled:
                return view
            news = self._news.setdefault(name, asyncio.Event())
            news.clear()
            await news.wait()
        return View(False, True, f"there is no BFD session {name}")

    def stop(self) -> None:
        """Tell the neighbours and end."""
        self._wanted = {}
        if self._thread is None or self._inner is None or self._engine is None:
            return
        self._inner.call_soon_threadsafe(self._engine.close)
        self._inner.call_soon_threadsafe(self._inner.stop)
        self._thread.join(_END)
        if not self._thread.is_alive():
            self._inner.close()
        self._thread = self._inner = self._engine = None
