# SPDX-License-Identifier: GPL-2.0-only
"""The connection table as rows, while the packet path goes on changing it."""

from __future__ import annotations

import mmap
from struct import pack
from types import SimpleNamespace
from typing import Any

from xlvs.datapath import connections
from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi
from xlvs.model import IPV4, TCP

ESTABLISHED = 1


def _slot(control: int, client_port: int) -> bytes:
    """A slot of a connection from 10.0.0.1 to 10.0.0.9:80, which lasts for an hour."""
    raw = pack("=Q", control) + bytes([10, 0, 0, 1] + [0] * 12) + bytes([10, 0, 0, 9] + [0] * 12)
    raw += pack(">HH", client_port, 80)
    raw += pack("=BBHII", TCP, IPV4, 0, ticks_now() + (3600 * 10**9 >> abi.TICK_SHIFT), 0)
    return raw + pack(">H", 8080) + bytes(6)


def test_what_ends_while_the_table_is_read_is_no_row() -> None:
    """Phases are read first, slots then: one that died in between has lost its flags, and is none.

    The dead one is a real server's way back, which is never listed: without its flag it looks like
    a connection from the real server.
    """
    dead = _slot(abi.PHASE_DEAD, 21)
    live = _slot(abi.PHASE_LIVE | ESTABLISHED << 8, 4000)
    record = SimpleNamespace(
        address=bytes([10, 0, 1, 1]) + bytes(12), family=IPV4, owner=SimpleNamespace(fwmark=0)
    )
    maps: Any = SimpleNamespace(destination=lambda _: record)
    with mmap.mmap(-1, mmap.PAGESIZE) as window:
        window[: len(dead + live)] = dead + live
        rows = connections._rows(window, bytes([abi.PHASE_LIVE, abi.PHASE_LIVE]), maps, 0)
    assert [row[2] for row in rows] == [4000]
