# SPDX-License-Identifier: GPL-2.0-only
"""A full connection table: who goes on, who goes by hash, who has to make room.

What the packet path does depends on when a connection last found no room, which
tests write themselves; `test_capacity` fills a table.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    XDP_TX,
    Director,
    real_server,
)
from tests.packet.packets import ACK, FIN, RST, SYN, UDP, packed
from xlvs.cli import main
from xlvs.datapath.records import Slot, seconds_to_ticks, ticks_now
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, Destination, Service, ServiceKey, Tunnel

FULL, SETTLING, REMEMBERED, LONG_AGO = 1, 20, 400, 1500
"""Seconds since a connection found no room: what each means is in bpf/overload.h."""
HALF_OPEN = 4
"""Seconds that a half-open connection has even in a full table."""


def _full(director: Director, seconds: float) -> None:
    """Let it be that long since a connection found no room."""
    director.maps.settings.full_at = max(ticks_now() - seconds_to_ticks(1) * int(seconds), 1)


@pytest.fixture(autouse=True)
def with_room(director: Director) -> Iterator[None]:
    """Each test says by itself that the table is full."""
    yield
    director.maps.settings.full_at = 0


def _server(director: Director, key: ServiceKey, frame: bytes) -> bytes:
    """The real server that a frame is sent to."""

    def counts() -> dict[bytes, int]:
        return {
            one.destination.address: one.stats.in_packets for one in director.table.service(key).destinations
        }

    before = counts()
    assert director.tc(frame)[0] == SENT
    (chosen,) = (address for address, count in counts().items() if count > before[address])
    return chosen


def _slots(director: Director, key: ServiceKey, *ports: int) -> list[tuple[int, Slot]]:
    """The live entries of a service's clients, or of those ports."""
    return [
        (place, slot)
        for place, slot in director.slots(abi.PHASE_LIVE)
        if (slot.virtual, slot.virtual_port) == (key.address, key.port)
        and slot.client_port
        and (not ports or slot.client_port in ports)
    ]


def _is_by_hash(slot: Slot) -> bool:
    return bool(slot.control >> abi.CONTROL_FLAGS_SHIFT & abi.CONNECTION_BY_HASH)


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("method", "tunnel"), [(ROUTE, None), (TUNNEL, Tunnel("ipip"))], ids=["route", "tunnel"]
)
def test_all_of_a_flow_comes_to_one_real_server_without_an_entry(
    director: Director, address: bytes, method: str, tunnel: Tunnel | None
) -> None:
    key = director.service(1, 1, 1, address=address, method=method, tunnel=tunnel)
    before = director.events()
    chosen = Counter[bytes]()
    sent = 0
    for _ in range(30):
        port = director.unused_port()
        _full(director, FULL)
        first = _server(director, key, director.segment(key, port, SYN))
        assert not _slots(director, key, port)  # what a SYN asks for takes no room
        chosen[first] += 1
        for phase, flags in ((FULL, ACK), (SETTLING, ACK), (REMEMBERED, RST | ACK), (REMEMBERED, ACK)):
            _full(director, phase)
            assert _server(director, key, director.segment(key, port, flags)) == first
        sent += 5
        (entry,) = _slots(director, key, port)
        assert _is_by_hash(entry[1])
    assert len(chosen) == 3
    events = director.events()
    assert events["table_full"] == before["table_full"]
    # SYNs; ACKs that drew no lot.
    assert 30 <= events["stateless"] - before["stateless"] <= 90
    listed = director.listing(key)
    assert listed.stats.connections == 30  # each counted once, by its SYN
    assert listed.stats.in_packets == sent
    assert sum(one.active + one.inactive for one in listed.destinations) == 30


def test_flows_get_entries_bit_by_bit(director: Director) -> None:
    """One packet in eight asks for an entry while the table is full: long flows have one, floods few."""
    key = director.service(1, 1)
    _full(director, FULL)
    ports = [director.unused_port() for _ in range(400)]
    for port in ports:
        director.tc(director.segment(key, port, ACK))
    assert 20 <= len(_slots(director, key)) <= 90  # of 400, 50 by chance, give or take 6
    for _ in range(80):
        director.tc(director.segment(key, ports[0], ACK))
    assert _slots(director, key, ports[0])


