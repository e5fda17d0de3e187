# SPDX-License-Identifier: GPL-2.0-only
"""Between model values and the records of bpf/abi.h: addresses, ports, keys, times."""

from __future__ import annotations

import ctypes
import time
from struct import Struct

from xlvs import model
from xlvs.kernel import abi

METHODS = {
    model.ROUTE: abi.METHOD_ROUTE,
    model.MASQUERADE: abi.METHOD_MASQUERADE,
    model.TUNNEL: abi.METHOD_TUNNEL,
}
"""The forwarding methods that the packet path has, and their numbers there."""
METHOD_NAMES = {number: name for name, number in METHODS.items()}
TUNNELS = {"ipip": abi.TUNNEL_IPIP, "gue": abi.TUNNEL_GUE, "gre": abi.TUNNEL_GRE}
TUNNEL_NAMES = {number: name for name, number in TUNNELS.items()}
CHECKSUMS = {
    "nocsum": abi.TUNNEL_NO_CHECKSUM,
    "csum": abi.TUNNEL_CHECKSUM,
    "remcsum": abi.TUNNEL_REMOTE_CHECKSUM,
}
TUNNEL_SIZES = {"ipip": 0, "gue": abi.GUE_PLAIN_SIZE, "gre": abi.GRE_PLAIN_SIZE}
"""Bytes between the outer IP header and the packet, without a checksum."""
TUNNEL_PROTOCOLS = {"ipip": (4, 41), "gue": (17, 17), "gre": (47, 47)}
"""The protocol in the outer header, of an IPv4 packet and of an IPv6 packet (IANA's numbers)."""
STRONGEST_CHECKSUM = {
    "ipip": abi.TUNNEL_NO_CHECKSUM,
    "gue": abi.TUNNEL_REMOTE_CHECKSUM,
    "gre": abi.TUNNEL_CHECKSUM,
}
"""What a type of tunnel may have at most."""
CHECKSUM_NAMES = {number: name for name, number in CHECKSUMS.items()}

_LETTERS: dict[object, str] = {
    ctypes.c_uint8: "B", ctypes.c_uint16: "H", ctypes.c_uint32: "I", ctypes.c_int32: "i",
    ctypes.c_uint64: "Q",
}  # fmt: skip
_MONOTONIC_COARSE = 6  # linux/time.h; Python has no name for it
_SERVICE_KEY = Struct("=16sI2sBB")
SLOT = Struct("=Q16s16sHHBBHIIHHI")


def offset_of(record: type[ctypes.Structure], name: str) -> int:
    """Where a field stands in a record, in bytes."""
    place: int = getattr(record, name).offset
    return place


def fields_of(record: type[ctypes.Structure], *names: str) -> Struct:
    """What unpacks the named fields, which are named in the order in which they stand in the record.

    What is no number comes as bytes; so do neighbours together, ``first..last``.
    """
    kinds = {name: kind for name, kind, *_ in record._fields_}
    layout, place = "=", 0
    for name in names:
        first, together, last = name.partition("..")
        field, end = getattr(record, first), getattr(record, last or first)
        size = end.offset + end.size - field.offset
        letter = None if together else _LETTERS.get(kinds[first])
        layout += f"{field.offset - place}x{letter or f'{size}s'}"
        place = field.offset + size
    return Struct(layout)


def packed_key(key: model.ServiceKey) -> bytes:
    """``struct service_key`` of a model key."""
    return _SERVICE_KEY.pack(key.address, key.fwmark, key.port.to_bytes(2, "big"), key.protocol, key.family)


def model_key(packed: bytes) -> model.ServiceKey:
    """The model's key of a packed ``struct service_key``."""
    field, fwmark, port, protocol, family = _SERVICE_KEY.unpack(packed)
    its_address = b"" if fwmark else field[:4] if family == model.IPV4 else field
    return model.ServiceKey(family, protocol, its_address, int.from_bytes(port, "big"), fwmark)


def address(field: ctypes.Array[ctypes.c_uint8], family: int) -> bytes:
    """The packed address in a record's sixteen bytes."""
    return bytes(field)[: 4 if family == model.IPV4 else 16]


def padded(packed: bytes) -> bytes:
    """A packed address as records hold it: sixteen bytes."""
    return packed.ljust(16, b"\0")


def store_address(field: ctypes.Array[ctypes.c_uint8], packed: bytes) -> None:
    """Write a packed address into a record."""
    field[:] = list(padded(packed))


