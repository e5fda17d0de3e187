# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the table in memory that the command line cannot reach.

Everything that ipvsadm can ask is covered by its transcripts.
"""

from __future__ import annotations

import pytest

from xlvs.datapath.interface import Datapath
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import InvalidOperation, NoSuchDestination, NoSuchService, OutOfRange, TableError
from xlvs.model import (
    IPV4,
    IPV6,
    TCP,
    TUNNEL,
    Destination,
    DestinationEntry,
    Service,
    ServiceEntry,
    ServiceKey,
    Stats,
    Timeouts,
    Tunnel,
)

pytestmark = pytest.mark.unit

KEY = ServiceKey(IPV4, TCP, b"\xc0\x00\x02\x01", 80)
KEY6 = ServiceKey(IPV6, TCP, bytes(15) + b"\x01", 80)
ONE = b"\x0a\x00\x00\x01"
TWO = b"\x0a\x00\x00\x02"


@pytest.fixture
def table() -> MemoryDatapath:
    datapath = MemoryDatapath()
    datapath.add_service(Service(KEY))
    return datapath


def test_it_is_a_datapath() -> None:
    datapath: Datapath = MemoryDatapath()
    assert (datapath.services(), list(datapath.connections())) == ([], [])


def test_the_newest_real_server_comes_first(table: MemoryDatapath) -> None:
    table.add_destination(KEY, Destination(ONE, 80))
    table.add_destination(KEY, Destination(TWO, 80))
    table.edit_destination(KEY, Destination(ONE, 80, weight=7))
    found = [
        (entry.destination.address, entry.destination.weight) for entry in table.service(KEY).destinations
    ]
    assert found == [(TWO, 1), (ONE, 7)]


@pytest.mark.parametrize(
    ("destination", "error"),
    [
        (Destination(ONE, 80, weight=-1), OutOfRange),
        (Destination(ONE, 80, upper_threshold=1, lower_threshold=2), OutOfRange),
        (Destination(ONE, 80, TUNNEL, tunnel=Tunnel("gue")), InvalidOperation),
        (Destination(bytes(15) + b"\x01", 80), InvalidOperation),
        (Destination(bytes(4), 80), InvalidOperation),
    ],
)
def test_refusals_change_nothing(
    table: MemoryDatapath, destination: Destination, error: type[TableError]
) -> None:
    before = table.services()
    with pytest.raises(error):
        table.add_destination(KEY, destination)
    assert table.services() == before


@pytest.mark.parametrize("netmask", [0, 129])
def test_an_ipv6_prefix_must_be_one(table: MemoryDatapath, netmask: int) -> None:
    with pytest.raises(InvalidOperation):
        table.add_service(Service(KEY6, persistence=60, netmask=netmask))


def test_what_is_not_there(table: MemoryDatapath) -> None:
    with pytest.raises(NoSuchService):
        table.service(KEY6)
    with pytest.raises(NoSuchService):
        table.zero(KEY6)
    with pytest.raises(NoSuchDestination):
        table.delete_destination(KEY, ONE, 80)


def test_zeroing() -> None:
    stats = Stats(1, 2, 3, 4, 5)
    real = DestinationEntry(Destination(ONE, 80), active=1, stats=stats)
    entries = [ServiceEntry(Service(key), (real,), stats) for key in (KEY, KEY6)]
    table = MemoryDatapath(entries)
    table.zero(KEY)
    assert table.service(KEY).stats == table.service(KEY).destinations[0].stats == Stats()
    assert table.service(KEY).destinations[0].active == 1
    assert table.service(KEY6).stats == stats
    table.zero()
    assert table.service(KEY6).stats == Stats()


def test_a_timeout_of_zero_stays(table: MemoryDatapath) -> None:
    table.set_timeouts(Timeouts(1, 0, 3))
    assert table.timeouts() == Timeouts(1, 120, 3)
