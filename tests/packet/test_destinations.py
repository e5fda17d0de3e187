# SPDX-License-Identifier: GPL-2.0-only
"""Counters, and what becomes of connections when their real server or service changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    DROPPED,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    Director,
    real_server,
)
from tests.packet.packets import ACK, FIN, RST, SYN, TCP, UDP, ip_length
from xlvs.datapath.maps import Maps
from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi
from xlvs.model import Destination, Service, ServiceEntry, Stats, added

LONG = 0x10000000
"""Ticks: longer than any timeout."""


def _added(entry: ServiceEntry) -> Stats:
    """The counters of a service's destinations, added up."""
    total = Stats()
    for one in entry.destinations:
        total = Stats(
            total.connections + one.stats.connections,
            total.in_packets + one.stats.in_packets,
            0,
            total.in_bytes + one.stats.in_bytes,
            0,
        )
    return total


def test_each_packet_is_counted_once(director: Director) -> None:
    for address in (VIP, VIP6):
        for protocol in (TCP, UDP):
            key = director.service(1, 2, 3, scheduler="wrr", address=address, protocol=protocol)
            expected = Stats()
            for size in (0, 1, 7, 100, 1400):
                port = director.open(key)
                first = director.segment(key, port, SYN)
                frame = director.segment(key, port, ACK, bytes(size))
                assert director.tc(frame)[0] == SENT
                assert director.xdp(frame)[0] != XDP_PASS
                expected = Stats(
                    expected.connections + 1,
                    expected.in_packets + 3,
                    0,
                    expected.in_bytes + ip_length(first) + 2 * ip_length(frame),
                    0,
                )
                assert director.listing(key).stats == expected
                assert _added(director.listing(key)) == expected


def test_padding_is_not_counted(director: Director) -> None:
    key = director.service(1)
    port = director.open(key)
    before = director.listing(key).stats
    frame = director.segment(key, port, ACK) + bytes(6)
    assert len(frame) == 60
    assert director.tc(frame) == (SENT, packets.with_one_hop_less(frame))
    assert director.xdp(frame)[1][14:] == packets.with_one_hop_less(frame)[14:]
    after = director.listing(key).stats
    assert after.in_packets - before.in_packets == 2
    assert after.in_bytes - before.in_bytes == 2 * 40


def test_zero(director: Director) -> None:
    one, other = director.service(1, 1), director.service(1)
    for key in (one, other):
        director.open(key, ACK)
    kept = director.listing(other)
    director.table.zero(one)
    zeroed = director.listing(one)
    assert zeroed.stats == Stats()
    assert _added(zeroed) == Stats()
    assert sum(entry.active for entry in zeroed.destinations) == 1
    assert director.listing(other) == kept
    director.open(one)
    assert director.listing(one).stats == Stats(connections=1, in_packets=1, in_bytes=40)
    director.table.zero()
    for key in (one, other):
        assert director.listing(key).stats == Stats()
        assert _added(director.listing(key)) == Stats()


def test_totals_of_all_services(director: Director) -> None:
    """Services that are gone still count; -Z of one does not (kernel: ip_vs_zero_all())."""
    one, other = director.service(1, 1), director.service(1)
    director.table.zero()
    assert director.table.totals().stats == Stats()
    before = added(Stats, director.table.totals().by_cpu)
    for key in (one, other):
        director.open(key, ACK)
    wanted = added(Stats, [director.listing(key).stats for key in (one, other)])
    assert wanted.connections == 2
    director.table.zero(one)
    director.table.delete_service(other)
    assert director.table.totals().stats == wanted
    director.another_command()
    assert director.table.totals().stats == wanted
    director.table.zero()
    assert director.table.totals().stats == Stats()
    # The rows of processors go on (kernel: ip_vs_stats_percpu_show()).
    assert added(Stats, director.table.totals().by_cpu) == added(Stats, [before, wanted])


