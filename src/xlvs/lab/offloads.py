# SPDX-License-Identifier: GPL-2.0-only
"""What a lab's switch must not leave to the other end of a wire: ``ethtool -K`` for its ports.

A veth hands packets over as they are, with checksums yet to be made and several segments in
one; between machines a network card has done that work by then.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
from struct import Struct

# include/uapi/linux/sockios.h, ethtool.h; struct ifreq has a name of 16 bytes and a pointer.
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM, _ETHTOOL_GSTRINGS, _ETHTOOL_GSSET_INFO, _ETHTOOL_SFEATURES = 0x17, 0x1B, 0x37, 0x3B
_ETH_SS_FEATURES = 4
_STRING = 32
_CUTS_DATAGRAMS = b"tx-udp-segmentation"


def finish_checksums(port: str) -> None:
    """``ethtool -K PORT tx off``: what leaves by a port of this namespace has its checksums.

    Raises `OSError`.
    """
    _ask(port, Struct("=II").pack(_ETHTOOL_STXCSUM, 0))


def cut_datagrams(port: str) -> None:
    """``ethtool -K PORT tx-udp-segmentation off``: datagrams of a sender that hands over many at once
    (UDP_SEGMENT) leave by a port of this namespace one by one.

    Raises `OSError`; where the kernel does not know the feature there is nothing to do.
    """
    told = _ask(port, Struct("=IIQI").pack(_ETHTOOL_GSSET_INFO, 0, 1 << _ETH_SS_FEATURES, 0))
    (count,) = Struct("=16xI").unpack(told)
    told = _ask(
        port, Struct("=III").pack(_ETHTOOL_GSTRINGS, _ETH_SS_FEATURES, count) + bytes(count * _STRING)
    )
    names = [told[12 + place * _STRING :][:_STRING].rstrip(b"\0") for place in range(count)]
    if _CUTS_DATAGRAMS not in names:
        return
    place = names.index(_CUTS_DATAGRAMS)
    words = [0] * (2 * ((count + 31) // 32))  # by 32 features: which are meant, which are to be on
    words[place // 32 * 2] = 1 << place % 32
    _ask(port, Struct(f"=II{len(words)}I").pack(_ETHTOOL_SFEATURES, len(words) // 2, *words))


def _ask(port: str, question: bytes) -> bytes:
    value = ctypes.create_string_buffer(question, len(question))
    request = Struct("=16sQ8x").pack(port.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return value.raw
