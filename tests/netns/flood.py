# SPDX-License-Identifier: GPL-2.0-only
"""A SYN flood from random sources, bounded in number and rate, from one CPU.

``python -m tests.netns.flood INTERFACE MAC VIP PORT COUNT RATE`` sends so many
SYNs, each of a flow of its own by chance: 32 bits of its source are drawn, 16
of the address in 198.18.0.0/16 (RFC 2544: for tests of devices) and the port.
At the end it prints a line: how many it sent, and in how many seconds.

Frames are made thousands at a time by slices of one buffer.  What is drawn
also stands inverted in fields that mean nothing here, IPv4's identification
and TCP's sequence number, so that all checksums stay what they are.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import socket
import sys
import time
from struct import pack

from tests.packet import packets
from tests.packet.packets import mac, packed

NETWORK = "198.18.0.0/16"
_BATCH = 2048
_BURST = 256
"""At once: less than a receiving CPU has room for (net.core.netdev_max_backlog)."""
_INVERTED = bytes(0xFF ^ byte for byte in range(256))
_DRAWN = ((28, (18, 38)), (29, (19, 39)), (34, (40,)), (35, (41,)))
"""Offsets of drawn bytes (source address, port), and where each is inverted."""
_SOL_PACKET, _QDISC_BYPASS = 263, 20


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


def _template(to: bytes, virtual: bytes, port: int) -> bytes:
    """A SYN whose drawn bytes are zero, and inverted ones 255."""
    syn = packets.tcp(0, port, packets.SYN, sequence=0xFFFFFFFF)
    source = packed(NETWORK.partition("/")[0])
    pseudo_header = source + virtual + pack(">HH", packets.TCP, len(syn))
    syn = syn[:16] + pack(">H", packets.checksum(pseudo_header + syn)) + syn[18:]
    packet = packets.ipv4(source, virtual, packets.TCP, syn, identification=0xFFFF)
    return packets.ethernet(packet, packets.ETHERTYPE_IPV4, to, mac("02:00:00:00:00:f1"))


def flood(interface: str, to: bytes, virtual: bytes, port: int, count: int, rate: int) -> tuple[int, float]:
    """Send ``count`` SYNs, at most ``rate`` a second; how many were sent, and the seconds it took."""
    template = _template(to, virtual, port)
    size = len(template)
    frames = bytearray(template * _BATCH)
    memory = (ctypes.c_char * len(frames)).from_buffer(frames)
    start = ctypes.addressof(memory)
    vectors = (_Vector * _BATCH)(*(_Vector(start + size * n, size) for n in range(_BATCH)))
    messages = (_Message * _BATCH)()
    for n in range(_BATCH):
        messages[n].vectors = ctypes.pointer(vectors[n])
        messages[n].count = 1
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as opened:
        opened.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        opened.bind((interface, 0))
        began = time.monotonic()
        place = _BATCH
        while sent < count:
            if place == _BATCH:
                _draw(frames, size)
                place = 0
            first = ctypes.byref(messages, place * ctypes.sizeof(_Message))
            done = sendmmsg(opened.fileno(), first, min(_BURST, _BATCH - place, count - sent), 0)
            if done < 0 and ctypes.get_errno() != errno.ENOBUFS:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            if done < 0:
                os.sched_yield()  # the receiving side is behind
                continue
            sent += done
            place += done
            ahead = sent / rate - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)
        return sent, time.monotonic() - began


def _draw(frames: bytearray, size: int) -> None:
    """Give each frame of that size another source."""
    for place, inverted in _DRAWN:
        drawn = random.randbytes(_BATCH)
        frames[place::size] = drawn
        for other in inverted:
            frames[other::size] = drawn.translate(_INVERTED)


def main() -> None:
    """The command line."""
    interface, to, virtual, port, count, rate = sys.argv[1:]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sent, seconds = flood(interface, mac(to), packed(virtual), int(port), int(count), int(rate))
    print(f"{sent} {seconds:.3f}")


if __name__ == "__main__":
    main()
