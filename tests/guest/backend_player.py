# SPDX-License-Identifier: GPL-2.0-only
"""Commands kernel IPVS by xlvs's backend for it, and shows its table beside the real ipvsadm's.

``python -m tests.guest.backend_player`` runs in the guest, in a network namespace of its own,
with the lines to play on standard input, and prints JSON: ``answers``, what each line answered;
``seen``, for each moment and listing what ipvsadm printed and what xlvsadm did; ``facts``, what
the rest came to.  xlvsadm is called here, with that backend for its data plane.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.guest.ipvsadm_transcript import format_answer
from xlvs.cli import ipvsadm
from xlvs.daemon import client
from xlvs.datapath.kernel import KernelDatapath, load_kernel, open_kernel
from xlvs.errors import TableError
from xlvs.kernel.namespaces import CLONE_NEWNET
from xlvs.model import IPV4, TCP, Destination, MarkRule, Prefix, Service, ServiceKey, Timeouts

VIP, RIP = "192.0.2.1", "192.0.2.2"
PORT = 8080
XLVSD = Path(sys.executable).parent / "xlvsd"
LISTINGS = (
    "-L -n", "-S -n", "-L -n --thresholds", "-L -n --persistent-conn", "-L -n --rate", "-L --timeout",
)  # fmt: skip
CONFIGURATION = f"""\
virtual_server {VIP} 80 {{
    delay_loop 0.2
    lb_algo wrr
    lb_kind NAT
    protocol TCP
    real_server {RIP} {PORT} {{
        weight 7
        TCP_CHECK {{
            connect_timeout 5
            retry 0
        }}
    }}
}}
virtual_server {VIP} 81 {{
    delay_loop 60
    lb_algo rr
    lb_kind NAT
    protocol TCP
    idle_timeout 30
    real_server {RIP} {PORT} {{
    }}
}}
"""
PATIENCE = 60.0
LOOKS = 5

Seen = list[tuple[str, str, str, str]]


def ours(words: list[str]) -> str:
    """What xlvsadm answers, with kernel IPVS as its data plane."""
    stdout, stderr = io.StringIO(), io.StringIO()
    status = ipvsadm.run(words, io.StringIO(), stdout, stderr, lambda **_: open_kernel())
    return format_answer(stdout.getvalue(), stderr.getvalue(), status)


def theirs(words: list[str]) -> str:
    """What ipvsadm answers."""
    done = subprocess.run(["ipvsadm", *words], capture_output=True, text=True, check=False)
    return format_answer(done.stdout, done.stderr, done.returncode)


def look(moment: str, listings: Sequence[str] = LISTINGS) -> Seen:
    """Listings by both, for the same state of the kernel: its counters and seconds go on meanwhile."""
    seen = []
    for one in listings:
        for _ in range(LOOKS):
            pair = theirs(one.split()), ours(one.split())
            if pair[0] == pair[1]:
                break
        seen.append((moment, one, *pair))
    return seen


def refused(act: Callable[[], None]) -> str:
    """Why something was refused."""
    try:
        act()
    except TableError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def packed(address: str) -> bytes:
    """An IPv4 address in its packed form."""
    return socket.inet_aton(address)


def with_traffic() -> Iterator[tuple[Seen, str]]:
    """A connection of a client on the director itself, and what it leaves; then its counters are zeroed."""
    for line in (f"-A -t {VIP}:80 -s rr -p 300", f"-a -t {VIP}:80 -r {RIP}:{PORT} -m"):
        ours(line.split())
    with socket.create_server((RIP, PORT)), socket.create_connection((VIP, 80), 20):
        # The kernel adds its processors' counters up every two seconds.
        yield look("a connection", ("-L -n", "-L -n -c")), counted(1)
        ours(["-Z", "-t", f"{VIP}:80"])
        yield look("zeroed", ("-L -n --stats",)), counted(0)


def counted(connections: int) -> str:
    """What is told of that many connections, once they are counted."""
    key = ServiceKey(IPV4, TCP, packed(VIP), 80)
    end = time.monotonic() + PATIENCE
    with open_kernel() as datapath:
        while (entry := datapath.service(key)).stats.connections != connections:
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        one, totals = entry.destinations[0], datapath.totals()
        [template] = [each for each in datapath.connections() if not each.client_port]
    return (
        f"{entry.stats.connections} {one.stats.connections} {one.active} {one.persistent}"
        f" {totals.stats.connections} of all, {len(totals.by_cpu) == os.cpu_count()}, {template.state}"
    )


def whole_tables(datapath: KernelDatapath) -> Iterator[str]:
    """Tables put in each other's place, and one that the kernel refuses half-way."""
    one, two, three = (ServiceKey(IPV4, TCP, packed(VIP), port) for port in (80, 81, 82))
    first, second, third = (Destination(packed(f"10.0.0.{last}"), 80, weight=last) for last in (1, 2, 3))
    before = [(Service(one, "rr"), [second, first]), (Service(two, "rr"), [first])]
    datapath.replace(before)
    yield summary(datapath)
    datapath.replace([
        (Service(one, "wlc"), [third, first.replace(weight=9)]), (Service(three, "rr"), [second]),
    ])  # fmt: skip
    yield summary(datapath)
    wrong = Service(two, "twos")
    with unloadable("ip_vs_twos"):
        yield refused(lambda: datapath.replace([(Service(one, "rr"), [second]), (wrong, [first])]))
        table = [(Service(two, "rr"), [first]), (wrong.replace(key=two.replace(port=83)), [])]
        yield refused(lambda: datapath.add_services(table))
    yield summary(datapath)
    rule = MarkRule(1, Prefix(packed(VIP), 32))
    yield refused(lambda: datapath.set_mark_rules([rule]))
    yield refused(lambda: datapath.add_service(Service(two, idle_timeout=5)))
    yield refused(lambda: datapath.set_timeouts(Timeouts(1 << 30, 0, 0)))
    yield refused(lambda: datapath.set_sysctls({"sloppy_tcp": "1", "drop_entry": "9"}))
    datapath.set_sysctls({"expire_nodest_conn": "1"})
    settings = datapath.sysctls()
    yield f"{settings['sloppy_tcp']} {settings['expire_nodest_conn']} {settings['sync_threshold']!r}"
    datapath.flush()
    yield summary(datapath)


