# SPDX-License-Identifier: GPL-2.0-only
"""The persistence engine "sip": a Call-ID's real server, text and life; answers, and calls the other way."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    SENT,
    SMALL,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    Director,
    real_server,
    real_server6,
)
from tests.packet.kernel_sip import LONGEST, call_id
from tests.packet.packets import TCP, UDP, packed
from tests.packet.translated import End, whole_packet
from xlvs import errors
from xlvs.datapath.load import Capacity
from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi, bpf
from xlvs.model import MASQUERADE, ROUTE, Connection, Destination, DestinationEntry, Service, ServiceKey

SIP = 5060
OTHER_CLIENT = packed("10.0.0.201")
families = pytest.mark.parametrize("vip", [VIP, VIP6], ids=["ipv4", "ipv6"])


def message(call: str | bytes, head: bytes = b"INVITE sip:bob@example.org SIP/2.0\r\n") -> bytes:
    """A SIP message with that Call-ID."""
    name = call.encode() if isinstance(call, str) else call
    return head + b"Via: SIP/2.0/UDP 192.0.2.1\r\nCall-ID: " + name + b"\r\n\r\n"


class Calls:
    """A service that goes by Call-IDs, with its real servers at port 5060."""

    def __init__(self, director: Director, service: Service, servers: list[bytes], method: str) -> None:
        self.director = director
        self.service = service
        self.servers = servers
        self.virtual: End = (service.key.address, service.key.port)
        self.client = CLIENT if service.key.family == 2 else CLIENT6
        self._method = method
        director.table.add_service(service)
        for server in reversed(servers):  # so that rr begins with the first
            director.table.add_destination(service.key, Destination(server, SIP, method))

    def send(self, payload: bytes, source: End | None = None) -> int | None:
        """A client's datagram; the number of the real server that gets it, or None if it is dropped."""
        source = source or (self.client, self.director.unused_port())
        before = whole_packet(UDP, source, self.virtual, payload)
        counts = self._counts()
        verdict, after = self.director.tc(self.director.frame(before))
        if verdict == DROPPED:
            return None
        assert verdict == SENT
        for number, server in enumerate(self.servers):
            target = (server, SIP) if self._method == MASQUERADE else self.virtual
            expected = self.director.frame(whole_packet(UDP, source, target, payload, ttl=63))
            if self._method == MASQUERADE and after == expected:
                return number
            if self._method == ROUTE and after == expected:
                return [now - then for now, then in zip(self._counts(), counts, strict=True)].index(1)
        raise AssertionError("a datagram went nowhere that is known")

    def _counts(self) -> list[int]:
        """How many packets each real server has had; 0 for one that is gone."""
        entries = self.director.table.service(self.service.key).destinations
        counts = {one.destination.address: one.stats.in_packets for one in entries}
        return [counts.get(server, 0) for server in self.servers]

    def answer(self, number: int, payload: bytes, target: End) -> bool:
        """What a real server sends; whether it leaves as the VIP's, byte for byte, or as it is."""
        before = whole_packet(UDP, (self.servers[number], SIP), target, payload)
        verdict, after = self.director.tc(self.director.frame(before))
        if verdict == UNTOUCHED:
            assert after == self.director.frame(before)
            return False
        expected = whole_packet(UDP, self.virtual, target, payload, ttl=63)
        assert (verdict, after) == (SENT, self.director.frame(expected))
        return True

    def templates(self) -> list[Connection]:
        """The listed templates of its own."""
        return [
            one
            for one in self.director.table.connections()
            if one.engine and (one.virtual, one.virtual_port) == self.virtual
        ]

    def known(self) -> set[str]:
        """The Call-IDs that have templates."""
        return {one.engine_data for one in self.templates()}


@contextmanager
def _calls(
    director: Director, vip: bytes = VIP, method: str = ROUTE, servers: int = 2, one_packet: bool = True,
    netmask: int = 0, persistence: int = 60, engine: str = "sip", port: int = SIP, protocol: int = UDP,
) -> Iterator[Calls]:  # fmt: skip
    key = ServiceKey(2 if vip == VIP else 10, protocol, vip, port)
    numbered = real_server if vip == VIP else real_server6
    service = Service(
        key, "rr", persistence=persistence, netmask=netmask, engine=engine, one_packet=one_packet
    )
    made = Calls(director, service, [numbered(n) for n in range(1, servers + 1)], method)
    try:
        yield made
    finally:
        director.table.delete_service(key)
        _end_all(director)


