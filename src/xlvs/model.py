# SPDX-License-Identifier: GPL-2.0-only
"""The values that every layer speaks: services, destinations, connections.

Plain records with no I/O.  This module imports nothing of xlvs, and nothing
heavy of the standard library either: the ipvsadm-compatible command imports
it at every start, so there are no dataclasses here, no ``typing``, no ``re``.

Conventions
    * An address is its packed form, network byte order: 4 bytes for IPv4,
      16 for IPv6.  Its length is its family.
    * A port, a mark, a weight is an ``int`` in host order.
    * A duration is in whole seconds unless a name says otherwise.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self, TypeVar

    _Counters = TypeVar("_Counters", "Stats", "Rates")

IPV4 = 2
"""Address family of IPv4 (``AF_INET``)."""
IPV6 = 10
"""Address family of IPv6 (``AF_INET6``)."""

TCP = 6
UDP = 17
SCTP = 132
PROTOCOL_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}

SCHEDULERS = (
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
)  # fmt: skip
"""Every scheduler that IPVS knows; a data plane may not have them all."""

NO_SCHEDULER = "none"
"""What IPVS accepts in place of a scheduler: such a service takes no new connection."""

SIP = "sip"
PERSISTENCE_ENGINES = (SIP,)
"""The persistence engines that IPVS knows."""

DEFAULT_SCHEDULER = "wlc"

# Forwarding methods, named as `ipvsadm -L` prints them, lower case.
MASQUERADE = "masq"
LOCAL = "local"
TUNNEL = "tunnel"
ROUTE = "route"
BYPASS = "bypass"

MAX_WEIGHT = 2147483647

TCP_STATES = (
    "NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK",
)  # fmt: skip
"""TCP state names in the order of their numbers (kernel: ``ip_vs.h``)."""

SCTP_STATES = (
    "NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED",
    "ESTABLISHED", "S-SENT", "S-RECEIVED", "S-ACK-SENT", "REJECTED", "CLOSED",
)  # fmt: skip
"""SCTP state names likewise (kernel: ``ip_vs_proto_sctp.c``)."""


def is_unicast(packed: bytes) -> bool:
    """Whether a real server may have that address (kernel: ``ip_vs_new_dest``).

    Link-local and IPv4-mapped addresses are none for IPVS.
    """
    if len(packed) == 4:
        return packed not in (bytes(4), b"\xff" * 4) and packed[0] >> 4 != 0xE
    link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    mapped = packed.startswith(bytes(10) + b"\xff\xff")
    return any(packed) and packed[0] != 0xFF and not link_local and not mapped


class Value:
    """A record whose equality, hash and repr come from its ``__slots__``.

    Values are immutable by convention: use `replace` to get a changed copy.
    """

    __slots__: tuple[str, ...] = ()

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is type(self) and other._key() == self._key())

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with the named fields changed; `TypeError` for an unknown field."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return type(self)(**{**fields, **changes})


class ServiceKey(Value):
    """What identifies a virtual service: protocol, address and port, or a firewall mark.

    A firewall-mark service has ``fwmark`` set and ``protocol``, ``address``
    and ``port`` zero or empty; its family tells IPv4 marks from IPv6 ones.
    """

    __slots__ = ("address", "family", "fwmark", "port", "protocol")

    def __init__(
        self, family: int, protocol: int = 0, address: bytes = b"", port: int = 0, fwmark: int = 0
    ) -> None:
        self.family = family
        self.protocol = protocol
        self.address = address
        self.port = port
        self.fwmark = fwmark

    def _key(self) -> tuple[object, ...]:
        # Written out, as for the other two of which a table has thousands: a quarter of the time.
        return self.address, self.family, self.fwmark, self.port, self.protocol


class Service(Value):
    """A virtual service as an operator defines it.

    ``scheduler_flags`` is the set bits of flag-1, flag-2 and flag-3 as 1, 2
    and 4.  ``persistence`` is the template timeout in seconds, 0 when the
    service is not persistent.  ``netmask`` is the prefix length by which a
    persistent service groups its clients.

    What kernel IPVS does not have: ``idle_timeout``, the seconds for which an
    established connection or a UDP flow is remembered (0: as for all services);
    ``reject_gone``, whether clients are told that their real server was removed;
    ``rehome``, whether UDP flows then go to another at once, as they do when it
    is quiesced.
    """

    __slots__ = (
        "engine", "idle_timeout", "key", "netmask", "one_packet", "persistence", "rehome", "reject_gone",
        "scheduler", "scheduler_flags",
    )  # fmt: skip

    def __init__(
        self,
        key: ServiceKey,
        scheduler: str = DEFAULT_SCHEDULER,
        scheduler_flags: int = 0,
        persistence: int = 0,
        netmask: int | None = None,
        engine: str = "",
        one_packet: bool = False,
        idle_timeout: int = 0,
        reject_gone: bool = False,
        rehome: bool = False,
    ) -> None:
        self.key = key
        self.scheduler = scheduler
        self.scheduler_flags = scheduler_flags
        self.persistence = persistence
        self.netmask = netmask if netmask is not None else (32 if key.family == IPV4 else 128)
        self.engine = engine
        self.one_packet = one_packet
        self.idle_timeout = idle_timeout
        self.reject_gone = reject_gone
        self.rehome = rehome

    def _key(self) -> tuple[object, ...]:
        return (
            self.engine, self.idle_timeout, self.key, self.netmask, self.one_packet, self.persistence,
            self.rehome, self.reject_gone, self.scheduler, self.scheduler_flags,
        )  # fmt: skip


class Tunnel(Value):
    """How packets to a tunnelled real server are wrapped.

    ``kind`` is ``ipip``, ``gue`` or ``gre``; ``port`` is GUE's UDP port;
    ``checksum`` is ``nocsum``, ``csum`` or ``remcsum``.
    """

    __slots__ = ("checksum", "kind", "port")

    def __init__(self, kind: str = "ipip", port: int = 0, checksum: str = "nocsum") -> None:
        self.kind = kind
        self.port = port
        self.checksum = checksum


class Destination(Value):
    """A real server of a service, as an operator defines it.

    ``weight`` 0 quiesces it.  ``upper_threshold`` and ``lower_threshold``
    bound its connections; 0 is no bound.
    """

    __slots__ = (
        "address", "lower_threshold", "method", "port", "tunnel", "upper_threshold", "weight",
    )  # fmt: skip

    def __init__(
        self,
        address: bytes,
        port: int,
        method: str = ROUTE,
        weight: int = 1,
        upper_threshold: int = 0,
        lower_threshold: int = 0,
        tunnel: Tunnel | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.method = method
        self.weight = weight
        self.upper_threshold = upper_threshold
        self.lower_threshold = lower_threshold
        self.tunnel = tunnel

    def _key(self) -> tuple[object, ...]:
        return (
            self.address, self.lower_threshold, self.method, self.port, self.tunnel, self.upper_threshold,
            self.weight,
        )  # fmt: skip

    @property
    def family(self) -> int:
        """`IPV4` or `IPV6`."""
        return IPV4 if len(self.address) == 4 else IPV6


class Stats(Value):
    """Counters of a service or destination since it was made or zeroed."""

    __slots__ = ("connections", "in_bytes", "in_packets", "out_bytes", "out_packets")

    def __init__(
        self,
        connections: int = 0,
        in_packets: int = 0,
        out_packets: int = 0,
        in_bytes: int = 0,
        out_bytes: int = 0,
    ) -> None:
        self.connections = connections
        self.in_packets = in_packets
        self.out_packets = out_packets
        self.in_bytes = in_bytes
        self.out_bytes = out_bytes


class Rates(Value):
    """What a service or destination has a second, estimated over the last few seconds."""

    __slots__ = ("connections", "in_bytes", "in_packets", "out_bytes", "out_packets")

    def __init__(
        self,
        connections: int = 0,
        in_packets: int = 0,
        out_packets: int = 0,
        in_bytes: int = 0,
        out_bytes: int = 0,
    ) -> None:
        self.connections = connections
        self.in_packets = in_packets
        self.out_packets = out_packets
        self.in_bytes = in_bytes
        self.out_bytes = out_bytes


class DestinationEntry(Value):
    """A destination as the data plane holds it: definition, live connections, counters, rates."""

    __slots__ = ("active", "destination", "inactive", "persistent", "rates", "stats")

    def __init__(
        self,
        destination: Destination,
        active: int = 0,
        inactive: int = 0,
        persistent: int = 0,
        stats: Stats | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.destination = destination
        self.active = active
        self.inactive = inactive
        self.persistent = persistent
        self.stats = stats or Stats()
        self.rates = rates or Rates()


class ServiceEntry(Value):
    """A service as the data plane holds it.

    ``destinations`` stand in scheduling order, as the kernel's netlink dump
    gives them: the newest first.
    """

    __slots__ = ("destinations", "rates", "service", "stats")

    def __init__(
        self,
        service: Service,
        destinations: tuple[DestinationEntry, ...] = (),
        stats: Stats | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.service = service
        self.destinations = destinations
        self.stats = stats or Stats()
        self.rates = rates or Rates()


def added(kind: type[_Counters], parts: Iterable[_Counters]) -> _Counters:
    """The sum of `Stats`, or of `Rates`."""
    total = kind()
    for part in parts:
        for name in kind.__slots__:
            setattr(total, name, getattr(total, name) + getattr(part, name))
    return total


class Totals(Value):
    """What all services together have had: ``stats`` since all were zeroed last, rates,
    and ``by_cpu`` since loading, which nothing zeroes."""

    __slots__ = ("by_cpu", "rates", "stats")

    def __init__(self, stats: Stats, by_cpu: tuple[Stats, ...], rates: Rates) -> None:
        self.stats = stats
        self.by_cpu = by_cpu
        self.rates = rates


class Connection(Value):
    """One entry of the connection table.

    ``expires`` is the seconds left, rounded down.  ``state`` is a name of
    `TCP_STATES` or `SCTP_STATES`, or ``UDP``.  A persistence template has the client's network and
    port 0, and the state ``NONE`` or ``ASSURED``; that of a firewall-mark service
    protocol 0 and the mark for the virtual address.  ``engine_data`` is what a persistence
    ``engine`` knows it by: a Call-ID.  ``fwmark`` is that of the service which took it, 0 for
    a service of an address.
    """

    __slots__ = (
        "client", "client_port", "destination", "destination_port", "engine", "engine_data",
        "expires", "family", "fwmark", "protocol", "state", "virtual", "virtual_port",
    )  # fmt: skip

    def __init__(
        self,
        family: int,
        protocol: int,
        client: bytes,
        client_port: int,
        virtual: bytes,
        virtual_port: int,
        destination: bytes,
        destination_port: int,
        state: str,
        expires: int,
        engine: str = "",
        engine_data: str = "",
        fwmark: int = 0,
    ) -> None:
        self.family = family
        self.protocol = protocol
        self.client = client
        self.client_port = client_port
        self.virtual = virtual
        self.virtual_port = virtual_port
        self.destination = destination
        self.destination_port = destination_port
        self.state = state
        self.expires = expires
        self.engine = engine
        self.engine_data = engine_data
        self.fwmark = fwmark


class Prefix(Value):
    """A network: an address without host bits, and how many of its bits count."""

    __slots__ = ("address", "length")

    def __init__(self, address: bytes, length: int) -> None:
        self.address = address
        self.length = length

    @property
    def family(self) -> int:
        """`IPV4` or `IPV6`."""
        return IPV4 if len(self.address) == 4 else IPV6


class MarkRule(Value):
    """What gives a packet the firewall mark ``mark`` (1 to 2^32 - 1): all that is said must hold.

    ``protocol`` 0 is any.  ``ports`` and ``source_ports`` are ranges (first,
    last), both ends included, of destination and source port; no range is any
    port.  ``source`` None is any source of the destination's family.
    """

    __slots__ = ("destination", "mark", "ports", "protocol", "source", "source_ports")

    def __init__(
        self,
        mark: int,
        destination: Prefix,
        source: Prefix | None = None,
        protocol: int = 0,
        ports: tuple[tuple[int, int], ...] = (),
        source_ports: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.mark = mark
        self.destination = destination
        self.source = source
        self.protocol = protocol
        self.ports = ports
        self.source_ports = source_ports

    @property
    def conditions(self) -> MarkRule:
        """The rule without its mark: of two with the same conditions the second is never reached."""
        return self.replace(mark=0)


class Sysctl(Value):
    """A setting of IPVS as the kernel names it in /proc/sys/net/ipv4/vs.

    ``default`` is its text there, None where each machine has another.  It may be
    any number from ``low`` to ``high``, unless ``refusal`` says why it stays as it is.
    """

    __slots__ = ("default", "high", "low", "name", "refusal")

    def __init__(
        self, name: str, default: str | None, low: int = 0, high: int = 0, refusal: str = ""
    ) -> None:
        self.name = name
        self.default = default
        self.low = low
        self.high = high
        self.refusal = refusal


class Timeouts(Value):
    """The three timeouts that ``ipvsadm --set`` changes, in seconds."""

    __slots__ = ("tcp", "tcp_fin", "udp")

    def __init__(self, tcp: int = 900, tcp_fin: int = 120, udp: int = 300) -> None:
        self.tcp = tcp
        self.tcp_fin = tcp_fin
        self.udp = udp
