# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of virtual_server, real_server, virtual_server_group and SSL."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from xlvs.keepalived.addresses import family_of, format_address, read_address, read_endpoint
from xlvs.keepalived.configuration import DEFAULT_PERSISTENCE, GroupEntry, TlsClient
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import (
    CheckerDraft,
    Draft,
    GroupDraft,
    RealServerDraft,
    ServerDraft,
    SorryServerDraft,
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
from xlvs.keepalived.numbers import UINT_MAX, read_switch, read_timer, read_unsigned
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import IPV4, IPV6, MASQUERADE, MAX_WEIGHT, ROUTE, SCHEDULERS, SCTP, TUNNEL, Tunnel
from xlvs.model import TCP as TCP_PROTOCOL
from xlvs.model import UDP as UDP_PROTOCOL

_METHODS = {"NAT": MASQUERADE, "DR": ROUTE, "TUN": TUNNEL}
_PROTOCOLS = {"TCP": TCP_PROTOCOL, "UDP": UDP_PROTOCOL, "SCTP": SCTP}
_FAMILIES = {"inet": IPV4, "inet6": IPV6}
_LONGEST_PERSISTENCE = 86400 * 31
_LONGEST_ENGINE = 16
_NO_SNMP = "there is no SNMP agent here"
# The scheduler flags (flag-1, flag-2, flag-3 are 1, 2, 4) that sh and mh call port and fallback.
_FALLBACK = 1
_PORT = 2
# How long a virtual server's flows may be remembered, in seconds.
_LONGEST_IDLE = 86400 * 31


# virtual_server.


def _virtual_server(draft: Draft, at: Cursor) -> VirtualServerDraft:
    server = VirtualServerDraft(draft, at.position)
    first = at.word(1)
    if first == "group":
        server.group = at.word(2)
    elif first == "fwmark":
        mark = read_unsigned(at, at.word(2))
        if mark is None:
            at.report(f"virtual server fwmark '{at.words[2]}' must be in [0, {UINT_MAX}] - ignoring")
            at.skip_block()
            return server
        server.fwmark = mark
    else:
        port = at.words[2] if len(at.words) > 2 else None
        endpoint = read_endpoint(at, first, port)
        if endpoint is None:
            shown = f"/port {first}/{port}" if port and port.strip("0") else f" {first}"
            at.report(f"Invalid virtual server IP address{shown} - skipping")
            at.skip_block()
            return server
        server.address, server.port = endpoint
        server.family = family_of(server.address)
    draft.virtual_servers.append(server)
    return server


def _end_of_virtual_server(server: VirtualServerDraft, at: Cursor) -> None:
    sorry = server.sorry_server
    if sorry and sorry.method != TUNNEL:
        family = family_of(sorry.address)
        if not server.family:
            server.family = family
        elif server.family != family:
            at.report(
                "Address family of virtual server and sorry server"
                f" {format_address(sorry.address)} don't match - skipping sorry server."
            )
            server.sorry_server = None
    if not server.family and not server.group:
        # A mark whose real servers are all tunnelled: their family, if it is the same for all.
        families = {family_of(one.address) for one in (*server.real_servers, server.sorry_server) if one}
        server.family = families.pop() if len(families) == 1 else IPV4


def _ip_family(server: VirtualServerDraft, at: Cursor) -> None:
    family = _FAMILIES.get(at.word(1))
    if family is None:
        at.report(f"unknown address family {at.words[1]}")
    elif server.family and server.family != family:
        at.report(f"Virtual server specified family {at.words[1]} conflicts with server family")
    else:
        server.family = family


def _vs_connect_timeout(server: VirtualServerDraft, at: Cursor) -> None:
    timeout = read_timer(at, at.word(1), 1, CONNECT_TIMEOUT_LIMIT)
    if timeout is None:
        at.report(f"virtual server connect_timeout {at.words[1]} invalid - ignoring")
    else:
        server.connect_timeout = timeout


def _vs_delay_loop(server: VirtualServerDraft, at: Cursor) -> None:
    delay = read_timer(at, at.word(1), 1)
    if delay is None:
        at.report(f"virtual server delay loop '{at.words[1]}' invalid - ignoring")
    else:
        server.delay_loop = delay


def _vs_delay_before_retry(server: VirtualServerDraft, at: Cursor) -> None:
    delay = read_timer(at, at.word(1))
    if delay is None:
        at.report(f"virtual server delay before retry '{at.words[1]}' invalid - ignoring")
    else:
        server.delay_before_retry = delay


def _either_retry(server: VirtualServerDraft | RealServerDraft, at: Cursor) -> None:
    retry = read_unsigned(at, at.word(1), 1, lenient=False)
    if retry is None:
        at.report(f"retry value invalid - {at.words[1]}")
    else:
        server.retry = retry


def _vs_warmup(server: VirtualServerDraft, at: Cursor) -> None:
    warmup = read_timer(at, at.word(1))
    if warmup is None:
        at.report(f"virtual server warmup '{at.words[1]}' invalid - ignoring")
    else:
        server.warmup = warmup


def _vs_inhibit(server: VirtualServerDraft, _at: Cursor) -> None:
    server.inhibit = True


def _scheduler(server: VirtualServerDraft, at: Cursor) -> None:
    if at.word(1) in SCHEDULERS:
        server.scheduler = at.words[1]
    else:
        at.report(f"Invalid lvs_scheduler '{at.words[1]}' - ignoring")


def _flag(server: VirtualServerDraft, at: Cursor) -> None:
    name = at.words[0]
    if name == "ops":
        server.one_packet = True
    elif name.startswith("flag-"):
        server.flags |= 1 << int(name[5:]) - 1
    elif server.scheduler in ("sh", "mh"):
        if name == f"{server.scheduler}-port":
            server.flags |= _PORT
        elif name == f"{server.scheduler}-fallback":
            server.flags |= _FALLBACK
        else:
            at.note(f"{name} does not apply to the {server.scheduler} scheduler - ignoring")
    else:
        at.report(f"{name} only applies to sh scheduler - ignoring")


def _read_method(server: ServerDraft | VirtualServerDraft, at: Cursor, kind: str) -> None:
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


def _vs_method(server: VirtualServerDraft, at: Cursor) -> None:
    _read_method(server, at, "virtual")


def _persistence_engine(server: VirtualServerDraft, at: Cursor) -> None:
    name = at.word(1)
    if len(name) > _LONGEST_ENGINE:
        at.report(f"persistence_name too long, truncating - {name}")
    server.engine = name[:_LONGEST_ENGINE]


def _persistence_timeout(server: VirtualServerDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        server.persistence = DEFAULT_PERSISTENCE
        return
    timeout = read_unsigned(at, at.words[1], 1, _LONGEST_PERSISTENCE, lenient=False)
    if timeout is None:
        at.report("persistence_timeout invalid")
    else:
        server.persistence = timeout


def _persistence_granularity(server: VirtualServerDraft, at: Cursor) -> None:
    text = at.word(1)
    family = server.family or (IPV4 if "." in text else IPV6)
    if family == IPV6:
        length = read_unsigned(at, text, 1, 128, lenient=False)
        if length is None:
            at.report(f"Invalid IPv6 persistence_granularity specified - {text}")
            return
    else:
        try:
            mask = int.from_bytes(socket.inet_aton(text), "big")
        except (OSError, ValueError):
            at.report(f"Invalid IPv4 persistence_granularity specified - {text}")
            return
        length = 32 - (~mask & 0xFFFFFFFF).bit_length()
        if mask != 0xFFFFFFFF << 32 - length & 0xFFFFFFFF:
            at.note(f"persistence_granularity {text} is no netmask: its first {length} bits count here")
    server.granularity = length
    server.family = server.family or family
    server.persistence = server.persistence or DEFAULT_PERSISTENCE


def _protocol(server: VirtualServerDraft, at: Cursor) -> None:
    protocol = _PROTOCOLS.get(at.word(1).upper())
    if protocol is None:
        at.report(f"Unknown protocol {at.words[1]} - ignoring")
    else:
        server.protocol = protocol


def _ha_suspend(server: VirtualServerDraft, _at: Cursor) -> None:
    server.ha_suspend = True


def _vs_smtp_alert(server: VirtualServerDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid virtual_server smtp_alert parameter {at.words[1]}")
    else:
        server.smtp_alert = value


def _vs_virtualhost(server: VirtualServerDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("virtual server virtualhost missing")
    else:
        server.virtualhost = at.words[1]


def _vs_snmp_name(server: VirtualServerDraft, at: Cursor) -> None:
    if len(at.words) != 2:
        at.report("virtual server snmp_name missing or extra parameters")
    else:
        server.snmp_name = at.words[1]


def _vs_alpha(server: VirtualServerDraft, _at: Cursor) -> None:
    server.alpha = True


def _omega(server: VirtualServerDraft, _at: Cursor) -> None:
    server.omega = True


def _quorum_up(server: VirtualServerDraft, at: Cursor) -> None:
    if server.quorum_up:
        group = server.group or "(null)"
        at.report(f"({group}) quorum_up script already specified - ignoring {at.word(1)}")
    else:
        server.quorum_up = read_script(at, server.draft.script_user, "quorum")


def _quorum_down(server: VirtualServerDraft, at: Cursor) -> None:
    if server.quorum_down:
        at.report(
            f"({server.group or '(null)'}) quorum_down script already specified - ignoring {at.word(1)}"
        )
    else:
        server.quorum_down = read_script(at, server.draft.script_user, "quorum")


def _quorum(server: VirtualServerDraft, at: Cursor) -> None:
    quorum = read_unsigned(at, at.word(1), 1)
    if quorum is None:
        at.report(f"Quorum {at.words[1]} must be in [1, {UINT_MAX}]. Setting to 1.")
        quorum = 1
    server.quorum = quorum


def _hysteresis(server: VirtualServerDraft, at: Cursor) -> None:
    hysteresis = read_unsigned(at, at.word(1))
    if hysteresis is None:
        at.report(f"Hysteresis {at.words[1]} must be in [0, {UINT_MAX}] - ignoring")
    else:
        server.hysteresis = hysteresis


def _vs_weight(server: VirtualServerDraft, at: Cursor) -> None:
    weight = read_unsigned(at, at.word(1), 1, MAX_WEIGHT)
    if weight is None:
        at.report(f"Virtual server weight {at.words[1]} is outside range 1-{MAX_WEIGHT}")
    else:
        server.weight = weight


def _idle_timeout(server: VirtualServerDraft, at: Cursor) -> None:
    timeout = read_unsigned(at, at.word(1), 1, _LONGEST_IDLE)
    if timeout is None:
        at.report(f"idle_timeout '{at.words[1]}' must be in [1, {_LONGEST_IDLE}] seconds - ignoring")
    else:
        server.idle_timeout = timeout


def _reject_gone(server: VirtualServerDraft, _at: Cursor) -> None:
    server.reject_gone = True


def _rehome(server: VirtualServerDraft, _at: Cursor) -> None:
    server.rehome = True


def _slow_start(server: VirtualServerDraft | RealServerDraft, at: Cursor) -> None:
    duration = read_timer(at, at.word(1))
    if duration is None:
        at.report(f"slow_start '{at.words[1]}' invalid - ignoring")
    else:
        server.slow_start = duration


def _sorry_server(server: VirtualServerDraft, at: Cursor) -> None:
    endpoint = read_endpoint(at, at.word(1), at.words[2] if len(at.words) > 2 else None)
    if endpoint is None:
        at.report(f"Invalid sorry server IP address {at.words[1]} - skipping")
        return
    server.sorry_server = SorryServerDraft(*endpoint, at.position)
    server.sorry_server.method = server.method
    server.sorry_server.tunnel = server.tunnel


def _sorry_server_inhibit(server: VirtualServerDraft, at: Cursor) -> None:
    if server.sorry_server:
        server.sorry_server.inhibit = True
    else:
        at.report("Ignoring sorry_server inhibit used before or without sorry_server")


def _sorry_server_method(server: VirtualServerDraft, at: Cursor) -> None:
    if server.sorry_server:
        _read_method(server.sorry_server, at, "sorry")
    else:
        at.report("sorry_server forwarding used without sorry_server")


# real_server.


def _real_server(server: VirtualServerDraft, at: Cursor) -> RealServerDraft:
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
    _read_method(server, at, "real")


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


# virtual_server_group.


def _virtual_server_group(draft: Draft, at: Cursor) -> None:
    name = at.word(1)
    group = GroupDraft(name, at.position)
    at.words = [name, *at.words[2:]]
    for _ in at.value_lines():
        _group_entry(group, at)
    families = {entry.family for entry in group.entries}
    if not group.entries:
        at.report(f"virtual server group {name} has no entries - removing")
    elif families == {IPV4, IPV6, 0}:
        at.report(f"virtual server group {name} cannot have IPv4, IPv6 and fwmark without family - removing")
    elif name not in draft.groups:
        # The first of several with one name is the one that is found.
        draft.groups[name] = group


def _group_entry(group: GroupDraft, at: Cursor) -> None:
    """``ADDRESS[-END|/LENGTH] [PORT]`` or ``fwmark MARK [inet|inet6]``."""
    text = at.words[0]
    if text == "fwmark":
        mark = read_unsigned(at, at.word(1))
        if mark is None:
            at.report(f"({group.name}): fwmark '{at.words[1]}' must be in [0, {UINT_MAX}] - ignoring")
            return
        family = 0
        if len(at.words) > 2:
            if at.words[2] not in _FAMILIES:
                at.report(f"({group.name}): fwmark '{mark}' family {at.words[2]} unknown - ignoring")
                return
            family = _FAMILIES[at.words[2]]
        group.entries.append(GroupEntry(fwmark=mark, family=family, position=at.position))
        return
    port = at.words[1] if len(at.words) > 1 and at.words[1].strip("0") else None
    endpoint = read_endpoint(at, text, port)
    if endpoint is None:
        shown = f" /port/{port}" if port else " "
        at.report(f"Invalid virtual server group IP address {text}{shown} - skipping")
        return
    first, number = endpoint
    last = _range_end(first, text, at)
    if last is not None:
        entry = GroupEntry(first, last, number, family=family_of(first), position=at.position)
        group.entries.append(entry)


def _range_end(first: bytes, text: str, at: Cursor) -> bytes | None:
    """The last address of ``A-B``, ``A-last`` or ``A/length``; None, reported, if it is wrong."""
    bits = 8 * len(first)
    start = int.from_bytes(first, "big")
    if "/" in text:
        length = text.partition("/")[2]
        number = int(length) if length.isascii() and length.isdigit() and len(length) < 5 else 0
        if not 1 <= number <= bits:
            at.report(f"Invalid netmask - {text} - skipping")
            return None
        host = (1 << bits - number) - 1
        if start & host:
            at.report(f"Address mask bits not empty - {text} - skipping")
            return None
        return (start | host).to_bytes(len(first), "big")
    _, dash, end = text.partition("-")
    if not dash:
        return first
    if (":" if bits == 128 else ".") in end:
        last = read_address(end)
        if not last:
            at.report(f"Invalid range end {text} - skipping")
            return None
        if len(last) != len(first):
            at.report(f"Range address families do not match {text} - skipping")
            return None
        if last < first:
            at.report(f"Address range end is less than address range start - {text} - skipping")
            return None
        return last
    return _short_range_end(start, bits, end, text, at)


def _short_range_end(start: int, bits: int, end: str, text: str, at: Cursor) -> bytes | None:
    """The last address where only its last part is written: a byte, or 16 bits in hexadecimal."""
    base, most = (16, 0xFFFF) if bits == 128 else (10, 0xFF)
    digits = ""
    for letter in end:
        if letter not in "0123456789abcdefABCDEF"[: 22 if base == 16 else 10]:
            break
        digits += letter
    number = int(digits[:20], base) if digits else 0
    if len(digits) < len(end):
        at.report(
            f"Virtual server group range '{text}' has extra characters at end '{end[len(digits) :]}'",
            Severity.INVALID_NUMBER,
        )
        return None
    if number > most:
        at.report(f"Virtual server group range '{text}' end '{end}' too large", Severity.INVALID_NUMBER)
        return None
    if start & most >= number:
        at.report(f"Address range end is not greater than address range start - {text} - skipping")
        return None
    return (start & ~most | number).to_bytes(bits // 8, "big")


# SSL.


def _ssl(draft: Draft, at: Cursor) -> Draft:
    if draft.tls is not None:
        at.report("SSL context already specified - replacing")
    draft.tls = TlsClient(position=at.position)
    return draft


def _ssl_field(draft: Draft, at: Cursor, field: str, kind: str) -> None:
    assert draft.tls is not None
    if len(at.words) < 2:
        at.report(f"SSL {kind} missing")
        return
    if getattr(draft.tls, field):
        at.report(f"SSL {kind} already specified - replacing")
    changed: dict[str, Any] = {field: at.words[1]}
    draft.tls = replace(draft.tls, **changed)


def _ssl_password(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "password", "password")


def _ssl_ca(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "authorities", "cafile")


def _ssl_certificate(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "certificate", "certfile")


def _ssl_key(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "key", "keyfile")


# The tables.

REAL_SERVER = Section("real_server", _end_of_real_server)
REAL_SERVER.add("weight", _rs_weight, "N", "Default 1; 0 takes no new connection.")
REAL_SERVER.add("lvs_method", _rs_method, "NAT|DR|TUN …", "Default: the virtual server's.")
REAL_SERVER.add("uthreshold", _uthreshold, "N", "No new connection beyond that many; 0: no limit.")
REAL_SERVER.add("lthreshold", _lthreshold, "N", "…until there are no more than that many.")
REAL_SERVER.add("inhibit_on_failure", _rs_inhibit, "[BOOL]", "On failure weight 0, not removal.")
REAL_SERVER.add("notify_up", _notify_up, "COMMAND [USER [GROUP]]", "Run when it becomes available.")
REAL_SERVER.add("notify_down", _notify_down, "COMMAND [USER [GROUP]]", "Run when it fails.")
REAL_SERVER.add("alpha", _rs_alpha, "[BOOL]", "It counts as failed until its checks passed.")
REAL_SERVER.add("retry", _either_retry, "COUNT", "For its checkers.")
REAL_SERVER.add("delay_before_retry", _rs_delay_before_retry, "SECONDS", "For its checkers.")
REAL_SERVER.add("warmup", _rs_warmup, "SECONDS", "For its checkers.")
REAL_SERVER.add("connect_timeout", _rs_connect_timeout, "SECONDS", "For its checkers.")
REAL_SERVER.add("delay_loop", _rs_delay_loop, "SECONDS", "For its checkers.")
REAL_SERVER.add("smtp_alert", _rs_smtp_alert, "[BOOL]", "Mail about it; default yes.")
REAL_SERVER.add("virtualhost", _rs_virtualhost, "NAME", "The Host that HTTP_GET and SSL_GET ask for.")
REAL_SERVER.add("snmp_name", _rs_snmp_name, "NAME", "Its name in SNMP.", remark=_NO_SNMP)
REAL_SERVER.add("slow_start", _slow_start, "SECONDS", "Its weight rises again over this time. xlvs's own.")
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

VIRTUAL_SERVER = Section("virtual_server", _end_of_virtual_server)
VIRTUAL_SERVER.add("ip_family", _ip_family, "inet|inet6", "The family of a mark without addresses.")
VIRTUAL_SERVER.add("retry", _either_retry, "COUNT", "For all checkers of its real servers.")
VIRTUAL_SERVER.add("delay_before_retry", _vs_delay_before_retry, "SECONDS", "For all checkers.")
VIRTUAL_SERVER.add("warmup", _vs_warmup, "SECONDS", "For all checkers; default: the delay_loop.")
VIRTUAL_SERVER.add("connect_timeout", _vs_connect_timeout, "SECONDS", "For all checkers; default 5.")
VIRTUAL_SERVER.add("delay_loop", _vs_delay_loop, "SECONDS", "For all checkers; default 60.")
VIRTUAL_SERVER.add("inhibit_on_failure", _vs_inhibit, "", "On failure weight 0, not removal.")
VIRTUAL_SERVER.add(
    "lvs_sched", _scheduler, "NAME", f"{', '.join(SCHEDULERS)}; default wlc.", aliases=("lb_algo",)
)
VIRTUAL_SERVER.add("hashed", _flag, "", "Has no effect in keepalived either.")
VIRTUAL_SERVER.add("ops", _flag, "", "One-packet scheduling (UDP).")
VIRTUAL_SERVER.add("flag-1", _flag, "", "The scheduler's first flag.", aliases=("flag-2", "flag-3"))
VIRTUAL_SERVER.add("sh-port", _flag, "", "sh takes ports into account. After lvs_sched.")
VIRTUAL_SERVER.add("sh-fallback", _flag, "", "sh goes on to the next when a real server is unavailable.")
VIRTUAL_SERVER.add("mh-port", _flag, "", "mh takes ports into account. After lvs_sched.")
VIRTUAL_SERVER.add("mh-fallback", _flag, "", "mh goes on to the next when a real server is unavailable.")
VIRTUAL_SERVER.add(
    "lvs_method", _vs_method, "NAT|DR|TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum]",
    "The forwarding method; default NAT.", aliases=("lb_kind",),
)  # fmt: skip
VIRTUAL_SERVER.add("persistence_engine", _persistence_engine, "NAME", "sip.")
VIRTUAL_SERVER.add("persistence_timeout", _persistence_timeout, "[SECONDS]", "Persistent; default 360.")
VIRTUAL_SERVER.add("persistence_granularity", _persistence_granularity, "NETMASK", "Clients grouped by it.")
VIRTUAL_SERVER.add("protocol", _protocol, "TCP|UDP|SCTP", "UDP if it is not said.")
VIRTUAL_SERVER.add("ha_suspend", _ha_suspend, "", "Check only while the address is on this host.")
VIRTUAL_SERVER.add("smtp_alert", _vs_smtp_alert, "[BOOL]", "Mail when the quorum is lost or gained.")
VIRTUAL_SERVER.add("virtualhost", _vs_virtualhost, "NAME", "The Host that HTTP_GET and SSL_GET ask for.")
VIRTUAL_SERVER.add("snmp_name", _vs_snmp_name, "NAME", "Its name in SNMP.", remark=_NO_SNMP)
VIRTUAL_SERVER.add("alpha", _vs_alpha, "", "Real servers count as failed until their checks passed.")
VIRTUAL_SERVER.add("omega", _omega, "", "On stop run the scripts for failure, and quorum_down.")
VIRTUAL_SERVER.add("quorum_up", _quorum_up, "COMMAND [USER [GROUP]]", "Run when the quorum is gained.")
VIRTUAL_SERVER.add("quorum_down", _quorum_down, "COMMAND [USER [GROUP]]", "Run when it is lost.")
VIRTUAL_SERVER.add("quorum", _quorum, "N", "The weight that must be available; default 1.")
VIRTUAL_SERVER.add("hysteresis", _hysteresis, "N", "How far from the quorum it changes; default 0.")
VIRTUAL_SERVER.add("weight", _vs_weight, "N", "For real servers that say none; default 1.")
VIRTUAL_SERVER.add("sorry_server", _sorry_server, "ADDRESS [PORT]", "Serves when the quorum is lost.")
VIRTUAL_SERVER.add("sorry_server_inhibit", _sorry_server_inhibit, "", "It stays in the table with weight 0.")
VIRTUAL_SERVER.add("sorry_server_lvs_method", _sorry_server_method, "NAT|DR|TUN …", "Its own method.")
VIRTUAL_SERVER.add("slow_start", _slow_start, "SECONDS", "For its real servers. xlvs's own.")
VIRTUAL_SERVER.add("idle_timeout", _idle_timeout, "SECONDS", "As `xlvsadm --idle-timeout`. xlvs's own.")
VIRTUAL_SERVER.add("reject_gone", _reject_gone, "", "As `xlvsadm --reject-gone`. xlvs's own.")
VIRTUAL_SERVER.add("rehome", _rehome, "", "As `xlvsadm --rehome`. xlvs's own.")
VIRTUAL_SERVER.add("real_server", _real_server, "ADDRESS [PORT]", "A real server.", block=REAL_SERVER)

SSL = Section("SSL")
SSL.add("password", _ssl_password, "TEXT", "Of the key.")
SSL.add("ca", _ssl_ca, "FILE", "The authorities.")
SSL.add("certificate", _ssl_certificate, "FILE", "The client's certificate.")
SSL.add("key", _ssl_key, "FILE", "The client's key.")


def add_server_roots(root: Section) -> None:
    """Enter the blocks of this module that stand by themselves."""
    root.add("SSL", _ssl, "", "What SSL_GET shows a server that wants a client's certificate.", block=SSL)
    root.add(
        "virtual_server_group", _virtual_server_group, "NAME",
        "Lines `ADDRESS[-END|/LENGTH] [PORT]` and `fwmark MARK [inet|inet6]`.",
    )  # fmt: skip
    root.add(
        "virtual_server", _virtual_server, "ADDRESS [PORT] | fwmark MARK | group NAME",
        "A virtual server.", block=VIRTUAL_SERVER,
    )  # fmt: skip
