# SPDX-License-Identifier: GPL-2.0-only
"""NAT and tunnels at XDP: byte for byte what TC makes of the same frame, and counted alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    CLIENT_MAC,
    FAR_SERVER,
    FAR_SERVER6,
    FAR_SERVER_MAC,
    INTERFACE_MAC,
    SECOND_MAC,
    SENT,
    VIP,
    VIP6,
    XDP_PASS,
    XDP_REDIRECT,
    XDP_TX,
    Director,
    new_director,
    real_server,
    real_server6,
    real_server_mac,
)
from tests.packet.packets import ACK, ETHERNET_SIZE, FIN, PSH, RST, SYN, TCP, UDP, URG
from tests.packet.spaces import ip
from tests.packet.test_tunnels import KINDS
from tests.packet.translated import Masqueraded, whole_packet
from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, TUNNEL, Destination, Service, ServiceKey, Tunnel

SERVER_PORT = 8080
SOON = 5000
"""Ticks, fewer than any timeout here: an entry that is given its lifetime anew is told by it."""
_ATTEMPTS = 5
"""So often a second passes between two calls on no machine."""
families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
directions = pytest.mark.parametrize("answers", [False, True], ids=["requests", "answers"])


@pytest.fixture(scope="module")
def director() -> Iterator[Director]:
    """A director that knows its client's MAC, and whose interfaces have native XDP."""
    with new_director() as made:
        for index in (made.ifindex, made.second_ifindex):
            _interface(made, index).known |= abi.INTERFACE_NATIVE
        for address in ("10.0.0.200", "fd00::200"):
            ip(f"neigh add {address} lladdr {CLIENT_MAC.hex(':')} nud permanent dev eth0")
        yield made


def _interface(director: Director, index: int) -> abi.Interface:
    return director.maps.record("interfaces", abi.Interface, index, abi.INTERFACE_LIMIT)


def _server(address: bytes) -> bytes:
    return real_server(1) if address == VIP else real_server6(1)


def _connection(director: Director, key: ServiceKey) -> Masqueraded:
    """An established connection."""
    client = (CLIENT if key.family == 2 else CLIENT6, director.unused_port())
    one = Masqueraded(key.protocol, client, (key.address, key.port), (_server(key.address), SERVER_PORT))
    for packet, _ in (one.asked(b"", SYN), one.answered(b"", SYN | ACK), one.asked()):
        assert director.tc(director.frame(packet))[0] == SENT
    return one


@dataclass(frozen=True)
class _Seen:
    """What a frame has changed."""

    verdict: int
    frame: bytes
    counted: tuple[int, ...]
    entry: tuple[int, ...]
    renewed: bool


class Beside:
    """Gives the same frame of a connection to XDP and to TC."""

    def __init__(self, director: Director, key: ServiceKey, server: bytes) -> None:
        self._director = director
        self._key = key
        self._server = server
        self.sent = b""  # by XDP, last
        self._place = next(
            place
            for place, slot in director.slots(abi.PHASE_LIVE)
            if (slot.virtual, slot.virtual_port) == (key.address, key.port) and slot.client_port
        )

    def _counters(self) -> tuple[int, ...]:
        listed = self._director.listing(self._key)
        (entry,) = (one for one in listed.destinations if one.destination.address == self._server)
        return tuple(
            value
            for each in (listed.stats, entry.stats)
            for value in (each.connections, each.in_packets, each.out_packets, each.in_bytes, each.out_bytes)
        )

    def _run(self, give: Any, frame: bytes) -> _Seen:
        record = self._director.slot_record(self._place)
        record.expires = soon = (ticks_now() + SOON) & 0xFFFFFFFF
        record.in_packets = 3
        before = self._counters()
        verdict, after = give(frame)
        counted = tuple(now - then for now, then in zip(self._counters(), before, strict=True))
        control = record.control & 0xFFFFFFFF
        return _Seen(verdict, after, counted, (control, record.in_packets), record.expires != soon)

    def compare(self, frame: bytes) -> bool:
        """Whether XDP has sent the frame; fails where it did otherwise than TC does."""
        director = self._director
        for record in map(director.maps.destination, range(director.maps.settings.destinations_top)):
            record.refreshed = ticks_now() - 1
        at_xdp = director.events()
        first = self._run(director.xdp, frame)
        if first.verdict == XDP_PASS:
            assert first.frame == frame
            assert not any(first.counted)
            assert not first.renewed
            assert first.entry[1] == 3
            assert director.events() == at_xdp
            return False
        assert director.events() == at_xdp | {"xdp_forwarded": at_xdp["xdp_forwarded"] + 1}
        assert first.verdict in (XDP_TX, XDP_REDIRECT)
        self.sent = first.frame
        second = self._run(director.tc, frame)
        assert second.verdict == SENT
        chance = _chance(second.frame) if len(first.frame) != len(frame) else None
        assert _with_chance(first.frame[12:], chance) == second.frame[12:]
        assert (first.counted, first.entry, first.renewed) == (
            second.counted, second.entry, second.renewed,
        )  # fmt: skip
        assert first.renewed
        return True

    def is_sent(self, frame: bytes) -> bool:
        """The same; a packet a second goes by TC, and the next one is XDP's."""
        for _ in range(_ATTEMPTS):
            if self.compare(frame):
                return True
            self._director.tc(frame)
        return False


