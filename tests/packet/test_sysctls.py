# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's settings, one by one, in the packet path."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    FAR_SERVER,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    Director,
    real_server,
    real_server6,
)
from tests.packet.kernel_model import INPUT, INPUT_ONLY, OUTPUT, next_state, takes_over
from tests.packet.packets import ACK, FIN, RST, SCTP, SYN, TCP, UDP, ipv4, packed, tcp, udp
from tests.packet.translated import Masqueraded
from xlvs.datapath import sysctls
from xlvs.datapath.records import seconds_to_ticks, ticks_now
from xlvs.errors import NotSupported, OutOfRange
from xlvs.kernel import abi
from xlvs.model import IPV4, MASQUERADE, ROUTE, TUNNEL, Destination, Service, ServiceKey

MANY = 600
"""Entries among which drop_entry, that looks at one in 32 each second, soon finds some."""


@pytest.fixture(autouse=True)
def kernel_defaults(director: Director) -> Iterator[None]:
    """Every test begins and ends with the kernel's defaults."""
    yield
    changed = {name for name, one in sysctls.SYSCTLS.items() if not one.refusal}
    director.table.set_sysctls({name: sysctls.defaults()[name] for name in changed})


def test_defaults_after_loading(director: Director) -> None:
    assert director.table.sysctls() == sysctls.defaults()


@given(st.integers(0, 8_589_934))
@settings(max_examples=60, deadline=None)
def test_durations_are_read_as_they_were_set(director: Director, seconds: int) -> None:
    director.table.set_sysctls({"lblc_expiration": str(seconds)})
    assert director.table.sysctls()["lblc_expiration"] == str(seconds)
    assert director.maps.settings.lblc_expiration == seconds_to_ticks(seconds)
    assert director.table.sysctls()["lblcr_expiration"] == "86400"


@pytest.mark.parametrize(
    ("bad", "error"), [({"drop_entry": "4"}, OutOfRange), ({"conntrack": "1"}, NotSupported)]
)
def test_all_or_nothing(director: Director, bad: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        director.table.set_sysctls({"conn_reuse_mode": "0", **bad, "sloppy_tcp": "1"})
    assert director.table.sysctls() == sysctls.defaults()


# secure_tcp


@pytest.mark.parametrize("mode", ["3", "1", "2"])
def test_secure_tcp_where_no_answers_are_seen(director: Director, mode: str) -> None:
    """With too little room for the automatic modes."""
    director.table.set_sysctls({"secure_tcp": mode, "amemthresh": str(2**31 - 1)})
    key = director.service(1)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.sampled_from((SYN, ACK, FIN, RST, SYN | ACK, 0)), max_size=8))
    def follow(sequence: list[int]) -> None:
        port = director.unused_port()
        state = "NONE"
        for flags in (SYN, *sequence):
            if state in ("TIME_WAIT", "CLOSE") and flags & SYN:
                state = "NONE"
            assert director.tc(director.segment(key, port, flags))[0] == SENT
            state = next_state(state, flags, INPUT_ONLY, secure=True)
            found = director.connection(key, port)
            assert found is not None
            assert found.state == state

    follow()


def test_secure_tcp_under_nat(director: Director) -> None:
    """ESTABLISHED is where the third segment of the handshake leads, not the second."""
    director.table.set_sysctls({"secure_tcp": "3"})
    key = director.service(1, method=MASQUERADE, server_port=8080)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from((SYN, ACK, FIN, RST, SYN | ACK))), max_size=8))
    def follow(conversation: list[tuple[bool, int]]) -> None:
        port = director.unused_port()
        ends = Masqueraded(TCP, (CLIENT, port), (key.address, key.port), (real_server(1), 8080))
        state = "NONE"
        for from_server, flags in ((False, SYN), *conversation):
            if not from_server and state in ("TIME_WAIT", "CLOSE") and flags & SYN:
                state = "NONE"
            packet, _ = (ends.answered if from_server else ends.asked)(b"", flags)
            assert director.tc(director.frame(packet))[0] == SENT
            state = next_state(state, flags, OUTPUT if from_server else INPUT, secure=True)
            found = director.connection(key, port)
            assert found is not None
            assert found.state == state

    follow()


