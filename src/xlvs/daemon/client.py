# SPDX-License-Identifier: GPL-2.0-only
"""Speaking to this network namespace's xlvsd; for commands, so it imports little."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

from xlvs.errors import Unavailable, XlvsError
from xlvs.kernel.namespaces import network_cookie, outermost_process

FOLDER = "/run/xlvs/xlvsd"
_PATIENCE = 30.0
"""Seconds; a daemon that does not answer so long is stuck."""


def run_folder() -> str:
    """The folder of this network namespace's daemon; it need not be there."""
    return f"/proc/{outermost_process()}/root{FOLDER}/{network_cookie():x}"


def _connect(patience: float = _PATIENCE) -> socket.socket:
    from xlvs.kernel.privilege import require_root

    require_root()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(patience)
    try:
        made.connect(f"{run_folder()}/control")
    except (FileNotFoundError, ConnectionRefusedError):
        made.close()
        raise Unavailable(
            "xlvsd does not run in this network namespace",
            "Start it: systemctl start xlvsd, or xlvsd -f /etc/keepalived/keepalived.conf",
        ) from None
    except BaseException:
        made.close()
        raise
    return made


def ask(patience: float = _PATIENCE, **request: Any) -> dict[str, Any]:
    """Send a request, return the answer; raises `XlvsError` for a refusal, `Unavailable` for no daemon.

    It waits ``patience`` seconds for the answer.
    """
    with _connect(patience) as made, made.makefile("rwb") as stream:
        stream.write(json.dumps(request).encode() + b"\n")
        stream.flush()
        try:
            line = stream.readline()
        except TimeoutError:
            raise Unavailable(f"xlvsd has not answered within {patience:g} s") from None
    if not line.endswith(b"\n"):
        raise Unavailable("xlvsd has ended without an answer")
    answer = json.loads(line)
    if not answer.pop("ok", False):
        raise XlvsError(str(answer.get("error", "xlvsd refuses")), str(answer.get("hint", "")))
    found: dict[str, Any] = answer
    return found


def status() -> dict[str, Any] | None:
    """The daemon's status; None where none runs."""
    try:
        return ask(command="status")
    except Unavailable:
        return None


def follow(last: int) -> Iterator[str]:
    """Events as lines of JSON, beginning with the ``last`` so many, until the daemon ends."""
    with _connect() as made, made.makefile("rwb") as stream:
        stream.write(json.dumps({"command": "follow", "last": last}).encode() + b"\n")
        stream.flush()
        made.settimeout(None)
        for line in stream:
            yield line.decode().rstrip("\n")
