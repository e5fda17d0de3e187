# SPDX-License-Identifier: GPL-2.0-only
"""What the express way at TC makes of a packet is what the long way makes of it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
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
    Director,
    new_director,
    real_server,
    real_server6,
    real_server_mac,
)
from tests.packet.offloads import CardSocket, leave_nothing_to_the_card, with_open_checksum
from tests.packet.packets import ACK, DONT_FRAGMENT, ETHERNET_SIZE, FIN, PSH, RST, SYN, TCP, UDP
from tests.packet.spaces import ip
from tests.packet.translated import Masqueraded
from xlvs.datapath.attach import TC
from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi
from xlvs.kernel.namespaces import network_namespace
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, ServiceKey, Tunnel

_ATTEMPTS = 50
"""A machine that others use may let an eighth of a second pass between two packets."""
_TO_SERVER, _TO_CLIENT = real_server_mac(1) + INTERFACE_MAC, CLIENT_MAC + INTERFACE_MAC

_TUNNELS = (Tunnel("ipip"), Tunnel("gue", 6080), Tunnel("gue", 6080, "remcsum"), Tunnel("gre", 0, "csum"))

FAMILIES = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture(scope="module", autouse=True)
def _known_clients(director: Director) -> None:
    """Answers to clients need no asking for their MAC."""
    assert director.ifindex  # it is in its namespace that they are made known
    for client in ("10.0.0.200", "fd00::200"):
        ip(f"neigh replace {client} lladdr {CLIENT_MAC.hex(':')} nud permanent dev eth0")


class _Flow:
    """One established connection, whose packets can be sent by either way again and again."""

    def __init__(
        self, director: Director, address: bytes, protocol: int, method: str | Tunnel, port: int = 0
    ) -> None:
        tunnel = method if isinstance(method, Tunnel) else None
        four = len(address) == 4
        self.director = director
        self.masqueraded = method == MASQUERADE
        self.key: ServiceKey = director.service(
            1,
            address=address,
            protocol=protocol,
            method=TUNNEL if isinstance(method, Tunnel) else method,
            server_port=port or None,
            tunnel=tunnel,
        )
        self._has_random_bytes = tunnel is not None and four
        client = (CLIENT if four else CLIENT6, director.unused_port())
        server = ((real_server if four else real_server6)(1), port or self.key.port)
        self.ends = Masqueraded(protocol, client, (address, self.key.port), server)
        self._send(self.ends.asked(flags=SYN)[0])
        if self.masqueraded:
            self._send(self.ends.answered(flags=SYN | ACK)[0])
        self._send(self.ends.asked()[0])
        self._record = director.record(self.key)
        self._places = [
            place
            for place, slot in director.slots(abi.PHASE_LIVE)
            if client in ((slot.client, slot.client_port), (slot.virtual, slot.virtual_port))
        ]
        assert len(self._places) == (2 if self.masqueraded else 1)
        self._entries = [bytes(director.slot_record(place)) for place in self._places]

    def _send(self, packet: bytes) -> None:
        assert self.director.tc(self.director.frame(packet))[0] == SENT

    def _by(self, frame: bytes, *, express: bool, packets_before: int) -> tuple[int, bytes, object]:
        """Send a frame as if nothing had been sent since the connection was established."""
        now = ticks_now()
        for place, entry in zip(self._places, self._entries, strict=True):
            record = self.director.slot_record(place)
            ctypes.memmove(ctypes.addressof(record), entry, len(entry))
            record.in_packets = packets_before
            record.expires = now + 100
        self._record.refreshed = now - 1
        # The express way takes nothing while it is on, and what has a connection nothing else.
        sysctl = self.director.maps.settings.sysctl
        sysctl[abi.SYSCTL_NAT_ICMP_SEND] = not express
        try:
            before = (self.director.table.service(self.key), self.director.events())
            verdict, after = self.director.tc_as_it_leaves(frame)
            return verdict, self._without_random_bytes(after), self._changes(*before, now)
        finally:
            sysctl[abi.SYSCTL_NAT_ICMP_SEND] = 0

    def _without_random_bytes(self, frame: bytes) -> bytes:
        """The identification of an outer IPv4 header is random, and its checksum that of this one."""
        if not self._has_random_bytes:
            return frame
        assert packets.checksum(frame[ETHERNET_SIZE : ETHERNET_SIZE + 20]) == 0
        return frame[:18] + bytes(2) + frame[20:24] + bytes(2) + frame[26:]

    def _changes(self, service: Any, events: dict[str, int], now: int) -> object:
        """What a packet has changed, but for the time at which it came."""
        lasting = []
        for place in self._places:
            record = self.director.slot_record(place)
            was, record.expires = record.expires, 0
            lasting.append((was > now + 100, bytes(record)))
            record.expires = was
        now_listed: Any = self.director.table.service(self.key)
        now_events = self.director.events()
        records = ((service, now_listed), *zip(service.destinations, now_listed.destinations, strict=True))
        counted = [
            tuple(getattr(late.stats, name) - getattr(early.stats, name) for name in early.stats.__slots__)
            for early, late in records
        ]
        return lasting, counted, {name: now_events[name] - count for name, count in events.items()}

    def compare(self, packet: bytes, *, plain: bool, packets_before: int = 3) -> None:
        """Both ways make the same of a packet; a ``plain`` one does go by the express way."""
        frame = self.director.frame(packet)
        for _ in range(_ATTEMPTS):
            verdict, long, changed = self._by(frame, express=False, packets_before=packets_before)
            assert long[:12] == frame[:12]
            express = self._by(frame, express=True, packets_before=packets_before)
            assert (express[0], express[1][12:], express[2]) == (verdict, long[12:], changed)
            if not plain:
                return
            if express[1][:12] != frame[:12]:
                assert express[1][:12] in (_TO_SERVER, _TO_CLIENT)
                return
        pytest.fail("no packet went by the express way")


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize(
    ("method", "port"),
    [
        pytest.param(ROUTE, 0, id="dr"),
        pytest.param(MASQUERADE, 0, id="nat"),
        pytest.param(MASQUERADE, 8080, id="nat-port"),
        *(pytest.param(tunnel, 0, id=tunnel.kind + tunnel.checksum) for tunnel in _TUNNELS),
    ],
)
def test_any_plain_packet(
    director: Director, address: bytes, protocol: int, method: str | Tunnel, port: int
) -> None:
    flow = _Flow(director, address, protocol, method, port)

    @settings(max_examples=25, deadline=None)
    @given(
        st.booleans(), st.binary(max_size=64), st.integers(2, 255), st.integers(0, 255),
        st.sampled_from([ACK, ACK | PSH]), st.booleans(), st.integers(0, 9), st.booleans(),
    )  # fmt: skip
    def check(
        answer: bool, payload: bytes, ttl: int, tos: int, flags: int, padded: bool, before: int, whole: bool
    ) -> None:
        fields: dict[str, Any] = {"traffic_class": tos}
        if len(address) == 4:
            fields = {"tos": tos, "fragment": DONT_FRAGMENT if whole else 0, "identification": before}
        make = flow.ends.answered if answer and flow.masqueraded else flow.ends.asked
        packet = make(payload, flags, ttl, **fields)[0] + bytes(7 if padded else 0)
        flow.compare(packet, plain=True, packets_before=before)

    check()


@FAMILIES
@PROTOCOLS
def test_any_other_packet(director: Director, address: bytes, protocol: int) -> None:
    """What is not plain goes the long way, whatever it is."""
    flow = _Flow(director, address, protocol, MASQUERADE, 8080)
    for make in (flow.ends.asked, flow.ends.answered):
        plain = make(b"payload")[0]
        others = [plain[:size] for size in range(40, len(plain), 3)]
        if protocol == TCP:
            others += [make(b"", flags)[0] for flags in (FIN | ACK, RST, RST | ACK, 0, SYN | ACK)]
        else:
            others.append(make(b"payload", checksum=False)[0])
        if len(address) == 4:
            others += [make(b"payload", options=b"\1\1\1\1")[0], make(b"payload", fragment=0x2000)[0]]
            others.append(plain[:10] + bytes([plain[10] ^ 1]) + plain[11:])
        else:
            others.append(make(b"payload", extensions=((0, packets.options_extension()),))[0])
        for packet in others:
            flow.compare(packet, plain=False)


@FAMILIES
@PROTOCOLS
def test_a_finished_checksum_that_looks_open(director: Director, address: bytes, protocol: int) -> None:
    """One checksum in 65,535 is the pseudo-header's sum, as one that a card has yet to finish."""
    flow = _Flow(director, address, protocol, MASQUERADE, 8080)
    for make in (flow.ends.asked, flow.ends.answered):
        first = make(bytes(2))[0]
        field = 16 if protocol == TCP else 6
        sums = [
            int.from_bytes(packet[packets.transport_of(packet)[1] + field :][:2], "big")
            for packet in (first, with_open_checksum(first))
        ]
        packet, wanted = make(pack(">H", (sums[0] - sums[1]) % 0xFFFF))
        assert packet == with_open_checksum(packet)
        verdict, came = director.tc(director.frame(packet))
        assert (verdict, came[ETHERNET_SIZE:]) == (SENT, wanted)
        flow.compare(packet, plain=True)


