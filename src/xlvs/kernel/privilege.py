# SPDX-License-Identifier: GPL-2.0-only
"""Who may use the data plane."""

from __future__ import annotations

import os

from xlvs.errors import NotPermitted


def require_root() -> None:
    """Raise `NotPermitted` for a caller who can neither load nor open anything."""
    if os.geteuid() != 0:
        raise NotPermitted("Permission denied (you must be root)", "Run it as root, or with sudo.")
