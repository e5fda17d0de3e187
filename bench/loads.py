# SPDX-License-Identifier: GPL-2.0-only
"""Load on a lab by wrk and iperf3, bounded in time, and the processor time that it takes.

Processor time is that of everything that takes part: the load itself, servers and
balancers, and the kernel's threads for softirqs.  The way of a packet through veth
and bridge is walked in the context of whoever sends it, so it is in there.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xlvs.lab import namespaces, node
from xlvs.lab.state import Record

_SCRIPT = Path(__file__).with_name("wrk.lua")
THREADS, CONNECTIONS = 2, 64


class Failed(Exception):
    """A load did not do what it was told; shows what it said."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk came to."""

    requests: int
    rate: float
    """Requests a second."""
    p99: float
    """Seconds in which 99 of 100 requests were answered."""
    cpu: float
    """Processor seconds for 100,000 requests, everything that takes part."""
    balancer_cpu: float
    """Of these, what processes of the director took: those of a balancer in user space."""


def wrk(record: Record, addresses: Sequence[str], port: int, seconds: int, *, short: bool) -> Load:
    """Requests for a small page from a lab's client; ``short``: a connection for each.

    Threads take the addresses in turn.  Raises `Failed` where answers are missing.
    """
    command = [
        "wrk",
        f"-t{THREADS}",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--timeout",
        "5s",
        "-s",
        str(_SCRIPT),
    ]
    if short:
        command += ["-H", "Connection: close"]
    command.append(f"http://{addresses[0]}:{port}/")
    words = ["env", f"WRK_ADDRESSES={' '.join(addresses)}", *command]
    before, of_balancer = _taken(record), _taken_in(record, "director")
    said = _run(record, words)
    cpu, balancer_cpu = _taken(record) - before, _taken_in(record, "director") - of_balancer
    found = parsed(said)
    return Load(
        int(found["requests"]),
        found["requests"] / found["seconds"],
        found["p99"],
        cpu / found["requests"] * 100_000,
        balancer_cpu / found["requests"] * 100_000,
    )


def parsed(said: str) -> dict[str, float]:
    """What wrk.lua has written among the rest; raises `Failed` where more than one request in 1,000 did."""
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed(f"wrk has not said how it went:\n{said}")
    found: dict[str, float] = json.loads(lines[-1])
    if found["requests"] < 1 or found["errors"] > found["requests"] / 1000:
        raise Failed(f"of {found['requests']} requests {found['errors']} failed")
    return found


def iperf3(record: Record, address: str, port: int, seconds: int) -> tuple[float, float]:
    """One stream from a lab's client: bits a second, and processor seconds for 10^9 bytes.

    Raises `Failed`.
    """
    before = _taken(record)
    said = _run(record, ["iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J"])
    cpu = _taken(record) - before
    rate, received = what_was_received(said)
    return rate, cpu / received * 1e9


def what_was_received(said: str) -> tuple[float, float]:
    """Bits a second and bytes of what ``iperf3 -J`` says of a client; raises `Failed`."""
    try:
        received = json.loads(said)["end"]["sum_received"]
        return float(received["bits_per_second"]), float(received["bytes"])
    except (ValueError, KeyError, TypeError):
        raise Failed(f"iperf3 has not measured:\n{said}") from None


def _run(record: Record, command: Sequence[str]) -> str:
    ran = node.run(record, "client", list(command))
    if ran.returncode != 0:
        raise Failed(f"{' '.join(command)}\nended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def _taken(record: Record) -> float:
    """Processor seconds by now: a lab's processes, the loads that have ended, softirq threads."""
    names = [record.namespace(each) for each in ("client", "director", "rs1", "rs2")]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    threads = [int(each) for each in os.listdir("/proc") if each.isdigit() and _is_softirq_thread(each)]
    return sum(map(_seconds, namespaces.processes(names) + threads)) + ended.ru_utime + ended.ru_stime


def _taken_in(record: Record, where: str) -> float:
    return sum(map(_seconds, namespaces.processes([record.namespace(where)])))


def _is_softirq_thread(process: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().startswith("ksoftirqd/")
    return False


def _seconds(process: int) -> float:
    """Of all threads of a process (Documentation/scheduler/sched-stats.rst)."""
    total = 0
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            total += int(Path(f"/proc/{process}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e9


def serve_iperf3(record: Record, where: str, port: int) -> subprocess.Popen[str]:
    """Start iperf3's server in a node; it ends with the lab."""
    return node.popen(
        record,
        where,
        ["iperf3", "-s", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
