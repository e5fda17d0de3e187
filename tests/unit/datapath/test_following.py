# SPDX-License-Identifier: GPL-2.0-only
"""What there is to do about interfaces that have come, gone or changed, from what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.datapath import intent
from xlvs.datapath.attach import unfit
from xlvs.datapath.following import plan
from xlvs.datapath.intent import Intent
from xlvs.datapath.modes import AUTO, CHOICES, TC, XDP, XDP_GENERIC
from xlvs.kernel.rtnetlink import Link

pytestmark = pytest.mark.unit

_UP = 1
_ETHERNET = 1


def interface(index: int, name: str = "", kind: str = "", *, up: bool = True, **fields: int) -> Link:
    link = Link(index, _UP if up else 0, _ETHERNET)
    link.name, link.kind = name or f"eth{index}", kind
    for field, value in fields.items():
        setattr(link, field, value)
    return link


def due(links: list[Link], modes: dict[int, str], wanted: Intent) -> list[tuple[str, str]]:
    """What is to be done, as names with modes; `detach` for those to be let go."""
    made = plan(links, modes, wanted)
    return [(link.name, "detach") for link, _ in made.detach] + [
        (link.name, mode) for link, mode in made.attach
    ]


def test_one_that_was_named_is_wanted_down_as_well() -> None:
    wanted = Intent(named={"eth1": XDP_GENERIC})
    for up in (True, False):
        assert due([interface(1, up=up), interface(2)], {}, wanted) == [("eth1", XDP_GENERIC)]
    assert due([interface(1)], {1: XDP_GENERIC}, wanted) == []


def test_of_all_those_that_are_up() -> None:
    wanted = Intent(every=TC, detached=frozenset({"eth3"}))
    links = [interface(1), interface(2, up=False), interface(3), interface(4)]
    assert due(links, {4: TC}, wanted) == [("eth1", TC)]
    # One that goes down keeps what it has, and one that was renamed.
    assert due([interface(2, up=False), interface(5, "renamed")], {2: TC, 5: TC}, Intent()) == []


@pytest.mark.parametrize("kind", ["bridge", "bond"])
def test_ports_are_let_go_before_masters_are_taken(kind: str) -> None:
    wanted = Intent(every=AUTO)
    master = interface(1, "master0", kind)
    port = interface(2, master=1)
    assert due([master, port], {2: XDP}, wanted) == [
        ("eth2", "detach"),
        ("master0", XDP if kind == "bond" else TC),
    ]
    assert due([interface(2)], {}, wanted) == [("eth2", XDP)]


def test_native_xdp_waits() -> None:
    """A bond that has it takes no port whose driver has none, or that has a program itself."""
    wanted = Intent(named={"bond0": XDP, "eth2": XDP})
    bond = interface(1, "bond0", "bond")
    assert due([bond], {}, wanted) == [("bond0", TC)]
    assert due([bond], {1: TC}, wanted) == []
    assert due([bond, interface(3, master=1)], {1: TC}, wanted) == [("bond0", XDP)]
    assert due([interface(2, up=False)], {}, wanted) == [("eth2", TC)]
    assert due([interface(2)], {2: TC}, wanted) == [("eth2", XDP)]
    assert due([interface(2, up=False)], {2: XDP}, wanted) == []


def test_xdp_ends_where_a_vlan_begins() -> None:
    wanted = Intent(every=XDP_GENERIC)
    links = [interface(1), interface(2, "eth1.5", "vlan", lower=1)]
    assert due(links, {1: XDP_GENERIC}, wanted) == [("eth1", TC), ("eth1.5", XDP_GENERIC)]
    assert due(links, {1: TC, 2: XDP_GENERIC}, wanted) == []


_links = st.lists(
    st.builds(
        lambda up, master, kind, lower: (up, master, kind, lower),
        st.booleans(), st.integers(0, 5), st.sampled_from(["", "bond", "bridge", "veth", "vlan"]),
        st.integers(1, 5),
    ),
    min_size=1, max_size=5,
)  # fmt: skip
_names = st.sampled_from([f"eth{number}" for number in range(1, 6)])
_modes = st.sampled_from(CHOICES)


@given(
    _links,
    st.dictionaries(st.integers(1, 5), st.sampled_from((TC, XDP, XDP_GENERIC))),
    st.builds(Intent, st.just("") | _modes, st.dictionaries(_names, _modes), st.frozensets(_names)),
)
def test_done_once_there_is_nothing_to_do(
    shapes: list[tuple[bool, int, str, int]], modes: dict[int, str], wanted: Intent
) -> None:
    links = [
        interface(
            index, kind=kind, up=up, master=0 if master == index else master, lower=lower * (kind == "vlan")
        )
        for index, (up, master, kind, lower) in enumerate(shapes, start=1)
    ]
    made = plan(links, modes, wanted)
    after = {
        index: mode for index, mode in modes.items() if index not in {link.index for link, _ in made.detach}
    }
    after.update({link.index: mode for link, mode in made.attach})
    again = plan(links, after, wanted)
    assert not again.attach and not again.detach
    for link in links:
        mode = after.get(link.index, "")
        if unfit(link, links):
            assert not mode
        elif link.name in wanted.detached:
            assert mode == modes.get(link.index, "")
        elif link.name in wanted.named or (wanted.every and link.up):
            assert mode


def test_intent_is_kept_by_name(tmp_path: Path) -> None:
    """The folder stands in for one on a bpffs, which takes no dots in names."""
    folder = str(tmp_path)
    assert (intent.read(folder).every, intent.read(folder).named) == ("", {})
    intent.want(folder, "eth0.5", XDP)
    intent.want(folder, "eth1", TC)
    assert intent.read(folder).named == {"eth0.5": XDP, "eth1": TC}
    assert not [path for path in tmp_path.rglob("*") if "." in path.name]
    intent.leave(folder, "eth0.5")
    found = intent.read(folder)
    assert found.named == {"eth1": TC} and found.detached == {"eth0.5"}
    intent.want_every(folder, None)
    intent.leave(folder, "eth2")
    intent.want_every(folder, None, again=True)
    assert intent.read(folder).detached == {"eth2"}
    assert intent.read(folder).named == {"eth1": TC}
    intent.want_every(folder, AUTO)
    found = intent.read(folder)
    assert (found.every, found.named, found.detached) == (AUTO, {"eth1": AUTO}, frozenset())
    intent.note_refused(folder, "eth1", "because of this: " + "x" * 5000)
    assert intent.read(folder).refused["eth1"].startswith("because of this: x")
    intent.note_refused(folder, "eth1", "")
    assert intent.read(folder).refused == {}