def test_a_deleted_real_server(director: Director) -> None:
    """Its packets are dropped, its service's counters stay, its connections wait for it."""
    key = director.service(1, 1)
    ports = [director.open(key, ACK) for _ in range(4)]
    before = director.listing(key)
    lost = director.entry(key, real_server(1))
    assert (lost.active, lost.stats.connections) == (2, 2)
    director.table.delete_destination(key, real_server(1), key.port)
    assert [one.destination.address for one in director.listing(key).destinations] == [real_server(2)]
    assert director.listing(key).stats == before.stats

    events = director.events()
    verdicts = []
    for port in ports:
        frame = director.segment(key, port, ACK)
        verdict, after = director.tc(frame)
        verdicts.append(verdict)
        if verdict == DROPPED:
            assert after == frame
            assert director.xdp(frame) == (XDP_PASS, frame)
    assert sorted(verdicts) == [DROPPED, DROPPED, SENT, SENT]
    assert director.events()["unavailable"] == events["unavailable"] + 2
    for port in ports:
        assert director.connection(key, port) is not None

    # It comes back with its connections and its counters.
    director.table.add_destination(key, Destination(real_server(1), key.port, weight=3))
    back = director.entry(key, real_server(1))
    assert back == lost.replace(destination=lost.destination.replace(weight=3))
    for port in ports:
        assert director.tc(director.segment(key, port, ACK))[0] == SENT
    assert director.entry(key, real_server(1)).stats.in_packets == lost.stats.in_packets + 2


def test_a_closing_connection_of_a_deleted_real_server(director: Director) -> None:
    """What ends while it is away is not counted when it comes back."""
    key = director.service(1)
    port = director.open(key, ACK, RST)
    director.table.delete_destination(key, real_server(1), key.port)
    assert director.tc(director.segment(key, port, ACK))[0] == DROPPED
    director.expire_all()
    director.table.add_destination(key, Destination(real_server(1), key.port))
    back = director.entry(key, real_server(1))
    assert (back.active, back.inactive) == (0, 0)
    assert back.stats.connections == 1


def test_a_deleted_real_server_is_idle_from_its_last_end_on(director: Director) -> None:
    """However long ago it was removed: from then on the trash remembers it."""
    key = director.service(1)
    director.open(key, ACK, RST)
    record = director.record(key)
    director.table.delete_destination(key, real_server(1), key.port)
    record.removed = ticks_now() - LONG & 0xFFFFFFFF
    director.expire_all()
    assert (record.active, record.inactive) == (0, 0)
    assert ticks_now() - record.removed < LONG
    director.another_command()
    director.table.add_destination(key, Destination(real_server(1), key.port))
    assert director.entry(key, real_server(1)).stats.connections == 1


def test_a_real_server_of_another_service_does_not_come_back(director: Director) -> None:
    one, other = director.service(1), director.service(2)
    director.open(one, ACK)
    director.table.delete_destination(one, real_server(1), one.port)
    director.table.add_destination(other, Destination(real_server(1), one.port))
    for entry in director.listing(other).destinations:
        assert (entry.active, entry.inactive, entry.stats) == (0, 0, Stats())


def test_a_deleted_service(director: Director) -> None:
    """Its connections are dropped, what was never its is untouched; made anew it counts from 0."""
    key = director.service(1)
    port = director.open(key, ACK)
    director.table.delete_service(key)
    frame = director.segment(key, port, ACK)
    assert director.tc(frame) == (DROPPED, frame)
    new = director.segment(key, director.unused_port(), SYN)
    assert director.tc(new) == (UNTOUCHED, new)

    director.another_command()
    director.table.add_service(Service(key, "rr"))
    director.another_command()
    director.table.add_destination(key, Destination(real_server(1), key.port))
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive) == (1, 0)
    # kernel: __ip_vs_update_dest() zeroes a real server that comes back to another service
    assert entry.stats == Stats()
    assert director.listing(key).stats == Stats()
    assert director.tc(frame)[0] == SENT
    assert director.listing(key).stats == Stats(in_packets=1, in_bytes=40)


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_a_real_server_that_left_before_its_service_was_deleted(director: Director, at_once: bool) -> None:
    """It, too, comes back to another service, though that has the old one's record and key."""
    key = director.service(1)
    port = director.open(key, ACK)
    place = director.record(key).service
    director.table.delete_destination(key, real_server(1), key.port)
    director.table.delete_service(key)

    director.another_command()
    service, destination = Service(key, "rr"), Destination(real_server(1), key.port)
    if at_once:
        director.table.add_services([(service, [destination])])
    else:
        director.table.add_service(service)
        director.table.add_destination(key, destination)
    assert director.record(key).service == place
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive, entry.stats) == (1, 0, Stats())
    assert director.tc(director.segment(key, port, ACK))[0] == SENT
    assert director.entry(key, real_server(1)).stats == Stats(in_packets=1, in_bytes=40)


