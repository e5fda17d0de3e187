# SPDX-License-Identifier: GPL-2.0-only
"""ICMP errors about a connection's packets go to who sent them, translated where those were."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    FAR_SERVER,
    FAR_SERVER6,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    Director,
    real_server,
    real_server6,
)
from tests.packet.packets import ACK, ETHERNET_SIZE, RST, SCTP, SYN, TCP, UDP, packed, with_one_hop_less
from tests.packet.translated import Masqueraded
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, Stats, Tunnel

SERVER_PORT = 8080
ERRORS = {
    4: ((3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 1400), (3, 13, 0), (4, 0, 0), (11, 0, 0), (11, 1, 0)),
    6: ((1, 0, 0), (1, 4, 0), (2, 0, 1300), (3, 0, 0), (3, 1, 0), (4, 1, 40)),
}
"""Types, codes and details of errors that the kernel forwards: all of ICMPv6's, three of ICMP's."""
NO_ERRORS = {4: (0, 5, 8, 9, 10, 12, 13, 14), 6: (128, 129, 133, 134, 135, 136, 137, 143)}
"""Other types."""

families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP], ids=["tcp", "udp", "sctp"])


def _router(address: bytes) -> bytes:
    """A router on the way, which is neither of the connection's ends."""
    return packed("10.0.0.222") if address == VIP else packed("fd00::222")


def _open(
    director: Director,
    address: bytes,
    protocol: int = TCP,
    method: str = MASQUERADE,
    tunnel: Tunnel | None = None,
) -> Masqueraded:
    """A connection with one packet from its client, and for NAT one from its real server."""
    server_port = SERVER_PORT if method == MASQUERADE else None
    servers = () if method != TUNNEL else (FAR_SERVER if address == VIP else FAR_SERVER6,)
    key = director.service(
        1, address=address, protocol=protocol, method=method, server_port=server_port, servers=servers,
        tunnel=tunnel,
    )  # fmt: skip
    client, server = (CLIENT, real_server(1)) if address == VIP else (CLIENT6, real_server6(1))
    one = Masqueraded(
        protocol, (client, director.unused_port()), (address, key.port), (server, server_port or key.port)
    )
    assert director.tc(director.frame(one.asked(b"", SYN)[0]))[0] == SENT
    if method == MASQUERADE:
        assert director.tc(director.frame(one.answered(b"", SYN | ACK)[0]))[0] == SENT
    return one


def _quotes(seen: bytes, sent: bytes) -> list[tuple[bytes, bytes]]:
    """What is quoted of a packet, and that as its sender should see it.

    From all of it to as little as the ports and four bytes.  The quoted
    checksum of the transport is nobody's to mend, as in the kernel: the packet
    is not whole.
    """
    protocol, offset = packets.transport_of(seen)
    field, end = {TCP: (16, 18), UDP: (6, 8), SCTP: (8, 12)}[protocol]
    as_sent = with_one_hop_less(bytes(ETHERNET_SIZE) + sent)[ETHERNET_SIZE:]
    checksum = slice(offset + field, offset + end)
    as_sent = as_sent[: checksum.start] + seen[checksum] + as_sent[checksum.stop :]
    return [(seen[:size], as_sent[:size]) for size in (len(seen), offset + 8, offset + 9, offset + 101)]


def _stats(director: Director, one: Masqueraded) -> Stats:
    """The counters of the service that the connection is of."""
    (found,) = (
        entry
        for entry in director.table.services()
        if (entry.service.key.address, entry.service.key.port) == one.virtual
    )
    return found.stats


def _passes(director: Director, before: bytes, after: bytes) -> None:
    frame = director.frame(before)
    assert director.xdp(frame) == (XDP_PASS, frame)
    assert director.tc(frame) == (SENT, director.frame(after))


def _is_untouched(director: Director, packet: bytes) -> None:
    before = director.snapshot()
    frame = director.frame(packet)
    assert director.xdp(frame) == (XDP_PASS, frame)
    assert director.tc(frame) == (UNTOUCHED, frame)
    assert director.snapshot() == before


@families
@protocols
def test_from_the_clients_side_of_nat(director: Director, address: bytes, protocol: int) -> None:
    """The real server's packet reached them as the VIP's; it hears of the one that it sent."""
    one = _open(director, address, protocol)
    before = _stats(director, one)
    sent, seen = one.answered(bytes(range(200)))
    count = total = 0
    for error, source in product(ERRORS[sent[0] >> 4], (one.client[0], _router(address))):
        for quoted, wanted in _quotes(seen, sent):
            came = packets.icmp(source, address, *error, quoted)
            _passes(director, came, packets.icmp(source, one.server[0], *error, wanted, 63))
            count, total = count + 1, total + len(came)
    assert _stats(director, one) == before.replace(
        in_packets=before.in_packets + count, in_bytes=before.in_bytes + total
    )


