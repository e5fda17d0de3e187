# SPDX-License-Identifier: GPL-2.0-only
"""What kernel IPVS does not have: idle timeouts of services, clients that are told, flows that move."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack, unpack_from

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
    real_server6,
)
from tests.packet.icmp_errors import PORT_UNREACHABLE, error_about
from tests.packet.packets import ACK, ETHERNET_SIZE, FIN, RST, SYN, TCP, UDP, chunk, sctp
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, SCTP, Destination, Service, ServiceKey


@pytest.fixture(scope="module", autouse=True)
def _no_sums(director: Director) -> None:
    """What is cut short loses its device's sum, and the kernel would miss it."""
    director.device_sums = 0


families = pytest.mark.parametrize("vip", [VIP, VIP6], ids=["ipv4", "ipv6"])


def _service(
    director: Director,
    vip: bytes = VIP,
    protocol: int = TCP,
    servers: int = 1,
    *,
    method: str = ROUTE,
    idle_timeout: int = 0,
    reject_gone: bool = False,
    rehome: bool = False,
    persistence: int = 0,
) -> Service:
    """A new service of that kind, with real servers 1, 2, ..."""
    service = Service(
        director.unused_key(protocol, vip), "rr", persistence=persistence,
        idle_timeout=idle_timeout, reject_gone=reject_gone, rehome=rehome,
    )  # fmt: skip
    director.table.add_service(service)
    for number in range(1, servers + 1):
        director.table.add_destination(
            service.key, Destination(_server(vip, number), service.key.port, method)
        )
    return service


def _server(vip: bytes, number: int) -> bytes:
    return (real_server if len(vip) == 4 else real_server6)(number)


def _remove(director: Director, key: ServiceKey, number: int) -> None:
    director.table.delete_destination(key, _server(key.address, number), key.port)


def _quiesce(director: Director, key: ServiceKey, number: int) -> None:
    director.table.edit_destination(key, Destination(_server(key.address, number), key.port, ROUTE, 0))


def _reaches(director: Director, key: ServiceKey, frame: bytes) -> int:
    """The number of the real server that a packet, which is sent, goes to."""
    assert director.tc(frame)[0] == SENT
    packet = frame[ETHERNET_SIZE:]
    _, transport = packets.transport_of(packet)
    listed = director.connection(key, unpack_from("!H", packet, transport)[0])
    assert listed is not None
    (found,) = [number for number in range(1, 9) if listed.destination == _server(key.address, number)]
    return found


def _expires(director: Director, key: ServiceKey, port: int) -> int:
    listed = director.connection(key, port)
    assert listed is not None
    return listed.expires


# --- idle timeouts ------------------------------------------------------------


@families
@pytest.mark.parametrize("has_xdp", [False, True], ids=["tc", "xdp"])
def test_an_established_connection_is_remembered_as_its_service_says(
    director: Director, vip: bytes, has_xdp: bool
) -> None:
    short, usual = _service(director, vip, idle_timeout=40), _service(director, vip)
    for service, expected in ((short, 40), (usual, 900)):
        key = service.key
        port = director.open(key)
        assert 58 <= _expires(director, key, port) <= 60, "half open it is as any other"
        assert director.tc(director.segment(key, port, ACK))[0] == SENT
        assert expected - 2 <= _expires(director, key, port) <= expected
        if has_xdp:
            assert director.xdp(director.segment(key, port, ACK))[0] == XDP_TX
            assert expected - 2 <= _expires(director, key, port) <= expected
        assert director.tc(director.segment(key, port, FIN | ACK))[0] == SENT
        assert 118 <= _expires(director, key, port) <= 120


@pytest.mark.parametrize("protocol", [UDP, SCTP])
def test_other_protocols_too(director: Director, protocol: int) -> None:
    key = _service(director, protocol=protocol, idle_timeout=40).key
    port = director.unused_port()
    if protocol == UDP:
        assert director.tc(director.segment(key, port, 0))[0] == SENT
    else:
        for kind in (packets.INIT, packets.COOKIE_ECHO, packets.DATA):
            said = packets.ipv4(CLIENT, VIP, SCTP, sctp(port, key.port, chunk(kind, b"word")))
            assert director.tc(director.frame(said))[0] == SENT
    assert 38 <= _expires(director, key, port) <= 40


