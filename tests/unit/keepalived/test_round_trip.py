# SPDX-License-Identifier: GPL-2.0-only
"""Random virtual servers, printed as a keepalived.conf, are read back as they were."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.unit.keepalived.printing import print_virtual_server
from xlvs.keepalived.checks import (
    DNS_TYPES,
    BfdCheck,
    Checker,
    Connection,
    DnsCheck,
    FileCheck,
    GrpcCheck,
    HttpCheck,
    HttpVersion,
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
from xlvs.keepalived.configuration import RealServer, SorryServer, VirtualServer, checker_identity
from xlvs.keepalived.diagnostics import Verdict
from xlvs.keepalived.origin import Script
from xlvs.keepalived.parse import parse
from xlvs.keepalived.surroundings import Surroundings
from xlvs.model import (
    IPV4,
    IPV6,
    MASQUERADE,
    ROUTE,
    SCHEDULERS,
    SCTP,
    TCP,
    TUNNEL,
    UDP,
    Destination,
    Service,
    ServiceKey,
    Tunnel,
)

AROUND = Surroundings("director", "director", {"lo": 0x49, "eth0": 0x1043}, 2)
PREAMBLE = """global_defs {
    enable_script_security
    script_user root
}
track_file load {
    file /run/load
}
bfd_instance session {
    neighbor_ip 192.0.2.1
}
"""
TUNNELS = (Tunnel(), Tunnel("gre"), Tunnel("gre", 0, "csum"), Tunnel("gue", 6080, "remcsum"))
PRINTABLE = string.ascii_letters + string.digits + " '\\!#%&()*+,-./:;<=>?@[]^_`|~"
PATTERNS = ("^ok$", r"a\.b \"c\" 'd'", "x y#z!")


class Maker:
    """Makes random values."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def maybe(self) -> bool:
        return self.random.random() < 0.5

    def number(self, low: int, high: int) -> int:
        """A number, often at an end of its range."""
        return self.random.choice((low, high, self.random.randint(low, high)))

    def duration(self) -> float:
        return self.number(1, 10**9) / 10**6

    def word(self) -> str:
        return "".join(self.random.choices(string.ascii_lowercase + string.digits, k=5))

    def text(self, letters: str = PRINTABLE) -> str:
        return "".join(self.random.choices(letters, k=self.random.randint(1, 9)))

    def address(self, family: int) -> bytes:
        return self.random.randbytes(4) if family == IPV4 else b"\x20" + self.random.randbytes(15)

    def script(self) -> Script | None:
        if self.maybe():
            return None
        words = [self.text() for _ in range(self.random.randint(0, 2))]
        return Script(("/usr/bin/true", *words), user="root", group="root")

    def schedule(self) -> Schedule:
        return Schedule(
            self.duration(), self.duration() * self.maybe(), self.number(0, 2**32 - 1),
            self.duration() * self.maybe(), self.maybe(), self.maybe(),
        )  # fmt: skip

    def connection(self, family: int) -> Connection:
        return Connection(
            self.address(family), self.number(1, 65535), self.address(family) * self.maybe(),
            self.number(1, 65535) * self.maybe(), "eth0" * self.maybe(), self.number(0, 2**32 - 1),
            self.number(1, 2**32 - 1) / 10**6, self.maybe(),
        )  # fmt: skip

    def url(self) -> Url:
        ranges = [sorted((self.number(100, 599), self.number(100, 599))) for _ in range(2)]
        pattern = None
        if self.maybe():
            options = tuple(self.random.sample(("caseless", "multiline"), self.random.randint(0, 2)))
            last = self.number(10, 20) if self.maybe() else None
            expression = self.random.choice(PATTERNS)
            pattern = Pattern(expression, options, self.maybe(), self.number(0, 10), last)
        status = tuple(sorted({(low, high) for low, high in ranges}))
        digest = self.random.randbytes(16) * self.maybe()
        path = "/" + self.text().replace("\\", "")
        return Url(path, status, digest, self.word() * self.maybe(), pattern)

    def verification(self) -> TlsVerification | None:
        return TlsVerification("/etc/ssl/ca.pem" * self.maybe()) if self.maybe() else None

    def udp_check(self, family: int) -> UdpCheck:
        reply, mask, required = (
            self.random.randbytes(3),
            self.random.choices(b"\x00\x0f\xf0\xff", k=3),
            self.maybe(),
        )
        known = bytes(byte & ~bits for byte, bits in zip(reply, mask, strict=True))
        low, high = sorted((self.number(0, 65535), self.number(0, 65535)))
        return UdpCheck(
            self.schedule(), replace(self.connection(family), via_vip=False), self.random.randbytes(4),
            required,
            known * required, bytes(mask) * (required and any(mask)), low, high,
        )  # fmt: skip

    def http_check(self, family: int) -> HttpCheck:
        tls = self.maybe()
        return HttpCheck(
            self.schedule(), self.connection(family), tuple(self.url() for _ in range(2)), tls, self.word(),
             self.random.choice(list(HttpVersion)), self.maybe(), "",
            self.verification() if tls else None, self.maybe(),
        )  # fmt: skip

    def grpc_check(self, family: int) -> GrpcCheck:
        verification = self.verification()
        tls = verification is not None or self.maybe()
        service = self.word() * self.maybe()
        return GrpcCheck(self.schedule(), self.connection(family), service, tls, "", verification)

    def checker(self, family: int, delay_loop: float) -> Checker:
        inherited = Schedule(delay_loop, delay_loop, 1, 1.0, False)
        schedule, connection = self.schedule(), self.connection(family)
        name = self.random.choice(sorted(DNS_TYPES))
        script = Script(("/usr/bin/true", self.text()), user="root", group="root")
        makers = (
            lambda: TcpCheck(schedule, connection),
            lambda: PingCheck(schedule, replace(connection, via_vip=False)),
            lambda: SmtpCheck(schedule, connection, self.word()),
            lambda: DnsCheck(schedule, replace(connection, via_vip=False), name, self.word() * self.maybe()),
            lambda: MiscCheck(schedule, script, float(self.number(1, 4000)), self.maybe()),
            lambda: FileCheck(inherited, "load", "/run/load", self.number(-5, 5), self.maybe()),
            lambda: self.udp_check(family),
            lambda: self.http_check(family),
            lambda: self.grpc_check(family),
        )
        return self.random.choice(makers)()

    def destination(self, family: int, port: int) -> Destination:
        """A real server; ``port`` is the only one that methods other than NAT may have."""
        method = self.random.choice((MASQUERADE, ROUTE, TUNNEL))
        return Destination(
            self.address(family), self.number(1, 65535) if method == MASQUERADE else port, method,
            self.number(0, 1000), self.number(0, 2**32 - 1), self.number(0, 2**32 - 1),
            self.random.choice(TUNNELS) if method == TUNNEL else None,
        )  # fmt: skip

    def real_server(self, family: int, port: int, delay_loop: float) -> RealServer:
        checkers = [self.checker(family, delay_loop) for _ in range(self.random.randint(0, 3))]
        alpha = self.maybe()
        if self.maybe():
            checkers.append(BfdCheck(Schedule(delay_loop, delay_loop, 0, 1.0, self.maybe()), "session"))
        return RealServer(
            self.destination(family, port), tuple(checkers), self.maybe(), alpha, self.script(),
            self.script(), self.maybe(), self.word() * self.maybe(), "", self.duration() * self.maybe(),
        )  # fmt: skip

    def virtual_server(self) -> VirtualServer:
        family = self.random.choice((IPV4, IPV6))
        fwmark = self.number(1, 2**32 - 1) * self.maybe()
        protocol = 0 if fwmark else self.random.choice((TCP, UDP, SCTP))
        address = b"" if fwmark else self.address(family)
        port = 0 if fwmark else self.number(1, 65535)
        delay_loop = self.duration()
        made = [self.real_server(family, port, delay_loop) for _ in range(self.random.randint(1, 3))]
        real_servers = tuple({one.key: one for one in made}.values())
        total = sum(one.destination.weight for one in real_servers)
        if total == 0:
            real_servers[0].destination.weight = total = 1
        quorum = self.number(1, total)
        service = Service(
            ServiceKey(family, protocol, address, port, fwmark), self.random.choice(SCHEDULERS),
            self.number(0, 7), self.number(0, 86400), engine="sip" * self.maybe(),
            one_packet=protocol == UDP and self.maybe(),
            idle_timeout=self.number(0, 1000), reject_gone=self.maybe(), rehome=self.maybe(),
        )  # fmt: skip
        sorry = self.destination(family, port).replace(weight=1, upper_threshold=0, lower_threshold=0)
        return VirtualServer(
            (service,), real_servers, protocol, address, port, fwmark, family=family, quorum=quorum,
            hysteresis=self.number(0, quorum - 1), quorum_up=self.script(), quorum_down=self.script(),
            alpha=self.maybe(), omega=self.maybe(), ha_suspend=not fwmark and self.maybe(),
            smtp_alert=self.maybe(), sorry_server=SorryServer(sorry, self.maybe()) if self.maybe() else None,
            delay_loop=delay_loop,
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_round_trip(tmp_path: Path, seed: int) -> None:
    maker = Maker(seed)
    made = [maker.virtual_server() for _ in range(4)]
    servers = list({one.services[0].key: one for one in made}.values())
    text = PREAMBLE + "".join(f"{line}\n" for server in servers for line in print_virtual_server(server))
    path = tmp_path / "keepalived.conf"
    path.write_text(text)
    outcome = parse(str(path), AROUND)
    assert outcome.verdict is Verdict.GOOD, (outcome.diagnostics, text)
    for ours, theirs in zip(outcome.configuration.virtual_servers, servers, strict=True):
        assert ours == theirs, text
        assert ours.position.line and all(one.position.line for one in ours.real_servers)
        assert ours.key == theirs.key


def test_a_schedule_is_no_part_of_a_checkers_identity() -> None:
    maker = Maker(1)
    for _ in range(50):
        checker = maker.checker(IPV4, 1.0)
        assert checker_identity(replace(checker, schedule=maker.schedule())) == checker_identity(checker)
