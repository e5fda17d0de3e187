# SPDX-License-Identifier: GPL-2.0-only
"""What may be asked for, and what the record may hold."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli.main import main, whole_parser
from xlvs.cli.realserver import _wanted
from xlvs.errors import UsageError
from xlvs.realserver import changes, plan, record, wanted
from xlvs.realserver.iptables import Rule
from xlvs.realserver.wanted import RealServer

pytestmark = pytest.mark.unit

ADDS = (
    "--vip 192.0.2.100",
    "--vip 192.0.2.100,192.0.2.101 --service tcp:80,udp:53",
    "--vip 2001:db8::1 --device eth0 --arp ebpf --interface eth0,eth1",
    "--vip 192.0.2.100 --arp redirect",
    "--vip 192.0.2.100 --arp none",
    "--vip 192.0.2.100 --arp hidden",
    "--vip 192.0.2.100 --method tun",
    "--vip 192.0.2.100 --method tun --tunnel ipip,gue --gue-port 6080,5555 --decap ebpf --mss 1300",
    "--vip 192.0.2.100 --method tun --arp nft --mss off",
    "--vip 192.0.2.100 --method nat --director 192.0.2.9",
    "--vip 192.0.2.100 --method nat --director 192.0.2.9 --route policy --service tcp:80",
)


def read(line: str) -> tuple[RealServer, ...]:
    """What `xlvs realserver add` makes of these options."""
    return tuple(_wanted(whole_parser().parse_args(["realserver", "add", *shlex.split(line)])))


@pytest.mark.parametrize("line", ADDS)
def test_all_that_can_be_asked_for_is_written_and_read(line: str) -> None:
    servers = read(line)
    command = wanted.as_typed(servers)
    assert command.startswith("xlvs realserver add ")
    assert read(command.removeprefix("xlvs realserver add ")) == servers
    for server in servers:
        assert wanted.from_json(json.loads(json.dumps(wanted.to_json(server)))) == server


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--vip 192.0.2.300", "is no IPv4 or IPv6 address"),
        ("--vip 192.0.2.1,", "is no IPv4 or IPv6 address"),
        ("--vip 127.0.0.1", "loopback"),
        ("--vip ::1", "loopback"),
        ("--vip 224.0.0.1", "cannot be the address"),
        ("--vip 0.0.0.0", "cannot be the address"),
        ("--vip fe80::1", "cannot be the address"),
        ("--vip ::ffff:192.0.2.1", "cannot be the address"),
        ("--vip 192.0.2.100 --device eth0", "--arp nft or --arp ebpf"),
        ("--vip 192.0.2.100 --device ''", "needs a device"),
        ("--vip 192.0.2.100 --device a/b --arp nft", "no name of an interface"),
        ("--vip 192.0.2.100 --interface 'a b'", "no name of an interface"),
        ("--vip 192.0.2.100 --arp redirect --device lo", "holds no VIP"),
        ("--vip 192.0.2.100 --arp redirect --method tun", "--method dr"),
        ("--vip 192.0.2.100 --method nat", "--director"),
        ("--vip 192.0.2.100 --method nat --arp nft --director 192.0.2.9", "no ARP problem"),
        ("--vip 192.0.2.100 --method nat --director fd00::1", "another family"),
        ("--vip 192.0.2.100 --method nat --director 192.0.2.9 --route policy", "--service"),
        ("--vip 192.0.2.100 --director 192.0.2.9", "--method nat"),
        ("--vip 192.0.2.100 --mss 1400", "--method tun"),
        ("--vip 192.0.2.100 --method tun --mss 0", "no number of bytes"),
        ("--vip 192.0.2.100 --method tun --mss 100", "it goes from"),
        ("--vip 192.0.2.100 --method tun --tunnel l2tp", "ipip, gre, gue"),
        ("--vip 192.0.2.100 --method tun --gue-port 6080", "--tunnel gue"),
        ("--vip 192.0.2.100 --method tun --tunnel gue --gue-port 0", "is no UDP port"),
        ("--vip 192.0.2.100 --method tun --tunnel gue --gue-port x", "is no port"),
        ("--vip 192.0.2.100 --method tun --tunnel gue --gue-port 1,2,3,4,5,6,7,8,9", "at most 8"),
        ("--vip 192.0.2.100 --service http", "tcp:80"),
        ("--vip 192.0.2.100 --service tcp:70000", "from 1 to 65535"),
    ],
)
def test_bad_input_is_refused_before_anything_is_looked_at(
    capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    assert main(["realserver", "add", *shlex.split(line)]) == 2
    said = capsys.readouterr()
    assert complaint in said.err and said.err.startswith("xlvs: ") and not said.out


@given(st.text(max_size=30))
def test_no_text_is_an_address_but_addresses(text: str) -> None:
    try:
        read_one = wanted.address(text, "--vip")
    except UsageError:
        return
    assert wanted.address(read_one, "--vip") == read_one
    assert not set(read_one) - set("0123456789abcdef.:")


def of_every_kind() -> list[changes.Change]:
    servers = [replace(server, decapsulator="devices") if server.tunnels else server
               for line in ADDS for server in read(line)]  # fmt: skip
    servers.append(RealServer("192.0.2.7", arp="redirect", device="", rule="-d 192.0.2.7/32 -j REDIRECT"))
    servers.append(RealServer("192.0.2.8", host_route=True))
    return plan.changes(servers)


def test_the_record_has_every_change_as_it_was() -> None:
    made = dict.fromkeys(of_every_kind(), "before")
    assert {type(change) for change in made} == {
        changes.Setting, changes.Address, changes.HostRoute, changes.LinkUp, changes.DefaultRoute,
        changes.AnswersRule, changes.GuePort, Rule,
    }  # fmt: skip
    text = json.dumps({
        "version": 1, "boot": "b", "real_servers": [],
        "changes": [changes.to_json(change, before) for change, before in made.items()],
    })  # fmt: skip
    assert record.parse(text, "b").changes == made
    assert record.parse(text, "after the next boot").changes == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from(of_every_kind()), st.data())
def test_no_record_is_taken_that_was_not_written(
    junk: object, change: changes.Change, data: st.DataObject
) -> None:
    """Damaged ones are refused, whatever is in them; what is taken is of the right types."""
    value = changes.to_json(change, "before")
    name = data.draw(st.sampled_from(sorted(value)))
    value[name] = junk
    text = json.dumps({"version": 1, "boot": "b", "real_servers": [], "changes": [value]})
    try:
        taken = record.parse(text, "b")
    except ValueError:
        return
    for each in taken.changes:
        assert changes.from_json(changes.to_json(each, "x")) == (each, "x")
    server = {
        **wanted.to_json(RealServer("192.0.2.1")),
        data.draw(st.sampled_from(["vip", "device", "mss"])): junk,
    }
    text = json.dumps({"version": 1, "boot": "b", "real_servers": [server], "changes": []})
    try:
        (read_back,) = record.parse(text, "b").servers
    except (ValueError, UsageError):
        return
    wanted.check(read_back)
