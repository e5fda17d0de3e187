# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd's BFD sessions with the real keepalived's: over one hop by IPv4, over several by IPv6."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.labs import eventually

BIN = Path(sys.executable).parent
HERE, THERE = f"xlvs-tbfd{os.getpid()}-a", f"xlvs-tbfd{os.getpid()}-b"
INSTANCES = """\
bfd_instance one {{
    neighbor_ip 10.99.0.{to}
    source_ip 10.99.0.{by}
    multiplier 40
}}
bfd_instance two {{
    neighbor_ip fd99::{to}
    source_ip fd99::{by}
    multiplier 40
    max_hops 2
}}
"""
SERVER = """\
virtual_server {vip} 80 {{
    delay_loop 60
    lb_algo rr
    lb_kind DR
    protocol TCP
    real_server {rip} 80 {{
        BFD_CHECK {{
            name {name}
        }}
    }}
}}
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Two:
    """A director with xlvsd here, a neighbour with keepalived there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        servers = SERVER.format(vip="10.99.0.100", rip="10.99.0.2", name="one")
        servers += SERVER.format(vip="fd99::100", rip="fd99::2", name="two")
        (folder / "a.conf").write_text(INSTANCES.format(by=1, to=2) + servers)
        (folder / "b.conf").write_text(INSTANCES.format(by=2, to=1))

    def start(self, where: str) -> None:
        """Start the daemon of one end."""
        private = "mount -t tmpfs none /run && mkdir /run/keepalived && exec "
        command = {
            HERE: [str(BIN / "xlvsd"), "-n", "-l", "-G", "-f", f"{self.folder}/a.conf"],
            THERE: ["unshare", "-m", "sh", "-c", f"{private} keepalived -n -l -P -f {self.folder}/b.conf"],
        }[where]
        with open(self.folder / f"log-{where}", "ab") as log:
            self.running[where] = subprocess.Popen(
                ["ip", "netns", "exec", where, *command], stdout=log, stderr=log, start_new_session=True
            )

    def end(self, where: str, number: int = signal.SIGKILL) -> None:
        """End it with all that it has started."""
        process = self.running.pop(where)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait(20)

    def table(self) -> list[str]:
        """The real servers in the table."""
        command = ["ip", "netns", "exec", HERE, str(BIN / "xlvsadm"), "-Sn"]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return sorted(line.split()[4] for line in text.splitlines() if line.startswith("-a"))

    def becomes(self, table: list[str]) -> None:
        """Wait for a table."""
        try:
            eventually(lambda: self.table() == table, f"the table has {table}")
        except AssertionError as error:
            raise AssertionError((self.folder / f"log-{HERE}").read_text()) from error


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two(Path(tempfile.mkdtemp(prefix="bfd-", dir="/root" if Path("/root").is_dir() else "/var/lib")))
    try:
        for name in (HERE, THERE):
            ip("netns", "add", name)
        ip("link", "add", "v", "netns", HERE, "type", "veth", "peer", "name", "v", "netns", THERE)
        for number, name in enumerate((HERE, THERE), 1):
            ip("-n", name, "address", "add", f"10.99.0.{number}/24", "dev", "v")
            ip("-n", name, "address", "add", f"fd99::{number}/64", "dev", "v", "nodad")
            ip("-n", name, "link", "set", "v", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        if HERE in made.running:
            made.end(HERE, signal.SIGTERM)
        for name in list(made.running):
            made.end(name)
        subprocess.run(["ip", "netns", "exec", HERE, str(BIN / "xlvs"), "detach"], check=False)
        for name in (HERE, THERE):
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(made.folder)


BOTH = ["10.99.0.2:80", "[fd99::2]:80"]


def test_a_neighbour_that_dies_is_not_used_and_comes_back(two: Two) -> None:
    two.start(THERE)
    two.start(HERE)
    two.becomes(BOTH)
    two.end(THERE)
    two.becomes([])
    two.start(THERE)
    two.becomes(BOTH)
    # A daemon that is killed loses its sessions, not its table.
    two.end(HERE)
    assert two.table() == BOTH
    two.start(HERE)
    log = two.folder / f"log-{HERE}"
    eventually(lambda: log.read_text().count("is up: BFD session") == 6, "both sessions are up again")
    assert two.table() == BOTH
    # Each was removed when its neighbour died, and never since.
    assert log.read_text().count("Removing service") == 2
