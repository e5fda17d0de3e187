# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd as its systemd unit starts it: what it tells systemd, with the unit's capabilities and no others."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.labs import eventually

PROGRAMS = Path(sys.executable).parent
UNIT = Path(__file__).resolve().parents[2] / "systemd/xlvsd.service.in"
NAMESPACE = f"xlvs-tunit{os.getpid()}"
CONFIGURATION = """\
global_defs {{
    enable_script_security
    script_user nobody
    lvs_notify_fifo {folder}/fifo
}}
virtual_server 10.98.0.100 80 {{
    delay_loop 0.2
    lb_algo rr
    lb_kind DR
    protocol TCP
    real_server 10.98.0.1 80 {{
        PING_CHECK {{
        }}
    }}
    real_server 10.98.0.2 80 {{
        MISC_CHECK {{
            misc_path "/usr/bin/test -e {folder}/good"
        }}
    }}
}}
"""


def setting(name: str) -> str:
    """What the unit says after a name."""
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found
    return found[1]


class Systemd:
    """What systemd would be for the daemon: its parent, and who listens at $NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._heard: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._listening.bind(str(folder / "notify"))
        (folder / "keepalived.conf").write_text(CONFIGURATION.format(folder=folder))
        before = setting("ExecStartPre").removeprefix("+/bin/sh -c ").strip("'")
        subprocess.run(["sh", "-c", before], check=True)
        wanted = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in
                         setting("CapabilityBoundingSet").split())  # fmt: skip
        self.command: list[str] = [
            "ip", "netns", "exec", NAMESPACE, "setpriv", "--bounding-set", f"-all{wanted}",
            str(PROGRAMS / "xlvsd"), "-n", "-l", "-G", "-f", str(folder / "keepalived.conf"),
        ]  # fmt: skip
        with open(folder / "log", "wb") as log:
            self.daemon = subprocess.Popen(
                self.command,
                env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"},
                stderr=log,
            )  # fmt: skip

    def heard(self) -> list[str]:
        """All messages so far."""
        with suppress(BlockingIOError):
            while True:
                self._heard.append(self._listening.recv(4096).decode())
        return self._heard

    def hears(self, message: str, times: int = 1) -> None:
        """Wait for a message to have come so often; its first line counts."""
        try:
            eventually(
                lambda: sum(one.split("\n")[0] == message for one in self.heard()) >= times,
                f"{message} is said",
            )
        except AssertionError as error:
            raise AssertionError(f"{self._heard}\n{(self.folder / 'log').read_text()}") from error

    def reload(self) -> tuple[int, str]:
        """Reload as systemd does; the command's exit status, and all that it says."""
        words = [*self.command[: self.command.index(str(PROGRAMS / "xlvsd"))],
                 *setting("ExecReload").replace("@BINDIR@", str(PROGRAMS)).split()]  # fmt: skip
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    def table(self) -> list[str]:
        """The real servers in the table."""
        command = ["ip", "netns", "exec", NAMESPACE, str(PROGRAMS / "xlvsadm"), "-Sn"]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return sorted(line.split()[4] for line in text.splitlines() if line.startswith("-a"))

    def becomes(self, table: list[str]) -> None:
        """Wait for a table; nobody listens meanwhile, as if systemd were stuck."""
        try:
            eventually(lambda: self.table() == table, f"the table has {table}")
        except AssertionError as error:
            raise AssertionError(f"{self.table()}\n{(self.folder / 'log').read_text()}") from error

    def close(self) -> None:
        """End the daemon."""
        self.daemon.kill()
        self.daemon.wait()
        self._listening.close()


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    folder = Path(tempfile.mkdtemp(prefix="xlvsd-unit-", dir="/var/lib"))
    folder.chmod(0o755)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        for line in ("link set lo up", "link add v type veth peer name w", "address add 10.98.0.1/24 dev v",
                     "link set v up", "link set w up"):  # fmt: skip
            subprocess.run(["ip", "-n", NAMESPACE, *line.split()], check=True)
        made = Systemd(folder)
        try:
            yield made
        finally:
            made.close()
    finally:
        detach = ["ip", "netns", "exec", NAMESPACE, str(PROGRAMS / "xlvs"), "detach"]
        subprocess.run(detach, capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)
        shutil.rmtree(folder)


def test_what_systemd_is_told(systemd: Systemd) -> None:
    systemd.hears("READY=1")
    assert "STATUS=Keeping 1 virtual server" in systemd.heard()[-1] or "WATCHDOG=1" in systemd.heard()
    systemd.becomes(["10.98.0.1:80"])
    fifo = (systemd.folder / "fifo").stat()
    assert (fifo.st_uid, fifo.st_gid) == pwd.getpwnam("nobody")[2:4]
    systemd.heard()
    systemd.hears("WATCHDOG=1", times=2)
    (systemd.folder / "good").touch()
    # A reload finds the FIFO there already, and another's: it is opened all the same.
    systemd.daemon.send_signal(signal.SIGHUP)
    systemd.hears("RELOADING=1")
    assert any(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", one) for one in systemd.heard())
    systemd.hears("READY=1", times=2)
    systemd.becomes(["10.98.0.1:80", "10.98.0.2:80"])
    assert "notify fifo" not in (systemd.folder / "log").read_text()
    # And by what systemd runs for a reload, which waits for it.
    assert systemd.reload() == (0, "xlvsd keeps 1 virtual server\n")
    systemd.hears("READY=1", times=3)
    (systemd.folder / "keepalived.conf").write_text("virtual_server {\n")
    code, said = systemd.reload()
    assert code != 0 and "cannot be run" in said and "xlvsd -t -f" in said
    systemd.hears("READY=1", times=4)
    assert any("the last reload failed" in one for one in systemd.heard())
    assert systemd.table() == ["10.98.0.1:80", "10.98.0.2:80"]
    systemd.daemon.send_signal(signal.Signals[setting("RestartKillSignal")])
    systemd.hears("STOPPING=1")
    assert systemd.daemon.wait(20) == 0
    assert systemd.table() == ["10.98.0.1:80", "10.98.0.2:80"]  # a restart leaves it to the next one
    # With that configuration it cannot begin: systemd does not try again and again.
    again = subprocess.run(systemd.command, capture_output=True, text=True, check=False)
    assert again.returncode == int(setting("RestartPreventExitStatus"))
    assert again.stderr.count("cannot be run") == 1
