# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs upgrade` under load: iperf3 runs through it, a large table is live, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from struct import pack
from typing import Any, cast

import pytest

from tests.netns.promises.site import VIP, Host, Site, eventually
from tests.packet import packets
from tests.packet.offloads import leave_nothing_to_the_card
from xlvs.datapath.attach import MODES
from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.kernel import abi, bpf

IPERF = 5201
ENTRIES = int(os.environ.get("XLVS_UPGRADE_ENTRIES", "100000"))
"""Connections in the table; a million take some minutes more."""
SECONDS = 6


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


def _iperf(site: Site) -> subprocess.Popen[str]:
    words = ["--client", VIP, "--port", str(IPERF), "--time", str(SECONDS), "--bitrate", "400M", "--json"]
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
