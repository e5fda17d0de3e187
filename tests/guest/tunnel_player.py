# SPDX-License-Identifier: GPL-2.0-only
"""Tunnels through kernel IPVS and xlvs, inside the guest: ``python -m tests.guest.tunnel_player PRELOAD``.

PRELOAD is what `standing.preload_library` has made.  Each director wraps the
same packets of clients and gets the same ICMP errors about what it wrapped.
Writes a JSON object to stdout: for each director, for each case, what came
out, with nothing in it that chance chose.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

from tests.packet import packets
from tests.packet.offloads import CardSocket, leave_nothing_to_the_card, with_open_checksum
from tests.packet.packets import ACK, DONT_FRAGMENT, SYN, TCP, UDP, packed
from tests.packet.translated import whole_packet

from .network import enter_namespace, ip_batch
from .raw_player import COUNTERS_LAG, Director, unused_numbers
from .scenario import KERNEL, XLVS
from .sightings import described
from .wire import CLIENT, DIRECTOR_MAC, client_addresses, virtual_addresses

TUNNELS = (
    "ipip",
    "gue --tun-port 6080 --tun-nocsum",
    "gue --tun-port 6080 --tun-csum",
    "gue --tun-port 6080 --tun-remcsum",
    "gre --tun-nocsum",
    "gre --tun-csum",
)
"""Each leads to a real server of its own: the kernel does not tell two tunnels to one address apart."""
FAMILIES = (4, 6)
FIRST_PORT = 8000
CLIENT_PORT = 40000
ROUTERS = {4: packed("10.0.0.253"), 6: packed("2001:db8::253")}
PORTS = range(32768, 61000)
"""From which the kernel takes GUE's source ports."""
ERRORS = (
    (3, 0, 0),
    (3, 1, 0),
    (3, 3, 0),
    (3, 13, 0),
    (4, 0, 0),
    (11, 0, 0),
    (11, 1, 0),
    (5, 1, 0),
    (12, 0, 0),
)
MTUS = ((1400, 1400), (1400, 1400), (1450, 1400), (1300, 1300), (500, 552), (0, 552))
"""What a router says, and the path's MTU that is known then."""
LINK_MTU = 1500
RECEIVER_MAC = "02:00:00:00:02:01"
"""Of all real servers here: they stand on one wire, so that all have its MTU."""
HEADERS = {(4, TCP): 40, (6, TCP): 60, (4, UDP): 28, (6, UDP): 48}
REMOTE_OPTION = 8


class Tunnelled:
    """One service with a tunnelled real server, on one director."""

    def __init__(self, director: Director, card: CardSocket, scenario: int, number: int) -> None:
        kind, client_family, server_family = CASES[number]
        self.name = f"IPv{client_family} in IPv{server_family} by {kind}"
        self._director = director
        self._card = card
        self.family = client_family
        self.is_ipv4 = client_family == 4
        virtual = virtual_addresses(scenario)
        self._virtual = packed(virtual[client_family == 6])
        self._client = packed(client_addresses(scenario, 1)[client_family == 6])
        self._port = FIRST_PORT + number
        self.outer = 20 if server_family == 4 else 40
        self.router = ROUTERS[server_family]
        self.kind = kind
        name = virtual[0] if self.is_ipv4 else f"[{virtual[1]}]"
        server = _receiver_addresses(kind)[server_family == 6]
        server = server if server_family == 4 else f"[{server}]"
        self.definition = ""
        for protocol in "tu":
            service = f"-{protocol} {name}:{self._port}"
            self.definition += f"-A {service} -s rr\n"
            self.definition += f"-a {service} -r {server}:{self._port} -i --tun-type {kind}\n"

    def packet(
        self,
        protocol: int,
        payload: bytes = b"",
        flags: int = SYN,
        *,
        tos: int = 0,
        whole: bool = True,
        checksum: bool = True,
    ) -> bytes:
        """A client's packet; ``whole``: with DF in IPv4."""
        fields: dict[str, Any] = {"traffic_class": tos}
        if self.is_ipv4:
            fields = {"fragment": DONT_FRAGMENT if whole else 0, "tos": tos}
        ends = (self._client, CLIENT_PORT), (self._virtual, self._port)
        return whole_packet(protocol, *ends, payload, flags, 64, checksum, **fields)

    def through(self, packet: bytes) -> list[tuple[str, bytes]]:
        """Send a packet, and see what came out."""
        self._director.wire.send(packet)
        return self._seen()

    def through_open(self, packet: bytes) -> list[tuple[str, bytes]]:
        """The same with its checksum left open."""
        ethertype = 0x0800 if self.is_ipv4 else 0x86DD
        self._card.send(packets.ethernet(with_open_checksum(packet), ethertype, DIRECTOR_MAC, bytes(6)))
        return self._seen()

    def _seen(self) -> list[tuple[str, bytes]]:
        # The wire sees what another socket of its namespace sends, too.
        return [one for one in self._director.wire.seen() if one[0] != DIRECTOR_MAC.hex(":")]

    def client_error(self) -> bytes:
        """An ICMP error that the client sends about the VIP's answer."""
        answer = whole_packet(TCP, (self._virtual, self._port), (self._client, CLIENT_PORT), b"answer")
        kind = (3, 4, 1400) if self.is_ipv4 else (2, 0, 1300)
        return packets.icmp(self._client, self._virtual, *kind, answer)

    def router_error(self, kind: int, code: int, detail: int, quoted: bytes) -> bytes:
        """An ICMP error that a router sends about the tunnel's packet."""
        source = quoted[12:16] if len(self.router) == 4 else quoted[8:24]
        return packets.icmp(self.router, source, kind, code, detail, quoted)


