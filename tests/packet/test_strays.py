# SPDX-License-Identifier: GPL-2.0-only
"""nat_icmp_send: masqueraded real servers are told of packets that belong to no connection."""

from __future__ import annotations

import json
import socket
import subprocess
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
    Director,
    real_server,
    real_server6,
)
from tests.packet.packets import ACK, FIN, RST, SCTP, SYN, TCP, UDP, packed
from tests.packet.translated import End, Masqueraded, whole_packet
from xlvs.model import MASQUERADE, ROUTE, Destination, Service, ServiceKey

SERVER_PORT = 8080
families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP], ids=["tcp", "udp", "sctp"])


def _ends(address: bytes) -> tuple[End, End]:
    """A real server and a client of the VIP's family."""
    if address == VIP:
        return (real_server(1), SERVER_PORT), (CLIENT, 4000)
    return (real_server6(1), SERVER_PORT), (CLIENT6, 4000)


@pytest.fixture(autouse=True)
def _nothing_left(director: Director) -> Iterator[None]:
    """Real servers are known by what they send from: those of one test are not there in the next."""
    director.device_sums = 0  # what is cut short for an error loses it
    yield
    director.table.flush()
    director.table.set_sysctls({"nat_icmp_send": "0"})


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _own_address(peer: bytes) -> bytes:
    """The director's address towards a neighbour."""
    said = subprocess.run(
        ["ip", "-j", "route", "get", _text(peer)], check=True, capture_output=True, text=True
    )
    return packed(json.loads(said.stdout)[0]["prefsrc"])


def _is_told(director: Director, packet: bytes, source: bytes, hops: int) -> None:
    """A real server's packet is answered by an error from that address, which quotes it."""
    verdict, after = director.tc(director.frame(packet))
    assert verdict == SENT
    quoted = director.frame(packet)
    for _ in range(hops):
        quoted = packets.with_one_hop_less(quoted)
    quoted = quoted[packets.ETHERNET_SIZE :]
    if len(source) == 4:
        identification = int.from_bytes(after[18:20], "big")
        made = packets.icmp(
            source, packet[12:16], 3, 3, 0, quoted[:548], tos=0xC0, identification=identification
        )
    else:
        made = packets.icmp(source, packet[8:24], 1, 4, 0, quoted[: 1280 - 48])
    assert after[packets.ETHERNET_SIZE :] == made


def _is_left(director: Director, packet: bytes) -> None:
    """The stack goes on with it."""
    frame = director.frame(packet)

    def pass_by() -> None:
        assert director.tc(frame) == (UNTOUCHED, frame)

    director.changes_nothing(pass_by)


@families
@protocols
@pytest.mark.parametrize("size", [0, 900, 1300])
def test_a_masqueraded_real_server_is_told(
    director: Director, address: bytes, protocol: int, size: int
) -> None:
    director.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
    server, client = _ends(address)
    stray = whole_packet(protocol, server, client, bytes(size), SYN | ACK)
    _is_left(director, stray)
    director.table.set_sysctls({"nat_icmp_send": "1"})
    before = director.events()["strays"]
    _is_told(director, stray, _own_address(server[0]), hops=1)
    assert director.events()["strays"] == before + 1
    director.table.set_sysctls({"nat_icmp_send": "0"})
    _is_left(director, stray)


@families
@protocols
def test_what_is_for_the_director_is_no_exception(director: Director, address: bytes, protocol: int) -> None:
    """The error then comes from the address that it was for."""
    director.table.set_sysctls({"nat_icmp_send": "1"})
    director.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
    server, _ = _ends(address)
    own = packed("10.0.0.1") if address == VIP else packed("fd00::1")
    _is_told(director, whole_packet(protocol, server, (own, 9), b"hello"), own, hops=0)
    _is_told(director, whole_packet(protocol, server, (address, 9), b"hello"), address, hops=0)


