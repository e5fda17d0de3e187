# SPDX-License-Identifier: GPL-2.0-only
"""The real keepalived on kernel IPVS, xlvsd on kernel IPVS and on eBPF: step by step the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.guest.keepalived_oracle import Configuration, RealServer, VirtualServer, disagreements, play
from tests.guest.keepalived_player import KEEPALIVED
from tests.guest.runner import Guest

INHIBIT = ("inhibit_on_failure",)
QUORUM = VirtualServer(
    "192.0.2.1 80", "wrr", "DR", quorum=3, hysteresis=1, has_sorry_server=True,
    real_servers=(RealServer(1, 3), RealServer(2, 2, INHIBIT), RealServer(3, 0)),
)  # fmt: skip
GROUP = VirtualServer("group some", "rr", "NAT", real_servers=(RealServer(1), RealServer(4, 5)))
MARK = VirtualServer(
    "fwmark 5", "sh", "TUN type gue port 6080", lines=("persistence_timeout 60", "sh-port"),
    real_servers=(RealServer(2, 1), RealServer(5, 1, ("uthreshold 100", "lthreshold 50"))),
)  # fmt: skip
CAUTIOUS = VirtualServer(
    "192.0.2.1 81", "lc", "DR", lines=("alpha", "omega"), real_servers=(RealServer(6), RealServer(8)),
)  # fmt: skip
SUSPENDED = VirtualServer(
    "192.0.2.2 80", "mh", "NAT", protocol="UDP", lines=("ha_suspend", "ops"),
    real_servers=(RealServer(4), RealServer(7)),
)  # fmt: skip
SIX = VirtualServer("2001:db8:1::1 80", "wlc", "DR", real_servers=(RealServer(1), RealServer(5)))

BEFORE = Configuration((QUORUM, GROUP, MARK, CAUTIOUS, SUSPENDED), ("192.0.2.3 80", "192.0.2.4-5 80"))
# Weights, a scheduler and persistence change; real and virtual servers come and go. Not the group's
# lines: keepalived leaves the services of those that go, empty (docs/xlvsd.md).
AFTER = Configuration(
    (
        replace(
            QUORUM,
            scheduler="wlc",
            real_servers=(RealServer(1, 4), *QUORUM.real_servers[1:], RealServer(6, 2)),
        ),
        replace(GROUP, real_servers=(RealServer(4, 9), RealServer(8))),
        replace(MARK, lines=("persistence_timeout 300", "persistence_granularity 255.255.255.0")),
        SUSPENDED,
        SIX,
    ),
    ("192.0.2.3 80", "192.0.2.4-5 80"),
)
HISTORY = (
    ("down", "8"),
    ("start", BEFORE.text()),
    ("down", "1"),
    ("down", "2"),
    ("up", "1 8"),
    ("reload", AFTER.text()),
    ("away", "192.0.2.2"),
    ("down", "5 7"),
    ("back", "192.0.2.2"),
    ("reload", BEFORE.text()),
    ("stop", ""),
)
SEEN = [
    (0, 0), (21, 14), (17, 4), (16, 6), (20, 6), (22, 12), (22, 0), (20, 6), (19, 2), (19, 14), (0, 6),
]  # fmt: skip
"""At each step how many lines keepalived's table had, and how many it told: not the likeness of nothing."""


@pytest.mark.timeout(900)
def test_step_by_step(fast_guest: Guest) -> None:
    [played] = play(fast_guest, [HISTORY], timeout=800)
    assert not disagreements(HISTORY, played)
    assert [(len(at[KEEPALIVED]["table"]), len(at[KEEPALIVED]["told"])) for at in played] == SEEN