def _receiver_addresses(kind: str) -> tuple[str, str]:
    """IPv4 and IPv6 address of the real server at that tunnel's end."""
    last = 31 + TUNNELS.index(kind)
    return f"10.0.0.{last}", f"2001:db8::{last}"


CASES = list(product(TUNNELS, FAMILIES, FAMILIES))


def steady(seen: list[tuple[str, bytes]], kind: str) -> list[str]:
    """What came out, in words, without what chance chose; that has to be right by itself."""
    return [
        described([(node, packet)])[0] if node == CLIENT else f"{node} < {_wrapped(packet, kind)}"
        for node, packet in seen
    ]


def _wrapped(packet: bytes, kind: str) -> str:
    if packet[0] >> 4 == 4:
        assert packets.checksum(packet[:20]) == 0
        packet = packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:]
    if not kind.startswith("gue"):
        return packet.hex()
    outer = 20 if packet[0] >> 4 == 4 else 40
    udp = packet[outer:]
    port, checksum = unpack_from(">H4xH", udp)
    assert port in PORTS
    addresses = packet[12:20] if outer == 20 else packet[8:40]
    whole = addresses + pack(">II", len(udp), UDP) + udp
    state = "none" if checksum == 0 else "right" if packets.checksum(whole) == 0 else "wrong"
    return f"{packet[:outer].hex()} checksum {state} {udp[2:6].hex()} {udp[8:].hex()}"


def wrapping(one: Tunnelled) -> Iterator[tuple[str, list[str]]]:
    """Packets of the client, and what becomes of each."""
    data = bytes(n & 0xFF for n in range(1001))
    for protocol, name in ((TCP, "tcp"), (UDP, "udp")):
        for size, tos in ((0, 0), (1, 0xB7), (1001, 0)):
            packet = one.packet(protocol, data[:size], tos=tos)
            yield f"{name} {size} tos {tos}", steady(one.through(packet), one.kind)
        yield f"{name} bad checksum", steady(one.through(_spoiled(one.packet(protocol, data))), one.kind)
        for size in (0, 1001):
            open_one = one.packet(protocol, data[:size], ACK)
            yield f"{name} {size} open checksum", steady(one.through_open(open_one), one.kind)
        overhead = len(one.through(one.packet(protocol, b""))[0][1]) - len(one.packet(protocol, b""))
        room = LINK_MTU - HEADERS[one.family, protocol]
        for size in (room - overhead - REMOTE_OPTION, room - overhead):
            for more in (0, 1):
                name_of_step = f"{name}, MTU {size - room + more}"
                packet = one.packet(protocol, bytes(size + more), ACK)
                yield name_of_step, steady(one.through(packet), one.kind)
                seen = one.through_open(packet)
                yield f"{name_of_step}, open checksum", [_error_in_short(seen) or steady(seen, one.kind)[0]]
    yield "udp without checksum", steady(one.through(one.packet(UDP, data, checksum=False)), one.kind)
    yield "ICMP error of the client", steady(one.through(one.client_error()), one.kind)


def _spoiled(packet: bytes) -> bytes:
    return packet[:-1] + bytes([packet[-1] ^ 0x55])


