# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of checkers, and how each makes its value."""

from __future__ import annotations

from dataclasses import replace

from xlvs.keepalived.addresses import format_address, is_link_local, read_address
from xlvs.keepalived.checks import (
    DNS_TYPES,
    BfdCheck,
    Checker,
    Connection,
    DnsCheck,
    FileCheck,
    GrpcCheck,
    MiscCheck,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    TlsVerification,
    UdpCheck,
)
from xlvs.keepalived.configuration import trio
from xlvs.keepalived.drafts import CheckerDraft, ConnectionDraft, RealServerDraft
from xlvs.keepalived.numbers import (
    SECOND,
    UINT_MAX,
    read_hexadecimal,
    read_int,
    read_switch,
    read_timer,
    read_unsigned,
)
from xlvs.keepalived.origin import Script
from xlvs.keepalived.scripts import command, find_user, quoted
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import MAX_WEIGHT

_MOST_INTERFACE_LETTERS = 15
CONNECT_TIMEOUT_LIMIT = UINT_MAX
"""The longest connect_timeout, in microseconds."""


# What every checker that connects has.


def _connect_ip(checker: CheckerDraft, at: Cursor) -> None:
    connection = checker.connection
    text = at.word(1)
    address = read_address(text)
    if not address:
        at.report(f"Invalid connect_ip address {text} - ignoring")
    elif connection.bind_address and len(connection.bind_address) != len(address):
        at.report(f"connect_ip address {text} does not match address family of bindto - skipping")
    else:
        connection.address = address


def _connect_port(checker: CheckerDraft, at: Cursor) -> None:
    port = read_unsigned(at, at.word(1), 1, 65535)
    if port is None:
        at.report(f"Invalid checker connect_port '{at.words[1]}'")
    else:
        checker.connection.port = port


def _bindto(checker: CheckerDraft, at: Cursor) -> None:
    text = at.word(1)
    address = read_address(text)
    expected = checker.connection.address or checker.real_server.address
    if not address:
        at.report(f"Invalid bindto address {text} - ignoring")
    elif len(expected) != len(address):
        at.report(f"bindto address {text} does not match address family of connect_ip - skipping")
    else:
        checker.connection.bind_address = address


def _bind_port(checker: CheckerDraft, at: Cursor) -> None:
    port = read_unsigned(at, at.word(1), 1, 65535)
    if port is None:
        at.report(f"Invalid checker bind_port '{at.words[1]}'")
    else:
        checker.connection.bind_port = port


def _bind_if(checker: CheckerDraft, at: Cursor) -> None:
    name = at.word(1)
    if len(name.encode("utf-8", "surrogateescape")) > _MOST_INTERFACE_LETTERS:
        at.report(f"Interface name {name} is too long - ignoring")
    else:
        checker.connection.bind_interface = name


def _connect_timeout(checker: CheckerDraft, at: Cursor) -> None:
    timeout = read_timer(at, at.word(1), 1, CONNECT_TIMEOUT_LIMIT)
    if timeout is None:
        at.report(f"connect_timeout {at.words[1]} invalid - ignoring")
    else:
        checker.connection.timeout = timeout


def _fwmark(checker: CheckerDraft, at: Cursor) -> None:
    mark = read_unsigned(at, at.word(1))
    if mark is None:
        at.report(f"Invalid fwmark connection value '{at.words[1]}'")
    else:
        checker.connection.fwmark = mark


def _via(checker: CheckerDraft, at: Cursor) -> None:
    if at.word(1) != "vip":
        at.report(f"Unknown via '{at.words[1]}': only 'via vip' is known - ignoring")
    else:
        checker.connection.via_vip = True


def _no_via(_checker: CheckerDraft, at: Cursor) -> None:
    at.report(
        "'via vip' is for checks by TCP - ignoring, the real server's own address is checked:"
        " remove it, or add a TCP_CHECK with 'via vip'"
    )


# What every checker has.


def _retry(checker: CheckerDraft, at: Cursor) -> None:
    retry = read_unsigned(at, at.word(1))
    if retry is None:
        at.report(f"Invalid retry connection value '{at.words[1]}'")
    else:
        checker.retry = retry


def _delay_before_retry(checker: CheckerDraft, at: Cursor) -> None:
    delay = read_timer(at, at.word(1))
    if delay is None:
        at.report(f"Invalid delay_before_retry connection value '{at.words[1]}'")
    else:
        checker.delay_before_retry = delay


