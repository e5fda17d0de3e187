# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tests.guest.bench_xlvsd``: xlvsd beside keepalived on a large table, both on kernel IPVS.

Under emulation everything takes twenty times as long, and times say something only beside each other.
"""

from __future__ import annotations

import argparse
import sys

from .runner import Guest
from .scenario import PROJECT

LIMIT = 3600.0


def main() -> int:
    """Read the command line, measure in a guest, show what it says."""
    parser = argparse.ArgumentParser(
        prog="tests.guest.bench_xlvsd", description="xlvsd beside keepalived, in a guest with ip_vs."
    )
    parser.add_argument("--services", type=int, default=2284)
    parser.add_argument("--real-servers", type=int, default=37298)
    options = parser.parse_args()
    player = [sys.executable, "-m", "tests.guest.bench_xlvsd_player"]
    with Guest() as guest:
        words = [*player, str(options.services), str(options.real_servers)]
        return guest.run(words, directory=PROJECT, timeout=LIMIT, live=True).exit_code


if __name__ == "__main__":
    sys.exit(main())
