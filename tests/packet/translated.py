# SPDX-License-Identifier: GPL-2.0-only
"""A masqueraded connection as its two sides see it: every packet is built, none is rewritten.

Nothing of xlvs is imported: what a director should make of a packet is built
from scratch with the other addresses and ports, checksums and all.
"""

from __future__ import annotations

from typing import Any

from tests.packet import packets
from tests.packet.packets import ACK, RST, SCTP, SYN, TCP, UDP

End = tuple[bytes, int]
"""An address and a port."""


def whole_packet(
    protocol: int,
    source: End,
    destination: End,
    payload: bytes = b"",
    flags: int = ACK,
    ttl: int = 64,
    checksum: bool = True,
    **fields: Any,
) -> bytes:
    """An IP packet of TCP, UDP or SCTP; ``fields`` are those of its IP header.

    One of SCTP has a chunk that says what the flags of TCP do.
    """
    if protocol == TCP:
        transport = packets.tcp(source[1], destination[1], flags, payload)
    elif protocol == SCTP:
        kinds = {SYN: packets.INIT, SYN | ACK: packets.INIT_ACK, RST: packets.ABORT}
        chunk = packets.chunk(kinds.get(flags, packets.DATA), payload)
        transport = packets.sctp(source[1], destination[1], chunk)
    else:
        assert protocol == UDP
        transport = packets.udp(source[1], destination[1], payload)
    build = packets.ipv4 if len(source[0]) == 4 else packets.ipv6
    made = build(source[0], destination[0], protocol, transport, ttl, **fields)
    return packets.with_checksum(made) if checksum and protocol != SCTP else made


class Masqueraded:
    """One connection: what its client and its real server send, and what each should get."""

    def __init__(self, protocol: int, client: End, virtual: End, server: End) -> None:
        self.protocol = protocol
        self.client = client
        self.virtual = virtual
        self.server = server

    def asked(
        self, payload: bytes = b"", flags: int = ACK, ttl: int = 64, **fields: Any
    ) -> tuple[bytes, bytes]:
        """The client's packet to the VIP, and the one that the real server should get."""
        return (
            self._packet(self.client, self.virtual, payload, flags, ttl, **fields),
            self._packet(self.client, self.server, payload, flags, ttl - 1, **fields),
        )

    def answered(
        self, payload: bytes = b"", flags: int = ACK, ttl: int = 64, **fields: Any
    ) -> tuple[bytes, bytes]:
        """The real server's packet to the client, and the one that the client should get."""
        return (
            self._packet(self.server, self.client, payload, flags, ttl, **fields),
            self._packet(self.virtual, self.client, payload, flags, ttl - 1, **fields),
        )

    def _packet(
        self, source: End, destination: End, payload: bytes, flags: int, ttl: int, **fields: Any
    ) -> bytes:
        return whole_packet(self.protocol, source, destination, payload, flags, ttl, **fields)
