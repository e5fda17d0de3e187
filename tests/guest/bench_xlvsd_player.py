# SPDX-License-Identifier: GPL-2.0-only
"""keepalived and xlvsd on one large configuration, and how long each takes.

``python -m tests.guest.bench_xlvsd_player SERVICES REAL-SERVERS`` runs in the guest and prints a
line for each run: keepalived on kernel IPVS, xlvsd on kernel IPVS and on eBPF, each in a network
namespace of its own.  A start is over when the last real server of the last service is in the
table, a reload when the last of ten weights has changed.  Processor time is the daemon's own and
its children's, with what the kernel does for them.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.guest.network import add_namespace, delete_namespace
from tests.netns.bench_beside_keepalived import processor_seconds
from tests.netns.bench_xlvsd import configuration
from xlvs.datapath import open_datapath
from xlvs.datapath.interface import Datapath
from xlvs.datapath.kernel import load_kernel, open_kernel
from xlvs.errors import TableError, Unavailable
from xlvs.kernel.namespaces import network_namespace
from xlvs.model import IPV4, TCP, ServiceEntry, ServiceKey

NAMESPACE = "bench"
XLVSD = Path(sys.executable).parent / "xlvsd"
PATIENCE = 600.0
LOOK = 0.05
Opener = Callable[[], AbstractContextManager[Datapath]]


def service(opener: Opener, number: int) -> ServiceEntry | None:
    """A service of the table, by its number in the configuration; None while it is not there."""
    key = ServiceKey(IPV4, TCP, socket.inet_aton("192.0.2.100"), 10000 + number)
    try:
        with opener() as datapath:
            return datapath.service(key)
    except (TableError, Unavailable):
        return None


def wait(condition: Callable[[], bool]) -> float:
    """Wait for something; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError("the table is not what it should be")
        time.sleep(LOOK)
    return time.monotonic() - began


class Run:
    """One program on the large configuration."""

    def __init__(self, name: str, opener: Opener, services: int, real_servers: int) -> None:
        self._name = name
        self._opener = opener
        self._services = services
        self._real_servers = real_servers
        self._per_service = [
            real_servers // services + (at < real_servers % services) for at in range(services)
        ]

    def measure(self, command: list[str]) -> None:
        """Start, reload, end; ``command`` may name a FOLDER for its files."""
        with tempfile.TemporaryDirectory() as folder, network_namespace(f"/run/netns/{NAMESPACE}"):
            path = Path(folder, "keepalived.conf")
            path.write_text(configuration(self._services, self._real_servers, 1))
            words = [word.replace("FOLDER", folder) for word in command]
            with open(f"{folder}/log", "w+") as log:
                daemon = subprocess.Popen(
                    [*words, "-n", "-l", "-G", "-f", str(path)], stdout=log, stderr=log
                )
                try:
                    self._start(daemon)
                    path.write_text(configuration(self._services, self._real_servers, 7))
                    self._reload(daemon)
                    daemon.terminate()
                    print(f"{self._name}: stop {wait(lambda: daemon.poll() is not None):.2f} s")
                finally:
                    daemon.kill()
                    daemon.wait()
                log.seek(0)
                print(*(f"    {line.strip()}" for line in log if "eload" in line), sep="\n", flush=True)

    def _start(self, daemon: subprocess.Popen[bytes]) -> None:
        last = self._services - 1
        took = wait(lambda: _has(service(self._opener, last), self._per_service[last]))
        self._say("start", took, processor_seconds(daemon.pid))
        assert sum(map(len, self._weights())) == self._real_servers

    def _reload(self, daemon: subprocess.Popen[bytes]) -> None:
        # Of which service the last of the ten real servers is whose weight changes.
        number = 10 * (self._real_servers // 10)
        last = next(at for at in range(self._services) if sum(self._per_service[: at + 1]) >= number)
        before = processor_seconds(daemon.pid)
        daemon.send_signal(signal.SIGHUP)
        took = wait(lambda: _weighs(service(self._opener, last), 7))
        self._say("reload", took, processor_seconds(daemon.pid) - before)
        weights = [weight for some in self._weights() for weight in some]
        assert weights.count(7) == 10 and len(weights) == self._real_servers

    def _weights(self) -> list[list[int]]:
        with self._opener() as datapath:
            return [[one[3] for one in row[2]] for row in datapath.table()]

    def _say(self, what: str, took: float, used: float) -> None:
        print(f"{self._name}: {what} {took:.2f} s, {used:.2f} s of a processor", flush=True)


def _has(entry: ServiceEntry | None, real_servers: int) -> bool:
    return entry is not None and len(entry.destinations) == real_servers


def _weighs(entry: ServiceEntry | None, weight: int) -> bool:
    return entry is not None and any(one.destination.weight == weight for one in entry.destinations)


def main() -> None:
    """Measure one after the other."""
    services, real_servers = int(sys.argv[1]), int(sys.argv[2])
    load_kernel()
    pids = [word for which in "pcr" for word in (f"-{which}", f"FOLDER/{which}.pid")]
    runs: list[tuple[str, list[str], Opener]] = [
        ("keepalived, kernel IPVS", ["keepalived", "-C", *pids], open_kernel),
        ("xlvsd, kernel IPVS", [str(XLVSD), "--datapath", "kernel"], open_kernel),
        ("xlvsd, eBPF", [str(XLVSD)], open_datapath),
    ]
    for name, command, opener in runs:
        add_namespace(NAMESPACE)
        try:
            with network_namespace(f"/run/netns/{NAMESPACE}"):
                for line in ("link set lo up", "link add v0 type veth peer name v1", "link set v0 up",
                             "link set v1 up", "address add 10.0.0.1/8 dev v0"):  # fmt: skip
                    subprocess.run(["ip", *line.split()], check=True)
            subprocess.run([command[0], "-t", "-f", "/dev/null"], capture_output=True, check=False)
            Run(name, opener, services, real_servers).measure(command)
        finally:
            delete_namespace(NAMESPACE)


if __name__ == "__main__":
    main()
