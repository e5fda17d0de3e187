# SPDX-License-Identifier: GPL-2.0-only
"""Rules that give packets a firewall mark, and the services of marks.

Which rule a packet matches is said here once more, with Python's ipaddress.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.packet.director import (
    CLIENT,
    CLIENT6,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_TX,
    Director,
    new_director,
    real_server,
    real_server6,
)
from tests.packet.icmp_errors import PORT_UNREACHABLE, error_about
from tests.packet.packets import ACK, SYN, TCP, UDP, packed, with_one_hop_less
from tests.packet.translated import whole_packet
from xlvs import errors
from xlvs.kernel import abi
from xlvs.model import IPV4, IPV6, MASQUERADE, ROUTE, Destination, MarkRule, Prefix, Service, ServiceKey

MARKS = 6
ELSEWHERE = packed("203.0.113.7")
ELSEWHERE6 = packed("2001:db8::7")
ANYWHERE = Prefix(bytes(4), 0)
ANYWHERE6 = Prefix(bytes(16), 0)


class Probe(NamedTuple):
    """The packet that begins a connection."""

    source: bytes
    source_port: int
    destination: bytes
    port: int
    protocol: int


@pytest.fixture
def director() -> Iterator[Director]:
    """A director for one test: rules are for everybody."""
    with new_director() as made:
        yield made


def add_service(
    director: Director, mark: int, *servers: bytes, method: str = ROUTE, port: int = 0, scheduler: str = "rr"
) -> ServiceKey:
    """A service of a mark with real servers of one family."""
    key = ServiceKey(IPV4 if len(servers[0]) == 4 else IPV6, fwmark=mark)
    director.table.add_service(Service(key, scheduler))
    for server in servers:
        director.table.add_destination(key, Destination(server, port, method))
    return key


def send(director: Director, probe: Probe, flags: int = SYN, mark: int = 0) -> tuple[int, bytes, bytes]:
    """Give the packet to TC: the verdict, the frame and what became of it."""
    source, destination = (probe.source, probe.source_port), (probe.destination, probe.port)
    frame = director.frame(whole_packet(probe.protocol, source, destination, flags=flags))
    verdict, after = director.tc(frame, mark=mark)
    return verdict, frame, after


def mark_given(director: Director, probe: Probe, mark: int = 0) -> int:
    """To which mark's service a packet went, where each masquerades to its own real server; else 0."""
    verdict, frame, after = send(director, probe, mark=mark)
    if verdict == UNTOUCHED:
        assert after == frame
        return 0
    assert verdict == SENT
    ipv4 = len(probe.destination) == 4
    address = after[30:34] if ipv4 else after[38:54]
    server = real_server if ipv4 else real_server6
    (number,) = (number for number in range(1, MARKS + 1) if server(number) == address)
    source, translated = (probe.source, probe.source_port), (address, probe.port)
    assert after == with_one_hop_less(
        director.frame(whole_packet(probe.protocol, source, translated, flags=SYN))
    )
    return number


def one_service_for_each_mark(director: Director) -> None:
    for mark in range(1, MARKS + 1):
        add_service(director, mark, real_server(mark), method=MASQUERADE)
        add_service(director, mark, real_server6(mark), method=MASQUERADE)


def matches(rule: MarkRule, probe: Probe) -> bool:
    def inside(prefix: Prefix | None, address: bytes) -> bool:
        if prefix is None:
            return True
        network = ipaddress.ip_network((prefix.address, prefix.length))
        return ipaddress.ip_address(address) in network

    def among(ranges: tuple[tuple[int, int], ...], port: int) -> bool:
        return not ranges or any(first <= port <= last for first, last in ranges)

    return (
        inside(rule.destination, probe.destination)
        and inside(rule.source, probe.source)
        and rule.protocol in (0, probe.protocol)
        and among(rule.ports, probe.port)
        and among(rule.source_ports, probe.source_port)
    )


NETWORKS = {
    4: (packed("203.0.113.0"), packed("198.51.100.0")),
    16: (packed("2001:db8:0:1::"), packed("2001:db8:0:2::")),
}


@st.composite
def near(draw: st.DrawFn, base: bytes) -> bytes:
    """An address that shares any number of bits with ``base``; never a loopback or multicast one."""
    bits = len(base) * 8
    kept = draw(st.integers(3, bits))
    changed = int.from_bytes(base, "big") ^ (draw(st.integers(0, (1 << bits) - 1)) & (1 << bits - kept) - 1)
    address = changed.to_bytes(len(base), "big")
    return base if address[0] in (0, 127) or address[0] >= 224 else address


