# SPDX-License-Identifier: GPL-2.0-only
"""Writes tables and connections exactly as ipvsadm prints them.

Every function yields lines with their newline; widths, trailing blanks and
cut-off names included.  Takes values of the model, asks no data plane and
prints nothing.  (ipvsadm 1.31: ``print_title``, ``print_service_entry``,
``print_conn``.)
"""

from __future__ import annotations

from xlvs.cli.address import Names, format_address, format_endpoint, prefix_to_mask
from xlvs.cli.ipvsadm_order import sorted_destinations, sorted_services
from xlvs.model import BYPASS, IPV4, IPV6, LOCAL, MASQUERADE, PROTOCOL_NAMES, ROUTE, SCTP, TCP, TUNNEL, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xlvs.model import Connection, Destination, DestinationEntry, Service, ServiceEntry, Stats, Timeouts

    DestinationRow = Callable[[str, DestinationEntry], str]

# The listings, in ipvsadm's order of precedence.
STATS = "stats"
RATE = "rate"
THRESHOLDS = "thresholds"
PERSISTENT = "persistent-conn"
TUNNELS = "tun-info"
PLAIN = "plain"
STYLES = (STATS, RATE, THRESHOLDS, PERSISTENT, TUNNELS)

_SERVICE_COLUMN = 33
_DESTINATION_COLUMN = 28
_SERVICE_OPTIONS = {TCP: "-t", UDP: "-u", SCTP: "--sctp-service"}
_METHOD_NAMES = {MASQUERADE: "Masq", LOCAL: "Local", TUNNEL: "Tunnel", ROUTE: "Route", BYPASS: "Bypass"}
_METHOD_OPTIONS = {MASQUERADE: "-m", TUNNEL: "-i"}
_CHECKSUM_SIGNS = {"nocsum": "-c", "csum": "+c", "remcsum": "r+c"}
_SCHEDULER_FLAG_NAMES = {
    "sh": ((1, "sh-fallback"), (2, "sh-port")),
    "mh": ((1, "mh-fallback"), (2, "mh-port")),
}
_OTHER_FLAG_NAMES = ((1, "flag-1"), (2, "flag-2"), (4, "flag-3"))

_DESTINATION_TITLE = "  -> RemoteAddress:Port\n"
_PLAIN_TITLE = "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward "
_TITLES = {
    STATS: f"{'Prot LocalAddress:Port':33} {'Conns':>8} {'InPkts':>8} {'OutPkts':>8} {'InBytes':>8}"
    f" {'OutBytes':>8}\n" + _DESTINATION_TITLE,
    THRESHOLDS: f"{'Prot LocalAddress:Port':33} {'Uthreshold':10} {'Lthreshold':10} {'ActiveConn':10}"
    f" {'InActConn':10}\n" + _DESTINATION_TITLE,
    PERSISTENT: f"{'Prot LocalAddress:Port':33} {'Weight':9} {'PersistConn':11} {'ActiveConn':10}"
    f" {'InActConn':10}\n" + _DESTINATION_TITLE,
    TUNNELS: _PLAIN_TITLE + "TunnelInfo    Weight ActiveConn InActConn\n",
    PLAIN: _PLAIN_TITLE + "Weight ActiveConn InActConn\n",
}


class Format:
    """How to write a listing: style, numeric or names, exact numbers, sorted or not."""

    __slots__ = ("exact", "names", "sort", "style")

    def __init__(
        self, style: str = PLAIN, numeric: bool = True, exact: bool = False, sort: bool = True
    ) -> None:
        self.style = style
        self.names = None if numeric else Names()
        self.exact = exact
        self.sort = sort

    def endpoint(self, address: bytes, port: int, protocol: int) -> str:
        """``address:port``, or ``name:service``."""
        if self.names is None:
            return format_endpoint(address, port)
        return self.names.endpoint(address, port, protocol)


def version_line(version: tuple[int, int, int], size: int) -> str:
    """The first line of a listing of the whole table."""
    major, minor, patch = version
    return f"IP Virtual Server version {major}.{minor}.{patch} (size={size})\n"


def table(entries: Iterable[ServiceEntry], form: Format) -> Iterator[str]:
    """The two title lines, then every service with its real servers."""
    yield _TITLES[form.style]
    entries = list(entries)
    for entry in sorted_services(entries) if form.sort else entries:
        yield from _service_rows(entry, form)


