# SPDX-License-Identifier: GPL-2.0-only
"""Preparing what the guest boots: nothing twice, nothing by halves, clear when it fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.guest.kernel import PrepareError, prepare


@pytest.fixture
def broken_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt into PATH that fails, and notes that it was asked; returns its notes."""
    programs = tmp_path / "programs"
    programs.mkdir()
    notes = tmp_path / "notes"
    for name in ("apt-get", "apt-cache"):
        program = programs / name
        program.write_text(f"#!/bin/sh\necho {name} $* >>{notes}\necho E: no such host >&2\nexit 100\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin")
    return notes


def test_prepared_kernel_needs_no_network(broken_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as working:
        working.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        first = prepare()
    assert prepare() == first
    assert not broken_apt.exists()
    assert (first.modules / first.release / "modules.dep").exists()
    assert (first.tools / "sbin/ipvsadm").exists()


def test_failed_download_is_explained_and_leaves_nothing(
    broken_apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XLVS_GUEST_CACHE", str(cache))
    with pytest.raises(PrepareError, match=r"E: no such host\n.*check the network"):
        prepare()
    assert "apt-get -q -o DPkg::Lock::Timeout=300 update" in broken_apt.read_text()
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XLVS_GUEST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PrepareError, match="set XLVS_GUEST_CACHE"):
        prepare()


def test_initramfs_is_a_sound_archive() -> None:
    files = prepare()
    listing = subprocess.run(
        [str(files.tools.parent / "busybox-static/busybox"), "cpio", "-t"],
        input=files.initramfs.read_bytes(),
        capture_output=True,
        check=True,
    )
    names = listing.stdout.decode().splitlines()
    assert {"init", "bin/busybox", "modules/order", "modules/9p.ko", "modules/overlay.ko"} <= set(names)
    # A module comes after those that it needs.
    assert names.index("modules/9pnet.ko") < names.index("modules/9p.ko")
