# SPDX-License-Identifier: GPL-2.0-only
"""keepalived on kernel IPVS beside xlvsd on kernel IPVS and on eBPF: one history, three tables.

``python -m tests.guest.keepalived_player`` runs in the guest, with JSON on standard input: a list
of histories, each a list of steps.  It prints JSON, for each history and step what each director
had then: ``table``, the lines of ``ipvsadm -Sn``; ``told``, what its notify scripts and its FIFO
were told since the step before.  Steps are pairs:

    start TEXT        the configuration, and a daemon that reads it; {folder} is each one's own
    reload TEXT       another configuration, and SIGHUP
    down/up NUMBERS   real servers stop listening, or listen again
    away/back VIP     the address is taken off, or put on the director's loopback
    say NAME TEXT     write TEXT to the file NAME of each one's folder
    stop              SIGTERM

Real servers are one namespace's sockets, so all directors ask the same ones.  A step is over when
the three have been alike, and as they were, for a while; or at last when they have not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from tests.guest.network import add_namespace, delete_namespace
from tests.guest.operators import KernelOperator, XlvsOperator
from xlvs.cli import xlvsd
from xlvs.daemon import main as _imported_before_forking  # noqa: F401 - which is slow in the guest
from xlvs.datapath.kernel import load_kernel
from xlvs.kernel.namespaces import network_namespace

DIRECTORS = KEEPALIVED, XLVSD_KERNEL, XLVSD = "keepalived", "xlvsd-kernel", "xlvsd"
SERVERS = "servers"
VIPS = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "2001:db8:1::1")
PORT = 80
LOOK, ALIKE, PATIENCE = 1.0, 2.0, 20.0
"""Seconds: between looks, how long things stay alike, and for how long they are given time."""

Seen = dict[str, list[str]]


def rips(number: int) -> tuple[str, str]:
    """The addresses of a real server."""
    return f"10.0.0.{number}", f"2001:db8::{number}"


def ip(*lines: str) -> None:
    """Run lines of ip."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


