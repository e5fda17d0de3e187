# SPDX-License-Identifier: GPL-2.0-only
"""BFD control packets, as RFC 5880 section 4.1 draws them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.bfd.packet import BadPacket, Diagnostic, Packet, State, decode

NUMBERS = st.integers(1, 2**32 - 1)
PACKETS = st.builds(
    Packet,
    st.sampled_from(State),
    NUMBERS,
    NUMBERS,
    st.integers(0, 31),
    st.booleans(),
    st.just(False),
    st.booleans(),
    st.integers(1, 255),
    NUMBERS,
    NUMBERS,
)
UP = Packet(State.UP, 0x01020304, 0x05060708, Diagnostic.EXPIRED, poll=True, multiplier=3,
            desired_min_tx=10_000, required_min_rx=20_000)  # fmt: skip


def test_its_octets() -> None:
    assert UP.encode().hex(" ", 4) == "21e00318 01020304 05060708 00002710 00004e20 00000000"


@given(PACKETS)
def test_what_is_written_is_read(packet: Packet) -> None:
    assert decode(packet.encode()) == packet


@given(st.binary(max_size=64))
def test_anything_is_read_or_refused(octets: bytes) -> None:
    with contextlib.suppress(BadPacket):
        assert decode(decode(octets).encode()) == decode(octets)


@pytest.mark.parametrize(
    ("at", "octet", "why"),
    [
        (0, 0x41, "version 2"),
        (1, 0xF0, "both poll and final"),
        (1, 0xE4, "authenticated"),
        (1, 0xE1, "multipoint"),
        (2, 0, "multiplier 0"),
        (3, 23, "length 23"),
        (3, 25, "length 25"),
    ],
)
def test_what_must_be_discarded(at: int, octet: int, why: str) -> None:
    octets = bytearray(UP.encode())
    octets[at] = octet
    with pytest.raises(BadPacket, match=why):
        decode(bytes(octets))


def test_discriminators_that_must_be_there() -> None:
    for packet, why in ((Packet(State.DOWN, 0), "no disc"), (Packet(State.INIT, 1), "INIT without ours")):
        with pytest.raises(BadPacket, match=why.replace("ours", "our")):
            decode(packet.encode())
    assert decode(Packet(State.DOWN, 1).encode()).your_discriminator == 0
