# SPDX-License-Identifier: GPL-2.0-only
"""What a check finds."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """Whether a check passed, why, and what it says about the weight.

    ``reason`` is a part of a sentence for operators ("connection refused").
    ``weight`` takes the place of the real server's own, ``weight_change`` is added
    to it.  ``seconds`` is how long the check took.
    """

    ok: bool
    reason: str
    weight: int | None = None
    weight_change: int = 0
    seconds: float = 0.0
