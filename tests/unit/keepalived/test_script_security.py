# SPDX-License-Identifier: GPL-2.0-only
"""Which scripts may run, and what mends those that may not.  The files belong to whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xlvs.keepalived.origin import Script
from xlvs.keepalived.script_security import Judgement, Standing, explanation, judge

NOBODY = 65534


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script; its own folder is safe, those above it are the system's."""
    path = tmp_path / "check"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def _judge(path: Path | str, uid: int = 0, gid: int = 0) -> Judgement:
    return judge(Script((str(path), "argument"), uid, gid))


def test_a_script_of_the_system_is_safe() -> None:
    judgement = _judge("/bin/true")
    assert judgement.standing is Standing.SAFE
    assert os.path.samefile(judgement.path, "/bin/true")
    assert os.path.basename(judgement.path) == "true"
    assert judgement.may_run(True) and judgement.is_script


def test_a_bare_name_is_looked_for() -> None:
    assert _judge("true").standing is Standing.SAFE
    missing = _judge("no-such-program-at-all")
    assert missing.standing is Standing.NOT_FOUND
    assert not missing.may_run(False) and not missing.is_script


def test_a_missing_script(tmp_path: Path) -> None:
    judgement = _judge(tmp_path / "nothing")
    assert judgement.standing is Standing.NOT_FOUND
    assert "No such file" in explanation(judgement)


def test_a_script_that_nobody_may_execute(script: Path) -> None:
    script.chmod(0o644)
    judgement = _judge(script)
    assert judgement.standing is Standing.NOT_EXECUTABLE
    assert judgement.remedy == f"chmod a+x {script}"
    assert not judgement.may_run(False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root owns files that root may run")
def test_a_script_that_others_can_change(script: Path) -> None:
    script.chmod(0o757)
    judgement = _judge(script)
    assert judgement.standing is Standing.UNSAFE
    assert (judgement.culprit, judgement.mode) == (str(script), "0757")
    assert judgement.owner == "root:root"
    assert judgement.remedy == f"chmod go-w {script}"
    assert judgement.may_run(False) and not judgement.may_run(True)
    assert explanation(judgement).endswith(f"mend it with: chmod go-w {script}")
    os.system(judgement.remedy)
    assert _judge(script).standing is Standing.SAFE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_a_folder_of_another_user_is_named_first(script: Path) -> None:
    os.chown(script.parent, NOBODY, 0)
    judgement = _judge(script)
    assert judgement.standing is Standing.UNSAFE
    assert judgement.culprit == str(script.parent)
    assert judgement.remedy == f"chown root {script.parent}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_what_does_not_run_as_root_may_be_anybodys(script: Path) -> None:
    os.chown(script, NOBODY, NOBODY)
    for folder in script.parents:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    assert _judge(script, NOBODY, NOBODY).standing is Standing.SAFE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root owns files that root may run")
def test_a_link_leads_to_what_is_judged(script: Path) -> None:
    link = script.parent / "link"
    link.symlink_to(script)
    script.chmod(0o777)
    assert _judge(link).standing is Standing.UNSAFE
    script.chmod(0o755)
    assert _judge(link).standing is Standing.SAFE


def test_a_file_to_read_is_not_run() -> None:
    assert judge(Script(("</run/something",))).standing is Standing.NOT_RUN
