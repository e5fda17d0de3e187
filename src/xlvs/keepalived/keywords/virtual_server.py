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
from xlvs.keepalived.keywords.checker import CONNECT_TIMEOUT_LIMIT
from xlvs.keepalived.keywords.real_server import (
    NO_SNMP,
    REAL_SERVER,
    open_real_server,
    read_method,
    read_retry,
    read_slow_start,
)
from xlvs.keepalived.keywords.shapes import flag, number, script, switch, timer, word
from xlvs.keepalived.numbers import UINT_MAX, read_unsigned
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import IPV4, IPV6, MAX_WEIGHT, SCHEDULERS, SCTP, TUNNEL
from xlvs.model import TCP as TCP_PROTOCOL
from xlvs.model import UDP as UDP_PROTOCOL

_PROTOCOLS = {"TCP": TCP_PROTOCOL, "UDP": UDP_PROTOCOL, "SCTP": SCTP}
_FAMILIES = {"inet": IPV4, "inet6": IPV6}
_LONGEST_PERSISTENCE = 86400 * 31
_LONGEST_ENGINE = 16
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


def _quorum(server: VirtualServerDraft, at: Cursor) -> None:
    quorum = read_unsigned(at, at.word(1), 1)
    if quorum is None:
        at.report(f"Quorum {at.words[1]} must be in [1, {UINT_MAX}]. Setting to 1.")
        quorum = 1
    server.quorum = quorum


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


_INVALID = "virtual server %s '{}' invalid - ignoring"
VIRTUAL_SERVER = Section("virtual_server", _end_of_virtual_server)
VIRTUAL_SERVER.add("ip_family", _ip_family, "inet|inet6", "The family of a mark without addresses.")
VIRTUAL_SERVER.add("retry", read_retry, "COUNT", "For all checkers of its real servers.")
VIRTUAL_SERVER.add(
    "delay_before_retry",
    timer("delay_before_retry", _INVALID % "delay before retry"),
    "SECONDS",
    "For all checkers.",
)
VIRTUAL_SERVER.add(
    "warmup", timer("warmup", _INVALID % "warmup"), "SECONDS", "For all checkers; default: the delay_loop."
)
VIRTUAL_SERVER.add(
    "connect_timeout",
    timer(
        "connect_timeout", "virtual server connect_timeout {} invalid - ignoring", 1, CONNECT_TIMEOUT_LIMIT
    ),
    "SECONDS",
    "For all checkers; default 5.",
)
VIRTUAL_SERVER.add(
    "delay_loop", timer("delay_loop", _INVALID % "delay loop", 1), "SECONDS", "For all checkers; default 60."
)
VIRTUAL_SERVER.add("inhibit_on_failure", flag("inhibit"), "", "On failure weight 0, not removal.")
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
VIRTUAL_SERVER.add("ha_suspend", flag("ha_suspend"), "", "Check only while the address is on this host.")
VIRTUAL_SERVER.add(
    "smtp_alert",
    switch("smtp_alert", "Invalid virtual_server smtp_alert parameter {}"),
    "[BOOL]",
    "Mail when the quorum is lost or gained.",
)
VIRTUAL_SERVER.add(
    "virtualhost",
    word("virtualhost", "virtual server virtualhost missing"),
    "NAME",
    "The Host that HTTP_GET and SSL_GET ask for.",
)
VIRTUAL_SERVER.add(
    "snmp_name",
    word("snmp_name", "virtual server snmp_name missing or extra parameters", alone=True),
    "NAME",
    "Its name in SNMP.",
    remark=NO_SNMP,
)
VIRTUAL_SERVER.add("alpha", flag("alpha"), "", "Real servers count as failed until their checks passed.")
VIRTUAL_SERVER.add("omega", flag("omega"), "", "On stop run the scripts for failure, and quorum_down.")
VIRTUAL_SERVER.add(
    "quorum_up", script("quorum_up", "quorum"), "COMMAND [USER [GROUP]]", "Run when the quorum is gained."
)
VIRTUAL_SERVER.add(
    "quorum_down", script("quorum_down", "quorum"), "COMMAND [USER [GROUP]]", "Run when it is lost."
)
VIRTUAL_SERVER.add("quorum", _quorum, "N", "The weight that must be available; default 1.")
VIRTUAL_SERVER.add(
    "hysteresis",
    number("hysteresis", f"Hysteresis {{}} must be in [0, {UINT_MAX}] - ignoring"),
    "N",
    "How far from the quorum it changes; default 0.",
)
VIRTUAL_SERVER.add(
    "weight",
    number("weight", f"Virtual server weight {{}} is outside range 1-{MAX_WEIGHT}", 1, MAX_WEIGHT),
    "N",
    "For real servers that say none; default 1.",
)
VIRTUAL_SERVER.add("sorry_server", _sorry_server, "ADDRESS [PORT]", "Serves when the quorum is lost.")
VIRTUAL_SERVER.add("sorry_server_inhibit", _sorry_server_inhibit, "", "It stays in the table with weight 0.")
VIRTUAL_SERVER.add("sorry_server_lvs_method", _sorry_server_method, "NAT|DR|TUN …", "Its own method.")
VIRTUAL_SERVER.add("slow_start", read_slow_start, "SECONDS", "For its real servers. xlvs's own.")
VIRTUAL_SERVER.add(
    "idle_timeout",
    number(
        "idle_timeout",
        f"idle_timeout '{{}}' must be in [1, {_LONGEST_IDLE}] seconds - ignoring",
        1,
        _LONGEST_IDLE,
    ),
    "SECONDS",
    "As `xlvsadm --idle-timeout`. xlvs's own.",
)
VIRTUAL_SERVER.add("reject_gone", flag("reject_gone"), "", "As `xlvsadm --reject-gone`. xlvs's own.")
VIRTUAL_SERVER.add("rehome", flag("rehome"), "", "As `xlvsadm --rehome`. xlvs's own.")
VIRTUAL_SERVER.add("real_server", open_real_server, "ADDRESS [PORT]", "A real server.", block=REAL_SERVER)


def add_server_roots(root: Section) -> None:
    """Enter the block of this module."""
    root.add(
        "virtual_server", _virtual_server, "ADDRESS [PORT] | fwmark MARK | group NAME",
        "A virtual server.", block=VIRTUAL_SERVER,
    )  # fmt: skip
