# SPDX-License-Identifier: GPL-2.0-only
"""Which ports are served at which address, from /proc/net."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

FOLDER = Path("/proc/thread-self/net")
ANY = ("0.0.0.0", "::")
"""Sockets of ``::`` take IPv4, too, unless they say otherwise, which /proc does not show."""
_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


def sockets() -> Iterator[tuple[str, str, int]]:
    """The protocol, address and port of every socket that takes what anybody sends."""
    for table, state in _LISTENING.items():
        for fields in _rows(table):
            if len(fields) > 3 and fields[3] == state:
                address, _, port = fields[1].partition(":")
                yield table.rstrip("6"), _address(address), int(port, 16)
    for fields in _rows("sctp/eps"):
        if len(fields) > 8:
            for address in fields[8:]:
                yield "sctp", address, int(fields[5])


def serves(protocol: str, port: int, addresses: tuple[str, ...]) -> bool:
    """Does a socket take this port at one of these addresses, or at any?"""
    wanted = {*addresses, *ANY}
    return any(
        each == (protocol, address, port) for each in sockets() for address in wanted if address == each[1]
    )


def _rows(table: str) -> list[list[str]]:
    try:
        return [line.split() for line in (FOLDER / table).read_text().splitlines()[1:]]
    except FileNotFoundError:
        return []  # a kernel without IPv6, or without SCTP


def _address(digits: str) -> str:
    """An address as the kernel prints it there: words of four bytes, each in the machine's order."""
    raw = bytes.fromhex(digits)
    if sys.byteorder == "little":
        raw = b"".join(raw[place : place + 4][::-1] for place in range(0, len(raw), 4))
    found = ip_address(raw)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