@FAMILIES
def test_a_mac_that_changes(director: Director, address: bytes) -> None:
    """A packet a second goes the long way, by the kernel's neighbour entry; the others do as it did."""
    flow = _Flow(director, address, TCP, ROUTE)
    record = director.record(flow.key)
    frame = director.frame(flow.ends.asked()[0])
    name = "10.0.0.11" if len(address) == 4 else "fd00::b"
    other = packets.mac("02:00:00:00:03:0b")

    def macs() -> bytes:
        verdict, after = director.tc_as_it_leaves(frame)
        assert verdict == SENT
        return after[:12]

    try:
        for hardware in (other, real_server_mac(1)):
            ip(f"neigh replace {name} lladdr {hardware.hex(':')} nud permanent dev eth0")
            record.refreshed = 0
            assert macs() == frame[:12]
            for _ in range(_ATTEMPTS):
                record.refreshed = ticks_now() - 1
                written = macs()
                if written != frame[:12]:
                    break
            assert written == hardware + INTERFACE_MAC
    finally:
        ip(f"neigh replace {name} lladdr {real_server_mac(1).hex(':')} nud permanent dev eth0")


@contextmanager
def _cards(director: Director) -> Iterator[dict[str, CardSocket]]:
    """The other ends of the director's wires."""
    with network_namespace(director.peer):
        ends = {name: CardSocket(name) for name in ("eth0", "eth1")}
    try:
        yield ends
    finally:
        for end in ends.values():
            end.close()


