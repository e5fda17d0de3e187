# SPDX-License-Identifier: GPL-2.0-only
"""IP addresses as keepalived.conf writes them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from xlvs.model import IPV4, IPV6

if TYPE_CHECKING:
    from xlvs.keepalived.statements import Cursor

_FAMILY_OF_LENGTH = {4: IPV4, 16: IPV6}


def family_of(address: bytes) -> int:
    """`IPV4` or `IPV6`; 0 for no address."""
    return _FAMILY_OF_LENGTH.get(len(address), 0)


def format_address(address: bytes) -> str:
    """A packed address as text; empty for no address."""
    if not address:
        return ""
    return socket.inet_ntop(IPV4 if len(address) == 4 else IPV6, address)


def read_address(text: str) -> bytes:
    """An address, packed, without the range (``-…``) or mask (``/…``) after it; empty for what is none."""
    family = IPV6 if ":" in text else IPV4
    if "-" in text:
        text = text.partition("-")[0]
    elif "/" in text:
        text = text.partition("/")[0]
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):
        return b""


def read_prefix(text: str, *, prefix_allowed: bool = True) -> tuple[bytes, int] | None:
    """``ADDRESS[/LENGTH]``, packed, and the length (all bits where none is said); None for what is none."""
    written, slash, length = text.partition("/")
    family = IPV6 if ":" in written else IPV4
    try:
        address = socket.inet_pton(family, written)
    except (OSError, ValueError):
        return None
    most = 8 * len(address)
    if not slash:
        return address, most
    if not prefix_allowed or not (length.isascii() and length.isdigit() and len(length) < 5):
        return None
    return (address, int(length)) if int(length) <= most else None


def is_multicast(address: bytes) -> bool:
    """A multicast address (RFC 1112, RFC 4291)."""
    return address[0] & 0xF0 == 0xE0 if len(address) == 4 else address[0] == 0xFF


def is_link_local(address: bytes) -> bool:
    """An IPv6 unicast link-local address, fe80::/10."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80


def read_endpoint(at: Cursor, address: str, port: str | None) -> tuple[bytes, int] | None:
    """An address and a port, 0 where none or only zeros are written; None for what is none.

    A wrong port is reported, a wrong address is left to the caller.
    """
    number = 0
    if port is not None and len(port) < 6 and port.isdigit() and port.isascii() and int(port) <= 65535:
        number = int(port)
    elif port is not None and port.strip("0"):
        from xlvs.keepalived.numbers import read_unsigned

        read = read_unsigned(at, port, 1, 65535)
        if read is None:
            return None
        number = read
    packed = read_address(address)
    return (packed, number) if packed else None
