# SPDX-License-Identifier: GPL-2.0-only
"""A packet path that is verified before anybody needs it: taken by who loads it, or given up whole."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.packet.spaces import new_namespace
from xlvs.datapath import load, open_datapath
from xlvs.datapath.activate import deactivate
from xlvs.errors import Unavailable
from xlvs.kernel import bpffs, lock
from xlvs.kernel.namespaces import network_namespace
from xlvs.model import Service, ServiceKey

KEY = ServiceKey(2, 6, bytes((192, 0, 2, 1)), 80)


@pytest.fixture
def _nothing_loaded() -> Iterator[None]:
    with new_namespace() as name, network_namespace(name):
        try:
            yield
        finally:
            load.ahead.drop()
            folder = bpffs.namespace_folder()
            if folder is not None:
                with lock.table_lock(exclusive=True):
                    deactivate(folder)


def _open_objects() -> set[str]:
    """What this process has open of eBPF: maps and programs, not yet pinned ones too."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if "bpf-" in target:
            found.add(f"{name} {target}")
    return found


@pytest.mark.usefixtures("_nothing_loaded")
def test_nothing_is_left_of_what_nobody_takes() -> None:
    before = _open_objects()
    load.ahead.begin()
    load.ahead.drop()
    assert _open_objects() == before
    assert bpffs.namespace_folder() is None
    assert load.ahead.take() is None


@pytest.mark.usefixtures("_nothing_loaded")
def test_who_loads_takes_what_was_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    load.ahead.begin()
    assert bpffs.namespace_folder() is None, "nothing is loaded before somebody changes the table"
    made = load.ahead.take()
    assert made is not None

    def refuse(_: object) -> None:
        raise AssertionError("it is verified already")

    monkeypatch.setattr(load, "_verified", refuse)
    monkeypatch.setattr(load.ahead, "take", lambda: made)
    with open_datapath(write=True, load=True) as datapath:
        datapath.add_service(Service(KEY, "rr"))
    with open_datapath() as datapath:
        assert [row[0].key for row in datapath.table()] == [KEY]


@pytest.mark.usefixtures("_nothing_loaded")
def test_what_was_refused_beforehand_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise Unavailable("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(load, "check_memory", refuse)
        load.ahead.begin()
        assert load.ahead.take() is None
    load.ahead.begin()
    with open_datapath(write=True, load=True) as datapath:
        datapath.add_service(Service(KEY, "rr"))
    assert bpffs.namespace_folder() is not None
