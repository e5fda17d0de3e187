# SPDX-License-Identifier: GPL-2.0-only
"""What keepalived itself, running, makes of a configuration: where it checks, how often, how patiently."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.keepalived.test_verdicts import AROUND
from tests.unit.keepalived.verdicts import CORPUS
from xlvs.checkers.connection import host
from xlvs.keepalived.parse import parse

_READY = "Activating BFD healthchecker"
"""What keepalived says last of a start, after its dump."""
_SECONDS = 1e6
_START = (
    "ip link set lo up; exec timeout 20 env LD_PRELOAD=$1/no_ipvs.so keepalived -C -n -l -d -R -f $2"
    " -p $1/pid -c $1/checkers"
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with an IPVS that takes everything: what keepalived writes into it does not matter here."""
    with tempfile.TemporaryDirectory(prefix="xlvs-dump-") as made:
        source = Path(__file__).with_name("no_ipvs.c")
        subprocess.run(["clang", "-O1", "-shared", "-fPIC", "-o", f"{made}/no_ipvs.so", source], check=True)
        yield Path(made)


def dump(folder: Path, configuration: Path) -> list[str]:
    """The lines that keepalived logs until it checks."""
    command = ["unshare", "--net", "sh", "-c", _START, "start", str(folder), str(configuration)]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(re.sub(r"^.*? \d{4}: ", "", line.rstrip("\n")))
            if lines[-1] == _READY:
                running.terminate()
    assert _READY in lines, "\n".join(lines)
    return lines


def theirs(lines: list[str]) -> list[tuple[object, ...]]:
    """Of each checker of a dump: destination, timeout, interval, first check, retries, time between them."""
    found: list[dict[str, str]] = []
    for line in lines[lines.index("------< Health checkers >------") + 1 :]:
        if re.match(r" \S.* -> ", line):
            found.append({})
        elif found and " = " in line:
            name, _, value = line.strip().partition(" = ")
            found[-1][name] = value

    def seconds(text: str) -> float:
        return int(text.split()[0]) / _SECONDS

    return [
        (
            one["Dest"], float(one["Timeout"]), seconds(one["Delay loop"]), seconds(one["Warmup"]),
            int(one["Retries"]), seconds(one["Delay before retry"]), one["Alpha"] == "yes",
        )
        for one in found if "Dest" in one
    ]  # fmt: skip


def ours(configuration: Path) -> list[tuple[object, ...]]:
    """The same of our checkers."""
    found: list[tuple[object, ...]] = []
    for server in parse(str(configuration), AROUND).configuration.virtual_servers:
        for one in server.real_servers:
            for checker in one.checkers:
                way, when = getattr(checker, "connection", None), checker.schedule
                if way is not None:
                    found.append((
                        f"[{host(way)}]:{way.port}", way.timeout, when.delay_loop, when.warmup,
                        when.retry, when.delay_before_retry, when.alpha,
                    ))  # fmt: skip
    return found


@pytest.mark.parametrize("name", ["where-checks-go", "http-get"])
def test_checks_are_keepaliveds(folder: Path, name: str) -> None:
    path = CORPUS / f"{name}.conf"
    said = theirs(dump(folder, path))
    assert said
    assert ours(path) == said