def _end_all(director: Director) -> None:
    """Let the time of every connection be over, then that of the templates that controlled them."""

    def has_ended() -> bool:
        live = [place for place, _ in director.slots(abi.PHASE_LIVE)]
        for place in live:
            director.slot_record(place).expires = (ticks_now() - 2) & 0xFFFFFFFF
        return not live

    director.wait_until(has_ended, 5, "connections are still there")


def _texts(director: Director) -> int:
    """How many Call-IDs are remembered."""
    return len(bpf.keys(director.maps.descriptor("call_ids"), ctypes.sizeof(abi.CallIdKey)))


def _hash(director: Director, call: bytes) -> int:
    """The packet path's hash of a Call-ID."""
    value: int = director.maps.limits.hash_seed
    for letter in call:
        value = (value ^ letter) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 32
    return value >> 33


@families
def test_a_call_keeps_its_real_server(director: Director, vip: bytes) -> None:
    """Whatever the client's port, and its address within the netmask; other calls are other calls."""
    with _calls(director, vip, netmask=0 if vip == VIP else 64) as calls:
        assert [calls.send(message(f"{n}@host")) for n in range(4)] == [0, 1, 0, 1]
        other = OTHER_CLIENT if vip == VIP else packed("fd00::201")
        for n in (3, 1, 0, 2):
            assert calls.send(message(f"{n}@host"), (other, director.unused_port())) == n % 2
        assert calls.known() == {f"{n}@host" for n in range(4)}
        (one,) = [one for one in calls.templates() if one.engine_data == "3@host"]
        assert (one.client_port, one.state, one.engine, one.destination) == (
            0,
            "NONE",
            "sip",
            calls.servers[1],
        )
        assert one.client == (bytes(4) if vip == VIP else packed("fd00::"))
        assert [entry.persistent for entry in director.table.service(calls.service.key).destinations] == [
            2,
            2,
        ]


def test_other_networks_have_other_templates(director: Director) -> None:
    with _calls(director, netmask=32) as calls:
        assert calls.send(message("a")) == 0
        assert calls.send(message("a"), (OTHER_CLIENT, 5060)) == 1
        assert calls.send(message("a")) == 0
        assert calls.send(message("a"), (OTHER_CLIENT, 5061)) == 1


def test_services_have_templates_of_their_own(director: Director) -> None:
    with _calls(director) as one, _calls(director, port=5070) as other:
        assert (one.send(message("a")), one.send(message("b"))) == (0, 1)
        assert (other.send(message("b")), other.send(message("a"))) == (0, 1)
        assert _texts(director) == 4


def test_a_connection_keeps_its_real_server_whatever_the_call(director: Director) -> None:
    """Without one-packet scheduling only a flow's first datagram is read."""
    with _calls(director, one_packet=False) as calls:
        assert calls.send(message("a"), (CLIENT, 6001)) == 0
        assert calls.send(message("b"), (CLIENT, 6002)) == 1
        for payload in (message("b"), message("c"), b"keep-alive"):
            assert calls.send(payload, (CLIENT, 6001)) == 0
        assert calls.send(message("a"), (CLIENT, 6003)) == 0
        assert calls.known() == {"a", "b"}


@pytest.fixture(scope="module")
def any_calls(director: Director) -> Iterator[Calls]:
    """A service with one real server, for whatever it may be sent."""
    with _calls(director, servers=1, port=5999, persistence=3600) as made:
        yield made


PIECES = [
    b"Call-ID", b"call-id", b"i", b"I", b":", b": ", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\r\n ", b"\n\t",
    b"a", b"Z@9", b"@", b"!~", b";", b"\xe4", b"\xd7", b"\xb5", b"Via", b"In-Reply-To: x@y\r\n", b"-", b"=",
    b"\r\nCall-ID: ", b"\r\ni:", b"x" * 60, b"y" * 250, b"Call-I", b"\r\nCall-ID: @\r\n",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map(b"".join),
    st.integers(0, 600),
)
def test_texts_are_read_as_the_kernel_does(any_calls: Calls, text: bytes, before: int) -> None:
    """Also where what is fetched at once ends in the middle of a Call-ID."""
    text = b"OPTIONS " + b"s" * before + text
    expected = call_id(text)
    known = any_calls.known()
    assert any_calls.send(text) == (None if expected is None else 0)
    if expected is not None:
        known.add(expected.decode("ascii", "backslashreplace"))
    assert any_calls.known() == known


