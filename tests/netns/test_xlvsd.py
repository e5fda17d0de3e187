# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd in a lab: real checks of real nginx, traffic, drains, hand edits, reloads and deaths."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.labs import Lab, eventually
from xlvs.lab import lifecycle
from xlvs.lab.addresses import Request

XLVSD = Path(sys.executable).parent / "xlvsd"
# Three clients that begin to ask, and go on when they are told to.
CLIENTS = """\
import os, socket, time
asking = [socket.create_connection(("{vip}", 80), 20) for _ in range(3)]
for one in asking:
    one.sendall(b"GET / HTTP/1.0\\r\\n")
while not os.path.exists("{folder}/go"):
    time.sleep(0.05)
for one in asking:
    one.sendall(b"\\r\\n")
    print(one.makefile().read().split()[-1], flush=True)
"""
REAL_SERVER = """\
    real_server {rip} 80 {{
        weight {weight}
        HTTP_GET {{
            url {{
                path /
                status_code 200
            }}
            connect_timeout 5
            retry 1
            delay_before_retry 0.1
        }}
        notify_up "{notify} up {rip}"
        notify_down "{notify} down {rip}"
    }}
"""


class Daemon:
    """An xlvsd on a lab's director."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.vip = lab.addresses.vip
        self.rips = list(lab.addresses.rips)
        self.pid = 0
        script = folder / "notify"
        script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/notified\n')
        script.chmod(0o755)

    def configure(self, weights: list[int], more: str = "") -> None:
        """Write a configuration with those weights, one for each real server."""
        servers = "".join(
            REAL_SERVER.format(rip=rip, weight=weight, notify=self.folder / "notify")
            for rip, weight in zip(self.rips, weights, strict=False)
        )
        (self.folder / "keepalived.conf").write_text(
            "global_defs {\n    script_user root\n    enable_script_security\n"
            f"    lvs_notify_fifo {self.folder}/fifo\n}}\n"
            f"virtual_server {self.vip} 80 {{\n    delay_loop 0.3\n    lb_algo rr\n    lb_kind DR\n"
            f"    protocol TCP\n{more}{servers}}}\n"
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = f"{XLVSD} -n -l -G -f {self.folder}/keepalived.conf"
        started = self.lab.type("director", f"{command} </dev/null >>{self.folder}/log 2>&1 & echo $!")
        self.pid = int(started)
        eventually(self.answers, "xlvsd answers")

    def answers(self) -> bool:
        """Whether it is there."""
        with suppress(AssertionError):
            self.lab.type("director", "xlvs events")
            return True
        return False

    def end(self, signal: str = "TERM") -> None:
        """End it by a signal and wait for that."""
        if self.pid:
            self.lab.type("director", f"kill -{signal} {self.pid} 2>/dev/null; true")
            eventually(lambda: not self.runs(), "xlvsd has ended")
            self.pid = 0

    def runs(self) -> bool:
        """Whether the process is there."""
        return "yes" in self.lab.type("director", f"kill -0 {self.pid} 2>/dev/null && echo yes; true")

    def weights(self) -> dict[int, int]:
        """The real servers in the table, by number from 1, with their weights."""
        listing = self.lab.type("director", "ipvsadm -Ln")
        found = re.findall(r"-> (\S+):80 +Route +(\d+)", listing)
        return {self.rips.index(rip) + 1: int(weight) for rip, weight in found}

    def becomes(self, weights: dict[int, int]) -> None:
        """Wait for a table."""
        eventually(lambda: self.weights() == weights, f"the table has {weights}, not {self.weights()}")

    def events(self) -> list[dict[str, object]]:
        """What it has noticed."""
        return [json.loads(line) for line in self.lab.type("director", "xlvs events").splitlines()]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    record = lifecycle.new_record("dr", "txlvsd", Request(), bare=False)
    try:
        lifecycle.up(record, lambda _line: None)
        made = Lab(record)
        # Direct Routing does not see the real server's FIN: what has ended is remembered so long.
        made.type("director", "ipvsadm --set 0 1 0")
        yield made
    finally:
        lifecycle.down("txlvsd", lambda _line: None)


@pytest.fixture
def daemon(lab: Lab) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="xlvsd-", dir="/root" if Path("/root").is_dir() else "/var/lib"))
    made = Daemon(lab, folder)
    lab.type("director", "ipvsadm -C")
    made.configure([1, 1, 1])
    made.start()
    try:
        made.becomes({1: 1, 2: 1, 3: 1})
        yield made
    finally:
        made.end()
        lab.type("rs3", "pidof nginx >/dev/null || nginx")
        shutil.rmtree(folder)


def test_who_fails_is_not_chosen_and_comes_back(daemon: Daemon) -> None:
    assert set(daemon.lab.ask(6)) == {"rs1", "rs2", "rs3"}
    daemon.lab.type("rs3", "nginx -s quit")
    daemon.becomes({1: 1, 2: 1})
    assert set(daemon.lab.ask(6)) == {"rs1", "rs2"}
    daemon.lab.type("rs3", "nginx")
    daemon.becomes({1: 1, 2: 1, 3: 1})
    rip = daemon.rips[2]
    notified = daemon.folder / "notified"
    eventually(
        lambda: notified.exists() and notified.read_text() == f"down {rip}\nup {rip}\n", "scripts were run"
    )
    log = (daemon.folder / "log").read_text()
    assert f"Removing service [{rip}]:tcp:80 from VS [{daemon.vip}]:tcp:80" in log
    page = daemon.lab.type("director", "xlvs status")
    assert f"[{daemon.vip}]:tcp:80  quorum since" in page
    status = json.loads(daemon.lab.type("director", "xlvs status --json"))["daemon"]
    assert [one["up"] for one in status["virtual_servers"][0]["real_servers"]] == [True] * 3


def test_hand_edits_are_put_right(daemon: Daemon) -> None:
    service = f"-t {daemon.vip}:80"
    daemon.lab.type("director", f"ipvsadm -d {service} -r {daemon.rips[0]}")
    daemon.lab.type("director", "ipvsadm -A -t 192.0.2.99:81")
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")  # has it look at once
    daemon.becomes({1: 1, 2: 1, 3: 1})
    eventually(lambda: any(one["event"] == "hand edit" for one in daemon.events()), "the edit was noticed")
    assert "192.0.2.99:81" in daemon.lab.type("director", "ipvsadm -Ln")  # somebody else's


def test_reload_changes_what_changed(daemon: Daemon) -> None:
    daemon.lab.ask(9)
    before = daemon.lab.type("director", "ipvsadm -Ln --stats")
    daemon.configure([1, 7, 1])
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.becomes({1: 1, 2: 7, 3: 1})
    assert daemon.lab.type("director", "ipvsadm -Ln --stats") == before
    (daemon.folder / "keepalived.conf").write_text("virtual_server {\n")
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.configure([2, 7])
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.becomes({1: 2, 2: 7})


def test_a_drain_lets_connections_end_and_outlives_the_daemon(daemon: Daemon) -> None:
    lab, rip = daemon.lab, daemon.rips[0]
    (daemon.folder / "clients.py").write_text(CLIENTS.format(vip=daemon.vip, folder=daemon.folder))
    clients = f"{sys.executable} {daemon.folder}/clients.py </dev/null >{daemon.folder}/answers 2>&1 &"
    lab.type("client", clients)
    eventually(lambda: _active(daemon) == 3, "three clients are connected")
    assert "draining" in lab.type("director", f"xlvs drain {daemon.vip}:80 {rip} --deadline 5m")
    daemon.becomes({1: 0, 2: 1, 3: 1})
    assert set(lab.ask(4)) == {"rs2", "rs3"}
    daemon.end("KILL")
    daemon.start()
    assert daemon.weights() == {1: 0, 2: 1, 3: 1}
    (daemon.folder / "go").touch()
    daemon.becomes({2: 1, 3: 1})
    assert sorted((daemon.folder / "answers").read_text().split()) == ["rs1", "rs2", "rs3"]
    lab.type("director", f"xlvs undrain {daemon.vip}:80 {rip}")
    daemon.becomes({1: 1, 2: 1, 3: 1})
    refused = lab.type("director", f"xlvs undrain {daemon.vip}:80 {rip}", code=1)
    assert "is not drained" in refused


def _active(daemon: Daemon) -> int:
    listing = daemon.lab.type("director", "ipvsadm -Ln")
    return sum(int(active) for active in re.findall(r":80 +Route +\d+ +(\d+)", listing))


def test_weights_by_hand_outlive_reloads(daemon: Daemon) -> None:
    daemon.lab.type("director", f"xlvs weight {daemon.vip}:80 {daemon.rips[0]} 9")
    daemon.becomes({1: 9, 2: 1, 3: 1})
    daemon.configure([3, 3, 3])
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.becomes({1: 9, 2: 3, 3: 3})
    daemon.lab.type("director", f"xlvs weight {daemon.vip}:80 {daemon.rips[0]} --reset")
    daemon.becomes({1: 3, 2: 3, 3: 3})


def test_killed_in_the_middle_of_reloads_nothing_fails(daemon: Daemon) -> None:
    lab = daemon.lab
    asking = f"for i in $(seq 150); do curl -s -m 5 http://{daemon.vip}/ || echo failed; done"
    lab.type("client", f"({asking}) </dev/null >{daemon.folder}/asked 2>&1 &")
    for turn in range(3):
        daemon.configure([1 + turn, 2, 3])
        lab.type("director", f"kill -HUP {daemon.pid}; sleep 0.0{turn * 3}; kill -KILL {daemon.pid}; true")
        eventually(lambda: not daemon.runs(), "it is dead")
        assert set(daemon.weights()) == {1, 2, 3}
        daemon.start()
        assert set(daemon.weights()) == {1, 2, 3}  # nobody was taken out to be checked first
    daemon.becomes({1: 3, 2: 2, 3: 3})
    eventually(lambda: len((daemon.folder / "asked").read_text().split()) == 150, "all have been asked")
    assert "failed" not in (daemon.folder / "asked").read_text()


def test_one_daemon_at_a_time_and_how_it_ends(daemon: Daemon) -> None:
    command = f"{XLVSD} -n -l -G -f {daemon.folder}/keepalived.conf"
    assert "xlvsd runs already" in daemon.lab.type("director", command, code=2)
    daemon.end("QUIT")  # a restart
    assert daemon.weights() == {1: 1, 2: 1, 3: 1}
    assert "xlvsd does not run" in daemon.lab.type("director", "xlvs events", code=1)
    daemon.start()
    daemon.end("TERM")
    assert daemon.weights() == {}
    daemon.start()
    daemon.becomes({1: 1, 2: 1, 3: 1})


def test_via_vip_sees_that_a_real_server_lost_the_vip(daemon: Daemon) -> None:
    """What a check of the real server's own address cannot see."""
    path = daemon.folder / "keepalived.conf"
    plain = path.read_text()
    path.write_text(plain.replace("connect_timeout 5", "connect_timeout 1\n            via vip"))
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    eventually(lambda: _checked(daemon) == 3, "all have been asked through the VIP")
    daemon.becomes({1: 1, 2: 1, 3: 1})
    daemon.lab.type("rs2", f"ip address del {daemon.vip}/32 dev lo")
    try:
        daemon.becomes({1: 1, 3: 1})
    finally:
        daemon.lab.type("rs2", f"ip address add {daemon.vip}/32 dev lo")
    daemon.becomes({1: 1, 2: 1, 3: 1})


def _checked(daemon: Daemon) -> int:
    """How many checkers have passed by now."""
    status = json.loads(daemon.lab.type("director", "xlvs status --json"))["daemon"]
    return sum(
        checker["up"] is True and checker["checked"] is not None
        for server in status["virtual_servers"]
        for real_server in server["real_servers"]
        for checker in real_server["checkers"]
    )
