# SPDX-License-Identifier: GPL-2.0-only
"""What health checks are configured to do: one class for each kind of checker.

Every value here is final.  What a checker does not say itself it has from its
real server, that from its virtual server, and that from keepalived's default.

Units: durations are in seconds (to the microsecond), ports and marks are in
host order, addresses packed (4 or 16 bytes, network byte order).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar

from xlvs.keepalived.origin import Position, Script


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a checker runs and how often it may fail.

    ``delay_loop`` lies between two checks.  The first one comes after a random
    time up to ``warmup``.  A failure is followed by ``retry`` more tries,
    ``delay_before_retry`` apart, before the real server counts as failed.
    With ``alpha`` it counts as failed until a check has passed.
    ``log_all_failures`` logs failures that change nothing, too.
    """

    delay_loop: float = 60.0
    warmup: float = 60.0
    retry: int = 1
    delay_before_retry: float = 1.0
    alpha: bool = False
    log_all_failures: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a checker connects to, and from where.

    ``address`` and ``port`` are the real server's, unless ``connect_ip`` or
    ``connect_port`` say otherwise; port 0 where neither says one.
    ``bind_address`` is empty and ``bind_port`` 0 where the kernel chooses.
    ``fwmark`` is the socket's mark (SO_MARK), 0 for none.  ``timeout`` bounds
    the connection.  ``via_vip`` sends the check through the virtual server's
    own forwarding, to the virtual address on this one real server.
    """

    address: bytes
    port: int
    bind_address: bytes = b""
    bind_port: int = 0
    bind_interface: str = ""
    fwmark: int = 0
    timeout: float = 5.0
    via_vip: bool = False


@dataclass(frozen=True, slots=True)
class TlsVerification:
    """That a server's certificate is verified, and against which authorities.

    ``authorities`` is a file or folder of certificates, empty for the
    system's.  The certificate must be for the name that is sent as SNI, or
    for the address where none is.
    """

    authorities: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What every checker has: when it runs, and where the configuration says so."""

    keyword: ClassVar[str] = ""

    schedule: Schedule
    position: Position = field(default=Position(), compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class TcpCheck(Check):
    """TCP_CHECK: passes when a connection is made."""

    keyword: ClassVar[str] = "TCP_CHECK"

    connection: Connection


class HttpVersion(enum.Enum):
    """The protocol that HTTP_GET and SSL_GET speak, as ``http_protocol`` names it."""

    HTTP_1_0 = "1.0"
    HTTP_1_0_CLOSE = "1.0C"
    """1.0 with ``Connection: close``."""
    HTTP_1_1 = "1.1"
    HTTP_2 = "2"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that a body must have, or with ``absent`` must not have.

    ``options`` are names as keepalived has them (``caseless``, ``dotall``…).
    The match must begin at an offset from ``first`` to ``last``; ``last`` is
    None for anywhere from ``first`` on.
    """

    expression: str
    options: tuple[str, ...] = ()
    absent: bool = False
    first: int = 0
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Url:
    """What HTTP_GET asks for and what makes the answer good.

    ``status`` are ranges (first, last), both included.  ``digest`` is the
    MD5 of the body, empty where it does not matter.
    """

    path: str
    status: tuple[tuple[int, int], ...] = ((200, 299),)
    digest: bytes = b""
    virtualhost: str = ""
    pattern: Pattern | None = None
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class HttpCheck(Check):
    """HTTP_GET and, with ``tls``, SSL_GET: each URL in turn must answer as it should.

    ``virtualhost`` is the Host of every URL that names none itself; empty, it
    is the real server's, then the virtual server's, then the address.
    ``sni`` sends that name in the TLS handshake; ``sni_name`` another one.
    ``fast_recovery`` begins with the URL that failed last.
    """

    keyword: ClassVar[str] = "HTTP_GET"

    connection: Connection
    urls: tuple[Url, ...]
    tls: bool = False
    virtualhost: str = ""
    version: HttpVersion = HttpVersion.HTTP_1_0
    sni: bool = False
    sni_name: str = ""
    verification: TlsVerification | None = None
    fast_recovery: bool = False


@dataclass(frozen=True, slots=True)
class MiscCheck(Check):
    """MISC_CHECK: a script passes with exit status 0.

    After ``timeout`` it gets SIGTERM, two seconds later SIGKILL.  With
    ``dynamic`` the statuses 2 to 255 are good as well, and mean the weight
    that is two less.
    """

    keyword: ClassVar[str] = "MISC_CHECK"

    script: Script
    timeout: float = 60.0
    dynamic: bool = False


@dataclass(frozen=True, slots=True)
class SmtpCheck(Check):
    """SMTP_CHECK: a greeting with 220, HELO answered by 250, QUIT."""

    keyword: ClassVar[str] = "SMTP_CHECK"

    connection: Connection
    helo_name: str = "smtpchecker.keepalived.org"


DNS_TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "RRSIG": 46, "DNSKEY": 48,
}  # fmt: skip
"""The record types that DNS_CHECK may ask for, with their numbers (RFC 1035, 3596, 4034)."""


@dataclass(frozen=True, slots=True)
class DnsCheck(Check):
    """DNS_CHECK: an answer with rcode 0 to a question for ``name``; the empty name is the root."""

    keyword: ClassVar[str] = "DNS_CHECK"

    connection: Connection
    record_type: str = "SOA"
    name: str = ""


@dataclass(frozen=True, slots=True)
class UdpCheck(Check):
    """UDP_CHECK: no ICMP error comes back or, with ``require_reply``, a reply that matches.

    ``reply`` is what a reply must begin with; a set bit in ``reply_mask``, as
    long as it, is a bit that may be anything.  A reply's length must be from
    ``min_reply_length`` to ``max_reply_length``.
    """

    keyword: ClassVar[str] = "UDP_CHECK"

    connection: Connection
    payload: bytes = b""
    require_reply: bool = False
    reply: bytes = b""
    reply_mask: bytes = b""
    min_reply_length: int = 0
    max_reply_length: int = 255


@dataclass(frozen=True, slots=True)
class PingCheck(Check):
    """PING_CHECK: an echo reply within the connection's timeout."""

    keyword: ClassVar[str] = "PING_CHECK"

    connection: Connection


@dataclass(frozen=True, slots=True)
class GrpcCheck(Check):
    """GRPC_CHECK: the health service (grpc.health.v1) answers SERVING.

    ``service`` is the name that it is asked for, empty for the server as a
    whole.  This checker is xlvs's own.
    """

    keyword: ClassVar[str] = "GRPC_CHECK"

    connection: Connection
    service: str = ""
    tls: bool = False
    sni_name: str = ""
    verification: TlsVerification | None = None


@dataclass(frozen=True, slots=True)
class FileCheck(Check):
    """FILE_CHECK: a number in a file changes the weight.

    The number in the tracked file ``name`` times ``weight`` (turned round
    with ``reverse``) is added to the real server's weight; with weight 0 any
    number but 0 means that it has failed.
    """

    keyword: ClassVar[str] = "FILE_CHECK"

    name: str
    path: str
    weight: int = 1
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class BfdCheck(Check):
    """BFD_CHECK: the BFD session ``name`` is up."""

    keyword: ClassVar[str] = "BFD_CHECK"

    name: str


Checker = (
    TcpCheck | HttpCheck | MiscCheck | SmtpCheck | DnsCheck | UdpCheck | PingCheck | GrpcCheck | FileCheck
    | BfdCheck
)  # fmt: skip
"""Any checker."""
