# SPDX-License-Identifier: GPL-2.0-only
"""Being interrupted between steps, never within one.

A lab is built by other programs (``ip``, ``nginx``, ``ipvsadm``).  Leaving
while one of them is at work would leave behind what it goes on to make.  So
Ctrl-C is noted, and heard at the next `check`; a second one is heard at once.
SIGTERM and SIGHUP count as Ctrl-C.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_noted = False


@contextmanager
def between_steps() -> Iterator[None]:
    """Let signals interrupt the work within at its checks, and at its end; may be nested.

    For the main thread only, where Python handles signals.
    """
    handlers = [(number, signal.signal(number, _note)) for number in _SIGNALS]
    try:
        yield
        check()
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        _forget_unless_nested(handlers[0][1])


def check() -> None:
    """Raise `KeyboardInterrupt` if a signal has come since the outermost `between_steps` began."""
    if _noted:
        raise KeyboardInterrupt


@contextmanager
def never() -> Iterator[None]:
    """Finish the work within, whatever comes; programs started in it inherit that."""
    handlers = [(number, signal.signal(number, signal.SIG_IGN)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def _note(_number: int, _frame: object) -> None:
    global _noted
    if _noted:
        raise KeyboardInterrupt
    _noted = True


def _forget_unless_nested(outer: object) -> None:
    global _noted
    if outer is not _note:
        _noted = False