def test_with_room_there_is_no_hash(director: Director) -> None:
    key = director.service(1, 1, 1)
    stray = director.segment(key, director.unused_port(), ACK)
    for seconds in (None, LONG_AGO):
        if seconds:
            _full(director, seconds)
        assert director.tc(stray) == (UNTOUCHED, stray)
        order = [
            _server(director, key, director.segment(key, director.unused_port(), SYN)) for _ in range(6)
        ]
        assert order[:3] == order[3:]
        assert len(set(order)) == 3
    # After a time the scheduler is back, while strays may still be of those that began without an entry.
    _full(director, REMEMBERED)
    order = [_server(director, key, director.segment(key, director.unused_port(), SYN)) for _ in range(6)]
    assert order[:3] == order[3:]
    assert director.tc(stray)[0] == SENT


def test_a_syn_sent_again_goes_where_the_first_went(director: Director) -> None:
    key = director.service(1, 1, 1)
    for _ in range(12):
        port = director.unused_port()
        _full(director, FULL)
        first = _server(director, key, director.segment(key, port, SYN))
        _full(director, SETTLING)
        assert _server(director, key, director.segment(key, port, SYN)) == first
        assert len(_slots(director, key, port)) == 1


def test_an_idle_timeout_says_how_long_strays_are_taken(director: Director) -> None:
    key = director.unused_key()
    director.table.add_service(Service(key, "rr", idle_timeout=2000))
    director.table.add_destination(key, Destination(real_server(1), key.port, ROUTE, 1))
    _full(director, LONG_AGO)
    assert director.tc(director.segment(key, director.unused_port(), ACK))[0] == SENT


def test_connections_that_have_an_entry_notice_nothing(director: Director) -> None:
    key = director.service(1, 1, 1)
    ports = [director.open(key, ACK) for _ in range(9)]
    where = [
        slot.destination for _, slot in sorted(_slots(director, key), key=lambda one: one[1].client_port)
    ]
    before = director.events()
    for seconds in (FULL, SETTLING, REMEMBERED):
        _full(director, seconds)
        for port in ports:
            frame = director.segment(key, port, ACK)
            assert director.tc(frame)[0] == SENT
            assert director.xdp(frame)[0] == XDP_TX
    after = _slots(director, key)
    assert [slot.destination for _, slot in sorted(after, key=lambda one: one[1].client_port)] == where
    assert director.events()["stateless"] == before["stateless"]


def test_xdp_leaves_what_has_no_entry_to_tc(director: Director) -> None:
    key = director.service(1, 1)
    director.open(key, ACK)
    _full(director, FULL)
    for flags in (SYN, ACK, RST):
        frame = director.segment(key, director.unused_port(), flags)
        assert director.xdp(frame) == (XDP_PASS, frame)


def test_a_syn_that_is_a_reset_begins_nothing(director: Director) -> None:
    key = director.service(1, 1)
    for seconds in (FULL, SETTLING, REMEMBERED):
        _full(director, seconds)
        assert director.tc(director.segment(key, director.unused_port(), SYN | RST))[0] == SENT
    assert not _slots(director, key)
    assert director.listing(key).stats.connections == 0


def test_datagrams(director: Director) -> None:
    key = director.service(1, 1, 1, protocol=UDP)
    for _ in range(12):
        frame = director.segment(key, director.unused_port(), 0)
        _full(director, FULL)
        first = _server(director, key, frame)
        for seconds in (FULL, SETTLING, 200):
            _full(director, seconds)
            assert _server(director, key, frame) == first
    _full(director, REMEMBERED)  # longer ago than an idle flow of UDP is remembered
    order = [_server(director, key, director.segment(key, director.unused_port(), 0)) for _ in range(6)]
    assert order[:3] == order[3:]


