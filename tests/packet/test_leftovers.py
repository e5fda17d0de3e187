# SPDX-License-Identifier: GPL-2.0-only
"""What namespaces leave behind is swept away, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.packet.spaces import new_namespace
from xlvs.kernel import bpffs, leftovers, namespaces
from xlvs.kernel.namespaces import gone, live_network_cookies, network_cookie, network_namespace


def _pins() -> str:
    """A folder of pins of a namespace, as it is before anything is attached."""
    folder = bpffs.new_namespace_folder()
    os.makedirs(f"{folder}/links")
    return folder


def test_a_namespace_that_is_made_meanwhile_keeps_its_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command loads in a namespace that a sweep, begun before, does not know."""
    made: list[str] = []
    with ExitStack() as stack:

        def look(cookies: set[str]) -> set[str]:
            dead = gone(cookies)
            with network_namespace(stack.enter_context(new_namespace())):
                made.append(_pins())
            stack.callback(shutil.rmtree, made[0], ignore_errors=True)
            return dead

        with new_namespace() as space, network_namespace(space):
            dead = _pins()
        monkeypatch.setattr(leftovers, "gone", look)
        leftovers.sweep()
        assert not os.path.exists(dead)
        assert os.path.exists(made[0])


@pytest.fixture
def another_namespace() -> Iterator[str]:
    with new_namespace() as space:
        yield space


def _network(process: str) -> int:
    return os.stat(f"/proc/{process}/ns/net").st_ino


def test_who_looks_into_a_namespace_is_not_found_in_it(
    another_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`xlvs lab down` ends every process of the lab's namespaces: a command that sweeps is none of them."""
    looked: list[tuple[int, int]] = []

    def look() -> int:
        looked.append((_network("thread-self"), _network("self")))
        return network_cookie()

    monkeypatch.setattr(namespaces, "network_cookie", look)
    here = _network("self")
    with network_namespace(another_namespace):
        cookie = network_cookie()
    assert cookie in live_network_cookies()
    assert os.stat(another_namespace).st_ino in {visited for visited, _ in looked}
    assert {shown for _, shown in looked} == {here}


@pytest.mark.usefixtures("another_namespace")
def test_a_look_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that may not be entered: nobody can say which ones live."""

    def refused(_descriptor: int, _kind: int) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(namespaces, "set_namespace", refused)
    with pytest.raises(PermissionError):
        live_network_cookies()
