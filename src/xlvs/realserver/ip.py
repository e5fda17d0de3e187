# SPDX-License-Identifier: GPL-2.0-only
"""ip(8), as an operator types it: every change can be read, and typed, as it stands."""

from __future__ import annotations

import json
import subprocess

from xlvs.errors import Unavailable, XlvsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def change(*words: str) -> None:
    """Run one ``ip`` command in this network namespace; raises `XlvsError` with what it said."""
    _run(words)


def show(*words: str) -> list[dict[str, Any]]:
    """What ``ip -json`` shows, without the empty objects that it has for what was filtered out."""
    shown = json.loads(_run(("-json", *words)) or "[]")
    return [entry for entry in shown if entry]


def _run(words: tuple[str, ...]) -> str:
    try:
        ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable("the command ip is not installed", "apt-get install iproute2") from None
    if ran.returncode != 0:
        said = ran.stderr.strip().removeprefix("RTNETLINK answers: ") or f"exit code {ran.returncode}"
        raise XlvsError(f"ip {' '.join(words)}: {said}")
    return ran.stdout
