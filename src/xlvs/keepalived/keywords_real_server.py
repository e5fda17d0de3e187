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
from xlvs.keepalived.keywords_check import (
    BFD,
    CONNECT_TIMEOUT_LIMIT,
    DNS,
    FILE,
    GRPC,
    MISC,
    PING,
    SMTP,
    TCP,
    UDP,
    BfdDraft,
    DnsDraft,
    FileDraft,
    GrpcDraft,
    MiscDraft,
    PingDraft,
    SmtpDraft,
    TcpDraft,
    UdpDraft,
)
from xlvs.keepalived.keywords_http import HTTP, HttpDraft
from xlvs.keepalived.numbers import read_switch, read_timer, read_unsigned
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import MASQUERADE, MAX_WEIGHT, ROUTE, TUNNEL, Tunnel

_METHODS = {"NAT": MASQUERADE, "DR": ROUTE, "TUN": TUNNEL}
_NO_SNMP = "there is no SNMP agent here"


def read_retry(server: VirtualServerDraft | RealServerDraft, at: Cursor) -> None:
    """``retry COUNT``."""
    retry = read_unsigned(at, at.word(1), 1, lenient=False)
    if retry is None:
        at.report(f"retry value invalid - {at.words[1]}")
    else:
        server.retry = retry


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


def read_slow_start(server: VirtualServerDraft | RealServerDraft, at: Cursor) -> None:
    """``slow_start SECONDS``."""
    duration = read_timer(at, at.word(1))
    if duration is None:
        at.report(f"slow_start '{at.words[1]}' invalid - ignoring")
    else:
        server.slow_start = duration


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


def _rs_weight(server: RealServerDraft, at: Cursor) -> None:
    weight = read_unsigned(at, at.word(1), 0, MAX_WEIGHT)
    if weight is None:
        at.report(f"Real server weight {at.words[1]} is outside range 0-{MAX_WEIGHT}")
    else:
        server.weight = weight


def _rs_method(server: RealServerDraft, at: Cursor) -> None:
    read_method(server, at, "real")


def _uthreshold(server: RealServerDraft, at: Cursor) -> None:
    threshold = read_unsigned(at, at.word(1))
    if threshold is None:
        at.report(f"Invalid real_server uthreshold '{at.words[1]}' - ignoring")
    else:
        server.upper_threshold = threshold


def _lthreshold(server: RealServerDraft, at: Cursor) -> None:
    threshold = read_unsigned(at, at.word(1))
    if threshold is None:
        at.report(f"Invalid real_server lthreshold '{at.words[1]}' - ignoring")
    else:
        server.lower_threshold = threshold


def _rs_inhibit(server: RealServerDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid inhibit_on_failure parameter {at.words[1]}")
    else:
        server.inhibit = value


def _notify_up(server: RealServerDraft, at: Cursor) -> None:
    if server.notify_up:
        group = server.virtual_server.group or "(null)"
        at.report(f"({group}) notify_up script already specified - ignoring {at.word(1)}")
    else:
        server.notify_up = read_script(at, server.draft.script_user, "notify")


def _notify_down(server: RealServerDraft, at: Cursor) -> None:
    if server.notify_down:
        group = server.virtual_server.group or "(null)"
        at.report(f"({group}) notify_down script already specified - ignoring {at.word(1)}")
    else:
        server.notify_down = read_script(at, server.draft.script_user, "notify")


def _rs_alpha(server: RealServerDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid alpha parameter {at.words[1]}")
    else:
        server.alpha = value


def _rs_warmup(server: RealServerDraft, at: Cursor) -> None:
    warmup = read_timer(at, at.word(1))
    if warmup is None:
        at.report(f"real server warmup '{at.words[1]}' invalid - ignoring")
    else:
        server.warmup = warmup


def _rs_delay_loop(server: RealServerDraft, at: Cursor) -> None:
    delay = read_timer(at, at.word(1), 1)
    if delay is None:
        at.report(f"real server delay_loop '{at.words[1]}' invalid - ignoring")
    else:
        server.delay_loop = delay


def _rs_delay_before_retry(server: RealServerDraft, at: Cursor) -> None:
    delay = read_timer(at, at.word(1))
    if delay is None:
        at.report(f"real server delay_before_retry '{at.words[1]}' invalid - ignoring")
    else:
        server.delay_before_retry = delay


def _rs_connect_timeout(server: RealServerDraft, at: Cursor) -> None:
    timeout = read_timer(at, at.word(1), 1, CONNECT_TIMEOUT_LIMIT)
    if timeout is None:
        at.report(f"real server connect_timeout {at.words[1]} invalid - ignoring")
    else:
        server.connect_timeout = timeout


def _rs_smtp_alert(server: RealServerDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid real_server smtp_alert parameter {at.words[1]}")
    else:
        server.smtp_alert = value


def _rs_virtualhost(server: RealServerDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("real server virtualhost missing")
    else:
        server.virtualhost = at.words[1]


def _rs_snmp_name(server: RealServerDraft, at: Cursor) -> None:
    if len(at.words) != 2:
        at.report("real server snmp_name missing or extra parameters")
    else:
        server.snmp_name = at.words[1]


def _tcp_check(server: RealServerDraft, at: Cursor) -> CheckerDraft:
    return TcpDraft(server, at.position)


def _ping_check(server: RealServerDraft, at: Cursor) -> CheckerDraft:
    return PingDraft(server, at.position)


REAL_SERVER = Section("real_server", _end_of_real_server)
REAL_SERVER.add("weight", _rs_weight, "N", "Default 1; 0 takes no new connection.")
REAL_SERVER.add("lvs_method", _rs_method, "NAT|DR|TUN …", "Default: the virtual server's.")
REAL_SERVER.add("uthreshold", _uthreshold, "N", "No new connection beyond that many; 0: no limit.")
REAL_SERVER.add("lthreshold", _lthreshold, "N", "…until there are no more than that many.")
REAL_SERVER.add("inhibit_on_failure", _rs_inhibit, "[BOOL]", "On failure weight 0, not removal.")
REAL_SERVER.add("notify_up", _notify_up, "COMMAND [USER [GROUP]]", "Run when it becomes available.")
REAL_SERVER.add("notify_down", _notify_down, "COMMAND [USER [GROUP]]", "Run when it fails.")
REAL_SERVER.add("alpha", _rs_alpha, "[BOOL]", "It counts as failed until its checks passed.")
REAL_SERVER.add("retry", read_retry, "COUNT", "For its checkers.")
REAL_SERVER.add("delay_before_retry", _rs_delay_before_retry, "SECONDS", "For its checkers.")
REAL_SERVER.add("warmup", _rs_warmup, "SECONDS", "For its checkers.")
REAL_SERVER.add("connect_timeout", _rs_connect_timeout, "SECONDS", "For its checkers.")
REAL_SERVER.add("delay_loop", _rs_delay_loop, "SECONDS", "For its checkers.")
REAL_SERVER.add("smtp_alert", _rs_smtp_alert, "[BOOL]", "Mail about it; default yes.")
REAL_SERVER.add("virtualhost", _rs_virtualhost, "NAME", "The Host that HTTP_GET and SSL_GET ask for.")
REAL_SERVER.add("snmp_name", _rs_snmp_name, "NAME", "Its name in SNMP.", remark=_NO_SNMP)
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