def test_nat_has_entries_or_nothing(director: Director) -> None:
    key = director.service(1, method=MASQUERADE, server_port=8080)
    _full(director, FULL)
    stray = director.segment(key, director.unused_port(), ACK)
    assert director.tc(stray) == (UNTOUCHED, stray)
    port = director.unused_port()
    assert director.tc(director.segment(key, port, SYN))[0] == SENT
    assert len(_slots(director, key, port)) == 1


def _shares(director: Director, key: ServiceKey, count: int) -> dict[int, bytes]:
    """By client port: the real server of that many flows."""
    return {
        port: _server(director, key, director.segment(key, port, SYN))
        for port in range(10_000, 10_000 + count)
    }


def test_the_hash_goes_by_weight_and_moves_no_more_than_it_must(director: Director) -> None:
    key = director.service(1, 2, 5, 0)
    _full(director, FULL)
    before = _shares(director, key, 1200)
    counted = Counter(before.values())
    for number, weight in ((1, 1), (2, 2), (3, 5)):
        share = weight / 8
        allowed = 5 * (1200 * share * (1 - share)) ** 0.5
        assert abs(counted[real_server(number)] - 1200 * share) < allowed
    assert not counted[real_server(4)]
    director.table.delete_destination(key, real_server(2), key.port)
    _full(director, FULL)
    after = _shares(director, key, 600)
    for port, server in after.items():
        assert before[port] in (server, real_server(2))
    assert set(after.values()) == {real_server(1), real_server(3)}


def test_many_real_servers(director: Director) -> None:
    """So many that not all of them race; and the one of them that takes connections is found."""
    key = director.unused_key()
    director.table.add_service(Service(key, "wrr"))
    addresses = [packed(f"10.0.0.{number}") for number in range(120, 199)]
    for address in addresses:
        director.table.add_destination(key, Destination(address, key.port, ROUTE, 1))
    _full(director, FULL)
    first = _shares(director, key, 80)
    assert len(set(first.values())) > 35
    _full(director, FULL)
    assert _shares(director, key, 40).items() <= first.items()
    for address in addresses[1:]:
        director.table.edit_destination(key, Destination(address, key.port, ROUTE, 0))
    assert set(_shares(director, key, 12).values()) == {addresses[0]}


def test_schedulers_that_say_who_it_is(director: Director) -> None:
    """Hashing ones choose as ever; failover goes to the highest weight; none to nobody."""
    for scheduler in ("sh", "mh", "dh"):
        key = director.service(1, 1, 1, scheduler=scheduler)
        with_room = _server(director, key, director.segment(key, director.unused_port(), SYN))
        _full(director, FULL)
        for flags in (SYN, ACK):
            assert _server(director, key, director.segment(key, director.unused_port(), flags)) == with_room
        director.maps.settings.full_at = 0
    for scheduler in ("fo", "ovf"):
        key = director.service(1, 9, 3, scheduler=scheduler)
        _full(director, FULL)
        assert set(_shares(director, key, 12).values()) == {real_server(2)}
    key = director.service(1, scheduler="none")
    stray = director.segment(key, director.unused_port(), ACK)
    assert director.tc(stray) == (UNTOUCHED, stray)


