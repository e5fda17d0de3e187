# SPDX-License-Identifier: GPL-2.0-only
"""The packet path is replaced under a table that lives on: by all of it, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.packet import children
from tests.packet.director import DROPPED, SENT, Director, new_director, real_server, real_server_mac
from tests.packet.packets import ACK, UDP
from tests.packet.wire import Wire, on_wire
from xlvs.datapath import attach, hooks, load, upgrade
from xlvs.datapath.attach import TC, XDP_GENERIC, Attacher
from xlvs.datapath.hooks import CLSACT, TCX
from xlvs.datapath.records import ticks_now
from xlvs.errors import Unavailable, Unusable
from xlvs.kernel import abi, bpf, libbpf
from xlvs.model import ServiceKey

PROJECT = Path(__file__).resolve().parents[2]
MARK_OF_THE_NEW = 0xABAD
KINDS = (TCX, CLSACT, XDP_GENERIC)
WHERE = tuple(module.__file__ for module in (upgrade, attach, hooks))


def _variant(folder: Path, file: str, old: str, new: str) -> str:
    """The packet path compiled with one change."""
    shutil.copytree(PROJECT / "bpf", folder / "bpf")
    source = folder / "bpf" / file
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    result = folder / "variant.bpf.o"
    subprocess.run([PROJECT / "scripts/compile-bpf", folder / "bpf/director.bpf.c", result], check=True)
    return str(result)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version that drops what has a certain mark, to be told from the present one by."""
    return _variant(
        tmp_path_factory.mktemp("newer"), "director.bpf.c",
        "\tif (skb->pkt_type != PACKET_HOST ||",
        f"\tif (skb->mark == {MARK_OF_THE_NEW})\n\t\treturn TC_ACT_SHOT;\n"
        "\tif (skb->pkt_type != PACKET_HOST ||",
    )  # fmt: skip


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version with a longer record, whose author forgot to raise ABI_VERSION."""
    return _variant(
        tmp_path_factory.mktemp("wider"), "abi.h", "\t__u16 known;\n};", "\t__u16 known;\n\t__u64 more;\n};"
    )


@contextmanager
def _attached(kind: str) -> Iterator[Director]:
    """A director attached that way, whatever else this kernel could do."""
    with pytest.MonkeyPatch.context() as patched:
        if kind == CLSACT:
            make = bpf.create_link

            def without_tcx(program: int, ifindex: int, attach_type: int, flags: int = 0) -> int:
                if attach_type in (bpf.TCX_INGRESS, bpf.TCX_EGRESS):
                    raise OSError(errno.EINVAL, "a kernel before 6.6 would say so")
                return make(program, ifindex, attach_type, flags)

            patched.setattr(bpf, "create_link", without_tcx)
        with new_director(mode=XDP_GENERIC if kind == XDP_GENERIC else TC) as made:
            hooks_taken = {found.hook for found in Attacher(made.maps.folder).attachments()}
            assert kind in hooks_taken
            yield made


def _programs(director: Director) -> set[int]:
    """The kernel's numbers of the programs that are attached."""
    attacher = Attacher(director.maps.folder)
    own = attacher.loopback()
    return {found.program for found in attacher.attachments()} | ({own.program} if own else set())


def _is_in_the_kernel(program: int) -> bool:
    asked = ["bpftool", "prog", "show", "id", str(program)]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _pinned(director: Director) -> dict[str, int]:
    numbers = {}
    for name in load.PROGRAMS:
        descriptor = bpf.open_pin(f"{director.maps.folder}/{name}")
        numbers[name] = bpf.program_id(descriptor)
        os.close(descriptor)
    return numbers


def _check_serves(director: Director, wire: Wire, key: ServiceKey, port: int) -> None:
    """A connection's packet that comes in by the wire leaves for its real server."""
    wire.send(director.segment(key, port, ACK, b"more"))
    assert wire.receive(real_server_mac(1)) is not None


def _check_sweeps(director: Director, key: ServiceKey) -> None:
    """A connection whose time is over goes by itself: the sweeper runs."""
    port = director.open(key)
    before = director.maps.events()["expired"]
    for place, slot in director.slots(abi.PHASE_LIVE):
        if (slot.client_port, slot.virtual_port) == (port, key.port):
            director.slot_record(place).expires = (ticks_now() - 2) & 0xFFFFFFFF
    director.wait_until(lambda: director.maps.events()["expired"] > before, 5, "nothing expires")


