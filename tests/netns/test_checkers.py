# SPDX-License-Identifier: GPL-2.0-only
"""Checkers against real servers on the loopback: nginx (TLS, SNI, HTTP/2), exim, dnsmasq, scripts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.labs import eventually
from xlvs.checkers.result import Result
from xlvs.checkers.run import Surroundings, check
from xlvs.checkers.tcp import start
from xlvs.keepalived.checks import (
    Checker,
    Connection,
    DnsCheck,
    GrpcCheck,
    HttpCheck,
    HttpVersion,
    MiscCheck,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    TlsVerification,
    UdpCheck,
    Url,
)
from xlvs.keepalived.configuration import TlsClient
from xlvs.keepalived.origin import Script

HERE = bytes((127, 0, 0, 1))
WHEN = Schedule()

NGINX = """\
user root;
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    types {{ }}
    default_type text/plain;
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    ssl_certificate {folder}/other.pem;
    ssl_certificate_key {folder}/other.key;
    root {folder}/pages;
    server {{
        listen 127.0.0.1:{plain};
        location /chunked {{ gzip on; gzip_min_length 0; return 200 $http_host; }}
        location /gone {{ return 503; }}
        location /host {{ return 200 "$host $server_protocol"; }}
    }}
    server {{
        listen 127.0.0.1:{tls} ssl http2;
        server_name other;
        location / {{ return 404; }}
    }}
    server {{
        listen 127.0.0.1:{tls} ssl http2;
        server_name web.test;
        ssl_certificate {folder}/web.pem;
        ssl_certificate_key {folder}/web.key;
        location / {{ return 200 "sni $ssl_server_name $server_protocol"; }}
    }}
    server {{
        listen 127.0.0.1:{clients} ssl;
        ssl_verify_client on;
        ssl_client_certificate {folder}/web.pem;
        location / {{ return 200; }}
    }}
    server {{
        listen 127.0.0.1:{h2c} http2;
        default_type application/grpc;
        error_page 405 =200 /serving;
        location = /serving {{ }}
        location = /grpc.health.v1.Health/Check {{ }}
        location /page {{ return 200 "h2"; }}
    }}
}}
"""
EXIM = """\
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
primary_hostname = mail.test
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/exim.pid
exim_user = root
exim_group = root
never_users =
tls_advertise_hosts =
"""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of the loopback that nobody listens on."""
    with closing(socket.socket(socket.AF_INET, kind)) as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def at(port: int, timeout: float = 2.0) -> Connection:
    """A port of the loopback."""
    return Connection(HERE, port, timeout=timeout)


def ask(checker: Checker, client: TlsClient | None = None) -> Result:
    """One check."""
    return asyncio.run(check(checker, Surroundings(client or TlsClient())))


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with closing(socket.socket()) as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


class Servers:
    """Real servers, by the ports that they listen on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("plain", "tls", "clients", "h2c", "smtp", "dns")}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them all, and wait until they listen."""
        (self.folder / "pages" / "grpc.health.v1.Health").mkdir(parents=True)
        (self.folder / "pages" / "index.html").write_text("hello\n")
        (self.folder / "pages" / "serving").write_bytes(b"\0\0\0\0\x02\x08\x01")
        (self.folder / "pages" / "grpc.health.v1.Health" / "Check").touch()
        (self.folder / "spool").mkdir()
        for name in ("web", "other"):
            subprocess.run(
                [
                    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "30", "-subj", f"/CN={name}.test",
                    "-addext", f"subjectAltName=DNS:{name}.test",
                    "-keyout", f"{self.folder}/{name}.key", "-out", f"{self.folder}/{name}.pem",
                ],
                check=True, capture_output=True,
            )  # fmt: skip
        (self.folder / "nginx.conf").write_text(NGINX.format(folder=self.folder, **self.ports))
        (self.folder / "exim.conf").write_text(EXIM.format(folder=self.folder, port=self.ports["smtp"]))
        self._run("nginx", "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log")
        self._run("exim4", "-C", f"{self.folder}/exim.conf", "-bdf")
        self._run(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--bind-interfaces", "--listen-address=127.0.0.1", f"--port={self.ports['dns']}",
            "--address=/web.test/192.0.2.1", "--local=/test/", "--user=root", "--pid-file=",
        )  # fmt: skip
        for name, port in self.ports.items():
            eventually(lambda port=port: answers(port), f"{name} listens")  # type: ignore[misc]

    def _run(self, *words: str) -> None:
        with open(self.folder / f"{words[0]}.log", "wb") as log:
            self._running.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def stop(self) -> None:
        """End them all."""
        for running in self._running:
            running.terminate()
        for running in self._running:
            running.wait(10)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="xlvs-checkers-", dir="/var/tmp"))
    made = Servers(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def test_tcp(servers: Servers) -> None:
    assert ask(TcpCheck(WHEN, at(servers.ports["plain"]))) == Result(True, "connected")
    assert ask(TcpCheck(WHEN, at(free_port()))) == Result(False, "connecting: connection refused")
    bound = Connection(HERE, servers.ports["plain"], bind_interface="nonexistent0")
    assert ask(TcpCheck(WHEN, bound)).reason == "connecting: no such device"


def test_a_tcp_check_gives_up_in_time() -> None:
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]  # more than it lets wait
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        result = ask(TcpCheck(WHEN, at(port, timeout=0.2)))
        for one in waiting:
            one.close()
    assert result == Result(False, "connecting: no answer within 0.2 s")


