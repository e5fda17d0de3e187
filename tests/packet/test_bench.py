# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark's machinery at work, with tiny counts: figures are there, none is judged."""

from __future__ import annotations

import os
import socket

from bench import walk
from bench.arrivals import by_scheduler, name_of
from bench.footprint import of_maps
from bench.packet import KINDS
from bench.programs import sending_on
from bench.traffic import establish, measurement, new_floored_director
from bench.walk import XDP
from tests.packet import packets
from tests.packet.director import Director
from xlvs.kernel import abi, bpf

_REDIRECT, _UNSPECIFIED = 7, 0xFFFFFFFF  # verdicts of TC


def test_new_flows_of_a_scheduler() -> None:
    figures = by_scheduler(["lc"], [3, 10], rounds=1, flows=64)
    assert list(figures) == [walk.INSERT, name_of("lc", 3), name_of("lc", 10)]
    assert all(one.minimum > 0 for one in figures.values())


def test_xdp_forwards_every_packet_of_every_kind() -> None:
    """What a run has changed is taken back before the next one; else the measurement gives up."""
    with new_floored_director(64 * len(KINDS), 64) as (director, programs):
        for kind in KINDS:
            traffic = establish(director, programs, kind, 8)
            assert measurement(programs, director, XDP, traffic, 8, shortest=500_000)() > 0


def test_a_bare_program_sends_on_what_is_for_its_address() -> None:
    macs = bytes.fromhex("02aabbccddeef6a1b2c3d4e5")
    program = sending_on(1, socket.inet_aton("10.0.0.200"), macs)
    transport = packets.udp(1024, 80)
    for address, sent in (("10.0.0.200", True), ("10.0.0.201", False)):
        packet = packets.ipv4(
            packets.packed("172.16.0.1"), packets.packed(address), packets.UDP, transport, 64
        )
        frame = bytes(12) + b"\x08\0" + packet
        verdict, after = bpf.run_program(program, frame)[:2]
        assert (verdict, after[:12]) == ((_REDIRECT, macs) if sent else (_UNSPECIFIED, bytes(12)))
        assert after[12:] == frame[12:]
    os.close(program)


def test_the_table_is_what_the_kernel_charges_for_it(director: Director) -> None:
    charged = of_maps(director.maps.folder)
    slots = director.maps.limits.buckets * abi.SLOTS_PER_BUCKET
    assert 64 * slots <= charged["connections"] < 64 * slots * 1.1
    assert "xlvs_tc" not in charged, "a program is no map"