@families
def test_farewells_are_no_news(director: Director, address: bytes) -> None:
    director.table.set_sysctls({"nat_icmp_send": "1"})
    server, client = _ends(address)
    for protocol in (TCP, SCTP):
        director.service(1, address=address, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
        _is_left(director, whole_packet(protocol, server, client, flags=RST))
    own = _own_address(server[0])
    _is_told(director, whole_packet(TCP, server, client, flags=FIN | ACK), own, hops=1)
    chunks = packets.chunk(packets.COOKIE_ACK, b"") + packets.chunk(packets.ABORT, b"")
    build = packets.ipv4 if address == VIP else packets.ipv6
    bundle = build(server[0], client[0], SCTP, packets.sctp(server[1], client[1], chunks), 64)
    _is_told(director, bundle, own, hops=1)


def test_who_is_told(director: Director) -> None:
    """Only masqueraded real servers that are in service, from their service's port and protocol."""
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    other = director.service(1, server_port=9090, method=ROUTE)
    director.table.set_sysctls({"nat_icmp_send": "1"})
    server, client = _ends(VIP)
    own = _own_address(server[0])
    _is_told(director, whole_packet(TCP, server, client), own, hops=1)
    _is_left(director, whole_packet(UDP, server, client))
    _is_left(director, whole_packet(TCP, (server[0], SERVER_PORT + 1), client))
    _is_left(director, whole_packet(TCP, (server[0], 9090), client))
    _is_left(director, whole_packet(TCP, (real_server(2), SERVER_PORT), client))
    director.table.edit_destination(other, Destination(server[0], 9090, MASQUERADE))
    _is_told(director, whole_packet(TCP, (server[0], 9090), client), own, hops=1)
    director.table.edit_destination(key, Destination(server[0], SERVER_PORT, MASQUERADE, weight=0))
    _is_told(director, whole_packet(TCP, server, client), own, hops=1)
    director.table.delete_destination(key, server[0], SERVER_PORT)
    _is_left(director, whole_packet(TCP, server, client))
    director.table.delete_service(other)
    _is_left(director, whole_packet(TCP, (server[0], 9090), client))


def test_those_of_a_firewall_mark_are_told_of_every_protocol(director: Director) -> None:
    director.table.set_sysctls({"nat_icmp_send": "1"})
    key = ServiceKey(2, fwmark=7)
    director.table.add_service(Service(key, "rr"))
    server, client = _ends(VIP)
    director.table.add_destination(key, Destination(server[0], SERVER_PORT, MASQUERADE))
    for protocol in (TCP, UDP, SCTP):
        _is_told(director, whole_packet(protocol, server, client, b"x"), _own_address(server[0]), hops=1)


@protocols
def test_answers_within_connections_go_on(director: Director, protocol: int) -> None:
    """And when the connection is over, so is that."""
    director.table.set_sysctls({"nat_icmp_send": "1"})
    key = director.service(1, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
    server, client = _ends(VIP)
    one = Masqueraded(protocol, client, (VIP, key.port), server)
    asked, answered = one.asked(flags=SYN), one.answered(flags=SYN | ACK)
    assert director.tc(director.frame(asked[0])) == (SENT, director.frame(asked[1]))
    assert director.tc(director.frame(answered[0])) == (SENT, director.frame(answered[1]))
    director.expire_all()
    _is_told(director, answered[0], _own_address(server[0]), hops=1)


def test_what_its_router_refuses_is_left_to_the_stack(director: Director) -> None:
    director.table.set_sysctls({"nat_icmp_send": "1"})
    director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    server, client = _ends(VIP)
    _is_left(director, whole_packet(TCP, server, client, ttl=1))


def test_it_is_limited_for_each_real_server(director: Director) -> None:
    director.table.set_sysctls({"nat_icmp_send": "1"})
    director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    director.maps.settings.icmp_interval = director.icmp_interval_at_loading or 60
    server, client = _ends(VIP)
    frame = director.frame(whole_packet(TCP, server, client))
    verdicts = [director.tc(frame)[0] for _ in range(20)]
    director.maps.settings.icmp_interval = 0
    assert verdicts[0] == SENT
    assert verdicts[-1] == DROPPED
