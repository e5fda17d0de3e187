# SPDX-License-Identifier: GPL-2.0-only
"""Which XDP mode an interface gets, and what is said where it cannot have the best one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.packet.director import Director
from tests.packet.spaces import ip
from xlvs.datapath.attach import Attacher
from xlvs.datapath.hooks import CLSACT, TCX
from xlvs.datapath.modes import AUTO, TC, XDP, XDP_GENERIC
from xlvs.datapath.xdp import best_mode
from xlvs.errors import Unavailable
from xlvs.kernel import bpf, rtnetlink


@pytest.fixture
def attacher(director: Director, request: pytest.FixtureRequest) -> Iterator[Attacher]:
    """Of a director that has got another interface, ``other``, of the kind asked for."""
    ip(f"link add other type {request.param}")
    ip("link set other up")
    made = Attacher(director.maps.folder)
    link = made.link("other")
    try:
        yield made
    finally:
        made.detach(link.index)
        ip("link del other")


def _as_nic(attacher: Attacher) -> rtnetlink.Link:
    """The interface, taken for one whose frames come from a wire."""
    link = attacher.link("other")
    link.kind = ""
    return link


def test_the_kind_of_interface_decides() -> None:
    link = rtnetlink.Link(7, 0, 1)
    for kind, mode in (("", XDP), ("bond", XDP), ("veth", TC), ("tun", TC), ("bridge", TC)):
        link.kind = kind
        assert best_mode(link)[0] == mode


@pytest.mark.parametrize("attacher", ["bridge"], indirect=True)
def test_a_driver_without_xdp(attacher: Attacher) -> None:
    link = _as_nic(attacher)
    assert attacher.attach(link, AUTO) in (TCX, CLSACT)
    assert "its driver has no XDP" in attacher.reasons["other"]
    assert attacher.mode(link.index) == TC
    # Asked for by name, it is refused, and what was there stays.
    attacher.attach(link, XDP_GENERIC)
    with pytest.raises(Unavailable, match="its driver has no XDP"):
        attacher.attach(link, XDP)
    assert attacher.mode(link.index) == XDP_GENERIC


@pytest.mark.parametrize("attacher", ["veth peer name further"], indirect=True)
def test_a_driver_with_xdp(attacher: Attacher) -> None:
    link = _as_nic(attacher)
    for _ in range(2):
        assert attacher.attach(link, AUTO) == XDP
        assert "wire" in attacher.reasons["other"]
        assert attacher.mode(link.index) == XDP
    assert [each.name for each in rtnetlink.links() if each.xdp] == ["other"]
    assert list(attacher.lacking()) == []  # it is taken for a NIC
    assert "further has no XDP program" in Attacher(attacher.folder).lacking()["other"]
    attacher.attach(link, TC)
    assert attacher.mode(link.index) == TC
    assert Attacher(attacher.folder).lacking() == {}


@pytest.mark.parametrize("attacher", ["veth peer name further"], indirect=True)
def test_anothers_program_stays(attacher: Attacher) -> None:
    link = _as_nic(attacher)
    program = bpf.open_pin(f"{attacher.folder}/xlvs_xdp")
    strangers = bpf.create_link(program, socket.if_nametoindex("other"), bpf.XDP, bpf.XDP_FLAGS_DRV_MODE)
    try:
        assert attacher.attach(link, AUTO) in (TCX, CLSACT)
        assert "another XDP program is there" in attacher.reasons["other"]
        assert bpf.link_interface(strangers)[1] == link.index
    finally:
        os.close(strangers)
        os.close(program)


@pytest.mark.parametrize("attacher", ["veth peer name further"], indirect=True)
def test_packets_too_long_for_the_driver(attacher: Attacher) -> None:
    """A frame is one page; what the peer may send has to fit."""
    ip("link set further mtu 9000")
    link = _as_nic(attacher)
    assert attacher.attach(link, AUTO) in (TCX, CLSACT)
    assert "MTU" in attacher.reasons["other"]
