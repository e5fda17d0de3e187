# SPDX-License-Identifier: GPL-2.0-only
"""The real ``keepalived -t`` still says what was recorded, and of Debian's samples what we say."""

from __future__ import annotations

from pathlib import Path

from tests.unit.keepalived.test_verdicts import AROUND
from tests.unit.keepalived.verdicts import ask, corpus, recorded
from xlvs.keepalived.parse import parse

SAMPLES = sorted(Path("/usr/share/doc/keepalived/samples").glob("keepalived.conf.*"))


def test_recorded_verdicts_still_hold() -> None:
    some = corpus()[::8]
    verdicts = ask(some)
    assert verdicts == {path.name: recorded()[path.name] for path in some}


def test_samples_of_the_package() -> None:
    assert len(SAMPLES) >= 20
    verdicts = ask(SAMPLES)
    ours = {path.name: int(parse(str(path), AROUND).verdict) for path in SAMPLES}
    assert ours == {name: verdict.status for name, verdict in verdicts.items()}
