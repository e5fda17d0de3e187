# SPDX-License-Identifier: GPL-2.0-only
"""The machine's clock is set while it runs, is not synchronised, or is slow to read.

Connections and their timeouts go by another clock, which nobody can set.  Certificates that
checks look at, applications' sessions, and the logs of two directors laid side by side go
by this one.  The doctor compares both clocks before and after it has looked: they drift apart only
where somebody sets this one.  It asks the kernel whether the clock is synchronised (adjtimex(2)), and from
what it is read: where the kernel distrusts the CPU's own counter, that takes a thousand times as long
(hpet, acpi_pm), and everything that stamps packets is slower.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, WARNING, Finding
from xlvs.doctor.host import Host

RANK = 96
SCENARIOS: tuple[Scenario, ...] = ()
WHY_NO_SCENARIO = "the clock is the whole machine's; a test in a virtual machine sets it"
_SLOW = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")
_STEP = 0.01
"""Seconds: less may be what reading both clocks takes."""


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the clock of directors."""
    for director in cluster.directors:
        if abs(cluster.clock_step) >= _STEP:
            yield Finding(
                director.name,
                f"the clock of {director.name} was set while the doctor looked",
                (f"it went {abs(cluster.clock_step):.3f} seconds {_way(cluster.clock_step)} at once",),
                "None for connections. Certificates may seem not yet or no longer valid, sessions end "
                "or never do, and logs are out of order.",
                advice="see who sets it: two daemons at once, a virtual machine's tools, date -s in a cron "
                "job. Let one daemon slew it (chrony: no makestep after the start)",
                severity=WARNING,
            )
        yield from _notes(director)


def _way(step: float) -> str:
    return "forward" if step > 0 else "back"


def _notes(director: Host) -> Iterator[Finding]:
    clock = director.clock
    if not clock.synchronised:
        yield Finding(
            director.name,
            f"the clock of {director.name} is not synchronised",
            (f"adjtimex(2): unsynchronised, it may be wrong by {clock.maximum_error:.1f} seconds or more",),
            "None for connections. Certificates and logs are judged by a clock that may be wrong.",
            advice="timedatectl set-ntp true, or chrony",
            severity=NOTE,
        )
    if clock.source in _SLOW:
        yield Finding(
            director.name,
            f"the clock source of {director.name} is {clock.source}",
            (f"/sys/devices/system/clocksource/clocksource0/current_clocksource: {clock.source}",),
            "None but speed.",
            advice="see why the kernel does not use the CPU's counter: dmesg | grep -i clocksource",
            severity=NOTE,
        )