@pytest.mark.parametrize("before", range(160, 260, 7))
def test_a_call_id_where_two_fetches_meet(director: Director, before: int) -> None:
    call = "c" * 30 + "@" + "h" * 200
    with _calls(director) as calls:
        assert calls.send(message(call, b"INVITE " + b"s" * before + b"\r\n")) == 0
        assert calls.send(message("other")) == 1
        assert calls.send(message(call)) == 0
        assert calls.known() == {call, "other"}


def test_the_longest_call_id(director: Director) -> None:
    with _calls(director) as calls:
        longest = "x" * LONGEST
        assert calls.send(message(longest)) == 0
        assert calls.send(message(longest[:-1])) == 1
        assert calls.send(message(longest[:-1] + "y")) == 0
        assert calls.send(message(longest)) == 0
        assert calls.send(message(longest + "x")) is None
        assert {len(one) for one in calls.known()} == {LONGEST, LONGEST - 1}


@pytest.mark.parametrize("one_packet", [True, False], ids=["one packet", "connections"])
@pytest.mark.parametrize("payload", [b"", b"\r\n\r\n", b"INVITE sip:x SIP/2.0\r\n\r\n", bytes(1400)])
def test_without_a_call_id_it_is_dropped(director: Director, payload: bytes, one_packet: bool) -> None:
    with _calls(director, one_packet=one_packet) as calls:
        assert calls.send(b"") is None  # the VIP has been looked for from here
        before = director.snapshot()
        events = director.events()
        assert calls.send(payload) is None
        assert director.events() == events | {"no_call_id": events["no_call_id"] + 1}
        after = director.snapshot()
        assert {**after, "events": None} == {**before, "events": None}


def test_tcp_has_no_call_ids(director: Director) -> None:
    with _calls(director, protocol=TCP) as calls:
        frame = director.segment(calls.service.key, director.unused_port(), packets.SYN, message("a"))
        assert director.tc(frame)[0] == DROPPED


def test_padding_is_no_text(director: Director) -> None:
    """What follows the IP packet in the frame is not read."""
    with _calls(director, servers=1) as calls:
        packet = whole_packet(UDP, (CLIENT, 6001), calls.virtual, b"x\r\ni: ")
        assert director.tc(director.frame(packet) + b"a\r\n")[0] == DROPPED


def test_xdp_leaves_it_to_tc(director: Director) -> None:
    with _calls(director) as calls:
        frame = director.frame(whole_packet(UDP, (CLIENT, 6001), calls.virtual, message("a")))
        before = director.snapshot()
        assert director.xdp(frame) == (XDP_PASS, frame)
        assert director.snapshot() == before


@families
def test_the_first_fragment_has_the_call_id(director: Director, vip: bytes) -> None:
    with _calls(director, vip, netmask=0 if vip == VIP else 64) as calls:
        assert calls.send(message("other")) == 0
        whole = whole_packet(UDP, (calls.client, 6001), calls.virtual, message("a") + bytes(2000))
        for part in packets.fragments(whole, 1000, 77):
            assert director.tc(director.frame(part))[0] == SENT
        late = whole_packet(UDP, (calls.client, 6001), calls.virtual, message("a", b"s" * 1200 + b"\r\n"))
        first, *others = packets.fragments(late, 1000, 78)
        assert director.tc(director.frame(first))[0] == DROPPED
        for part in others:
            assert director.tc(director.frame(part))[0] == UNTOUCHED
        assert calls.send(message("a")) == 1