@pytest.mark.parametrize("version", [HttpVersion.HTTP_1_0, HttpVersion.HTTP_1_0_CLOSE, HttpVersion.HTTP_1_1])
def test_http(servers: Servers, version: HttpVersion) -> None:
    def http(url: Url, **more: str) -> Result:
        return ask(HttpCheck(WHEN, at(servers.ports["plain"]), (Url("/"), url), version=version, **more))  # type: ignore[arg-type]

    assert http(Url("/", digest=hashlib.md5(b"hello\n").digest())).ok
    assert http(Url("/gone")).reason == "/gone: HTTP status code 503"
    assert http(Url("/gone", status=((503, 503),))).ok
    spoken = b"web.test HTTP/" + (b"1.1" if version is HttpVersion.HTTP_1_1 else b"1.0")
    digest = hashlib.md5(spoken).digest()
    assert http(Url("/host", digest=digest), virtualhost="web.test").ok
    assert http(Url("/host", digest=digest, virtualhost="web.test"), virtualhost="x").ok


@pytest.mark.parametrize("version", [HttpVersion.HTTP_1_1, HttpVersion.HTTP_2])
def test_tls_with_sni(servers: Servers, version: HttpVersion) -> None:
    word = b"sni web.test HTTP/" + (b"2.0" if version is HttpVersion.HTTP_2 else b"1.1")
    url = Url("/", digest=hashlib.md5(word).digest())

    def tls(**more: object) -> Result:
        checker = HttpCheck(WHEN, at(servers.ports["tls"]), (url,), tls=True, version=version, **more)  # type: ignore[arg-type]
        return ask(checker)

    assert tls(virtualhost="web.test", sni=True).ok
    assert tls(sni_name="web.test", virtualhost="web.test").ok
    assert tls(virtualhost="nobody").reason == "/: HTTP status code 404"
    right = TlsVerification(f"{servers.folder}/web.pem")
    assert tls(sni=True, virtualhost="web.test", verification=right).ok
    wrong = tls(sni=True, virtualhost="other.test", verification=right)
    assert not wrong.ok and wrong.reason.startswith("/: the certificate is refused: ")
    assert not tls(verification=right).ok  # it is not for the address


def test_a_client_certificate(servers: Servers) -> None:
    checker = HttpCheck(WHEN, at(servers.ports["clients"]), (Url("/"),), tls=True)
    assert ask(checker).reason == "/: HTTP status code 400"
    web = f"{servers.folder}/web"
    assert ask(checker, TlsClient(certificate=f"{web}.pem", key=f"{web}.key")).ok
    assert not ask(checker, TlsClient(certificate="/nonexistent")).ok


def test_tls_to_a_server_without(servers: Servers) -> None:
    result = ask(HttpCheck(WHEN, at(servers.ports["plain"]), (Url("/"),), tls=True))
    assert not result.ok and "TLS" in result.reason


def test_http2_in_the_clear_and_grpc(servers: Servers) -> None:
    port = servers.ports["h2c"]
    assert ask(HttpCheck(WHEN, at(port), (Url("/page"),), version=HttpVersion.HTTP_2)).ok
    assert ask(GrpcCheck(WHEN, at(port), "web"))[:2] == (True, "SERVING")
    (servers.folder / "pages" / "serving").write_bytes(b"\0\0\0\0\x02\x08\x02")
    assert ask(GrpcCheck(WHEN, at(port))).reason == "NOT_SERVING"
    assert not ask(GrpcCheck(WHEN, at(servers.ports["plain"]))).ok


