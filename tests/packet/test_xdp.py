# SPDX-License-Identifier: GPL-2.0-only
"""XDP finishes established flows, and passes everything else without a trace."""

from __future__ import annotations

import time

import pytest

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
    real_server,
    real_server_mac,
)
from tests.packet.packets import ACK, FIN, SYN, UDP, with_one_hop_less
from tests.packet.spaces import ip
from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi
from xlvs.model import ServiceKey

ADDRESSES = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])


def _passes(director: Director, frame: bytes, ifindex: int | None = None) -> bool:
    """Whether XDP passes a frame; if so, it must have changed nothing at all."""
    expired = -1
    while expired != director.maps.events()["expired"]:  # else the sweeper came in between
        expired = director.maps.events()["expired"]
        before = director.snapshot()
        verdict, after = director.xdp(frame, ifindex)
        if verdict != XDP_PASS:
            return False
        assert after == frame
        unchanged = director.snapshot() == before
    assert unchanged
    return True


@ADDRESSES
def test_an_established_flow_leaves_where_it_came_in(director: Director, address: bytes) -> None:
    key = director.service(1, address=address)
    port = director.open(key)
    frame = director.segment(key, port, ACK, b"GET /", ttl=2)
    before = director.events()
    verdict, after = director.xdp(frame)
    assert verdict == XDP_TX
    assert after == real_server_mac(1) + INTERFACE_MAC + with_one_hop_less(frame)[12:]
    assert director.events() == before | {"xdp_forwarded": before["xdp_forwarded"] + 1}
    connection = director.connection(key, port)
    assert connection is not None
    assert connection.state == "ESTABLISHED"


@ADDRESSES
def test_or_by_another_interface(director: Director, address: bytes) -> None:
    server = FAR_SERVER if address == VIP else FAR_SERVER6
    key = director.service(1, address=address, servers=(server,))
    port = director.open(key)
    frame = director.segment(key, port, ACK)
    verdict, after = director.xdp(frame)
    assert verdict == XDP_REDIRECT
    assert after == FAR_SERVER_MAC + SECOND_MAC + with_one_hop_less(frame)[12:]


@ADDRESSES
def test_new_flows_pass(director: Director, address: bytes) -> None:
    for protocol in (packets.TCP, UDP):
        key = director.service(1, 1, address=address, protocol=protocol)
        director.open(key)  # the ways are known
        director.open(key)
        for _ in range(5):
            frame = director.segment(key, director.unused_port(), SYN)
            assert _passes(director, frame)
            assert director.tc(frame)[0] == SENT
            # Once more it might begin the connection anew: for TC to judge, as all SYNs are.
            assert _passes(director, frame) == (protocol == packets.TCP)


def _record(director: Director, key: ServiceKey) -> abi.Destination:
    port = int.from_bytes(key.port.to_bytes(2, "big"), "little")
    (found,) = (
        record
        for record in map(director.maps.destination, range(director.maps.settings.destinations_top))
        if record.port == port and record.flags & abi.DESTINATION_AVAILABLE
    )
    return found


def test_a_packet_a_second_takes_the_long_way(director: Director) -> None:
    key = director.service(1)
    port = director.open(key)
    frame = director.segment(key, port, ACK)
    assert not _passes(director, frame)
    _record(director, key).refreshed = ticks_now() - 61
    assert _passes(director, frame)
    assert director.tc(frame)[0] == SENT
    assert not _passes(director, frame)
    # and it happens by itself
    passed, end = 0, time.monotonic() + 2.3
    while time.monotonic() < end:
        if _passes(director, frame):
            passed += 1
            assert director.tc(frame)[0] == SENT
        time.sleep(0.02)
    assert passed in (1, 2)


def test_an_interface_whose_mac_is_unknown(director: Director) -> None:
    key = director.service(1)
    port = director.open(key)
    frame = director.segment(key, port, ACK)
    record = director.maps.record("interfaces", abi.Interface, director.ifindex, abi.INTERFACE_LIMIT)
    record.known = 0
    try:
        assert _passes(director, frame)
    finally:
        record.known = 1
    assert not _passes(director, frame)
    second = director.frame(frame[14:], SECOND_MAC)
    unknown = director.maps.record("interfaces", abi.Interface, director.second_ifindex, abi.INTERFACE_LIMIT)
    unknown.known = 0
    assert _passes(director, second, director.second_ifindex)


def test_frames_for_another_machine_pass(director: Director) -> None:
    key = director.service(1)
    port = director.open(key)
    packet = director.segment(key, port, ACK)[14:]
    for other in (CLIENT_MAC, SECOND_MAC, bytes([255]) * 6, real_server_mac(1)):
        assert _passes(director, director.frame(packet, other))
    assert not _passes(director, director.frame(packet))


def test_local_real_servers_pass(director: Director) -> None:
    for server in (bytes([127, 0, 0, 1]), packets.packed("10.0.0.1")):
        key = director.service(1, servers=(server,))
        port = director.unused_port()
        director.tc(director.segment(key, port, SYN))
        assert director.connection(key, port) is not None
        assert _passes(director, director.segment(key, port, ACK))


