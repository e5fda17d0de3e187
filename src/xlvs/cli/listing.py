# SPDX-License-Identifier: GPL-2.0-only
"""Writes tables and connections exactly as ipvsadm prints them.

Every function yields text, whole lines of it with their newlines; widths,
trailing blanks and cut-off names included.  Takes rows (`xlvs.datapath.rows`)
and values of the model, asks no data plane and prints nothing.  Rows are
written with ``%``, the fastest of all ways: there may be 100,000.
(ipvsadm 1.31: ``print_title``, ``print_service_entry``, ``print_conn``.)
"""

from __future__ import annotations

from xlvs.cli.address import Names, format_address, format_endpoint, prefix_to_mask
from xlvs.cli.ipvsadm_order import sorted_destinations, sorted_services
from xlvs.model import (
    BYPASS,
    IPV4,
    IPV6,
    LOCAL,
    MASQUERADE,
    PROTOCOL_NAMES,
    ROUTE,
    SCTP,
    SIP,
    TCP,
    TUNNEL,
    UDP,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from xlvs.datapath.rows import ConnectionRow, Counters, DestinationRow, ServiceRow
    from xlvs.model import Service, Timeouts, Tunnel

# The listings, in ipvsadm's order of precedence.
STATS = "stats"
RATE = "rate"
THRESHOLDS = "thresholds"
PERSISTENT = "persistent-conn"
TUNNELS = "tun-info"
PLAIN = "plain"
STYLES = (STATS, RATE, THRESHOLDS, PERSISTENT, TUNNELS)

_SHORTENED = 100_000_000
"""From here on counters are shortened."""
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
    RATE: f"{'Prot LocalAddress:Port':33} {'CPS':>8} {'InPPS':>8} {'OutPPS':>8} {'InBPS':>8} {'OutBPS':>8}\n"
    + _DESTINATION_TITLE,
    THRESHOLDS: f"{'Prot LocalAddress:Port':33} {'Uthreshold':10} {'Lthreshold':10} {'ActiveConn':10}"
    f" {'InActConn':10}\n" + _DESTINATION_TITLE,
    PERSISTENT: f"{'Prot LocalAddress:Port':33} {'Weight':9} {'PersistConn':11} {'ActiveConn':10}"
    f" {'InActConn':10}\n" + _DESTINATION_TITLE,
    TUNNELS: _PLAIN_TITLE + "TunnelInfo    Weight ActiveConn InActConn\n",
    PLAIN: _PLAIN_TITLE + "Weight ActiveConn InActConn\n",
}


class Format:
    """How to write a listing: style, numeric or names, exact numbers, sorted or not.

    ``extended`` mends what ipvsadm does plainly wrong: the order of numbers
    that are far apart, and what is missing from a saved table.
    """

    __slots__ = ("exact", "extended", "names", "sort", "style")

    def __init__(
        self,
        style: str = PLAIN,
        numeric: bool = True,
        exact: bool = False,
        sort: bool = True,
        extended: bool = False,
    ) -> None:
        self.extended = extended
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


def table(rows: Iterable[ServiceRow], form: Format) -> Iterator[str]:
    """The two title lines, then every service with its real servers."""
    yield _TITLES[form.style]
    rows = list(rows)
    columns: dict[int, _ServerColumn] = {}
    write = _WRITERS[form.style]
    for row in sorted_services(rows, form.extended) if form.sort else rows:
        service, _, destinations = row
        ordered = sorted_destinations(destinations, form.extended) if form.sort else destinations
        protocol = service.key.protocol
        column = columns.get(protocol)
        if column is None:
            column = columns[protocol] = _ServerColumn(form, protocol)
        yield _service_line(row, form) + "".join(write(ordered, column, form.exact))


def saved_table(rows: Iterable[ServiceRow], form: Format) -> Iterator[str]:
    """The table as commands that restore it.

    As in ipvsadm thresholds are not saved, unless the form is extended.
    """
    texts: dict[tuple[bytes, int, int], str] = {}
    for service, _, destinations in sorted_services(list(rows), form.extended):
        name = _saved_service_name(service, form)
        protocol = service.key.protocol
        lines = [f"-A {name} -s {service.scheduler}{_saved_service_tail(service)}\n"]
        for row in sorted_destinations(destinations, form.extended):
            end = (row[0], row[1], protocol)
            text = texts.get(end)
            if text is None:
                text = texts[end] = form.endpoint(*end)
            method = row[2]
            tail = _saved_tunnel(row[9]) if method == TUNNEL else ""
            if form.extended:
                tail += _saved_thresholds(row)
            lines.append(
                "-a %s -r %s %s -w %d%s\n"  # noqa: UP031
                % (name, text, _METHOD_OPTIONS.get(method, "-g"), row[3], tail)
            )
        yield "".join(lines)


