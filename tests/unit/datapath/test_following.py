# SPDX-License-Identifier: GPL-2.0-only
"""What there is to do about interfaces that have come, gone or changed, from what there is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli.attach import left_out
from xlvs.datapath import fitness, intent
from xlvs.datapath.fitness import unfit
from xlvs.datapath.following import plan
from xlvs.datapath.intent import Intent
from xlvs.datapath.modes import AUTO, CHOICES, TC, XDP, XDP_GENERIC
from xlvs.kernel import rtnetlink
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


def due(
    links: list[Link],
    modes: dict[int, str],
    wanted: Intent,
    bystanders: Collection[int] = (),
    unnamed: Collection[int] = (),
) -> list[tuple[str, str]]:
    """What is to be done, as names with modes; `detach` for those to be let go."""
    made = plan(links, modes, wanted, bystanders, unnamed)
    return [
        *((link.name, "detach") for link, _ in made.detach),
        *((link.name, mode) for link, mode in made.attach),
        *((link.name, "renamed") for link in made.renamed),
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


def test_bystanders_are_none_of_every() -> None:
    links = [interface(1), interface(2), interface(3), interface(4)]
    wanted = Intent(every=TC, named={"eth3": TC, "*4": XDP_GENERIC})
    assert due(links, {}, wanted, bystanders={2, 3, 4}) == [
        ("eth1", TC),
        ("eth3", TC),
        ("eth4", XDP_GENERIC),
    ]
    # One that was attached while it had an address keeps what it has.
    assert due([interface(2)], {2: TC}, wanted, bystanders={2}) == []


def test_a_mode_that_was_refused_is_not_tried_again() -> None:
    wanted = Intent(every=XDP, tried={(1, XDP): "its driver has no XDP"})
    assert due([interface(1), interface(2)], {1: TC, 2: TC}, wanted) == [("eth2", XDP)]
    # It has been a port meanwhile, and was let go.
    assert due([interface(1)], {}, wanted) == [("eth1", TC)]
    # Made anew it is another one.
    assert due([interface(3, "eth1")], {3: TC}, wanted) == [("eth1", XDP)]


def test_a_name_that_is_not_the_last_one() -> None:
    """The kernel's, which somebody else's interface had when the operator named it."""
    wanted = Intent(named={"eth0": XDP})
    assert due([interface(1, "eth0", up=False)], {}, wanted, unnamed={1}) == []
    assert due([interface(1, "eth0", up=False)], {1: TC}, wanted, unnamed={1}) == []
    assert due([interface(1, "eth0", up=False)], {}, wanted) == [("eth0", TC)]


@pytest.mark.parametrize("up", [True, False])
def test_renamed_since_it_came(up: bool) -> None:
    came = {1: "eth0"}
    now = [interface(1, "enp1s0", up=up)]
    assert due(now, {1: TC}, Intent(named={"eth0": TC}, came=came)) == [("enp1s0", "detach")]
    off = Intent(every=TC, detached=frozenset({"enp1s0"}), came=came)
    assert due(now, {1: TC}, off) == [("enp1s0", "detach")]
    named = Intent(named={"eth0": XDP_GENERIC, "enp1s0": TC}, came=came)
    assert due(now, {1: XDP_GENERIC}, named) == [("enp1s0", TC)]
    assert due(now, {1: TC}, named) == [("enp1s0", "renamed")]
    every = Intent(every=TC, came=came)
    assert due(now, {1: TC}, every) == [("enp1s0", "renamed" if up else "detach")]
    # The operator has attached it.
    assert due(now, {1: TC}, Intent(named={"eth0": TC})) == []
    assert due(now, {1: TC}, Intent(named={"eth0": TC}, came={1: "enp1s0"})) == []


def test_who_is_a_bystander(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [
        interface(1),
        interface(2, "dummy0", "dummy"),
        interface(3, "vrf0", "vrf"),
        interface(4, "veth4", "veth", lower_namespace=0),
        interface(5, "eth0", "veth", lower_namespace=0),
        interface(6, "veth6", "veth"),  # both ends are here
        interface(7, "vlan7", "vlan", lower_namespace=0),  # of a container's interface
    ]
    monkeypatch.setattr(rtnetlink, "addressed", lambda: {1, 5})
    monkeypatch.setattr(fitness, "HOSTS_OWN", "/proc/self")
    found = fitness.bystanders(links)
    assert found.keys() == {2, 3, 4}
    assert found[4] == "the other end is a container's, and this one has no address"
    monkeypatch.delattr(rtnetlink, "addressed")
    assert fitness.bystanders(links[:3]).keys() == {2, 3}, "nobody has to be asked"
    monkeypatch.setattr(fitness, "HOSTS_OWN", "/nowhere")  # in a container
    assert fitness.bystanders(links).keys() == {2, 3}


def test_whose_name_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "SYSFS", str(tmp_path))
    for name, index, kind in (("eth1", 1, "1"), ("eth2", 2, "4"), ("eth3", 33, "1"), ("eth4", 4, "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ifindex").write_text(f"{index}\n")
        (tmp_path / name / "name_assign_type").write_text(f"{kind}\n")
    links = [interface(index, up=False) for index in (1, 2, 3, 5)]
    assert fitness.provisional([*links, interface(4), interface(1, "eth1", "veth", up=False)]) == {1}


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


def test_patterns(tmp_path: Path) -> None:
    """A name goes before a pattern, and what is off before what is on."""
    folder = str(tmp_path)
    intent.want(folder, "cali*", TC)
    intent.want(folder, "cali9", XDP)
    intent.leave(folder, "calix?")
    intent.leave(folder, "cali7")
    found = intent.read(folder)
    modes = {name: found.mode_of(name, up=True) for name in ("cali1", "cali7", "cali9", "calix1", "eth0")}
    assert modes == {"cali1": TC, "cali7": "", "cali9": XDP, "calix1": "", "eth0": ""}
    assert found.mode_of("cali1", up=False) == "" and found.mode_of("cali9", up=False) == XDP
    intent.want(folder, "calix1", TC)
    assert intent.read(folder).mode_of("calix1", up=True) == TC
    intent.leave(folder, "cali*")  # and with that all that were named
    found = intent.read(folder)
    assert found.named == {} and found.is_detached("cali9")
    intent.want(folder, "cali*", TC)
    assert intent.read(folder).detached == frozenset()
    assert intent.matches("a[b]*", "a[b]c") and not intent.matches("a[b]*", "abc")


def test_only_these(tmp_path: Path) -> None:
    folder = str(tmp_path)
    intent.want_every(folder, XDP)
    intent.want(folder, "eth1", TC)
    intent.leave(folder, "eth2")
    intent.want_only(folder, {"eth0": XDP_GENERIC, "tap*": TC})
    found = intent.read(folder)
    assert (found.every, found.detached) == ("", frozenset())
    assert found.named == {"eth0": XDP_GENERIC, "tap*": TC}


def test_what_is_noted_of_interfaces(tmp_path: Path) -> None:
    folder = str(tmp_path)
    intent.note_tried(folder, 7, XDP_GENERIC, "because")
    intent.note_tried(folder, 7, XDP, "of this")
    intent.note_came(folder, 7, "eth0")
    intent.note_came(folder, 8, "eth0.5")
    found = intent.read(folder)
    assert found.tried == {(7, XDP_GENERIC): "because", (7, XDP): "of this"}
    assert found.came == {7: "eth0", 8: "eth0.5"}
    assert found.indices() == {7, 8}
    intent.forget_interface(folder, 7)
    found = intent.read(folder)
    assert (found.tried, found.came) == ({}, {8: "eth0.5"})


def test_many_that_are_left_out_are_not_all_named() -> None:
    text = left_out({f"veth{number}": "so" for number in range(100)} | {"dummy0": "it is a dummy"})
    assert text.startswith("Left out, because so (to attach one: xlvs attach NAME):\n  veth0 veth1 ")
    assert "veth7 and 92 more\n" in text and text.endswith("\n  dummy0")
