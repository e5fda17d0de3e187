# SPDX-License-Identifier: GPL-2.0-only
"""The doctor in labs that are broken on purpose, by every check's own scenarios, and in healthy ones.

Each scenario is played whole: break, the doctor names exactly that, mend,
silence, undo, the same finding again, restore, and everything is as before.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.labs import Lab
from xlvs.doctor import mending, patients
from xlvs.doctor.checks import Check, Scenario, all_checks
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE, Finding
from xlvs.doctor.host import Host
from xlvs.lab import lifecycle
from xlvs.lab.addresses import Request

PATIENCE = 0.3
CHECKS = all_checks()
SCENARIOS = [
    pytest.param(check, scenario, id=f"{check.name}-{number}")
    for check in CHECKS
    for number, scenario in enumerate(check.scenarios)
]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def labs() -> Iterator[Callable[[str], Lab]]:
    """A function that gives the healthy lab of a topology, one for all tests here."""
    made: dict[str, Lab] = {}

    def of(topology: str) -> Lab:
        if topology not in made:
            name = f"t{os.getpid()}-doctor{next(_numbers)}"
            record = lifecycle.new_record(topology, name, Request(), bare=False)
            made[topology] = Lab(record)
            lifecycle.up(record, lambda _line: None)
        return made[topology]

    yield of
    for lab in made.values():
        lifecycle.down(lab.name, lambda _line: None)


def patient_of(lab: Lab) -> patients.Patient:
    return patients.lab(lab.name)


def typed(lab: Lab, commands: tuple[tuple[str, str], ...]) -> None:
    """Type a scenario's commands; the node `switch` is the lab's, which has no shell of its own."""
    addresses = lab.addresses
    words = {
        "lab": lab.name,
        "vip": addresses.vip,
        "vip6": addresses.vip6,
        "client": addresses.client,
        "interface": addresses.interface,
        "inside_dip": addresses.inside_dip,
        **{f"rip{number}": rip for number, rip in enumerate(addresses.rips, start=1)},
    }
    for node, command in commands:
        line = command.format_map(words)
        if node == "switch":
            namespace = lab.record.namespace("switch")
            subprocess.run(["nsenter", f"--net=/run/netns/{namespace}", "sh", "-ec", line], check=True)
        else:
            lab.type(node, line)


def look(lab: Lab) -> tuple[Cluster, list[Finding]]:
    cluster, findings = patient_of(lab).look((), PATIENCE)
    return cluster, [finding for finding in findings if finding.severity != NOTE]


def named(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.check, finding.host) for finding in findings}


def state_of(cluster: Cluster) -> dict[str, object]:
    """All that commands can change on the hosts; what traffic changes by itself left out."""

    def of(host: Host) -> object:
        table = host.director.own.services
        return (
            sorted(map(repr, host.addresses)),
            sorted(repr(replace(link, xdp="")) for link in host.links),
            sorted(map(repr, host.routes)),
            sorted(repr(each) for each in host.neighbours if "PERMANENT" in each.states),
            host.settings,
            sorted(set(map(repr, host.listeners))),
            [rule for rule in host.rules if not rule.policy],
            sorted(repr((entry.service, [p.destination for p in entry.destinations])) for entry in table),
            host.director.mark_rules,
        )

    return {host.name: of(host) for host in cluster.hosts}


def mend_all(lab: Lab) -> list[Finding]:
    """What `xlvs doctor --fix` does; the findings that are left."""
    patient = patient_of(lab)
    _, findings = look(lab)
    for _ in range(mending.ROUNDS):
        if not any(finding.mends for finding in findings):
            break
        for done in mending.mend(findings, patient.journal, patient.run):
            assert not done.error, done
        _, findings = look(lab)
    return findings


def undo_all(lab: Lab) -> None:
    patient = patient_of(lab)
    for done in mending.undo(patient.journal, patient.run):
        assert not done.error, done
    assert patient.journal.read() == []


@pytest.mark.parametrize("topology", ["dr", "nat", "tun"])
def test_a_healthy_lab_is_silent(labs: Callable[[str], Lab], topology: str) -> None:
    """At rest, and after traffic."""
    lab = labs(topology)
    assert look(lab)[1] == []
    lab.ask(6)
    cluster, findings = look(lab)
    assert findings == []
    assert len(cluster.asked) == len(lab.addresses.rips)
    assert all(asked.as_virtual.connected for asked in cluster.asked.values())


def test_asking_leaves_no_trace_in_the_table(labs: Callable[[str], Lab]) -> None:
    lab = labs("dr")
    before = lab.type("director", "ipvsadm -Ln --stats; ipvsadm -Lcn | grep -c TCP; true")
    assert look(lab)[1] == []
    assert lab.type("director", "ipvsadm -Ln --stats; ipvsadm -Lcn | grep -c TCP; true") == before


@pytest.mark.parametrize(("check", "scenario"), SCENARIOS)
def test_a_broken_lab(labs: Callable[[str], Lab], check: Check, scenario: Scenario) -> None:
    lab = labs(scenario.lab)
    healthy = state_of(look(lab)[0])
    wanted = {(check.name, host) for host in scenario.hosts}
    try:
        typed(lab, scenario.breaks)
        cluster, findings = look(lab)
        broken = state_of(cluster)
        assert named(findings) == wanted
        assert all(finding.evidence and finding.effect for finding in findings)
        assert mend_all(lab) == []
        undo_all(lab)
        cluster, findings = look(lab)
        assert state_of(cluster) == broken
        assert named(findings) == wanted
    finally:
        undo_all(lab)
        typed(lab, scenario.restores)
    cluster, findings = look(lab)
    assert findings == []
    assert state_of(cluster) == healthy
