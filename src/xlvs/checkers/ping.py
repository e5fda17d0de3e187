# SPDX-License-Identifier: GPL-2.0-only
"""PING_CHECK: an ICMP echo is answered (RFC 792, RFC 4443 section 4)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import replace
from struct import Struct

from xlvs.checkers.connection import failure, prepare, socket_address
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import Connection, PingCheck

_HEADER = Struct("!BBHHH")
_ECHO_IPV4 = (8, 0)
"""Types of request and reply."""
_ECHO_IPV6 = (128, 129)


async def check(checker: PingCheck) -> Result:
    """Ask once; passes when the echo request is answered."""
    connection = replace(checker.connection, port=0)
    version4 = len(connection.address) == 4
    protocol = socket.IPPROTO_ICMP if version4 else socket.IPPROTO_ICMPV6
    request, reply = _ECHO_IPV4 if version4 else _ECHO_IPV6
    payload = os.urandom(16)
    loop = asyncio.get_running_loop()
    try:
        asked, raw = _open(connection, protocol)
        with asked:
            packet = _HEADER.pack(request, 0, 0, os.getpid() & 0xFFFF, 1) + payload
            if raw and version4:  # the kernel sums for the others
                packet = packet[:2] + _checksum(packet).to_bytes(2, "big") + packet[4:]
            async with asyncio.timeout(connection.timeout):
                asked.connect(socket_address(connection))  # a datagram socket does not wait
                await loop.sock_sendall(asked, packet)
                while True:
                    answer = await loop.sock_recv(asked, 2048)
                    if raw and version4:
                        answer = answer[(answer[0] & 0xF) * 4 :]
                    if answer[:1] == bytes([reply]) and answer[_HEADER.size :] == payload:
                        return Result(True, "echo reply")
    except OSError as error:
        return failure(error, connection, "echo request")


def _open(connection: Connection, protocol: int) -> tuple[socket.socket, bool]:
    """A ping socket, or a raw one where /proc/sys/net/ipv4/ping_group_range leaves us out."""
    try:
        return prepare(connection, socket.SOCK_DGRAM, protocol), False
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
    return prepare(connection, socket.SOCK_RAW, protocol), True


def _checksum(packet: bytes) -> int:
    total = sum(int.from_bytes(packet[at : at + 2], "big") for at in range(0, len(packet), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
