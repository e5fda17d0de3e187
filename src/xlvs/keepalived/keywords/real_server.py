# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of real_server, and those that it shares with virtual_server."""

from __future__ import annotations

from xlvs.keepalived.addresses import family_of, format_address, read_endpoint
from xlvs.keepalived.drafts import (
    CheckerDraft,
    RealServerDraft,
    ServerDraft,
    VirtualServerDraft,
)
from xlvs.keepalived.keywords.checker import CONNECT_TIMEOUT_LIMIT
from xlvs.keepalived.keywords.host_checkers import BFD, FILE, MISC, BfdDraft, FileDraft, MiscDraft
from xlvs.keepalived.keywords.http import HTTP, HttpDraft
from xlvs.keepalived.keywords.network_checkers import (
    DNS,
    GRPC,
    PING,
    SMTP,
    TCP,
    UDP,
    DnsDraft,
    GrpcDraft,
    PingDraft,
    SmtpDraft,
    TcpDraft,
    UdpDraft,
)
from xlvs.keepalived.keywords.shapes import number, script, switch, timer, word
from xlvs.keepalived.numbers import read_unsigned
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import MASQUERADE, MAX_WEIGHT, ROUTE, TUNNEL, Tunnel

_METHODS = {"NAT": MASQUERADE, "DR": ROUTE, "TUN": TUNNEL}
NO_SNMP = "there is no SNMP agent here"
read_retry = number("retry", "retry value invalid - {}", 1, lenient=False)
"""``retry COUNT``."""
read_slow_start = timer("slow_start", "slow_start '{}' invalid - ignoring")
"""``slow_start SECONDS``."""


def read_method(server: ServerDraft | VirtualServerDraft, at: Cursor, kind: str) -> None:
    """``NAT|DR|TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum]``."""
    method = _METHODS.get(at.word(1))
    if method is None:
        at.report(f"PARSER : unknown [{at.words[1]}] routing method for {kind} server.")
        return
    server.method = method
    tunnel, port, checksum = "ipip", 0, "nocsum"
    index = 2
    while index < len(at.words):
        word = at.words[index]
        following = at.words[index + 1] if index + 1 < len(at.words) else ""
        if word == "type":
            if not following:
                at.report(f"Missing tunnel type for {kind} server.")
                return
            if following not in ("ipip", "gue", "gre"):
                at.report(f"Unknown tunnel type {following} for {kind} server.")
                return
            tunnel = following
            index += 1
        elif word == "port":
            if not following:
                at.report(f"Missing port for {kind} server gue tunnel.")
                return
            read = read_unsigned(at, following, 1, 65535, lenient=False)
            if read is None:
                at.report(f"Invalid gue tunnel port {following} for {kind} server.")
                return
            port = read
            index += 1
        elif word in ("nocsum", "csum", "remcsum"):
            checksum = word
        else:
            at.report(f"Invalid tunnel option {word} for {kind} server.")
            return
        index += 1
    if (tunnel == "gue") != (port != 0):
        at.report("gue tunnels require port, otherwise cannot have port.")
    elif tunnel == "ipip" and checksum != "nocsum":
        at.report("ipip tunnels do not support checksum option.")
    elif tunnel == "gre" and checksum == "remcsum":
        at.report("gre tunnels do not support remote checksum option.")
    else:
        server.tunnel = Tunnel(tunnel, port, checksum)


def open_real_server(server: VirtualServerDraft, at: Cursor) -> RealServerDraft:
    """``real_server ADDRESS [PORT]``."""
    port = at.words[2] if len(at.words) > 2 else None
    endpoint = read_endpoint(at, at.word(1), port)
    if endpoint is None:
        at.report(f"Invalid real server ip address/port {at.words[1]}/{port or '(null)'} - skipping")
        at.skip_block()
        endpoint = b"", 0
    return RealServerDraft(*endpoint, at.position, server, server.draft)


def _end_of_real_server(real_server: RealServerDraft, at: Cursor) -> None:
    server = real_server.virtual_server
    if real_server.method != TUNNEL:
        family = family_of(real_server.address)
        if not server.family:
            server.family = family
        elif server.family != family:
            at.report(
                "Address family of virtual server and real server"
                f" {format_address(real_server.address)} don't match - skipping real server."
            )
            return
    server.real_servers.append(real_server)


def _rs_method(server: RealServerDraft, at: Cursor) -> None:
    read_method(server, at, "real")


