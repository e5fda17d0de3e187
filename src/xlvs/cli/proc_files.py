# SPDX-License-Identifier: GPL-2.0-only
"""The formats of /proc/net/ip_vs*, byte for byte.

Every function yields lines with their newline, trailing blanks included.
Takes values of the model, asks no data plane.  (Linux: ``ip_vs_info_seq_show``,
``ip_vs_stats_show``, ``ip_vs_stats_percpu_show`` in ``ip_vs_ctl.c``;
``ip_vs_conn_seq_show``, ``ip_vs_conn_sync_seq_show`` in ``ip_vs_conn.c``.)
"""

from __future__ import annotations

from xlvs.model import BYPASS, IPV4, IPV6, LOCAL, MASQUERADE, PROTOCOL_NAMES, ROUTE, TUNNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xlvs.model import Connection, DestinationEntry, Rates, Service, ServiceEntry, Stats, Totals

_METHOD_NAMES = {MASQUERADE: "Masq", LOCAL: "Local", TUNNEL: "Tunnel", ROUTE: "Route", BYPASS: "Bypass"}


def table_file(
    version: tuple[int, int, int], size: int, entries: Iterable[ServiceEntry], ticks_per_second: int
) -> Iterator[str]:
    """``ip_vs``: services of addresses, then those of firewall marks, as the kernel has them."""
    major, minor, patch = version
    yield f"IP Virtual Server version {major}.{minor}.{patch} (size={size})\n"
    yield "Prot LocalAddress:Port Scheduler Flags\n"
    yield "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    for entry in sorted(entries, key=lambda entry: entry.service.key.fwmark != 0):
        yield _service_line(entry.service, ticks_per_second)
        for destination in entry.destinations:
            yield _destination_line(destination)


def connection_file(connections: Iterable[Connection]) -> Iterator[str]:
    """``ip_vs_conn``, row by row as the connections come."""
    yield "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
    for connection in connections:
        yield f"{_connection(connection)} {connection.expires:7}\n"


def sync_connection_file(connections: Iterable[Connection]) -> Iterator[str]:
    """``ip_vs_conn_sync``: every connection began here, as there is no sync daemon."""
    yield "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n"
    for connection in connections:
        yield f"{_connection(connection)} LOCAL  {connection.expires:7}\n"


def statistics_file(totals: Totals) -> Iterator[str]:
    """``ip_vs_stats``: all services together."""
    yield "   Total Incoming Outgoing         Incoming         Outgoing\n"
    yield "   Conns  Packets  Packets            Bytes            Bytes\n"
    yield f"{_numbers(totals.stats)}\n\n"
    yield " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
    yield f"{_numbers(totals.rates)}\n"


def percpu_statistics_file(totals: Totals) -> Iterator[str]:
    """``ip_vs_stats_percpu``: a row for each processor, which nothing zeroes, and the sum."""
    yield "       Total Incoming Outgoing         Incoming         Outgoing\n"
    yield "CPU    Conns  Packets  Packets            Bytes            Bytes\n"
    for number, stats in enumerate(totals.by_cpu):
        yield f"{number:3X} {_numbers(stats)}\n"
    yield f"  ~ {_numbers(totals.stats)}\n\n"
    yield "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
    yield f"    {_numbers(totals.rates)}\n"


def _service_line(service: Service, ticks_per_second: int) -> str:
    key = service.key
    one_packet = "ops " if service.one_packet else ""
    if key.fwmark:
        line = f"FWM  {key.fwmark:08X} {service.scheduler} {one_packet}"
    elif key.family == IPV6:  # which says nothing of one-packet scheduling
        line = f"{_protocol(key.protocol)}  [{_ipv6(key.address)}]:{key.port:04X} {service.scheduler} "
    else:
        address = f"{_ipv4(key.address)}:{key.port:04X}"
        line = f"{_protocol(key.protocol)}  {address} {service.scheduler} {one_packet} "
    if service.persistence:
        line += f"persistent {service.persistence * ticks_per_second} {_mask(service)}"
    return f"{line}\n"


def _mask(service: Service) -> str:
    # An IPv6 prefix length stands where IPv4's mask does, and is taken for big-endian like it.
    if service.key.family == IPV6:
        return service.netmask.to_bytes(4, "little").hex().upper()
    return f"{(0xFFFFFFFF << (32 - service.netmask)) & 0xFFFFFFFF:08X}"


def _destination_line(entry: DestinationEntry) -> str:
    destination = entry.destination
    packed = destination.address
    address = _ipv4(packed) if destination.family == IPV4 else f"[{_ipv6(packed)}]"
    return (
        f"  -> {address}:{destination.port:04X}      {_METHOD_NAMES[destination.method]:7}"
        f" {destination.weight:<6} {entry.active:<10} {entry.inactive:<10}\n"
    )


def _connection(connection: Connection) -> str:
    write = _ipv4 if connection.family == IPV4 else _ipv6
    server = connection.destination
    return (
        f"{_protocol(connection.protocol):3}"
        f" {write(connection.client)} {connection.client_port:04X}"
        f" {write(connection.virtual)} {connection.virtual_port:04X}"
        f" {_ipv4(server) if len(server) == 4 else _ipv6(server)} {connection.destination_port:04X}"
        f" {connection.state:11}"
    )


def _numbers(counted: Stats | Rates) -> str:
    return (
        f"{counted.connections:8X} {counted.in_packets:8X} {counted.out_packets:8X}"
        f" {counted.in_bytes:16X} {counted.out_bytes:16X}"
    )


def _protocol(number: int) -> str:
    return PROTOCOL_NAMES.get(number, "IP")


def _ipv4(address: bytes) -> str:
    return address.hex().upper()


def _ipv6(address: bytes) -> str:
    return address.hex(":", 2)
