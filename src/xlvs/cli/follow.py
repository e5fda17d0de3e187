# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs follow``: interfaces that come back, and new ones, are attached as was asked for."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from contextlib import suppress

from xlvs.cli.terminal import add_command
from xlvs.errors import XlvsError

_HELP = """\
Attach interfaces again that were attached once, in their mode, when they are
made anew under their names; and, where `xlvs attach` named none, whatever comes
up. What was detached stays detached. An interface that becomes a port of a
bridge or bond is let go, and attached again when it leaves.

It stays, listens to the kernel, and does nothing while no data plane is
loaded. Of this network namespace alone, and with any number of others that do
the same: xlvs-interfaces.service, which `xlvs.service` and udev start, xlvsd,
and `xlvs run`. Without any of these, start it as a service of your own, or have
a hook of the network's set-up call `xlvs follow --once`."""

_EPILOG = """\
examples:
  xlvs follow                    stay; Ctrl-C ends it
  xlvs follow --once             look once: for a hook, such as one in /etc/network/if-up.d
  systemctl enable --now xlvs-interfaces

Whether somebody follows, and what is wanted: xlvs status"""

_MESSAGES = 1 << 16
_PAUSE = 0.05
"""Seconds from one look to the next, at least: a network that starts makes hundreds of announcements."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    summary = "attach interfaces again that come back, and new ones"
    parser = add_command(subparsers, "follow", summary, _HELP, _EPILOG)
    parser.add_argument("--once", action="store_true", help="look once, and end")
    parser.set_defaults(run=_follow)


def _follow(arguments: argparse.Namespace) -> int:
    from xlvs.kernel.privilege import require_root

    require_root()
    if arguments.once:
        from xlvs.datapath.following import Follower

        _say(Follower().look())
        return 0
    stay()
    return 0


def stay() -> None:
    """Look now, and after whatever the kernel announces of interfaces; it does not return.

    Raises `OSError` where the kernel does not let us listen.
    """
    from xlvs.datapath.following import Follower
    from xlvs.kernel import followed, rtnetlink

    follower, complained = Follower(), ""
    announced = rtnetlink.link_announcements()  # before the first look, so that nothing is missed
    mark = followed.begin()
    try:
        while True:
            try:
                _say(follower.look())
                complained = ""
            except (
                XlvsError,
                OSError,
            ) as error:  # a data plane of another version, say; it may be loaded anew
                if str(error) != complained:
                    print(f"xlvs: {error}", file=sys.stderr, flush=True)
                complained = str(error)
            select.select([announced], [], [])
            time.sleep(_PAUSE)
            # What it says does not matter; if some of it did not fit (ENOBUFS), something has changed, too.
            with suppress(OSError):
                while announced.recv(_MESSAGES):
                    pass
    finally:
        os.close(mark)
        announced.close()


def _say(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)
