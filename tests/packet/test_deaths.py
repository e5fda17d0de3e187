# SPDX-License-Identifier: GPL-2.0-only
"""A command that dies at any point leaves a table that works, and the next one mends it."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import pytest

import xlvs.datapath
from tests.packet import children
from tests.packet.director import SENT, VIP, VIP6, Director, real_server, real_server6
from tests.packet.packets import ACK, SYN, TCP
from xlvs.datapath import open_datapath
from xlvs.datapath.interface import Datapath
from xlvs.datapath.records import packed_key
from xlvs.errors import TableError
from xlvs.kernel import abi, bpf
from xlvs.model import Destination, Service, ServiceEntry, ServiceKey

FOLDER = os.path.dirname(xlvs.datapath.__file__)
WHERE = tuple(f"{FOLDER}/{name}.py" for name in ("adding", "ebpf", "places", "replacing", "runs"))
"""Where the stores are made, or ordered."""
KEY = ServiceKey(2, TCP, VIP, 80)
OTHER = ServiceKey(2, TCP, VIP, 443)


def _prepare(director: Director) -> int:
    """A service with two real servers and a connection; returns its client port."""
    with open_datapath(write=True) as table:
        table.flush()
        table.add_service(Service(KEY, "rr"))
        for number in (1, 2):
            table.add_destination(KEY, Destination(real_server(number), 80))
    return director.open(KEY, ACK)


def _servers(*numbers: int) -> list[Destination]:
    return [Destination(real_server(number), 80) for number in numbers]


CHANGES: dict[str, Callable[[Datapath], None]] = {
    "add service": lambda table: table.add_service(Service(OTHER, "wrr")),
    "add services": lambda table: table.add_services([(Service(OTHER, "wrr"), _servers(3, 1))]),
    "replace": lambda table: table.replace(
        [(Service(KEY, "wrr"), _servers(2, 3, 1)), (Service(OTHER, "rr"), _servers(1))]
    ),
    "edit service": lambda table: table.edit_service(Service(KEY, "wrr")),
    "delete service": lambda table: table.delete_service(KEY),
    "add real server": lambda table: table.add_destination(KEY, Destination(real_server(3), 80)),
    "edit real server": lambda table: table.edit_destination(KEY, Destination(real_server(1), 80, weight=7)),
    "delete real server": lambda table: table.delete_destination(KEY, real_server(1), 80),
    "zero": lambda table: table.zero(),
    "flush": lambda table: table.flush(),
}


class Death(BaseException):
    """Ends a change at once; only what would be closed anyway is done on its way out."""


def _dies_at(line: int, change: Callable[[Datapath], None]) -> bool:
    """Make a change, and die at the n-th line that the table's code executes; False past the last."""
    left = line

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in WHERE:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Death
        return trace

    before = sys.gettrace()
    try:
        with open_datapath(write=True) as table:
            sys.settrace(trace)  # type: ignore[arg-type]
            change(table)
            sys.settrace(before)
    except Death:
        return True
    finally:
        sys.settrace(before)
    return False


def _check_whole(director: Director) -> None:
    """The table is one that commands could have made; packets agree with it."""
    with open_datapath() as table:
        table.services()  # a listing works even before anybody mends anything
    with open_datapath(write=True) as table:
        listed = table.services()
    assert [entry.service.key for entry in listed] == _services_that_packets_find(director, listed)
    _check_records(director)
    for entry in listed:
        if any(one.destination.weight for one in entry.destinations):
            frame = director.segment(entry.service.key, director.unused_port(), SYN)
            assert director.tc(frame)[0] == SENT


def _services_that_packets_find(director: Director, listed: list[ServiceEntry]) -> list[ServiceKey]:
    index = director.maps.descriptor("service_index")
    return [
        entry.service.key
        for entry in listed
        if bpf.lookup(index, director.maps.index_key(packed_key(entry.service.key)), 4) is not None
    ]


def _check_records(director: Director) -> None:
    """What is available belongs to a service, once, and its weight is the one that is scheduled."""
    maps = director.maps
    pool = maps.pool()
    scheduled = []
    for index, flags in enumerate(maps.flags("services", abi.Service, maps.settings.services_top)):
        if not flags:
            continue
        run = maps.service(index).run
        assert run
        for offset in range(pool[run + 1] & 0xFFFFFFFF):
            pick = pool[run + abi.RUN_HEADER + offset]
            record = maps.destination(pick & 0xFFFFFFFF)
            assert record.flags & abi.DESTINATION_AVAILABLE
            assert record.weight == pick >> 32
            assert record.service == index
            scheduled.append(pick & 0xFFFFFFFF)
    every = maps.flags("destinations", abi.Destination, maps.settings.destinations_top)
    available = [index for index, value in enumerate(every) if value & abi.DESTINATION_AVAILABLE]
    assert sorted(scheduled) == available


def _check_empty_after_deletion(director: Director) -> None:
    """Every listed service can be deleted, and then nothing is left, seen or unseen."""
    with open_datapath(write=True) as table:
        for entry in table.services():
            table.delete_service(entry.service.key)
        assert table.services() == []
    _check_records(director)
    index = director.maps.descriptor("service_index")
    for key in (KEY, OTHER, *MANY_KEYS):
        assert bpf.lookup(index, director.maps.index_key(packed_key(key)), 4) is None


@pytest.mark.parametrize("name", CHANGES)
def test_death_at_every_line(director: Director, name: str) -> None:
    line = 1
    port = _prepare(director)
    while _dies_at(line, CHANGES[name]):
        assert director.maps.settings.changing
        _check_whole(director)
        assert not director.maps.settings.changing
        with open_datapath() as table:
            kept = [entry for entry in table.services() if entry.service.key == KEY]
        if kept and len(kept[0].destinations) >= 2:
            assert director.tc(director.segment(KEY, port, ACK))[0] == SENT
        port = _prepare(director)
        line += 1
    assert line > 20
    _check_whole(director)
    _check_empty_after_deletion(director)


MANY_KEYS = [
    ServiceKey(family, TCP, address, port)
    for family, address in ((2, VIP), (10, VIP6))
    for port in range(8000, 8006)
]


def _change_for_ever(seed: int) -> None:
    """Commands without end, each as a process of its own would make them."""
    choose = random.Random(seed)
    while True:
        key = choose.choice(MANY_KEYS)
        server = (real_server if key.family == 2 else real_server6)(choose.randrange(1, 9))
        destination = Destination(server, key.port, weight=choose.randrange(4))
        try:
            with open_datapath(write=True) as table:
                match choose.randrange(8):
                    case 0 | 1:
                        table.add_service(Service(key, choose.choice(["rr", "wrr", "lc", "wlc"])))
                    case 2:
                        table.delete_service(key)
                    case 3:
                        table.edit_destination(key, destination)
                    case 4:
                        table.delete_destination(key, server, key.port)
                    case _:
                        table.add_destination(key, destination)
        except TableError:
            continue


def test_killed_again_and_again(director: Director) -> None:
    """Two writers at once, killed at random moments; a third one finds a table that works."""
    choose = random.Random(11)
    for turn in range(60):
        writers = [children.start(lambda seed=turn * 2 + n: _change_for_ever(seed)) for n in (0, 1)]  # type: ignore[misc]
        time.sleep(choose.uniform(0.003, 0.06))
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
        for writer in writers:
            assert children.status_of(writer) == -signal.SIGKILL
        _check_whole(director)
    assert director.maps.settings.destinations_top > 0
    _check_empty_after_deletion(director)
