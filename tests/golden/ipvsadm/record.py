# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tests.golden.ipvsadm.record [FILE...]``: record the transcripts here anew.

Runs the commands of every transcript in this folder (or of those named)
through the real ipvsadm, on one boot of the guest, and writes the answers
back into the files.  To add a case, write its ``$ ipvsadm ...`` line into a
file and record.  The format is that of `tests.guest.ipvsadm_transcript`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.guest.ipvsadm_transcript import record
from tests.guest.runner import Guest

FOLDER = Path(__file__).parent


def main() -> int:
    """Record the files that are named, or all."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.txt"))
    with Guest() as guest:
        for path in paths:
            print(f"recording {path.name}", flush=True)
            path.write_text(record(path.read_text(), guest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