def record_flags(flags: int) -> int:
    """The model's scheduler flags (1, 2, 4) as flags of a service record."""
    return flags * abi.SERVICE_SCHED_1


def scheduler_flags(flags: int) -> int:
    """The model's scheduler flags in a service record's flags."""
    return flags // abi.SERVICE_SCHED_1 & 7


def swap_port(port: int) -> int:
    """Turn a port between host order and network order."""
    return (port & 0xFF) << 8 | port >> 8


def ticks_now() -> int:
    """The packet path's clock (bpf_ktime_get_coarse_ns()), which steps every few milliseconds."""
    return time.clock_gettime_ns(_MONOTONIC_COARSE) >> abi.TICK_SHIFT & 0xFFFFFFFF


def seconds_to_ticks(seconds: int) -> int:
    """A duration in ticks."""
    return seconds * 1_000_000_000 >> abi.TICK_SHIFT


def milliseconds_to_ticks(milliseconds: int) -> int:
    """A duration in ticks."""
    return milliseconds * 1_000_000 >> abi.TICK_SHIFT


def ticks_to_seconds(ticks: int) -> int:
    """A duration in seconds, to the nearest."""
    return ((ticks << abi.TICK_SHIFT) + 500_000_000) // 1_000_000_000


def rounded_packet_rate(scaled: int) -> int:
    """Connections or packets a second of an estimate in fixed point (kernel: ``ip_vs_read_estimator``)."""
    return scaled + (1 << abi.ESTIMATE_PACKET_SHIFT - 1) - 1 >> abi.ESTIMATE_PACKET_SHIFT


def rounded_byte_rate(scaled: int) -> int:
    """Bytes a second of an estimate in fixed point."""
    return scaled + (1 << abi.ESTIMATE_BYTE_SHIFT - 1) - 1 >> abi.ESTIMATE_BYTE_SHIFT


class Slot:
    """One slot of the connection table, unpacked."""

    __slots__ = (
        "apart", "client", "client_port", "control", "destination", "destination_port", "expires",
        "family", "flags", "link", "protocol", "virtual", "virtual_port",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.control: int
        self.expires: int
        self.destination: int
        self.protocol: int
        self.family: int
        self.apart: int
        self.link: int
        (
            self.control, client, virtual, client_port, virtual_port, self.protocol, self.family, self.apart,
            self.expires, self.destination, port, _, self.link,
        ) = SLOT.unpack(raw)  # fmt: skip
        self.flags: int = self.control >> abi.CONTROL_FLAGS_SHIFT & 0xFFFF
        length = 4 if self.family == model.IPV4 else 16
        self.client: bytes = client[:length]
        self.virtual: bytes = virtual[:length]
        self.client_port = 0 if self.is_of_call() else swap_port(client_port)
        self.virtual_port = swap_port(virtual_port)
        self.destination_port = swap_port(port)
        if self.flags & abi.CONNECTION_ASIDE:  # kernel: ip_vs_check_template()
            self.virtual_port = self.destination_port = 0xFFFF

    def flow(self) -> tuple[int, bytes, int, bytes, int, int]:
        """What identifies it."""
        return (
            self.protocol, self.client, self.client_port, self.virtual, self.virtual_port, self.apart,
        )  # fmt: skip

    def is_of_call(self) -> bool:
        """Whether it is a template of a Call-ID, which the map ``call_ids`` has."""
        return self.apart >= abi.FLOW_OF_CALL

    def seconds_left(self, now: int) -> int | None:
        """Whole seconds until it expires, or None when it is not live at tick ``now``."""
        left = (self.expires - now) & 0xFFFFFFFF
        if self.control & 0xFF != abi.PHASE_LIVE or left == 0 or left >= 1 << 31:
            return None
        if self.flags & abi.CONNECTION_REPLY:
            return None
        return (left << abi.TICK_SHIFT) // 1_000_000_000

    def state(self) -> str:
        """The state's name, as a connection listing prints it."""
        if self.flags & abi.CONNECTION_TEMPLATE:
            return "ASSURED" if self.control >> abi.CONTROL_STATE_SHIFT & 0xFF else "NONE"
        if self.protocol == model.TCP:
            return model.TCP_STATES[self.control >> abi.CONTROL_STATE_SHIFT & 0xFF]
        if self.protocol == model.SCTP:
            return model.SCTP_STATES[self.control >> abi.CONTROL_STATE_SHIFT & 0xFF]
        return model.PROTOCOL_NAMES[self.protocol]
