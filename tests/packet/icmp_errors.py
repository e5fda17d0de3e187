# SPDX-License-Identifier: GPL-2.0-only
"""The ICMP errors that a director sends about a client's packet, as the kernel words them.

Nothing of xlvs is imported.  The rules are those of RFC 792, 1122, 1812, 4443
and of Linux 6.1, net/ipv4/icmp.c and net/ipv6/icmp.c.
"""

from __future__ import annotations

from tests.packet import packets
from tests.packet.packets import ETHERNET_SIZE

PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG = "port unreachable", "time exceeded", "too big"
HOST_UNREACHABLE = "host unreachable"

_KINDS = {
    (4, PORT_UNREACHABLE): (3, 3),
    (4, HOST_UNREACHABLE): (3, 1),
    (4, TIME_EXCEEDED): (11, 0),
    (4, TOO_BIG): (3, 4),
    (6, PORT_UNREACHABLE): (1, 4),
    (6, HOST_UNREACHABLE): (1, 3),
    (6, TIME_EXCEEDED): (3, 0),
    (6, TOO_BIG): (2, 0),
}
_LONGEST = {4: 576, 6: 1280}
_INTERNETWORK_CONTROL = 0xC0
_TOS_BITS = 0x1E


def error_about(frame: bytes, error: str, after: bytes, mtu: int = 0) -> bytes:
    """The frame that answers a frame: to its sender, from the address that it was for.

    The identification of an IPv4 packet is nobody's to foretell: it is that of
    the frame ``after`` the packet path.  A packet that is too big was about to
    be forwarded: it is quoted with one hop less.
    """
    # The kernel routes, and takes the hop off, before it compares with the MTU.
    quoted_frame = packets.with_one_hop_less(frame) if error == TOO_BIG else frame
    packet = quoted_frame[ETHERNET_SIZE : ETHERNET_SIZE + packets.ip_length(frame)]
    version = packet[0] >> 4
    kind, code = _KINDS[version, error]
    if version == 4:
        client, virtual = packet[12:16], packet[16:20]
        quoted = packet[: _LONGEST[4] - 20 - 8]
        tos = packet[1] & _TOS_BITS | _INTERNETWORK_CONTROL
        identification = int.from_bytes(after[18:20], "big")
        made = packets.icmp(virtual, client, kind, code, mtu, quoted, tos=tos, identification=identification)
    else:
        client, virtual = packet[8:24], packet[24:40]
        made = packets.icmp(virtual, client, kind, code, mtu, packet[: _LONGEST[6] - 40 - 8])
    return frame[:ETHERNET_SIZE] + made