def saved_timeouts(timeouts: Timeouts) -> str:
    """The timeouts as the command that sets them again."""
    return f"--set {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}\n"


def connections(shares: Iterable[Sequence[ConnectionRow]], form: Format) -> Iterator[str]:
    """The connection table with its two title lines, share by share as it comes."""
    yield "IPVS connection entries\n"
    if form.style == PERSISTENT:
        yield f"pro expire {'state':11} {'source':18} {'virtual':18}"
        yield f" {'destination':18} {'pe name':16} pe_data\n"
    else:
        yield f"pro expire {'state':11} {'source':18} {'virtual':18} destination\n"
    for rows in shares:
        yield "".join(_connection_lines(rows, form))


def _connection_lines(rows: Sequence[ConnectionRow], form: Format) -> list[str]:
    # What many connections have in common is written once.
    heads: dict[tuple[int, str, int], str] = {}
    ends: dict[tuple[bytes, int, bytes, int, int], str] = {}
    endpoint = form.endpoint if form.names else None
    lines = []
    shows_engine = form.style == PERSISTENT
    for (
        protocol, client, client_port, virtual, virtual_port, destination, port, state, left, _, engine_data,
    ) in rows:  # fmt: skip
        head = heads.get((protocol, state, left))
        if head is None:
            name, expiry = PROTOCOL_NAMES.get(protocol, "IP"), "%02d:%02d" % divmod(left, 60)  # noqa: UP031
            head = heads[protocol, state, left] = f"{name:3} {expiry:6} {state:11}"
        key = (virtual, virtual_port, destination, port, protocol)
        end = ends.get(key)
        if end is None:
            text = form.endpoint(virtual, virtual_port, protocol)
            end = ends[key] = f"{text:18} {form.endpoint(destination, port, protocol)}"
        source = (
            endpoint(client, client_port, protocol) if endpoint else format_endpoint(client, client_port)
        )
        if engine_data and shows_engine:
            text, server = form.endpoint(virtual, virtual_port, protocol), end.split()[-1]
            end = f"{text:18} {server:16} {SIP:18} {engine_data}"
        lines.append("%s %-18s %s\n" % (head, source, end))  # noqa: UP031
    return lines


def timeouts_line(timeouts: Timeouts) -> str:
    """The answer to ``-L --timeout``."""
    return f"Timeout (tcp tcpfin udp): {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}\n"


def large_number(number: int, exact: bool = False) -> str:
    """A counter in nine columns, shortened from 10^8 on unless ``exact``."""
    if exact:
        digits = str(number)
        return f"{digits:>9}" if len(digits) <= 8 else f" {digits}"
    if number < _SHORTENED:
        return f"{number:9}"
    if number < 1_000_000_000:
        return f"{number // 1000:8}K"
    if number < 100_000_000_000:
        return f"{number // 1_000_000:8}M"
    if number < 100_000_000_000_000:
        return f"{number // 1_000_000_000:8}G"
    return f"{number // 1_000_000_000_000:8}T"


def _service_line(row: ServiceRow, form: Format) -> str:
    service, counters, _ = row
    name = _service_name(service, form)
    if form.style == STATS:
        return f"{name:33}{_large_numbers(counters, form.exact)}\n"
    if form.style == RATE:
        return f"{name:33}{_rates(counters, form.exact)}\n"
    return f"{name} {service.scheduler}{_service_tail(service)}\n"


class _ServerColumn(dict["tuple[bytes, int]", str]):
    """The first column of real servers' rows, by address and port: each is written once.

    It begins with the arrow, and is as wide as all; of an IPv4 real server's name the end is cut.
    """

    def __init__(self, form: Format, protocol: int) -> None:
        self._form = form
        self._protocol = protocol

    def __missing__(self, end: tuple[bytes, int]) -> str:
        text = self._form.endpoint(*end, self._protocol)
        if self._form.names and len(end[0]) == 4:
            text = text[:_DESTINATION_COLUMN]
        column = self[end] = f"  -> {text:28}"
        return column


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
    if service.idle_timeout:
        tail += f" idle-timeout {service.idle_timeout}"
    if service.reject_gone:
        tail += " reject-gone"
    if service.rehome:
        tail += " rehome"
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
    # Beyond ipvsadm; it has no services with them.
    if service.idle_timeout:
        tail += f" --idle-timeout {service.idle_timeout}"
    if service.reject_gone:
        tail += " --reject-gone"
    if service.rehome:
        tail += " --rehome"
    return tail


