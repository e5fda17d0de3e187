# SPDX-License-Identifier: GPL-2.0-only
"""The pinned maps of one network namespace, as memory.

Arrays of the packet path are mapped into this process: reading a record or
storing a field is a memory access.  Records have one kind of writer for each
field (see bpf/abi.h); nothing here writes a field that the packet path writes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from xlvs.errors import NotPermitted, Unavailable, Unusable
from xlvs.kernel import abi, bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Record = TypeVar("Record", bound=ctypes.Structure)

SLOT_BYTES = ctypes.sizeof(abi.Connection)

_TRAFFIC_BYTES = ctypes.sizeof(abi.Traffic)
_CACHE_LINE = 64

LOAD_ANEW = (
    "Use the version of xlvs that loaded it. Or save its services with that one, and load this one, which\n"
    "forgets the connections: xlvsadm -Sn >TABLE; xlvs mark save >MARKS; xlvs detach && xlvs attach;\n"
    "xlvsadm -R <TABLE; xlvs mark restore <MARKS"
)
"""The hint for a data plane whose table another version of xlvs has to read."""


def row_bytes(limits: abi.Limits) -> int:
    """How many bytes a CPU's counters take: whole cache lines, so that no two write to one."""
    return -(-(limits.services_at + limits.services * _TRAFFIC_BYTES) // _CACHE_LINE) * _CACHE_LINE


class Maps:
    """The maps under a folder of pins, opened and mapped when first used.

    Raises `Unusable` when a map is not there or has another layout than this
    version of xlvs, `Unavailable` when it cannot be opened for another reason.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._descriptors: dict[str, int] = {}
        self._memory: dict[str, mmap.mmap] = {}
        self._pool: memoryview | None = None
        self.settings = self.record("settings", abi.Settings, 0, 1)
        if self.settings.abi_version != abi.ABI_VERSION:
            raise Unusable(
                f"the loaded packet path has table layout {self.settings.abi_version}, "
                f"this xlvs works on layout {abi.ABI_VERSION}",
                LOAD_ANEW,
            )
        self.limits: abi.Limits = self.settings.limits

    def close(self) -> None:
        """Close every descriptor; mapped memory goes with its last view."""
        for fd in self._descriptors.values():
            os.close(fd)
        self._descriptors.clear()
        self._memory.clear()
        self._pool = None

    def descriptor(self, name: str) -> int:
        """The file descriptor of a map."""
        if name not in self._descriptors:
            try:
                self._descriptors[name] = bpf.open_pin(f"{self.folder}/{name}")
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    raise NotPermitted(
                        f"cannot open the map {name}: {error.strerror}", "Run it as root."
                    ) from error
                if error.errno == errno.ENOENT:
                    raise Unusable(
                        f"the map {name} has gone from {self.folder}",
                        "The table is damaged. Load it anew: xlvs detach && xlvs attach",
                    ) from error
                raise Unavailable(
                    f"cannot open the map {name} under {self.folder}: {error.strerror}",
                    "Does the kernel have eBPF (Linux 6.1 or later), and is the system call bpf(2) allowed?",
                ) from error
        return self._descriptors[name]

    def memory(self, name: str, size: int) -> mmap.mmap:
        """A map's first ``size`` bytes, at least; writable, shared with the kernel."""
        mapped = self._memory.get(name)
        if mapped is None or len(mapped) < size:
            mapped = mmap.mmap(self.descriptor(name), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._memory[name] = mapped
        return mapped

    def record(self, name: str, kind: type[Record], index: int, count: int) -> Record:
        """A live view of one record of a map that has ``count`` of them."""
        size = ctypes.sizeof(kind)
        return kind.from_buffer(self.memory(name, size * count), size * index)

    def service(self, index: int) -> abi.Service:
        """A live view of a service record."""
        return self.record("services", abi.Service, index, self.limits.services)

    def next_service(self, index: int) -> abi.Service:
        """A live view of what that service record will be, while another table takes this one's place."""
        limit = self.limits.services
        return self.record("services", abi.Service, limit + index, 2 * limit)

    def index_key(self, key: bytes, in_other_table: bool = False) -> bytes:
        """A packed ``struct service_key`` as the index of services has it, in the table that packets see."""
        table = self.settings.table ^ (abi.OTHER_TABLE if in_other_table else 0)
        return key[:-1] + bytes((key[-1] | table,))

    def destination(self, index: int) -> abi.Destination:
        """A live view of a destination record."""
        return self.record("destinations", abi.Destination, index, self.limits.destinations)

    def flags(self, name: str, kind: type[ctypes.Structure], top: int) -> list[int]:
        """The ``flags`` field of the first ``top`` records of a map, quickly."""
        return self.column(name, kind, "flags", top)

    def column(self, name: str, kind: type[ctypes.Structure], field: str, top: int) -> list[int]:
        """A 32-bit field of the first ``top`` records of a map, quickly."""
        size = ctypes.sizeof(kind)
        words = memoryview(self.memory(name, size * max(top, 1))).cast("I")
        first = getattr(kind, field).offset // 4
        return words[first : top * size // 4 : size // 4].tolist() if top else []

    def pool(self) -> memoryview:
        """The pool of scheduling runs: 64-bit words in host order."""
        if self._pool is None:
            self._pool = memoryview(self.memory("pool", self.limits.pool * 8)).cast("Q")
        return self._pool

    def connection_slots(self) -> mmap.mmap:
        """The whole connection table."""
        return self.memory("connections", self.limits.buckets * abi.SLOTS_PER_BUCKET * SLOT_BYTES)

    def counters(self, kind: str) -> tuple[mmap.mmap, list[int]]:
        """What CPUs count of each ``service`` or ``destination``: memory, and where each begins in it."""
        size = row_bytes(self.limits)
        began = self.limits.services_at if kind == "service" else abi.EVENTS_ROOM
        rows = self.memory("counters", size * self.limits.cpus)
        return rows, [cpu * size + began for cpu in range(self.limits.cpus)]

    def traffic_of_cpus(self, kind: str, top: int) -> list[tuple[int, int, int, int, int]]:
        """The counters of the first ``top`` records of a kind added up, for each CPU."""
        memory, rows = self.counters(kind)
        words, width = memoryview(memory).cast("Q"), _TRAFFIC_BYTES // 8
        sums = []
        for began in rows:
            row = words[began // 8 : began // 8 + top * width]
            sums.append((sum(row[::width]), sum(row[1::width]), sum(row[2::width]), sum(row[3::width]),
                         sum(row[4::width])))  # fmt: skip
        return sums

    def events(self) -> dict[str, int]:
        """The packet path's own counters, the rows of all CPUs added up."""
        size = row_bytes(self.limits)
        rows = self.memory("counters", size * self.limits.cpus)
        totals: dict[str, int] = {}
        for cpu in range(self.limits.cpus):
            row = abi.Events.from_buffer(rows, size * cpu)
            for name, *_ in abi.Events._fields_:
                totals[name] = totals.get(name, 0) + getattr(row, name)
        return totals