@st.composite
def prefixes(draw: st.DrawFn, base: bytes) -> Prefix:
    bits = len(base) * 8
    length = draw(st.integers(0, bits) | st.sampled_from([0, bits // 4, bits // 2, bits - 1, bits]))
    number = int.from_bytes(draw(near(base)), "big") >> bits - length << bits - length
    return Prefix(number.to_bytes(len(base), "big"), length)


PORT = st.integers(1, 65535) | st.integers(78, 90)
RANGES = st.lists(st.tuples(PORT, PORT).map(lambda ends: (min(ends), max(ends))), max_size=10).map(tuple)


@st.composite
def rules(draw: st.DrawFn, size: int) -> MarkRule:
    to, of = NETWORKS[size]
    source = draw(st.none() | prefixes(of))
    return MarkRule(
        draw(st.integers(1, MARKS)),
        draw(prefixes(to)),
        source if source is None or source.length else None,
        draw(st.sampled_from([0, TCP, UDP])),
        draw(st.just(()) | RANGES),
        draw(st.just(()) | st.just(()) | RANGES),
    )


@st.composite
def probes(draw: st.DrawFn, size: int) -> Probe:
    to, of = NETWORKS[size]
    protocol = draw(st.sampled_from([TCP, UDP]))
    return Probe(
        draw(near(of)), draw(PORT.filter(lambda port: port != 20)), draw(near(to)), draw(PORT), protocol
    )


@pytest.mark.parametrize("size", [4, 16], ids=["ipv4", "ipv6"])
def test_the_first_rule_that_matches(director: Director, size: int) -> None:
    one_service_for_each_mark(director)
    table = director.maps.connection_slots()
    nobody = bytes(len(table))
    seen = set()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        listed = data.draw(
            st.lists(rules(4) | rules(16) | rules(size), max_size=8, unique_by=lambda rule: rule.conditions)
        )
        director.table.set_mark_rules(listed)
        assert director.table.mark_rules() == listed
        for probe in data.draw(st.lists(probes(size), min_size=4, max_size=8)):
            if probe.source == probe.destination:
                continue
            mine = [rule for rule in listed if len(rule.destination.address) == size]
            expected = next((rule.mark for rule in mine if matches(rule, probe)), 0)
            seen.add(expected)
            table[:] = nobody  # rules are for packets without a connection
            assert mark_given(director, probe) == expected

    check()
    assert 0 in seen and len(seen) > MARKS // 2


@pytest.mark.parametrize("length", range(129))
def test_every_prefix_length(shared_marks: Director, length: int) -> None:
    """Of two addresses that differ in one bit alone, the prefix that ends there tells them apart."""
    for base in (ELSEWHERE, ELSEWHERE6):
        bits = len(base) * 8
        if length > bits:
            continue
        number = int.from_bytes(base, "big")
        prefix = Prefix((number >> bits - length << bits - length).to_bytes(len(base), "big"), length)
        shared_marks.table.set_mark_rules([MarkRule(1, prefix, protocol=UDP)])
        source = CLIENT if len(base) == 4 else CLIENT6
        for bit in (length, length + 1):  # counted from the left, from 1
            if not 4 <= bit <= bits:
                continue
            other = (number ^ 1 << bits - bit).to_bytes(len(base), "big")
            probe = Probe(source, shared_marks.unused_port(), other, 80, UDP)
            assert mark_given(shared_marks, probe) == (0 if bit <= length else 1)


@pytest.fixture(scope="module")
def shared_marks() -> Iterator[Director]:
    """One director with a service for each mark, for many cases."""
    with new_director() as made:
        one_service_for_each_mark(made)
        yield made


@pytest.mark.parametrize(("where", "count"), [("ports", abi.MARK_RANGES), ("source_ports", abi.MARK_RANGES)])
def test_as_many_ranges_as_there_is_room_for(shared_marks: Director, where: str, count: int) -> None:
    ranges = tuple((1000 + 10 * n, 1005 + 10 * n) for n in range(count))
    rule = MarkRule(2, ANYWHERE).replace(**{where: ranges})
    shared_marks.table.set_mark_rules([rule])
    for first, last in (ranges[0], ranges[-1]):
        for port, mark in ((first - 1, 0), (first, 2), (last, 2), (last + 1, 0)):
            free = shared_marks.unused_port() + 10_000
            of, to = (free, port) if where == "ports" else (port, free)
            assert mark_given(shared_marks, Probe(CLIENT, of, ELSEWHERE, to, TCP)) == mark

    before = shared_marks.table.mark_rules()
    with pytest.raises(errors.InvalidOperation, match="20 ports"):
        shared_marks.table.set_mark_rules([rule.replace(**{where: (*ranges, (1, 2))})])
    assert shared_marks.table.mark_rules() == before


def test_as_many_rules_as_there_is_room_for(shared_marks: Director) -> None:
    """The last one is reached, in both halves of the map."""
    networks = [Prefix((0x0B000000 + n).to_bytes(4, "big"), 32) for n in range(abi.MARK_RULES)]
    for mark in (3, 4, 5):
        listed = [MarkRule(mark, network) for network in networks]
        shared_marks.table.set_mark_rules(listed)
        assert shared_marks.table.mark_rules() == listed
        for place, expected in ((0, mark), (-1, mark)):
            probe = Probe(CLIENT, shared_marks.unused_port(), networks[place].address, 80, TCP)
            assert mark_given(shared_marks, probe) == expected
    with pytest.raises(errors.TableFull):
        shared_marks.table.set_mark_rules([*listed, MarkRule(1, ANYWHERE)])
    with pytest.raises(errors.RuleExists, match="rules 1 and 3 "):
        shared_marks.table.set_mark_rules([*listed[:2], listed[0].replace(mark=9)])
    assert shared_marks.table.mark_rules() == listed


def test_a_mark_that_the_packet_has_goes_first(shared_marks: Director) -> None:
    shared_marks.table.set_mark_rules([])
    for rules_there in ([], [MarkRule(1, ANYWHERE), MarkRule(1, ANYWHERE6)]):
        shared_marks.table.set_mark_rules(rules_there)
        for source, destination in ((CLIENT, ELSEWHERE), (CLIENT6, ELSEWHERE6)):
            probe = Probe(source, shared_marks.unused_port(), destination, 80, TCP)
            assert mark_given(shared_marks, probe, mark=6) == 6


def test_a_change_is_whole_for_every_packet(shared_marks: Director) -> None:
    """One set ends with the rule for the packets, the other begins with it: all of them have a mark."""
    others = [MarkRule(1, Prefix((0x0B000000 + n).to_bytes(4, "big"), 32)) for n in range(1900)]
    sets = ([*others, MarkRule(2, ANYWHERE)], [MarkRule(3, ANYWHERE), *others[:7]])
    shared_marks.table.set_mark_rules(sets[1])
    failed: list[BaseException] = []

    def change() -> None:
        try:
            for turn in range(16):
                shared_marks.table.set_mark_rules(sets[turn % 2])
        except BaseException as error:
            failed.append(error)

    changing = threading.Thread(target=change)
    changing.start()
    given_marks = set()
    sent = 0
    while changing.is_alive():
        sent += 1
        source = (0x0C000000 + sent % 4000).to_bytes(4, "big")
        if sent > 4000:
            shared_marks.expire_all()
            sent = 0
        given_marks.add(mark_given(shared_marks, Probe(source, 4000, ELSEWHERE, 80, TCP)))
    changing.join()
    assert not failed
    assert given_marks == {2, 3}


# Services of marks.


def test_one_service_of_many_ports_and_addresses(director: Director) -> None:
    """They share the schedule; the port stays the packet's own."""
    key = add_service(director, 1, real_server(1), real_server(2))
    director.table.set_mark_rules(
        [MarkRule(1, Prefix(packed("203.0.113.0"), 24), ports=((80, 80), (443, 443)))]
    )
    for number, (address, port) in enumerate((address, port) for address in (7, 8, 9) for port in (80, 443)):
        probe = Probe(CLIENT, 5000 + number, packed(f"203.0.113.{address}"), port, TCP)
        for flags in (SYN, ACK):
            verdict, frame, after = send(director, probe, flags)
            assert (verdict, after) == (SENT, with_one_hop_less(frame))
        assert director.xdp(frame)[0] == XDP_TX
        connections = [one for one in director.table.connections() if one.client_port == probe.source_port]
        assert [(one.virtual_port, one.destination_port) for one in connections] == [(port, port)]
        assert connections[0].destination == real_server(2 - number % 2)
    entry = director.listing(key)
    assert entry.service.key == key
    assert entry.stats.connections == 6
    assert {one.destination.port: one.active for one in entry.destinations} == {0: 3}
    assert send(director, Probe(CLIENT, 6000, ELSEWHERE, 81, TCP))[0] == UNTOUCHED


def test_a_port_of_a_real_server_is_its_own(director: Director) -> None:
    add_service(director, 1, real_server(1), method=MASQUERADE, port=8080)
    director.table.set_mark_rules([MarkRule(1, ANYWHERE)])
    for number, port in enumerate((80, 443)):
        _, _, after = send(director, Probe(CLIENT, 5000 + number, ELSEWHERE, port, TCP))
        assert (after[30:34], int.from_bytes(after[36:38], "big")) == (real_server(1), 8080)


def test_the_mark_comes_before_address_and_port(director: Director) -> None:
    for address, source in ((VIP, CLIENT), (VIP6, CLIENT6)):
        server = real_server if len(address) == 4 else real_server6
        by_port = director.service(1, address=address)
        by_mark = add_service(director, 1, server(2))
        anywhere = ANYWHERE if len(address) == 4 else ANYWHERE6

        def connects(
            marked: int, anywhere: Prefix = anywhere, address: bytes = address, source: bytes = source,
            keys: tuple[ServiceKey, ServiceKey] = (by_port, by_mark),
        ) -> list[int]:  # fmt: skip
            director.table.set_mark_rules([MarkRule(marked, anywhere)] if marked else [])
            before = [director.listing(key).stats.connections for key in keys]
            assert (
                send(director, Probe(source, director.unused_port(), address, keys[0].port, TCP))[0] == SENT
            )
            after = [director.listing(key).stats.connections for key in keys]
            return [now - then for now, then in zip(after, before, strict=True)]

        assert connects(0) == [1, 0]
        assert connects(1) == [0, 1]
        assert connects(2) == [1, 0], "no service has that mark"


def test_a_mark_has_a_service_for_each_family(director: Director) -> None:
    director.table.set_mark_rules([MarkRule(1, ANYWHERE), MarkRule(1, ANYWHERE6)])
    add_service(director, 1, real_server6(1))
    assert send(director, Probe(CLIENT, 5000, ELSEWHERE, 80, TCP))[0] == UNTOUCHED
    assert send(director, Probe(CLIENT6, 5000, ELSEWHERE6, 80, TCP))[0] == SENT
    six = ServiceKey(IPV6, fwmark=1)
    four = add_service(director, 1, real_server(1))
    assert send(director, Probe(CLIENT, 5001, ELSEWHERE, 80, TCP))[0] == SENT
    assert {entry.service.key for entry in director.table.services()} == {four, six}
    director.table.delete_service(six)
    assert send(director, Probe(CLIENT6, 5001, ELSEWHERE6, 80, TCP))[0] == UNTOUCHED
    assert send(director, Probe(CLIENT, 5002, ELSEWHERE, 80, TCP))[0] == SENT
    assert [entry.service.key for entry in director.table.services()] == [four]


def test_clients_hear_that_there_is_no_real_server(director: Director) -> None:
    director.table.set_mark_rules([MarkRule(1, ANYWHERE), MarkRule(1, ANYWHERE6)])
    for family, source, destination in ((IPV4, CLIENT, ELSEWHERE), (IPV6, CLIENT6, ELSEWHERE6)):
        director.table.add_service(Service(ServiceKey(family, fwmark=1), "rr"))
        verdict, frame, answer = send(director, Probe(source, 5000, destination, 80, TCP))
        assert (verdict, answer) == (SENT, error_about(frame, PORT_UNREACHABLE, answer))
    assert director.events()["no_destination"] == 2


def test_connections_go_on_as_they_began(director: Director) -> None:
    """Rules are for new ones; and the look at the way to the real server asks for no VIP."""
    key = add_service(director, 1, real_server(1))
    director.table.set_mark_rules([MarkRule(1, ANYWHERE)])
    probe = Probe(CLIENT, 5000, ELSEWHERE, 80, TCP)
    assert send(director, probe)[0] == SENT
    director.table.set_mark_rules([])
    for _ in range(2):
        assert send(director, probe, ACK)[0] == SENT
        (index,) = (index for index in range(4) if director.maps.destination(index).flags)
        director.maps.destination(index).refreshed -= 1000
    assert director.listing(key).stats.in_packets == 3
    assert send(director, probe._replace(source_port=5001))[0] == UNTOUCHED


def test_connections_know_the_mark_of_their_service(director: Director) -> None:
    director.open(director.service(1))
    director.table.set_mark_rules([MarkRule(5, ANYWHERE)])
    add_service(director, 5, real_server(1))
    send(director, Probe(CLIENT, 5000, ELSEWHERE, 80, TCP))
    marks = sorted(one.fwmark for one in director.table.connections())
    assert marks == [0, 5]


def test_services_of_the_greatest_marks(director: Director) -> None:
    for mark in (1 << 31, (1 << 32) - 1):
        key = add_service(director, mark, real_server(1))
        director.table.set_mark_rules([MarkRule(mark, ANYWHERE)])
        assert director.table.mark_rules()[0].mark == mark
        assert send(director, Probe(CLIENT, director.unused_port(), ELSEWHERE, 80, UDP))[0] == SENT
        assert director.listing(key).stats.connections == 1


def test_another_command_mends_and_keeps_them(director: Director) -> None:
    """What a command that died left half done is mended by the service's key, mark and all."""
    key = add_service(director, 7, real_server(1))
    director.table.set_mark_rules([MarkRule(7, ANYWHERE)])
    director.maps.settings.changing = 1
    director.another_command()
    director.table.begin_change()
    director.table.end_change()
    assert director.listing(key).service.key == key
    assert director.table.mark_rules() == [MarkRule(7, ANYWHERE)]
    assert send(director, Probe(CLIENT, 5000, ELSEWHERE, 80, TCP))[0] == SENT