@pytest.mark.parametrize("mode", ["1", "2"])
def test_automatic_defences_rest_while_there_is_room(director: Director, mode: str) -> None:
    director.table.set_sysctls({"secure_tcp": mode, "drop_packet": mode, "drop_entry": mode})
    listed = director.table.sysctls()
    assert [listed[name] for name in ("secure_tcp", "drop_packet", "drop_entry")] == ["1", "1", "1"]
    key = director.service(1)
    port = director.open(key)
    found = director.connection(key, port)
    assert found is not None
    assert found.state == "SYN_RECV"
    assert {director.tc(director.segment(key, director.unused_port(), SYN))[0] for _ in range(20)} == {SENT}


# drop_packet


def _verdicts(director: Director, key: ServiceKey, count: int) -> list[int]:
    return [director.tc(director.segment(key, director.unused_port(), SYN))[0] for _ in range(count)]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(("rate", "per_twelve"), [(1, 12), (3, 4), (4, 3), (0, 0), (-5, 12)])
def test_drop_packet_always(director: Director, protocol: int, rate: int, per_twelve: int) -> None:
    key = director.service(1, protocol=protocol)
    port = director.open(key)
    director.table.set_sysctls({"drop_packet": "3", "am_droprate": str(rate)})
    before = director.maps.events()["defended"]
    verdicts = _verdicts(director, key, 12)
    assert verdicts.count(DROPPED) == per_twelve
    assert verdicts.count(SENT) == 12 - per_twelve
    assert director.maps.events()["defended"] - before == per_twelve
    assert director.tc(director.segment(key, port, ACK))[0] == SENT, "a connection goes on"


