# SPDX-License-Identifier: GPL-2.0-only
"""Any words at all after `xlvs`: a clear message, an exit code, and nothing changed by a refusal.

The commands run in this process, in a network namespace of their own: hundreds
of them, where starting each would take most of the time.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.netns.promises.site import Site
from xlvs.cli import main

_NOUNS = ("attach", "detach", "upgrade", "status")
_OPTIONS = (
    "--mode",
    "--json",
    "--connections",
    "--services",
    "--destinations",
    "--",
    "-h",
    "-x",
    "--debug=1",
)
_VALUES = ("tc", "xdp-generic", "native", "eth0", "lo", "tun0", "0", "-1", "1", "64", "9" * 30, "٣", "²", "")
_WORDS = st.one_of(
    st.sampled_from(_OPTIONS),
    st.sampled_from(_VALUES),
    st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12),
)
_LINES = st.tuples(st.sampled_from(_NOUNS), st.lists(_WORDS, max_size=5)).map(
    lambda line: [line[0], *line[1]]
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for all examples: each begins as the one before has left it."""
    with Site(real_servers=0) as built:
        built.director.type("ip tuntap add tun0 mode tun; ip link set tun0 up")
        yield built


def _type(words: list[str]) -> tuple[int, str]:
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main.main(words)
    output.seek(0)
    return code, output.read()


def _kept(site: Site) -> list[str]:
    pins = site.director.pins()
    files = sorted(str(path) for path in pins.rglob("*")) if pins else []
    return [*files, *(site.director.sysctl(f"ipv{version}/conf/lo/forwarding") for version in (4, 6))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_LINES)
def test_any_words_get_a_clear_answer(site: Site, words: list[str]) -> None:
    before = _kept(site)
    with site.director.inside():
        code, said = _type(words)
    assert code in (0, 1, 2, 3), said
    assert said.strip() or words == ["detach"]
    for word in ("Traceback", "Errno", "with --debug"):
        assert word not in said
    if code != 0:
        assert _kept(site) == before, f"{words} was refused and yet changed something"
