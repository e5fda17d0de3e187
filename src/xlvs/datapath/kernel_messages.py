# SPDX-License-Identifier: GPL-2.0-only
"""Values of the model as attributes of kernel IPVS's netlink messages, and back.

Kinds, widths and byte orders are those of include/uapi/linux/ip_vs.h and of
``ip_vs_genl_fill_service``, ``ip_vs_genl_fill_dest`` (net/netfilter/ipvs/ip_vs_ctl.c).
Addresses always take 16 bytes; ports and IPv4 masks are in network order, an
IPv6 service's prefix length, which stands where the mask does, is not.
"""

from __future__ import annotations

import struct

from xlvs import model
from xlvs.datapath.comparing import destination_of
from xlvs.datapath.rows import NO_COUNTERS, NOTHING, RATES, STATS
from xlvs.kernel.genetlink import attribute, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import Counters, DestinationRow

FAMILY = "IPVS"

NEW_SERVICE, SET_SERVICE, DELETE_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DESTINATION, SET_DESTINATION, DELETE_DESTINATION, GET_DESTINATION = 5, 6, 7, 8
SET_TIMEOUTS, GET_TIMEOUTS = 12, 13
GET_INFO, ZERO, FLUSH = 15, 16, 17
"""Commands."""

SERVICE, DESTINATION = 1, 2
_TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP = 4, 5, 6
"""Attributes of every command but GET_INFO."""
_INFO_VERSION, _INFO_SIZE = 1, 2

_AF, _PROTOCOL, _ADDRESS, _PORT, _FWMARK, _SCHEDULER, _FLAGS, _TIMEOUT, _NETMASK = range(1, 10)
_ENGINE, _STATS64 = 11, 12
"""Attributes of a service."""
_DST_ADDRESS, _DST_PORT, _METHOD, _WEIGHT, _UPPER, _LOWER, _ACTIVE, _INACTIVE, _PERSISTENT = range(1, 10)
_DST_AF, _DST_STATS64, _TUNNEL_KIND, _TUNNEL_PORT, _TUNNEL_FLAGS = range(11, 16)
"""Attributes of a real server."""
_FIRST_COUNTER, _FIRST_RATE, _NUMBERS = 1, 6, 5
"""Attributes of counters: five of them, in the order of `model.Stats`, then their rates."""

METHODS = (model.MASQUERADE, model.LOCAL, model.TUNNEL, model.ROUTE, model.BYPASS)
_METHOD_MASK = 7
_TUNNELS = ("ipip", "gue", "gre")
_CHECKSUMS = ("nocsum", "csum", "remcsum")
"""By their numbers in the kernel."""

_IS_PERSISTENT, _IS_ONE_PACKET, _SCHEDULER_FLAGS_SHIFT = 1, 4, 3
_EVERY_FLAG = 0xFFFFFFFF
_ADDRESS_BYTES = 16

_U16, _U32, _BE16, _BE32 = (struct.Struct(form) for form in ("=H", "=I", ">H", ">I"))
_TWO_U32 = struct.Struct("=II")
_U64 = struct.Struct("=Q")


# To the kernel.


def service_key(key: model.ServiceKey) -> bytes:
    """The attribute that names a service."""
    return nested(SERVICE, _key(key))


def service(wanted: model.Service) -> bytes:
    """The attribute that says all of a service."""
    flags = wanted.scheduler_flags << _SCHEDULER_FLAGS_SHIFT
    flags |= _IS_PERSISTENT if wanted.persistence else 0
    flags |= _IS_ONE_PACKET if wanted.one_packet else 0
    if wanted.key.family == model.IPV6:
        netmask = _U32.pack(wanted.netmask)
    else:
        netmask = _BE32.pack((0xFFFFFFFF << (32 - wanted.netmask)) & 0xFFFFFFFF)
    engine = attribute(_ENGINE, _text(wanted.engine)) if wanted.engine else b""
    return nested(
        SERVICE,
        _key(wanted.key),
        attribute(_SCHEDULER, _text(wanted.scheduler)),
        attribute(_FLAGS, _TWO_U32.pack(flags, _EVERY_FLAG)),
        attribute(_TIMEOUT, _U32.pack(wanted.persistence)),
        attribute(_NETMASK, netmask),
        engine,
    )


def destination_key(address: bytes, port: int) -> bytes:
    """The attribute that names a real server."""
    return nested(DESTINATION, _place(address, port))


def destination(wanted: model.Destination) -> bytes:
    """The attribute that says all of a real server."""
    tunnel = wanted.tunnel or model.Tunnel()
    words = (
        (_METHOD, METHODS.index(wanted.method)), (_WEIGHT, wanted.weight & 0xFFFFFFFF),
        (_UPPER, wanted.upper_threshold), (_LOWER, wanted.lower_threshold),
    )  # fmt: skip
    return nested(
        DESTINATION,
        _place(wanted.address, wanted.port),
        *(attribute(kind, _U32.pack(value)) for kind, value in words),
        attribute(_TUNNEL_KIND, bytes((_TUNNELS.index(tunnel.kind),))),
        attribute(_TUNNEL_PORT, _BE16.pack(tunnel.port)),
        attribute(_TUNNEL_FLAGS, _U16.pack(_CHECKSUMS.index(tunnel.checksum))),
    )


def timeouts(wanted: model.Timeouts) -> bytes:
    """The attributes that change the timeouts; the kernel leaves alone what is 0."""
    return b"".join((
        attribute(_TIMEOUT_TCP, _U32.pack(wanted.tcp)),
        attribute(_TIMEOUT_TCP_FIN, _U32.pack(wanted.tcp_fin)),
        attribute(_TIMEOUT_UDP, _U32.pack(wanted.udp)),
    ))  # fmt: skip


