# SPDX-License-Identifier: GPL-2.0-only
"""Frames mutated, and cut off at every length: none leaves malformed, goes astray, or stays in the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.packet.director import CLIENT, CLIENT_MAC, INTERFACE_MAC, SENT, new_director, real_server_mac
from tests.packet.mutations import (
    CAPACITY,
    REGRESSIONS,
    Ground,
    faults,
    has_right_checksum,
    has_right_header,
    leaks,
    read,
)
from tests.packet.packets import ETHERNET_SIZE, SYN, ethernet, icmp, ipv4, packed, udp, with_checksum
from tests.packet.wire import on_wire
from xlvs.datapath.attach import TC
from xlvs.datapath.records import ticks_now
from xlvs.model import MASQUERADE

COUNT = 60_000
SEED = 20
HEADERS = ETHERNET_SIZE + 120
"""What the packet path looks at lies before this, in all seeds but those with a quoted packet."""


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with new_director(CAPACITY) as director:
        yield Ground(director)
        assert not director.events()["table_full"]


def test_cut_off_at_every_length(ground: Ground) -> None:
    wrong = []
    for seed in ground.seeds:
        for length in range(min(len(seed), HEADERS)):
            complaint = ground.judge.tc(seed[:length]) or ground.judge.xdp(seed[:length])
            if complaint:
                wrong.append((complaint, seed[:length].hex()))
    assert not wrong


def test_mutated(ground: Ground) -> None:
    """Some of each kind of verdict, so that the judge had something to look at; and no fault."""
    found = [(complaint, frame.hex()) for complaint, frame in faults(ground, SEED, COUNT)]
    assert not found, f"seed {SEED}: put what is mended into {REGRESSIONS}"
    for verdict in ("passed on", "sent", "sent by XDP", "dropped", "answered by an ICMP error"):
        assert ground.judge.verdicts[verdict]
    assert ground.judge.verdicts["sent"] > COUNT // 10


def test_what_was_wrong_once(ground: Ground) -> None:
    cases = 0
    for line in (REGRESSIONS / "frames.txt").read_text().splitlines():
        if not line.startswith("#"):
            told, _, frame = line.rpartition(": ")
            complaint = ground.judge.tc(bytes.fromhex(frame)) or ground.judge.xdp(bytes.fromhex(frame))
            assert not complaint, f"{frame}, once: {told}"
            cases += 1
    assert cases


def test_nothing_of_them_stays(ground: Ground) -> None:
    """The last one: what the others have entered into the table goes, and is counted to nothing."""
    assert ground.server_of
    assert not leaks(ground)


def test_the_judge_finds_fault(ground: Ground) -> None:
    """Guards the tests above: a frame that is changed where it must not be is told."""
    judge = ground.judge
    plane = next(each for each in ground.planes if each.method == MASQUERADE)
    frame = ground.director.frame(plane.packet(0, SYN, b"guarded"))
    verdict, after = ground.director.tc(frame)
    assert verdict == SENT
    assert not judge._sent(frame, after)
    complaints = set()
    for place in range(12, len(after)):
        changed = after[:place] + bytes([after[place] ^ 0x41]) + after[place + 1 :]
        complaints.add(judge._sent(frame, changed))
    assert "" not in complaints
    assert {"leaves with a wrong header checksum", "leaves with wrong lengths"} <= complaints
    header = read(frame)
    assert header is not None
    assert has_right_checksum(frame, header)


def test_mutated_on_the_wire() -> None:
    """What a device is given passes more of the kernel: frames leave by it whole, to the right MAC."""
    with new_director(CAPACITY, mode=TC) as director, on_wire(director) as wire:
        key = director.service(1, 1, 1, protocol=17)
        good = [
            ethernet(
                with_checksum(ipv4(CLIENT, key.address, 17, udp(50_000 + n, key.port, b"datagram"))),
                0x0800, INTERFACE_MAC, CLIENT_MAC,
            )
            for n in range(30)
        ]  # fmt: skip
        macs = {}
        for number, frame in enumerate(good):
            wire.send(frame)
            came = wire.receive_any({real_server_mac(server) for server in range(1, 4)})
            assert came is not None
            macs[number] = came[:6]
        assert len(set(macs.values())) == 3
        bad = 0
        for number, frame in enumerate(good):
            for place in range(ETHERNET_SIZE, ETHERNET_SIZE + 20):
                wire.send(frame[:place] + bytes([frame[place] ^ (1 << number % 8)]) + frame[place + 1 :])
                bad += 1
            for length in range(ETHERNET_SIZE, ETHERNET_SIZE + 28):
                wire.send(frame[:length])
                bad += 1
            quoted = frame[ETHERNET_SIZE : ETHERNET_SIZE + number]
            wire.send(director.frame(icmp(packed("10.0.0.250"), key.address, 3, 4, 9, quoted)))
            wire.send(frame)
            assert wire.receive(macs[number]) is not None, "the good one between the bad ones"
        assert bad > 1000
        assert director.listing(key).stats.in_packets == 2 * len(good)
        assert director.listing(key).stats.connections == len(good)


def test_cut_off_at_every_length_on_the_wire() -> None:
    """Where frames are shorter than a test run takes; the lengths go round from one seed to the next."""
    stride = 5
    with new_director(CAPACITY, mode=TC) as director, on_wire(director) as wire:
        ground = Ground(director)
        sent = came = 0
        for number, seed in enumerate(ground.seeds):
            for length in range(ETHERNET_SIZE + number % stride, min(len(seed), HEADERS), stride):
                wire.send(seed[:length])
                sent += 1
            wire.send(seed)
            for frame in wire.come():
                header = read(frame)
                if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                    assert header is not None, f"leaves with wrong lengths: {frame.hex()}"
                    assert has_right_header(frame, header), f"leaves with a wrong checksum: {frame.hex()}"
                    came += 1
        key = director.service(1)
        good = director.segment(key, director.unused_port(), SYN)
        wire.send(good)
        assert wire.receive(real_server_mac(1)) is not None
        assert sent > 4000
        assert 0 < came <= len(ground.seeds), "whole ones leave, and nothing that was cut off"
        assert not leaks(ground)


def test_mutated_in_a_full_table() -> None:
    """Packets without an entry are held to the same, and all of a flow go to one real server."""
    with new_director(CAPACITY) as director:
        director.maps.settings.full_at = ticks_now()
        ground = Ground(director)
        found = []
        for number in range(4):
            director.maps.settings.full_at = ticks_now()
            found += [(complaint, frame.hex()) for complaint, frame in faults(ground, SEED + number, 1000)]
        assert not found
        assert director.events()["stateless"] > 50
        assert not leaks(ground)
