# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of virtual_server."""

from __future__ import annotations

import socket

from xlvs.keepalived.addresses import family_of, format_address, read_endpoint
from xlvs.keepalived.configuration import DEFAULT_PERSISTENCE
from xlvs.keepalived.drafts import (
    Draft,
    SorryServerDraft,
    VirtualServerDraft,
)
from xlvs.keepalived.keywords_check import (
    CONNECT_TIMEOUT_LIMIT,
)
from xlvs.keepalived.keywords_real_server import (
    REAL_SERVER,
    open_real_server,
    read_method,
    read_retry,
    read_slow_start,
)
from xlvs.keepalived.numbers import UINT_MAX, read_switch, read_timer, read_unsigned
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import IPV4, IPV6, MAX_WEIGHT, SCHEDULERS, SCTP, TUNNEL
from xlvs.model import TCP as TCP_PROTOCOL
from xlvs.model import UDP as UDP_PROTOCOL

_PROTOCOLS = {"TCP": TCP_PROTOCOL, "UDP": UDP_PROTOCOL, "SCTP": SCTP}
_FAMILIES = {"inet": IPV4, "inet6": IPV6}
_LONGEST_PERSISTENCE = 86400 * 31
_LONGEST_ENGINE = 16
_NO_SNMP = "there is no SNMP agent here"
_FALLBACK = 1
_PORT = 2
_LONGEST_IDLE = 86400 * 31


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


def _vs_method(server: VirtualServerDraft, at: Cursor) -> None:
    read_method(server, at, "virtual")


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
        read_method(server.sorry_server, at, "sorry")
    else:
        at.report("sorry_server forwarding used without sorry_server")


VIRTUAL_SERVER = Section("virtual_server", _end_of_virtual_server)
VIRTUAL_SERVER.add("ip_family", _ip_family, "inet|inet6", "The family of a mark without addresses.")
VIRTUAL_SERVER.add("retry", read_retry, "COUNT", "For all checkers of its real servers.")
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
VIRTUAL_SERVER.add("slow_start", read_slow_start, "SECONDS", "For its real servers. xlvs's own.")
VIRTUAL_SERVER.add("idle_timeout", _idle_timeout, "SECONDS", "As `xlvsadm --idle-timeout`. xlvs's own.")
VIRTUAL_SERVER.add("reject_gone", _reject_gone, "", "As `xlvsadm --reject-gone`. xlvs's own.")
VIRTUAL_SERVER.add("rehome", _rehome, "", "As `xlvsadm --rehome`. xlvs's own.")
VIRTUAL_SERVER.add("real_server", open_real_server, "ADDRESS [PORT]", "A real server.", block=REAL_SERVER)


def add_server_roots(root: Section) -> None:
    """Enter the block of this module."""
    root.add(
        "virtual_server", _virtual_server, "ADDRESS [PORT] | fwmark MARK | group NAME",
        "A virtual server.", block=VIRTUAL_SERVER,
    )  # fmt: skip