def test_smtp(servers: Servers) -> None:
    assert ask(SmtpCheck(WHEN, at(servers.ports["smtp"]), "check.test")).reason == "greeted"
    assert not ask(SmtpCheck(WHEN, at(servers.ports["smtp"]), "")).ok  # a HELO without a name
    mute = ask(SmtpCheck(WHEN, at(servers.ports["plain"], 0.2), "x"))
    assert mute.reason == "waiting for the greeting: no answer within 0.2 s"


def test_dns(servers: Servers) -> None:
    port = servers.ports["dns"]
    assert ask(DnsCheck(WHEN, at(port), "A", "web.test")).reason == "NOERROR for A of web.test"
    assert ask(DnsCheck(WHEN, at(port), "A", "missing.test")).reason == "NXDOMAIN for A of missing.test"
    assert ask(DnsCheck(WHEN, at(port))).reason == "REFUSED for SOA of ."
    assert not ask(DnsCheck(WHEN, at(free_port(socket.SOCK_DGRAM)))).ok


def test_udp(servers: Servers) -> None:
    question = bytes.fromhex("0007010000010000000000000377656204746573740000010001")
    port = servers.ports["dns"]
    assert ask(UdpCheck(WHEN, at(port), question, True, b"\0\7", b"\0\0")).reason == "the required reply"
    assert not ask(UdpCheck(WHEN, at(port), question, True, b"\0\\8", b"\0\0")).ok
    assert ask(UdpCheck(WHEN, at(port, 0.2), b"")).ok
    refused = ask(UdpCheck(WHEN, at(free_port(socket.SOCK_DGRAM), 0.2), b""))
    assert refused.reason == "asking: connection refused"


def test_ping() -> None:
    assert ask(PingCheck(WHEN, Connection(HERE, 0))).reason == "echo reply"
    assert ask(PingCheck(WHEN, Connection(bytes(15) + b"\1", 80))).reason == "echo reply"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    for folder in (tmp_path, *tmp_path.parents):  # another user has to come through all of them
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    return path


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_scripts(script: Path) -> None:
    def misc(text: str, timeout: float = 5.0, uid: int = 0) -> Result:
        _script(script, text)
        run = Script((str(script), "one", "two"), uid, uid)
        return ask(MiscCheck(WHEN, run, timeout, dynamic=True))

    assert misc('[ "$1 $2" = "one two" ]').ok
    assert misc("exit 12").weight == 10
    assert misc("exit 1").reason == f"{script} exited with status 1"
    assert misc("kill -9 $$").reason == f"{script} was ended by SIGKILL"
    assert misc("[ $(id -u) = 65534 ] && [ $(id -G) = 65534 ]", uid=65534).ok
    script.unlink()
    missing = ask(MiscCheck(WHEN, Script((str(script),))))
    assert missing.reason == f"{script} cannot be run: no such file or directory"


def test_a_script_that_hangs_goes_with_its_children(script: Path, tmp_path: Path) -> None:
    _script(script, f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/child; wait; wait")
    began = time.monotonic()
    assert "timed out after 0.2 s" in ask(MiscCheck(WHEN, Script((str(script),)), 0.2)).reason
    assert time.monotonic() - began >= 2.0  # SIGTERM, and two seconds later SIGKILL
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not _runs(child), "the child has gone")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return " Z " not in file.read()


def test_certificates_of_the_system_are_the_default() -> None:
    from xlvs.checkers import tls

    context = tls.context(TlsVerification(), TlsClient())
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


def test_each_tcp_check_gives_up_in_its_own_time() -> None:
    """They share one timer for each timeout: none is missed, told of twice, or told of when it has ended."""
    told: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def begin(name: str, seconds: float, after: str = "") -> Callable[[], None]:
            def done(result: Result) -> None:
                assert not result.ok and f"within {seconds:g} s" in result.reason
                told.append(name)
                if after:
                    begin(after, seconds)
                elif name == "last":
                    finished.set_result(None)

            return start(TcpCheck(WHEN, at(port, seconds)), loop, done)

        begin("slow", 0.3)
        begin("quick", 0.1, after="again")
        ended = begin("ended", 0.1)
        begin("quick too", 0.1)
        ended()
        begin("last", 0.6)
        await asyncio.wait_for(finished, 20.0)

    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        asyncio.run(run())
        for one in waiting:
            one.close()
    assert sorted(told) == ["again", "last", "quick", "quick too", "slow"]
    assert told[-1] == "last" and told.index("quick") < told.index("quick too")
