# SPDX-License-Identifier: GPL-2.0-only
"""Running what findings say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xlvs.doctor.mending import run_here


def test_commands_beside_this_program_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who typed .venv/bin/xlvs has no xlvsadm in PATH; one that is in PATH comes first."""
    beside, installed = tmp_path / "beside", tmp_path / "installed"
    for folder in (beside, installed):
        folder.mkdir()
        (folder / "xlvsadm").write_text(f"#!/bin/sh\necho {folder.name} >&2\n")
        (folder / "xlvsadm").chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(beside / "xlvs"), "doctor", "--fix"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run_here("", "xlvsadm") == (0, "beside")
    monkeypatch.setenv("PATH", f"{installed}:/usr/bin:/bin")
    assert run_here("", "xlvsadm") == (0, "installed")
