# SPDX-License-Identifier: GPL-2.0-only
"""Reading the connection table as rows (`xlvs.datapath.rows`), window by window.

Only a window of the table is mapped at a time: a listing of millions begins at
once and takes no more memory than one of thousands.
"""

from __future__ import annotations

import ctypes
import mmap

from xlvs import model
from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.datapath.records import SLOT, Slot, address, ticks_now
from xlvs.kernel import abi, bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xlvs.datapath.rows import ConnectionRow

WINDOW = 2048
"""Slots that are mapped, and looked through, at a time: the first rows are there in milliseconds."""
_ODD = abi.CONNECTION_REPLY | abi.CONNECTION_ASIDE
"""Flags of an entry that is not listed, or not as it stands: left to `Slot`."""


def connection_rows(maps: Maps) -> Iterator[list[ConnectionRow]]:
    """Every live connection in the order of the table, as many at a time as stand in a window of it."""
    table = maps.descriptor("connections")
    total = maps.limits.buckets * abi.SLOTS_PER_BUCKET * SLOT_BYTES
    for start in range(0, total, WINDOW * SLOT_BYTES):
        size = min(WINDOW * SLOT_BYTES, total - start)
        with mmap.mmap(table, size, access=mmap.ACCESS_READ, offset=start) as window:
            phases = window[::SLOT_BYTES]
            if abi.PHASE_LIVE in phases:
                yield _rows(window, phases, maps, start // SLOT_BYTES)


def _rows(window: mmap.mmap, phases: bytes, maps: Maps, start: int) -> list[ConnectionRow]:
    rows = []
    states: dict[int, str] = {}
    servers: dict[int, tuple[bytes, int]] = {}
    now = ticks_now()
    unpack, ipv4 = SLOT.unpack_from, model.IPV4
    place = phases.find(abi.PHASE_LIVE)
    while place >= 0:
        slot_number, first = start + place, place * SLOT_BYTES
        place = phases.find(abi.PHASE_LIVE, place + 1)
        (
            control, client, virtual, client_port, virtual_port, protocol, family, apart, expires, index,
            port, _, _,
        ) = unpack(window, first)  # fmt: skip
        left = expires - now & 0xFFFFFFFF
        flags = control >> abi.CONTROL_FLAGS_SHIFT
        if control & 0xFF != abi.PHASE_LIVE:
            continue  # it has ended since the phases were read, and its flags with it
        if left == 0 or left >= 0x80000000:
            continue  # it has expired; the sweeper will find it
        if flags & _ODD:
            slot = Slot(window[first : first + SLOT_BYTES])
            if slot.seconds_left(now) is None:
                continue
            virtual_port = port = 0xFFFF
        kind = control & 0xFF00 | (flags & abi.CONNECTION_TEMPLATE) << 16 | protocol
        state = states.get(kind)
        if state is None:
            state = states[kind] = Slot(window[first : first + SLOT_BYTES]).state()
        server = servers.get(index)
        if server is None:
            record = maps.destination(index)
            server = servers[index] = address(record.address, record.family), record.owner.fwmark
        engine_data = ""
        if apart >= abi.FLOW_OF_CALL:
            client_port, engine_data = 0, _call_id(maps, slot_number)
        if family == ipv4:
            client, virtual = client[:4], virtual[:4]
        rows.append((
            protocol, client, (client_port & 0xFF) << 8 | client_port >> 8,
            virtual, (virtual_port & 0xFF) << 8 | virtual_port >> 8,
            server[0], (port & 0xFF) << 8 | port >> 8,
            state, (left << abi.TICK_SHIFT) // 1_000_000_000, server[1], engine_data,
        ))  # fmt: skip
    return rows


def _call_id(maps: Maps, slot_number: int) -> str:
    """The Call-ID of the template in that slot; empty if it has ended meanwhile."""
    size = ctypes.sizeof(abi.CallId)
    found = bpf.lookup(maps.descriptor("call_ids"), bytes(abi.CallIdKey(32, slot_number)), size)
    # What is not ASCII may mean something to a terminal.
    return found[1 : 1 + found[0]].decode("ascii", "backslashreplace") if found else ""