def test_an_edit_counts_from_the_next_packet_on(director: Director) -> None:
    service = _service(director)
    key = service.key
    port = director.open(key, ACK)
    director.table.edit_service(Service(key, "rr", idle_timeout=77))
    assert director.listing(key).service.idle_timeout == 77
    assert _expires(director, key, port) >= 898
    assert director.tc(director.segment(key, port, ACK))[0] == SENT
    assert 75 <= _expires(director, key, port) <= 77
    # Also for a real server that comes later; and back.
    director.table.add_destination(key, Destination(real_server(2), key.port))
    for _ in range(2):
        assert 75 <= _expires(director, key, director.open(key, ACK)) <= 77
    director.table.edit_service(service)
    assert _expires(director, key, director.open(key, ACK)) >= 898


# --- clients that are told ----------------------------------------------------


def _reset_of(frame: bytes, sequence: int, acknowledged: int, flags: int) -> bytes:
    """The reset that a frame gets: from the VIP, by the way to the client."""
    packet = frame[ETHERNET_SIZE:]
    ends = (packet[16:20], packet[12:16]) if packet[0] >> 4 == 4 else (packet[24:40], packet[8:24])
    _, transport = packets.transport_of(packet)
    source, destination = unpack_from("!HH", packet, transport)
    header = pack("!HHIIBBHHH", destination, source, sequence, acknowledged, 0x50, flags, 0, 0, 0)
    if len(ends[0]) == 4:
        return packets.without_fragmentation(packets.with_checksum(packets.ipv4(*ends, TCP, header, 64)))
    return packets.with_checksum(packets.ipv6(*ends, TCP, header, 64))


@families
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE])
def test_the_client_of_a_removed_real_server_gets_a_reset(
    director: Director, vip: bytes, method: str
) -> None:
    key = _service(director, vip, servers=2, method=method, reject_gone=True).key
    port = director.open(key, ACK)
    other = director.open(key, ACK)
    frame = director.segment(key, port, ACK, b"a question")
    gone = _reaches(director, key, frame)
    _remove(director, key, gone)
    verdict, after = director.tc(frame)
    assert verdict == SENT
    assert after[ETHERNET_SIZE:] == _reset_of(frame, 0, 0, RST)
    # It is forgotten with that: what comes now is not ours, and a SYN begins anew.
    assert director.connection(key, port) is None
    assert director.tc(frame) == (UNTOUCHED, frame)
    assert _reaches(director, key, director.segment(key, port, SYN)) == 3 - gone
    assert director.tc(director.segment(key, other, ACK))[0] == SENT
    assert director.connection(key, other) is not None


@families
@pytest.mark.parametrize(("flags", "length"), [(SYN, 1), (FIN, 11), (0, 10), (SYN | FIN, 2)])
def test_what_acknowledges_nothing_is_acknowledged(
    director: Director, vip: bytes, flags: int, length: int
) -> None:
    """RFC 9293, 3.10.7.1: the reset has the number 0, and acknowledges all that came."""
    key = _service(director, vip, reject_gone=True).key
    port = director.open(key)
    _remove(director, key, 1)
    data = b"0123456789" if not flags & SYN else b""
    frame = director.segment(key, port, flags, data)
    (sequence,) = unpack_from("!I", frame, ETHERNET_SIZE + (20 if len(vip) == 4 else 40) + 4)
    verdict, after = director.tc(frame)
    assert verdict == SENT
    assert after[ETHERNET_SIZE:] == _reset_of(frame, 0, sequence + length & 0xFFFFFFFF, RST | ACK)


@families
def test_a_reset_gets_none(director: Director, vip: bytes) -> None:
    key = _service(director, vip, reject_gone=True).key
    port = director.open(key, ACK)
    _remove(director, key, 1)
    assert director.tc(director.segment(key, port, RST))[0] == DROPPED
    assert director.connection(key, port) is None


@families
@pytest.mark.parametrize("protocol", [UDP, SCTP])
def test_clients_of_other_protocols_get_an_icmp_error(director: Director, vip: bytes, protocol: int) -> None:
    key = _service(director, vip, protocol, reject_gone=True).key
    port = director.unused_port()
    if protocol == UDP:
        frame = director.segment(key, port, 0, b"a question")
    else:
        build, client = (packets.ipv4, CLIENT) if len(vip) == 4 else (packets.ipv6, CLIENT6)
        asked = sctp(port, key.port, chunk(packets.INIT, b"word"))
        frame = director.frame(build(client, vip, SCTP, asked))
    assert director.tc(frame)[0] == SENT
    _remove(director, key, 1)
    verdict, after = director.tc(frame)
    assert verdict == SENT
    assert after[ETHERNET_SIZE:] == error_about(frame, PORT_UNREACHABLE, after)[ETHERNET_SIZE:]
    assert director.connection(key, port) is None