def _chance(frame: bytes) -> bytes | None:
    """The identification of an outer IPv4 header, which is random, and the checksum over it."""
    return frame[18:20] + frame[24:26] if frame[12:14] == b"\x08\x00" else None


def _with_chance(content: bytes, chance: bytes | None) -> bytes:
    """A frame without its MACs, with that identification in a sound header."""
    if chance is None:
        return content
    assert packets.checksum(content[2:22]) == 0
    return content[:6] + chance[:2] + content[8:12] + chance[2:] + content[14:]


@st.composite
def _variations(draw: st.DrawFn) -> dict[str, Any]:
    """What packets of a connection may differ in."""
    return {
        "payload": draw(st.binary(max_size=80)) * draw(st.sampled_from((1, 1, 1, 18))),
        "flags": draw(st.sampled_from((ACK, ACK, ACK | PSH, ACK | URG, 0xD0, PSH, FIN | ACK, RST, SYN))),
        "ttl": draw(st.sampled_from((1, 2, 3, 64, 255))),
        "checksum": draw(st.sampled_from((True, True, True, False))),
        "tos": draw(st.sampled_from((0, 1, 2, 3, 0xB8, 0xFF))),
        "options": draw(st.sampled_from((0, 0, 0, 1, 3))),
        "fragment": draw(st.sampled_from((0, 0, 0x4000, 0x8000, 0x2000, 7))),
        "padding": draw(st.sampled_from((0, 0, 6))),
        "damage": draw(st.sampled_from((None, None, None, None, 0, 8, 10, 19))),
    }


def _is_plain(family: int, protocol: int, varied: dict[str, Any]) -> bool:
    """Whether XDP is to send it."""
    return (
        (protocol == UDP or varied["flags"] & (ACK | SYN | FIN | RST) == ACK)
        and varied["ttl"] > 1
        and not varied["options"]
        and (family == 10 or (not varied["fragment"] & 0x3FFF and varied["damage"] is None))
        and (family == 2 or varied["damage"] is None)
    )


def _packet(ends: Any, protocol: int, varied: dict[str, Any]) -> bytes:
    """The packet between these two ends."""
    source, destination = ends
    fields: dict[str, Any] = {}
    if len(source[0]) == 4:
        fields = {"tos": varied["tos"], "fragment": varied["fragment"], "identification": 77}
        if varied["options"]:
            fields["options"] = bytes([1]) * 4 * varied["options"]
    else:
        fields["traffic_class"] = varied["tos"]
        if varied["options"]:
            padding = (packets.HOP_BY_HOP, packets.options_extension())
            fields["extensions"] = (padding,) * varied["options"]
    # A later fragment has no checksum of its own.
    packet = whole_packet(
        protocol, source, destination, varied["payload"], varied["flags"], varied["ttl"],
        varied["checksum"], **fields,
    )  # fmt: skip
    if varied["damage"] is not None and len(source[0]) == 4:
        place = varied["damage"]
        packet = packet[:place] + bytes([packet[place] ^ 0x10]) + packet[place + 1 :]
    elif varied["damage"] is not None:
        packet = bytes([packet[0] ^ 0x10]) + packet[1:]
    return packet + bytes(varied["padding"])


