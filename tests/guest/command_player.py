# SPDX-License-Identifier: GPL-2.0-only
"""Carries command lines out in the guest, for both programs: ``python -m tests.guest.command_player``.

Two network namespaces are alike; in one stands the real ipvsadm (starting it
is what costs), in the other xlvsadm runs in the player's own process.  Both
play all sessions at the same time.
Reads the order of `command_oracle.play` from stdin as JSON and writes the
answers to stdout.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypedDict

from xlvs.cli import ipvsadm

from .command_lines import SCHEDULERS
from .ipvsadm_transcript import ADDRESSES, HOSTS
from .scenario import KERNEL, PROJECT, XLVS
from .standing import StandingProgram

RESET = (("-C",), ("--set", "900", "120", "300"))
STARTS_DAEMON = "start-daemon"
MODULES = ("ip_vs", *(f"ip_vs_{name}" for name in sorted({*SCHEDULERS} - {"none"})))
ROOM = ("--connections", "8192")
"""A small table for xlvs: nothing is connected here."""

Answer = tuple[str, str, int]


class Program(Protocol):
    """Carries out one command line."""

    def __call__(self, words: Sequence[str], stdin: str = "") -> Answer: ...


class Order(TypedDict):
    """What stdin says."""

    preload: str
    sessions: list[list[tuple[list[str], str]]]


@contextmanager
def director(name: str) -> Iterator[str]:
    """A network namespace with addresses and names of its own; gives what enters it."""
    space = f"lines-{name}"
    names = Path(f"/etc/netns/{space}")
    names.mkdir(parents=True, exist_ok=True)
    (names / "hosts").write_text(HOSTS)
    (names / "nsswitch.conf").write_text("hosts: files\n")
    _run(f"ip netns add {space}")
    try:
        _run(f"ip -n {space} link set lo up")
        _run(f"ip -n {space} link add eth0 type veth peer name wire")
        for address in ADDRESSES:
            nodad = "nodad" if ":" in address else ""
            _run(f"ip -n {space} address add {address} dev eth0 {nodad}")
        _run(f"ip -n {space} link set wire up")
        _run(f"ip -n {space} link set eth0 up")
        yield space
    finally:
        _run(f"ip netns delete {space}")


def _run(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, stdout=sys.stderr)


def play(name: str, order: str) -> list[list[Answer]]:
    """What one program answers to every line of every session: to be called in a thread of its own."""
    if name == KERNEL:
        _run(f"modprobe -a {' '.join(MODULES)}")
    with director(name) as space:
        inside = f"ip netns exec {space} "
        if name == XLVS:
            _run(f"{inside}{PROJECT}/.venv/bin/xlvs attach eth0 {' '.join(ROOM)}")
        try:
            command = [
                *shlex.split(inside),
                sys.executable,
                "-m",
                f"{__package__}.command_player",
                "--in",
                name,
            ]
            done = subprocess.run(command, input=order, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            if name == XLVS:
                _run(f"{inside}{PROJECT}/.venv/bin/xlvs detach")
    answers: list[list[Answer]] = json.loads(done.stdout)
    return answers


def play_here(name: str, order: Order) -> list[list[Answer]]:
    """The same, in the namespace where that is to happen."""
    if name == XLVS:
        return [list(_answers(run_xlvsadm, session, False)) for session in order["sessions"]]
    program = StandingProgram("ipvsadm", Path(order["preload"]))
    try:
        return [list(_answers(program.run, session, True)) for session in order["sessions"]]
    finally:
        program.close()


def run_xlvsadm(words: Sequence[str], stdin: str = "") -> Answer:
    """Go through the program's own `main`, without starting an interpreter for it."""
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    streams = [io.BytesIO(stdin.encode()), io.BytesIO(), io.BytesIO()]
    sys.argv = ["ipvsadm", *words]
    sys.stdin, sys.stdout, sys.stderr = (io.TextIOWrapper(stream, write_through=True) for stream in streams)
    try:
        status = ipvsadm.main()
        stdout, stderr = (stream.getvalue().decode() for stream in streams[1:])
    finally:
        # The wrappers close what they wrap when they go.
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
    return stdout, stderr, status


def _answers(
    run: Program, session: Sequence[tuple[Sequence[str], str]], stops_daemons: bool
) -> Iterator[Answer]:
    for reset in RESET:
        run(reset)
    for words, stdin in session:
        yield run(words, stdin)
        # xlvs has none to start; the kernel's would show from now on.
        if stops_daemons and any(STARTS_DAEMON in word for word in (*words, stdin)):
            for role in ("master", "backup"):
                run(("--stop-daemon", role))


def main() -> int:
    """Play what stdin orders and print the answers, of both programs or of the one that is named."""
    order = sys.stdin.read()
    if sys.argv[1:2] == ["--in"]:
        json.dump(play_here(sys.argv[2], json.loads(order)), sys.stdout)
        return 0
    with ThreadPoolExecutor(2) as pool:
        plays = {name: pool.submit(play, name, order) for name in (KERNEL, XLVS)}
        json.dump({name: play.result() for name, play in plays.items()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
