# SPDX-License-Identifier: GPL-2.0-only
"""What xlvsd costs: start and reload of a large configuration, and ten thousand TCP checks.

    python -m tests.netns.bench_xlvsd [--services 2284] [--real-servers 37298] [--checks 10000]

Everything runs in this machine, in a network namespace of its own.  The checks go to
addresses of its loopback, to a listener that takes every connection.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from xlvs.checkers.result import Result
from xlvs.checkers.run import Surroundings
from xlvs.checkers.schedule import Probe, Scheduler, question
from xlvs.keepalived.checks import Connection, Schedule, TcpCheck

PROGRAMS = Path(sys.executable).parent
NAMESPACE = f"xlvsd-bench-{os.getpid()}"
INTERVAL = 10.0


def configuration(services: int, real_servers: int, weight: int) -> str:
    """A keepalived.conf without checkers; ten real servers have that ``weight``."""
    parts = ["global_defs {\n    router_id bench\n}\n"]
    number = 0
    for index in range(services):
        parts.append(f"virtual_server 192.0.2.100 {10000 + index} {{\n    lb_algo wrr\n")
        parts.append("    lb_kind NAT\n    protocol TCP\n")
        for _ in range(real_servers // services + (index < real_servers % services)):
            number += 1
            own = weight if number % (real_servers // 10) == 0 else 1
            address = f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            parts.append(f"    real_server {address} 80 {{\n        weight {own}\n    }}\n")
        parts.append("}\n")
    return "".join(parts)


def in_namespace(*words: str) -> str:
    """Run a command there and return what it prints."""
    command = ["ip", "netns", "exec", NAMESPACE, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rows() -> list[str]:
    """The listing of the table."""
    return in_namespace(str(PROGRAMS / "xlvsadm"), "-Ln").splitlines()


def wait_until(condition: object, what: str) -> float:
    """Wait for something; the seconds that it took."""
    began = time.monotonic()
    while not condition():  # type: ignore[operator]
        if time.monotonic() - began > 120:
            sys.exit(f"after two minutes still not so: {what}")
        time.sleep(1.0)  # a listing takes the table's lock, too
    return time.monotonic() - began


def table(services: int, real_servers: int) -> None:
    """Start, reload with ten other weights, end."""
    with tempfile.TemporaryDirectory(prefix="xlvsd-bench-") as folder:
        path, log = Path(folder, "keepalived.conf"), Path(folder, "log")
        path.write_text(configuration(services, real_servers, 1))
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        try:
            for command in ("link set lo up", "link add v0 type veth peer name v1", "link set v0 up",
                            "link set v1 up", "address add 10.0.0.1/8 dev v0"):  # fmt: skip
                in_namespace("ip", *command.split())
            words = [str(PROGRAMS / "xlvsd"), "-n", "-l", "-G", "-f", str(path)]
            words = ["ip", "netns", "exec", NAMESPACE, *words]
            with open(log, "wb") as output:
                daemon = subprocess.Popen(words, stderr=output)
            took = wait_until(lambda: len(rows()) == 3 + services + real_servers, "the table is complete")
            print(f"start: {services} services, {real_servers} real servers in the table after {took:.1f} s")
            path.write_text(configuration(services, real_servers, 7))
            os.kill(daemon.pid, 1)
            took = wait_until(
                lambda: sum(row.split()[3:4] == ["7"] for row in rows() if "->" in row) == 10, "ten weights"
            )
            print(f"reload: ten weights changed after {took:.1f} s")
            for line in log.read_text().splitlines():
                if "Reload finished" in line:
                    print(f"        {line}")
            os.kill(daemon.pid, 15)
            daemon.wait(60)
            in_namespace(str(PROGRAMS / "xlvs"), "detach")
        finally:
            subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


async def checks(count: int) -> None:
    """So many TCP checks every ten seconds, for half a minute."""
    with closing(socket.socket()) as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen(4096)
        port = listening.getsockname()[1]
        taking = os.fork()
        if not taking:
            while True:
                listening.accept()[0].close()
        try:
            await _measure(count, port)
        finally:
            os.kill(taking, 9)
            os.waitpid(taking, 0)


async def _measure(count: int, port: int) -> None:
    done = [0, 0]

    def told(_probe: Probe, result: Result, _changed: bool) -> None:
        done[not result.ok] += 1

    schedule = Schedule(delay_loop=INTERVAL, warmup=INTERVAL)
    scheduler = Scheduler(asyncio.get_running_loop(), told, time.time)
    addresses = (bytes((127, 1 + (at >> 16), at >> 8 & 255, at & 255)) for at in range(count))
    scheduler.configure(
        [question(TcpCheck(schedule, Connection(address, port))) for address in addresses],
        Surroundings(),
    )
    await asyncio.sleep(INTERVAL * 1.2)
    scheduler.latest, done[:] = 0.0, [0, 0]
    began = os.times()
    await asyncio.sleep(2 * INTERVAL)
    ended = os.times()
    user, system = ended.user - began.user, ended.system - began.system
    share = (user + system) / (2 * INTERVAL)
    each = (user + system) / max(1, sum(done)) * 1e6
    ours = user / max(1, sum(done)) * 1e6
    print(f"checks: {sum(done)} in {2 * INTERVAL:.0f} s, {done[1]} failed, {share:.1%} of a processor")
    print(f"        {each:.0f} µs each, {ours:.0f} of them ours; none later than {scheduler.latest:.2f} s")
    scheduler.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--services", type=int, default=2284)
    parser.add_argument("--real-servers", type=int, default=37298)
    parser.add_argument("--checks", type=int, default=10000)
    arguments = parser.parse_args()
    table(arguments.services, arguments.real_servers)
    asyncio.run(checks(arguments.checks))


if __name__ == "__main__":
    main()
