# SPDX-License-Identifier: GPL-2.0-only
"""The doctor beside kernel IPVS, and on a machine whose clock and conntrack are its own to spoil."""

from __future__ import annotations

import json
import sys

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import PROJECT


@pytest.mark.timeout(600)
def test_kernel_ipvs_and_the_whole_machine(guest: Guest) -> None:
    """Each: what is found, what is left after mending, whether undoing leads to what was before."""
    player = [sys.executable, "-m", "tests.guest.doctor_player"]
    played = guest.run(player, directory=PROJECT, timeout=540)
    assert not played.exit_code, played.stderr
    story = json.loads(played.stdout)
    director = "director"
    assert story["ip_forward"] == [[["ip-forward", director]], [], True]
    assert story["two tables"] == [["two-tables", director]]
    assert story["clock"] == [["clock", director]]
    assert story["asked"] == ["connected"]
    assert story["conntrack"] == [[["conntrack", ""]], [], True]
    assert story["port"][:2] == [[["port-differs", director]], []]
