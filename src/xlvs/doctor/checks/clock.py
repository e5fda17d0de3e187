# SPDX-License-Identifier: GPL-2.0-only
"""The machine's clock is slow to read.

Where the kernel distrusts the CPU's own counter it reads a clock that takes a
thousand times as long (hpet, acpi_pm): everything that stamps packets is
slower.  On virtual machines it is a setting of the host's.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, Finding

RANK = 96
SCENARIOS: tuple[Scenario, ...] = ()  # it is the whole machine's
_SLOW = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the clock of directors."""
    for director in cluster.directors:
        if director.clock in _SLOW:
            yield Finding(
                director.name,
                f"the clock source of {director.name} is {director.clock}",
                (f"/sys/devices/system/clocksource/clocksource0/current_clocksource: {director.clock}",),
                "None but speed.",
                advice="see why the kernel does not use the CPU's counter: dmesg | grep -i clocksource",
                severity=NOTE,
            )
