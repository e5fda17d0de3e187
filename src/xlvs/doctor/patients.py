# SPDX-License-Identifier: GPL-2.0-only
"""Whom the doctor looks at: this host, or the nodes of a lab; and how their commands are run."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from xlvs.doctor.checks import judge
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.examination import Place, examine
from xlvs.doctor.finding import Finding
from xlvs.doctor.mending import LONGEST, Journal, Run, journal_here, run_here
from xlvs.doctor.probe import PATIENCE
from xlvs.errors import UsageError
from xlvs.lab import lifecycle, namespaces, node, state


@dataclass(frozen=True, slots=True)
class Patient:
    """Hosts that belong together, where their mends are written down, and how to run them."""

    name: str
    places: tuple[Place, ...]
    whole: bool
    journal: Journal
    run: Run

    def look(self, skip: tuple[str, ...] = (), patience: float = PATIENCE) -> tuple[Cluster, list[Finding]]:
        """Everything seen, and what is wrong.  Raises `XlvsError` where one cannot look."""
        cluster = examine(self.places, whole=self.whole, patience=patience)
        return cluster, judge(cluster, skip)


def this_host() -> Patient:
    """The host that this process runs on, or rather its network namespace."""
    name = socket.gethostname()
    return Patient(name, (Place(name),), False, journal_here(), run_here)


def lab(name: str | None) -> Patient:
    """A lab; without a name the one that must be meant.  Raises `UsageError`."""
    record = state.find(name)
    if record.phase != state.READY:
        raise UsageError(
            f"the lab {record.name!r} is half built",
            f"build it: xlvs lab up {record.topology} --name {record.name}",
        )
    places = tuple(
        Place(each.name, each.role, namespaces.path(record.namespace(each.name)))
        for each in lifecycle.plan_of(record).nodes
    )

    def run(host: str, command: str) -> tuple[int, str]:
        # A mend may not hang: `timeout` ends it, and whatever it has started.
        ran = node.run(record, host, ["timeout", str(LONGEST), "sh", "-c", command])
        said = (ran.stderr or ran.stdout).strip()
        return ran.returncode, said or (f"no end after {LONGEST} seconds" if ran.returncode == 124 else "")

    return Patient(record.name, places, True, Journal(record.folder / "doctor.json"), run)