@families
@protocols
@directions
def test_nat_of_any_packet(director: Director, address: bytes, protocol: int, answers: bool) -> None:
    key = director.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key)
    beside = Beside(director, key, _server(address))
    ends = (one.server, one.client) if answers else (one.client, one.virtual)

    @settings(max_examples=60, deadline=None)
    @given(_variations())
    def check(varied: dict[str, Any]) -> None:
        frame = director.frame(_packet(ends, protocol, varied))
        if _is_plain(key.family, protocol, varied):
            assert beside.is_sent(frame)
        else:
            assert not beside.compare(frame)

    check()


@families
@pytest.mark.parametrize("server", [FAR_SERVER, FAR_SERVER6], ids=["in-ipv4", "in-ipv6"])
@pytest.mark.parametrize("tunnel", KINDS, ids=lambda tunnel: f"{tunnel.kind}-{tunnel.checksum}")
def test_tunnels_of_any_packet(director: Director, address: bytes, server: bytes, tunnel: Tunnel) -> None:
    """Those with a checksum over the packet are TC's."""
    key = director.service(1, address=address, servers=(server,), method=TUNNEL, tunnel=tunnel)
    one = Masqueraded(
        TCP, (CLIENT if key.family == 2 else CLIENT6, director.unused_port()), (address, key.port), (b"", 0)
    )
    for flags in (SYN, ACK):
        packet = whole_packet(TCP, one.client, one.virtual, b"", flags)
        assert director.tc(director.frame(packet))[0] == SENT
    beside = Beside(director, key, server)

    @settings(max_examples=25, deadline=None)
    @given(_variations())
    def check(varied: dict[str, Any]) -> None:
        frame = director.frame(_packet((one.client, one.virtual), TCP, varied))
        if _is_plain(key.family, TCP, varied) and tunnel.checksum == "nocsum":
            assert beside.is_sent(frame)
            assert beside.sent[:12] == FAR_SERVER_MAC + SECOND_MAC
        else:
            assert not beside.compare(frame)

    check()


def test_too_big_for_a_tunnel(director: Director) -> None:
    """Whatever else becomes of it, is TC's."""
    for server, outer in ((FAR_SERVER, 20), (FAR_SERVER6, 40)):
        for tunnel, wrapping in ((KINDS[0], 0), (KINDS[1], 12), (KINDS[2], 4)):
            key = director.service(1, servers=(server,), method=TUNNEL, tunnel=tunnel, protocol=UDP)
            client = (CLIENT, director.unused_port())
            fits = 1500 - outer - wrapping - 28
            assert director.tc(director.frame(whole_packet(UDP, client, (VIP, key.port))))[0] == SENT
            beside = Beside(director, key, server)
            for size, is_sent in ((fits, True), (fits + 1, False)):
                frame = director.frame(whole_packet(UDP, client, (VIP, key.port), bytes(size)))
                assert (beside.is_sent if is_sent else beside.compare)(frame) == is_sent


@families
@directions
def test_every_checksum(director: Director, address: bytes, answers: bool) -> None:
    """One's complement has two zeros: UDP's is never 0, and TCP's the one that the kernel makes."""
    for protocol in (TCP, UDP):
        key = director.service(
            1, address=address, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT
        )
        one = _connection(director, key)
        beside = Beside(director, key, _server(address))
        make = one.answered if answers else one.asked
        seen = set()
        for place in (0, 1):
            for nearby in (-1, 0, 1):
                # That word of payload makes the checksum before, or after, what is wanted.
                empty = make(bytes(2))[place]
                field = packets.transport_of(empty)[1] + (16 if protocol == TCP else 6)
                holds = int.from_bytes(empty[field : field + 2], "big")
                word = (holds - nearby) % 0xFFFF
                before, after = make(word.to_bytes(2, "big"))
                seen.add((before, after)[place][field : field + 2])
                assert beside.is_sent(director.frame(before))
                assert beside.sent[ETHERNET_SIZE:] == after
        assert (b"\xff\xff" if protocol == UDP else b"\0\0") in seen
        assert (b"\0\0" in seen) == (protocol == TCP)