def test_a_neighbour_that_is_not_resolved_passes(director: Director) -> None:
    """TC's way resolves it without losing the packet; XDP cannot."""
    key = director.service(1, servers=(packets.packed("10.0.0.77"),))
    port = director.open(key)
    frame = director.segment(key, port, ACK)
    assert _passes(director, frame)
    ip("neigh add 10.0.0.77 lladdr 02:00:00:00:01:77 nud permanent dev eth0")
    _record(director, key).refreshed = ticks_now() - 61
    assert director.tc(frame)[0] == SENT
    verdict, after = director.xdp(frame)
    assert verdict == XDP_TX
    assert after[:6] == packets.mac("02:00:00:00:01:77")


@ADDRESSES
def test_the_last_hop_passes(director: Director, address: bytes) -> None:
    key = director.service(1, address=address)
    port = director.open(key)
    for ttl in (0, 1):
        assert _passes(director, director.segment(key, port, ACK, ttl=ttl))
    assert not _passes(director, director.segment(key, port, ACK, ttl=2))


def test_a_deleted_real_server_passes(director: Director) -> None:
    key = director.service(1)
    port = director.open(key)
    director.table.delete_destination(key, real_server(1), key.port)
    assert _passes(director, director.segment(key, port, ACK))


def test_a_syn_on_a_closed_connection_passes(director: Director) -> None:
    key = director.service(1, 1)
    port = director.open(key, packets.FIN)
    assert _passes(director, director.segment(key, port, SYN))
    assert not _passes(director, director.segment(key, port, ACK))


@ADDRESSES
def test_headers_of_any_form(director: Director, address: bytes) -> None:
    """Options and extension headers, segments that end a connection: XDP finishes them all."""
    key = director.service(1, address=address)
    port = director.open(key, ACK)
    transport = packets.tcp(port, key.port, ACK, b"data")
    if address == VIP:
        unusual = packets.ipv4(CLIENT, address, packets.TCP, transport, options=bytes([1, 1, 1, 0]))
    else:
        padding = ((packets.HOP_BY_HOP, packets.options_extension()),)
        unusual = packets.ipv6(CLIENT6, address, packets.TCP, transport, extensions=padding)
    for frame in (director.frame(unusual), director.segment(key, port, FIN | ACK)):
        before = director.events()
        verdict, after = director.xdp(frame)
        assert verdict == XDP_TX
        assert after == real_server_mac(1) + INTERFACE_MAC + with_one_hop_less(frame)[12:]
        assert director.events() == before | {"xdp_forwarded": before["xdp_forwarded"] + 1}
    connection = director.connection(key, port)
    assert connection is not None
    assert connection.state == "FIN_WAIT"


def test_every_header_checksum(director: Director) -> None:
    """One's complement has two zeros: the checksum after the hop is the kernel's (ip_decrease_ttl())."""
    key = director.service(1)
    port = director.open(key)
    transport = packets.tcp(port, key.port, ACK)
    zero = packets.ipv4(CLIENT, VIP, packets.TCP, transport)
    before = int.from_bytes(zero[10:12], "big")
    for wanted in (0x0000, 0x0001, 0x00FF, 0x0100, 0xFDFF, 0xFE00, 0xFEFE, 0xFEFF, 0xFF00, 0xFFFE):
        identification = (before - wanted) % 0xFFFF
        packet = packets.ipv4(CLIENT, VIP, packets.TCP, transport, identification=identification)
        assert int.from_bytes(packet[10:12], "big") % 0xFFFF == wanted % 0xFFFF
        frame = director.frame(packet)
        _record(director, key).refreshed = ticks_now()
        verdict, after = director.xdp(frame)
        assert (verdict, after[14:]) == (XDP_TX, with_one_hop_less(frame)[14:])
        damaged = bytearray(frame)
        damaged[14 + wanted % 20] ^= 0x10
        assert director.xdp(bytes(damaged)) == (XDP_PASS, bytes(damaged))


def _home(director: Director, client: bytes, port: int, key: ServiceKey) -> int:
    """The bucket that a flow's hash names first."""
    return director.home(director.flow_hash(client, port, key))


@ADDRESSES
def test_wherever_an_entry_stands(director: Director, address: bytes) -> None:
    """In its first place, in another one of its bucket, or in another bucket."""
    key = director.service(1, address=address)
    client = CLIENT if address == VIP else CLIENT6
    crowded = _home(director, client, 1024, key)
    ports = [port for port in range(1024, 65536) if _home(director, client, port, key) == crowded][:12]
    assert len(ports) == 12
    for port in ports:
        for flags in (SYN, ACK):
            assert director.tc(director.segment(key, port, flags))[0] == SENT
    places = [
        (place // abi.SLOTS_PER_BUCKET, slot.flags & abi.CONNECTION_SPILLED != 0)
        for place, slot in director.slots(abi.PHASE_LIVE)
        if slot.virtual_port == key.port
    ]
    assert len(places) == 12
    assert all((bucket != crowded) == spilled for bucket, spilled in places)
    assert any(spilled for _, spilled in places)
    for port in ports:
        _record(director, key).refreshed = ticks_now()
        assert director.xdp(director.segment(key, port, ACK))[0] == XDP_TX
