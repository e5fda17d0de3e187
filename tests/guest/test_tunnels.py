# SPDX-License-Identifier: GPL-2.0-only
"""Tunnels of every kind beside kernel IPVS: the same bytes on the wire, the same errors to the client."""

from __future__ import annotations

import json
import sys

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, PROJECT, XLVS
from tests.guest.standing import preload_library
from tests.guest.tunnel_receivers import FEW, KINDS, SIZE

FIRST_ERROR = ": turn 0, MTU 1400"
"""The kernel words the first error by the route that it had before: with the interface's MTU."""


@pytest.mark.timeout(240)
def test_same_as_the_kernel(guest: Guest) -> None:
    command = [sys.executable, "-m", "tests.guest.tunnel_player", str(preload_library())]
    result = guest.run(command, timeout=200, directory=PROJECT).check()
    played = json.loads(result.stdout)
    kernel, xlvs = played[KERNEL], played[XLVS]
    assert kernel.keys() == xlvs.keys()
    differ = [name for name in kernel if kernel[name] != xlvs[name] and not name.endswith(FIRST_ERROR)]
    assert not differ, "\n".join(
        f"{name}\n  kernel {kernel[name]}\n  xlvs   {xlvs[name]}" for name in differ[:10]
    )
    first = [name for name in kernel if name.endswith(FIRST_ERROR)]
    assert len(first) == 6
    for name in first:
        # Every answer is there, and xlvs's says what the kernel's says the second time.
        assert len(kernel[name]) == 1
        assert xlvs[name] == kernel[name.replace("turn 0", "turn 1")]
    # What was compared is not that nothing came out.
    assert sum(len(seen) for seen in kernel.values()) > len(kernel) * 0.9


@pytest.mark.timeout(120)
def test_linux_unwraps_all_of_it(guest: Guest) -> None:
    """Also what xlvs makes of packets of several segments, where the device makes no checksums for it."""
    result = guest.run(
        [sys.executable, "-m", "tests.guest.tunnel_receivers"], timeout=100, directory=PROJECT
    ).check()
    assert json.loads(result.stdout) == {kind: FEW if kind.startswith("gre") else SIZE for kind in KINDS}