def test_persistence_holds(director: Director) -> None:
    """A client with a template keeps to it; another one's flows come to one real server all the same."""
    key = director.unused_key()
    director.table.add_service(Service(key, "rr", persistence=300, netmask=24))
    for number in (1, 2, 3):
        director.table.add_destination(key, Destination(real_server(number), key.port, ROUTE, 1))

    def ask(network: int, host: int, flags: int) -> bytes:
        client = bytes([10, 9, network, host])
        return _server(director, key, director.segment(key, director.unused_port(), flags, client=client))

    known = {network: ask(network, 1, SYN) for network in range(1, 7)}
    _full(director, FULL)
    for network, server in known.items():
        assert ask(network, 2, SYN) == server
        assert ask(network, 3, ACK) == server
    others = {network: ask(network, 1, SYN) for network in range(11, 26)}
    assert len(set(others.values())) == 3
    for phase in (REMEMBERED, FULL, SETTLING):
        _full(director, phase)
        for network, server in others.items():
            assert {ask(network, host, flags) for host, flags in ((1, SYN), (2, ACK), (3, SYN))} == {server}
    # Those that have a template by now keep it as long as a flow without an entry may be idle.
    lasting = [
        slot.expires - ticks_now()
        for _, slot in director.slots(abi.PHASE_LIVE)
        if slot.virtual_port == key.port and slot.client_port == 0
    ]
    assert len(lasting) == len(known) + len(others)
    assert min(lasting) > seconds_to_ticks(850)
    director.maps.settings.full_at = 0
    # By now they have templates, and go on with room.
    for network, server in (*known.items(), *others.items()):
        assert ask(network, 4, SYN) == server
    for place, slot in director.slots(abi.PHASE_LIVE):
        if (slot.virtual, slot.virtual_port) == (key.address, key.port):
            director.slot_record(place).expires = (ticks_now() - 2) & 0xFFFFFFFF


def test_the_half_open_make_room(director: Director) -> None:
    key = director.service(1, 1)
    datagrams = director.service(1, protocol=UDP)
    kept = [director.open(key, ACK) for _ in range(4)]
    closed = director.open(key, ACK, FIN)
    half = [director.open(key) for _ in range(6)]
    fresh = director.open(key)
    one, two = director.unused_port(), director.unused_port()
    for port in (one, two, two):
        assert director.tc(director.segment(datagrams, port, 0))[0] == SENT
    aged = (*kept, closed, *half)
    for place, slot in (*_slots(director, key, *aged), *_slots(director, datagrams)):
        director.slot_record(place).expires = slot.expires - seconds_to_ticks(HALF_OPEN + 1)
    ((place, slot),) = _slots(director, key, fresh)
    director.slot_record(place).expires = slot.expires + seconds_to_ticks(60)  # however slow this machine is
    before = director.events()["evicted"]
    # With room nobody has to go.
    time.sleep(1.2)
    assert len(_slots(director, key)) == 12
    _full(director, FULL)
    director.wait_until(lambda: not _slots(director, key, *half), 5, "the half-open ones stay")
    _full(director, FULL)
    assert {slot.client_port for _, slot in _slots(director, key)} == {*kept, closed, fresh}
    director.wait_until(lambda: not _slots(director, datagrams, one), 5, "the single datagram's stays")
    assert _slots(director, datagrams, two)
    assert director.events()["evicted"] - before >= len(half) + 1  # other tests have left some, too
    listed = director.listing(key)
    states = [slot.control >> abi.CONTROL_FLAGS_SHIFT & 1 for _, slot in _slots(director, key)]
    assert sum(server.active for server in listed.destinations) == states.count(0)
    assert sum(server.inactive for server in listed.destinations) == states.count(1)


def test_who_answers_after_having_made_room_comes_to_the_same_real_server(director: Director) -> None:
    key = director.service(1, 1, 1)
    ports = [director.unused_port() for _ in range(9)]
    servers = {}
    for port in ports:
        _full(director, SETTLING)
        servers[port] = _server(director, key, director.segment(key, port, SYN))
    for place, slot in _slots(director, key):
        director.slot_record(place).expires = slot.expires - seconds_to_ticks(HALF_OPEN + 1)
    _full(director, FULL)
    director.wait_until(lambda: not _slots(director, key), 5, "half-open ones stay")
    for port in ports:
        _full(director, FULL)
        assert _server(director, key, director.segment(key, port, ACK)) == servers[port]