@families
def test_where_it_goes(director: Director, address: bytes) -> None:
    """Requests to the real server's MAC, answers to the client's; by another interface, too."""
    far = FAR_SERVER if address == VIP else FAR_SERVER6
    for server, hardware, own, verdict in (
        (_server(address), real_server_mac(1), INTERFACE_MAC, XDP_TX),
        (far, FAR_SERVER_MAC, SECOND_MAC, XDP_REDIRECT),
    ):
        key = director.service(
            1, address=address, servers=(server,), method=MASQUERADE, server_port=SERVER_PORT
        )
        client = (CLIENT if address == VIP else CLIENT6, director.unused_port())
        one = Masqueraded(TCP, client, (address, key.port), (server, SERVER_PORT))
        index = director.ifindex if verdict == XDP_TX else director.second_ifindex
        answer = director.frame(one.answered(b"answer")[0], own)
        for flags in (SYN, ACK):
            assert director.tc(director.frame(one.asked(b"", flags)[0]))[0] == SENT
            assert director.tc(director.frame(one.answered(b"", SYN | ACK)[0], own), index)[0] == SENT
        assert _sent_after_tc(director, director.frame(one.asked(b"request")[0]), director.ifindex) == (
            verdict, packets.ethernet(one.asked(b"request")[1], _type(address), hardware, own),
        )  # fmt: skip
        assert _sent_after_tc(director, answer, index) == (
            verdict,
            packets.ethernet(one.answered(b"answer")[1], _type(address), CLIENT_MAC, INTERFACE_MAC),
        )


def _type(address: bytes) -> int:
    return packets.ETHERTYPE_IPV4 if len(address) == 4 else packets.ETHERTYPE_IPV6


def _sent_after_tc(director: Director, frame: bytes, index: int) -> tuple[int, bytes]:
    """What XDP sends once TC has learnt whose frames an interface takes, and what next hops clients have."""
    sent: list[tuple[int, bytes]] = []

    def is_sent() -> bool:
        director.tc(frame, index)
        sent.append(director.xdp(frame, index))
        return sent[-1][0] != XDP_PASS

    director.wait_until(is_sent, 10, "XDP does not send it")
    return sent[-1]


def _passes(director: Director, frame: bytes) -> bool:
    """Whether XDP passes a frame, having changed nothing, whatever is known of ways."""
    director.tc(frame)

    def pass_on() -> None:
        assert director.xdp(frame) == (XDP_PASS, frame)

    if director.xdp(frame)[0] != XDP_PASS:
        return False
    director.changes_nothing(pass_on)
    return True


@families
def test_what_is_read_on_its_way_is_left_to_tc(director: Director, address: bytes) -> None:
    """FTP's control connection, both ways, wherever the real server listens."""
    key = ServiceKey(2 if address == VIP else 10, TCP, address, 21)
    director.table.add_service(Service(key, "rr"))
    director.table.add_destination(key, Destination(_server(address), SERVER_PORT, MASQUERADE))
    one = _connection(director, key)
    for packet, _ in (one.asked(b"NOOP\r\n"), one.answered(b"200 fine\r\n")):
        assert _passes(director, director.frame(packet))


@families
def test_connections_with_a_template(director: Director, address: bytes) -> None:
    """A template learns that its client was answered: of UDP each answer may be the first one."""
    for protocol in (TCP, UDP):
        key = director.unused_key(protocol, address)
        director.table.add_service(Service(key, "rr", persistence=300))
        director.table.add_destination(key, Destination(_server(address), SERVER_PORT, MASQUERADE))
        one = _connection(director, key)
        beside = Beside(director, key, _server(address))
        assert beside.is_sent(director.frame(one.asked(b"request")[0]))
        frame = director.frame(one.answered(b"answer")[0])
        if protocol == TCP:
            assert beside.is_sent(frame)
        else:
            assert _passes(director, frame)


@families
@directions
def test_states_that_a_packet_may_change(director: Director, address: bytes, answers: bool) -> None:
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key)
    make = one.answered if answers else one.asked
    frame = director.frame(make(b"data")[0])
    assert _sent_after_tc(director, frame, director.ifindex)[0] == XDP_TX
    director.tc(director.frame(make(b"", FIN | ACK)[0]))
    assert _passes(director, frame)


def _both_ways(director: Director, address: bytes) -> tuple[ServiceKey, list[bytes]]:
    """A masqueraded connection's service, and a frame each way, which XDP sends."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key)
    both = [director.frame(packet) for packet, _ in (one.asked(b"request"), one.answered(b"answer"))]
    assert all(_sent_after_tc(director, frame, director.ifindex)[0] == XDP_TX for frame in both)
    return key, both


@families
def test_real_servers_that_are_gone(director: Director, address: bytes) -> None:
    key, both = _both_ways(director, address)
    director.table.delete_destination(key, _server(address), SERVER_PORT)
    assert all(_passes(director, frame) for frame in both)


@families
def test_answers_over_the_mtu(director: Director, address: bytes) -> None:
    """Whether they may be fragmented or not, the stack is needed."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key)
    fits = bytes(1500 - (40 if address == VIP else 60))
    for make in (one.asked, one.answered):
        fitting, longer = (director.frame(make(payload)[0]) for payload in (fits, fits + b"!"))
        assert _sent_after_tc(director, fitting, director.ifindex)[0] == XDP_TX
        assert director.xdp(longer) == (XDP_PASS, longer)


