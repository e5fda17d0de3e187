# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tests.guest.run -- COMMAND...``: run a command in a guest of its own.

Shows the command's output as it comes and ends with its exit status; 254
means that the guest itself failed.  For people at a terminal; tests use
`runner.Guest`.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from .kernel import DEFAULT_PACKAGE, PrepareError
from .runner import Guest, GuestError


def main() -> int:
    """Read the command line, run the guest, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.guest.run", description="Run a command in a Debian guest.")
    parser.add_argument("--kernel", default=DEFAULT_PACKAGE, metavar="PACKAGE", help="Debian kernel package")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    parser.add_argument("--icount", action="store_true", help="a clock that leaps while the guest is idle")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="gets what $GUEST_OUTPUT holds")
    parser.add_argument("--console", action="store_true", help="show the kernel's console at the end")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with Guest(
            cpus=options.cpus, memory=options.memory, icount=options.icount, package=options.kernel
        ) as guest:
            result = guest.run(options.command, timeout=options.timeout, live=True)
            if options.output:
                shutil.copytree(result.output_dir, options.output, dirs_exist_ok=True)
    except (GuestError, PrepareError) as error:
        print(f"guest: {error}", file=sys.stderr)
        return 254
    except KeyboardInterrupt:
        return 130
    if options.console:
        print(result.console, file=sys.stderr)
    return result.exit_code


def _terminated(number: int, _: FrameType | None) -> None:
    """End like an interrupted program, so that the guest is switched off and its files go."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
