# SPDX-License-Identifier: GPL-2.0-only
"""What keeps the daemon from beginning is said in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlvs.cli.xlvsd import _or_say_why
from xlvs.daemon import main
from xlvs.errors import XlvsError
from xlvs.keepalived.configuration import Configuration


def test_a_pid_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "run_folder", lambda: str(tmp_path / "xlvsd/1"))
    options = main.Options(Configuration, pid_file=f"{tmp_path}/none/pid")
    with pytest.raises(XlvsError, match=r"cannot write the pid file .*/none/pid: No such file"):
        main.run(options)


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(main, "run_folder", lambda: str(tmp_path / "file/xlvsd/1"))
    with pytest.raises(XlvsError, match=r"cannot make the folder .*: Not a directory"):
        main.run(main.Options(Configuration))


def test_whatever_the_system_refuses_is_said(tmp_path: Path) -> None:
    def fail() -> int:
        (tmp_path / "none").read_text()
        return 0

    with pytest.raises(XlvsError, match=r"xlvsd cannot go on: .*none: No such file"):
        _or_say_why(fail)
