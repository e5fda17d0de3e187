# SPDX-License-Identifier: GPL-2.0-only
"""Many commands at once in one namespace: no update is lost."""

from __future__ import annotations

from collections.abc import Callable

from tests.packet import children
from tests.packet.director import SENT, VIP, Director
from tests.packet.packets import SYN, TCP
from tests.packet.spaces import ip
from xlvs.datapath import open_datapath
from xlvs.errors import DestinationExists, ServiceExists
from xlvs.model import Destination, Service, ServiceKey

WRITERS = 20
EACH = 12
SHARED = ServiceKey(2, TCP, VIP, 80)


def _server(writer: int, number: int) -> bytes:
    return bytes([10, 0, 32 + writer, number])


def _write(writer: int) -> Callable[[], None]:
    """Commands of one writer: its own service, and real servers in everybody's."""
    own = ServiceKey(2, TCP, VIP, 1000 + writer)

    def run() -> None:
        try:
            with open_datapath(write=True) as table:
                table.add_service(Service(SHARED, "wlc"))
        except ServiceExists:
            pass
        with open_datapath(write=True) as table:
            table.add_service(Service(own, "rr"))
        for number in range(EACH):
            for key in (own, SHARED):
                with open_datapath(write=True) as table:
                    table.add_destination(key, Destination(_server(writer, number), 80))
        for number in range(EACH):
            with open_datapath(write=True) as table:
                table.edit_destination(SHARED, Destination(_server(writer, number), 80, weight=number))
        for number in range(0, EACH, 2):
            with open_datapath(write=True) as table:
                table.delete_destination(SHARED, _server(writer, number), 80)
        with open_datapath() as table:
            entry = table.service(own)
            assert len(entry.destinations) == EACH

    return run


def test_no_update_is_lost(director: Director) -> None:
    ip("route add 10.0.32.0/19 dev eth0")
    children.run_together(*(_write(writer) for writer in range(WRITERS)))
    listed = {entry.service.key: entry for entry in director.table.services()}
    assert len(listed) == WRITERS + 1
    for writer in range(WRITERS):
        entry = listed[ServiceKey(2, TCP, VIP, 1000 + writer)]
        servers = [one.destination.address for one in entry.destinations]
        assert servers == [_server(writer, number) for number in reversed(range(EACH))]
    shared = {one.destination.address: one.destination.weight for one in listed[SHARED].destinations}
    assert shared == {
        _server(writer, number): number for writer in range(WRITERS) for number in range(1, EACH, 2)
    }
    for key in listed:
        assert director.tc(director.segment(key, director.unused_port(), SYN))[0] == SENT


def test_only_one_of_many_adds_it(director: Director) -> None:
    key = director.service()
    server = Destination(_server(99, 1), 80)
    refusals = children_that_fail(lambda: _add(key, server), 10)
    assert refusals == 9
    found = [one for one in director.listing(key).destinations if one.destination == server]
    assert len(found) == 1


def _add(key: ServiceKey, server: Destination) -> bool:
    try:
        with open_datapath(write=True) as table:
            table.add_destination(key, server)
    except DestinationExists:
        return False
    return True


def children_that_fail(attempt: Callable[[], bool], count: int) -> int:
    """How many of that many children, at once, report that their attempt failed."""

    def run() -> None:
        if not attempt():
            raise SystemExit

    started = [children.start(run) for _ in range(count)]
    return sum(children.status_of(child) != 0 for child in started)