def test_drop_packet_when_room_is_scarce(director: Director) -> None:
    """One in amemthresh / (amemthresh - room): with twice the room, it is every second one."""
    capacity = director.maps.limits.buckets * abi.SLOTS_PER_BUCKET // 2
    key = director.service(1)
    director.expire_all()
    director.table.set_sysctls({"drop_packet": "1", "amemthresh": str(2 * capacity + capacity // 2)})
    assert director.table.sysctls()["drop_packet"] == "2"
    assert _verdicts(director, key, 20).count(DROPPED) == 20, "5/3 is 1 in whole numbers"
    director.table.set_sysctls({"amemthresh": str(capacity + capacity // 2 + 100)})
    verdicts = _verdicts(director, key, 20)
    assert verdicts.count(DROPPED) in (6, 7, 10), "one in two or three"
    director.table.set_sysctls({"amemthresh": "1"})
    assert director.table.sysctls()["drop_packet"] == "1"
    assert DROPPED not in _verdicts(director, key, 20)


# drop_entry


def _state_of(director: Director, key: ServiceKey) -> int:
    entry = director.listing(key).destinations[0]
    return entry.active + entry.inactive


def _let_idle(director: Director, key: ServiceKey, seconds: int, packets: int) -> None:
    """Let every connection of a service be so long without a packet, after so many."""
    for place, _ in director.slots(abi.PHASE_LIVE):
        record = director.slot_record(place)
        if record.flow.virtual_port == int.from_bytes(key.port.to_bytes(2, "big"), "little"):
            record.expires -= seconds_to_ticks(seconds)
            record.in_packets = packets


def test_drop_entry_takes_associations_that_are_half_open(director: Director) -> None:
    half, whole = (director.service(1, protocol=SCTP) for _ in range(2))
    for key, chunks in ((half, ()), (whole, (packets.COOKIE_ECHO,))):
        for _ in range(MANY):
            port = director.unused_port()
            for kind in (packets.INIT, *chunks):
                said = packets.sctp(port, key.port, packets.chunk(kind, b"whatever"))
                assert director.tc(director.frame(ipv4(CLIENT, VIP, SCTP, said)))[0] == SENT
    director.table.set_sysctls({"drop_entry": "3"})
    director.wait_until(lambda: _state_of(director, half) < MANY - 20, 10, "nothing was dropped")
    assert _state_of(director, whole) == MANY


def test_drop_entry_takes_what_is_half_open(director: Director) -> None:
    half, whole = director.service(1), director.service(1)
    for _ in range(MANY):
        director.open(half)
        director.open(whole, ACK)
    time.sleep(1.5)
    assert _state_of(director, half) == MANY, "nothing goes while it is off"
    director.table.set_sysctls({"drop_entry": "3"})
    director.wait_until(lambda: _state_of(director, half) < MANY - 20, 10, "nothing was dropped")
    assert _state_of(director, whole) == MANY


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_drop_entry_takes_what_is_idle_and_had_few_packets(director: Director, protocol: int) -> None:
    director.table.flush()
    director.expire_all()
    idle, busy, many, fresh = (director.service(1, protocol=protocol) for _ in range(4))
    for _ in range(MANY):
        for key in (idle, busy, many, fresh):
            director.open(key, ACK)
    _let_idle(director, idle, 61, 2)
    _let_idle(director, busy, 55, 2)
    _let_idle(director, many, 61, 9)
    director.table.set_sysctls({"drop_entry": "3"})
    director.wait_until(lambda: _state_of(director, idle) < MANY - 20, 15, "nothing was dropped")
    assert [_state_of(director, key) for key in (many, fresh)] == [MANY, MANY]


def test_drop_entry_takes_the_template_along(director: Director) -> None:
    director.table.flush()
    director.expire_all()
    key = director.unused_key()
    director.table.add_service(Service(key, "rr", persistence=300))
    director.table.add_destination(key, Destination(real_server(1), key.port, ROUTE))
    for number in range(MANY):
        client = packed(f"10.0.{4 + number // 200}.{1 + number % 200}")
        for flags in (SYN,) if number % 2 else (SYN, ACK):
            assert director.tc(director.segment(key, 2000, flags, client=client))[0] == SENT
    entry = director.entry(key, real_server(1))
    assert entry.persistent == MANY
    director.table.set_sysctls({"drop_entry": "3"})
    director.wait_until(lambda: _state_of(director, key) < MANY - 20, 15, "nothing was dropped")
    director.table.set_sysctls({"drop_entry": "0"})
    time.sleep(0.2)
    entry = director.entry(key, real_server(1))
    assert entry.persistent == entry.active + entry.inactive
    assert entry.persistent >= MANY // 2


def test_packets_of_a_client_are_counted(director: Director) -> None:
    key = director.service(1)
    port = director.open(key, *[ACK] * 4)
    counted = [
        director.slot_record(place).in_packets
        for place, slot in director.slots(abi.PHASE_LIVE)
        if slot.client_port == port and slot.virtual_port == key.port
    ]
    assert counted == [5]
    for _ in range(20):
        director.tc(director.segment(key, port, ACK))
    counted = [
        director.slot_record(place).in_packets
        for place, slot in director.slots(abi.PHASE_LIVE)
        if slot.client_port == port and slot.virtual_port == key.port
    ]
    assert counted == [abi.IN_PACKETS_LIMIT]


# expire_nodest_conn


def test_connections_of_a_removed_server_end(director: Director) -> None:
    director.table.flush()
    key = director.service(1)
    port = director.open(key, ACK)
    director.table.delete_destination(key, real_server(1), key.port)
    time.sleep(2.2)
    assert director.connection(key, port) is not None, "nothing goes while it is off"
    director.table.set_sysctls({"expire_nodest_conn": "1"})
    director.wait_until(lambda: director.connection(key, port) is None, 5, "it is still there")


@pytest.mark.parametrize("mode", ["0", "1", "2", "3"])
def test_a_quiesced_server_gets_no_new_connection(director: Director, mode: str) -> None:
    """Whatever conn_reuse_mode says, and whatever state the old one is in."""
    director.table.set_sysctls({"conn_reuse_mode": mode})
    key = director.service(1, 1)
    port = director.open(key, ACK)
    served = director.connection(key, port)
    assert served is not None
    director.table.edit_destination(key, Destination(served.destination, key.port, ROUTE, weight=0))
    director.tc(director.segment(key, port, SYN))
    assert director.connection(key, port) == served, "nothing changes while it is off"
    director.table.set_sysctls({"expire_nodest_conn": "1"})
    assert director.tc(director.segment(key, port, ACK))[0] == SENT, "the connection goes on"
    assert director.tc(director.segment(key, port, SYN))[0] == SENT
    moved = director.connection(key, port)
    assert moved is not None
    assert moved.destination != served.destination


# conn_reuse_mode, sloppy_tcp


STORIES = (((), 0), ((ACK,), 0), ((ACK, FIN), 0), ((ACK, RST), 0), ((FIN,), 0), ((ACK,), FIN))
"""After its SYN: a client's segments, then what its real server sends."""


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_conn_reuse_mode(director: Director, mode: int) -> None:
    """A SYN to what is left of a connection: the statistics tell whether it began another."""
    director.table.set_sysctls({"conn_reuse_mode": str(mode)})
    for answered in (False, True):
        for segments, answer in STORIES:
            method = MASQUERADE if answered else ROUTE
            key = director.service(1, method=method)
            port = director.open(key, *segments)
            ends = Masqueraded(TCP, (CLIENT, port), (key.address, key.port), (real_server(1), key.port))
            if answered and answer:
                assert director.tc(director.frame(ends.answered(b"", answer)[0]))[0] == SENT
            before = director.connection(key, port)
            assert before is not None
            assert director.tc(director.segment(key, port, SYN))[0] == SENT
            began = director.listing(key).stats.connections - 1
            assert began == takes_over(before.state, SYN, mode, answered=answered), (before.state, answered)


@pytest.mark.parametrize("flags", [ACK, FIN | ACK, 0, RST, RST | ACK])
def test_sloppy_tcp(director: Director, flags: int) -> None:
    key = director.service(1)
    frame = director.segment(key, director.unused_port(), flags)
    assert director.tc(frame)[0] == UNTOUCHED
    director.table.set_sysctls({"sloppy_tcp": "1"})
    assert director.tc(frame)[0] == (UNTOUCHED if flags & RST else SENT)


# cache_bypass


@pytest.mark.parametrize("bypass", ["0", "1"])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_without_a_cache_a_packet_goes_to_where_it_was_sent(
    director: Director, bypass: str, protocol: int
) -> None:
    director.table.set_sysctls({"cache_bypass": bypass})
    director.table.add_service(Service(ServiceKey(IPV4, fwmark=77), "rr"))
    try:
        elsewhere, ours = packed("10.0.1.77"), VIP
        transport = tcp(4000, 80, SYN) if protocol == TCP else udp(4000, 80, b"")
        frame = director.frame(ipv4(CLIENT, elsewhere, protocol, transport))
        verdict, after = director.tc(frame, mark=77)
        assert verdict == (UNTOUCHED if bypass == "1" else SENT), "else: an ICMP error"
        if bypass == "1":
            assert after == frame
        # What is the director's own has nowhere else to go.
        assert director.tc(director.frame(ipv4(CLIENT, ours, protocol, transport)), mark=77)[0] == SENT
    finally:
        director.table.delete_service(ServiceKey(IPV4, fwmark=77))


# schedule_icmp


def _stray_error(
    address: bytes,
    key: ServiceKey,
    protocol: int,
    port: int,
    flags: int = SYN | ACK,
    router: bytes | None = None,
) -> bytes:
    """An ICMP error from the client's side about an answer that no connection here has given."""
    v4 = len(address) == 4
    client = CLIENT if v4 else CLIENT6
    build = ipv4 if v4 else packets.ipv6
    content = {
        TCP: lambda: tcp(key.port, port, flags),
        UDP: lambda: udp(key.port, port, b"word"),
        SCTP: lambda: packets.sctp(key.port, port, packets.chunk(packets.DATA, b"word")),
    }[protocol]()
    quoted = build(address, client, protocol, content)
    kind, code, detail = (3, 4, 1400) if v4 else (2, 0, 1400)
    return packets.icmp(router or client, address, kind, code, detail, quoted)


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE])
def test_an_error_begins_a_connection(
    director: Director, address: bytes, protocol: int, method: str
) -> None:
    """Whatever state the quoted packet speaks of; the connection stays in the first one, for 3 seconds."""
    key = director.service(1, protocol=protocol, address=address, method=method, server_port=8080)
    port = director.unused_port()
    frame = director.frame(_stray_error(address, key, protocol, port))
    assert director.tc(frame) == (UNTOUCHED, frame)
    assert director.connection(key, port) is None
    director.table.set_sysctls({"schedule_icmp": "1"})
    verdict, after = director.tc(frame)
    assert verdict == SENT
    if method == ROUTE:
        assert after == packets.with_one_hop_less(frame)
    else:
        server = (real_server if address == VIP else real_server6)(1)
        offset = 16 if address == VIP else 24
        start = packets.ETHERNET_SIZE + offset
        assert after[start : start + len(server)] == server
        assert (8080).to_bytes(2, "big") in after
    found = director.connection(key, port)
    assert found is not None
    assert (found.state, found.expires <= 3) == ("UDP" if protocol == UDP else "NONE", True)
    entry = director.listing(key).destinations[0]
    assert (entry.active, entry.inactive, entry.stats.connections, entry.stats.in_packets) == (0, 1, 1, 1)
    assert director.tc(frame)[0] == SENT
    assert director.listing(key).stats.connections == 1


def test_an_error_goes_where_a_hash_sends_its_client(director: Director) -> None:
    """So that of several directors each takes those of the others' connections to the same real server."""
    director.table.set_sysctls({"schedule_icmp": "1"})
    key = director.service(1, 1, 1, scheduler="sh")
    for number in range(1, 9):
        client = packed(f"10.0.0.{200 + number}")
        assert director.tc(director.segment(key, 3000, SYN, client=client))[0] == SENT
        quoted = ipv4(VIP, client, TCP, tcp(key.port, 3001, ACK))
        assert director.tc(director.frame(packets.icmp(client, VIP, 3, 1, 0, quoted)))[0] == SENT
        first, second = (
            next(one.destination for one in director.table.connections()
                 if (one.client, one.client_port, one.virtual_port) == (client, port, key.port))
            for port in (3000, 3001)
        )  # fmt: skip
        assert first == second


def test_what_begins_nothing(director: Director) -> None:
    director.table.set_sysctls({"schedule_icmp": "1"})
    key = director.service(1)
    other = director.unused_key()
    before = director.snapshot()
    strange = director.frame(_stray_error(VIP, other, TCP, 4000))
    assert director.tc(strange) == (UNTOUCHED, strange), "no service"
    assert director.snapshot() == before
    # No real server: an error is not answered.
    director.table.delete_destination(key, real_server(1), key.port)
    assert director.tc(director.frame(_stray_error(VIP, key, TCP, 4000)))[0] == DROPPED
    # One-packet scheduling has no connections that errors could be about.
    single = director.unused_key(UDP)
    director.table.add_service(Service(single, "rr", one_packet=True))
    director.table.add_destination(single, Destination(real_server(1), single.port, ROUTE))
    frame = director.frame(_stray_error(VIP, single, UDP, 4000))
    assert director.tc(frame) == (UNTOUCHED, frame)
    assert director.listing(single).stats.connections == 0


def test_the_error_of_a_connection_begins_no_other(director: Director) -> None:
    director.table.set_sysctls({"schedule_icmp": "1"})
    key = director.service(1, 1)
    port = director.open(key, ACK)
    served = director.connection(key, port)
    assert served is not None
    for _ in range(3):
        assert director.tc(director.frame(_stray_error(VIP, key, TCP, port)))[0] == SENT
    found = director.connection(key, port)
    assert found is not None
    assert (found.state, found.destination) == ("ESTABLISHED", served.destination)
    assert director.listing(key).stats.connections == 1


# pmtu_disc


@pytest.mark.parametrize("value", ["1", "0"])
@pytest.mark.parametrize("whole", [True, False])
def test_pmtu_disc_says_whether_a_tunnel_has_df(director: Director, value: str, whole: bool) -> None:
    director.table.set_sysctls({"pmtu_disc": value})
    key = director.service(1, method=TUNNEL, servers=(FAR_SERVER,))
    content = tcp(director.unused_port(), key.port, SYN)
    packet = ipv4(CLIENT, VIP, TCP, content, fragment=packets.DONT_FRAGMENT * whole)
    verdict, after = director.tc(director.frame(packet))
    assert verdict == SENT
    outer = int.from_bytes(after[20:22], "big") & packets.DONT_FRAGMENT
    inner = int.from_bytes(after[40:42], "big") & packets.DONT_FRAGMENT
    assert bool(inner) == whole
    assert bool(outer) == (whole and value == "1")
    assert packets.checksum(after[14:34]) == 0


def test_without_pmtu_disc_a_path_may_be_narrow(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers fragment what has no DF, and so does the director."""
    monkeypatch.setattr(director, "device_sums", 0)  # what is cut short loses it
    key = director.service(1, method=TUNNEL, servers=(FAR_SERVER,))

    def verdict(size: int) -> int:
        content = tcp(director.unused_port(), key.port, SYN, bytes(size - 40))
        packet = ipv4(CLIENT, VIP, TCP, content, fragment=packets.DONT_FRAGMENT)
        before = director.maps.events()["too_big"]
        director.tc(director.frame(packet))
        return director.maps.events()["too_big"] - before

    record = director.record(key)
    for value, refused in (("1", 1), ("0", 0)):
        director.table.set_sysctls({"pmtu_disc": value})
        record.path_mtu, record.path_mtu_until = 1300, (ticks_now() + seconds_to_ticks(60)) & 0xFFFFFFFF
        record.refreshed = 0
        assert verdict(1400) == refused
        assert verdict(1280) == 0
        assert verdict(1481) == refused


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_tunnel_has_no_room_for_is_fragmented_by_the_stack(director: Director, whole: bool) -> None:
    """It comes in again by lo, from the director to the real server, with the hop that the stack takes."""
    if whole:
        director.table.set_sysctls({"pmtu_disc": "0"})
    key = director.service(1, method=TUNNEL, servers=(FAR_SERVER,))
    port = director.unused_port()
    for size, too_long in ((1480, False), (1481, True)):
        content = tcp(port, key.port, SYN, bytes(size - 40))
        packet = ipv4(CLIENT, VIP, TCP, content, fragment=packets.DONT_FRAGMENT * whole)
        verdict, after = director.tc(director.frame(packet))
        assert verdict == SENT
        inner = packets.with_one_hop_less(director.frame(packet))[packets.ETHERNET_SIZE :]
        identification = int.from_bytes(after[18:20], "big")
        ttl = 64 if too_long else 63
        outer = packets.ipv4(
            packed("10.0.1.1"), FAR_SERVER, 4, inner, ttl, fragment=0, identification=identification
        )
        assert after[packets.ETHERNET_SIZE :] == outer
        assert (after[:12] == bytes(12)) == too_long
