# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsadm-save``: the script ipvsadm-save, which is ``ipvsadm -S`` under another name."""

from __future__ import annotations

import os
import sys

from xlvs.cli import ipvsadm

EXIT_HELP = 1


def main() -> int:
    """Write the table to stdout as commands; return the exit status.

    As the script does, it takes ``-n``, shows its help at any other option, and
    leaves other words out of account.
    """
    program = os.path.basename(sys.argv[0])
    command = ["-S"]
    for word in sys.argv[1:]:
        if word == "-n":
            command = ["-S", "-n"]
        elif word.startswith("-"):
            print(f"{program}: Script to save the IPVS table to stdout.", file=sys.stderr)
            print("   With the -n option, prints out the table in numeric format.", file=sys.stderr)
            return EXIT_HELP
    sys.argv[0] = sys.argv[0].removesuffix("-save")  # what the script runs speaks under its own name
    return ipvsadm.main(command)


if __name__ == "__main__":
    sys.exit(main())
