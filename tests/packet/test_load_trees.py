# SPDX-License-Identifier: GPL-2.0-only
"""Schedulers by load with more real servers than a walk is quick for: the kernel's choice all the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from random import Random
from struct import iter_unpack, pack

import pytest

from bench.walk import TC, Traffic, Walk, new_walk
from tests.packet import children
from tests.packet.director import SENT, Director, know_neighbours, new_director, real_server
from tests.packet.kernel_model import Server, is_active, next_state, takes_over
from tests.packet.kernel_schedulers import by_delay, by_overhead
from tests.packet.packets import ACK, FIN, RST, SYN
from xlvs.datapath import runs
from xlvs.datapath.load import Capacity
from xlvs.datapath.records import packed_key, seconds_to_ticks
from xlvs.kernel import abi, bpf, lock
from xlvs.model import Destination, Service, ServiceKey

Measure = Callable[[Server], tuple[bool, Fraction]]
MEASURES: dict[str, Measure] = {
    "lc": lambda server: (True, Fraction(server.overhead)),
    "wlc": lambda server: (True, by_overhead(server)),
    "sed": lambda server: (True, by_delay(server)),
    "nq": lambda server: (server.active > 0, by_delay(server) if server.active else Fraction(0)),
    # They choose so for an address that they do not know.
    "lblc": lambda server: (True, by_overhead(server)),
    "lblcr": lambda server: (True, by_overhead(server)),
}
TREE_SCHEDULERS = ("lc", "wlc", "sed", "nq")


@pytest.fixture(scope="module")
def director() -> Iterator[Director]:
    """One with room for all connections of these tests, which do not end."""
    with new_director(Capacity(65_536, 64, 8192)) as made:
        yield made


_ADDRESSES = 50
"""How many real servers' addresses there are; more real servers have other ports."""


class Bounded(Server):
    """A real server that may have a bound of connections (kernel: ip_vs_bind_dest())."""

    def __init__(self, name: int) -> None:
        super().__init__(name)
        self.upper = 0
        self.lower = 0
        self.is_full = False

    def bind(self) -> None:
        """A connection more."""
        self.connections += 1
        self.inactive += 1
        if self.upper:
            self._judge()

    def unbind(self, active: bool) -> None:
        """A connection less."""
        if active:
            self.active -= 1
        else:
            self.inactive -= 1
        if self.is_full:
            self._judge()

    def bound(self, upper: int, lower: int) -> None:
        """Other thresholds."""
        if (self.upper, self.lower) != (upper, lower):
            self.upper, self.lower = upper, lower
            self._judge()

    def _judge(self) -> None:
        total = self.active + self.inactive
        enough = self.lower or self.upper - self.upper // 4
        if self.upper and total >= self.upper:
            self.is_full = True
        elif not self.upper or total < enough:
            self.is_full = False


