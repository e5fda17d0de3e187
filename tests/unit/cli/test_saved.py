# SPDX-License-Identifier: GPL-2.0-only
"""The file of `xlvs save` and `xlvs load`: what is written is read, and a table becomes another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.cli import saved_file
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import NotSupported, TableError, UsageError
from xlvs.model import Service, ServiceEntry

pytestmark = pytest.mark.unit

EVERYTHING = """\
ipvsadm --set 901 121 301
ipvsadm -A -t 192.0.2.1:80 -s mh -b mh-fallback,mh-port -p 60 -M 255.255.255.0
ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1:80 -g -w 5 -x 9 -y 4
ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 0
ipvsadm -a -t 192.0.2.1:80 -r [2001:db8::1]:80 -i --tun-type gue --tun-port 6080 --tun-csum
ipvsadm -A -u [2001:db8::2]:53 -o --idle-timeout 9 --reject-gone --rehome
ipvsadm -A -f 4000000000 -6 -s wrr
ipvsadm -a -f 4000000000 -6 -r [2001:db8::3]:0 -x 7
xlvs mark add 1 --dst 203.0.113.0/24 --proto tcp --port 80,443
xlvs mark add 2 --dst 2001:db8::/64
xlvs sysctl expire_nodest_conn=1
xlvs sysctl net.ipv4.vs.am_droprate=7
"""


def table_of(text: str) -> MemoryDatapath:
    return saved_file.read(text, "FILE")


def same(one: MemoryDatapath, other: MemoryDatapath) -> bool:
    def content(table: MemoryDatapath) -> object:
        services = {
            entry.service: {destination.destination for destination in entry.destinations}
            for entry in table.services()
        }
        return services, table.timeouts(), table.mark_rules(), table.sysctls()

    return content(one) == content(other)


def test_all_that_is_saved_is_read() -> None:
    table = table_of(EVERYTHING)
    assert [len(entry.destinations) for entry in table.services()] == [3, 0, 1]
    written = "".join(saved_file.write(table))
    assert same(table_of(written), table)
    assert " --idle-timeout 9 --reject-gone --rehome\n" in written
    assert " -x 9 -y 4\n" in written and "--set 901 121 301" in written and "mark add 2" in written
    assert [line for line in written.splitlines() if "sysctl" in line] == [
        "xlvs sysctl am_droprate=7", "xlvs sysctl expire_nodest_conn=1",
    ]  # fmt: skip


def test_what_ipvsadm_saves_is_read() -> None:
    table = table_of("# Debian's\n\n-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g -w 1\n")
    assert len(table.services()[0].destinations) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80", "FILE, line 2: Service already exists"),
        ("\n-a -t 192.0.2.1:80 -r 10.0.0.1", "FILE, line 2: Service not defined"),
        ("-A -t 192.0.2.1", "FILE, line 1: Zero port specified"),
        ("-C", "FILE, line 1: a table is made of -A, -a and --set, not of -C"),
        ("xlvs sysctl am_droprate", "FILE, line 1: IPVS has no setting like am_droprate"),
        ("xlvs sysctl bogus=1", "FILE, line 1: IPVS has no setting like bogus=1"),
        ("xlvs sysctl drop_entry=9", "FILE, line 1"),
        ("rm -rf /", "FILE, line 1: Try"),
        ("xlvs detach", "FILE, line 1"),
        ("-A -t 192.0.2.1:80 -s bogus", "FILE, line 1: Scheduler or persistence engine not found"),
        ("xlvs mark add 0 --dst 10.0.0.0/8", "FILE, line 1"),
        ("xlvs mark add 1 --dst 10.0.0.0/8\nxlvs mark add 2 --dst 10.0.0.0/8", "FILE, line 2"),
    ],
)
def test_a_wrong_line_is_named(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        table_of(text)
    assert complaint in refusal.value.message


LINES = st.lists(
    st.sampled_from(
        [
            [f"-A -t 192.0.2.{number}:80 -s {scheduler}", *servers]
            for number in (1, 2)
            for scheduler in ("rr", "wlc -p 60")
            for servers in (
                [],
                [f"-a -t 192.0.2.{number}:80 -r 10.0.0.1 -g -w 3"],
                [f"-a -t 192.0.2.{number}:80 -r 10.0.0.{last} -g -x {last}" for last in (1, 2, 3)],
            )
        ]
    ),
    max_size=2,
    unique_by=lambda lines: lines[0].split()[2],
)


@settings(max_examples=50)
@given(LINES, LINES)
def test_any_table_becomes_any_other(before: list[list[str]], after: list[list[str]]) -> None:
    table = table_of("\n".join(line for lines in before for line in lines))
    wanted = table_of("\n".join(line for lines in after for line in lines))
    saved_file.bring_about(wanted, table)
    assert same(table, wanted)


class Recorder(MemoryDatapath):
    """Notes what is changed, and refuses what a test names."""

    def __init__(self, services: list[ServiceEntry], refused: str = "") -> None:
        super().__init__(services)
        self.done: list[str] = []
        self.refused = refused

    def add_service(self, service: Service) -> None:
        if service.scheduler == self.refused:
            raise NotSupported("not here")
        self.done.append("add")
        super().add_service(service)

    def edit_service(self, service: Service) -> None:
        self.done.append("edit")
        super().edit_service(service)


def test_what_is_there_is_left_alone() -> None:
    table = table_of(EVERYTHING)
    director = Recorder(table.services())
    saved_file.bring_about(table, director)
    assert not director.done


def test_a_refusal_leaves_the_table_as_it_was() -> None:
    before = table_of(EVERYTHING)
    director = Recorder(before.services(), refused="lblc")
    saved_file.bring_about(before, director)
    wanted = table_of("-A -t 192.0.2.1:80 -s rr\n-A -t 192.0.2.7:80\n-A -t 192.0.2.8:80 -s lblc\n")
    with pytest.raises(TableError):
        saved_file.bring_about(wanted, director)
    assert same(director, before)
