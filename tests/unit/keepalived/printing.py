# SPDX-License-Identifier: GPL-2.0-only
"""Values printed as a keepalived.conf that means them, independently of how one is read."""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.keepalived.addresses import format_address
from xlvs.keepalived.checks import (
    BfdCheck,
    Checker,
    Connection,
    DnsCheck,
    FileCheck,
    GrpcCheck,
    HttpCheck,
    MiscCheck,
    Pattern,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    TlsVerification,
    UdpCheck,
    Url,
)
from xlvs.keepalived.configuration import RealServer, VirtualServer
from xlvs.keepalived.origin import Script
from xlvs.model import MASQUERADE, PROTOCOL_NAMES, ROUTE, Destination

METHODS = {MASQUERADE: "NAT", ROUTE: "DR"}


def seconds(value: float) -> str:
    """A duration with no more decimals than it needs."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def quote(text: str) -> str:
    """A word for the plain way of splitting."""
    return f'"{text}"'


def escape(text: str) -> str:
    """A word for the way of splitting that scripts have, for once."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def script(keyword: str, value: Script | None) -> Iterator[str]:
    """A script, its command in quotes within quotes."""
    if value:
        command = " ".join(escape(argument) for argument in value.arguments)
        yield f"{keyword} {escape(command)} root root"


def flag(keyword: str, value: bool) -> Iterator[str]:
    """A keyword with a BOOL."""
    yield f"{keyword} {'on' if value else 'no'}"


def method(destination: Destination) -> str:
    """The forwarding method."""
    if destination.tunnel is None:
        return METHODS[destination.method]
    tunnel = destination.tunnel
    port = f" port {tunnel.port}" if tunnel.port else ""
    return f"TUN type {tunnel.kind}{port} {tunnel.checksum}"


def print_virtual_server(server: VirtualServer) -> Iterator[str]:
    """A virtual server of an address or a mark, line by line."""
    what = f"fwmark {server.fwmark}" if server.fwmark else f"{format_address(server.address)} {server.port}"
    yield f"virtual_server {what} {{"
    service = server.services[0]
    if server.fwmark:
        yield f"ip_family {'inet' if server.family == 2 else 'inet6'}"
    else:
        yield f"protocol {PROTOCOL_NAMES[server.protocol]}"
    yield f"lvs_sched {service.scheduler}"
    for bit in range(3):
        if service.scheduler_flags & 1 << bit:
            yield f"flag-{bit + 1}"
    if service.persistence:
        yield f"persistence_timeout {service.persistence}"
    if service.engine:
        yield f"persistence_engine {service.engine}"
    if service.one_packet:
        yield "ops"
    if service.idle_timeout:
        yield f"idle_timeout {service.idle_timeout}"
    yield from ["rehome"] * service.rehome
    yield from ["reject_gone"] * service.reject_gone
    yield from ["alpha"] * server.alpha
    yield from ["omega"] * server.omega
    yield from ["ha_suspend"] * server.ha_suspend
    yield from flag("smtp_alert", server.smtp_alert)
    yield f"quorum {server.quorum}"
    yield f"hysteresis {server.hysteresis}"
    yield f"delay_loop {seconds(server.delay_loop)}"
    yield from script("quorum_up", server.quorum_up)
    yield from script("quorum_down", server.quorum_down)
    if server.sorry_server:
        sorry = server.sorry_server
        yield f"sorry_server {format_address(sorry.destination.address)} {sorry.destination.port}"
        yield f"sorry_server_lvs_method {method(sorry.destination)}"
        yield from ["sorry_server_inhibit"] * sorry.inhibit
    for real_server in server.real_servers:
        yield from _real_server(real_server)
    yield "}"


def _real_server(server: RealServer) -> Iterator[str]:
    destination = server.destination
    yield f"real_server {format_address(destination.address)} {destination.port} {{"
    yield f"weight {destination.weight}"
    yield f"lvs_method {method(destination)}"
    yield f"uthreshold {destination.upper_threshold}"
    yield f"lthreshold {destination.lower_threshold}"
    yield from flag("inhibit_on_failure", server.inhibit_on_failure)
    yield from flag("alpha", server.alpha)
    yield from flag("smtp_alert", server.smtp_alert)
    yield from script("notify_up", server.notify_up)
    yield from script("notify_down", server.notify_down)
    if server.virtualhost:
        yield f"virtualhost {server.virtualhost}"
    if server.slow_start:
        yield f"slow_start {seconds(server.slow_start)}"
    for checker in server.checkers:
        yield from _checker(checker)
    yield "}"


