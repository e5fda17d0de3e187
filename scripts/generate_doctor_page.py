#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write the list of checks in docs/doctor.md anew, from the checks' own docstrings.

A test compares the page with `page()`.  With an argument, the page's path.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/doctor.md"
MARK = "<!-- From here on by scripts/generate_doctor_page.py, out of src/xlvs/doctor/checks. -->"


def page(present: str) -> str:
    """The whole page: what is written by hand, as it is, and the checks."""
    from xlvs.doctor.checks import all_checks

    head = present.partition(MARK)[0]
    parts = [f"{head}{MARK}\n"]
    for check in all_checks():
        parts.append(f"\n### {check.name}\n\n**{check.title}**\n\n{check.text}\n")
        for scenario in check.scenarios[:1]:
            lines = "\n".join(f"{node}# {command}" for node, command in scenario.breaks)
            parts.append(f"\nTo see it, in `xlvs lab up {scenario.lab}`:\n\n```\n{lines}\n```\n")
        if check.unseen:
            parts.append(f"\nNo scenario in a lab: {check.unseen}.\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(target.read_text()))
