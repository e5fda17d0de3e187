# SPDX-License-Identifier: GPL-2.0-only
"""Any sequence of commands: the same listing and the same refusals as the kernel's table in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet.director import VIP, VIP6, Director, real_server, real_server6
from tests.packet.packets import TCP, UDP, packed
from xlvs.datapath.describing import SPECIAL
from xlvs.datapath.interface import Datapath
from xlvs.datapath.load import Capacity
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import TableError, TableFull
from xlvs.kernel import abi
from xlvs.model import Destination, Rates, Service, ServiceEntry, ServiceKey, Tunnel

KEYS = [
    ServiceKey(family, protocol, address, port)
    for family, address in ((2, VIP), (10, VIP6))
    for protocol in (TCP, UDP)
    for port in (80, 443)
]
ADDRESSES = [real_server(n) for n in (1, 2, 3)] + [real_server6(n) for n in (1, 2, 3)] + [
    packed(text)
    for text in (
        "127.0.0.1", "240.0.0.1", "172.31.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "239.1.2.3",
        "::1", "fd77::1", "::", "ff02::1", "fe80::1", "febf::1", "::ffff:10.0.0.1",
    )
]  # fmt: skip

keys = st.sampled_from(KEYS)
services = st.builds(Service, keys, st.sampled_from(["rr", "wrr", "lc", "wlc", "wlc", "nonsense", ""]))
destinations = st.builds(
    Destination,
    st.sampled_from(ADDRESSES[:6]) | st.sampled_from(ADDRESSES),
    st.sampled_from([80, 8080]),
    weight=st.integers(-1, 3) | st.just(2147483647),
)
Command = Callable[[Datapath], object]
commands = st.one_of(
    services.map(lambda service: ("add_service", service)),
    services.map(lambda service: ("edit_service", service)),
    keys.map(lambda key: ("delete_service", key)),
    st.lists(st.tuples(services, st.lists(destinations, max_size=4)), max_size=4).map(
        lambda table: ("add_services", table)
    ),
    st.tuples(keys, destinations).map(lambda both: ("add_destination", *both)),
    st.tuples(keys, destinations).map(lambda both: ("add_destination", *both)),
    st.tuples(keys, destinations).map(lambda both: ("edit_destination", *both)),
    st.tuples(keys, destinations).map(
        lambda both: ("delete_destination", both[0], both[1].address, both[1].port)
    ),
    st.sampled_from([("flush",), ("zero",)]),
    keys.map(lambda key: ("zero", key)),
)


def _run(table: Datapath, command: tuple[object, ...]) -> type[TableError] | None:
    name, *arguments = command
    try:
        getattr(table, str(name))(*arguments)
    except TableError as error:
        return type(error)
    return None


def _listed(table: Datapath) -> dict[ServiceKey, ServiceEntry]:
    """The table without its rates, which change by themselves."""
    found = table.services()
    assert len({entry.service.key for entry in found}) == len(found)
    for entry in found:
        entry.rates = Rates()
        for destination in entry.destinations:
            destination.rates = Rates()
    return {entry.service.key: entry for entry in found}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(commands, st.booleans()), max_size=30))
def _compare(director: Director, history: list[tuple[tuple[object, ...], bool]]) -> None:
    director.another_command()
    director.table.flush()
    model: Datapath = MemoryDatapath()
    for command, as_another_process in history:
        if as_another_process:
            director.another_command()
        refused, expected = _run(director.table, command), _run(model, command)
        if command[0] == "add_services":  # of several reasons it may give any
            assert (refused is None) == (expected is None), command
        else:
            assert refused == expected, command
        assert _listed(director.table) == _listed(model), command
        for key in KEYS:
            assert _run(director.table, ("service", key)) == _run(model, ("service", key))
        rows = {row[0].key: row for row in director.table.table()}
        assert rows == {key: director.table.row(key) for key in rows}


def test_any_sequence_of_commands(director: Director) -> None:
    _compare(director)


def test_room_for_services_and_real_servers(make_director: Callable[[Capacity], Director]) -> None:
    """What is stated fits, one more is refused, and what goes makes room again."""
    director = make_director(Capacity(64, services=10, destinations=20))
    for turn in range(3):
        keys = [ServiceKey(2, TCP, VIP, 1000 + 100 * turn + n) for n in range(10)]
        for key in keys:
            director.another_command()
            director.table.add_service(Service(key, "wrr"))
        with pytest.raises(TableFull):
            director.table.add_service(Service(ServiceKey(2, TCP, VIP, 99), "rr"))
        for number in range(20):
            director.another_command()
            director.table.add_destination(keys[number % 10], Destination(bytes([10, 0, 0, number]), 80))
        before = _listed(director.table)
        with pytest.raises(TableFull):
            director.table.add_destination(keys[0], Destination(bytes([10, 0, 0, 99]), 80))
        assert _listed(director.table) == before
        for key in keys:
            director.another_command()
            director.table.delete_service(key)
        assert director.table.services() == []


@pytest.mark.parametrize("scheduler", ["wlc", "mh"])
def test_one_service_with_all_real_servers(
    make_director: Callable[[Capacity], Director], scheduler: str
) -> None:
    """Every change writes a second run beside the first: the pool has room for both."""
    director = make_director(Capacity(64, services=4, destinations=300))
    key = ServiceKey(2, TCP, VIP, 80)
    director.table.add_service(Service(key, scheduler))
    for number in range(300):
        director.another_command()
        director.table.add_destination(key, Destination(bytes([10, 5, number >> 8, number & 255]), 80))
    for number in range(300):
        director.another_command()
        address = bytes([10, 5, number >> 8, number & 255])
        director.table.edit_destination(key, Destination(address, 80, weight=number))
    entry = director.table.service(key)
    assert [one.destination.weight for one in entry.destinations] == list(range(299, -1, -1))


def test_adding_at_once_writes_what_adding_one_by_one_does(
    make_director: Callable[[Capacity], Director],
) -> None:
    table = [
        (Service(ServiceKey(2, TCP, VIP, 21), scheduler="wrr", persistence=60, netmask=24), [1, 2, 3]),
        (Service(ServiceKey(2, TCP, VIP, 80), "mh", idle_timeout=7, reject_gone=True), [1, 3]),
        (Service(ServiceKey(2, UDP, VIP, 53), "sh", 3, rehome=True), [2]),
        (Service(ServiceKey(10, TCP, VIP6, 0), "rr", persistence=9), []),
        (Service(ServiceKey(2, fwmark=7), "dh"), [2, 1]),
    ]  # fmt: skip
    servers = {number: Destination(real_server(number), 80, weight=2 * number) for number in (1, 2)}
    servers[3] = Destination(real_server(3), 0, "tunnel", 5, 9, 4, Tunnel("gue", 6080, "csum"))
    first = [(service, [servers[number] for number in numbers]) for service, numbers in table]
    # What returns may be described otherwise than it was.
    servers[1] = servers[1].replace(weight=0, upper_threshold=8, lower_threshold=2)
    servers[2] = servers[2].replace(method="tunnel", tunnel=Tunnel("gre", 0, "csum"))
    then = [(service, [servers[number] for number in numbers]) for service, numbers in table]
    images = []
    for at_once in (True, False):
        director = make_director(Capacity(64, services=8, destinations=32))
        # On records that nobody has used, then on those of real servers that return.
        for wanted in (first, then):
            for index in range(director.maps.settings.destinations_top):
                record = director.maps.destination(index)
                # The way of one of two is known to the packet path, which is the better judge.
                record.refreshed, record.interface = index % 2, 99
            director.another_command()
            director.table.flush()
            director.another_command()
            if at_once:
                director.table.add_services(wanted)
            else:
                for service, destinations in wanted:
                    director.table.add_service(service)
                    for destination in reversed(destinations):
                        director.table.add_destination(service.key, destination)
                    director.another_command()
            images.append(_image(director))
    assert images[:2] == images[2:]


def test_of_those_added_at_once_some_return_and_some_are_new(
    make_director: Callable[[Capacity], Director],
) -> None:
    director = make_director(Capacity(64, services=8, destinations=32))
    key = ServiceKey(2, UDP, VIP, 53)
    before = [Destination(real_server(number), 53, weight=number) for number in (1, 2, 3)]
    director.table.add_services([(Service(key, "rr"), before)])
    director.table.delete_service(key)
    director.another_command()
    after = [Destination(real_server(number), 53, weight=10 * number) for number in (4, 5, 2)]
    director.table.add_services([(Service(key, "rr"), after)])
    listed = {
        one.destination.address: one.destination.weight for one in director.table.service(key).destinations
    }
    assert listed == {real_server(number): 10 * number for number in (2, 4, 5)}


def _image(director: Director) -> list[object]:
    """What the maps have of services and real servers, wherever their runs stand."""
    maps, image = director.maps, []
    settings, pool = maps.settings, maps.pool()
    for index in range(settings.services_top):
        record = maps.service(index)
        header = pool[record.run + 1]
        words = pool[record.run : record.run + abi.RUN_HEADER + (header & 0xFFFFFFFF)].tolist()
        copy = abi.Service.from_buffer_copy(record)
        copy.run = copy.virtual_local = 0
        image += [bytes(copy), words]
    for index in range(settings.destinations_top):
        server = abi.Destination.from_buffer_copy(maps.destination(index))
        server.removed = 0
        image.append(bytes(server))
    return [*image, *(getattr(settings, name) for name in SPECIAL), sorted(_listed(director.table), key=str)]


def test_a_refused_command_changes_nothing(director: Director) -> None:
    key = director.service(1, 1)
    director.open(key)
    director.another_command()
    before = director.snapshot(), _listed(director.table)
    other = ServiceKey(2, TCP, VIP, 1)
    for command in (
        ("add_service", Service(key)),
        ("add_service", Service(other, "nonsense")),
        ("edit_service", Service(key, "nonsense")),
        ("edit_service", Service(other)),
        ("delete_service", other),
        ("add_destination", other, Destination(real_server(3), 80)),
        ("add_destination", key, Destination(real_server(1), key.port)),
        ("add_destination", key, Destination(real_server(3), 80, "bypass")),
        ("add_destination", key, Destination(real_server6(1), 80, "masq")),
        ("add_destination", key, Destination(real_server(3), 80, "tunnel", tunnel=Tunnel(checksum="csum"))),
        (
            "add_destination",
            key,
            Destination(real_server(3), 80, "tunnel", tunnel=Tunnel("gre", 0, "remcsum")),
        ),
        ("edit_destination", key, Destination(real_server(1), key.port, "bypass")),
        ("add_destination", key, Destination(packed("224.0.0.1"), 80)),
        ("add_destination", key, Destination(real_server6(1), 80)),
        ("edit_destination", key, Destination(real_server(3), 80)),
        ("edit_destination", key, Destination(real_server(1), key.port, weight=-1)),
        ("delete_destination", key, real_server(1), 1),
        ("zero", other),
    ):
        assert _run(director.table, command) is not None
        assert (director.snapshot(), _listed(director.table)) == before, command


def test_records_of_the_living_only(director: Director) -> None:
    """After everything is deleted no record is in use."""
    director.another_command()
    for entry in director.table.services():
        director.table.delete_service(entry.service.key)
    services = director.maps.flags("services", abi.Service, director.maps.settings.services_top)
    assert not any(services)
    flags = director.maps.flags("destinations", abi.Destination, director.maps.settings.destinations_top)
    assert not any(value & abi.DESTINATION_AVAILABLE for value in flags)
