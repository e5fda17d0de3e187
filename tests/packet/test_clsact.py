# SPDX-License-Identifier: GPL-2.0-only
"""Attaching by clsact, as kernels before 6.6 have to, where others have filters of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.packet.director import Director, new_director, real_server_mac
from tests.packet.packets import SYN
from tests.packet.wire import on_wire
from xlvs.datapath.attach import Attacher
from xlvs.datapath.hooks import CLSACT, TcHook
from xlvs.datapath.modes import TC
from xlvs.errors import Unavailable


@pytest.fixture
def director(monkeypatch: pytest.MonkeyPatch) -> Iterator[Director]:
    """A director whose kernel does not know tcx, not attached yet."""
    monkeypatch.setattr(TcHook, "_attach_tcx", lambda *_arguments: "")
    with new_director() as made:
        yield made


def _tc(command: str) -> str:
    ran = subprocess.run(["tc", *command.split()], check=True, capture_output=True, text=True)
    return ran.stdout


def test_behind_filters_that_tc_has_placed(director: Director) -> None:
    """A filter without a `pref` stands at 49152, where one of another kind cannot stand beside it."""
    _tc("qdisc add dev eth0 clsact")
    _tc("filter add dev eth0 ingress protocol ip u32 match u32 1 0xffffffff flowid :1")
    before = _tc("filter show dev eth0 ingress")
    attacher = Attacher(director.maps.folder)
    assert attacher.attach(attacher.link("eth0"), TC) == CLSACT
    key = director.service(1)
    with on_wire(director) as wire:
        wire.send(director.segment(key, director.unused_port(), SYN))
        assert wire.receive(real_server_mac(1)) is not None
    attacher.detach(director.ifindex)
    assert _tc("filter show dev eth0 ingress") == before


def test_a_qdisc_for_one_direction(director: Director) -> None:
    """What is attached to the other direction of `ingress` would run for what comes in."""
    _tc("qdisc add dev eth0 ingress")
    attacher = Attacher(director.maps.folder)
    with pytest.raises(Unavailable) as refused:
        attacher.attach(attacher.link("eth0"), TC)
    assert "its qdisc is ingress" in refused.value.message
    assert "tc qdisc add dev eth0 clsact" in refused.value.hint
    assert _tc("filter show dev eth0 ingress") == ""
    assert not attacher.is_attached(director.ifindex)
    _tc("qdisc del dev eth0 ingress")
    _tc("qdisc add dev eth0 clsact")
    assert attacher.attach(attacher.link("eth0"), TC) == CLSACT