@contextmanager
def unloadable(module: str) -> Iterator[None]:
    """A kernel that lacks a module."""
    program = Path("/proc/sys/kernel/modprobe")
    before = program.read_text()
    subprocess.run(["modprobe", "-r", module], capture_output=True, check=False)
    program.write_text("/bin/false\n")
    try:
        yield
    finally:
        program.write_text(before)


def summary(datapath: KernelDatapath) -> str:
    """A table in a line."""
    return " ".join(
        f"{service.key.port}/{service.scheduler}:" + ",".join(f"{row[0][3]}w{row[3]}" for row in rows)
        for service, _, rows in sorted(datapath.table(), key=lambda row: row[0].key.port)
    )


def xlvsd() -> Iterator[str]:
    """A real server that passes its TCP check, fails, and passes again; then the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "keepalived.conf").write_text(CONFIGURATION)
        words = [str(XLVSD), "-n", "-l", "-G", "--datapath", "kernel", "-f", f"{folder}/keepalived.conf"]
        listening = socket.create_server((RIP, PORT))
        with open(f"{folder}/log", "w+") as log, subprocess.Popen(words, stderr=log) as daemon:
            try:
                yield becomes(f"{RIP}:{PORT} Masq 7")
                listening.close()
                yield becomes("no real server")
                yield status()
                with socket.create_server((RIP, PORT)):
                    yield becomes(f"{RIP}:{PORT} Masq 7")
                    daemon.terminate()
                    yield f"exit {daemon.wait(PATIENCE)}, {table()}"
                yield "\n".join(re.findall(r"The data plane.*", Path(folder, "log").read_text()))
            finally:
                daemon.kill()
                log.seek(0)
                sys.stderr.write(log.read())


def status() -> str:
    """What the daemon says of itself and of its real server."""
    found = client.status()
    return f"{found['datapath']}: up {found['virtual_servers'][0]['real_servers'][0]['up']}" if found else ""


def becomes(wanted: str) -> str:
    """Wait for a real server in the table that the real ipvsadm shows."""
    end = time.monotonic() + PATIENCE
    while (found := table()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return found


def table() -> str:
    """The real servers, as ipvsadm lists them."""
    listing = theirs(["-L", "-n"])
    if "TCP" not in listing:
        return "no service"
    found = re.findall(r"-> (\d\S+) +(\S+) +(\d+)", listing)
    return ", ".join(" ".join(one) for one in found) or "no real server"


def main() -> None:
    """Play, and print what was seen."""
    load_kernel()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    for words in ("link set lo up", f"addr add {VIP}/32 dev lo", f"addr add {RIP}/32 dev lo"):
        subprocess.run(["ip", *words.split()], check=True)
    answers = [(line, ours(line.split())) for line in sys.stdin.read().splitlines()]
    seen = look("the lines played")
    ours(["-C"])
    facts = []
    for looked, fact in with_traffic():
        seen += looked
        facts.append(fact)
    with open_kernel() as datapath:
        datapath.flush()
        facts += [*whole_tables(datapath), *xlvsd()]
        version, size = datapath.version(), datapath.size()
    facts.append(f"IP Virtual Server version {'.'.join(map(str, version))} (size={size})")
    json.dump({"answers": answers, "seen": seen, "facts": facts}, sys.stdout)


if __name__ == "__main__":
    main()