def test_what_got_its_entry_in_the_middle_makes_room_until_it_goes_on(director: Director) -> None:
    """A flood of ACKs fills the table no longer than one of SYNs."""
    key = director.service(1, 1)
    once, twice = director.unused_port(), director.unused_port()
    for port in (once, twice, twice):
        _full(director, REMEMBERED)
        assert director.tc(director.segment(key, port, ACK))[0] == SENT
    for place, slot in _slots(director, key):
        director.slot_record(place).expires = slot.expires - seconds_to_ticks(HALF_OPEN + 1)
    assert len(_slots(director, key)) == 2
    _full(director, FULL)
    director.wait_until(lambda: not _slots(director, key, once), 5, "a single ACK's entry stays")
    assert _slots(director, key, twice)


def test_sctp(director: Director) -> None:
    key = director.service(1, 1, 1, protocol=packets.SCTP)

    def frame(port: int, kind: int) -> bytes:
        transport = packets.sctp(port, key.port, packets.chunk(kind, b"content"))
        return director.frame(packets.ipv4(CLIENT, key.address, packets.SCTP, transport))

    chosen = set()
    for _ in range(12):
        port = director.unused_port()
        _full(director, FULL)
        first = _server(director, key, frame(port, packets.INIT))
        chosen.add(first)
        assert not _slots(director, key, port)
        for seconds in (FULL, REMEMBERED):
            _full(director, seconds)
            assert _server(director, key, frame(port, packets.DATA)) == first
        assert _slots(director, key, port)
    assert len(chosen) > 1
    _full(director, LONG_AGO)
    stray = frame(director.unused_port(), packets.DATA)
    assert director.tc(stray) == (UNTOUCHED, stray)


def test_masqueraded_connections_that_make_room_leave_nothing(director: Director) -> None:
    key = director.service(1, method=MASQUERADE, server_port=8080)
    ports = [director.open(key) for _ in range(5)]
    for place, slot in _slots(director, key, *ports):
        director.slot_record(place).expires = slot.expires - seconds_to_ticks(HALF_OPEN + 1)
    _full(director, FULL)
    director.wait_until(
        lambda: (
            not [
                slot
                for _, slot in director.slots(abi.PHASE_LIVE)
                if slot.client_port == 8080 or slot.virtual_port == key.port
            ]
        ),
        5,
        "half-open masqueraded connections stay",
    )
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive) == (0, 0)


def test_templates_and_ftp_control_connections_stay(director: Director) -> None:
    """A template of an established connection stays; that of half-open ones alone goes with them."""
    key = director.unused_key()
    director.table.add_service(Service(key, "rr", persistence=300))
    director.table.add_destination(key, Destination(real_server(1), key.port, ROUTE, 1))

    def templates() -> set[bytes]:
        return {
            slot.client
            for _, slot in director.slots(abi.PHASE_LIVE)
            if slot.virtual_port == key.port and slot.client_port == 0
        }

    assured, half = bytes([10, 8, 0, 1]), bytes([10, 8, 0, 2])
    for client, flags in ((assured, (SYN, ACK)), (assured, (SYN,)), (half, (SYN,))):
        port = director.unused_port()
        for each in flags:
            assert director.tc(director.segment(key, port, each, client=client))[0] == SENT
    assert templates() == {assured, half}
    ftp = director.service(1, method=MASQUERADE, server_port=21)
    controlling = director.open(ftp)
    ((control, _),) = _slots(director, ftp, controlling)
    director.slot_record(control).control += 1 << abi.CONTROL_FTP_DATA_SHIFT  # as if it had data connections
    for place, slot in (*_slots(director, key), *_slots(director, ftp)):
        director.slot_record(place).expires = slot.expires - seconds_to_ticks(HALF_OPEN + 1)
    _full(director, FULL)
    director.wait_until(lambda: templates() == {assured}, 5, "the half-open one's template stays")
    director.wait_until(lambda: len(_slots(director, key)) == 1, 5, "half-open ones stay")
    assert director.entry(key, real_server(1)).persistent == 1
    assert _slots(director, ftp, controlling)
    director.slot_record(control).control -= 1 << abi.CONTROL_FTP_DATA_SHIFT
    director.wait_until(lambda: not _slots(director, ftp), 5, "what controls nothing stays")


