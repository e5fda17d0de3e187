# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs upgrade``: this version's packet path in the place of the one that is loaded."""

from __future__ import annotations

import argparse

_HELP = """\
After another version of xlvs was installed: put its packet path in the place
of the one that is loaded in this network namespace, while packets pass. No
packet, connection or counter is lost. Without it, the old packet path goes on
for ever; the commands work with either.

A version whose tables have another layout is refused before anything is
touched; the message says how to go over to that one."""

_EPILOG = """\
examples:
  xlvs upgrade --check           would it work?
  xlvs upgrade"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "upgrade",
        help="put this version's packet path in the place of the loaded one",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--check", action="store_true", help="only say whether it is possible")
    parser.set_defaults(run=_upgrade)


def _upgrade(arguments: argparse.Namespace) -> int:
    from xlvs import __version__
    from xlvs.datapath.upgrade import upgrade
    from xlvs.errors import NotLoaded
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    require_root()
    if bpffs.namespace_folder() is not None:
        with table_lock(exclusive=True):
            folder = bpffs.namespace_folder()
            if folder is not None:  # else it was detached while we waited for the lock
                before = upgrade(folder, only_check=arguments.check)
                if arguments.check:
                    print(f"{__version__} can take over from {before}.")
                else:
                    print(f"The packet path is {__version__} now; it was {before}.")
                return 0
    raise NotLoaded(
        "nothing is loaded in this network namespace, so there is nothing to take over",
        "xlvs attach, or the first xlvsadm -A, loads this version.",
    )
