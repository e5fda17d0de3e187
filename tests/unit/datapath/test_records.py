# SPDX-License-Identifier: GPL-2.0-only
"""Model values to records and back."""

from __future__ import annotations

import socket
import time
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs import model
from xlvs.datapath import records
from xlvs.kernel import abi
from xlvs.model import IPV4, IPV6, SCTP, SCTP_STATES, TCP, TCP_STATES, UDP, ServiceKey

ports = st.integers(0, 65535)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


@given(addresses, ports, st.sampled_from([TCP, UDP]))
def test_keys(address: bytes, port: int, protocol: int) -> None:
    family = IPV4 if len(address) == 4 else IPV6
    key = ServiceKey(family, protocol, address, port)
    packed = records.packed_key(key)
    assert len(packed) == 24
    assert packed[:16] == address + bytes(16 - len(address))
    assert packed[20:22] == port.to_bytes(2, "big")
    assert records.model_key(packed) == key


@given(st.sampled_from([IPV4, IPV6]), st.integers(1, 2**32 - 1))
def test_keys_of_marks(family: int, mark: int) -> None:
    key = ServiceKey(family, fwmark=mark)
    packed = records.packed_key(key)
    assert packed == bytes(16) + pack("=I", mark) + bytes([0, 0, 0, family])
    assert records.model_key(packed) == key


@given(ports)
def test_ports_are_swapped(port: int) -> None:
    assert records.swap_port(port) == socket.htons(port)
    assert records.swap_port(records.swap_port(port)) == port


@given(addresses)
def test_addresses_fill_sixteen_bytes(address: bytes) -> None:
    record = abi.Destination()
    record.address[:] = [255] * 16
    records.store_address(record.address, address)
    assert bytes(record.address) == address + bytes(16 - len(address)) == records.padded(address)
    assert records.address(record.address, IPV4 if len(address) == 4 else IPV6) == address


@given(st.integers(0, 31_536_000))
def test_whole_seconds_survive_ticks(seconds: int) -> None:
    ticks = records.seconds_to_ticks(seconds)
    assert records.ticks_to_seconds(ticks) == seconds
    assert abs(ticks * 2**24 / 1e9 - seconds) < 0.017


def test_the_clock_is_the_packet_paths() -> None:
    coarse = 6  # CLOCK_MONOTONIC_COARSE: a finer one is ahead of it, and what it says not yet true
    before = time.clock_gettime_ns(coarse) >> 24
    assert before <= records.ticks_now() <= time.clock_gettime_ns(coarse) >> 24


def _slot(
    phase: int, state: int = 0, protocol: int = TCP, family: int = IPV4, expires: int = 0
) -> records.Slot:
    """A slot of the connection table with those fields."""
    control = phase | state << 8 | 0x1234_0001_0000
    raw = pack("=Q", control)
    raw += bytes(range(1, 17)) + bytes(range(21, 37)) + pack(">HH", 4000, 80)
    raw += pack("=BBHII", protocol, family, 0, expires, 77) + pack(">H", 8080) + bytes(6)
    assert len(raw) == 64
    return records.Slot(raw)


def test_slots() -> None:
    slot = _slot(abi.PHASE_LIVE, 1)
    assert (slot.client, slot.virtual) == (bytes(range(1, 5)), bytes(range(21, 25)))
    assert (slot.client_port, slot.virtual_port, slot.destination_port) == (4000, 80, 8080)
    assert (slot.protocol, slot.family, slot.destination) == (TCP, IPV4, 77)
    assert _slot(abi.PHASE_LIVE, family=IPV6).client == bytes(range(1, 17))
    for number, name in enumerate(TCP_STATES):
        assert _slot(abi.PHASE_LIVE, number).state() == name
    for number, name in enumerate(SCTP_STATES):
        assert _slot(abi.PHASE_LIVE, number, protocol=SCTP).state() == name
    assert _slot(abi.PHASE_LIVE, protocol=UDP).state() == "UDP"


@pytest.mark.parametrize("now", [1000, 2**32 - 5, 2**31 - 3, 0])
def test_seconds_left(now: int) -> None:
    """Rounded down; None for what is over or not live; right when the clock wraps."""

    def left(ticks: int, phase: int = abi.PHASE_LIVE) -> int | None:
        return _slot(phase, expires=(now + ticks) & 0xFFFFFFFF).seconds_left(now & 0xFFFFFFFF)

    assert left(1) == 0
    assert left(59) == 0
    assert left(60) == 1
    assert left(records.seconds_to_ticks(900)) == 899
    assert left(records.seconds_to_ticks(900) + 1) == 900
    for over in (0, -1, -100_000):
        assert left(over) is None
    for phase in (abi.PHASE_FREE, abi.PHASE_CLAIMED, abi.PHASE_DEAD):
        assert left(100, phase) is None


def test_unicast() -> None:
    for address, expected in {
        "10.0.0.1": True, "127.0.0.1": True, "223.255.255.255": True, "240.0.0.1": True,
        "0.0.0.0": False, "255.255.255.255": False, "224.0.0.0": False, "239.255.255.255": False,
        "::1": True, "2001:db8::1": True, "fec0::1": True, "fd00::1": True,
        "::": False, "ff02::1": False, "fe80::1": False, "febf::1": False, "::ffff:1.2.3.4": False,
    }.items():  # fmt: skip
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        assert model.is_unicast(socket.inet_pton(family, address)) == expected, address