def test_a_deleted_service_has_told_what_it_wants(director: Director) -> None:
    told, silent = _service(director, reject_gone=True).key, _service(director).key
    ports = [director.open(key, ACK) for key in (told, silent)]
    for key, port, expected in zip((told, silent), ports, (SENT, DROPPED), strict=True):
        director.table.delete_service(key)
        assert director.tc(director.segment(key, port, ACK))[0] == expected


# --- UDP flows that move ------------------------------------------------------


@families
@pytest.mark.parametrize("take_away", [_remove, _quiesce], ids=["removed", "quiesced"])
@pytest.mark.parametrize("has_xdp", [False, True], ids=["tc", "xdp"])
def test_a_flow_goes_to_another_real_server(
    director: Director, vip: bytes, has_xdp: bool, take_away: Callable[[Director, ServiceKey, int], None]
) -> None:
    key = _service(director, vip, UDP, servers=3, rehome=True).key
    port = director.unused_port()
    frame = director.segment(key, port, 0, b"word")
    first = _reaches(director, key, frame)
    take_away(director, key, first)
    if has_xdp:
        assert director.xdp(frame)[0] == XDP_PASS
    second = _reaches(director, key, frame)
    assert second != first
    for _ in range(3):
        assert _reaches(director, key, frame) == second
    if has_xdp:
        assert director.xdp(frame)[0] == XDP_TX
    entries = {one.destination.address: one for one in director.listing(key).destinations}
    assert entries[_server(vip, second)].inactive == 1
    assert sum(one.inactive for one in entries.values()) == 1


def test_without_it_a_flow_stays(director: Director) -> None:
    key = _service(director, VIP, UDP, servers=3).key
    frame = director.segment(key, director.unused_port(), 0)
    first = _reaches(director, key, frame)
    _quiesce(director, key, first)
    assert _reaches(director, key, frame) == first
    _remove(director, key, first)
    assert director.tc(frame)[0] == DROPPED


def test_a_quiesced_real_server_is_better_than_none(director: Director) -> None:
    key = _service(director, VIP, UDP, rehome=True).key
    port = director.unused_port()
    frame = director.segment(key, port, 0)
    assert director.tc(frame)[0] == SENT
    _quiesce(director, key, 1)
    for _ in range(3):
        assert _reaches(director, key, frame) == 1
    assert director.listing(key).stats.connections == 1
    # A new flow has nowhere to go, and one whose real server is gone has not either.
    fresh = director.segment(key, director.unused_port(), 0)
    after = director.tc(fresh)[1]
    assert after[ETHERNET_SIZE:] == error_about(fresh, PORT_UNREACHABLE, after)[ETHERNET_SIZE:]
    _remove(director, key, 1)
    verdict, after = director.tc(frame)
    assert verdict == SENT
    assert after[ETHERNET_SIZE:] == error_about(frame, PORT_UNREACHABLE, after)[ETHERNET_SIZE:]


def test_a_persistent_client_moves_with_all_its_flows(director: Director) -> None:
    key = _service(director, VIP, UDP, servers=3, rehome=True, persistence=100).key
    ports = [director.unused_port() for _ in range(3)]
    frames = [director.segment(key, port, 0) for port in ports]
    (first,) = {_reaches(director, key, frame) for frame in frames}
    _quiesce(director, key, first)
    (second,) = {_reaches(director, key, frame) for frame in frames}
    assert second != first
    (still,) = {_reaches(director, key, frame) for frame in frames}
    assert still == second
    assert director.listing(key).stats.connections == 6


def test_tcp_connections_stay(director: Director) -> None:
    """Another real server knows nothing of them."""
    key = _service(director, servers=2, rehome=True).key
    port = director.open(key, ACK)
    first = _reaches(director, key, director.segment(key, port, ACK))
    _quiesce(director, key, first)
    assert _reaches(director, key, director.segment(key, port, ACK)) == first


def test_all_of_it_is_listed_and_survives_another_command(director: Director) -> None:
    settings = director.maps.settings
    before = settings.idle_services, settings.rehoming_services
    service = _service(director, idle_timeout=5, reject_gone=True, rehome=True)
    assert (settings.idle_services, settings.rehoming_services) == (before[0] + 1, before[1] + 1)
    director.another_command()
    listed = director.listing(service.key).service
    assert (listed.idle_timeout, listed.reject_gone, listed.rehome) == (5, True, True)
    wanted = abi.DESTINATION_REJECTS_GONE | abi.DESTINATION_REHOMES
    assert director.record(service.key).flags & wanted == wanted
    director.table.edit_service(Service(service.key, "rr"))
    assert not director.record(service.key).flags & wanted
    director.table.edit_service(service)
    director.table.delete_service(service.key)
    assert (settings.idle_services, settings.rehoming_services) == before
