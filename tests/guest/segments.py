# SPDX-License-Identifier: GPL-2.0-only
"""The steps of a scenario that are traffic: their text, and the IP packets that they stand for.

    packet tcp 10.64.0.1:40000+3 10.1.0.1:80 SA ttl=9 data=100 options=01010101 checksum=bad

is three TCP segments with SYN and ACK from the ports 40000, 40001 and 40002
of a client (``.`` is a segment without any flag; UDP has no such word, SCTP
has the names of its chunks: ``COOKIE-ECHO,DATA``).
``clients=50`` sends them from 50 consecutive addresses, one after the other.

    answer tcp 10.64.0.1:40000 10.1.0.1:80 SA data=100

is what the real server that got this flow's last packet answers, if it is one
that answers through the director.

    icmp CLIENT tcp 10.64.0.1:40000 10.1.0.1:80 3/4 mtu=1300 quote=200

is an ICMP error from that address about an answer of this flow; with
``server`` for the address it is one from the flow's real server about what it got.

    sysctl schedule_icmp 1

sets one of the settings of net.ipv4.vs on every director; a scenario puts back
what it changes.

Words: ``data`` the length of the payload, ``options`` those of IPv4 or the
content of a hop-by-hop header of IPv6, ``tos``, ``df``, ``checksum`` (good,
bad, or zero for UDP); ``fragments=3`` cuts the datagram up, and ``order=20``
sends the third and the first of them alone.  Each packet carries its serial
number, as TCP sequence number or first bytes of a datagram.  No I/O here.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from struct import pack

from tests.packet.packets import (
    ABORT,
    COOKIE_ACK,
    COOKIE_ECHO,
    DATA,
    DONT_FRAGMENT,
    ERROR,
    HEARTBEAT,
    HOP_BY_HOP,
    INIT,
    INIT_ACK,
    SACK,
    SCTP,
    SHUTDOWN,
    SHUTDOWN_ACK,
    SHUTDOWN_COMPLETE,
    TCP,
    UDP,
    checksum,
    chunk,
    fragments,
    icmp,
    ipv4,
    ipv6,
    packed,
    sctp,
    tcp,
    udp,
)

FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20}
CHUNKS = {
    "DATA": DATA,
    "INIT": INIT,
    "INIT-ACK": INIT_ACK,
    "SACK": SACK,
    "HEARTBEAT": HEARTBEAT,
    "ABORT": ABORT,
    "SHUTDOWN": SHUTDOWN,
    "SHUTDOWN-ACK": SHUTDOWN_ACK,
    "ERROR": ERROR,
    "COOKIE-ECHO": COOKIE_ECHO,
    "COOKIE-ACK": COOKIE_ACK,
    "SHUTDOWN-COMPLETE": SHUTDOWN_COMPLETE,
}
"""SCTP's, by their names in a step."""
CHUNK_BYTES = 16
"""Of content that each of them has, whatever it is."""
PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
SERIAL_BYTES = 4
"""What a datagram carries before its data."""
SERVER = "server"
"""In place of an address: the real server that got the flow's last packet."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A client's end and the service's."""

    protocol: int
    client: str
    client_port: int
    virtual: str
    virtual_port: int