@families
@protocols
def test_from_the_real_servers_side_of_nat(director: Director, address: bytes, protocol: int) -> None:
    """The client hears of the packet that it sent to the VIP, and hears it from the VIP."""
    one = _open(director, address, protocol)
    before = _stats(director, one)
    sent, seen = one.asked(bytes(range(200)))
    count = total = 0
    for error, source in product(ERRORS[sent[0] >> 4], (one.server[0], _router(address))):
        for quoted, wanted in _quotes(seen, sent):
            came = packets.icmp(source, one.client[0], *error, quoted)
            _passes(director, came, packets.icmp(address, one.client[0], *error, wanted, 63))
            count, total = count + 1, total + len(came)
    assert _stats(director, one) == before.replace(
        out_packets=before.out_packets + count, out_bytes=before.out_bytes + total
    )


@families
@protocols
def test_direct_routing(director: Director, address: bytes, protocol: int) -> None:
    """The real server sent that packet as the VIP, and gets the error as it came."""
    one = _open(director, address, protocol, ROUTE)
    before = _stats(director, one)
    _, seen = one.answered(bytes(range(200)))
    count = total = 0
    for error, source in product(ERRORS[seen[0] >> 4], (one.client[0], _router(address))):
        for quoted, _ in _quotes(seen, seen):
            came = packets.icmp(source, address, *error, quoted)
            _passes(director, came, packets.icmp(source, address, *error, quoted, 63))
            count, total = count + 1, total + len(came)
    assert _stats(director, one) == before.replace(
        in_packets=before.in_packets + count, in_bytes=before.in_bytes + total
    )


@families
@pytest.mark.parametrize(
    "tunnel", [Tunnel("ipip"), Tunnel("gue", 6080), Tunnel("gre")], ids=lambda t: t.kind
)
def test_tunnels(director: Director, address: bytes, tunnel: Tunnel) -> None:
    one = _open(director, address, TCP, TUNNEL, tunnel)
    _, seen = one.answered(bytes(range(200)))
    source, server = (packed("10.0.1.1"), FAR_SERVER) if address == VIP else (packed("fd01::1"), FAR_SERVER6)
    for error, tos, flags in product(ERRORS[seen[0] >> 4], (0, 0xC3), (0, packets.DONT_FRAGMENT)):
        fields: dict[str, Any] = (
            {"tos": tos, "fragment": flags} if address == VIP else {"traffic_class": tos}
        )
        frame = director.frame(packets.icmp(_router(address), address, *error, seen, **fields))
        inner = packets.icmp(_router(address), address, *error, seen, 63, **fields)
        verdict, after = director.tc(frame)
        offset = ETHERNET_SIZE + (20 if address == VIP else 40)
        port = int.from_bytes(after[offset : offset + 2], "big") if tunnel.kind == "gue" else 0
        identification = int.from_bytes(after[18:20], "big")
        outer = packets.tunnelled(inner, source, server, tunnel.kind, tunnel.port, port, identification)
        assert (verdict, after) == (SENT, director.frame(outer))


@protocols
def test_a_damaged_error_is_not_translated(director: Director, protocol: int) -> None:
    """Nobody hears of it, and it does not count (kernel: ip_vs_in_icmp(), handle_response_icmp())."""
    one = _open(director, VIP, protocol)
    before = _stats(director, one)
    error = ERRORS[4][0]
    whole = (
        packets.icmp(CLIENT, VIP, *error, one.answered(bytes(range(200)))[1]),
        packets.icmp(one.server[0], CLIENT, *error, one.asked(bytes(range(201)))[1]),
    )
    for packet in whole:
        for place in (ETHERNET_SIZE + 8, len(packet) - 1):
            damaged = packet[:place] + bytes([packet[place] ^ 0x55]) + packet[place + 1 :]
            assert director.tc(director.frame(damaged))[0] == DROPPED
    assert _stats(director, one) == before
    for packet in whole:
        assert director.tc(director.frame(packet))[0] == SENT


@families
@pytest.mark.parametrize("method", [ROUTE, MASQUERADE])
def test_errors_about_nothing_of_ours(director: Director, address: bytes, method: str) -> None:
    """Of another kind, or about another flow: each misses narrowly, and goes up as it came."""
    one = _open(director, address, method=method)
    _, seen = one.answered(b"data")
    version = seen[0] >> 4
    error = ERRORS[version][1]
    router = _router(address)
    for kind in NO_ERRORS[version]:
        _is_untouched(director, packets.icmp(router, address, kind, 0, 0, seen))
    (client, port), (virtual, virtual_port) = one.client, one.virtual
    for flow in (
        Masqueraded(TCP, (client, port ^ 1), one.virtual, one.server),
        Masqueraded(TCP, (router, port), one.virtual, one.server),
        Masqueraded(TCP, one.client, (virtual, virtual_port + 1), one.server),
        Masqueraded(TCP, one.client, (router, virtual_port), one.server),
        Masqueraded(UDP, one.client, one.virtual, one.server),
        # The client's own packet, quoted by nobody but the director or what is behind it.
        Masqueraded(TCP, one.virtual, one.client, one.server),
    ):
        _is_untouched(director, packets.icmp(router, address, *error, flow.answered(b"data")[1]))
    # The right one, guarding those above.
    frame = director.frame(packets.icmp(router, address, *error, seen))
    assert director.tc(frame)[0] == SENT


