# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs upgrade` under load: iperf3 runs through it, a large table is live, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Any, cast

import pytest

from tests.netns.promises.site import VIP, Host, Site, eventually
from tests.packet import packets
from tests.packet.offloads import leave_nothing_to_the_card
from xlvs.datapath.attach import MODES
from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.kernel import abi, bpf

PROJECT = Path(__file__).resolve().parents[2]
IPERF = 5201
ENTRIES = int(os.environ.get("XLVS_UPGRADE_ENTRIES", "100000"))
"""Connections in the table; a million take some minutes more."""
SECONDS = 3


@pytest.fixture(params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A director, attached, with room for the connections; iperf3 listens on the only real server."""
    with Site(real_servers=1) as built:
        built.director.xlvs(f"attach --connections {ENTRIES * 2} --mode {request.param}")
        built.serve(f"{VIP}:{IPERF}", 1)
        built.serve(f"{VIP}:53", 1, protocol="-u")
        with built.client.inside():
            leave_nothing_to_the_card("eth0")  # each segment is a packet, and can be counted
        listening = built.hosts["rs1"].popen("iperf3", "--server", "--port", str(IPERF))
        try:
            eventually(
                lambda: f":{IPERF}" in built.hosts["rs1"].type("ss -Hltn"),
                "iperf3 listens on the real server",
            )
            yield built
        finally:
            listening.kill()
            listening.communicate()


def _fill(director: Host, count: int) -> None:
    """That many connections of UDP, of clients that do not exist, put in by the packet path itself."""
    mac = bytes.fromhex(director.type("cat /sys/class/net/eth0/address").strip().replace(":", ""))
    virtual, folder = packets.packed(VIP), director.pins()
    with director.inside():
        program = bpf.open_pin(f"{folder}/xlvs_tc")
        context = pack("=8xI28xI", 0, int(director.type("cat /sys/class/net/eth0/ifindex")))
        for number in range(count):
            client = bytes([198, 18, number >> 16 & 0xFF, number >> 8 & 0xFF])
            datagram = packets.udp(1024 + (number & 0xFF), 53)
            packet = packets.ipv4(client, virtual, packets.UDP, datagram)
            bpf.run_program(program, packets.ethernet(packet, 0x0800, mac, mac), context=context)
        os.close(program)


def _entries(director: Host) -> set[bytes]:
    """The flows of all live connections of UDP."""
    maps = Maps(str(director.pins()))
    table = maps.connection_slots()
    flow, protocol = cast("Any", abi.Connection).flow, cast("Any", abi.Flow).protocol
    slots = (table[place : place + SLOT_BYTES] for place in range(0, len(table), SLOT_BYTES))
    found = {
        slot[flow.offset : flow.offset + flow.size]
        for slot in slots
        if slot[0] == abi.PHASE_LIVE and slot[flow.offset + protocol.offset] == packets.UDP
    }
    maps.close()
    return found


def _iperf(site: Site, seconds: int = SECONDS) -> subprocess.Popen[str]:
    words = ["--client", VIP, "--port", str(IPERF), "--time", str(seconds), "--bitrate", "400M", "--json"]
    return site.client.popen("iperf3", *words)


def _counted(host: Host, *names: str) -> int:
    """The sum of counters of a host's TCP."""
    lines = host.type(f"nstat -asz {' '.join(names)}").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Tcp"))


def _lost(site: Site) -> int:
    """How many of the client's segments, sent again or not, the real server never got."""
    sent = _counted(site.client, "TcpOutSegs", "TcpRetransSegs")
    return sent - _counted(site.hosts["rs1"], "TcpInSegs")


def test_nothing_is_lost_under_load(site: Site) -> None:
    director = site.director
    _fill(director, ENTRIES)
    entries = _entries(director)
    assert len(entries) == ENTRIES
    programs = {found["program_id"] for found in director.status()["attached"]}
    upgrades = rounds = 0
    while upgrades < 3 and rounds < 6:  # a busy machine gets fewer of them into one load
        load = _iperf(site)
        rounds += 1
        while load.poll() is None:
            director.xlvs("upgrade")
            upgrades += 1
            now = {found["program_id"] for found in director.status()["attached"]}
            assert not now & programs
            programs = now
        printed, complaints = load.communicate()
        assert load.returncode == 0, printed + complaints
    report = json.loads(printed)["end"]
    print(
        f"{upgrades} upgrades, {ENTRIES} other entries, {_counted(site.client, 'TcpOutSegs')} segments, "
        f"{report['sum_received']['bits_per_second'] / 1e6:.0f} Mbit/s, "
        f"{report['sum_sent']['retransmits']} retransmitted, {_lost(site)} lost"
    )
    assert upgrades >= 3
    # A busy machine makes TCP send again what only came late; what is lost never comes.
    assert _lost(site) == 0
    assert report["sum_received"]["bits_per_second"] > 20e6
    assert _entries(director) == entries
    status = director.status()
    assert status["events"]["table_full"] == 0
    assert not status["upgrade_unfinished"]


@pytest.fixture(scope="module")
def another_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as another version would be: a record is longer, and ABI_VERSION says so."""
    root = tmp_path_factory.mktemp("another")
    for folder in ("bpf", "scripts", "src"):
        shutil.copytree(PROJECT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.o"))
    header = root / "bpf/abi.h"
    text, versions = re.subn(
        r"(ABI_VERSION = )(\d+)", lambda found: f"{found[1]}{int(found[2]) + 1}", header.read_text()
    )
    longer = text.replace("\t__u16 known;\n};", "\t__u16 known;\n\t__u64 more;\n};")
    assert versions == 1
    assert longer != text
    header.write_text(longer)
    subprocess.run([sys.executable, root / "scripts/generate_abi.py"], check=True, stdout=subprocess.DEVNULL)
    for name in ("director", "decapsulate"):
        words = [
            root / "scripts/compile-bpf",
            root / f"bpf/{name}.bpf.c",
            root / f"src/xlvs/bpf/{name}.bpf.o",
        ]
        subprocess.run(words, check=True)
    return root / "src"


def _untouched(director: Host) -> tuple[object, ...]:
    """What a refused upgrade must leave as it was."""
    pins = director.pins()
    assert pins is not None
    status = director.status()
    return (
        sorted((str(path), path.lstat().st_ino) for path in pins.rglob("*")),
        *(status[name] for name in ("attached", "abi_version", "program_version", "loaded_at", "tables")),
        status["upgrade_unfinished"],
        director.xlvsadm("-Sn"),
    )


@pytest.mark.parametrize("site", ["tc"], indirect=True)
def test_another_layout_is_refused_while_packets_pass(site: Site, another_layout: Path) -> None:
    """A whole other version of xlvs: its words are refused, and nothing is touched."""
    director = site.director
    _fill(director, 2000)
    load = _iperf(site, seconds=3)
    eventually(lambda: _counted(site.hosts["rs1"], "TcpInSegs") > 100, "packets pass")
    entries, before = _entries(director), _untouched(director)
    refused = 0
    while load.poll() is None:
        for words in (["upgrade"], ["upgrade", "--check"]):
            ran = director.run(
                "env", f"PYTHONPATH={another_layout}", sys.executable, "-m", "xlvs.cli.main", *words
            )
            assert ran.returncode == 1, ran.stdout + ran.stderr
            assert f"table layout {abi.ABI_VERSION}, " in ran.stderr
            assert f"{abi.ABI_VERSION + 1}" in ran.stderr
            assert "xlvsadm -Sn" in ran.stderr
            refused += 1
    printed, complaints = load.communicate()
    assert load.returncode == 0, printed + complaints
    assert refused >= 2
    assert _lost(site) == 0
    assert _entries(director) == entries
    assert _untouched(director) == before
