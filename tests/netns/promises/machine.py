# SPDX-License-Identifier: GPL-2.0-only
"""A machine to break: process, mount and network namespaces of its own, with an empty /run.

Its process 1 is its own, so `xlvs` takes it for the whole machine, and what is
broken in it is broken nowhere else.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.netns.promises.site import COMMANDS, eventually, without_carrier

_SETUP = """\
mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/mount && mount -t sysfs sysfs /sys &&
ip link set lo up && ip link add eth0 type veth peer name far && ip link set eth0 up &&
ip address add 192.0.2.100/24 dev eth0 && touch /run/ready && exec sleep infinity
"""
_STATE = """\
find /run ! -name '*.debug' -printf '%p %m\\n' | sort
bpftool net show; ip link show; tc qdisc show
cat /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/*/forwarding
"""

SECCOMP = str(Path(__file__).parent / "seccomp.py")


class Machine:
    """Give commands to it with `run`; leaving the ``with`` block ends it, and all that it held."""

    def __enter__(self) -> Machine:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", _SETUP],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
            eventually(lambda: children.read_text().strip(), "the machine's process 1 is there")
            self._first = children.read_text().split()[0]
            eventually(lambda: Path(f"/proc/{self._first}/root/run/ready").exists(), "the machine is set up")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._holder.kill()
        self._holder.communicate()

    def run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine to its end, whatever that is."""
        return subprocess.run(
            ["nsenter", "--target", self._first, "--mount", "--pid", "--net", *words],
            capture_output=True, text=True, errors="replace", check=False, timeout=60, input=stdin,
        )  # fmt: skip

    def type(self, lines: str) -> str:
        """Type lines in a shell; they must succeed."""
        ran = self.run("sh", "-e", "-c", lines)
        assert ran.returncode == 0, f"{lines}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def state(self) -> str:
        """What a command that failed must have left as it was: pins, locks, programs, settings.

        The folder /run/xlvs and the empty file system in it are no state.
        """
        lines = self.type(_STATE).splitlines()
        scaffold = re.compile(r"/run(/xlvs(/bpf|/lock)?)? \d+$")
        return without_carrier("\n".join(line for line in lines if not scaffold.match(line)))


def command(line: str, before: tuple[str, ...] = ()) -> list[str]:
    """The words of an `xlvs` or `xlvsadm` command, after a wrapper such as ``setpriv``."""
    name, *words = line.split()
    return [*before, str(COMMANDS / name), *words]


def failing_bpf(error: str, which: str = "every") -> tuple[str, ...]:
    """A wrapper under which bpf(2) fails: always, or only to make a map."""
    return (sys.executable, SECCOMP, error, which)
