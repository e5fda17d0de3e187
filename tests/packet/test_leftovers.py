# SPDX-License-Identifier: GPL-2.0-only
"""What namespaces leave behind is swept away, and nothing else."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack

import pytest

from tests.packet.spaces import new_namespace
from xlvs.kernel import bpffs, leftovers
from xlvs.kernel.namespaces import gone, network_namespace


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