def saved_table(entries: Iterable[ServiceEntry], form: Format) -> Iterator[str]:
    """The table as commands that restore it.

    As in ipvsadm thresholds, timeouts and sync daemons are not saved.
    """
    for entry in sorted_services(list(entries)):
        service = entry.service
        name = _saved_service_name(service, form)
        yield f"-A {name} -s {service.scheduler}{_saved_service_tail(service)}\n"
        for destination_entry in sorted_destinations(entry.destinations):
            destination = destination_entry.destination
            server = form.endpoint(destination.address, destination.port, service.key.protocol)
            method = _METHOD_OPTIONS.get(destination.method, "-g")
            yield f"-a {name} -r {server} {method} -w {destination.weight}{_saved_tunnel(destination)}\n"


def connections(entries: Iterable[Connection], form: Format) -> Iterator[str]:
    """The connection table with its two title lines, row by row as the entries come."""
    yield "IPVS connection entries\n"
    if form.style == PERSISTENT:
        yield f"pro expire {'state':11} {'source':18} {'virtual':18}"
        yield f" {'destination':18} {'pe name':16} pe_data\n"
    else:
        yield f"pro expire {'state':11} {'source':18} {'virtual':18} destination\n"
    endpoint = form.endpoint
    for entry in entries:
        protocol = entry.protocol
        minutes, seconds = divmod(entry.expires, 60)
        expire = f"{minutes:02}:{seconds:02}"
        client = endpoint(entry.client, entry.client_port, protocol)
        virtual = endpoint(entry.virtual, entry.virtual_port, protocol)
        destination = endpoint(entry.destination, entry.destination_port, protocol)
        if entry.engine_data and form.style == PERSISTENT:
            destination = f"{destination:16} {entry.engine:18} {entry.engine_data}"
        yield (
            f"{PROTOCOL_NAMES.get(protocol, 'IP'):3} {expire:6} {entry.state:11} {client:18} {virtual:18}"
            f" {destination}\n"
        )


def timeouts_line(timeouts: Timeouts) -> str:
    """The answer to ``-L --timeout``."""
    return f"Timeout (tcp tcpfin udp): {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}\n"


def large_number(number: int, exact: bool = False) -> str:
    """A counter in nine columns, shortened from 10^8 on unless ``exact``."""
    if exact:
        digits = str(number)
        return f"{digits:>9}" if len(digits) <= 8 else f" {digits}"
    if number < 100_000_000:
        return f"{number:9}"
    if number < 1_000_000_000:
        return f"{number // 1000:8}K"
    if number < 100_000_000_000:
        return f"{number // 1_000_000:8}M"
    if number < 100_000_000_000_000:
        return f"{number // 1_000_000_000:8}G"
    return f"{number // 1_000_000_000_000:8}T"


def _service_rows(entry: ServiceEntry, form: Format) -> Iterator[str]:
    service = entry.service
    name = _service_name(service, form)
    if form.style == STATS:
        yield f"{name:33}{_counters(entry.stats, form.exact)}\n"
    else:
        yield f"{name} {service.scheduler}{_service_tail(service)}\n"
    row = _stats_row(form.exact) if form.style == STATS else _ROWS[form.style]
    protocol = service.key.protocol
    destinations = entry.destinations
    for destination_entry in sorted_destinations(destinations) if form.sort else destinations:
        destination = destination_entry.destination
        server = form.endpoint(destination.address, destination.port, protocol)
        if destination.family == IPV4:
            server = server[:_DESTINATION_COLUMN]
        yield row(server, destination_entry)


def _service_name(service: Service, form: Format) -> str:
    key = service.key
    if key.fwmark:
        name = f"FWM  {_signed(key.fwmark)}"
        return f"{name} IPv6" if key.family == IPV6 else name
    protocol = PROTOCOL_NAMES.get(key.protocol, "?")
    name = f"{protocol:4} {form.endpoint(key.address, key.port, key.protocol)}"
    return name if key.family == IPV6 else name[:_SERVICE_COLUMN]


def _signed(fwmark: int) -> int:
    # ipvsadm 1.31 prints an unsigned mark with %d.
    return fwmark - (1 << 32) if fwmark >= 1 << 31 else fwmark