def test_a_real_server_is_missing(director: Director) -> None:
    key = director.unused_key()
    director.table.add_service(Service(key, "rr"))
    _full(director, FULL)
    before = director.events()["no_destination"]
    stray = director.segment(key, director.unused_port(), ACK)
    assert director.tc(stray) == (UNTOUCHED, stray)
    assert director.events()["no_destination"] == before
    assert director.tc(director.segment(key, director.unused_port(), SYN))[0] != UNTOUCHED
    assert director.events()["no_destination"] == before + 1


def test_what_the_kernel_would_not_take_is_not_taken(director: Director) -> None:
    """Martians, FTP data's port, templates' port: not even in a full table."""
    key = director.service(1)
    _full(director, FULL)
    for port, client in ((20, None), (0, None), (4000, packed("127.0.0.1")), (4000, VIP)):
        frame = director.segment(key, port, ACK, client=client)
        assert director.tc(frame) == (UNTOUCHED, frame)


def test_status_says_so(director: Director, capsys: pytest.CaptureFixture[str]) -> None:
    def overload() -> tuple[object, str]:
        assert main.main(["status", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert main.main(["status"]) == 0
        return report["overload"], capsys.readouterr().out

    state, page = overload()
    assert state == {"state": "room", "seconds_since_full": None}
    assert "go by hash" not in page
    for seconds, name, words in (
        (FULL, "full", "The connection table is full"),
        (SETTLING, "settling", "The connection table was full a moment ago"),
        (REMEMBERED, "remembered", "packets of connections without an entry go by hash"),
    ):
        _full(director, seconds)
        state, page = overload()
        assert isinstance(state, dict)
        assert state["state"] == name
        assert seconds <= state["seconds_since_full"] <= seconds * 1.1 + 2
        assert words in page
    _full(director, LONG_AGO)
    assert overload()[0] == {"state": "room", "seconds_since_full": None}


@pytest.mark.parametrize("schedule_icmp", ["0", "1"])
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_an_error_about_a_flow_without_an_entry(
    director: Director, address: bytes, schedule_icmp: str
) -> None:
    """A router's word about a real server's answer reaches that real server."""
    director.table.set_sysctls({"schedule_icmp": schedule_icmp})
    key = director.service(1, 1, 1, address=address)
    client, router = (CLIENT, packed("10.0.0.250")) if address == VIP else (CLIENT6, packed("fd00::250"))
    build, kind = (packets.ipv4, (3, 4)) if address == VIP else (packets.ipv6, (2, 0))
    try:
        for _ in range(8):
            port = director.unused_port()
            answer = build(address, client, packets.TCP, packets.tcp(key.port, port, ACK, b"answer"))
            error = director.frame(packets.icmp(router, address, *kind, 1300, answer))
            _full(director, FULL)
            server = _server(director, key, director.segment(key, port, SYN))
            for seconds in (FULL, SETTLING, REMEMBERED):
                _full(director, seconds)
                assert _server(director, key, error) == server
                assert director.tc(error) == (SENT, packets.with_one_hop_less(error))
            assert not _slots(director, key, port)
        if schedule_icmp == "0":
            _full(director, LONG_AGO)
            assert director.tc(error) == (UNTOUCHED, error)
        masqueraded = director.service(1, address=address, method=MASQUERADE, server_port=8080)
        _full(director, FULL)
        answer = build(address, client, packets.TCP, packets.tcp(masqueraded.port, port, ACK, b"answer"))
        error = director.frame(packets.icmp(router, address, *kind, 1300, answer))
        assert director.tc(error) == (UNTOUCHED, error)
        # No error about an error, where that real server cannot be reached.
        unreachable = packed("172.31.0.1" if address == VIP else "fd77::1")
        lost = director.service(1, address=address, servers=(unreachable,))
        answer = build(address, client, packets.TCP, packets.tcp(lost.port, port, ACK, b"answer"))
        error = director.frame(packets.icmp(router, address, *kind, 1300, answer))
        assert director.tc(error) == (DROPPED, error)
    finally:
        director.table.set_sysctls({"schedule_icmp": "0"})