@pytest.mark.parametrize("kind", KINDS)
def test_everything_runs_the_new_programs_and_the_table_lives_on(
    kind: str, newer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _attached(kind) as director:
        key = director.service(1)
        ports = [director.open(key, ACK) for _ in range(500)]
        marked = director.segment(key, ports[0], ACK)
        before, old = director.snapshot(), _programs(director) | set(_pinned(director).values())
        monkeypatch.setattr(upgrade, "OBJECT", newer)
        director.maps.settings.program_version[:5] = list(b"older")
        assert upgrade.upgrade(director.maps.folder) == "older"
        assert load.program_version(director.maps.settings) != "older"
        assert director.snapshot() == before
        assert not _programs(director) & old
        assert _programs(director) <= set(_pinned(director).values())
        assert not upgrade.is_unfinished(director.maps.folder)
        director.reopen()
        assert director.tc(marked, mark=MARK_OF_THE_NEW)[0] == DROPPED
        assert director.tc(marked)[0] == SENT
        with on_wire(director) as wire:
            for port in ports[:3]:
                _check_serves(director, wire, key, port)
        _check_sweeps(director, key)
        director.wait_until(
            lambda: not any(map(_is_in_the_kernel, old)), 10, "something keeps old programs, and runs them"
        )
        assert len(ports) == director.entry(key, real_server(1)).active


def test_only_checking_changes_nothing(director: Director) -> None:
    before = _programs(director), _pinned(director), director.snapshot()
    upgrade.upgrade(director.maps.folder, only_check=True)
    assert (_programs(director), _pinned(director), director.snapshot()) == before


def test_another_layout_is_refused_before_anything_is_touched(
    wider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _attached(TCX) as director, on_wire(director) as wire:
        key = director.service(1)
        port = director.open(key, ACK)
        before = _programs(director), _pinned(director), director.snapshot()
        monkeypatch.setattr(upgrade, "OBJECT", wider)
        with pytest.raises(Unusable, match=r"map interfaces .* size 32768, not 65536\n(.|\n)*xlvsadm -Sn"):
            upgrade.upgrade(director.maps.folder)
        settings = director.maps.settings
        settings.abi_version += 1
        try:
            with pytest.raises(Unusable, match=r"layout(.|\n)*xlvsadm -Sn"):
                upgrade.upgrade(director.maps.folder)
        finally:
            settings.abi_version -= 1
        assert (_programs(director), _pinned(director), director.snapshot()) == before
        assert not upgrade.is_unfinished(director.maps.folder)
        _check_serves(director, wire, key, port)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange_that_fails_is_taken_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is: no interface is left with another version than the others."""
    with (
        _attached(kind) as director,
        on_wire(director) as wire,
        upgrade.load_beside(director.maps) as loaded,
    ):
        key = director.service(1)
        port = director.open(key, ACK)
        before = _programs(director), _pinned(director)
        for failing in range(1, 20):
            left = failing

            def fail_at_one(exchange: Callable[..., None]) -> Callable[..., None]:
                def fail(*words: object) -> None:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        raise OSError(errno.ENOMEM, "Cannot allocate memory")
                    exchange(*words)

                return fail

            with monkeypatch.context() as patched:
                patched.setattr(bpf, "update_link", fail_at_one(bpf.update_link))
                patched.setattr(libbpf, "replace_clsact", fail_at_one(libbpf.replace_clsact))
                patched.setattr(upgrade, "start_timer", fail_at_one(load.start_timer))
                try:
                    upgrade.replace(director.maps, loaded)
                    break
                except Unavailable as error:
                    said = error.message
            assert "which goes on: Cannot allocate memory" in said
            assert (_programs(director), _pinned(director)) == before
            assert not upgrade.is_unfinished(director.maps.folder)
            _check_serves(director, wire, key, port)
        assert failing > 6, "two interfaces and lo have two programs each, and there is the timer"
        _check_serves(director, wire, key, port)


class Death(BaseException):
    """Ends an upgrade at once; only what would be closed anyway is done on its way out."""


def _dies_at(line: int, director: Director, loaded: libbpf.BpfObject) -> bool:
    """Upgrade, and die at the n-th line that its code executes; False past the last."""
    left = line

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in WHERE:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Death
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        upgrade.replace(director.maps, loaded)
    except Death:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_death_at_every_line(kind: str) -> None:
    """Packets are served, connections expire, nothing is detached; the next upgrade does it all."""
    with (
        _attached(kind) as director,
        on_wire(director) as wire,
        upgrade.load_beside(director.maps) as loaded,
    ):
        key, other = director.service(1), director.service(1, protocol=UDP)
        port = director.open(key, ACK)
        line, count = 1, len(Attacher(director.maps.folder).attachments())
        while _dies_at(line, director, loaded):
            _check_serves(director, wire, key, port)
            assert len(Attacher(director.maps.folder).attachments()) == count
            if line % 64 == 0:
                _check_sweeps(director, other)
            if line % 4 == 0:
                upgrade.replace(director.maps, loaded)
                assert not upgrade.is_unfinished(director.maps.folder)
            line += 1
        assert line > 100
        _check_sweeps(director, other)
        assert _programs(director) <= set(_pinned(director).values())
        assert director.connection(key, port) is not None


def test_new_connections_while_it_is_upgraded_again_and_again() -> None:
    """Two processors: one sends, the other upgrades; each packet arrives, and begins its connection."""
    count = 5000
    with _attached(TCX) as director:
        key = director.service(1, 1, protocol=UDP)
        frames = [director.segment(key, 1024 + number, 0) for number in range(count)]
        upgrading = children.start(lambda: _upgrade_for_ever(director), cpu=0)
        try:
            with on_wire(director) as wire:
                for frame in frames:
                    wire.send(frame)
                director.wait_until(
                    lambda: director.listing(key).stats.connections == count,
                    10,
                    "a packet was lost",
                )
        finally:
            os.kill(upgrading, signal.SIGKILL)
            assert children.status_of(upgrading) == -signal.SIGKILL
        upgrade.upgrade(director.maps.folder)
        assert sum(1 for _ in director.slots(abi.PHASE_LIVE)) == count
        _check_sweeps(director, key)


def _upgrade_for_ever(director: Director) -> None:
    with upgrade.load_beside(director.maps) as loaded:
        while True:
            upgrade.replace(director.maps, loaded)
