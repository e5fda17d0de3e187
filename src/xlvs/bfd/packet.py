# SPDX-License-Identifier: GPL-2.0-only
"""BFD control packets (RFC 5880 section 4.1): 24 octets in network byte order."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from struct import Struct

_FORM = Struct("!BBBBIIIII")
_VERSION = 1
_POLL, _FINAL, _AUTHENTICATED, _DEMAND, _MULTIPOINT = 0x20, 0x10, 0x04, 0x02, 0x01
_INTERVAL_MOST = 2**32 - 1


class State(enum.IntEnum):
    """The state of a session (Sta)."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(enum.IntEnum):
    """Why a session has left Up last (Diag); other numbers may come from a neighbour."""

    NONE = 0
    EXPIRED = 1
    NEIGHBOR_DOWN = 3
    ADMIN_DOWN = 7


class BadPacket(ValueError):
    """Not a packet that may be looked at (RFC 5880 section 6.8.6); the text says why."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A control packet.  Intervals are in microseconds."""

    state: State
    my_discriminator: int
    your_discriminator: int = 0
    diagnostic: int = Diagnostic.NONE
    poll: bool = False
    final: bool = False
    demand: bool = False
    multiplier: int = 5
    desired_min_tx: int = 1_000_000
    required_min_rx: int = 1_000_000

    def encode(self) -> bytes:
        """As octets."""
        flags = (_POLL if self.poll else 0) | (_FINAL if self.final else 0)
        flags |= _DEMAND if self.demand else 0
        return _FORM.pack(
            _VERSION << 5 | self.diagnostic,
            self.state << 6 | flags,
            self.multiplier,
            _FORM.size,
            self.my_discriminator,
            self.your_discriminator,
            min(self.desired_min_tx, _INTERVAL_MOST),
            min(self.required_min_rx, _INTERVAL_MOST),
            0,  # no echo packets are answered
        )


def decode(octets: bytes) -> Packet:
    """Read a packet; `BadPacket` for one that section 6.8.6 says must be discarded.

    That its discriminators belong to a session is for the caller to see.
    """
    if len(octets) < _FORM.size:
        raise BadPacket(f"{len(octets)} octets are too few")
    head, second, multiplier, length, mine, yours, tx, rx, _ = _FORM.unpack_from(octets)
    if head >> 5 != _VERSION:
        raise BadPacket(f"version {head >> 5}")
    if not _FORM.size <= length <= len(octets):
        raise BadPacket(f"length {length} of {len(octets)} octets")
    if second & _AUTHENTICATED:
        raise BadPacket("authenticated, and no authentication is in use")
    if second & _MULTIPOINT:
        raise BadPacket("multipoint")
    if second & _POLL and second & _FINAL:
        raise BadPacket("both poll and final")
    if not multiplier:
        raise BadPacket("multiplier 0")
    if not mine:
        raise BadPacket("no discriminator")
    state = State(second >> 6)
    if not yours and state > State.DOWN:
        raise BadPacket(f"state {state.name} without our discriminator")
    return Packet(
        state,
        mine,
        yours,
        head & 0x1F,
        bool(second & _POLL),
        bool(second & _FINAL),
        bool(second & _DEMAND),
        multiplier,
        tx,
        rx,
    )
