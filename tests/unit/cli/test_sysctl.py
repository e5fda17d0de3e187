# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs sysctl``: what it shows, what it takes and what it refuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli import sysctl as command
from xlvs.cli.main import main
from xlvs.datapath import sysctls
from xlvs.datapath.memory import MemoryDatapath
from xlvs.kernel import abi

Type = Callable[..., tuple[int, str, str]]

PROC = "/proc/sys/net/ipv4/vs/"

OPENED: list[tuple[bool, bool]] = []
"""How the table was opened by the last command: for writing, and loading it."""


def run(table: MemoryDatapath, *words: str) -> tuple[int, str, str]:
    """Type ``xlvs sysctl`` on that table: the exit code, stdout and stderr."""
    OPENED.clear()

    @contextmanager
    def opened(write: bool = False, load: bool = False) -> Iterator[MemoryDatapath]:
        OPENED.append((write, load))
        yield table

    out, complaints = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open_datapath", opened)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", complaints)
        code = main(["sysctl", *words])
    return code, out.getvalue(), complaints.getvalue()


@pytest.fixture
def type_sysctl() -> Type:
    """Types ``xlvs sysctl`` and words on one table."""
    table = MemoryDatapath()
    return lambda *words: run(table, *words)


def test_all_are_listed_as_sysctl_does(type_sysctl: Type) -> None:
    code, out, _ = type_sysctl()
    lines = out.splitlines()
    assert code == 0
    assert OPENED == [(False, False)], "looking loads nothing"
    assert lines == sorted(lines)
    assert "net.ipv4.vs.expire_nodest_conn = 0" in lines
    assert "net.ipv4.vs.conn_reuse_mode = 1" in lines
    assert "net.ipv4.vs.sync_threshold = 3\t50" in lines
    assert "net.ipv4.vs.lblc_expiration = 86400" in lines
    assert "net.ipv4.vs.pmtu_disc = 1" in lines


@pytest.mark.parametrize(
    "name",
    ["drop_packet", "net.ipv4.vs.drop_packet", "net/ipv4/vs/drop_packet", f"{PROC}drop_packet"],
)
@pytest.mark.parametrize("write", [(), ("-w",)])
def test_a_setting_by_any_of_its_names(type_sysctl: Type, name: str, write: tuple[str, ...]) -> None:
    assert type_sysctl(name) == (0, "net.ipv4.vs.drop_packet = 0\n", "")
    assert type_sysctl(*write, f"{name}=3") == (0, "net.ipv4.vs.drop_packet = 3\n", "")
    assert OPENED == [(True, True)], "a change loads the data plane"
    assert type_sysctl(name) == (0, "net.ipv4.vs.drop_packet = 3\n", "")


def test_several_are_shown_as_they_were_named(type_sysctl: Type) -> None:
    code, out, _ = type_sysctl("sloppy_tcp", "am_droprate=0x10", "amemthresh")
    assert code == 0
    assert out.splitlines() == [
        "net.ipv4.vs.sloppy_tcp = 0",
        "net.ipv4.vs.am_droprate = 16",
        "net.ipv4.vs.amemthresh = 1024",
    ]


def test_json(type_sysctl: Type) -> None:
    _, out, _ = type_sysctl("--json")
    told = json.loads(out)
    assert told["schema"] == command.SCHEMA
    assert told["sysctls"]["conn_reuse_mode"] == 1
    assert told["sysctls"]["sync_threshold"] == [3, 50]
    assert set(told["sysctls"]) == set(sysctls.defaults())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("dropentry=1",), 2, "IPVS has no setting 'dropentry'"),
        (("net.ipv4.ip_forward",), 2, "IPVS has no setting 'net.ipv4.ip_forward'"),
        (("drop_entry=4",), 1, "drop_entry is 0 to 3, not 4"),
        (("drop_entry=-1",), 1, "drop_entry is 0 to 3, not -1"),
        (("sloppy_tcp=yes",), 1, "sloppy_tcp takes a number, not 'yes'"),
        (("sloppy_tcp=",), 1, "sloppy_tcp takes a number, not ''"),
        (("am_droprate=2147483648",), 1, "am_droprate is -2147483648 to 2147483647"),
        (("lblc_expiration=-1",), 1, "lblc_expiration is 0 to 8589934"),
        (("conntrack=1",), 1, "conntrack stays '0': the packet path runs before connection tracking"),
        (("snat_reroute=0",), 1, "snat_reroute stays '1': answers are always routed"),
        (("sync_ports=2",), 1, "sync_ports stays '1': xlvs has no sync daemon yet"),
        (("est_cpulist=0",), 1, "est_cpulist cannot be set: rates are estimated by a timer"),
        (("est_cpulist",), 1, "est_cpulist has no value here"),
        (("sloppy_tcp=1", "sloppy_tcp=0"), 2, "sloppy_tcp is given two values"),
        (("-w",), 2, "-w takes the settings to change"),
        (("-w", "sloppy_tcp"), 2, "-w takes NAME=VALUE: what shall sloppy_tcp be?"),
    ],
)
def test_what_is_refused_changes_and_loads_nothing(
    type_sysctl: Type, words: tuple[str, ...], code: int, told: str
) -> None:
    before = type_sysctl()[1]
    ended, out, complaint = type_sysctl(*words, *(() if words == ("-w",) else ("drop_packet=3",)))
    assert (ended, out) == (code, "")
    assert told in complaint
    assert OPENED == []
    assert type_sysctl()[1] == before


def test_a_name_that_is_almost_right_is_suggested(type_sysctl: Type) -> None:
    assert "Did you mean drop_entry?" in type_sysctl("dropentry")[2]


@pytest.mark.parametrize("name", sorted(sysctls.defaults()))
def test_the_default_can_always_be_set(type_sysctl: Type, name: str) -> None:
    """So that what the kernel's files said can be read in again."""
    default = sysctls.defaults()[name]
    assert type_sysctl(f"{name}={default}") == (0, f"net.ipv4.vs.{name} = {default}\n", "")


def test_every_setting_has_a_place_in_the_packet_path_or_a_reason() -> None:
    for name, one in sysctls.SYSCTLS.items():
        has_place = hasattr(abi, f"SYSCTL_{name.upper()}") or hasattr(abi.Settings, name)
        assert has_place != bool(one.refusal), name


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", "8"), ("0x1f", "31"), ("0X10", "16"), ("-017", "-15"), ("00", "0"), ("-0", "0"), (" 7 ", "7")],
)
def test_numbers_are_read_as_the_kernel_reads_them(type_sysctl: Type, text: str, value: str) -> None:
    assert type_sysctl(f"amemthresh={text}") == (0, f"net.ipv4.vs.amemthresh = {value}\n", "")


@pytest.mark.parametrize("text", ["09", "0b1", "0o7", "1_0", "+1", "--1", "0x", "x1", "1 2", "\u0661", "-"])
def test_what_the_kernel_does_not_take_for_a_number(type_sysctl: Type, text: str) -> None:
    code, out, complaint = type_sysctl(f"amemthresh={text}")
    assert (code, out) == (1, "")
    assert "takes a number" in complaint


@given(st.text(max_size=12))
def test_no_text_makes_it_fall(text: str) -> None:
    table = MemoryDatapath()
    code, _, complaint = run(table, f"conn_reuse_mode={text}")
    assert code in (0, 1, 2)
    assert (code == 0) == (not complaint)
