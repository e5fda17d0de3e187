# SPDX-License-Identifier: GPL-2.0-only
"""Sites for the tests of this folder, in both modes where that matters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.promises.site import Site, remove_leftovers
from xlvs.datapath.attach import MODES, XDP_GENERIC


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers() -> None:
    remove_leftovers()


@pytest.fixture
def site() -> Iterator[Site]:
    """A client, a director that holds the VIPs, and two real servers; nothing is loaded."""
    with Site() as built:
        yield built


def _loaded(mode: str) -> Iterator[Site]:
    with Site() as built:
        built.director.xlvs(f"attach --mode {mode}")
        if mode == XDP_GENERIC:
            assert '"xdp-generic"' in built.director.xlvs("status --json")
        yield built


@pytest.fixture(params=MODES)
def loaded_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The same with the data plane attached, once in each mode."""
    yield from _loaded(request.param)


@pytest.fixture(scope="module", params=MODES)
def _standing_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    yield from _loaded(request.param)


@pytest.fixture
def shared_site(_standing_site: Site) -> Iterator[Site]:
    """One such site for all those tests of a module that change nothing but its table."""
    yield _standing_site
    _standing_site.director.xlvsadm("-C")