class Director:
    """One that keeps a table: which program, where, and what it was told."""

    def __init__(self, name: str, folder: Path, preload: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.process = 0
        self._told = 0
        self.namespace = network_namespace(f"/run/netns/{name}")
        self._make_folder()
        self._fifo = os.open(self.folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        self._operator = (
            XlvsOperator(lambda: self.namespace)
            if name == XLVSD
            else KernelOperator(lambda: self.namespace, preload)
        )

    def _make_folder(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()
        script = self.folder / "notify"
        script.write_text(f'#!/bin/sh\necho "script $*" >>{self.folder}/told\n')
        script.chmod(0o755)
        for name in ("told", "log"):
            (self.folder / name).touch()
        os.mkfifo(self.folder / "fifo")

    def configure(self, text: str) -> None:
        """Write its configuration."""
        (self.folder / "keepalived.conf").write_text(text.replace("{folder}", str(self.folder)))

    def start(self) -> None:
        """Start its daemon."""
        self.process = os.fork()
        if not self.process:
            self._be_the_daemon()

    def _be_the_daemon(self) -> NoReturn:
        status = 70
        try:
            os.closerange(3, 1024)  # the real servers' sockets would go on listening here
            self.namespace.__enter__()
            log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            words = ["-n", "-l", "-G", "-f", f"{self.folder}/keepalived.conf"]
            if self.name == KEEPALIVED:
                pids = [word for which in "pcr" for word in (f"-{which}", f"{self.folder}/{which}.pid")]
                os.execvp("keepalived", ["keepalived", *words, "-C", *pids])
            status = xlvsd.main([*words, *(["--datapath", "kernel"] if self.name == XLVSD_KERNEL else [])])
        finally:
            os._exit(status)

    def signal(self, number: int) -> None:
        """Send a signal to its daemon."""
        os.kill(self.process, number)

    def end(self) -> None:
        """End the daemon, if there is one, and wait for that."""
        if self.process:
            self.signal(signal.SIGTERM)
            os.waitpid(self.process, 0)
            self.process = 0

    def table(self) -> list[str]:
        """What ``ipvsadm -Sn`` prints, in the order of the alphabet."""
        answer = self._operator.ipvsadm(["-Sn"])
        return sorted(line.removeprefix("1|") for line in answer.splitlines() if line != "= 0")

    def told(self) -> list[str]:
        """What its scripts and its FIFO have been told since the step before."""
        with suppress(BlockingIOError):
            if said := os.read(self._fifo, 65536).decode():
                with open(self.folder / "told", "a") as file:
                    file.writelines(f"fifo {line}\n" for line in said.splitlines())
        return sorted((self.folder / "told").read_text().splitlines()[self._told :])

    def next(self) -> None:
        """A step is over."""
        self._told = len((self.folder / "told").read_text().splitlines())

    def close(self) -> None:
        """End its daemon, and show its log to whoever looks for a mistake."""
        self.end()
        self._operator.close()
        os.close(self._fifo)
        sys.stderr.write(f"--- {self.name}\n{(self.folder / 'log').read_text(errors='replace')}")


class Servers:
    """The real servers: sockets that listen, or not."""

    def __init__(self) -> None:
        self._listening: dict[int, list[socket.socket]] = {}
        self._namespace = network_namespace(f"/run/netns/{SERVERS}")

    def up(self, number: int) -> None:
        """Listen; nobody takes the connections, which a check does not mind."""
        if number in self._listening:
            return
        with self._namespace:
            made = []
            for address in rips(number):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                one = socket.create_server((address, PORT), family=family, backlog=4096)
                made.append(one)
        self._listening[number] = made

    def take(self) -> None:
        """Take what has come, so that there is room for more."""
        for sockets in self._listening.values():
            for one in sockets:
                one.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        one.accept()[0].close()

    def down(self, number: int) -> None:
        """Stop to listen."""
        for one in self._listening.pop(number, ()):
            one.close()


def build(stack: ExitStack, most: int) -> None:
    """The namespaces: three directors with all VIPs, on one switch with the real servers."""
    for name in (SERVERS, *DIRECTORS):
        add_namespace(name)
        stack.callback(delete_namespace, name)
    ip("link add br0 netns servers up type bridge")
    for number, name in enumerate(DIRECTORS):
        ip(f"link add to-switch netns {name} type veth peer name port{number} netns servers")
        with network_namespace(f"/run/netns/{name}"):
            ip(
                "link set lo up", "link set to-switch up",
                f"addr add 10.0.0.{201 + number}/24 dev to-switch",
                f"addr add 2001:db8::{201 + number}/64 dev to-switch nodad",
                *(f"addr add {vip}/{128 if ':' in vip else 32} dev lo" for vip in VIPS),
            )  # fmt: skip
    with network_namespace(f"/run/netns/{SERVERS}"):
        ip("link set lo up", *(f"link set port{number} up master br0" for number in range(len(DIRECTORS))))
        ip(*(f"addr add {address} dev br0{' nodad' if ':' in address else ''}"
             for number in range(1, most + 1)
             for address in (f"{rips(number)[0]}/24", f"{rips(number)[1]}/64")))  # fmt: skip


class Player:
    """Carries steps out on all directors."""

    def __init__(self, directors: Sequence[Director], servers: Servers) -> None:
        self._directors = directors
        self._servers = servers

    def play(self, verb: str, rest: str) -> dict[str, Seen]:
        """Carry a step out and return what each director came to."""
        getattr(self, f"_{verb}")(rest)
        seen = self._settled()
        for one in self._directors:
            one.next()
        return seen

    def _settled(self) -> dict[str, Seen]:
        began = alike = time.monotonic()
        time_to_be_alike = ALIKE if any(one.process for one in self._directors) else 0
        before: dict[str, Seen] = {}
        while True:
            time.sleep(LOOK)
            self._servers.take()
            seen = {one.name: {"table": one.table(), "told": one.told()} for one in self._directors}
            now = time.monotonic()
            if seen != before or len({json.dumps(one) for one in seen.values()}) > 1:
                alike = now
            if now - alike >= time_to_be_alike or now - began >= PATIENCE:
                return seen
            before = seen

    def _start(self, text: str) -> None:
        for one in self._directors:
            one.configure(text)
            one.start()

    def _reload(self, text: str) -> None:
        for one in self._directors:
            one.configure(text)
            one.signal(signal.SIGHUP)

    def _down(self, numbers: str) -> None:
        for number in numbers.split():
            self._servers.down(int(number))

    def _up(self, numbers: str) -> None:
        for number in numbers.split():
            self._servers.up(int(number))

    def _say(self, words: str) -> None:
        name, _, text = words.partition(" ")
        for one in self._directors:
            (one.folder / name).write_text(f"{text}\n")

    def _away(self, vip: str) -> None:
        self._address("del", vip)

    def _back(self, vip: str) -> None:
        self._address("add", vip)

    def _address(self, verb: str, vip: str) -> None:
        for one in self._directors:
            with one.namespace:
                ip(f"addr {verb} {vip}/{128 if ':' in vip else 32} dev lo")

    def _stop(self, _: str) -> None:
        for one in self._directors:
            one.end()


def main() -> None:
    """Play, and print what was seen."""
    order = json.load(sys.stdin)
    load_kernel()
    answer = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keepalived-", dir="/root")))
        build(stack, order["servers"])
        for history in order["histories"]:
            servers = Servers()
            for number in range(1, order["servers"] + 1):
                servers.up(number)
            directors = [Director(name, folder, Path(order["preload"])) for name in DIRECTORS]
            player = Player(directors, servers)
            try:
                answer.append([player.play(verb, rest) for verb, rest in history])
            finally:
                for one in directors:
                    one.close()
                for number in range(1, order["servers"] + 1):
                    servers.down(number)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