def _service_tail(service: Service) -> str:
    tail = ""
    if service.scheduler_flags:
        tail += f" ({_scheduler_flags(service)})"
    if service.persistence:
        tail += f" persistent {service.persistence}"
        tail += _mask(service, " mask ")
        if service.engine:
            tail += f" pe {service.engine}"
    if service.one_packet:
        tail += " ops"
    return tail


def _saved_service_name(service: Service, form: Format) -> str:
    key = service.key
    if key.fwmark:
        return f"-f {_signed(key.fwmark)}{' -6' if key.family == IPV6 else ''}"
    endpoint = form.endpoint(key.address, key.port, key.protocol)
    return f"{_SERVICE_OPTIONS.get(key.protocol, '--xxx-service')} {endpoint}"


def _saved_service_tail(service: Service) -> str:
    tail = ""
    if service.persistence:
        tail += f" -p {service.persistence}"
        tail += _mask(service, " -M ")
    if service.engine:
        tail += f" --pe {service.engine}"
    if service.one_packet:
        tail += " -o"
    if service.scheduler_flags:
        tail += f" -b {_scheduler_flags(service)}"
    return tail


def _mask(service: Service, label: str) -> str:
    if service.key.family == IPV4:
        return f"{label}{format_address(prefix_to_mask(service.netmask))}" if service.netmask != 32 else ""
    return f"{label}{service.netmask}" if service.netmask != 128 else ""


def _scheduler_flags(service: Service) -> str:
    names = _SCHEDULER_FLAG_NAMES.get(service.scheduler, _OTHER_FLAG_NAMES)
    return ",".join(name for bit, name in names if service.scheduler_flags & bit)


def _saved_tunnel(destination: Destination) -> str:
    if destination.method != TUNNEL:
        return ""
    tunnel = destination.tunnel
    if tunnel is None or tunnel.kind == "ipip":
        return " --tun-type ipip"
    port = f" --tun-port {tunnel.port}" if tunnel.kind == "gue" else ""
    return f" --tun-type {tunnel.kind}{port} --tun-{tunnel.checksum}"


def _counters(stats: Stats, exact: bool) -> str:
    return (
        large_number(stats.connections, exact)
        + large_number(stats.in_packets, exact)
        + large_number(stats.out_packets, exact)
        + large_number(stats.in_bytes, exact)
        + large_number(stats.out_bytes, exact)
    )


def _stats_row(exact: bool) -> DestinationRow:
    def row(server: str, entry: DestinationEntry) -> str:
        return f"  -> {server:28}{_counters(entry.stats, exact)}\n"

    return row


def _plain_row(server: str, entry: DestinationEntry) -> str:
    destination = entry.destination
    return (
        f"  -> {server:28} {_METHOD_NAMES[destination.method]:7} {destination.weight:<6}"
        f" {entry.active:<10} {entry.inactive:<10}\n"
    )


def _tunnel_row(server: str, entry: DestinationEntry) -> str:
    destination = entry.destination
    return (
        f"  -> {server:28} {_METHOD_NAMES[destination.method]:7} {_tunnel_info(destination):13}"
        f" {destination.weight:<6} {entry.active:<10} {entry.inactive:<10}\n"
    )


def _tunnel_info(destination: Destination) -> str:
    if destination.method != TUNNEL:
        return "n/a"
    tunnel = destination.tunnel
    if tunnel is None or tunnel.kind == "ipip":
        return "ipip"
    port = f":{tunnel.port}" if tunnel.kind == "gue" else ""
    return f"{tunnel.kind}{port}:{_CHECKSUM_SIGNS[tunnel.checksum]}"


def _thresholds_row(server: str, entry: DestinationEntry) -> str:
    destination = entry.destination
    return (
        f"  -> {server:28} {destination.upper_threshold:<10} {destination.lower_threshold:<10}"
        f" {entry.active:<10} {entry.inactive:<10}\n"
    )


def _persistent_row(server: str, entry: DestinationEntry) -> str:
    return (
        f"  -> {server:28} {entry.destination.weight:<9} {entry.persistent:<11}"
        f" {entry.active:<10} {entry.inactive:<10}\n"
    )


_ROWS: dict[str, DestinationRow] = {
    PLAIN: _plain_row,
    TUNNELS: _tunnel_row,
    THRESHOLDS: _thresholds_row,
    PERSISTENT: _persistent_row,
}
