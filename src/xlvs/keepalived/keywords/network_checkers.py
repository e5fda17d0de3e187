# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of checkers that connect: TCP, PING, SMTP, DNS, UDP, gRPC."""

from __future__ import annotations

from xlvs.keepalived.checks import (
    DNS_TYPES,
    Checker,
    Connection,
    DnsCheck,
    GrpcCheck,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    TlsVerification,
    UdpCheck,
)
from xlvs.keepalived.drafts import CheckerDraft, ConnectionDraft, RealServerDraft
from xlvs.keepalived.keywords.checker import (
    add_common,
    connection_is_complete,
    end_of_connecting,
)
from xlvs.keepalived.keywords.shapes import number, switch, word
from xlvs.keepalived.numbers import read_hexadecimal
from xlvs.keepalived.statements import Action, Cursor, Section


class TcpDraft(CheckerDraft):
    """A TCP_CHECK."""

    __slots__ = ()

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return TcpCheck(schedule, connection, position=self.position)


class PingDraft(CheckerDraft):
    """A PING_CHECK."""

    __slots__ = ()

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return PingCheck(schedule, connection, position=self.position)


class SmtpDraft(CheckerDraft):
    """An SMTP_CHECK; ``hosts`` are its old host blocks, each a check of its own."""

    __slots__ = ("helo_name", "hosts")

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.helo_name = "smtpchecker.keepalived.org"
        self.hosts: list[ConnectionDraft] = []

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return SmtpCheck(schedule, connection, self.helo_name, position=self.position)


class _HostDraft(SmtpDraft):
    """A host block: a connection for another check like the one around it."""

    __slots__ = ("around",)

    def __init__(self, around: SmtpDraft, at: Cursor) -> None:
        super().__init__(around.real_server, at)
        self.around = around


def _host(checker: SmtpDraft, at: Cursor) -> _HostDraft:
    at.note("The SMTP_CHECK host block is deprecated. Please define additional checkers.")
    return _HostDraft(checker, at)


def _end_of_host(host: _HostDraft, at: Cursor) -> None:
    if connection_is_complete(host, host.connection, at):
        host.around.hosts.append(host.connection)


def _end_of_smtp(checker: SmtpDraft, at: Cursor) -> None:
    connections = list(checker.hosts)
    if not checker.connection.is_untouched() or not connections:
        if not connection_is_complete(checker, checker.connection, at):
            return
        connections.insert(0, checker.connection)
    for connection in connections:
        one = SmtpDraft(checker.real_server, at)
        for name in CheckerDraft.__slots__:
            setattr(one, name, getattr(checker, name))
        one.helo_name = checker.helo_name
        one.connection = connection
        checker.real_server.checkers.append(one)


class DnsDraft(CheckerDraft):
    """A DNS_CHECK."""

    __slots__ = ("name", "record_type")

    default_retry = 3
    default_delay_before_retry = None

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.record_type = "SOA"
        self.name: str | None = None

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return DnsCheck(schedule, connection, self.record_type, self.name or "", position=self.position)


def _dns_type(checker: DnsDraft, at: Cursor) -> None:
    name = at.word(1).upper()
    if name not in DNS_TYPES:
        at.report(f"Unknown DNS check type {at.words[1]} - ignoring")
    else:
        checker.record_type = name


def _dns_name(checker: DnsDraft, at: Cursor) -> None:
    if checker.name is not None:
        at.report("DNS_CHECK name already specified - ignoring")
        return
    name = at.word(1)
    if (name.startswith(".") and name != ".") or ".." in name:
        at.report(f"DNS_CHECK name '{name}' has empty label - ignoring")
    else:
        checker.name = name


class UdpDraft(CheckerDraft):
    """A UDP_CHECK."""

    __slots__ = ("max_length", "min_length", "payload", "reply", "reply_mask", "require_reply")

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.payload = b""
        self.require_reply = False
        self.reply = b""
        self.reply_mask = b""
        self.min_length = 0
        self.max_length = 255

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return UdpCheck(
            schedule, connection, self.payload, self.require_reply, self.reply, self.reply_mask,
            self.min_length, self.max_length, position=self.position,
        )  # fmt: skip


