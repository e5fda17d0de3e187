# SPDX-License-Identifier: GPL-2.0-only
"""The scheduling runs of services in the pool: reading them, making room, letting packets see a new one.

What a run is made of is in `runs` and `hashing`; here it meets the maps.  The
caller holds the table's lock.
"""

from __future__ import annotations

from xlvs import errors, model
from xlvs.datapath import hashing, runs
from xlvs.datapath.maps import Maps
from xlvs.datapath.places import Places
from xlvs.datapath.records import padded, swap_port
from xlvs.kernel import abi

NO_RECORD = -1
"""In a pick while its real server has no record yet."""


class _Unfinished:
    """A run of mh that packets do not see yet: more real servers may join."""

    __slots__ = ("run", "service", "size", "start")

    def __init__(self, service: int, run: runs.Run, start: int, size: int) -> None:
        self.service = service
        self.run = run
        self.start = start
        self.size = size


class Scheduling:
    """The runs of all services.

    With ``may_wait`` set, mh's table is made when the last of several real
    servers has joined a service, by `finish`: restoring 10,000 services would
    take minutes with a table for each real server.  Packets see such a
    service as it was until then.
    """

    def __init__(self, maps: Maps, places: Places) -> None:
        self.may_wait = False
        self._maps = maps
        self._places = places
        self._unfinished: _Unfinished | None = None

    def run(self, service: int) -> runs.Run:
        """A service's run, its cursor as it is at this moment, without a table."""
        if self._unfinished and self._unfinished.service == service:
            return self._unfinished.run
        return runs.read(self._maps.pool(), self._maps.service(service).run)

    def listed(self, service: int, start: int) -> tuple[int, list[int]]:
        """A service's scheduler and the records of its real servers, newest first."""
        if self._unfinished and self._unfinished.service == service:
            return self._unfinished.run.scheduler, [index for index, _ in self._unfinished.run.picks]
        return runs.listed(self._maps.pool(), start)

    def place(self, service: int, run: runs.Run, added: model.Destination | None = None) -> int:
        """A place for a run, which gets its table or tree if its scheduler has one.

        ``added`` is the real server of a pick that has no record yet.  Raises
        `TableFull`; `InvalidOperation` for more real servers than mh can use.
        """
        if run.scheduler == abi.SCHEDULER_SH:
            run.table = hashing.source_table([weight for _, weight in run.picks])
        elif run.scheduler == abi.SCHEDULER_DH:
            run.table = hashing.destination_table(len(run.picks))
        elif run.scheduler == abi.SCHEDULER_MH:
            check_maglev(run)
            run.table = self._maglev_table(service, run, added)
        start = self._places.run(runs.size(run))
        run.tree = self._places.tree(run.scheduler, len(run.picks))
        return start

    def place_new(self, run: runs.Run, destinations: list[model.Destination], is_ipv6: bool) -> int:
        """Like `place`, for a service that is not there yet; ``destinations`` are those of the picks."""
        if run.scheduler != abi.SCHEDULER_MH:
            return self.place(0, run)  # which service it is only mh asks
        check_maglev(run)
        servers = [(padded(one.address), one.port, one.weight) for one in destinations]
        run.table = hashing.maglev_table(servers, is_ipv6)
        return self._places.run(runs.size(run))

    def switch(self, service: int, run: runs.Run, start: int) -> None:
        """Make a service use another run, from one packet to the next."""
        runs.write(self._maps.pool(), start, run)
        record = self._maps.service(service)
        old, record.run = record.run, start
        self._places.free_run(old)

    def look_again(self, service: int) -> None:
        """Have the packet path look at the load of all of a service's real servers.

        For what makes one of them a better choice than before and is neither another run nor
        the end of a connection: thresholds.
        """
        pool, start = self._maps.pool(), self._maps.service(service).run
        place = runs.tree_at(pool, start)[0]
        if place:
            pool[start + 2] = self._places.numbered_tree(place)

    def place_added(self, service: int, run: runs.Run, added: model.Destination) -> int:
        """Like `place`, for a run that a real server has joined; goes with `switch_added`."""
        if self._unfinished and self._unfinished.service != service:
            self.finish()
        if not self._waits(run):
            return self.place(service, run, added)
        check_maglev(run)
        size = _largest_size(run)
        unfinished = self._unfinished
        if not unfinished:
            return self._places.run(size)
        if unfinished.size != size:
            start = self._places.run(size)
            self._places.free_run(unfinished.start)
            unfinished.start, unfinished.size = start, size
        return unfinished.start

    def switch_added(self, service: int, run: runs.Run, start: int) -> None:
        """Like `switch`, at once or, for mh, when `finish` says that no more will join."""
        if self._waits(run):
            self._unfinished = _Unfinished(service, run, start, _largest_size(run))
        else:
            self.switch(service, run, start)

    def finish(self) -> None:
        """Let packets see the service that real servers have joined."""
        if self._unfinished:
            service, run, start = self._unfinished.service, self._unfinished.run, self._unfinished.start
            self._unfinished = None
            run.table = self._maglev_table(service, run)
            self.switch(service, run, start)

    def _waits(self, run: runs.Run) -> bool:
        return self.may_wait and run.scheduler == abi.SCHEDULER_MH

    def _maglev_table(
        self, service: int, run: runs.Run, added: model.Destination | None = None
    ) -> list[int]:
        servers = []
        for index, weight in run.picks:
            if index == NO_RECORD and added is not None:
                servers.append((padded(added.address), added.port, weight))
            else:
                record = self._maps.destination(index)
                # A quiesced one keeps the slots of its last weight.
                servers.append((bytes(record.address), swap_port(record.port), weight or record.last_weight))
        return hashing.maglev_table(servers, self._maps.service(service).key.family == model.IPV6)


def check_maglev(run: runs.Run) -> None:
    """Raise `InvalidOperation` for more real servers than mh can use."""
    if len(run.picks) > abi.MH_SLOTS:
        raise errors.InvalidOperation(
            f"the scheduler mh has {abi.MH_SLOTS} slots, and no use for more real servers than that"
        )


def _largest_size(run: runs.Run) -> int:
    """The elements of mh's run, whichever of its real servers turn out to have slots."""
    width = hashing.slot_width(len(run.picks) - 1)
    return runs.elements_of(len(run.picks), run.scheduler, width)
