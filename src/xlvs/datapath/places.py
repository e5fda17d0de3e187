# SPDX-License-Identifier: GPL-2.0-only
"""Free places in the maps: for services, real servers and scheduling runs.

Nothing about free places is stored.  It follows from the records in use, so a
process that died in the middle of a change leaks nothing.
"""

from __future__ import annotations

import ctypes

from xlvs import errors
from xlvs.datapath import runs
from xlvs.datapath.maps import Maps
from xlvs.datapath.records import fields_of, milliseconds_to_ticks, padded, swap_port, ticks_now
from xlvs.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Name = tuple[bytes, bytes, int]
    """What the trash knows a real server by: the packed key of its service, its padded address, its port."""

ROUND_MILLISECONDS = 61_440
"""Between two of the kernel's looks into its trash (``ip_vs_dest_trash_expire``): half of
``IP_VS_DEST_TRASH_PERIOD``, a minute, and what its coarse timer makes of that at any HZ."""
ROUNDS = 2
"""So many rounds after the one that found it idle, a removed real server is forgotten."""

_REMOVED = fields_of(
    abi.Destination, "address", "port", "active", "inactive", "persistent", "cached", "removed", "owner"
)
_DESTINATION_BYTES = ctypes.sizeof(abi.Destination)


class Places:
    """What one writing process knows of free places; it holds the table's lock."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._runs: runs.Allocator | None = None
        self._trees: runs.Allocator | None = None
        self._services: list[int] | None = None
        self._destinations: list[int] | None = None
        self._trash: dict[Name, int] | None = None
        self._trash_begun = False  # whether any is known to be in it, while it has not been read
        self._returning: set[int] = set()  # out of the trash, and maybe not in use yet

    def run(self, size: int) -> int:
        """A place in the pool for a run of that many elements; raises `TableFull`."""
        start = self._allocator().allocate(size)
        if start is None:
            raise errors.TableFull(
                f"no room for another run of {size} elements in the scheduling pool",
                f"It holds {self._maps.limits.pool}, and real servers take one each, the table of an mh "
                "service up to 1024; load a larger one: xlvs detach && "
                "xlvs attach --destinations N --services N",
            )
        return start

    def tree(self, scheduler: int, count: int) -> int:
        """A tree of loads for a run of ``count`` picks: its place, and a number that no other has.

        0 where the run needs none, or where there is no room: the packet path does without.
        """
        blocks = runs.tree_blocks(scheduler, count)
        place = self._tree_allocator().allocate(blocks) if blocks else None
        return self.numbered_tree(place) if place else 0

    def numbered_tree(self, place: int) -> int:
        """A tree at that place which the packet path has to make anew."""
        settings = self._maps.settings
        settings.trees_made = settings.trees_made + 1 & 0xFFFFFFFF
        return place | settings.trees_made << 32

    def free_run(self, start: int) -> None:
        """Give a run's place back, and its tree's."""
        self._allocator().free(start)
        if self._trees is not None:
            self._trees.free(runs.tree_at(self._maps.pool(), start)[0])

    def service(self) -> int:
        """An unused service record; raises `TableFull`."""
        if self._services is None:
            top = self._maps.settings.services_top
            flags = self._maps.flags("services", abi.Service, top)
            freed = [index for index, value in enumerate(flags) if not value]
            # Taken from the end: freed records, lowest first, then unused ones.
            self._services = [*reversed(range(top, self._maps.limits.services)), *reversed(freed)]
        if not self._services:
            raise errors.TableFull(
                f"the table holds {self._maps.limits.services} virtual services, no more",
                "Load a larger one: xlvs detach && xlvs attach --services N",
            )
        return self._services.pop()

    def free_service(self, index: int) -> None:
        """Give a service record back; it is the last to be used again."""
        if self._services is not None:
            self._services.insert(0, index)

    def destination(self) -> int:
        """An unused destination record; raises `TableFull`."""
        if self._destinations is None:
            top = self._maps.settings.destinations_top
            flags = self._maps.flags("destinations", abi.Destination, top)
            kept = self._returning.union(self._remembered().values())
            freed = [
                index
                for index, value in enumerate(flags)
                if not value & abi.DESTINATION_AVAILABLE and index not in kept
            ]
            unused = range(top, self._maps.limits.destinations)
            self._destinations = [*reversed(unused), *reversed(freed)]
        if not self._destinations:
            self._destinations = self._forget_idle()
        if not self._destinations:
            raise errors.TableFull(
                f"the table holds {self._maps.limits.destinations} real servers, no more",
                "Load a larger one: xlvs detach && xlvs attach --destinations N",
            )
        return self._destinations.pop()

    def remembers(self) -> bool:
        """Whether there is any removed real server that is not forgotten yet."""
        return bool(self._remembered())

    def returning(self, owner: bytes, address: bytes, port: int) -> int | None:
        """The record that a removed real server had, if it is not forgotten yet.

        ``owner`` is the packed key of its service.  It comes back with the
        connections that it still has (kernel: ``ip_vs_trash_get_dest``).
        """
        index = self._remembered().pop((owner, padded(address), port), None)
        if index is not None:
            self._returning.add(index)
        return index

    def discard(self, index: int) -> None:
        """Take a destination out of use, and remember it while it has connections."""
        self._returning.discard(index)
        record = self._maps.destination(index)
        record.removed = ticks_now()
        record.begun = self._maps.service(record.service).begun
        if not self._has_trash():
            self._maps.settings.trash_started = record.removed
        self._trash_begun = True
        record.flags &= ~abi.DESTINATION_AVAILABLE
        if self._trash is not None:
            name = (bytes(record.owner), bytes(record.address), swap_port(record.port))
            self._trash[name] = index

    def _allocator(self) -> runs.Allocator:
        if self._runs is None:
            pool = self._maps.pool()
            taken = [(start, runs.size_at(pool, start)) for start in self._starts()]
            self._runs = runs.Allocator(self._maps.limits.pool, taken)
        return self._runs

    def _tree_allocator(self) -> runs.Allocator:
        if self._trees is None:
            pool = self._maps.pool()
            trees = (runs.tree_at(pool, start) for start in self._starts())
            self._trees = runs.Allocator(self._maps.limits.loads, [tree for tree in trees if tree[0]])
        return self._trees

    def _starts(self) -> list[int]:
        """Where the services' runs start."""
        flags = self._maps.flags("services", abi.Service, self._maps.settings.services_top)
        starts = [self._maps.service(index).run for index, value in enumerate(flags) if value]
        return [start for start in starts if start]

    def _remembered(self) -> dict[Name, int]:
        """Removed real servers by service, address and port."""
        if self._trash is None:
            self._trash = dict(self._removed())
        return self._trash

    def _has_trash(self) -> bool:
        """Whether any removed real server is remembered."""
        if self._trash is not None:
            return bool(self._trash)
        if not self._trash_begun:  # a look through all records, which a flush of thousands can do but once
            self._trash_begun = any(True for _ in self._removed())
        return self._trash_begun

    def _removed(self) -> Iterator[tuple[Name, int]]:
        """Every removed real server that is remembered.

        One is forgotten that was idle for so long that the kernel would have
        forgotten it.  Rounds begin with a removal while nothing is remembered
        (`settings.trash_started`): what was idle before that was forgotten then.
        """
        limits, settings = self._maps.limits, self._maps.settings
        memory = self._maps.memory("destinations", limits.destinations * _DESTINATION_BYTES)
        period = milliseconds_to_ticks(ROUND_MILLISECONDS)
        started = settings.trash_started
        now = (ticks_now() - started) & 0xFFFFFFFF
        unpack, used = _REMOVED.unpack_from, abi.DESTINATION_USED
        either = used | abi.DESTINATION_AVAILABLE
        flags = self._maps.flags("destinations", abi.Destination, settings.destinations_top)
        for index, value in enumerate(flags):
            if value & either != used:
                continue
            address, port, active, inactive, persistent, cached, removed, owner = unpack(
                memory, index * _DESTINATION_BYTES
            )
            if active <= 0 and inactive <= 0 and persistent <= 0 and cached <= 0:
                idle = (removed - started) & 0xFFFFFFFF
                if idle > now or now // period - idle // period > ROUNDS:
                    continue
            yield (owner, address, (port & 0xFF) << 8 | port >> 8), index

    def _is_idle(self, index: int) -> bool:
        record = self._maps.destination(index)
        return record.active <= 0 and record.inactive <= 0 and record.persistent <= 0 and record.cached <= 0

    def _forget_idle(self) -> list[int]:
        """Make room by forgetting removed real servers that have no connection."""
        trash = self._remembered()
        idle = [name for name, index in trash.items() if self._is_idle(index)]
        return [trash.pop(name) for name in idle]