@pytest.fixture(scope="module")
def attached() -> Iterator[Director]:
    """A director attached to interfaces that do nothing for it."""
    with new_director(mode=TC) as made:
        for name in ("eth0", "eth1"):
            leave_nothing_to_the_card(name)
        for client in ("10.0.0.200", "fd00::200"):
            ip(f"neigh replace {client} lladdr {CLIENT_MAC.hex(':')} nud permanent dev eth0")
        yield made


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("port", [0, 8080], ids=["same-port", "other-port"])
def test_open_checksums(attached: Director, address: bytes, protocol: int, port: int) -> None:
    """What is left to a card is right once it is finished, whichever way the packets go."""
    four = len(address) == 4
    server = FAR_SERVER if four else FAR_SERVER6
    key = attached.service(
        1, address=address, protocol=protocol, servers=(server,), method=MASQUERADE, server_port=port or None
    )
    client = (CLIENT if four else CLIENT6, attached.unused_port())
    ends = Masqueraded(protocol, client, (address, key.port), (server, port or key.port))
    sysctl = attached.maps.settings.sysctl
    with _cards(attached) as cards:
        for turn, size in enumerate((0, 0, 1, 2, 7, 1000)):
            payload = bytes(n * 7 & 0xFF for n in range(size))
            for long in (1, 0):
                sysctl[abi.SYSCTL_NAT_ICMP_SEND] = long
                for back in (False, True):
                    flags = ACK if turn else SYN | (ACK if back else 0)
                    before, after = (ends.answered if back else ends.asked)(payload, flags)
                    source, target = ("eth1", "eth0") if back else ("eth0", "eth1")
                    own = SECOND_MAC if back else INTERFACE_MAC
                    macs = (CLIENT_MAC + INTERFACE_MAC) if back else (FAR_SERVER_MAC + SECOND_MAC)
                    cards[source].send(attached.frame(with_open_checksum(before), own))
                    (came,) = cards[target].received(macs[:6], 1)
                    assert came == macs + attached.frame(after)[12:]
