# SPDX-License-Identifier: GPL-2.0-only
"""The ``packet`` step of a scenario: its text, the IP packets it stands for, and what became of them.

    packet tcp 10.0.0.1:40000+3 10.1.0.1:80 SA ttl=9 data=100 options=01010101 checksum=bad

is three TCP segments with SYN and ACK from the ports 40000, 40001 and 40002
(``.`` is a segment without any flag; UDP has no such word).  ``clients=50``
sends them from 50 consecutive addresses, one after the other.  ``data`` is the
length of the payload, ``options`` those of IPv4 or the content of a
hop-by-hop header of IPv6.  Each packet carries its serial number, as TCP
sequence number or first bytes of a datagram.  No I/O here.
"""

from __future__ import annotations

import shlex
import socket
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from struct import pack, unpack_from

from tests.packet.packets import HOP_BY_HOP, TCP, UDP, checksum, ipv4, ipv6, packed, tcp, udp

FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20}
ICMP, ICMPV6 = 1, 58
SERIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """One packet of a client, or `count` of them from consecutive ports, of each of `clients` addresses."""

    protocol: int
    source: str
    source_port: int
    target: str
    target_port: int
    flags: int = 0
    ttl: int = 64
    data: int = 0
    options: bytes = b""
    good_checksum: bool = True
    count: int = 1
    clients: int = 1
    step: str = field(default="", compare=False)

    @classmethod
    def parse(cls, step: str) -> Segment:
        """Read a step; raises `ValueError` for what is none."""
        verb, protocol, source, target, *words = shlex.split(step)
        if verb != "packet" or protocol not in ("tcp", "udp"):
            raise ValueError(f"not a packet: {step}")
        source, _, count = source.partition("+")
        flags = 0
        if protocol == "tcp":
            flags = sum(FLAGS[letter] for letter in words.pop(0).replace(".", ""))
        given = dict(word.split("=", 1) for word in words)
        source_address, source_port = split_port(source)
        target_address, target_port = split_port(target)
        segment = cls(
            TCP if protocol == "tcp" else UDP,
            source_address, source_port, target_address, target_port, flags,
            int(given.pop("ttl", 64)),
            int(given.pop("data", 0)),
            bytes.fromhex(given.pop("options", "")),
            given.pop("checksum", "good") == "good",
            int(count or 1),
            int(given.pop("clients", 1)),
            step,
        )  # fmt: skip
        if given:
            raise ValueError(f"unknown words in: {step}")
        return segment

    def each(self) -> list[Segment]:
        """The single packets."""
        first = ip_address(self.source)
        return [
            replace(self, source=str(first + client), source_port=self.source_port + n, count=1, clients=1)
            for client in range(self.clients)
            for n in range(self.count)
        ]

    def packet(self, serial: int) -> bytes:
        """The IP packet."""
        source, target = packed(self.source), packed(self.target)
        if self.protocol == TCP:
            body = tcp(self.source_port, self.target_port, self.flags, bytes(self.data), serial)
            place = 16
        else:
            payload = pack(">I", serial) + bytes(self.data)
            body = udp(self.source_port, self.target_port, payload)
            place = 6
        pseudo = source + target + pack(">II", len(body), self.protocol)
        right = checksum(pseudo + body) or 0xFFFF
        if not self.good_checksum:
            right ^= 0x5555
        body = body[:place] + pack(">H", right) + body[place + 2 :]
        if len(source) == 4:
            return ipv4(
                source, target, self.protocol, body,
                ttl=self.ttl, options=self.options, identification=serial & 0xFFFF,
            )  # fmt: skip
        extensions = ((HOP_BY_HOP, self.options),) if self.options else ()
        return ipv6(source, target, self.protocol, body, self.ttl, extensions)


def forwarded(packet: bytes) -> bytes:
    """What Direct Routing makes of a packet: one hop less, a new header checksum."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:]
    size = (packet[0] & 15) * 4
    header = packet[:8] + bytes([packet[8] - 1]) + packet[9:10] + b"\0\0" + packet[12:size]
    return header[:10] + pack(">H", checksum(header)) + header[12:] + packet[size:]


def serial_of(packet: bytes) -> int:
    """The serial number that a forwarded packet carries; -1 for one that has none."""
    protocol, at = _transport(packet)
    place = at + (4 if protocol == TCP else 8)
    if protocol not in (TCP, UDP) or len(packet) < place + SERIAL_BYTES:
        return -1
    return int(unpack_from(">I", packet, place)[0])


def is_neighbour_talk(packet: bytes) -> bool:
    """Whether a packet is IPv6 neighbour or router discovery, or multicast listening."""
    protocol, at = _transport(packet)
    return (
        packet[0] >> 4 == 6 and protocol == ICMPV6 and packet[at] in (130, 131, 132, 143, *range(133, 138))
    )


def described(packet: bytes) -> str:
    """A packet that came back to the client: its kind, and every byte but those that chance chose.

    These are IPv4's id, with the header checksum, and IPv6's flow label, which
    the kernel hashes with a secret of its boot.
    """
    protocol, at = _transport(packet)
    if packet[0] >> 4 == 4:
        source = socket.inet_ntop(socket.AF_INET, packet[12:16])
        packet = packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]
    else:
        source = socket.inet_ntop(socket.AF_INET6, packet[8:24])
        packet = packet[:1] + bytes([packet[1] & 0xF0, 0, 0]) + packet[4:]
    if protocol in (ICMP, ICMPV6):
        kind = f"{'icmp' if protocol == ICMP else 'icmpv6'} {packet[at]}/{packet[at + 1]}"
    elif protocol == TCP:
        kind = "tcp " + "".join(letter for letter, bit in FLAGS.items() if packet[at + 13] & bit)
    else:
        kind = f"protocol {protocol}"
    return f"{kind} from {source}: {packet.hex()}"


def split_port(text: str) -> tuple[str, int]:
    """Split ``address:port`` or ``[address]:port``."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def _transport(packet: bytes) -> tuple[int, int]:
    """Protocol and place of what follows the IP header and a hop-by-hop header."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4
    if packet[6] == HOP_BY_HOP:
        return packet[40], 40 + (packet[41] + 1) * 8
    return packet[6], 40