def test_a_service_is_deleted_without_looking_through_all_for_each_of_its_own(
    director: Director, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a table of 37,000 real servers takes minutes to empty."""
    looks = 0
    flags = Maps.flags

    def counted(maps: Maps, *rest: Any) -> list[int]:
        nonlocal looks
        looks += 1
        return flags(maps, *rest)

    monkeypatch.setattr(Maps, "flags", counted)
    cost = []
    for count in (2, 30):
        key = director.service(*[1] * count)
        director.another_command()
        looks = 0
        director.table.delete_service(key)
        cost.append(looks)
        director.another_command()
    assert cost[0] == cost[1]


def test_flush_forgets_every_service_and_no_connection(director: Director) -> None:
    key = director.service(1)
    port = director.open(key, ACK)
    director.table.flush()
    assert director.table.services() == []
    assert director.connection(key, port) is not None
    assert director.tc(director.segment(key, port, ACK))[0] == DROPPED


def test_weight_zero_keeps_its_connections(director: Director) -> None:
    key = director.service(1, 1)
    port = director.open(key, ACK)
    connection = director.connection(key, port)
    assert connection is not None
    served_by = connection.destination
    director.table.edit_destination(key, Destination(served_by, key.port, weight=0))
    for _ in range(10):
        other = director.connection(key, director.open(key))
        assert other is not None
        assert other.destination != served_by
    assert director.tc(director.segment(key, port, ACK))[0] == SENT
    assert director.entry(key, served_by).active == 1


def test_a_syn_reuses_what_is_closed_and_nothing_else(director: Director) -> None:
    """conn_reuse_mode=1: TIME_WAIT and CLOSE are scheduled anew."""
    for flags, state, anew in (
        ((), "SYN_RECV", False),
        ((ACK,), "ESTABLISHED", False),
        ((ACK, FIN), "FIN_WAIT", False),
        ((FIN,), "TIME_WAIT", True),
        ((ACK, RST), "CLOSE", True),
    ):
        key = director.service(1, 1)
        port = director.open(key, *flags)
        before = director.connection(key, port)
        assert before is not None
        assert before.state == state
        assert director.tc(director.segment(key, port, SYN))[0] == SENT
        after = director.connection(key, port)
        assert after is not None
        assert (after.destination != before.destination) == anew
        assert director.listing(key).stats.connections == (2 if anew else 1)
        counts = [(one.active, one.inactive) for one in director.listing(key).destinations]
        assert sorted(counts) == [(0, 0), (1, 0)]


def test_a_udp_flow_stays_where_it_is(director: Director) -> None:
    key = director.service(1, 1, protocol=UDP)
    port = director.open(key, *[0] * 20)
    entries = sorted(one.stats.in_packets for one in director.listing(key).destinations)
    assert entries == [0, 21]
    connection = director.connection(key, port)
    assert connection is not None
    assert connection.client == CLIENT


@pytest.mark.parametrize("edited", [False, True], ids=["as connections end", "when it is edited"])
@pytest.mark.parametrize("upper", range(1, 10))
def test_three_quarters_of_the_upper_threshold(director: Director, upper: int, edited: bool) -> None:
    """Without a lower threshold: below that, rounded up, it is free again (kernel: ip_vs_unbind_dest())."""
    key = director.unused_key()
    director.table.add_service(Service(key))
    server = Destination(real_server(1), key.port, upper_threshold=upper)
    other = Destination(real_server(1), key.port, upper_threshold=upper, lower_threshold=1)
    director.table.add_destination(key, server)
    ports = [director.open(key) for _ in range(upper)]
    places = {slot.client_port: place for place, slot in director.slots(abi.PHASE_LIVE)}
    while True:
        if edited:
            director.table.edit_destination(key, other)
            director.record(key).overload = abi.OVERLOADED
            director.table.edit_destination(key, server)
        is_full = len(ports) * 4 >= upper * 3
        assert director.record(key).overload == (abi.OVERLOADED if is_full else 0), (
            f"{len(ports)} of {upper}"
        )
        new = director.unused_port()
        director.tc(director.segment(key, new, SYN))
        assert (director.connection(key, new) is None) == is_full
        if not is_full:
            return
        port = ports.pop()
        director.slot_record(places[port]).expires -= LONG
        assert director.tc(director.segment(key, port, ACK))[0] == UNTOUCHED