def _key(key: model.ServiceKey) -> bytes:
    family = attribute(_AF, _U16.pack(key.family))
    if key.fwmark:
        return family + attribute(_FWMARK, _U32.pack(key.fwmark))
    return b"".join((
        family,
        attribute(_PROTOCOL, _U16.pack(key.protocol)),
        attribute(_ADDRESS, key.address.ljust(_ADDRESS_BYTES, b"\0")),
        attribute(_PORT, _BE16.pack(key.port)),
    ))  # fmt: skip


def _place(address: bytes, port: int) -> bytes:
    family = model.IPV4 if len(address) == 4 else model.IPV6
    return b"".join((
        attribute(_DST_AF, _U16.pack(family)),
        attribute(_DST_ADDRESS, address.ljust(_ADDRESS_BYTES, b"\0")),
        attribute(_DST_PORT, _BE16.pack(port)),
    ))  # fmt: skip


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


# From the kernel.


def read_service(data: bytes) -> tuple[model.Service, bytes]:
    """A service, and its counters for `counters`."""
    found = attributes(data)
    family = _u16(found, _AF)
    if _FWMARK in found:
        key = model.ServiceKey(family, fwmark=_u32(found, _FWMARK))
    else:
        port = int.from_bytes(found.get(_PORT, b""), "big")
        key = model.ServiceKey(family, _u16(found, _PROTOCOL), _address(found[_ADDRESS], family), port)
    flags = _TWO_U32.unpack_from(found[_FLAGS])[0]
    netmask = found[_NETMASK]
    return model.Service(
        key,
        _word(found, _SCHEDULER),
        flags >> _SCHEDULER_FLAGS_SHIFT & 7,
        _u32(found, _TIMEOUT) if flags & _IS_PERSISTENT else 0,
        _U32.unpack(netmask)[0] if family == model.IPV6 else int.from_bytes(netmask, "big").bit_count(),
        _word(found, _ENGINE),
        bool(flags & _IS_ONE_PACKET),
    ), found.get(_STATS64, b"")


def read_destination(data: bytes, family: int, counted: str = NOTHING) -> DestinationRow:
    """A real server of a service of that family, as a row (`xlvs.datapath.rows`)."""
    found = attributes(data)
    read = _U32.unpack
    method = METHODS[read(found[_METHOD])[0] & _METHOD_MASK]
    tunnel = None
    if method == model.TUNNEL:
        tunnel = model.Tunnel(
            _TUNNELS[found.get(_TUNNEL_KIND, b"\0")[0]],
            int.from_bytes(found.get(_TUNNEL_PORT, b""), "big"),
            _CHECKSUMS[_u16(found, _TUNNEL_FLAGS)],
        )
    return (
        _address(found[_DST_ADDRESS], _u16(found, _DST_AF) or family), _BE16.unpack(found[_DST_PORT])[0],
        method, read(found[_WEIGHT])[0],
        read(found[_ACTIVE])[0], read(found[_INACTIVE])[0], read(found[_PERSISTENT])[0],
        read(found[_UPPER])[0], read(found[_LOWER])[0], tunnel,
        counters(found.get(_DST_STATS64, b""), counted) if counted else NO_COUNTERS,
    )  # fmt: skip


def read_destination_entry(data: bytes, family: int) -> model.DestinationEntry:
    """The same as a value of the model, with counters and rates."""
    row = read_destination(data, family, STATS)
    numbers = attributes(data).get(_DST_STATS64, b"")
    return model.DestinationEntry(
        destination_of(row), row[4], row[5], row[6], model.Stats(*row[10]), rates(numbers)
    )


def counters(data: bytes, counted: str) -> Counters:
    """The five counters, or the five rates, of a service or a real server."""
    found = attributes(data)
    first = _FIRST_COUNTER if counted == STATS else _FIRST_RATE
    one, two, three, four, five = (_u64(found, first + place) for place in range(_NUMBERS))
    return one, two, three, four, five


def stats(data: bytes) -> model.Stats:
    """The counters as a value of the model."""
    return model.Stats(*counters(data, STATS))


def rates(data: bytes) -> model.Rates:
    """The rates as a value of the model."""
    return model.Rates(*counters(data, RATES))


def read_timeouts(found: dict[int, bytes]) -> model.Timeouts:
    """What GET_TIMEOUTS answers."""
    return model.Timeouts(*(_u32(found, kind) for kind in (_TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP)))


def read_info(found: dict[int, bytes]) -> tuple[tuple[int, int, int], int]:
    """What GET_INFO answers: the version of IPVS, and the number of connection hash buckets."""
    version = _u32(found, _INFO_VERSION)
    return (version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF), _u32(found, _INFO_SIZE)


def _address(data: bytes, family: int) -> bytes:
    return data[:4] if family == model.IPV4 else data[:_ADDRESS_BYTES]


def _word(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode("ascii", "backslashreplace")


def _u16(found: dict[int, bytes], kind: int) -> int:
    data = found.get(kind)
    return int(_U16.unpack(data)[0]) if data else 0


def _u32(found: dict[int, bytes], kind: int) -> int:
    data = found.get(kind)
    return int(_U32.unpack(data)[0]) if data else 0


def _u64(found: dict[int, bytes], kind: int) -> int:
    data = found.get(kind)
    return int(_U64.unpack(data)[0]) if data else 0