class Flow:
    """A connection of the model."""

    def __init__(self, number: int) -> None:
        self.client = bytes([10, 0, 9, number // 50_000])
        self.port = 1024 + number % 50_000
        self.server: Bounded
        self.state = "NONE"


def _destination(server: Bounded, key: ServiceKey) -> Destination:
    return Destination(
        real_server(1 + server.name % _ADDRESSES), key.port + server.name // _ADDRESSES,
        weight=server.weight, upper_threshold=server.upper,
        lower_threshold=server.lower,
    )  # fmt: skip


class Crowd:
    """A service with many real servers, on a director and in a model; `servers`: newest first."""

    def __init__(self, director: Director, scheduler: str, weights: list[int]) -> None:
        self.director = director
        self.scheduler = scheduler
        self.key = director.unused_key()
        self.servers = [Bounded(name) for name in range(len(weights))]
        self.gone: list[Bounded] = []
        self.flows: list[Flow] = []
        self.numbers = iter(range(200_000))
        know_neighbours(_ADDRESSES)
        for state in range(abi.TIMEOUT_COUNT):
            director.maps.settings.timeout[state] = seconds_to_ticks(3600)  # none ends by itself
        for server, weight in zip(self.servers, weights, strict=True):
            server.weight = weight
        director.table.add_services(
            [(Service(self.key, scheduler), [_destination(one, self.key) for one in self.servers])]
        )

    def choice(self) -> Bounded | None:
        """The kernel's: the first of the least."""
        able = [one for one in self.servers if one.weight > 0 and not one.is_full]
        return min(able, key=MEASURES[self.scheduler], default=None)

    def _send(self, flow: Flow, flags: int) -> None:
        frame = self.director.segment(self.key, flow.port, flags, client=flow.client)
        assert self.director.tc(frame)[0] == SENT

    def open(self) -> None:
        """A client comes."""
        self._schedule(Flow(next(self.numbers)))

    def _schedule(self, flow: Flow) -> bool:
        chosen = self.choice()
        self._send(flow, SYN)
        if chosen is None:
            return False
        chosen.bind()
        flow.server, flow.state = chosen, "NONE"
        self._move(flow, SYN)
        self.flows.append(flow)
        return True

    @staticmethod
    def _move(flow: Flow, flags: int) -> None:
        state = next_state(flow.state, flags)
        change = is_active(state) - is_active(flow.state)
        flow.server.active += change
        flow.server.inactive -= change
        flow.state = state

    def segment(self, which: int, flags: int) -> None:
        """A client sends a segment in a connection that it has."""
        flow = self.flows[which % len(self.flows)]
        if flow.server in self.servers and flow.state not in ("TIME_WAIT", "CLOSE"):
            self._send(flow, flags)
            self._move(flow, flags)

    def reopen(self, which: int) -> None:
        """A client's connection is reset, and it opens another from the same port."""
        flow = self.flows[which % len(self.flows)]
        if flow.server not in self.servers:
            return
        for flags in (ACK, RST):
            self._send(flow, flags)
            self._move(flow, flags)
        if not takes_over(flow.state, SYN):
            return
        old, was_active = flow.server, is_active(flow.state)
        self.flows.remove(flow)
        self._schedule(flow)
        old.unbind(was_active)

    def edit(self, which: int, weight: int, upper: int, lower: int) -> None:
        """A real server gets another weight and other thresholds."""
        server = self.servers[which % len(self.servers)]
        server.weight = weight
        server.bound(upper, lower)
        self.director.table.edit_destination(self.key, _destination(server, self.key))

    def delete(self, which: int) -> None:
        """A real server goes."""
        server = self.servers.pop(which % len(self.servers))
        self.gone.append(server)
        one = _destination(server, self.key)
        self.director.table.delete_destination(self.key, one.address, one.port)

    def bring_back(self) -> None:
        """The one that went last comes back, with its connections."""
        if self.gone:
            server = self.gone.pop()
            self.servers.insert(0, server)
            self.director.table.add_destination(self.key, _destination(server, self.key))

    def take_counters(self) -> None:
        """Let the model hold what the director lists."""
        known = {(one.address, one.port): server for server in self.servers
                 for one in (_destination(server, self.key),)}  # fmt: skip
        for row in self.director.listing(self.key).destinations:
            server = known[row.destination.address, row.destination.port]
            server.active, server.inactive = row.active, row.inactive
            server.connections = row.stats.connections

    def record(self) -> abi.Service:
        """What the director has of the service."""
        (record,) = (
            record
            for record in map(self.director.maps.service, range(self.director.maps.settings.services_top))
            if bytes(record.key) == packed_key(self.key) and record.run
        )
        return record

    def blocks(self) -> list[list[tuple[int, int]]]:
        """Those of its tree, from the root down."""
        first, size = runs.tree_at(self.director.maps.pool(), self.record().run)
        return [_block(self.director, first + number) for number in range(size)]

    def check_tree(self) -> None:
        """Each block's least stands above it; no leaf has more than the truth unless it is marked."""
        record = self.record()
        assert record.tree == self.director.maps.pool()[record.run + 2]
        assert not record.tree_taken
        blocks = self.blocks()
        levels: list[int] = []
        count = len(self.servers)
        while count > 1:
            count = -(-count // abi.LOAD_FANOUT)
            levels.insert(0, count)
        start = 0
        for above, below in pairwise(levels):
            entered = [load for block in blocks[start : start + above] for load in block]
            start += above
            assert entered[:below] == [_least(block) for block in blocks[start : start + below]]
        leaves = [load for block in blocks[start:] for load in block]
        for place, (server, (load, weight)) in enumerate(zip(self.servers, leaves, strict=False)):
            mark = place // abi.LOAD_FANOUT % abi.LOAD_MARKS
            if record.lighter[mark // 64] >> mark % 64 & 1 or server.weight <= 0 or server.is_full:
                continue
            idle, measure = MEASURES[self.scheduler](server)
            assert weight
            assert load <= measure * weight if idle else load == 0

    def compare(self) -> None:
        """The director lists what the model holds."""
        listed = [
            (row.destination.address, row.destination.port, row.active, row.inactive, row.stats.connections)
            for row in self.director.listing(self.key).destinations
        ]
        wanted = []
        for server in self.servers:
            one = _destination(server, self.key)
            wanted.append((one.address, one.port, server.active, server.inactive, server.connections))
        assert listed == wanted


def _block(director: Director, number: int) -> list[tuple[int, int]]:
    """Loads and weights of a block of trees."""
    found = bpf.lookup(director.maps.descriptor("loads"), pack("=I", number), 8 * abi.LOAD_FANOUT)
    assert found
    return [(load, weight) for weight, load in iter_unpack("=Ii", found)]


def _least(block: list[tuple[int, int]]) -> tuple[int, int]:
    least = block[0]
    for load, weight in block[1:]:
        if least[0] * weight > load * least[1]:
            least = load, weight
    return least


def _play(crowd: Crowd, chance: Random, steps: int) -> None:
    for step in range(steps):
        match chance.choices(
            ("open", "segment", "reopen", "edit", "delete", "back"), (40, 25, 15, 3, 2, 2)
        ):  # fmt: skip
            case ["open"]:
                for _ in range(chance.randint(1, 6)):
                    crowd.open()
            case ["segment"] if crowd.flows:
                for _ in range(chance.randint(1, 8)):
                    crowd.segment(chance.randrange(10**6), chance.choice((ACK, FIN, FIN, RST)))
            case ["reopen"] if crowd.flows:
                crowd.reopen(chance.randrange(10**6))
            case ["edit"]:
                upper = chance.choice((0, 0, 1, 3, 8))
                lower = chance.randint(0, upper)
                crowd.edit(chance.randrange(10**6), chance.choice((0, 1, 2, 3, 7, 2**31 - 1)), upper, lower)
            case ["delete"] if len(crowd.servers) > 1:
                crowd.delete(chance.randrange(10**6))
            case ["back"]:
                crowd.bring_back()
        if step % 10 == 0:
            crowd.compare()
    crowd.compare()
    if crowd.scheduler in TREE_SCHEDULERS and len(crowd.servers) >= abi.LOAD_FEWEST:
        crowd.open()
        crowd.check_tree()


def _weights(chance: Random, count: int) -> list[int]:
    kind = chance.randrange(3)
    if kind == 0:
        return [1] * count
    if kind == 1:
        return [chance.randint(0, 5) for _ in range(count)]
    return [chance.choice((0, 1, 3, 1000, 2**31 - 1)) for _ in range(count)]


@pytest.mark.parametrize("scheduler", TREE_SCHEDULERS)
@pytest.mark.parametrize(
    ("count", "steps"), [(16, 60), (17, 150), (64, 120), (70, 120), (520, 60), (1100, 40)]
)
def test_any_history(director: Director, scheduler: str, count: int, steps: int) -> None:
    """Connections come, change and go, real servers are edited, leave and come back."""
    chance = Random(f"{scheduler} {count}")
    crowd = Crowd(director, scheduler, _weights(chance, count))
    _play(crowd, chance, steps)
    director.table.delete_service(crowd.key)


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr"])
def test_an_address_that_is_not_known(director: Director, scheduler: str) -> None:
    """Bound anew, they forget all addresses; then they choose as wlc does."""
    chance = Random(scheduler)
    crowd = Crowd(director, "wlc", _weights(chance, 90))
    _play(crowd, chance, 30)
    for _ in range(10):
        crowd.scheduler = scheduler
        director.table.edit_service(Service(crowd.key, scheduler))
        crowd.open()
        crowd.compare()
        director.table.edit_service(Service(crowd.key, "rr"))
    director.table.delete_service(crowd.key)


def test_thresholds_of_another_table(director: Director) -> None:
    """With another table real servers that took no more may take connections again, in the same run."""
    crowd = Crowd(director, "lc", [1] * 40)
    for server in crowd.servers[::2]:
        crowd.edit(crowd.servers.index(server), 1, 1, 0)
    for _ in range(60):
        crowd.open()
    crowd.compare()
    for server in crowd.servers:
        server.bound(0, 0)
    director.table.replace(
        [
            (Service(crowd.key, "lc"), [_destination(one, crowd.key) for one in crowd.servers]),
            *((entry.service, [one.destination for one in entry.destinations])
              for entry in director.table.services() if entry.service.key != crowd.key),
        ]
    )  # fmt: skip
    for _ in range(20):
        crowd.open()
        crowd.compare()
    director.table.delete_service(crowd.key)


def test_no_room_for_a_tree(make_director: Callable[[Capacity], Director]) -> None:
    """Then all real servers are looked at, as those of a small service are."""
    director = make_director(Capacity(1024, 16, 2048))
    blocks = director.maps.limits.loads
    held = [Crowd(director, "wlc", [1] * 17)]
    director.maps.limits.loads = 64  # as commands see it
    director.another_command()
    crowds = [Crowd(director, "wlc", _weights(Random(number), 200)) for number in range(4)]
    pool = director.maps.pool()
    starts = [director.maps.service(index).run for index in range(director.maps.settings.services_top)]
    trees = [runs.tree_at(pool, start) for start in starts]
    assert trees[0][1] == 4
    assert trees[-1] == (0, 0)
    for crowd in [*held, *crowds]:
        _play(crowd, Random(len(crowd.servers)), 15)
    director.maps.limits.loads = blocks


def test_places_of_trees_are_given_back(director: Director) -> None:
    """Any number of changes fits, and no two services share a block."""
    crowds = [Crowd(director, "lc", [1] * 30), Crowd(director, "sed", [1] * 600)]
    room = director.maps.limits.loads
    for turn in range(2 * room // (75 + 10 + 2) + 1):
        crowds[1].edit(0, 1 + turn % 3, 0, 0)
        if turn % 4 == 0:
            director.another_command()
    pool = director.maps.pool()
    flags = director.maps.flags("services", abi.Service, director.maps.settings.services_top)
    trees = sorted(
        runs.tree_at(pool, director.maps.service(index).run) for index, used in enumerate(flags) if used
    )
    taken = [tree for tree in trees if tree[0]]
    assert len(taken) == 2
    assert taken[0][0] + taken[0][1] <= taken[1][0]
    assert taken[1][0] + taken[1][1] <= room
    for crowd in crowds:
        director.table.delete_service(crowd.key)


@pytest.mark.parametrize("scheduler", TREE_SCHEDULERS)
def test_a_tree_that_another_cpu_is_at(director: Director, scheduler: str) -> None:
    """Nobody reads or writes it, nor lets others in; the choice is the kernel's all the same."""
    chance = Random(scheduler)
    crowd = Crowd(director, scheduler, _weights(chance, 90))
    _play(crowd, chance, 30)
    record, before = crowd.record(), crowd.blocks()
    record.tree_taken = 1
    for _ in range(12):
        crowd.open()
        crowd.segment(chance.randrange(10**6), FIN)
    crowd.compare()
    assert crowd.blocks() == before
    assert record.tree_taken == 1
    record.tree_taken = 0
    for _ in range(12):
        crowd.open()
    crowd.compare()
    crowd.check_tree()
    director.table.delete_service(crowd.key)


# --- two CPUs ---------------------------------------------------------------


def _cpus() -> list[int]:
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) >= 2, "this test needs two CPUs"
    return cpus[:2]


BATCH = 1024


def _traffic(crowd: Crowd, programs: Walk, who: int, batches: int) -> Callable[[], None]:
    """Many connections of one CPU's clients at once: opened, closed on one side, reset, opened again."""
    chance = Random(who)
    client = bytes([10, 0, 20 + who, 0])
    frames = [
        Traffic(crowd.director.segment(crowd.key, 1024, flags, client=client))
        for flags in (SYN, SYN, ACK, FIN, RST)
    ]

    def send() -> None:
        for _ in range(batches):
            programs.run(
                TC, chance.choice(frames), BATCH, chance.randint(1, BATCH), first=BATCH * chance.randrange(2)
            )

    return send


def _at_once(crowd: Crowd, turn: int, batches: int, *more: Callable[[], None]) -> None:
    director = crowd.director
    with (
        new_walk(director.maps.folder, director.ifindex, 16) as one,
        new_walk(director.maps.folder, director.ifindex, 16) as other,
    ):
        traffic = [_traffic(crowd, walk, 2 * turn + who, batches) for who, walk in enumerate((one, other))]
        children.run_together(*traffic, *more, cpus=_cpus())


@pytest.mark.parametrize("scheduler", TREE_SCHEDULERS)
def test_two_cpus(make_director: Callable[[Capacity], Director], scheduler: str) -> None:
    """Whatever two CPUs did at once: when both are done, each next choice is the kernel's."""
    director = make_director(Capacity(32_768, 16, 512))
    crowd = Crowd(director, scheduler, _weights(Random(scheduler), 200))
    for turn in range(3):
        _at_once(crowd, turn, 150)
        crowd.take_counters()
        crowd.check_tree()
        for _ in range(250):
            crowd.open()
        crowd.compare()


def test_two_cpus_and_edits(make_director: Callable[[Capacity], Director]) -> None:
    """The same while a command changes weights, adds and deletes real servers."""
    director = make_director(Capacity(32_768, 16, 512))
    crowd = Crowd(director, "wlc", [1 + number % 3 for number in range(150)])

    def edit() -> None:
        chance = Random(0)
        for _ in range(150):
            with lock.table_lock(exclusive=True):
                match chance.randrange(3):
                    case 0:
                        crowd.edit(chance.randrange(10**6), chance.randrange(4), 0, 0)
                    case 1:
                        crowd.delete(chance.randrange(10**6))
                    case 2:
                        crowd.bring_back()
        while crowd.gone:
            crowd.bring_back()
        for server in list(crowd.servers):
            crowd.edit(crowd.servers.index(server), 1 + server.name % 3, 0, 0)

    _at_once(crowd, 0, 600, edit)
    director.another_command()
    listed = {(row.destination.address, row.destination.port): place
              for place, row in enumerate(director.listing(crowd.key).destinations)}  # fmt: skip
    crowd.servers.sort(key=lambda server: listed[(one := _destination(server, crowd.key)).address, one.port])
    _at_once(crowd, 1, 100)
    crowd.take_counters()
    for _ in range(200):
        crowd.open()
    crowd.compare()
