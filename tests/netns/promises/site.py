# SPDX-License-Identifier: GPL-2.0-only
"""A director, a client and real servers in namespaces of their own, for tests that count and break.

Smaller and quicker than a lab: no nginx, no node views.  Everybody stands on
one bridge.  The real servers are threads of this process, whose sockets were
made in the real servers' namespaces, and so is the client; only `xlvs` and
`xlvsadm` are processes.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.netns.promises.servers import RealServer
from xlvs.kernel import bpffs, leftovers
from xlvs.kernel.namespaces import network_cookie, network_namespace
from xlvs.lab import namespaces

COMMANDS = Path(sys.executable).parent
DEADLINE = 60.0

VIP, VIP6 = "192.0.2.100", "fd6c:7673::100"
DIP, DIP6 = "192.0.2.10", "fd6c:7673::10"
CLIENT, CLIENT6 = "192.0.2.2", "fd6c:7673::2"
SERVICE = f"{VIP}:80"
SERVICE6 = f"[{VIP6}]:80"
_PREFIX = "promise-"
_numbers = itertools.count(1)


def rip(number: int, family: int = 4) -> str:
    """The address of a real server, counted from 1."""
    return f"192.0.2.{100 + number}" if family == 4 else f"fd6c:7673::{100 + number}"


def eventually(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Wait until something holds; fail after a deadline that a slow machine can meet."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"after {deadline:g} seconds still not so: {what}"
        time.sleep(0.02)


def without_carrier(links: str) -> str:
    """What ``ip link`` printed, without what comes and goes by itself."""
    return re.sub(r"state \w+|<[A-Z_,-]*>", "", links)


class Host:
    """A network namespace and the commands typed in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.type("ip link set lo up")
        # Else link-local addresses cannot be used for two seconds.
        self.sysctl("ipv6/conf/default/accept_dad", "0")

    def inside(self) -> AbstractContextManager[None]:
        """Have this thread be there for a while."""
        return network_namespace(namespaces.path(self.name))

    def run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end, whatever that is."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *words],
            capture_output=True, text=True, errors="replace", check=False, timeout=60, input=stdin,
        )  # fmt: skip

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start a command there."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def type(self, line: str, code: int = 0) -> str:
        """Type a line in a shell there; its exit code must be as expected."""
        ran = self.run("sh", "-c", line)
        assert ran.returncode == code, f"{line}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read, or first set, ``net/...`` there."""
        path = Path("/proc/sys/net") / name
        with self.inside():
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

    def xlvsadm(self, line: str, code: int = 0) -> str:
        """Run `xlvsadm` there and return what it printed."""
        return self._command("xlvsadm", line, code)

    def xlvs(self, line: str, code: int = 0) -> str:
        """Run `xlvs` there and return what it printed."""
        return self._command("xlvs", line, code)

    def _command(self, name: str, line: str, code: int) -> str:
        ran = self.run(str(COMMANDS / name), *line.split())
        printed = ran.stdout + ran.stderr
        assert ran.returncode == code, f"{name} {line}: {ran.returncode}\n{printed}"
        assert "Traceback" not in printed, printed
        return printed

    def status(self) -> dict[str, Any]:
        """What `xlvs status --json` says there."""
        report: dict[str, Any] = json.loads(self.xlvs("status --json"))
        return report

    def hooks(self) -> dict[str, list[str]]:
        """The hooks that are taken, by interface."""
        found: dict[str, list[str]] = {}
        for each in self.status()["attached"]:
            found.setdefault(each["interface"], []).append(each["hook"])
        return found

    def pins(self) -> Path | None:
        """The folder of this namespace's pins."""
        with self.inside():
            folder = bpffs.namespace_folder()
        return Path(folder) if folder else None

    def cookie(self) -> int:
        """The namespace's number."""
        with self.inside():
            return network_cookie()

    def state(self) -> str:
        """All that a command that failed must have left alone, as text to compare."""
        pins = self.pins()
        files = sorted(str(path) for path in pins.rglob("*")) if pins else []
        lock = Path(f"/run/xlvs/lock/{self.cookie():x}").exists()
        programs = self.type("bpftool net show; ip link show; tc qdisc show")
        forwarding = [
            self.sysctl(f"ipv{version}/conf/{where}/forwarding")
            for version in (4, 6)
            for where in ("lo", "all")
        ]
        return "\n".join([*files, f"lock: {lock}", f"forwarding: {forwarding}", without_carrier(programs)])


