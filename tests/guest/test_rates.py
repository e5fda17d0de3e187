# SPDX-License-Identifier: GPL-2.0-only
"""``-L --rate``: of the same packets, xlvs estimates what kernel IPVS estimates."""

from __future__ import annotations

import json
import sys
from itertools import groupby

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, PROJECT, XLVS
from tests.guest.standing import preload_library

CONNECTIONS, PACKETS = 320, 640
COLUMNS = 5


ATTEMPTS = 4
"""A burst of packets that an estimate comes into is halved by it, in each director at another place."""


def _watched(guest: Guest) -> dict[str, list[list[list[int]]]]:
    """What rates each director showed, of a burst that came between two estimates of each."""
    for _ in range(ATTEMPTS):
        result = guest.run(
            [sys.executable, "-m", "tests.guest.rate_player", str(preload_library())],
            timeout=120, directory=PROJECT,
        ).check()  # fmt: skip
        shown: dict[str, list[list[list[int]]]] = json.loads(result.stdout)
        if not any(any(rates) for director in shown.values() for rates in director[0]):
            return shown
    raise AssertionError(f"{ATTEMPTS} bursts were each halved by an estimate")


@pytest.mark.timeout(500)
def test_rates_go_up_and_down_as_the_kernels(fast_guest: Guest) -> None:
    shown = _watched(fast_guest)
    zero = [0] * COLUMNS
    for place in range(2):  # the service, its real server
        kernel, xlvs = (
            [rates for rates, _ in groupby(one[place] for one in shown[director])]
            for director in (KERNEL, XLVS)
        )
        assert kernel[0] == xlvs[0] == zero, "something was left of an earlier rate"
        # An eighth of what came in two seconds is the first estimate a second.
        assert kernel[1][:2] == [CONNECTIONS // 8, PACKETS // 8]
        assert kernel[-1] == xlvs[-1] == zero, "-Z zeroes"
        # While they were watched; where that ended is each one's own affair.
        steps = min(len(kernel), len(xlvs)) - 1
        assert steps > 8
        assert xlvs[:steps] == kernel[:steps]
