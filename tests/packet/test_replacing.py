# SPDX-License-Identifier: GPL-2.0-only
"""A table put in the place of another: packets see one or the other, never some of both."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import partial

import pytest

from tests.packet import children
from tests.packet.director import SENT, VIP6, Director, real_server, real_server6
from tests.packet.packets import ACK, SYN, UDP
from xlvs.datapath.load import Capacity
from xlvs.errors import InvalidOperation, SchedulerNotFound, TableFull
from xlvs.model import MASQUERADE, Destination, Service, ServiceKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import Table


@pytest.fixture
def own(make_director: Callable[[Capacity], Director]) -> Director:
    """A director of one test: the whole table is its own."""
    return make_director(Capacity(connections=8192, services=8, destinations=32))


def definitions(director: Director) -> Table:
    return [
        (entry.service, [one.destination for one in entry.destinations])
        for entry in director.table.services()
    ]


def servers(*numbers: int, weight: int = 1) -> list[Destination]:
    return [Destination(real_server(number), 80, weight=weight) for number in numbers]


def sent_to(director: Director, key: ServiceKey, count: int) -> list[int]:
    """The real servers that so many new connections go to, by their number."""
    before = {one.destination.address: one.stats.connections for one in director.listing(key).destinations}
    chosen = []
    for _ in range(count):
        director.open(key)
        for one in director.listing(key).destinations:
            if one.stats.connections > before[one.destination.address]:
                chosen.append(one.destination.address[3] - 10)
            before[one.destination.address] = one.stats.connections
    return chosen


def test_the_table_is_what_was_wanted_and_packets_go_by_it(own: Director) -> None:
    kept, gone, new = own.unused_key(), own.unused_key(), own.unused_key()
    six = own.unused_key(address=VIP6)
    own.table.replace([(Service(kept, "rr"), servers(1, 2)), (Service(gone), servers(3))])
    table = [
        (Service(kept, "wrr", persistence=0), servers(4, weight=2) + servers(2)),
        (Service(new, "rr"), servers(3, 1)),
        (Service(six, "rr"), [Destination(real_server6(1), 80, MASQUERADE, 5)]),
    ]
    own.table.replace(table)
    assert sorted(definitions(own), key=str) == sorted(table, key=str)
    own.another_command()
    assert sorted(definitions(own), key=str) == sorted(table, key=str)
    assert sorted(sent_to(own, kept, 3)) == [2, 4, 4]
    assert sent_to(own, new, 4) == [3, 1, 3, 1]
    own.open(six)
    assert own.tc(own.segment(gone, own.unused_port(), SYN))[0] != SENT
    own.table.replace([])
    assert definitions(own) == []


def test_what_is_in_both_keeps_its_connections_and_counters(own: Director) -> None:
    key = own.unused_key()
    own.table.replace([(Service(key, "rr"), servers(1, 2))])
    port = own.open(key, ACK)
    holder = next(one for one in own.listing(key).destinations if one.active).destination
    own.table.replace([(Service(key, "wlc"), [holder.replace(weight=7), *servers(3)])])
    entry = own.entry(key, holder.address)
    assert (entry.active, entry.stats.in_packets, entry.destination.weight) == (1, 2, 7)
    assert own.tc(own.segment(key, port, ACK))[0] == SENT
    assert own.entry(key, holder.address).stats.in_packets == 3
    # Out and in again: it comes back with what it had.
    own.table.replace([(Service(key, "wlc"), servers(3))])
    own.table.replace([(Service(key, "wlc"), [holder, *servers(3)])])
    assert own.entry(key, holder.address).active == 1


def test_an_unchanged_service_goes_on_where_it_was(own: Director) -> None:
    key, other = own.unused_key(), own.unused_key()
    table = [(Service(key, "rr"), servers(1, 2, 3))]
    own.table.replace(table)
    first = sent_to(own, key, 1)
    own.table.replace([*table, (Service(other), servers(1))])
    assert first + sent_to(own, key, 5) == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("service", "destinations", "error"),
    [
        (Service(ServiceKey(2, 6, bytes([10, 0, 0, 100]), 9), "nosuch"), servers(1), SchedulerNotFound),
        (Service(ServiceKey(2, 6, bytes([10, 0, 0, 100]), 9)), [Destination(bytes([224, 0, 0, 1]), 80)],
         InvalidOperation),
        (Service(ServiceKey(2, 6, bytes([10, 0, 0, 100]), 9)), [Destination(real_server(1), port)
                                                                for port in range(1, 40)], TableFull),
    ],
)  # fmt: skip
def test_what_cannot_be_changes_nothing(
    own: Director, service: Service, destinations: list[Destination], error: type[Exception]
) -> None:
    key = own.unused_key()
    own.table.replace([(Service(key, "rr"), servers(1, 2))])
    own.open(key)
    own.table.delete_destination(key, real_server(1), 80)  # it is remembered
    before = definitions(own)
    wanted = [(Service(own.unused_key(), "wrr"), servers(4)), (Service(key, "sh"), servers(1, 5))]
    for _ in range(50):  # nothing that was found for it is lost
        with pytest.raises(error):
            own.table.replace([*wanted, (service, destinations)])
        assert definitions(own) == before
    own.table.replace(wanted)
    assert sorted(definitions(own), key=str) == sorted(wanted, key=str)


class Turns:
    """What a test and the senders beside it tell each other: how many tables there were, what was seen."""

    def __init__(self) -> None:
        self._told = memoryview(mmap.mmap(-1, 32)).cast("Q")

    @property
    def begun(self) -> int:
        """Tables so far."""
        return self._told[0]

    @property
    def over(self) -> bool:
        """Whether there are no more."""
        return bool(self._told[1])

    def judged(self, sender: int) -> None:
        """A sender has seen what it was to see."""
        self._told[2 + sender] = 1

    def play(self, own: Director, table: Callable[[int], Table], send: Callable[[int], None]) -> None:
        """Put sixty tables in each other's place while two senders send.

        However busy the machine is, each of them judges something in every ten turns.
        """
        senders = [children.start(partial(send, number)) for number in range(2)]
        for count in range(1, 61):
            if count % 10 == 1:
                while not all(self._told[2:]) and count > 1 and all(map(children.is_running, senders)):
                    os.sched_yield()
                self._told[2] = self._told[3] = 0
            self._told[0] = count
            own.table.replace(table(count))
            os.sched_yield()
        self._told[1] = 1
        assert [children.status_of(one) for one in senders] == [0, 0]


def test_packets_never_find_a_service_missing_or_without_real_servers(own: Director) -> None:
    key, others = own.unused_key(UDP), [own.unused_key() for _ in range(5)]
    # One packet each: there is no connection that could be of a real server that has gone.
    one_packet = Service(key, "rr", one_packet=True)
    tables = [
        [(one_packet, servers(1, 2)), *((Service(one), servers(5)) for one in others)],
        [(one_packet.replace(scheduler="mh"), servers(3, 4))],
    ]
    own.table.replace(tables[0])
    turns = Turns()

    def send(number: int) -> None:
        port = 1024
        while not turns.over:
            port = port % 60000 + 1024
            verdict, _ = own.tc(own.segment(key, port, SYN))
            assert verdict == SENT
            turns.judged(number)

    turns.play(own, lambda turn: tables[turn % 2], send)


def test_packets_never_see_some_of_one_table_and_some_of_another(own: Director) -> None:
    first, last = own.unused_key(UDP), own.unused_key(UDP)
    between = [own.unused_key() for _ in range(5)]
    different = 4

    def table(turn: int) -> Table:
        chosen = Destination(real_server(1 + turn % different), 80, MASQUERADE)
        ends = [(Service(key, "rr", one_packet=True), [chosen]) for key in (first, last)]
        return [ends[0], *((Service(key), servers(5 + turn % 2)) for key in between), ends[1]]

    own.table.replace(table(0))
    turns = Turns()

    def send(number: int) -> None:
        port = 1024

        def seen(key: ServiceKey) -> int:
            verdict, frame = own.tc(own.segment(key, port, SYN))
            assert verdict == SENT
            return frame[33] - real_server(1)[3]  # the last byte of the IPv4 destination

        while not turns.over:
            port = port % 60000 + 1024
            turn = turns.begun
            before, other, after = seen(first), seen(last), seen(first)
            # Some turns may have passed, but none backwards. A sender that had to wait for
            # its processor may have missed so many that they look like fewer.
            if turns.begun - turn < different - 1:
                assert (other - before) % different <= (after - before) % different
                turns.judged(number)

    turns.play(own, table, send)
