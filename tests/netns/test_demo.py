# SPDX-License-Identifier: GPL-2.0-only
"""The demonstration: it shows what it claims, and leaves nothing however it ends."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from tests.labs import XLVS, left_behind, xlvs


def _shown(topology: str) -> str:
    """What a demonstration prints; nothing of it is left (others may be at it at the same time)."""
    process = subprocess.Popen([XLVS, "lab", "demo", topology], stdout=subprocess.PIPE, text=True)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert left_behind(f"demo-{process.pid}") == []
    return shown


def test_demo_shows_direct_routing_at_work() -> None:
    shown = _shown("dr")
    assert len(re.findall(r"client\$ curl .* rs[123]$", shown, re.MULTILINE)) == 12
    assert "answers by real server: rs1 4, rs2 4, rs3 4" in shown
    assert re.search(r"-> 192\.0\.2\.101:80 +Route +1 +0 +4", shown)
    assert len(re.findall(r"^ *TCP \d\d:\d\d +FIN_WAIT", shown, re.MULTILINE)) == 12
    assert re.search(r"seen at the director +0$", shown, re.MULTILINE)
    assert int(re.findall(r"received by the client +(\d+)$", shown, re.MULTILINE)[0]) >= 36


def test_demo_shows_nat_at_work() -> None:
    shown = _shown("nat")
    assert len(re.findall(r"client\$ curl .* rs[12]$", shown, re.MULTILINE)) == 12
    assert "answers by real server: rs1 6, rs2 6" in shown
    assert re.search(r"-> 192\.168\.56\.135:80 +Masq +1 +0 +6", shown)
    assert len(re.findall(r"^ *TCP \d\d:\d\d +TIME_WAIT", shown, re.MULTILINE)) == 12
    assert re.search(r"seen at the client +0$", shown, re.MULTILINE)
    assert int(re.findall(r"received by the client +(\d+)$", shown, re.MULTILINE)[0]) >= 36


def test_demo_shows_tunnelling_at_work() -> None:
    shown = _shown("tun")
    assert len(re.findall(r"client\$ curl .* rs[12]$", shown, re.MULTILINE)) == 12
    assert "answers by real server: rs1 6, rs2 6" in shown
    assert re.search(r"-> 192\.168\.56\.135:80 +Tunnel +1 +0 +6", shown)
    assert re.search(r"seen at the director +0$", shown, re.MULTILINE)
    wrapped = re.findall(r"DIP -> RIP +wrapped, to 192\.168\.56\.13[56] +(\d+)$", shown, re.MULTILINE)
    assert len(wrapped) == 2 and min(map(int, wrapped)) >= 18


@pytest.mark.parametrize(
    "moment", ["==> Build", "rs1# nginx", "==> Ask", "4: rs", "==> What", "==> Tidying"]
)
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_demo_tidies_up_when_interrupted(moment: str, signal_number: int) -> None:
    process = subprocess.Popen(
        [XLVS, "lab", "demo", "dr"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            break
    process.send_signal(signal_number)
    said, _ = process.communicate(timeout=30)
    assert "Traceback" not in said
    # After the last step there is nothing left to interrupt: it may as well end well.
    assert process.returncode == 130 or (moment == "==> Tidying" and process.returncode == 0)
    assert left_behind(f"demo-{process.pid}") == []


def test_demo_removes_what_a_killed_one_left() -> None:
    process = subprocess.Popen([XLVS, "lab", "demo", "dr"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "==> Ask" in line:
            break
    process.kill()
    process.communicate()
    assert left_behind(f"demo-{process.pid}") != []
    assert "left by a demo that was killed" in xlvs("lab", "demo", "dr").stdout
    assert left_behind(f"demo-{process.pid}") == []


@pytest.mark.parametrize("lines", [1, 8, 30, 45])
def test_demo_tidies_up_when_nobody_looks_on_any_more(lines: int) -> None:
    # Its lab is named after its process: other tests' demos run at the same time.
    line = f"(echo $BASHPID >&2; exec {XLVS} lab demo dr) | head -n {lines}; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 128 + signal.SIGPIPE
    demo, _, said = ran.stderr.partition("\n")
    assert "Traceback" not in said and "Exception" not in said
    assert left_behind(f"demo-{int(demo)}") == []