def test_a_text_goes_with_its_template(director: Director) -> None:
    with _calls(director) as calls:
        assert calls.send(message("a")) == 0
        assert calls.send(message("b")) == 1
        assert _texts(director) == 2
        # Put aside with its real server; the next one is chosen anew.
        director.table.delete_destination(calls.service.key, calls.servers[0], SIP)
        assert calls.send(message("a")) == 1
        assert Counter(one.engine_data for one in director.table.connections()) == {"a": 2, "b": 1}
        assert sorted(one.virtual_port for one in director.table.connections()) == [SIP, SIP, 0xFFFF]
        _end_all(director)
        assert _texts(director) == 0


def test_a_template_that_controls_connections_lives_on(director: Director) -> None:
    with _calls(director, one_packet=False, persistence=1) as calls:
        assert calls.send(message("a"), (CLIENT, 6001)) == 0
        (place,) = (place for place, slot in director.slots(abi.PHASE_LIVE) if slot.is_of_call())
        record = director.slot_record(place)
        record.expires -= 100
        assert calls.send(message("b")) == 1
        assert calls.send(message("a")) == 0
        director.wait_until(
            lambda: (record.expires - director.slot_record(place).expires) == 0 and bool(calls.templates()),
            2,
            "",
        )
        assert "a" in calls.known()


def test_an_expired_template_is_not_used(director: Director) -> None:
    """Even where the sweeper has not come to it yet."""
    with _calls(director) as calls:
        assert calls.send(message("a")) == 0
        for place, _ in director.slots(abi.PHASE_LIVE):
            director.slot_record(place).expires -= 1_000_000
        assert calls.send(message("a")) == 1
        assert calls.send(message("a")) == 1


def test_two_calls_of_one_hash(director: Director) -> None:
    seen: dict[int, bytes] = {}
    for number in range(1_000_000):
        call = b"%x" % number
        twin = seen.setdefault(_hash(director, call), call)
        if twin != call:
            break
    else:
        raise AssertionError("no two of a million calls have one hash of 31 bits")
    with _calls(director) as calls:
        assert (calls.send(message(call)), calls.send(message(twin))) == (0, 1)
        for _ in range(3):
            assert (calls.send(message(twin)), calls.send(message(call))) == (1, 0)
        assert calls.known() == {call.decode(), twin.decode()}
        # Where both places are others', a third one has none.
        descriptor = director.maps.descriptor("call_ids")
        for key in bpf.keys(descriptor, ctypes.sizeof(abi.CallIdKey)):
            bpf.update(descriptor, key, bytes(abi.CallId(5, (ctypes.c_uint8 * 255)(*b"other"))))
        full = director.events()["table_full"]
        assert calls.send(message(call)) is None
        assert director.events()["table_full"] == full + 1


def test_full(make_director: Callable[[Capacity], Director]) -> None:
    """Beyond the limit new calls are dropped; those there are go on, and room comes back with time."""
    director = make_director(SMALL)
    limit = SMALL.connections * 2 // 8
    with _calls(director) as calls:
        for number in range(limit):
            assert calls.send(message(str(number)), (CLIENT, 6001)) == number % 2
        full = director.events()["table_full"]
        for _ in range(3):
            assert calls.send(message("one more"[:3])) is None
        assert director.events()["table_full"] == full + 3
        assert _texts(director) == len(calls.templates()) == limit
        assert calls.send(message("7")) == 1
        persistent = sum(one.persistent for one in director.table.service(calls.service.key).destinations)
        assert persistent == limit
        _end_all(director)
        assert _texts(director) == 0
        assert calls.send(message("one")) is not None


def test_another_engine_or_none(director: Director) -> None:
    with _calls(director) as calls:
        assert calls.send(message("a")) == 0
        key = calls.service.key
        with pytest.raises(errors.SchedulerNotFound):
            director.table.edit_service(calls.service.replace(engine="other"))
        with pytest.raises(errors.SchedulerNotFound):
            director.table.add_service(Service(director.unused_key(UDP), engine="other"))
        assert director.table.service(key).service == calls.service
        director.table.edit_service(calls.service.replace(engine=""))
        assert director.table.service(key).service.engine == ""
        assert calls.send(b"no message") == 1
        assert calls.send(message("a")) == 1
        director.table.edit_service(calls.service)
        assert calls.send(message("a")) == 0
        assert calls.send(b"no message") is None


# --- what real servers send ---------------------------------------------


