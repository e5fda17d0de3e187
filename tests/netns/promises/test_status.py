# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs status` tells the truth: where, which mode, versions, sizes, fill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.promises.site import SERVICE, VIP, Site, eventually
from xlvs import __version__
from xlvs.datapath.attach import MODES, XDP_GENERIC
from xlvs.datapath.load import DEFAULT_CONNECTIONS, DEFAULT_DESTINATIONS, DEFAULT_SERVICES
from xlvs.datapath.maps import Maps
from xlvs.kernel import abi


@pytest.mark.parametrize("mode", MODES)
def test_every_field(site: Site, mode: str) -> None:
    director = site.director
    before = int(time.time())
    director.xlvs(f"attach --mode {mode}")
    site.serve(SERVICE, 1, 2)
    report = director.status()
    assert report["loaded"] is True
    assert report["xlvs"] == __version__
    assert report["program_version"] == __version__
    assert report["kernel"] == os.uname().release
    assert report["abi_version"] == abi.ABI_VERSION
    assert before <= report["loaded_at"] <= time.time() + 1
    assert report["pins"] == f"/run/xlvs/bpf/{director.cookie():x}"
    assert report["lo_settings_changed"] == ["net.ipv4.conf.lo.forwarding", "net.ipv4.conf.lo.accept_local"]
    hooks = [(each["interface"], each["hook"]) for each in report["attached"]]
    assert hooks[0] in (("eth0", "tcx"), ("eth0", "clsact"))
    assert hooks[1:] == ([("eth0", XDP_GENERIC)] if mode == XDP_GENERIC else [])
    names = [director.type(f"bpftool prog show id {each['program_id']}") for each in report["attached"]]
    assert ["xlvs_tc" in names[0], *("xlvs_xdp" in name for name in names[1:])] == [True] * len(hooks)
    assert ("xdp" in director.type("ip link show eth0")) == (mode == XDP_GENERIC)
    assert report["not_attached"] == []
    tables = report["tables"]
    assert tables["services"] == {"used": 1, "capacity": DEFAULT_SERVICES}
    assert tables["destinations"] == {"used": 2, "capacity": DEFAULT_DESTINATIONS}
    assert tables["connections"]["capacity"] >= DEFAULT_CONNECTIONS
    assert tables["connections"]["slots"] >= tables["connections"]["capacity"]
    page = director.xlvs("status")
    for word in (__version__, "eth0", hooks[-1][1], str(DEFAULT_SERVICES), str(DEFAULT_DESTINATIONS)):
        assert word in page


def test_fill_is_the_number_of_connections(loaded_site: Site) -> None:
    director = loaded_site.director
    loaded_site.serve(SERVICE, 1, 2)
    loaded_site.serve(f"{VIP}:53", 1, protocol="-u")
    director.xlvsadm("--set 0 1 0")
    with ExitStack() as held:
        for _ in range(7):
            held.enter_context(loaded_site.connection())
        for _ in range(3):
            loaded_site.ask_udp()
        listed = len(director.xlvsadm("-Lcn").splitlines()) - 2
        assert listed == 10
        assert director.status()["tables"]["connections"]["used"] == 10

    def only_udp_is_left() -> bool:
        return bool(director.status()["tables"]["connections"]["used"] == 3)

    eventually(only_udp_is_left, "the closed connections are no longer counted")


def test_sizes_are_those_that_were_asked_for(site: Site) -> None:
    site.director.xlvs("attach --connections 5000 --services 7 --destinations 9")
    tables = site.director.status()["tables"]
    assert tables["connections"]["capacity"] >= 5000
    assert tables["services"]["capacity"] == 7
    assert tables["destinations"]["capacity"] == 9
    said = site.director.xlvs("attach --connections 6000", code=2)
    assert "loaded already" in said
    for port in range(7):
        site.director.xlvsadm(f"-A -t {VIP}:{port + 1}")
    assert "--services" in site.director.xlvsadm(f"-A -t {VIP}:80", code=255)
    for number in range(9):
        site.director.xlvsadm(f"-a -t {VIP}:1 -r 192.0.2.{110 + number}")
    assert "--destinations" in site.director.xlvsadm(f"-a -t {VIP}:1 -r 192.0.2.99", code=255)


def test_nothing_loaded_is_exit_code_3(site: Site) -> None:
    assert "Nothing is loaded" in site.director.xlvs("status", code=3)
    assert '"loaded": false' in site.director.xlvs("status --json", code=3)


def test_the_memory_that_the_readme_states(site: Site) -> None:
    """What the kernel says of all maps, as they are loaded by default, to a twentieth."""
    text = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    stated = re.search(r"for (\d+) MB of kernel memory and (\d+) MB for each CPU", text)
    assert stated
    site.director.xlvs("attach")
    pins = site.director.pins()
    assert pins is not None
    taken = 0
    for path in pins.iterdir():
        if path.is_file() and not path.name.startswith("xlvs_"):
            asked = ["bpftool", "--json", "map", "show", "pinned", str(path)]
            taken += json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)[
                "bytes_memlock"
            ]
    maps = Maps(str(pins))
    expected = int(stated[1]) + int(stated[2]) * maps.limits.cpus
    maps.close()
    assert abs(taken / 1e6 - expected) < expected / 20
