# SPDX-License-Identifier: GPL-2.0-only
"""The packet that `xlvs explain` tries: the least that a client would send, in a frame.

Addresses are packed, ports in host order.  Checksums are right, except SCTP's,
which the packet path never reads.
"""

from __future__ import annotations

from struct import pack, unpack

from xlvs import model

TTL = 64
_SYN, _ACK = 0x02, 0x10
_INIT, _DATA = 1, 0
_DONT_FRAGMENT = 0x4000
_ETHERTYPES = {model.IPV4: b"\x08\x00", model.IPV6: b"\x86\xdd"}


def _sum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(
    protocol: int, client: bytes, client_port: int, virtual: bytes, port: int, begins: bool, mac: bytes
) -> bytes:
    """A frame to the interface with that MAC.

    It asks for a connection where it ``begins`` one (SYN, INIT), else it goes
    on with one (ACK, DATA); a datagram of UDP does not say which.
    """
    transport = _transport(protocol, client, client_port, virtual, port, begins)
    if len(client) == 4:
        family = model.IPV4
        head = pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(transport), 0, _DONT_FRAGMENT, TTL, protocol, 0,
                    client, virtual)  # fmt: skip
        head = head[:10] + pack("!H", _sum(head)) + head[12:]
    else:
        family = model.IPV6
        head = pack("!IHBB16s16s", 6 << 28, len(transport), protocol, TTL, client, virtual)
    ethernet = mac + bytes.fromhex("020000000001") + _ETHERTYPES[family]
    return ethernet + head + transport


def _transport(
    protocol: int, client: bytes, client_port: int, virtual: bytes, port: int, begins: bool
) -> bytes:
    if protocol == model.SCTP:
        chunk = pack("!BBHIIHHI", _INIT if begins else _DATA, 3, 20, 1, 65535, 1, 1, 1)
        return pack("!HHII", client_port, port, 0, 0) + chunk
    if protocol == model.TCP:
        flags = _SYN if begins else _ACK
        header = pack("!HHIIBBHHH", client_port, port, 1, 0 if begins else 1, 5 << 4, flags, 65535, 0, 0)
        place = 16
    else:
        header = pack("!HHHH", client_port, port, 8, 0)
        place = 6
    pseudo = client + virtual + pack("!II", len(header), protocol)
    return header[:place] + pack("!H", _sum(pseudo + header) or 0xFFFF) + header[place + 2 :]


def addresses(changed: bytes) -> tuple[bytes, bytes]:
    """Source and destination of the (outer) IP packet in a frame."""
    if changed[12:14] == _ETHERTYPES[model.IPV4]:
        return changed[26:30], changed[30:34]
    return changed[22:38], changed[38:54]


def destination_port(changed: bytes) -> int:
    """The port to which the packet in a frame goes, if it is not wrapped."""
    start = 14 + (20 if changed[12:14] == _ETHERTYPES[model.IPV4] else 40)
    return int.from_bytes(changed[start + 2 : start + 4], "big")