def errors(one: Tunnelled) -> Iterator[tuple[str, list[str]]]:
    """Errors of a router about IPv4 in IPv4, which alone the kernel passes on."""
    for size in (20, 1200):
        ((_, sent),) = one.through(one.packet(TCP, bytes(size)))
        for kind, code, detail in ERRORS:
            error = one.router_error(kind, code, detail, sent[:548])
            yield f"{size} error {kind}/{code}", steady(one.through(error), one.kind)
        for cut in (28, 8 + 20 + 12 + 20 + 8, 100):
            error = one.router_error(3, 1, 0, sent[:cut])
            yield f"{size} quoted {cut}", steady(one.through(error), one.kind)
    ((_, sent),) = one.through(one.packet(TCP, bytes(1200)))
    yield "damaged", steady(one.through(_spoiled(one.router_error(3, 1, 0, sent[:548]))), one.kind)
    overhead = len(sent) - len(one.packet(TCP, bytes(1200)))
    for turn, (said, known) in enumerate(MTUS):
        error = one.router_error(3, 4, said, sent[:548])
        yield f"turn {turn}, MTU {said}", steady(one.through(error), one.kind)
        room = known - overhead - HEADERS[4, TCP]
        for size in (room, room + 1, LINK_MTU - HEADERS[4, TCP]):
            yield f"turn {turn}, {size} bytes", steady(one.through(one.packet(TCP, bytes(size))), one.kind)
    fragmentable = one.packet(TCP, bytes(1000), whole=False)
    yield (
        "without DF",
        steady(one.through(one.router_error(3, 4, 600, _requoted(sent, fragmentable))), one.kind),
    )


def _requoted(sent: bytes, packet: bytes) -> bytes:
    """A tunnel's packet with another inside, as far as a router quotes it."""
    return (sent[: len(sent) - 1240] + packet)[:548]


def _error_in_short(seen: list[tuple[str, bytes]]) -> str:
    """Type, code and MTU of an error to the client: quoting an open checksum is done in several ways."""
    ((node, packet),) = seen
    if node != CLIENT:
        return ""
    protocol, offset = packets.transport_of(packet)
    assert protocol in (packets.ICMP, packets.ICMPV6)
    return packet[offset : offset + 2].hex() + packet[offset + 4 : offset + 8].hex()


def main() -> int:
    """Play everything on both directors and print what was seen."""
    result: dict[str, dict[str, list[str]]] = {}
    with ExitStack() as stack:
        (number,) = unused_numbers(1)
        for name in (KERNEL, XLVS):
            director = Director(name, "plain", Path(sys.argv[1]))
            stack.callback(director.close, tidy=True)
            director.wire.take_addresses(range(number, number + 1))
            with director.wire.at_director():
                leave_nothing_to_the_card("eth0")
                ip_batch(
                    [
                        f"neighbour replace {address} lladdr {RECEIVER_MAC} dev eth0 nud permanent"
                        for kind in TUNNELS
                        for address in _receiver_addresses(kind)
                    ]
                )
            result[name] = dict(_play(director, _card(director, stack), number))
    json.dump(result, sys.stdout)
    return 0


def _card(director: Director, stack: ExitStack) -> CardSocket:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    outside = os.open(f"/run/netns/{director.wire.prefix}-outside", os.O_RDONLY)
    try:
        enter_namespace(outside)
        card = CardSocket("eth0")
    finally:
        enter_namespace(home)
        os.close(outside)
        os.close(home)
    stack.callback(card.close)
    return card


def _play(director: Director, card: CardSocket, scenario: int) -> Iterator[tuple[str, list[str]]]:
    played = [Tunnelled(director, card, scenario, number) for number in range(len(CASES))]
    answer = director.ipvsadm(["-R"], "".join(one.definition for one in played))
    assert answer == "= 0\n", answer
    for words in ("-L -n --tun-info", "-S -n"):
        yield words, [director.ipvsadm(words.split())]
    for one in played:
        for name, seen in wrapping(one):
            yield f"{one.name}: {name}", seen
    for one in played:
        if one.is_ipv4 and one.outer == 20:
            for name, seen in errors(one):
                yield f"{one.name}: {name}", seen
    time.sleep(COUNTERS_LAG)
    yield "--stats", [_incoming(row) for row in director.ipvsadm(["-L", "-n", "--stats"]).splitlines()]


def _incoming(row: str) -> str:
    """A row without what went out: the kernel counts the director's own ICMP errors, some twice."""
    *words, _, in_bytes, _ = row.split() if len(row.split()) > 6 else [row, *"123"]
    return " ".join([*words, in_bytes])


if __name__ == "__main__":
    sys.exit(main())
