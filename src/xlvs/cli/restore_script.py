# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsadm-restore``: the script ipvsadm-restore, which is ``ipvsadm -C`` and then ``-R``.

The script takes no options and leaves those given out of account.  It reads
all of its input before it clears the table, and leaves lines that begin with
``#`` out.
"""

from __future__ import annotations

import io
import sys

from xlvs.cli import ipvsadm


def main() -> int:
    """Replace the table by the commands in stdin; return the exit status of the last."""
    stdin = sys.stdin.buffer.read() if sys.stdin is not None else b""
    kept = [line for line in stdin.split(b"\n") if not line.startswith(b"#")]
    # $(...) in the script: no newlines at the end, but one of echo's.
    commands = b"\n".join(kept).replace(b"\0", b"").rstrip(b"\n") + b"\n"
    sys.argv[0] = sys.argv[0].removesuffix("-restore")  # what the script runs speaks under its own name
    ipvsadm.main(["-C"])
    sys.stdin = io.TextIOWrapper(io.BytesIO(commands))
    return ipvsadm.main(["-R"])


if __name__ == "__main__":
    sys.exit(main())
