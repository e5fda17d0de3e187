# SPDX-License-Identifier: GPL-2.0-only
"""``make bench-cli``: xlvsadm beside ipvsadm on a large table, and by itself outside of the guest.

Both programs run in one guest, on tables that are alike, in turns; medians are
of as many runs.  Under emulation every number is ten times and more of what a
machine of its own takes; what counts there is the one beside the other.  The
last column is this machine's, for xlvsadm alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from struct import pack

from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.datapath.records import SLOT, seconds_to_ticks, swap_port, ticks_now
from xlvs.kernel import abi, bpffs
from xlvs.kernel.namespaces import network_namespace

from .runner import Guest
from .scenario import KERNEL, PROJECT, XLVS

XLVSADM = str(PROJECT / ".venv/bin/xlvsadm")
PROGRAMS = {KERNEL: "ipvsadm", XLVS: XLVSADM}
BARE = "python -S -c pass"
EMPTY = "-Ln, empty table"
FIRST = "-Lcn, first line"
TABLE_COMMANDS = ("-Ln", "-Ln --stats", "-Sn")
CONNECTIONS = "-Lcn"
RESTORE = "-R"
SYNC_GROUP, SYNC_PORT = "224.0.0.81", 8848
VIRTUAL, SERVER = "10.0.0.1", "172.16.0.1"

Times = dict[str, dict[str, list[float]]]
"""Seconds by command, by program."""


def commands(services: int, servers: int) -> str:
    """A table as commands; real servers are shared, as machines are that serve many sites."""
    lines = []
    for number in range(services):
        service = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80"
        lines.append(f"-A -t {service} -s wlc\n")
        for server in range(servers):
            lines.append(f"-a -t {service} -r 172.16.{number % 250}.{server + 1}:80 -g -w {server + 1}\n")
    return "".join(lines)


@contextmanager
def space(name: str) -> Iterator[str]:
    """A network namespace in which all real servers have a route."""
    name = f"bench-cli-{name}"
    run(f"ip netns add {name}")
    try:
        run(f"ip -n {name} link set lo up")
        run(f"ip -n {name} link add eth0 type veth peer name wire")
        run(f"ip -n {name} address add 172.16.255.254/16 dev eth0")
        run(f"ip -n {name} link set wire up")
        run(f"ip -n {name} link set eth0 up")
        yield name
    finally:
        run(f"ip netns delete {name}")


def run(command: str, **settings: object) -> None:
    """Run a command, which must succeed."""
    subprocess.run(shlex.split(command), check=True, stdout=sys.stderr, **settings)  # type: ignore[call-overload]


def timed(inside: Sequence[str], command: str, stdin: Path | None = None) -> float:
    """Seconds that a command takes whose output nobody reads."""
    with open(stdin or os.devnull) as given:
        start = time.monotonic()
        subprocess.run([*inside, *shlex.split(command)], stdin=given, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - start


def time_to_first_line(inside: Sequence[str], command: str) -> float:
    """Seconds until the first line is there; the rest is not waited for."""
    start = time.monotonic()
    with subprocess.Popen([*inside, *shlex.split(command)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.monotonic() - start
        process.kill()
    return seconds


def fill_kernel(name: str, count: int) -> None:
    """Give kernel IPVS that many connections, as a director's sync daemon would tell them."""
    inside = f"ip netns exec {name}"
    run(f"ip -n {name} link set lo multicast on")
    run(f"ip -n {name} route add 224.0.0.0/4 dev lo")
    run(f"{inside} ipvsadm --start-daemon backup --mcast-interface lo")
    with network_namespace(f"/run/netns/{name}"):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        while (there := known_to_kernel(inside)) < count:
            # Those that it had no room for are told again.
            for first in range(there - there % 50, count, 50):
                entries = b"".join(map(sync_entry, range(first, min(first + 50, count))))
                header = pack("!BBH", len(entries) // 24, 0, 4 + len(entries))
                sender.sendto(header + entries, (SYNC_GROUP, SYNC_PORT))
                if first % 5000 == 0:
                    time.sleep(0.1)
            time.sleep(1)
    run(f"{inside} ipvsadm --stop-daemon backup")


def sync_entry(number: int) -> bytes:
    """``struct ip_vs_sync_conn_v0`` of an established connection by Direct Routing."""
    return pack(
        "!BBHHH4s4s4sHH", 0, socket.IPPROTO_TCP, 1024 + number % 60000, 80, 80,
        client(number), socket.inet_aton(VIRTUAL), socket.inet_aton(SERVER), 3, 1,
    )  # fmt: skip


def client(number: int) -> bytes:
    """The address of the client of that connection."""
    return pack("!I", 0xC6120000 + number // 60000)


def known_to_kernel(inside: str) -> int:
    """How many connections the one real server has."""
    listing = subprocess.run(
        [*shlex.split(inside), "ipvsadm", "-Ln", "-t", f"{VIRTUAL}:80"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    *_, active, inactive = listing.split()
    return int(active) + int(inactive)


def fill_xlvs(name: str, count: int) -> None:
    """Write that many connections into xlvs's table: for listings, it does not matter where they stand."""
    with network_namespace(f"/run/netns/{name}"):
        folder = bpffs.namespace_folder()
    assert folder is not None
    maps = Maps(folder)
    table = maps.connection_slots()
    control = abi.PHASE_LIVE | 1 << abi.CONTROL_STATE_SHIFT
    expires = ticks_now() + seconds_to_ticks(900) & 0xFFFFFFFF
    virtual = socket.inet_aton(VIRTUAL)
    step = len(table) // SLOT_BYTES // count
    for number in range(count):
        SLOT.pack_into(
            table, number * step * SLOT_BYTES, control, client(number), virtual,
            swap_port(1024 + number % 60000), swap_port(80), socket.IPPROTO_TCP, socket.AF_INET, 0,
            expires, 0, swap_port(80), 0, 0,
        )  # fmt: skip
    maps.close()


def measure(options: argparse.Namespace, programs: Sequence[str]) -> Times:
    """Time every command on these programs, in turns."""
    times: Times = {}

    def note(command: str, program: str, seconds: float) -> None:
        times.setdefault(command, {}).setdefault(program, []).append(seconds)
        print(f"{command:20} {program:8} {seconds:9.3f}", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        table, one = folder / "table", folder / "one"
        table.write_text(commands(options.services, options.servers))
        one.write_text(f"-C\n-A -t {VIRTUAL}:80 -s wlc\n-a -t {VIRTUAL}:80 -r {SERVER}:80 -g\n")
        inside: dict[str, list[str]] = {}
        spaces = {}
        for program in programs:
            spaces[program] = stack.enter_context(space(program))
            inside[program] = ["ip", "netns", "exec", spaces[program]]
        if XLVS in programs:
            xlvs = f"ip netns exec {spaces[XLVS]} {PROJECT}/.venv/bin/xlvs"
            run(f"{xlvs} attach eth0 --connections {max(options.connections, 8192)}")
            stack.callback(run, f"{xlvs} detach")
        for _ in range(options.rounds):
            note(BARE, "python", timed((), f"{PROJECT}/.venv/bin/{BARE}"))
            for program in programs:
                note(EMPTY, program, timed(inside[program], f"{PROGRAMS[program]} -Ln"))
        for _ in range(options.restores):
            for program in programs:
                timed(inside[program], f"{PROGRAMS[program]} -C")
                note(RESTORE, program, timed(inside[program], f"{PROGRAMS[program]} -R", table))
        for _ in range(options.rounds):
            for command in TABLE_COMMANDS:
                for program in programs:
                    note(command, program, timed(inside[program], f"{PROGRAMS[program]} {command}"))
        for program in programs:
            timed(inside[program], f"{PROGRAMS[program]} -R", one)
            (fill_kernel if program == KERNEL else fill_xlvs)(spaces[program], options.connections)
        for _ in range(options.rounds):
            for program in programs:
                listing = f"{PROGRAMS[program]} {CONNECTIONS}"
                note(FIRST, program, time_to_first_line(inside[program], listing))
                note(CONNECTIONS, program, timed(inside[program], listing))
    return times


def report(options: argparse.Namespace, guest: Times, outside: Times) -> Iterator[str]:
    """The medians as a table."""
    yield (
        f"{options.services} services x {options.servers} real servers, {options.connections} connections; "
        "medians in seconds"
    )
    yield f"{'':20} {'ipvsadm':>9} {'xlvsadm':>9} {'faster':>7} {'xlvsadm':>9}"
    yield f"{'':20} {'guest':>9} {'guest':>9} {'by':>7} {'outside':>9}"
    for command in (BARE, EMPTY, RESTORE, *TABLE_COMMANDS, FIRST, CONNECTIONS):
        theirs = _median(guest, command, KERNEL)
        ours = _median(guest, command, XLVS) or _median(guest, command, "python")
        here = _median(outside, command, XLVS) or _median(outside, command, "python")
        ratio = f"{theirs / ours:6.1f}x" if theirs and ours else ""
        columns = (f"{value:9.3f}" if value is not None else f"{'-':>9}" for value in (theirs, ours))
        yield f"{command:20} {' '.join(columns)} {ratio:>7} {here or 0:9.3f}"


def _median(times: Times, command: str, program: str) -> float | None:
    values = times.get(command, {}).get(program)
    return median(values) if values else None


def main() -> int:
    """Read the command line, measure here and in a guest, and print the table."""
    parser = argparse.ArgumentParser(prog="tests.guest.bench_cli", description="xlvsadm beside ipvsadm.")
    parser.add_argument("--services", type=int, default=10_000, metavar="N")
    parser.add_argument("--servers", type=int, default=10, metavar="N", help="of each service")
    parser.add_argument("--connections", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each listing")
    parser.add_argument("--restores", type=int, default=1, metavar="N", help="rounds of -R")
    parser.add_argument("--outside-only", action="store_true", help="leave out the guest")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        run("modprobe -a ip_vs ip_vs_wlc")
        json.dump(measure(options, (KERNEL, XLVS)), sys.stdout)
        return 0
    outside = measure(options, (XLVS,))
    inside: Times = {}
    if not options.outside_only:
        with Guest(memory=3072) as guest:
            words = [sys.executable, "-m", "tests.guest.bench_cli", "--inside", *sys.argv[1:]]
            result = guest.run(words, timeout=3600, directory=PROJECT, live=False).check()
            inside = json.loads(result.stdout)
    print("\n".join(report(options, inside, outside)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
