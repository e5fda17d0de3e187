# SPDX-License-Identifier: GPL-2.0-only
"""The register of checks, and the page that lists them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from xlvs.doctor.checks import Check, all_checks, judge
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.host import Host

ROOT = Path(__file__).resolve().parents[3]
CHECKS = all_checks()


def test_every_module_is_registered() -> None:
    files = {path.stem for path in (ROOT / "src/xlvs/doctor/checks").glob("[!_]*.py")}
    assert {check.name.replace("-", "_") for check in CHECKS} == files


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.name))
def test_each_says_what_it_is(check: Check) -> None:
    assert check.title.endswith(".") and len(check.title) <= 109 and "\n" not in check.title
    assert len(check.text) > 80
    assert bool(check.scenarios) != bool(check.unseen)
    for scenario in check.scenarios:
        assert scenario.breaks and scenario.restores and scenario.hosts


def test_the_page_lists_them_with_the_same_text() -> None:
    script = ROOT / "scripts/generate_doctor_page.py"
    spec = importlib.util.spec_from_file_location("generate_doctor_page", script)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = (ROOT / "docs/doctor.md").read_text()
    assert written == generator.page(written), "run: make doctor-page"


def test_hosts_without_anything_are_healthy() -> None:
    assert judge(Cluster((Host("one"), Host("two")), whole=True)) == []
    assert judge(Cluster((Host("one"),))) == []