@families
def test_answers_to_one_packet_come_from_the_vip(director: Director, vip: bytes) -> None:
    with _calls(director, vip, MASQUERADE, netmask=0 if vip == VIP else 64) as calls:
        client = (calls.client, 6001)
        assert calls.send(message("a"), client) == 0
        assert calls.answer(0, message("a"), client)
        assert not calls.answer(0, b"SIP/2.0 200 OK\r\n\r\n", client)
        (template,) = calls.templates()
        assert template.state == "ASSURED"
        assert not [one for one in director.table.connections() if not one.engine]
        entry = director.entry(calls.service.key, calls.servers[0])
        assert (entry.stats.connections, entry.stats.in_packets, entry.stats.out_packets) == (2, 1, 1)


@families
def test_fragments_of_such_an_answer(director: Director, vip: bytes) -> None:
    with _calls(director, vip, MASQUERADE, netmask=0 if vip == VIP else 64) as calls:
        client = (calls.client, 6001)
        payload = message("a") + bytes(2500)
        before = packets.fragments(whole_packet(UDP, (calls.servers[0], SIP), client, payload), 1000, 99)
        after = packets.fragments(whole_packet(UDP, calls.virtual, client, payload, ttl=63), 1000, 99)
        for part, expected in zip(before, after, strict=True):
            assert director.tc(director.frame(part)) == (SENT, director.frame(expected))


@pytest.mark.parametrize("one_packet", [True, False], ids=["one packet", "connections"])
def test_a_call_that_a_real_server_begins(director: Director, one_packet: bool) -> None:
    with _calls(director, VIP, MASQUERADE, one_packet=one_packet) as calls:
        callee = (OTHER_CLIENT, 5062)
        assert calls.answer(1, message("a"), callee)
        assert calls.send(message("a"), callee) == 1
        assert calls.send(message("a")) == 1
        assert calls.send(message("b")) == 0
        if not one_packet:
            assert calls.send(b"keep-alive", callee) == 1
            assert calls.answer(1, b"keep-alive", callee)


def test_a_call_moves_with_the_real_server_that_sends(director: Director) -> None:
    with _calls(director, VIP, MASQUERADE) as calls:
        assert calls.send(message("a")) == 0
        assert calls.answer(1, message("a"), (CLIENT, 6001))
        assert calls.send(message("a")) == 1
        assert Counter(one.virtual_port for one in calls.templates()) == {SIP: 1}


def test_two_real_servers_send_to_one_port(director: Director) -> None:
    """It has one connection with the service: that of the one that sent last."""
    with _calls(director, VIP, MASQUERADE, one_packet=False) as calls:
        client = (CLIENT, 6001)
        assert calls.send(message("a"), client) == 0
        for _ in range(3):
            for number, call in ((1, "b"), (0, "a")):
                assert calls.answer(number, message(call), client)
                assert calls.send(b"whatever", client) == number
        found = [one for one in director.table.connections() if not one.engine]
        assert len(found) == 1
        entries = director.table.service(calls.service.key).destinations
        assert sorted(entry.inactive for entry in entries) == [0, 1]


def test_who_may_not_call(director: Director) -> None:
    callee = (OTHER_CLIENT, 5062)
    with _calls(director, VIP, MASQUERADE) as calls:
        key = calls.service.key
        stranger = whole_packet(UDP, (real_server(5), SIP), callee, message("a"))
        elsewhere = whole_packet(UDP, (calls.servers[0], SIP + 1), callee, message("a"))
        to_director = whole_packet(UDP, (calls.servers[0], SIP), (packed("10.0.0.1"), 5062), message("a"))
        last_hop = whole_packet(UDP, (calls.servers[0], SIP), callee, message("a"), ttl=1)
        to_port_0 = whole_packet(UDP, (calls.servers[0], SIP), (OTHER_CLIENT, 0), message("a"))
        before = director.snapshot()
        for packet in (stranger, elsewhere, to_director, last_hop, to_port_0):
            frame = director.frame(packet)
            assert director.tc(frame) == (UNTOUCHED, frame)
        assert director.snapshot() == before
        # Another forwarding method, another engine, gone; and back again.
        director.table.edit_destination(key, Destination(calls.servers[0], SIP, ROUTE))
        assert not calls.answer(0, message("a"), callee)
        director.table.edit_destination(key, Destination(calls.servers[0], SIP, MASQUERADE))
        assert calls.answer(0, message("a"), callee)
        director.table.edit_service(calls.service.replace(engine=""))
        assert not calls.answer(0, message("a"), callee)
        director.table.edit_service(calls.service)
        assert calls.answer(0, message("a"), callee)
        director.table.delete_destination(key, calls.servers[0], SIP)
        assert not calls.answer(0, message("a"), callee)
        director.table.add_destination(key, Destination(calls.servers[0], SIP, MASQUERADE))
        assert calls.answer(0, message("a"), callee)
    assert director.maps.settings.callers == 0
    assert not calls.answer(0, message("a"), callee)


