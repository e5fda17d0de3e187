# SPDX-License-Identifier: GPL-2.0-only
"""The build: quick when nothing has changed, and its launcher does what it is for."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_second_build_does_nothing_quickly() -> None:
    subprocess.run(["make", "build"], cwd=ROOT, check=True, capture_output=True)
    begin = time.monotonic()
    second = subprocess.run(["make", "build"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert time.monotonic() - begin < 1
    assert "==>" not in second.stdout


def test_help_names_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for target in ("build", "demo", "test", "check", "clean"):
        assert f"{target} " in shown


def test_xlvsadm_starts_without_site_packages() -> None:
    first_line = (ROOT / ".venv/bin/xlvsadm").read_text().partition("\n")[0]
    assert first_line.endswith("/.venv/bin/python -IS")


def test_no_registry_is_named() -> None:
    files = [ROOT / name for name in ("Makefile", "pyproject.toml", "hatch_build.py")]
    for file in [*files, *(ROOT / "scripts").iterdir()]:
        if file.is_file():
            assert "://" not in file.read_text(), f"{file} names a host"