def _mask(service: Service, label: str) -> str:
    if service.key.family == IPV4:
        return f"{label}{format_address(prefix_to_mask(service.netmask))}" if service.netmask != 32 else ""
    return f"{label}{service.netmask}" if service.netmask != 128 else ""


def _scheduler_flags(service: Service) -> str:
    names = _SCHEDULER_FLAG_NAMES.get(service.scheduler, _OTHER_FLAG_NAMES)
    return ",".join(name for bit, name in names if service.scheduler_flags & bit)


def _saved_thresholds(row: DestinationRow) -> str:
    upper, lower = row[7], row[8]
    return (f" -x {upper}" if upper else "") + (f" -y {lower}" if lower else "")


def _saved_tunnel(tunnel: Tunnel | None) -> str:
    if tunnel is None or tunnel.kind == "ipip":
        return " --tun-type ipip"
    port = f" --tun-port {tunnel.port}" if tunnel.kind == "gue" else ""
    return f" --tun-type {tunnel.kind}{port} --tun-{tunnel.checksum}"


def _tunnel_info(method: str, tunnel: Tunnel | None) -> str:
    if method != TUNNEL:
        return "n/a"
    if tunnel is None or tunnel.kind == "ipip":
        return "ipip"
    port = f":{tunnel.port}" if tunnel.kind == "gue" else ""
    return f"{tunnel.kind}{port}:{_CHECKSUM_SIGNS[tunnel.checksum]}"


def _large_numbers(counters: Counters, exact: bool) -> str:
    if max(counters) < _SHORTENED:
        return "%9d%9d%9d%9d%9d" % counters  # noqa: UP031
    return "".join([large_number(number, exact) for number in counters])


def _rates(rates: Counters, exact: bool) -> str:
    if max(rates) < _SHORTENED:
        return " %8d %8d %8d%9d%9d" % rates  # noqa: UP031
    in_bytes, out_bytes = large_number(rates[3], exact), large_number(rates[4], exact)
    return " %8d %8d %8d%s%s" % (*rates[:3], in_bytes, out_bytes)  # noqa: UP031


# What writes the rows of one service's real servers, by the style of the listing.


def _stats_rows(rows: Sequence[DestinationRow], column: _ServerColumn, exact: bool) -> list[str]:
    if max([max(row[10]) for row in rows], default=0) < _SHORTENED:
        return ["%s%9d%9d%9d%9d%9d\n" % (column[row[:2]], *row[10]) for row in rows]  # noqa: UP031
    return ["%s%s\n" % (column[row[:2]], _large_numbers(row[10], exact)) for row in rows]  # noqa: UP031


def _rate_rows(rows: Sequence[DestinationRow], column: _ServerColumn, exact: bool) -> list[str]:
    return ["%s%s\n" % (column[row[:2]], _rates(row[10], exact)) for row in rows]  # noqa: UP031


def _plain_rows(rows: Sequence[DestinationRow], column: _ServerColumn, _exact: bool) -> list[str]:
    return [
        "%s %-7s %-6d %-10d %-10d\n"  # noqa: UP031
        % (column[row[:2]], _METHOD_NAMES[row[2]], row[3], row[4], row[5])
        for row in rows
    ]


def _tunnel_rows(rows: Sequence[DestinationRow], column: _ServerColumn, _exact: bool) -> list[str]:
    return [
        "%s %-7s %-13s %-6d %-10d %-10d\n"  # noqa: UP031
        % (column[row[:2]], _METHOD_NAMES[row[2]], _tunnel_info(row[2], row[9]), row[3], row[4], row[5])
        for row in rows
    ]


def _threshold_rows(rows: Sequence[DestinationRow], column: _ServerColumn, _exact: bool) -> list[str]:
    return [
        "%s %-10d %-10d %-10d %-10d\n" % (column[row[:2]], row[7], row[8], row[4], row[5])  # noqa: UP031
        for row in rows
    ]


def _persistent_rows(rows: Sequence[DestinationRow], column: _ServerColumn, _exact: bool) -> list[str]:
    return [
        "%s %-9d %-11d %-10d %-10d\n" % (column[row[:2]], row[3], row[6], row[4], row[5])  # noqa: UP031
        for row in rows
    ]


_WRITERS: dict[str, Callable[[Sequence[DestinationRow], _ServerColumn, bool], list[str]]] = {
    STATS: _stats_rows,
    RATE: _rate_rows,
    PLAIN: _plain_rows,
    TUNNELS: _tunnel_rows,
    THRESHOLDS: _threshold_rows,
    PERSISTENT: _persistent_rows,
}
