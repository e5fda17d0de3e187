# SPDX-License-Identifier: GPL-2.0-only
"""A copy of the loaded data plane, on which a packet is tried that nobody sends.

What the packet path does with a packet follows from its tables and its
programs.  So the same programs are loaded a second time, on maps of their own
into which the tables' contents are copied; there a packet can begin its
connection and move the schedulers on, and the tables in use stay as they are.
Nothing of it is pinned or attached: it ends with the process, however that
ends.  It takes as much memory as the tables in use, for as long as it lasts.
"""

from __future__ import annotations

import mmap
import sys
from struct import pack
from types import TracebackType

from xlvs.datapath.load import OBJECT, check_memory, map_entries, size_maps
from xlvs.datapath.maps import Maps
from xlvs.kernel import abi, bpf, libbpf

_ARRAY, _HASH = 2, 1
"""``BPF_MAP_TYPE_ARRAY`` and ``BPF_MAP_TYPE_HASH``."""
_MAPPABLE = 1 << 10
"""``BPF_F_MMAPABLE``"""
_CHUNK = 1 << 22

# What it counts has to begin at nothing, and the rest is of no use to one packet.
_LEFT_EMPTY = frozenset((
    "counters", "service_base", "destination_base", "service_estimates", "destination_estimates", "call_ids",
))  # fmt: skip

INGRESS = "xlvs_tc"
"""The program that a client's packet meets as it comes in."""


class Rehearsal(Maps):
    """The copy, as maps; for a ``with`` block.

    ``original`` must not be changed by another command meanwhile: the caller
    holds the table's lock.  Packets may go on; what they change while it is
    copied is in the copy or not.  Raises `Unavailable` where the machine has
    no memory for it, `NotPermitted` for a caller who is not root.
    """

    def __init__(self, original: Maps) -> None:
        self._original = original
        self._names = map_entries(original.limits)
        self._object = libbpf.BpfObject(OBJECT)
        try:
            size_maps(self._object, original.limits)
            self._object.set_constants(".rodata.limits", bytes(original.limits))
            check_memory(sum(self._object.map_bytes(name) for name in self._names))
            self._object.load()
            self._search_everywhere(original.limits.buckets)
            self._copy_all()
            super().__init__(original.folder)
            self._forget_trees()
        except BaseException:
            self._object.close()
            raise

    def renew(self) -> None:
        """Make it a copy of what the original is now; nothing has been counted on it then."""
        self._copy_all()
        self._forget_trees()

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._memory.clear()
        self._object.close()

    def descriptor(self, name: str) -> int:
        """The file descriptor of the copy of a map."""
        return self._object.map_descriptor(name)

    def run(self, program: str, frame: bytes, interface: int, mark: int = 0) -> tuple[int, bytes]:
        """Hand a frame to a program, as if it came in (or went out) by an interface with that index.

        Returns the verdict (``TC_ACT_…``, -1 as 0xFFFFFFFF) and the frame as it became.
        """
        # struct __sk_buff: len, pkt_type, mark, seven words, then ifindex
        context = pack("=8xI28xI", mark, interface)
        verdict, after, _ = bpf.run_program(self._object.program(program), frame, context=context)
        return verdict, after

    def _copy_all(self) -> None:
        for name in self._names:
            self._copy(name)

    def _forget_trees(self) -> None:
        """Let the first packet make its service's tree of loads: they are not copied."""
        for index in range(self.settings.services_top):
            record = self.service(index)
            record.tree = record.tree_taken = 0

    def _copy(self, name: str) -> None:
        kind, key_size, value_size, count, flags = self._object.map_layout(name)
        here, there = self._object.map_descriptor(name), self._original.descriptor(name)
        if kind == _ARRAY and flags & _MAPPABLE:
            with (
                mmap.mmap(here, count * value_size) as copy,
                mmap.mmap(there, count * value_size, access=mmap.ACCESS_READ) as memory,
            ):
                for start in range(0, count * value_size, _CHUNK):
                    size = min(_CHUNK, count * value_size - start)
                    part = bytes(size) if name in _LEFT_EMPTY else memory[start : start + size]
                    if copy[start : start + size] != part:  # else memory that nobody uses would be taken
                        copy[start : start + size] = part
        elif kind == _HASH and name not in _LEFT_EMPTY:
            wanted = dict(bpf.elements(there, key_size, value_size))
            for key, _ in bpf.elements(here, key_size, value_size):
                if key not in wanted:
                    bpf.delete(here, key)
            for key, value in wanted.items():
                bpf.update(here, key, value)

    def _search_everywhere(self, buckets: int) -> None:
        """Let look-ups search every bucket of a flow's choice: their guards are not copied."""
        guard, guards = pack("=I4B", 0, 1, 1, 1, 1), buckets // abi.GUARDED_BUCKETS
        for start in range(0, guards, _CHUNK // 64):
            count = min(_CHUNK // 64, guards - start)
            keys = [number.to_bytes(4, sys.byteorder) for number in range(start, start + count)]
            bpf.update_many(self._object.map_descriptor("bucket_guards"), keys, [guard] * count)


def busy(maps: Maps, kind: str, top: int) -> list[int]:
    """The records below ``top``, of a ``service`` or ``destination``, that something was counted for."""
    width = 5
    memory, rows = maps.counters(kind)
    words = memoryview(memory).cast("Q")
    found: set[int] = set()
    for began in rows:
        row = words[began // 8 : began // 8 + top * width]
        for field in (0, 1):
            found.update(i for i, value in enumerate(row[field::width].tolist()) if value)
    return sorted(found)
