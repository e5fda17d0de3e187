# SPDX-License-Identifier: GPL-2.0-only
"""What exporters and check scripts look for is where they look for it.

The rules are those of Prometheus' procfs (its reader of ip_vs and ip_vs_stats),
and of the many scripts that take columns out of ``ipvsadm -Ln``.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from tests.unit.cli.test_proc import COMMANDS
from tests.unit.cli.test_saved import table_of
from xlvs.cli import proc_files
from xlvs.cli.ipvsadm import run
from xlvs.datapath.memory import MemoryDatapath
from xlvs.model import DestinationEntry, Rates, Stats, Totals

pytestmark = pytest.mark.unit


def endpoint(text: str) -> tuple[str, int]:
    """An address and port of ip_vs: they are told apart by their length alone."""
    address, port = text[:-5], text[-4:]
    assert len(text) in (13, 46) and text[-5] == ":"
    if len(text) == 13:
        return str(ip_address(bytes.fromhex(address))), int(port, 16)
    return str(ip_address(address[1:-1])), int(port, 16)


def backends(text: str) -> list[tuple[object, ...]]:
    """The real servers in ip_vs: protocol, virtual endpoint or mark, real endpoint, weight, connections."""
    found = []
    service: tuple[object, ...] = ()
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0] in ("IP", "Prot") or fields[1] == "RemoteAddress:Port":
            continue
        if fields[0] in ("TCP", "UDP"):
            service = fields[0], endpoint(fields[1])
        elif fields[0] == "FWM":
            service = fields[0], fields[1]
        else:
            assert fields[0] == "->" and len(fields) >= 6
            found.append((*service, endpoint(fields[1]), *(int(text) for text in fields[3:6])))
    return found


def test_an_exporter_finds_every_real_server() -> None:
    table = table_of(COMMANDS)
    lines = proc_files.table_file(table.version(), table.size(), table.services(), 250)
    assert backends("".join(lines)) == [
        ("TCP", ("192.0.2.1", 80), ("2001:db8::7", 80), 1, 0, 0),
        ("TCP", ("192.0.2.1", 80), ("10.0.0.3", 8080), 1, 0, 0),
        ("FWM", "00000005", ("10.0.0.9", 0), 1, 0, 0),
    ]


def test_an_exporter_finds_the_counters() -> None:
    stats = Stats(26, 2, 3, 2**63, 5)
    text = "".join(proc_files.statistics_file(Totals(stats, (), Rates())))
    assert [int(field, 16) for field in text.split("\n")[2].split()] == [26, 2, 3, 2**63, 5]


@pytest.mark.parametrize(
    ("arguments", "script", "expected"),
    [
        ("-ln", """grep Masq | awk '{a += $5; b += $6} END {print a, b}'""", "4 6"),
        ("-Ln", """awk '$1 == "->" && $3 == "Route" {print $2, $4}'""", "10.0.0.9:0 1"),
        ("-Ln -t 192.0.2.1:80", "grep -c -- '->.*:[0-9]'", "2"),
        ("-Ln --stats --exact", """awk '/^TCP  192/ {print $2, $3, $NF}'""", "192.0.2.1:80 123456789012 5"),
        ("-Ln --rate", """awk '$1 == "UDP" {print NF, $3}'""", "7 7"),
        ("-Sn", "grep -c '^-a '", "3"),
    ],
)
def test_a_script_finds_its_columns(arguments: str, script: str, expected: str) -> None:
    entries = []
    for entry in table_of(COMMANDS).services():
        busy = tuple(DestinationEntry(one.destination, 4, 6) for one in entry.destinations)
        entries.append(
            entry.replace(destinations=busy, stats=Stats(123456789012, 2, 3, 4, 5), rates=Rates(7))
        )

    @contextmanager
    def opened(**_: bool) -> Iterator[MemoryDatapath]:
        yield MemoryDatapath(entries)

    out, complaints = io.StringIO(), io.StringIO()
    assert run(arguments.split(), io.StringIO(), out, complaints, opened) == 0
    done = subprocess.run(
        ["sh", "-c", script], input=out.getvalue(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