@dataclass(frozen=True, slots=True)
class End:
    """An address with its port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One packet of a flow, from its client or its real server, or many.

    Those are `count` from consecutive ports, of each of `clients` consecutive addresses.
    """

    flow: Flow
    from_server: bool = False
    flags: int = 0
    ttl: int = 64
    tos: int = 0
    data: int = 0
    options: bytes = b""
    checksum: str = "good"
    whole: bool = False
    """Must not be fragmented: DF."""
    pieces: int = 1
    order: tuple[int, ...] = ()
    count: int = 1
    clients: int = 1
    chunks: tuple[int, ...] = ()
    step: str = field(default="", compare=False)

    @classmethod
    def parse(cls, step: str) -> Segment:
        """Read a ``packet`` or ``answer`` step; raises `ValueError` for what is none."""
        verb, protocol, client, virtual, *words = shlex.split(step)
        if verb not in ("packet", "answer") or protocol not in PROTOCOLS:
            raise ValueError(f"not a packet: {step}")
        client, _, count = client.partition("+")
        flags = sum(FLAGS[letter] for letter in words.pop(0).replace(".", "")) if protocol == "tcp" else 0
        chunks = tuple(CHUNKS[name] for name in words.pop(0).split(",")) if protocol == "sctp" else ()
        whole = "df" in words
        given = dict(word.split("=", 1) for word in words if word != "df")
        pieces = int(given.pop("fragments", 1))
        segment = cls(
            Flow(PROTOCOLS[protocol], *split_port(client), *split_port(virtual)),
            verb == "answer",
            flags,
            int(given.pop("ttl", 64)),
            int(given.pop("tos", 0)),
            int(given.pop("data", 0)),
            bytes.fromhex(given.pop("options", "")),
            given.pop("checksum", "good"),
            whole,
            pieces,
            tuple(int(digit) for digit in given.pop("order", "".join(map(str, range(pieces))))),
            int(count or 1),
            int(given.pop("clients", 1)),
            chunks,
            step,
        )
        if given:
            raise ValueError(f"unknown words in: {step}")
        return segment

    def each(self) -> list[Segment]:
        """The single packets."""
        first = ip_address(self.flow.client)
        flows = [
            replace(self.flow, client=str(first + client), client_port=self.flow.client_port + n)
            for client in range(self.clients)
            for n in range(self.count)
        ]
        return [replace(self, flow=flow, count=1, clients=1) for flow in flows]

    def packets(self, serial: int, server: End | None = None) -> list[bytes]:
        """The IP packet, or its fragments; `server` is where an answer comes from."""
        client = End(self.flow.client, self.flow.client_port)
        source, target = client, End(self.flow.virtual, self.flow.virtual_port)
        if self.from_server:
            assert server
            source, target = server, client
        packet = self._packet(serial, source, target)
        if self.pieces == 1:
            return [packet]
        header = 20 if packet[0] >> 4 == 4 else 40
        size = -(-(len(packet) - header) // self.pieces // 8) * 8
        cut = fragments(packet, size, serial & 0xFFFF)
        return [cut[place] for place in self.order if place < len(cut)]

    def _packet(self, serial: int, source: End, target: End) -> bytes:
        if self.flow.protocol == TCP:
            body = tcp(source.port, target.port, self.flags, bytes(self.data), serial)
            place = 16
        elif self.flow.protocol == SCTP:
            body = self._association(serial, source.port, target.port)
        else:
            body = udp(source.port, target.port, pack(">I", serial) + bytes(self.data))
            place = 6
        sender, receiver = packed(source.address), packed(target.address)
        if self.checksum != "zero" and self.flow.protocol != SCTP:
            pseudo = sender + receiver + pack(">II", len(body), self.flow.protocol)
            right = checksum(pseudo + body) or 0xFFFF
            right ^= 0x5555 if self.checksum == "bad" else 0
            body = body[:place] + pack(">H", right) + body[place + 2 :]
        if len(sender) == 4:
            return ipv4(
                sender, receiver, self.flow.protocol, body,
                ttl=self.ttl, options=self.options, identification=serial & 0xFFFF,
                fragment=DONT_FRAGMENT * self.whole, tos=self.tos,
            )  # fmt: skip
        extensions = ((HOP_BY_HOP, self.options),) if self.options else ()
        return ipv6(sender, receiver, self.flow.protocol, body, self.ttl, extensions, traffic_class=self.tos)

    def _association(self, serial: int, source: int, target: int) -> bytes:
        """An SCTP packet, its serial number as verification tag; the last chunk has the data."""
        *others, last = self.chunks
        made = [chunk(kind, bytes(CHUNK_BYTES)) for kind in others]
        body = sctp(source, target, *made, chunk(last, bytes(CHUNK_BYTES + self.data)), tag=serial)
        return body if self.checksum == "good" else body[:8] + bytes([body[8] ^ 0x55]) + body[9:]


@dataclass(frozen=True, slots=True)
class Complaint:
    """An ICMP error about a flow, from the client's side or from the real server's."""

    sender: str
    flow: Flow
    kind: int
    code: int
    mtu: int = 0
    quote: int = 68
    """How many bytes of the packet are quoted, at most."""
    ttl: int = 64
    data: int = 0
    """The length of the payload of the packet that it is about."""
    good_checksum: bool = True
    step: str = field(default="", compare=False)

    @classmethod
    def parse(cls, step: str) -> Complaint:
        """Read an ``icmp`` step; raises `ValueError` for what is none."""
        verb, sender, protocol, client, virtual, kind, *words = shlex.split(step)
        if verb != "icmp" or protocol not in PROTOCOLS:
            raise ValueError(f"not an ICMP error: {step}")
        given = dict(word.split("=", 1) for word in words)
        number, _, code = kind.partition("/")
        complaint = cls(
            sender.strip("[]"),
            Flow(PROTOCOLS[protocol], *split_port(client), *split_port(virtual)),
            int(number),
            int(code or 0),
            int(given.pop("mtu", 0)),
            int(given.pop("quote", 68)),
            int(given.pop("ttl", 64)),
            int(given.pop("data", 0)),
            given.pop("checksum", "good") == "good",
            step,
        )
        if given:
            raise ValueError(f"unknown words in: {step}")
        return complaint

    @property
    def from_server(self) -> bool:
        """Whether it comes from the real server's side."""
        return self.sender == SERVER

    def packet(self, serial: int, server: End | None = None) -> bytes:
        """The ICMP packet; `server` is the real server as the flow's packets name it."""
        about = Segment(self.flow, not self.from_server, FLAGS["A"], 63, data=self.data, chunks=(DATA,))
        sender, receiver = self.sender, self.flow.virtual
        if self.from_server:
            assert server
            about = replace(about, flow=replace(self.flow, virtual=server.address, virtual_port=server.port))
            sender, receiver = server.address, self.flow.client
        (quoted,) = about.packets(serial, End(self.flow.virtual, self.flow.virtual_port))
        is_ipv4 = ":" not in self.flow.client
        packet = icmp(
            packed(sender), packed(receiver), self.kind, self.code, self.mtu, quoted[: self.quote], self.ttl,
            **({"identification": serial & 0xFFFF} if is_ipv4 else {}),
        )  # fmt: skip
        if self.good_checksum:
            return packet
        place = (20 if is_ipv4 else 40) + 2
        return packet[:place] + bytes([packet[place] ^ 0x55]) + packet[place + 1 :]


def split_port(text: str) -> tuple[str, int]:
    """Split ``address:port`` or ``[address]:port``."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)