def _warmup(checker: CheckerDraft, at: Cursor) -> None:
    warmup = read_timer(at, at.word(1))
    if warmup is None:
        at.report(f"Invalid warmup connection value '{at.words[1]}'")
    else:
        checker.warmup = warmup


def _delay_loop(checker: CheckerDraft, at: Cursor) -> None:
    delay = read_timer(at, at.word(1), 1)
    if delay is None:
        at.report(f"delay_loop '{at.words[1]}' is invalid - ignoring")
    else:
        checker.delay_loop = delay


def _alpha(checker: CheckerDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid alpha parameter {at.words[1]}")
    else:
        checker.alpha = value


def _log_all_failures(checker: CheckerDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid log_all_failures parameter {at.words[1]}")
    else:
        checker.log_all_failures = value


def add_common(section: Section, *, connects: bool = True, by_tcp: bool = True) -> None:
    """Enter what every checker has, and with ``connects`` what those have that connect.

    Only checks ``by_tcp`` can go through the VIP.
    """
    if connects:
        section.add("connect_ip", _connect_ip, "ADDRESS", "Connect there, not to the real server.")
        section.add("connect_port", _connect_port, "PORT", "Connect to that port.")
        section.add("bindto", _bindto, "ADDRESS", "Connect from that address.")
        section.add("bind_port", _bind_port, "PORT", "Connect from that port.")
        section.add("bind_if", _bind_if, "INTERFACE", "Connect through that interface.")
        section.add("connect_timeout", _connect_timeout, "SECONDS", "How long to wait; default 5.")
        section.add("fwmark", _fwmark, "MARK", "The socket's firewall mark.")
        if by_tcp:
            meaning = (
                "Check through the virtual server's own forwarding, at the virtual address. xlvs's own."
            )
        else:
            meaning = "An error: only checks by TCP go through the VIP."
        section.add("via", _via if by_tcp else _no_via, "vip", meaning)
    section.add("retry", _retry, "COUNT", "How many more tries before it counts as failed.")
    section.add("delay_before_retry", _delay_before_retry, "SECONDS", "Time before each of those tries.")
    section.add("warmup", _warmup, "SECONDS", "The first check comes within this time.")
    section.add("delay_loop", _delay_loop, "SECONDS", "Time between checks.")
    section.add("alpha", _alpha, "[BOOL]", "The real server counts as failed until a check passed.")
    section.add("log_all_failures", _log_all_failures, "[BOOL]", "Log failures that change nothing, too.")


def connection_is_complete(checker: CheckerDraft, connection: ConnectionDraft, at: Cursor) -> bool:
    """Does the connection say all that it needs?  An IPv6 link-local address needs an interface."""
    address = connection.address or checker.real_server.address
    if is_link_local(address) and not connection.bind_interface:
        at.report(f"Checker link local address {format_address(address)} requires a bind_if")
        return False
    return True


def end_of_connecting(checker: CheckerDraft, at: Cursor) -> None:
    """The end of a checker that connects: it counts only if the connection is complete."""
    if connection_is_complete(checker, checker.connection, at):
        checker.real_server.checkers.append(checker)


# TCP_CHECK and PING_CHECK.


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


# MISC_CHECK.


class MiscDraft(CheckerDraft):
    """A MISC_CHECK; ``ids`` is False once its user turned out not to exist."""

    __slots__ = ("arguments", "dynamic", "group", "ids", "timeout", "user")

    default_retry = 0
    connects = False

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.arguments: tuple[str, ...] = ()
        self.timeout = 0
        self.dynamic = False
        self.user = ""
        self.group = ""
        self.ids: tuple[int, int] | None = None

    def finish(self, schedule: Schedule, _connection: Connection) -> Checker:
        uid, gid = self.ids or (0, 0)
        script = Script(self.arguments, uid, gid, self.user, self.group, self.position)
        timeout = float(self.timeout) or self.real_server.virtual_server.delay_loop
        return MiscCheck(schedule, script, timeout, self.dynamic, position=self.position)


def _misc_path(checker: MiscDraft, at: Cursor) -> None:
    checker.arguments = command(at, at.escaped_words()) or checker.arguments


def _misc_timeout(checker: MiscDraft, at: Cursor) -> None:
    timeout = read_unsigned(at, at.word(1), 0, UINT_MAX // SECOND)
    if timeout is None:
        at.report(f"Invalid misc_timeout value '{at.words[1]}'")
    else:
        checker.timeout = timeout


def _misc_dynamic(checker: MiscDraft, _at: Cursor) -> None:
    checker.dynamic = True


def _misc_user(checker: MiscDraft, at: Cursor) -> None:
    shown = quoted(checker.arguments)
    if len(at.words) < 2:
        at.report(f"No user specified for misc checker script {shown}")
        return
    group = at.words[2] if len(at.words) > 2 else ""
    checker.ids = find_user(at, at.words[1], group)
    if checker.ids is None:
        at.report(f"Failed to set uid/gid for misc checker script {shown} - removing")
        at.skip_block(opened=True)
    checker.user, checker.group = at.words[1], group


def _end_of_misc(checker: MiscDraft, at: Cursor) -> None:
    if not checker.arguments:
        at.report("No script path has been specified for MISC_CHECKER - skipping")
        return
    if checker.ids is None:
        checker.ids = checker.real_server.draft.script_user.ids(at)
        if checker.ids is None:
            shown = quoted(checker.arguments)
            at.report(f"Unable to set default user for misc script {shown} - removing")
            return
    checker.real_server.checkers.append(checker)


# SMTP_CHECK.


class SmtpDraft(CheckerDraft):
    """An SMTP_CHECK; ``hosts`` are its old host blocks, each a check of its own."""

    __slots__ = ("helo_name", "hosts")

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.helo_name = "smtpchecker.keepalived.org"
        self.hosts: list[ConnectionDraft] = []

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        return SmtpCheck(schedule, connection, self.helo_name, position=self.position)


def _helo_name(checker: SmtpDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("SMTP_CHECK helo name missing")
    else:
        checker.helo_name = at.words[1]


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


# DNS_CHECK.


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


# UDP_CHECK.


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


def _min_reply_length(checker: UdpDraft, at: Cursor) -> None:
    length = read_unsigned(at, at.word(1), 0, 65535, lenient=False)
    if length is None:
        at.report(f"UDP_CHECK min length {at.words[1]} not valid - must be between 0 & 65535")
    else:
        checker.min_length = length


def _max_reply_length(checker: UdpDraft, at: Cursor) -> None:
    length = read_unsigned(at, at.word(1), 0, 65535, lenient=False)
    if length is None:
        at.report(f"UDP_CHECK max length {at.words[1]} not valid - must be between 0 & 65535")
    else:
        checker.max_length = length


def _end_of_udp(checker: UdpDraft, at: Cursor) -> None:
    if not connection_is_complete(checker, checker.connection, at):
        return
    checker.real_server.checkers.append(checker)
    if checker.min_length > checker.max_length:
        at.report(
            f"UDP_CHECK min_reply length {checker.min_length} > max_reply_length"
            f" {checker.max_length} - will always fail"
        )


# FILE_CHECK.


class FileDraft(CheckerDraft):
    """A FILE_CHECK; ``weight`` None is the tracked file's."""

    __slots__ = ("name", "path", "reverse", "weight")

    connects = False

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.name = ""
        self.path = ""
        self.weight: int | None = None
        self.reverse = False

    def finish(self, schedule: Schedule, _connection: Connection) -> Checker:
        return FileCheck(
            schedule, self.name, self.path, self.weight or 0, self.reverse, position=self.position
        )


def _file_track(checker: FileDraft, at: Cursor) -> None:
    name = at.word(1)
    tracked = checker.real_server.draft.track_files.get(name)
    if tracked is None:
        at.report(f"track_file {name} not found")
    else:
        checker.name, checker.path = name, tracked.path


def _file_weight(checker: FileDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("track file weight missing")
        return
    weight = read_int(at, at.words[1], -MAX_WEIGHT, MAX_WEIGHT)
    if weight is None:
        at.report(f"weight for track file must be in [{-MAX_WEIGHT}..{MAX_WEIGHT}] inclusive. Ignoring...")
        return
    reverse = False
    if len(at.words) >= 3:
        if at.words[2] not in ("reverse", "noreverse"):
            at.report(f"unknown track file weight option {at.words[2]} - ignoring")
            return
        reverse = at.words[2] == "reverse"
    checker.weight, checker.reverse = weight, reverse


def _end_of_file_check(checker: FileDraft, at: Cursor) -> None:
    if not checker.name:
        at.report("FILE_CHECK has no track_file specified - ignoring")
        return
    if checker.weight is None:
        tracked = checker.real_server.draft.track_files[checker.name]
        checker.weight, checker.reverse = tracked.weight, tracked.reverse
    checker.alpha = False  # its state is known at once
    checker.real_server.checkers.append(checker)


# BFD_CHECK.


class BfdDraft(CheckerDraft):
    """A BFD_CHECK."""

    __slots__ = ("name",)

    connects = False

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.name = ""

    def finish(self, schedule: Schedule, _connection: Connection) -> Checker:
        # A session that goes down has waited long enough: keepalived tries nothing again either.
        return BfdCheck(replace(schedule, retry=0), self.name, position=self.position)


def _bfd_name(checker: BfdDraft, at: Cursor) -> None:
    real_server = checker.real_server
    shown = trio(real_server.address, real_server.port, real_server.virtual_server.protocol)
    name = at.words[1] if len(at.words) > 1 else ""
    if len(at.words) != 2:
        wrong = "BFD_CHECK - No or too many names specified - skipping checker"
    elif name not in real_server.draft.bfd_names:
        wrong = f"BFD_CHECK - BFD {name} not configured"
    elif checker.name:
        wrong = f"BFD_CHECK - BFD {name} already specified as {checker.name}"
    elif name in real_server.bfd_names:
        wrong = f"BFD_CHECK - RS already monitoring {name}"
    else:
        checker.name = name
        return
    at.report(f"({shown}) {wrong}")
    at.skip_block(opened=True)


def _end_of_bfd(checker: BfdDraft, at: Cursor) -> None:
    real_server = checker.real_server
    if not checker.name:
        shown = trio(real_server.address, real_server.port, real_server.virtual_server.protocol)
        at.report(f"({shown}) No name has been specified for BFD_CHECKER - skipping")
        return
    real_server.bfd_names.add(checker.name)
    real_server.checkers.append(checker)


# GRPC_CHECK.


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


def _grpc_service(checker: GrpcDraft, at: Cursor) -> None:
    checker.service = at.word(1)


def _grpc_tls(checker: GrpcDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid tls parameter {at.words[1]}")
    else:
        checker.tls = value


def _grpc_sni_name(checker: GrpcDraft, at: Cursor) -> None:
    checker.sni_name = at.word(1)


def _grpc_verify(checker: GrpcDraft, at: Cursor) -> None:
    checker.verification = TlsVerification(at.words[1] if len(at.words) > 1 else "")
    checker.tls = True


# The tables.

TCP = Section("TCP_CHECK", end_of_connecting)
add_common(TCP)

PING = Section("PING_CHECK", end_of_connecting)
add_common(PING, by_tcp=False)

MISC = Section("MISC_CHECK", _end_of_misc)
add_common(MISC, connects=False)
MISC.add("misc_path", _misc_path, "COMMAND", "The script and its arguments, in quotes.")
MISC.add("misc_timeout", _misc_timeout, "SECONDS", "How long it may take; default: the delay_loop.")
MISC.add("misc_dynamic", _misc_dynamic, "", "Exit status 2 to 255 sets the weight to two less.")
MISC.add("user", _misc_user, "USER [GROUP]", "Who runs it; default: script_user.")

SMTP = Section("SMTP_CHECK", _end_of_smtp)
add_common(SMTP)
SMTP.add("helo_name", _helo_name, "NAME", "What HELO says.")
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
UDP.add("min_reply_length", _min_reply_length, "BYTES", "A reply's least length; default 0.")
UDP.add("max_reply_length", _max_reply_length, "BYTES", "A reply's greatest length; default 255.")

FILE = Section("FILE_CHECK", _end_of_file_check)
FILE.add("track_file", _file_track, "NAME", "A track_file of the configuration, before this one.")
FILE.add("weight", _file_weight, "WEIGHT [reverse|noreverse]", "Times the number is added to the weight.")

BFD = Section("BFD_CHECK", _end_of_bfd)
BFD.add("name", _bfd_name, "NAME", "A bfd_instance of the configuration, before this one.")
BFD.add("alpha", _alpha, "[BOOL]", "The real server counts as failed until the session is up.")

GRPC = Section("GRPC_CHECK", end_of_connecting)
add_common(GRPC)
GRPC.add("service", _grpc_service, "NAME", "Whose health to ask for; default: the server's.")
GRPC.add("tls", _grpc_tls, "[BOOL]", "Speak TLS.")
GRPC.add("sni_name", _grpc_sni_name, "NAME", "The name for SNI and in the certificate.")
GRPC.add("tls_verify", _grpc_verify, "[AUTHORITIES]", "Speak TLS and verify the certificate.")
