# SPDX-License-Identifier: GPL-2.0-only
"""IP addresses as keepalived.conf writes them."""

from __future__ import annotations

import socket

from xlvs.model import IPV4, IPV6


def format_address(address: bytes) -> str:
    """A packed address as text; empty for no address."""
    if not address:
        return ""
    return socket.inet_ntop(IPV4 if len(address) == 4 else IPV6, address)
