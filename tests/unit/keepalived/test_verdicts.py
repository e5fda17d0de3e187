# SPDX-License-Identifier: GPL-2.0-only
"""Each configuration of the corpus has the verdict, and nearly every message, that keepalived gives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.keepalived.verdicts import CONFIG_ID, CORPUS, corpus, distinct, recorded
from xlvs.keepalived.diagnostics import Severity, Verdict
from xlvs.keepalived.parse import Outcome, parse
from xlvs.keepalived.surroundings import Surroundings

AROUND = Surroundings(
    CONFIG_ID, CONFIG_ID, {"lo": 0x49, "eth0": 0x1043, "eth1": 0x1043}, processors=2, uid=0, gid=0
)
"""The machine on which the verdicts were recorded: a namespace with these interfaces."""

SEGMENTATION_FAULT = 139

OTHER_WORDS = {
    # keepalived prints the number -1 as an unsigned one.
    "all-weights-zero.conf": ("hysteresis 0 >= quorum 0",),
    # …one address twice, out of one buffer.
    "bfd-instance-bad.conf": ("neighbor address fd00::1 are not",),
    # …each entry of a group in turn.
    "group-ports-differ.conf": ("[10.0.0.1,443]",),
    # …uses such numbers when it runs, as we do, and refuses them in its test.
    "number-with-tail.conf": ("is outside range",),
    "misc-check-bad-timeout.conf": ("Invalid misc_timeout",),
    # …two lines where we have one.
    "vrrp-deprecated.conf": ("Specifying lvs_sync_daemon_interface", "Please use global"),
    # …a number before what it is for.
    "vrrp-routes-bad.conf": ("invalid number 'x'",),
    # …the later instance last.
    "vrrp-same-vrid.conf": ("both use VRID",),
}
"""Messages of keepalived that have other words here, by a part of each."""


def _parse(name: str) -> Outcome:
    return parse(os.path.relpath(CORPUS / name, CORPUS), AROUND)


@pytest.fixture(autouse=True)
def _in_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    theirs = recorded()[path.name]
    ours = _parse(path.name)
    if theirs.status == SEGMENTATION_FAULT:
        assert ours.verdict is Verdict.FAULTY
        return
    assert ours.verdict == theirs.status, ours.diagnostics
    said = distinct([diagnostic.message for diagnostic in ours.diagnostics])
    for message in theirs.messages:
        if not any(part in message for part in OTHER_WORDS.get(path.name, ())):
            assert message in said


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        # VRRP is read last: of it nothing is said that comes after the statement, of servers all.
        ("missing-parameter-vrrp.conf", [2, 11, 1, 1, 1, 10, 7]),
        # Servers are read first: of VRRP nothing is said.
        ("missing-parameter-vrrp-and-server.conf", [6, 7]),
    ],
)
def test_what_is_said_of_the_rest_after_a_missing_parameter(name: str, lines: list[int]) -> None:
    said = [one for one in _parse(name).diagnostics if one.severity is not Severity.NOTE]
    assert [one.position.line for one in said] == lines
    assert distinct([one.message for one in said]) == recorded()[name].messages


@pytest.mark.parametrize("name", ["vrrp-track-weights.conf", "vrrp-script-untracked.conf"])
def test_nothing_more_is_wrong(name: str) -> None:
    said = [one.message for one in _parse(name).diagnostics if one.severity is not Severity.NOTE]
    assert distinct(said) == recorded()[name].messages


def test_every_file_has_a_verdict() -> None:
    assert recorded().keys() == {path.name for path in corpus()}
    assert len(recorded()) >= 150


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.stem)
def test_whatever_is_wrong_has_a_place(path: Path) -> None:
    for diagnostic in _parse(path.name).diagnostics:
        whole = ("There are", "Non-existent interface", "SECURITY VIOLATION")
        if diagnostic.severity is not Severity.NOTE and not diagnostic.message.startswith(whole):
            assert diagnostic.position.file and diagnostic.position.line, diagnostic
