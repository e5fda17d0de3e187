# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd beside keepalived on the same configurations: a large table, and ten thousand TCP checks.

    python -m tests.netns.bench_beside_keepalived [--services N] [--real-servers N] [--checks N]

Both run in a network namespace of this machine.  Its kernel need not have ip_vs: keepalived gets an
IPVS that takes everything at no cost (no_ipvs.c), while xlvsd fills the real table of its own data
plane.  With a kernel's IPVS on both sides: python -m tests.guest.bench_xlvsd.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.bench_xlvsd import configuration
from xlvs.kernel.namespaces import network_namespace

PROGRAMS = Path(sys.executable).parent
NAMESPACE = f"xlvsd-beside-{os.getpid()}"
INTERVAL = 10
PATIENCE = 120.0
LOOK = 0.02
TICKS = os.sysconf("SC_CLK_TCK")
# What each says when its table is complete: keepalived once it has sent it all, xlvsd to systemd.
KEEPALIVED_READY, KEEPALIVED_RELOADED = "Startup complete", "Reload complete"
XLVSD_RELOADED = "Reload finished"


def processor_seconds(process: int) -> float:
    """What a process and its living descendants have used so far, in user space and kernel."""
    stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sum(int(field) for field in stat[11:15]) / TICKS + sum(
        processor_seconds(int(one)) for one in children
    )


def checked(count: int, port: int) -> str:
    """A keepalived.conf with so many TCP checks, of as many addresses of the loopback."""
    parts = ["global_defs {\n    router_id bench\n}\n"]
    for first in range(0, count, 100):
        parts.append(f"virtual_server 192.0.2.100 {10000 + first // 100} {{\n    delay_loop {INTERVAL}\n")
        parts.append("    lb_algo rr\n    lb_kind DR\n    protocol TCP\n")
        for number in range(first, min(first + 100, count)):
            address = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            parts.append(f"    real_server {address} {port} {{\n        TCP_CHECK {{\n")
            parts.append("            connect_timeout 5\n        }\n    }\n")
        parts.append("}\n")
    return "".join(parts)


class Program:
    """One of the two, with a configuration."""

    def __init__(self, name: str, folder: Path, library: Path) -> None:
        self.name = name
        self._conf, self._log = folder / "keepalived.conf", folder / f"{name}.log"
        pids = [word for which in "pcr" for word in (f"-{which}", f"{folder}/{which}.pid")]
        command = ["keepalived", "-C", *pids] if name == "keepalived" else [str(PROGRAMS / "xlvsd")]
        self._words = [*command, "-n", "-l", "-G", "-f", str(self._conf)]
        self._environment = {**os.environ, "NOTIFY_SOCKET": f"{folder}/{name}.notify"}
        if name == "keepalived":
            self._environment["LD_PRELOAD"] = str(library)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notified.bind(f"{folder}/{name}.notify")
        self._messages = ""
        self.process = 0

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self._conf.write_text(text)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for a block."""
        with open(self._log, "wb") as log, network_namespace(f"/run/netns/{NAMESPACE}"):
            daemon = subprocess.Popen(self._words, stdout=log, stderr=log, env=self._environment)
            self.process = daemon.pid
            try:
                yield
                daemon.terminate()
                began = time.monotonic()
                daemon.wait(PATIENCE)
                print(f"{self.name}: stop {time.monotonic() - began:.2f} s", flush=True)
            finally:
                daemon.kill()
                daemon.wait()
                self._notified.close()
                if self.name != "keepalived":
                    subprocess.run([PROGRAMS / "xlvs", "detach"], check=False, capture_output=True)

    def is_ready(self) -> bool:
        """Whether it has started."""
        return KEEPALIVED_READY in self._said() if self.name == "keepalived" else "READY=1" in self._told()

    def is_reloaded(self) -> bool:
        """Whether it has reloaded once."""
        return (KEEPALIVED_RELOADED if self.name == "keepalived" else XLVSD_RELOADED) in self._said()

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def _told(self) -> str:
        try:
            while True:
                self._messages += self._notified.recv(4096).decode() + "\n"
        except BlockingIOError:
            return self._messages

    def timed(self, what: str, condition: Callable[[], bool], before: float = 0.0) -> None:
        """Wait for something, and say how long it took and what it cost since ``before``."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > PATIENCE:
                sys.exit(f"{self.name}: after {PATIENCE:.0f} s still not so: {what}\n{self._said()[-2000:]}")
            time.sleep(LOOK)
        took, used = time.monotonic() - began, processor_seconds(self.process) - before
        print(f"{self.name}: {what} {took:.2f} s, {used:.2f} s of a processor", flush=True)


def table(program: Program, services: int, real_servers: int) -> None:
    """Start, and reload with ten other weights."""
    program.configure(configuration(services, real_servers, 1))
    with program.running():
        program.timed("start", program.is_ready)
        program.configure(configuration(services, real_servers, 7))
        before = processor_seconds(program.process)
        os.kill(program.process, signal.SIGHUP)
        program.timed("reload", program.is_reloaded, before)


def checks(program: Program, count: int, port: int) -> None:
    """What so many TCP checks every ten seconds cost, over two intervals."""
    program.configure(checked(count, port))
    with program.running():
        program.timed(f"start with {count} checks", program.is_ready)
        time.sleep(1.5 * INTERVAL)
        before = processor_seconds(program.process)
        time.sleep(2 * INTERVAL)
        used = processor_seconds(program.process) - before
        each = used / (2 * count) * 1e6
        print(
            f"{program.name}: {used / (2 * INTERVAL):.1%} of a processor, {each:.0f} µs a check", flush=True
        )


@contextmanager
def listener() -> Iterator[int]:
    """Somebody in the namespace who takes every connection; yields the port."""
    with network_namespace(f"/run/netns/{NAMESPACE}"):
        listening = socket.create_server(("0.0.0.0", 0), backlog=4096)
    taking = os.fork()
    if not taking:
        while True:
            listening.accept()[0].close()
    try:
        yield listening.getsockname()[1]
    finally:
        os.kill(taking, signal.SIGKILL)
        os.waitpid(taking, 0)
        listening.close()


def _program(name: str, folder: str, what: str, library: Path) -> Program:
    place = Path(folder, f"{what}-{name}")
    place.mkdir()
    return Program(name, place, library)


def main() -> None:
    """Measure one after the other and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--services", type=int, default=2284)
    parser.add_argument("--real-servers", type=int, default=37298)
    parser.add_argument("--checks", type=int, default=10000)
    arguments = parser.parse_args()
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        for line in ("link set lo up", "link add v0 type veth peer name v1", "link set v0 up",
                     "link set v1 up", "address add 10.0.0.1/8 dev v0"):  # fmt: skip
            subprocess.run(["ip", "-n", NAMESPACE, *line.split()], check=True)
        with tempfile.TemporaryDirectory(prefix="beside-") as folder, listener() as port:
            library = Path(folder, "no_ipvs.so")
            source = Path(__file__).with_name("no_ipvs.c")
            subprocess.run(["clang", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
            for name in ("keepalived", "xlvsd"):
                table(_program(name, folder, "table", library), arguments.services, arguments.real_servers)
            for name in ("keepalived", "xlvsd"):
                checks(_program(name, folder, "checks", library), arguments.checks, port)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


if __name__ == "__main__":
    main()
