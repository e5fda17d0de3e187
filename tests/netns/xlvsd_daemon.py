# SPDX-License-Identifier: GPL-2.0-only
"""An xlvsd on a lab's director, clients that ask all the time, and real servers that die."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.labs import Lab, eventually
from xlvs.lab import nginx

XLVSD = Path(sys.executable).parent / "xlvsd"
# Requests, one connection each, until they are to end; a line says in which phase of the test each began
# and ended, and who answered.
TRAFFIC = """\
import os, socket, threading, time
folder = "{folder}"
def phase():
    with open(folder + "/phase") as file:
        return file.read()
def ask():
    while not os.path.exists(folder + "/enough"):
        began, answer = phase(), "failed"
        try:
            with socket.create_connection(("{vip}", 80), 10) as asking:
                asking.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                answer = asking.makefile().read().split()[-1]
        except (OSError, IndexError):
            pass
        os.write(log, f"{{began}} {{phase()}} {{answer}}\\n".encode())
        # Without a rest a port comes again before the connection that failed on it, to a real server that
        # is gone, is forgotten: the kernel's ten seconds.
        time.sleep(0.005)
log = os.open(folder + "/asked", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range(3):
    threading.Thread(target=ask).start()
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

    def end(self, name: str = "TERM") -> None:
        """End it by a signal and wait for that."""
        if self.pid:
            self.lab.type("director", f"kill -{name} {self.pid} 2>/dev/null; true")
            eventually(lambda: not self.runs(), "xlvsd has ended")
            self.pid = 0

    def runs(self) -> bool:
        """Whether the process is there."""
        return "yes" in self.lab.type("director", f"kill -0 {self.pid} 2>/dev/null && echo yes; true")

    def weights(self) -> dict[int, int]:
        """The real servers in the table, by number from 1, with their weights."""
        listing = self.lab.type("director", "ipvsadm -Ln")
        found = re.findall(r"-> (\S+):(?:80|443) +(?:Route|Masq) +(\d+)", listing)
        return {self.rips.index(rip) + 1: int(weight) for rip, weight in found}

    def reload(self) -> None:
        """Have it read its configuration, and wait until that is done."""
        log = self.folder / "log"
        before = log.read_text().count("Reload finished")
        self.lab.type("director", f"kill -HUP {self.pid}")
        eventually(lambda: log.read_text().count("Reload finished") > before, "it has reloaded")

    def becomes(self, weights: dict[int, int]) -> None:
        """Wait for a table."""
        eventually(lambda: self.weights() == weights, f"the table has {weights}, not {self.weights()}")

    def events(self) -> list[dict[str, object]]:
        """What it has noticed."""
        return [json.loads(line) for line in self.lab.type("director", "xlvs events").splitlines()]


def kill_nginx(lab: Lab, node: str) -> None:
    """Kill the nginx of one node, and its workers: nodes share the machine's process numbers."""
    folder = lab.record.node_folder(node)
    assert nginx.is_running(folder, lab.record.namespace(node))  # the number is this node's
    master = int((folder / "nginx/pid").read_text())
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for process in (master, *map(int, workers)):
        os.kill(process, signal.SIGKILL)


class Traffic:
    """Clients that ask all the time, and the phase of the test that they note."""

    def __init__(self, daemon: Daemon) -> None:
        self._folder = daemon.folder
        self.phase("quiet")
        (self._folder / "traffic.py").write_text(TRAFFIC.format(vip=daemon.vip, folder=self._folder))
        command = f"timeout 180 {sys.executable} {self._folder}/traffic.py </dev/null >/dev/null 2>&1 &"
        daemon.lab.type("client", command)

    def phase(self, name: str) -> None:
        """Begin a phase."""
        (self._folder / "new phase").write_text(name)
        (self._folder / "new phase").rename(self._folder / "phase")

    def asks(self, name: str, times: int = 60) -> None:
        """Begin a phase, and wait until so many requests were begun and ended in it."""
        self.phase(name)
        eventually(lambda: len(self.answers(name)) >= times, f"{times} requests in phase {name}")

    def requests(self) -> list[list[str]]:
        """Of each request: the phases in which it began and ended, and its answer."""
        asked = self._folder / "asked"
        return [line.split() for line in asked.read_text().splitlines()] if asked.exists() else []

    def answers(self, name: str) -> list[str]:
        """The answers to requests that fell into one phase."""
        return [answer for began, ended, answer in self.requests() if began == ended == name]

    def end(self) -> None:
        """Let the clients end."""
        (self._folder / "enough").touch()
