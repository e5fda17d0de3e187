# SPDX-License-Identifier: GPL-2.0-only
"""A lab's record: written, read back, and not believed when it is damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.errors import NotPermitted, UsageError, XlvsError
from xlvs.lab import state
from xlvs.lab.addresses import BEHIND_ROUTER, TWO_NETWORKS, Request, choose
from xlvs.lab.state import Record


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "ROOT", tmp_path / "lab")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("XLVS_LAB", raising=False)
    return tmp_path / "lab"


def record(name: str, topology: str = "dr") -> Record:
    return Record(name, topology, choose(Request(router=True)), bare=True, ipv6=True)


def test_record_comes_back_as_it_was(root: Path) -> None:
    saved = record("one").save(state.READY)
    assert state.load("one") == saved
    assert saved.same_lab(record("one"))
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root / "one").stat().st_mode & 0o777 == 0o700


def test_record_of_two_networks_comes_back_as_it_was(root: Path) -> None:
    saved = Record("two", "nat", choose(Request(), TWO_NETWORKS), bare=False, ipv6=True).save(state.READY)
    assert state.load("two") == saved
    assert root.is_dir()


def test_record_of_tunnels_comes_back_as_it_was(root: Path) -> None:
    addresses = choose(Request(gue_ports=(6080, 5555)), BEHIND_ROUTER)
    saved = Record("three", "tun", addresses, bare=False, ipv6=True).save(state.READY)
    assert state.load("three") == saved
    assert root.is_dir()


def test_record_keeps_the_mode(root: Path) -> None:
    saved = replace(record("one"), bare=False, mode="xdp").save(state.READY)
    assert state.load("one") == saved
    assert not saved.same_lab(replace(saved, mode="tc"))
    text = (root / "one/record.json").read_text()
    assert state.parse_record(text.replace('"xdp"', '"warp"')) is None
    before_modes = text.replace(' "mode": "xdp",\n', "")
    assert before_modes != text and state.parse_record(before_modes) == replace(saved, mode="")


@pytest.mark.parametrize(
    "text", ["", "garbage", "[]", "{}", '{"version": 99}', '{"version": 1, "addresses": {}}']
)
def test_damaged_record_is_no_record(root: Path, text: str) -> None:
    record("one").save(state.READY)
    (root / "one/record.json").write_text(text)
    assert state.load("one") is None
    with pytest.raises(UsageError, match="cannot be read"):
        state.find("one")


def test_lab_that_must_be_meant(root: Path) -> None:
    with pytest.raises(UsageError, match="no lab"):
        state.find(None)
    record("one").save(state.READY)
    assert state.find(None).name == "one"
    record("two").save(state.READY)
    with pytest.raises(UsageError, match="one two"):
        state.find(None)
    record("dr").save(state.READY)
    assert state.find(None).name == "dr", "the one that was made without a name"
    assert root.is_dir()


def test_within_a_lab_that_lab_is_meant(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        record(name).save(state.READY)
    monkeypatch.setenv("XLVS_LAB", "two")
    assert state.find(None).name == "two"
    assert state.find("one").name == "one"
    assert root.is_dir()


def test_lock_keeps_a_second_command_out_and_leaves_no_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_LOCK_PATIENCE", 0.1)
    with state.lock("one"):
        with pytest.raises(XlvsError, match="another command"), state.lock("one"):
            pass
        with state.lock("two"):
            pass
    assert not list(root.parent.glob("*.lock"))


@given(st.text(max_size=40))
def test_names_are_safe_as_paths_and_namespace_names(name: str) -> None:
    try:
        state.check_name(name)
    except UsageError:
        return
    assert name.isascii() and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 1 <= len(name) <= 32 and name[0] != "-" != name[-1]


def test_only_root_may_handle_labs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotPermitted, match="root"):
        state.names()
    with pytest.raises(NotPermitted, match="root"), state.lock("one"):
        pass
    assert not root.exists()