class Site:
    """A switch with a client, a director holding the VIP, and real servers."""

    def __init__(self, real_servers: int = 2) -> None:
        self._name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self.hosts: dict[str, Host] = {}
        self.servers: list[RealServer] = []
        try:
            self._build(real_servers)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self, real_servers: int) -> None:
        switch = self.add_host("switch")
        switch.type("ip link add br0 type bridge && ip link set br0 up")
        self.director = self.add_host("director", DIP, DIP6)
        self.client = self.add_host("client", CLIENT, CLIENT6)
        self.director.type(f"ip address add {VIP}/32 dev eth0 && ip address add {VIP6}/128 dev eth0 nodad")
        for number in range(1, real_servers + 1):
            self.add_real_server(number)

    def add_host(self, name: str, address: str = "", address6: str = "", interface: str = "eth0") -> Host:
        """A host on the switch."""
        host = Host(f"{self._name}-{name}")
        self.hosts[name] = host
        if address:
            self.plug_in(name, interface, address, address6)
        return host

    def plug_in(
        self, name: str, interface: str, address: str = "", address6: str = "", mac: str = ""
    ) -> None:
        """Give a host an interface on the switch."""
        host, switch = self.hosts[name], self.hosts["switch"]
        port = f"{name}-{interface}"[:15]
        its_mac = f"address {mac}" if mac else ""
        switch.type(
            f"ip link add {port} type veth peer name {interface} {its_mac} netns {host.name}"
            f" && ip link set {port} master br0 up"
        )
        lines = [f"ip link set {interface} up"]
        if address:
            lines.append(f"ip address add {address}/24 dev {interface}")
        if address6:
            lines.append(f"ip address add {address6}/64 dev {interface} nodad")
        host.type(" && ".join(lines))

    def add_real_server(self, number: int) -> RealServer:
        """A real server that holds the VIP without answering ARP for it."""
        host = self.add_host(f"rs{number}", rip(number), rip(number, 6))
        for where in ("all", "lo"):
            host.sysctl(f"ipv4/conf/{where}/arp_ignore", "1")
            host.sysctl(f"ipv4/conf/{where}/arp_announce", "2")
        host.type(f"ip address add {VIP}/32 dev lo && ip address add {VIP6}/128 dev lo nodad")
        server = RealServer(f"rs{number}", host.inside, VIP, VIP6)
        self.servers.append(server)
        return server

    def serve(self, service: str, *numbers: int, scheduler: str = "rr", protocol: str = "-t") -> None:
        """Add a service with these real servers, all of weight 1."""
        self.director.xlvsadm(f"-A {protocol} {service} -s {scheduler}")
        family = 6 if service.startswith("[") else 4
        for number in numbers:
            self.director.xlvsadm(f"-a {protocol} {service} -r {rip(number, family)} -g")

    @contextmanager
    def connection(
        self, address: str = VIP, port: int = 80, timeout: float = DEADLINE, source_port: int = 0
    ) -> Iterator[tuple[socket.socket, str]]:
        """A TCP connection from the client, and the name of who answered."""
        with self.client.inside():
            opened = socket.create_connection(
                (address, port), timeout, source_address=("", source_port) if source_port else None
            )
        with opened:
            yield opened, opened.recv(64).decode().strip()

    def ask(
        self, times: int = 1, address: str = VIP, port: int = 80, timeout: float = DEADLINE
    ) -> list[str]:
        """Make so many connections, one after the other; return who answered."""
        names = []
        for _ in range(times):
            with self.connection(address, port, timeout) as (_, name):
                names.append(name)
        return names

    def answers(self, address: str = VIP, port: int = 80, timeout: float = 1.0) -> bool:
        """Whether a connection is possible at present."""
        try:
            self.ask(1, address, port, timeout)
        except OSError:
            return False
        return True

    def ask_udp(self, address: str = VIP, port: int = 53, attempts: int = 10) -> str:
        """Send a datagram from a new port until it is answered; return who did."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.client.inside():
            asking = socket.socket(family, socket.SOCK_DGRAM)
        with asking:
            asking.connect((address, port))
            asking.settimeout(1.0)
            for _ in range(attempts):
                with suppress(TimeoutError):
                    asking.send(b"who?")
                    return asking.recv(64).decode()
        raise AssertionError(f"nobody answers at {address} port {port}")

    def close(self) -> None:
        """Remove everything, with the pins of the namespaces that go."""
        for server in self.servers:
            server.close()
        for host in self.hosts.values():
            if host.pins():
                host.xlvs("detach")
        namespaces.delete([host.name for host in self.hosts.values()])
        leftovers.sweep()


def remove_leftovers() -> None:
    """Remove what runs of these tests that were killed have left."""
    for name in namespaces.with_prefix(_PREFIX):
        process = name.removeprefix(_PREFIX).partition("-")[0]
        if not Path(f"/proc/{process}").exists():
            namespaces.delete([name])