def _payload(checker: UdpDraft, at: Cursor) -> None:
    if len(at.words) == 1:
        at.report("UDP_CHECK payload requires a payload")
        return
    read = read_hexadecimal(" ".join(at.words[1:]))
    if read is None:
        at.report("Invalid hex string for UDP_CHECK payload")
    else:
        checker.payload = read[0]


def _require_reply(checker: UdpDraft, at: Cursor) -> None:
    checker.require_reply = True
    if len(at.words) == 1:
        return
    read = read_hexadecimal(" ".join(at.words[1:]), wildcards=True)
    if read is None:
        at.report("Invalid hex string for UDP_CHECK reply")
    else:
        checker.reply, mask = read
        checker.reply_mask = mask if any(mask) else b""


def _length(which: str) -> Action:
    complaint = f"UDP_CHECK {which} length {{}} not valid - must be between 0 & 65535"
    return number(f"{which}_length", complaint, 0, 65535, lenient=False)


def _end_of_udp(checker: UdpDraft, at: Cursor) -> None:
    if not connection_is_complete(checker, checker.connection, at):
        return
    checker.real_server.checkers.append(checker)
    if checker.min_length > checker.max_length:
        at.report(
            f"UDP_CHECK min_reply length {checker.min_length} > max_reply_length"
            f" {checker.max_length} - will always fail"
        )


class GrpcDraft(CheckerDraft):
    """A GRPC_CHECK."""

    __slots__ = ("service", "sni_name", "tls", "verification")

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.service = ""
        self.tls = False
        self.sni_name = ""
        self.verification: TlsVerification | None = None

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return GrpcCheck(
            schedule, connection, self.service, self.tls, self.sni_name, self.verification,
            position=self.position,
        )  # fmt: skip


def _grpc_verify(checker: GrpcDraft, at: Cursor) -> None:
    checker.verification = TlsVerification(at.words[1] if len(at.words) > 1 else "")
    checker.tls = True


TCP = Section("TCP_CHECK", end_of_connecting)
add_common(TCP)
PING = Section("PING_CHECK", end_of_connecting)
add_common(PING, by_tcp=False)
SMTP = Section("SMTP_CHECK", _end_of_smtp)
add_common(SMTP)
SMTP.add("helo_name", word("helo_name", "SMTP_CHECK helo name missing"), "NAME", "What HELO says.")
SMTP_HOST = Section("host", _end_of_host)
add_common(SMTP_HOST)
SMTP.add("host", _host, "", "Another address to check; use another SMTP_CHECK instead.", block=SMTP_HOST)
DNS = Section("DNS_CHECK", end_of_connecting)
add_common(DNS, by_tcp=False)
DNS.add("type", _dns_type, "TYPE", f"{', '.join(DNS_TYPES)}; default SOA.")
DNS.add("name", _dns_name, "NAME", "What to ask for; default: the root.")
UDP = Section("UDP_CHECK", _end_of_udp)
add_common(UDP, by_tcp=False)
UDP.add("payload", _payload, "HEX", "What to send.")
UDP.add("require_reply", _require_reply, "[HEX]", "A reply must come, and begin with this; x is any digit.")
UDP.add("min_reply_length", _length("min"), "BYTES", "A reply's least length; default 0.")
UDP.add("max_reply_length", _length("max"), "BYTES", "A reply's greatest length; default 255.")
GRPC = Section("GRPC_CHECK", end_of_connecting)
add_common(GRPC)
GRPC.add("service", word("service"), "NAME", "Whose health to ask for; default: the server's.")
GRPC.add("tls", switch("tls", "Invalid tls parameter {}"), "[BOOL]", "Speak TLS.")
GRPC.add("sni_name", word("sni_name"), "NAME", "The name for SNI and in the certificate.")
GRPC.add("tls_verify", _grpc_verify, "[AUTHORITIES]", "Speak TLS and verify the certificate.")
