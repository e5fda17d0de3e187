# SPDX-License-Identifier: GPL-2.0-only
"""The machine's own real server: its record survives a boot, a crash half-way, and bad neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.netns.promises.machine import Machine, command

RECORD = "/var/lib/xlvs/realserver.json"
VIP = "192.0.2.200"
SHOWN = """
ip address; ip route show table all; nft list ruleset
grep -s . /proc/sys/net/ipv4/conf/*/arp_* || true
ls -d /run/xlvs/bpf/*-realserver 2>/dev/null || true
"""


def with_an_ip_that(machine: Machine, case: str, line: str) -> tuple[int, str]:
    """Type a command on a machine whose ip(8) does something else in one case (a shell pattern)."""
    machine.type("mkdir /run/bin")
    script = f'#!/bin/sh\ncase "$*" in {case};; esac\nexec /sbin/ip "$@"\n'
    machine.run("sh", "-c", "cat >/run/bin/ip; chmod 755 /run/bin/ip", stdin=script)
    path = "PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ran = machine.run("env", path, *command(f"xlvs realserver {line}"))
    return ran.returncode, ran.stderr


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as made:
        made.type("mount -t tmpfs tmpfs /var/lib")
        yield made


def xlvs(machine: Machine, line: str, code: int = 0) -> str:
    ran = machine.run(*command(f"xlvs realserver {line}"))
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_record_brings_it_back_after_a_boot(machine: Machine) -> None:
    before = machine.type(SHOWN)
    xlvs(machine, f"add --vip {VIP},2001:db8::200")
    xlvs(machine, "add --vip 192.0.2.201 --arp ebpf")
    assert machine.type(f"stat -c '%a %U' {RECORD}").split() == ["600", "root"]
    assert machine.type("ls /var/lib/xlvs").split() == ["realserver.json"]
    set_up = machine.type(SHOWN)

    # After a boot nothing of it is there, and the kernel has another number for this boot.
    saved = json.loads(machine.type(f"cat {RECORD}"))
    xlvs(machine, "remove --all")
    assert machine.type(f"ls {RECORD} 2>/dev/null || true") == ""
    assert machine.type(SHOWN) == before
    saved["boot"] = "another"
    machine.run("sh", "-c", f"cat >{RECORD}", stdin=json.dumps(saved))
    # What the settings had been at the former boot is nothing to put back now.
    machine.type("sysctl -q net.ipv4.conf.all.arp_announce=1")
    assert "not since this boot" in xlvs(machine, "list")
    assert VIP in xlvs(machine, "check", code=1)

    xlvs(machine, "apply")
    assert sorted(machine.type(SHOWN).split()) == sorted(set_up.split())
    assert "not since this boot" not in xlvs(machine, "list")
    xlvs(machine, "remove --all")
    machine.type("sysctl -q net.ipv4.conf.all.arp_announce=0")
    assert machine.type(SHOWN) == before


def test_whoever_was_killed_half_way_leaves_what_can_be_taken_back(machine: Machine) -> None:
    """A command that is killed at its first change, when the record is written already."""
    before = machine.type(SHOWN)
    kill = '*"address add"*) kill -9 $PPID; exit'
    code, _ = with_an_ip_that(machine, kill, f"add --vip {VIP}")
    assert code in (-9, 137)
    assert "arp_ignore:1" in machine.type(SHOWN)
    assert "fault" in xlvs(machine, "check", code=1)
    xlvs(machine, "remove --all")
    assert machine.type(SHOWN) == before


def test_whoever_fails_half_way_takes_it_back(machine: Machine) -> None:
    before = machine.type(SHOWN)
    refuse = '*"address add 192.0.2.201"*) echo no >&2; exit 2'
    code, said = with_an_ip_that(machine, refuse, f"add --vip {VIP},192.0.2.201 --arp ebpf")
    assert code == 1 and "ip address add 192.0.2.201/32 dev lo: no" in said
    assert machine.type(SHOWN) == before
    assert machine.type(f"ls {RECORD} 2>/dev/null || true") == ""


def test_a_record_that_cannot_be_read_is_not_overwritten(machine: Machine) -> None:
    machine.type("mkdir /var/lib/xlvs")
    before = machine.type(SHOWN)
    for text in ("", '{"version": 2, "real_servers": []}', "[" * 200_000):
        machine.run("sh", "-c", f"cat >{RECORD}", stdin=text)
        assert f"{RECORD} cannot be read" in xlvs(machine, f"add --vip {VIP}", code=1)
        assert machine.type(SHOWN) == before
        assert machine.type(f"cat {RECORD}") == text
    assert "Traceback" not in xlvs(machine, "check", code=2)