def _checker(checker: Checker) -> Iterator[str]:
    keyword = "SSL_GET" if isinstance(checker, HttpCheck) and checker.tls else checker.keyword
    yield f"{keyword} {{"
    if isinstance(checker, BfdCheck):
        yield f"name {checker.name}"
        yield from flag("alpha", checker.schedule.alpha)
    elif isinstance(checker, FileCheck):
        yield f"track_file {checker.name}"
        yield f"weight {checker.weight} {'reverse' if checker.reverse else 'noreverse'}"
    else:
        yield from _schedule(checker.schedule)
        if isinstance(checker, MiscCheck):
            yield f"misc_path {escape(' '.join(map(escape, checker.script.arguments)))}"
            yield "user root root"
            yield f"misc_timeout {int(checker.timeout)}"
            yield from ["misc_dynamic"] * checker.dynamic
        else:
            yield from _connection(checker.connection)
            yield from _own(checker)
    yield "}"


def _schedule(schedule: Schedule) -> Iterator[str]:
    yield f"delay_loop {seconds(schedule.delay_loop)}"
    yield f"warmup {seconds(schedule.warmup)}"
    yield f"retry {schedule.retry}"
    yield f"delay_before_retry {seconds(schedule.delay_before_retry)}"
    yield from flag("alpha", schedule.alpha)
    yield from flag("log_all_failures", schedule.log_all_failures)


def _connection(connection: Connection) -> Iterator[str]:
    yield f"connect_ip {format_address(connection.address)}"
    yield f"connect_port {connection.port}"
    if connection.bind_address:
        yield f"bindto {format_address(connection.bind_address)}"
    if connection.bind_port:
        yield f"bind_port {connection.bind_port}"
    if connection.bind_interface:
        yield f"bind_if {connection.bind_interface}"
    yield f"fwmark {connection.fwmark}"
    yield f"connect_timeout {seconds(connection.timeout)}"
    yield from ["via vip"] * connection.via_vip


def _own(
    checker: TcpCheck | PingCheck | HttpCheck | SmtpCheck | DnsCheck | UdpCheck | GrpcCheck,
) -> Iterator[str]:
    if isinstance(checker, SmtpCheck):
        yield f"helo_name {checker.helo_name}"
    elif isinstance(checker, DnsCheck):
        yield f"type {checker.record_type}"
        if checker.name:
            yield f"name {checker.name}"
    elif isinstance(checker, UdpCheck):
        yield f"payload {checker.payload.hex()}"
        if checker.require_reply:
            digits = "".join(
                "x" if mask else digit
                for digit, mask in zip(checker.reply.hex(), _nibbles(checker), strict=True)
            )
            yield f"require_reply {digits}"
        yield f"min_reply_length {checker.min_reply_length}"
        yield f"max_reply_length {checker.max_reply_length}"
    elif isinstance(checker, GrpcCheck):
        if checker.service:
            yield f"service {checker.service}"
        yield from flag("tls", checker.tls)
        yield from _verification(checker.verification)
    elif isinstance(checker, HttpCheck):
        yield from flag("enable_sni", checker.sni)
        yield from flag("fast_recovery", checker.fast_recovery)
        yield f"http_protocol {checker.version.value}"
        if checker.virtualhost:
            yield f"virtualhost {checker.virtualhost}"
        yield from _verification(checker.verification)
        for url in checker.urls:
            yield from _url(url)


def _nibbles(checker: UdpCheck) -> list[bool]:
    mask = checker.reply_mask or bytes(len(checker.reply))
    return [digit == "f" for digit in mask.hex()]


def _verification(verification: TlsVerification | None) -> Iterator[str]:
    if verification:
        yield f"tls_verify {verification.authorities}".rstrip()


def _url(url: Url) -> Iterator[str]:
    yield "url {"
    yield f"path {quote(url.path)}"
    yield "status_code " + " ".join(f"{low}-{high}" for low, high in url.status)
    if url.digest:
        yield f"digest {url.digest.hex()}"
    if url.virtualhost:
        yield f"virtualhost {url.virtualhost}"
    if url.pattern:
        yield from _pattern(url.pattern)
    yield "}"


def _pattern(pattern: Pattern) -> Iterator[str]:
    yield f"regex {escape(pattern.expression)}"
    if pattern.options:
        yield "regex_options " + " ".join(pattern.options)
    yield from ["regex_no_match"] * pattern.absent
    yield f"regex_min_offset {pattern.first}"
    if pattern.last is not None:
        yield f"regex_max_offset {pattern.last}"