def _tcp_check(server: RealServerDraft, at: Cursor) -> CheckerDraft:
    return TcpDraft(server, at.position)


def _ping_check(server: RealServerDraft, at: Cursor) -> CheckerDraft:
    return PingDraft(server, at.position)


_INVALID = "real server %s '{}' invalid - ignoring"
REAL_SERVER = Section("real_server", _end_of_real_server)
REAL_SERVER.add(
    "weight",
    number("weight", f"Real server weight {{}} is outside range 0-{MAX_WEIGHT}", 0, MAX_WEIGHT),
    "N",
    "Default 1; 0 takes no new connection.",
)
REAL_SERVER.add("lvs_method", _rs_method, "NAT|DR|TUN …", "Default: the virtual server's.")
REAL_SERVER.add(
    "uthreshold",
    number("upper_threshold", "Invalid real_server uthreshold '{}' - ignoring"),
    "N",
    "No new connection beyond that many; 0: no limit.",
)
REAL_SERVER.add(
    "lthreshold",
    number("lower_threshold", "Invalid real_server lthreshold '{}' - ignoring"),
    "N",
    "…until there are no more than that many.",
)
REAL_SERVER.add(
    "inhibit_on_failure",
    switch("inhibit", "Invalid inhibit_on_failure parameter {}"),
    "[BOOL]",
    "On failure weight 0, not removal.",
)
REAL_SERVER.add(
    "notify_up", script("notify_up", "notify"), "COMMAND [USER [GROUP]]", "Run when it becomes available."
)
REAL_SERVER.add(
    "notify_down", script("notify_down", "notify"), "COMMAND [USER [GROUP]]", "Run when it fails."
)
REAL_SERVER.add(
    "alpha",
    switch("alpha", "Invalid alpha parameter {}"),
    "[BOOL]",
    "It counts as failed until its checks passed.",
)
REAL_SERVER.add("retry", read_retry, "COUNT", "For its checkers.")
REAL_SERVER.add(
    "delay_before_retry",
    timer("delay_before_retry", _INVALID % "delay_before_retry"),
    "SECONDS",
    "For its checkers.",
)
REAL_SERVER.add("warmup", timer("warmup", _INVALID % "warmup"), "SECONDS", "For its checkers.")
REAL_SERVER.add(
    "connect_timeout",
    timer("connect_timeout", "real server connect_timeout {} invalid - ignoring", 1, CONNECT_TIMEOUT_LIMIT),
    "SECONDS",
    "For its checkers.",
)
REAL_SERVER.add(
    "delay_loop", timer("delay_loop", _INVALID % "delay_loop", 1), "SECONDS", "For its checkers."
)
REAL_SERVER.add(
    "smtp_alert",
    switch("smtp_alert", "Invalid real_server smtp_alert parameter {}"),
    "[BOOL]",
    "Mail about it; default yes.",
)
REAL_SERVER.add(
    "virtualhost",
    word("virtualhost", "real server virtualhost missing"),
    "NAME",
    "The Host that HTTP_GET and SSL_GET ask for.",
)
REAL_SERVER.add(
    "snmp_name",
    word("snmp_name", "real server snmp_name missing or extra parameters", alone=True),
    "NAME",
    "Its name in SNMP.",
    remark=NO_SNMP,
)
REAL_SERVER.add("slow_start", read_slow_start, "SECONDS", "Its weight rises over this time. xlvs's own.")
for _name, _open, _block, _meaning in (
    ("MISC_CHECK", MiscDraft, MISC, "A script's exit status."),
    ("SMTP_CHECK", SmtpDraft, SMTP, "A mail server greets and answers HELO."),
    ("TCP_CHECK", _tcp_check, TCP, "A connection can be made."),
    ("PING_CHECK", _ping_check, PING, "It answers ICMP echo."),
    ("UDP_CHECK", UdpDraft, UDP, "No ICMP error, or a reply."),
    ("HTTP_GET", HttpDraft, HTTP, "Pages answer as they should."),
    ("SSL_GET", HttpDraft, HTTP, "The same through TLS."),
    ("DNS_CHECK", DnsDraft, DNS, "A name server answers."),
    ("FILE_CHECK", FileDraft, FILE, "A number in a file changes the weight."),
    ("BFD_CHECK", BfdDraft, BFD, "A BFD session is up."),
    ("GRPC_CHECK", GrpcDraft, GRPC, "gRPC's health service answers SERVING. xlvs's own."),
):
    REAL_SERVER.add(_name, _open, "", _meaning, block=_block)