@families
def test_a_client_whose_neighbour_is_not_resolved(director: Director, address: bytes) -> None:
    """TC's way resolves it without losing the packet; and XDP has its MAC from then on."""
    text = "10.0.0.201" if address == VIP else "fd00::201"
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = Masqueraded(
        TCP, (packets.packed(text), 4000), (address, key.port), (_server(address), SERVER_PORT)
    )
    for packet, _ in (one.asked(b"", SYN), one.answered(b"", SYN | ACK), one.asked()):
        assert director.tc(director.frame(packet))[0] == SENT
    frame = director.frame(one.answered(b"answer")[0])
    assert _passes(director, frame)
    ip(f"neigh replace {text} lladdr 02:00:00:00:0c:01 nud permanent dev eth0")
    verdict, after = _sent_after_tc(director, frame, director.ifindex)
    assert (verdict, after[:6]) == (XDP_TX, packets.mac("02:00:00:00:0c:01"))


@families
def test_the_way_back_to_a_client_is_confirmed_once_a_second(director: Director, address: bytes) -> None:
    """By a packet of TC's: the kernel would take a neighbour that nobody uses for gone."""
    key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key)
    frame = director.frame(one.answered(b"answer")[0])
    assert _sent_after_tc(director, frame, director.ifindex)[0] == XDP_TX
    director.wait_until(lambda: director.xdp(frame)[0] == XDP_PASS, 10, "XDP goes on by itself")
    assert _sent_after_tc(director, frame, director.ifindex)[0] == XDP_TX


@families
def test_where_checksums_may_be_unfinished(director: Director, address: bytes) -> None:
    """In generic XDP a device may have been left them, and XDP could not tell."""
    _, both = _both_ways(director, address)
    record = _interface(director, director.ifindex)
    record.known &= ~abi.INTERFACE_NATIVE
    try:
        assert all(_passes(director, frame) for frame in both)
    finally:
        record.known |= abi.INTERFACE_NATIVE


@families
@directions
def test_only_to_interfaces_that_take_frames(director: Director, address: bytes, answers: bool) -> None:
    far = FAR_SERVER if address == VIP else FAR_SERVER6
    key = director.service(1, address=address, servers=(far,), method=MASQUERADE, server_port=SERVER_PORT)
    client = (CLIENT if address == VIP else CLIENT6, director.unused_port())
    one = Masqueraded(TCP, client, (address, key.port), (far, SERVER_PORT))
    for flags in (SYN, ACK):
        director.tc(director.frame(one.asked(b"", flags)[0]))
        director.tc(director.frame(one.answered(b"", SYN | ACK)[0], SECOND_MAC), director.second_ifindex)
    came, leaves = director.ifindex, director.second_ifindex
    frame = director.frame(one.asked(b"request")[0])
    if answers:
        came, leaves = leaves, came
        frame = director.frame(one.answered(b"answer")[0], SECOND_MAC)
    assert _sent_after_tc(director, frame, came)[0] == XDP_REDIRECT
    record = _interface(director, leaves)
    record.known &= ~abi.INTERFACE_NATIVE
    try:
        director.tc(frame, came)
        assert director.xdp(frame, came) == (XDP_PASS, frame)
    finally:
        record.known |= abi.INTERFACE_NATIVE
    assert _sent_after_tc(director, frame, came)[0] == XDP_REDIRECT


def test_outer_identifications_differ(director: Director) -> None:
    """Outer packets may be fragmented on their way: those that follow each other have their own."""
    key = director.service(1, servers=(FAR_SERVER,), method=TUNNEL, tunnel=KINDS[0])
    client = (CLIENT, director.unused_port())
    for flags in (SYN, ACK):
        assert director.tc(director.frame(whole_packet(TCP, client, (VIP, key.port), b"", flags)))[0] == SENT
    frame = director.frame(whole_packet(TCP, client, (VIP, key.port), b"data"))
    seen = {_sent_after_tc(director, frame, director.ifindex)[1][18:20] for _ in range(100)}
    assert len(seen) > 90
