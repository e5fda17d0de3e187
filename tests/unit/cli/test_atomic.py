# SPDX-License-Identifier: GPL-2.0-only
"""``-R --atomic`` and ``--extended``: what ipvsadm does not have, or does plainly wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xlvs.cli.ipvsadm import run
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import TableFull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import Table

pytestmark = pytest.mark.unit

TABLE = """\
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.11:80 -g -w 1
-a -t 192.0.2.1:80 -r 10.0.0.12:80 -g -w 2
"""


class Director:
    """One table in memory, and how it was opened."""

    def __init__(self) -> None:
        self.datapath = MemoryDatapath()
        self.opened: list[tuple[bool, bool]] = []

    @contextmanager
    def open(self, *, write: bool, load: bool, locked: bool = True) -> Iterator[MemoryDatapath]:  # noqa: ARG002
        self.opened.append((write, load))
        yield self.datapath

    def run(self, line: str, stdin: str = "") -> tuple[str, str, int]:
        stdout, stderr = io.StringIO(), io.StringIO()
        status = run(line.split(), io.StringIO(stdin), stdout, stderr, self.open)
        return stdout.getvalue(), stderr.getvalue(), status

    def saved(self) -> str:
        return self.run("-Sn")[0]


@pytest.fixture
def director() -> Director:
    made = Director()
    assert made.run("-R", TABLE) == ("", "", 0)
    made.opened.clear()
    return made


@pytest.mark.parametrize("option", ["--atomic", "--extended"])
def test_all_lines_are_carried_out(director: Director, option: str) -> None:
    lines = "-C\n-A -t 192.0.2.1:80 -s wrr\n-a -t 192.0.2.1:80 -r 10.0.0.13:80\n--set 1 2 3\n"
    assert director.run(f"-R {option}", lines) == ("", "", 0)
    assert director.saved() == ("-A -t 192.0.2.1:80 -s wrr\n-a -t 192.0.2.1:80 -r 10.0.0.13:80 -g -w 1\n")
    assert director.run("-L --timeout")[0] == "Timeout (tcp tcpfin udp): 1 2 3\n"


@pytest.mark.parametrize(
    ("line", "told", "status"),
    [
        ("-A -t 192.0.2.1:80", "Service already exists", 255),
        ("-a -t 192.0.2.9:80 -r 10.0.0.1", "Service not defined", 255),
        ("-A -t 192.0.2.2:80 -s nosuch", "Scheduler or persistence engine not found", 255),
        ("-A -t 192.0.2.2:80 --nosuch", "--nosuch: unknown option", 255),
        ("-A -t bad", "illegal virtual server address[:port] specified", 2),
        ("-L -n -t 192.0.2.7:80", "No such service", 1),
        ("-R", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 255),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_fails_changes_nothing(
    director: Director, line: str, told: str, status: int, place: int
) -> None:
    before = director.saved()
    lines = ["-A -t 192.0.2.3:80", "-d -t 192.0.2.1:80 -r 10.0.0.11:80"]
    lines.insert(place, line)
    text = f"{told}\nNothing was changed; the line is: {line}\n"
    assert director.run("-R --atomic", "\n".join(lines) + "\n") == ("", text, status)
    assert director.saved() == before


def test_nothing_is_loaded_for_lines_that_fail(director: Director) -> None:
    director.run("-R --atomic", "-A -t 192.0.2.3:80\n-A -t 192.0.2.3:80\n")
    assert director.opened == [(False, False)]
    director.opened.clear()
    director.run("-R --atomic", "-A -t 192.0.2.3:80\n")
    assert director.opened == [(False, False), (True, True)]


def test_what_only_the_data_plane_refuses_changes_nothing(director: Director) -> None:
    class Full(MemoryDatapath):
        def replace(self, table: Table) -> None:  # noqa: ARG002
            raise TableFull("no room", "Make some.")

    director.datapath = Full()
    assert director.run("-R --atomic", TABLE) == ("", "no room\nMake some.\nNothing was changed.\n", 255)


def test_listings_show_the_table_as_it_is_at_their_line(director: Director) -> None:
    stdout, stderr, status = director.run("-R --atomic", "-C\n-Sn\n-A -f 1\n-Sn\n")
    assert (stdout, stderr, status) == ("-A -f 1 -s wlc\n", "", 0)


def test_counters_are_kept_and_zeroed_if_a_line_says_so(director: Director) -> None:
    zeroed = []

    class Counting(MemoryDatapath):
        def zero(self, key: object = None) -> None:
            zeroed.append(key)

    director.datapath = Counting(director.datapath.services())
    assert director.run("-R --atomic", "-Z\n-Z -t 192.0.2.1:80\n") == ("", "", 0)
    assert [key is None for key in zeroed] == [True, False]


def test_other_commands_take_neither(director: Director) -> None:
    assert director.run("-C --atomic") == ("", "Illegal 'atomic' option with the 'flush' command\n", 2)
    assert director.run("-S --atomic") == ("", "Illegal 'atomic' option with the 'save' command\n", 2)
    assert director.run("-C --extended")[2] == 2


def test_an_extended_save_has_thresholds_and_timeouts(director: Director) -> None:
    director.run("-e -t 192.0.2.1:80 -r 10.0.0.11:80 -x 100 -y 50")
    director.run("-e -t 192.0.2.1:80 -r 10.0.0.12:80 -x 7")
    director.run("--set 1000 0 0")
    saved = director.run("-Sn --extended")[0]
    assert saved == (
        "--set 1000 120 300\n"
        "-A -t 192.0.2.1:80 -s rr\n"
        "-a -t 192.0.2.1:80 -r 10.0.0.11:80 -g -w 1 -x 100 -y 50\n"
        "-a -t 192.0.2.1:80 -r 10.0.0.12:80 -g -w 1 -x 7\n"
    )
    assert "-x" not in director.saved()
    other = Director()
    assert other.run("-R --extended", saved) == ("", "", 0)
    assert other.run("-Sn --extended")[0] == saved


def test_an_extended_listing_sorts_by_all_bits(director: Director) -> None:
    director.run("-A -t 10.0.0.1:80")
    director.run("-a -t 192.0.2.1:80 -r 203.0.113.1:80 -m")
    director.run("-A -f 4294967295")

    def order(line: str) -> list[str]:
        rows = [row.split() for row in director.run(line)[0].splitlines()]
        return [
            row[1] for row in rows if (row[0] in ("TCP", "FWM", "->") and row[1][0].isdigit()) or "-1" in row
        ]

    assert order("-Ln") == [
        "-1",
        "192.0.2.1:80",
        "203.0.113.1:80",
        "10.0.0.11:80",
        "10.0.0.12:80",
        "10.0.0.1:80",
    ]
    assert order("-Ln --extended") == [
        "10.0.0.1:80", "192.0.2.1:80", "10.0.0.11:80", "10.0.0.12:80", "203.0.113.1:80", "-1",
    ]  # fmt: skip