@families
def test_errors_cut_short(director: Director, address: bytes) -> None:
    """Whatever is missing of the quoted ports, or lies beyond the IP packet's end."""
    one = _open(director, address)
    _, seen = one.answered(b"data")
    error = ERRORS[seen[0] >> 4][1]
    headers = 20 if address == VIP else 40
    for size in range(headers + 4):
        _is_untouched(director, packets.icmp(_router(address), address, *error, seen[:size]))
    whole = packets.icmp(_router(address), address, *error, seen)
    least = headers + 8 + headers + 4
    for size in range(headers, least):
        length: dict[str, Any] = (
            {"total_length": size} if address == VIP else {"payload_length": size - headers}
        )
        if address == VIP6 and size == headers:
            continue  # 0 stands for a jumbogram's length
        _is_untouched(director, packets.icmp(_router(address), address, *error, seen, **length))
    for size in range(len(whole) + 1, len(whole) + 20):
        length = {"total_length": size} if address == VIP else {"payload_length": size - headers}
        _is_untouched(director, packets.icmp(_router(address), address, *error, seen, **length))


def test_quotes_of_fragments(director: Director) -> None:
    """A later fragment's quote has no ports where they should be; a fragmented error has none of it."""
    one = _open(director, VIP)
    sent, seen = one.answered(b"data")
    error = (3, 1, 0)
    for offset in (1, 0x1FFF, 0x2001):
        later = seen[:6] + offset.to_bytes(2, "big") + seen[8:]
        _is_untouched(director, packets.icmp(_router(VIP), VIP, *error, later))
    for fragment in (1, 0x2000, 0x2001):
        _is_untouched(director, packets.icmp(_router(VIP), VIP, *error, seen, fragment=fragment))
    first = {"fragment": packets.MORE_FRAGMENTS}
    sent, seen = one.answered(b"data", **first)
    for quoted, wanted in _quotes(seen, sent):
        _passes(
            director,
            packets.icmp(_router(VIP), VIP, *error, quoted),
            packets.icmp(_router(VIP), one.server[0], *error, wanted, 63),
        )


def test_quotes_with_ip_options(director: Director) -> None:
    one = _open(director, VIP)
    for inner, outer in product((0, 4, 40), repeat=2):
        sent, seen = one.answered(b"data", options=bytes([1]) * inner)
        for quoted, wanted in _quotes(seen, sent):
            options = bytes([1]) * outer
            _passes(
                director,
                packets.icmp(_router(VIP), VIP, 3, 4, 1400, quoted, options=options),
                packets.icmp(_router(VIP), one.server[0], 3, 4, 1400, wanted, 63, options=options),
            )


@families
def test_the_last_hop(director: Director, address: bytes) -> None:
    """No error is sent about an error."""
    one = _open(director, address)
    version = 4 if address == VIP else 6
    ends = ((one.answered()[1], address, DROPPED), (one.asked()[1], one.client[0], UNTOUCHED))
    for quoted, to, verdict in ends:
        before = director.events()["ttl_exceeded"]
        for ttl in (0, 1):
            frame = director.frame(packets.icmp(_router(address), to, *ERRORS[version][1], quoted, ttl))
            assert director.tc(frame) == (verdict, frame)
        assert director.events()["ttl_exceeded"] == before + (2 if verdict == DROPPED else 0)


@families
def test_after_the_connection_is_over(director: Director, address: bytes) -> None:
    """Also before the sweeper comes."""
    one = _open(director, address)
    for place, slot in director.slots(abi.PHASE_LIVE):
        if (slot.client, slot.client_port) == one.client:
            director.slot_record(place).expires = (slot.expires - 0x10000000) & 0xFFFFFFFF
    error = ERRORS[4 if address == VIP else 6][1]
    for quoted, to in ((one.answered()[1], address), (one.asked()[1], one.client[0])):
        frame = director.frame(packets.icmp(_router(address), to, *error, quoted))
        assert director.tc(frame) == (UNTOUCHED, frame)


def test_they_do_not_change_the_state(director: Director) -> None:
    one = _open(director, VIP)
    key = next(e.service.key for e in director.table.services() if e.service.key.port == one.virtual[1])
    before = director.connection(key, one.client[1])
    assert before is not None
    _, seen = one.answered(b"", RST)
    assert director.tc(director.frame(packets.icmp(_router(VIP), VIP, 3, 1, 0, seen)))[0] == SENT
    after = director.connection(key, one.client[1])
    assert after is not None
    assert after.state == before.state
