# SPDX-License-Identifier: GPL-2.0-only
"""The kernel keeps the service alone: no xlvs process lives, traffic and expiry go on."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.netns.promises.site import COMMANDS, SERVICE, VIP, Host, Site, eventually
from xlvs.lab import namespaces


def _processes(host: Host) -> list[str]:
    """The command lines of all that runs in a namespace, xlvs or not."""
    return [
        Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
        for process in namespaces.processes([host.name])
    ]


def _counts(host: Host, of: str = SERVICE) -> tuple[int, int]:
    """ActiveConn and InActConn of a service's real servers, added up."""
    lines = re.findall(r"-> \S+ +Route +\d+ +(\d+) +(\d+)", host.xlvsadm(f"-Ln -t {of}"))
    return sum(int(active) for active, _ in lines), sum(int(inactive) for _, inactive in lines)


def test_no_process_is_left_by_any_command(site: Site) -> None:
    site.serve(SERVICE, 1)
    site.director.xlvs("attach --mode xdp-generic")
    site.director.xlvs("status")
    assert _processes(site.director) == []


def test_killing_every_command_does_not_touch_traffic(loaded_site: Site) -> None:
    director = loaded_site.director
    loaded_site.serve(SERVICE, 1, 2)
    with loaded_site.connection() as (held, _):
        for _ in range(10):
            running = [director.popen(str(COMMANDS / "xlvsadm"), line) for line in ("-Lcn", "-Ln", "-Z")]
            time.sleep(0.02)
            for process in namespaces.processes([director.name]):
                with suppress(ProcessLookupError):  # it was quicker
                    os.kill(process, signal.SIGKILL)
            for each in running:
                each.communicate()
            assert set(loaded_site.ask(2)) == {"rs1", "rs2"}
            held.sendall(b"on")
            assert held.recv(8) == b"on"
    assert _processes(director) == []


def test_connections_expire_with_no_process_alive(loaded_site: Site) -> None:
    """A second after its timeout at most, an entry is gone and no longer counted."""
    director = loaded_site.director
    loaded_site.serve(SERVICE, 1, 2)
    loaded_site.serve(f"{VIP}:53", 1, protocol="-u")
    director.xlvsadm("--set 0 1 1")
    with loaded_site.connection() as (held, _):
        loaded_site.ask(5)
        loaded_site.ask_udp()
        closed = time.monotonic()
        assert _counts(director) == (1, 5)
        assert _counts_udp(director) == 1
        assert _processes(director) == []
        time.sleep(max(0.0, closed + 2.1 - time.monotonic()))
        assert _counts(director) == (1, 0)
        assert _counts_udp(director) == 0
        assert director.status()["events"]["expired"] == 6
        assert director.xlvsadm("-Lcn").count("TCP") == 1
        director.xlvsadm("--set 1 0 0")
        held.sendall(b"not expired")
        assert held.recv(16) == b"not expired"
        acknowledged = time.monotonic()
        time.sleep(max(0.0, acknowledged + 2.1 - time.monotonic()))
        assert _counts(director) == (0, 0)


def _counts_udp(host: Host) -> int:
    shown = host.xlvsadm(f"-Ln -u {VIP}:53")
    return sum(int(inactive) for inactive in re.findall(r"-> \S+ +Route +\d+ +\d+ +(\d+)", shown))


def test_the_timer_survives_every_change_of_the_table(site: Site) -> None:
    director = site.director
    site.serve(SERVICE, 1)
    director.xlvsadm("--set 3 1 1")
    for round_number in range(1, 4):
        site.ask(2)
        director.xlvs("attach --mode xdp-generic" if round_number % 2 else "attach")
        director.xlvsadm(f"-e -t {SERVICE} -r 192.0.2.101 -w {round_number}")

        def expired(so_far: int = round_number * 2) -> bool:
            return bool(director.status()["events"]["expired"] == so_far)

        eventually(expired, "the connections have expired")
        assert _counts(director) == (0, 0)
