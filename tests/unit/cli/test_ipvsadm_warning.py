# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsadm -A`` at a terminal says which INPUT rule passes the service by, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
SCRIPT = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from xlvs.cli.ipvsadm import run
from xlvs.datapath.memory import MemoryDatapath

class Opened:
    def __enter__(self):
        return MemoryDatapath()
    def __exit__(self, *_):
        pass

sys.exit(run(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr, lambda **_: Opened(), "xlvsadm"))
"""
BLOCKED = "iptables -A INPUT -s 198.51.100.0/24 -p tcp --dport 80 -j DROP"
ADD = ("-A", "-t", "192.0.2.100:80")


def typed(rules: str, *arguments: str, **environment: str) -> str:
    """What the command says on a terminal, in a network namespace with these rules; it must succeed."""
    script = f'{rules}\nexec "$@"'
    command = [
        "unshare",
        "--net",
        "sh",
        "-ec",
        script,
        "sh",
        sys.executable,
        "-IS",
        "-c",
        SCRIPT,
        *arguments,
    ]
    here, there = pty.openpty()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=there, check=False,
            env={**os.environ, **environment}, timeout=20,
        )  # fmt: skip
    finally:
        os.close(there)
    try:
        said = os.read(here, 65536).decode()
    except OSError:
        said = ""  # nothing: Linux says EIO once the other end is closed
    finally:
        os.close(here)
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize(
    ("rules", "arguments"),
    [
        (BLOCKED, ADD),
        ("iptables -A INPUT -d 192.0.2.100 -m limit --limit 3/sec -j REJECT", ADD),
        ("ip6tables -A INPUT -p udp --dport 53 -j DROP", ("-A", "-u", "[2001:db8::1]:53")),
        (
            "nft 'add table inet fw; add chain inet fw base { type filter hook input priority 0; };"
            " add rule inet fw base ip daddr 192.0.2.100 drop'",
            ADD,
        ),
    ],
)
def test_a_rule_that_passes_the_service_by(rules: str, arguments: tuple[str, ...]) -> None:
    said = typed(rules, *arguments)
    assert said.count("\n") == 1 and said.startswith("xlvsadm: warning: ")
    assert "does not apply to" in said and "on the real servers" in said and "XLVS_NO_WARNINGS=1" in said


@pytest.mark.parametrize(
    ("rules", "arguments"),
    [
        ("true", ADD),
        ("iptables -A INPUT -p tcp --dport 22 -j DROP", ADD),
        ("iptables -P INPUT DROP; iptables -A INPUT -j DROP", ADD),
        ("ip6tables -A INPUT -p tcp --dport 80 -j DROP", ADD),
        (BLOCKED, ("-L", "-n")),
        (BLOCKED, ("-A", "-f", "7")),
    ],
)
def test_silence(rules: str, arguments: tuple[str, ...]) -> None:
    assert typed(rules, *arguments) == ""


def test_silenced() -> None:
    assert typed(BLOCKED, *ADD, XLVS_NO_WARNINGS="1") == ""


def test_scripts_get_what_ipvsadm_prints() -> None:
    """Without a terminal there is not a byte more."""
    command = [
        "unshare",
        "--net",
        "sh",
        "-ec",
        f'{BLOCKED}\nexec "$@"',
        "sh",
        sys.executable,
        "-IS",
        "-c",
        SCRIPT,
    ]
    done = subprocess.run([*command, *ADD], capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_firewall_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """`typed` itself would give up before they end."""
    for name in ("iptables-nft-save", "iptables-save", "nft"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 30\n")
        (tmp_path / name).chmod(0o755)
    path = f'export PATH={tmp_path}:"$PATH"'
    assert typed(f"{BLOCKED}\n{path}", *ADD) == ""
