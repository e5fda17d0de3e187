# SPDX-License-Identifier: GPL-2.0-only
"""Frames with work left for a network card: open checksums, and several segments in one.

A packet socket with a virtio header (linux/virtio_net.h) hands the kernel
such frames as a virtual machine or a local TCP would.  Nothing of xlvs is
imported.
"""

from __future__ import annotations

import ctypes
import fcntl
import select
import socket
import time
from struct import pack

from tests.packet import packets
from tests.packet.packets import ETHERNET_SIZE, TCP

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_NEEDS_CSUM = 1
_GSO_NONE, _GSO_TCPV4, _GSO_TCPV6 = 0, 1, 4
_SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_STXCSUM, _SSG, _STSO, _SGSO
_SETTERS = (0x17, 0x19, 0x1F, 0x24)


def leave_nothing_to_the_card(interface: str) -> None:
    """Have the kernel itself finish what leaves by an interface of this namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for setter in _SETTERS:
            value = ctypes.create_string_buffer(pack("=II", setter, 0))
            request = pack("=16sQ8x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def with_open_checksum(packet: bytes) -> bytes:
    """A packet of TCP or UDP whose checksum is left to the card: the field holds the pseudo-header's sum."""
    protocol, offset = packets.transport_of(packet)
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    pseudo = packets.checksum(addresses + pack(">II", len(packet) - offset, protocol)) ^ 0xFFFF
    field = offset + (16 if protocol == TCP else 6)
    return packet[:field] + pack(">H", pseudo) + packet[field + 2 :]


class CardSocket:
    """An interface of the namespace in which it is made, as raw frames with work left in them."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.bind((interface, 3))

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def send(self, frame: bytes, segment: int = 0) -> None:
        """Send a frame whose checksum is open; with ``segment``, in TCP segments of that payload."""
        protocol, offset = packets.transport_of(frame[ETHERNET_SIZE:])
        kind = _GSO_NONE
        if segment:
            kind = _GSO_TCPV4 if frame[ETHERNET_SIZE] >> 4 == 4 else _GSO_TCPV6
        start = ETHERNET_SIZE + offset
        headers = start + 20 if segment else 0
        field = 16 if protocol == TCP else 6
        self._socket.send(pack("=BBHHHH", _NEEDS_CSUM, kind, headers, segment, start, field) + frame)

    def received(self, destination: bytes, count: int, seconds: float = 5) -> list[bytes]:
        """The next frames that came to a MAC; fewer than ``count`` where no more come in that time."""
        found: list[bytes] = []
        end = time.monotonic() + seconds
        while (
            len(found) < count and select.select([self._socket], [], [], max(0, end - time.monotonic()))[0]
        ):
            frame, (_, _, kind, _, _) = self._socket.recvfrom(1 << 17)
            header, frame = frame[:10], frame[10:]
            if kind != socket.PACKET_OUTGOING and frame[:6] == destination:
                assert header[:2] == b"\0\0", "the card would have had something to do"
                found.append(frame)
        return found