def test_a_real_server_of_two_services(director: Director) -> None:
    """When one lets it go, it calls for the other."""
    callee = (OTHER_CLIENT, 5062)
    with _calls(director, VIP, MASQUERADE) as calls:
        with _calls(director, VIP, MASQUERADE, port=5070):
            assert director.maps.settings.callers == 2
        assert calls.answer(0, message("a"), callee)


def test_a_command_that_died_is_mended(director: Director) -> None:
    with _calls(director, VIP, MASQUERADE) as calls:
        descriptor = director.maps.descriptor("senders")
        for key in bpf.keys(descriptor, len(bytes(abi.Sender()))):
            bpf.delete(descriptor, key)
        director.maps.settings.changing = 1
        director.table.begin_change()
        director.table.end_change()
        assert calls.answer(0, message("a"), (OTHER_CLIENT, 5062))


def test_without_persistence_the_engine_lets_answers_out(director: Director) -> None:
    with _calls(director, VIP, MASQUERADE, persistence=0, netmask=32) as calls:
        assert calls.send(b"no message") == 0
        assert calls.send(b"no message") == 1
        assert calls.answer(1, message("a"), (OTHER_CLIENT, 5062))
        assert not calls.templates()


def test_a_slot_is_read_whole() -> None:
    """The layout that user space reads is the packet path's."""
    assert ctypes.sizeof(abi.CallId) == 256
    assert pack("=B", LONGEST) == bytes(abi.CallId(LONGEST))[:1]


@pytest.mark.parametrize("method", [ROUTE, MASQUERADE])
@pytest.mark.parametrize("one_packet", [True, False])
def test_a_firewall_marks_calls(director: Director, method: str, one_packet: bool) -> None:
    """A Call-ID keeps to its real server whatever address and port the mark's datagrams go to."""
    key = ServiceKey(2, fwmark=5060)
    service = Service(key, "rr", persistence=60, engine="sip", one_packet=one_packet)
    servers = [real_server(number) for number in (1, 2)]
    director.table.add_service(service)
    try:
        for server in reversed(servers):
            director.table.add_destination(key, Destination(server, SIP, method))

        def send(call: str, port: int) -> int:
            before = {one.destination.address: one.stats.in_packets for one in _entries(director, key)}
            source, target = (CLIENT, director.unused_port()), (VIP, port)
            frame = director.frame(whole_packet(UDP, source, target, message(call)))
            verdict, after = director.tc(frame, mark=5060)
            assert verdict == SENT
            (served,) = (
                one.destination.address
                for one in _entries(director, key)
                if one.stats.in_packets > before[one.destination.address]
            )
            if method == MASQUERADE:
                # In a persistent service each packet keeps its port.
                expected = whole_packet(UDP, source, (served, port), message(call), ttl=63)
                assert after == director.frame(expected)
            return servers.index(served)

        first = [send(call, SIP) for call in "abcd"]
        assert first == [0, 1, 0, 1]
        assert [send(call, port) for port in (SIP, 5070) for call in "abcd"] == first * 2
        listed = [one for one in director.table.connections() if one.engine]
        assert sorted(one.engine_data for one in listed) == list("abcd")
        # It has no address from which its real servers could begin a call.
        stray = director.frame(whole_packet(UDP, (servers[0], SIP), (OTHER_CLIENT, 5062), message("e")))
        assert director.tc(stray) == (UNTOUCHED, stray)
    finally:
        director.table.delete_service(key)
        _end_all(director)


def _entries(director: Director, key: ServiceKey) -> list[DestinationEntry]:
    return list(director.table.service(key).destinations)
