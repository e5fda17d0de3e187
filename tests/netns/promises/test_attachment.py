# SPDX-License-Identifier: GPL-2.0-only
"""What loads and attaches the data plane, where, beside whom, and what takes it off again."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.promises.site import COMMANDS, SERVICE, SERVICE6, VIP, Host, Site, eventually, rip
from xlvs import __version__
from xlvs.datapath.attach import MODES, XDP_GENERIC
from xlvs.datapath.maps import Maps
from xlvs.kernel import abi, bpf, bpffs
from xlvs.lab import namespaces

_READING = ("-Ln", "-Ln --stats", "-Lcn", "-L", "-Sn", "")
_PASS_ALL = """\
__attribute__((section("xdp"), used)) int xdp_pass(void *context) { return 2; }
char terms[] __attribute__((section("license"), used)) = "GPL";
"""

_ROUTER_ADVERTISEMENT = """
import socket, struct
index = socket.if_nametoindex("eth0")
sending = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
sending.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))
"""  # RFC 4861, 4.2: a router for half an hour


@pytest.fixture(scope="module")
def foreign_xdp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An eBPF object of somebody else's: XDP that lets everything pass."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "pass.c").write_text(_PASS_ALL)
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "pass.c", "-o", "pass.o"], check=True, cwd=folder
    )
    return folder / "pass.o"


def _tc_hook(host: Host) -> str:
    """``tcx`` or ``clsact``: what this kernel has."""
    hook: str = host.status()["attached"][0]["hook"]
    assert hook in ("tcx", "clsact")
    return hook


def _patch_settings(host: Host, field: str, value: int) -> None:
    descriptor = bpf.open_pin(f"{host.pins()}/settings")
    try:
        record = bpf.lookup(descriptor, bytes(4), ctypes.sizeof(abi.Settings))
        assert record is not None
        settings = abi.Settings.from_buffer_copy(record)
        setattr(settings, field, value)
        bpf.update(descriptor, bytes(4), bytes(settings))
    finally:
        os.close(descriptor)


def test_looking_loads_nothing(site: Site) -> None:
    director = site.director
    before = director.state()
    for line in _READING:
        director.xlvsadm(line)
    director.xlvs("status", code=3)
    assert director.xlvs("detach").startswith("Nothing is loaded")
    assert director.state() == before
    assert director.pins() is None


def test_the_first_service_attaches_to_what_clients_may_come_in_by(site: Site) -> None:
    director = site.director
    site.plug_in("director", "eth1")
    director.type(
        "ip link set eth1 down; ip tuntap add tun0 mode tun; ip link set tun0 up;"
        "ip link add br0 type bridge; ip link add port0 type veth peer name port1; ip link set br0 up;"
        "ip link set port0 master br0; ip link set port0 up; ip link set port1 up"
    )
    director.xlvsadm(f"-A -t {SERVICE}")
    hook = _tc_hook(director)
    assert director.hooks() == {"eth0": [hook], "br0": [hook], "port1": [hook]}
    assert director.status()["not_attached"] == []
    director.type("ip link set eth1 up")
    assert director.status()["not_attached"] == ["eth1"]
    assert "xlvs attach eth1" in director.xlvs("status")
    director.xlvs("attach")
    assert director.hooks()["eth1"] == [hook]
    director.xlvs("detach eth1")
    assert "eth1" not in director.hooks()
    director.xlvs("attach eth1")
    assert director.hooks()["eth1"] == [hook]


def test_an_interface_that_is_down_can_be_attached_beforehand(site: Site) -> None:
    site.plug_in("director", "eth1")
    site.director.type("ip link set eth1 down")
    assert "is down" in site.director.xlvs("attach eth1")
    assert list(site.director.hooks()) == ["eth1"]


@pytest.mark.parametrize("mode", MODES)
def test_attaching_twice_is_attaching_once(site: Site, mode: str) -> None:
    director = site.director
    director.xlvs(f"attach --mode {mode}")
    hooks = director.status()["attached"]
    for line in ("attach", "attach eth0", "attach eth0 eth0"):
        director.xlvs(f"{line} --mode {mode}")
        before = director.state()
        director.xlvs(f"{line} --mode {mode}")
        assert director.state() == before
        assert director.status()["attached"] == hooks


def test_changing_the_mode(site: Site) -> None:
    director = site.director
    site.serve(SERVICE, 1)
    hook = _tc_hook(director)
    with site.connection() as (held, _):
        for mode, hooks in ((XDP_GENERIC, [hook, XDP_GENERIC]), ("tc", [hook])) * 2:
            director.xlvs(f"attach --mode {mode} eth0")
            assert director.hooks() == {"eth0": hooks}
            held.sendall(mode.encode())
            assert held.recv(64) == mode.encode()


@pytest.mark.parametrize("kind", ["xdpgeneric", "xdpdrv"])
def test_an_occupied_xdp_hook_is_left_alone(site: Site, foreign_xdp: Path, kind: str) -> None:
    director = site.director
    # ip(8) wants a BPF file system, and would leave its folders in ours.
    director.type(f"mount -t bpf bpf /sys/fs/bpf && ip link set dev eth0 {kind} obj {foreign_xdp} sec xdp")
    before = director.state()
    for line in ("attach --mode xdp-generic", "attach --mode xdp-generic eth0"):
        said = director.xlvs(line, code=1)
        assert "another XDP program is there" in said
        assert "xlvs attach --mode tc eth0" in said
        assert director.state() == before
    site.plug_in("director", "eth1")
    said = director.xlvs("attach --mode xdp-generic")
    assert "another XDP program is there" in said, "one is refused, the other attached"
    assert XDP_GENERIC in director.hooks()["eth1"]
    assert "eth0" not in director.hooks()
    assert "xdp" in director.type("ip link show eth0")
    site.serve(SERVICE, 1)
    director.xlvs("attach eth0")
    assert site.ask(2) == ["rs1", "rs1"]
    director.xlvs("detach")
    assert "xdp" in director.type("ip link show eth0"), "it is still there"


@pytest.mark.parametrize("mode", MODES)
def test_other_filters_go_on_beside_ours(site: Site, mode: str) -> None:
    director = site.director
    director.type(
        "ip link add copy type veth peer name copies; ip link set copy up; ip link set copies up;"
        "tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress protocol ip u32 match u32 0 0"
        " action mirred egress mirror dev copy"
    )

    def packets() -> int:
        shown = json.loads(director.type("ip -json -s link show copies"))
        return int(shown[0]["stats64"]["rx"]["packets"])

    director.xlvs(f"attach --mode {mode} eth0")
    site.serve(SERVICE, 1)
    before = packets()
    site.client.type(f"ping -c 2 -i 0.1 {VIP}")
    assert packets() >= before + 2
    assert site.ask(2) == ["rs1", "rs1"]
    director.xlvs("detach")
    before = packets()
    site.client.type(f"ping -c 2 -i 0.1 {VIP}")
    assert packets() >= before + 2


@pytest.mark.parametrize("mode", MODES)
def test_detach_leaves_the_namespace_as_it_was(site: Site, mode: str) -> None:
    director = site.director
    director.type("tc qdisc add dev eth0 clsact")
    before = director.state()
    director.xlvs(f"attach --mode {mode}")
    site.serve(SERVICE, 1, 2)
    site.ask(3)
    assert director.state() != before
    director.xlvs("detach")
    assert director.state() == before
    site.serve(SERVICE, 1)
    assert site.ask(1) == ["rs1"], "and it can be loaded again"


def test_detach_leaves_forwarding_to_an_operator_who_turned_it_on(site: Site) -> None:
    director = site.director
    director.xlvs("attach")
    assert director.sysctl("ipv4/conf/lo/forwarding") == "1"
    director.sysctl("ipv4/ip_forward", "1")
    director.xlvs("detach")
    assert director.sysctl("ipv4/conf/lo/forwarding") == "1", "as on every other interface"
    assert director.sysctl("ipv6/conf/lo/forwarding") == "0"


def test_forwarding_that_was_turned_off_is_told_and_mended(site: Site) -> None:
    director = site.director
    director.xlvs("attach")
    for mend in ("xlvs attach", f"xlvsadm -A -t {SERVICE}"):
        director.sysctl("ipv4/ip_forward", "1")
        director.sysctl("ipv4/ip_forward", "0")
        assert "net.ipv4.conf.lo.forwarding was turned off" in director.xlvs("status")
        assert director.status()["lo_settings"]["net.ipv4.conf.lo.forwarding"] is False
        (director.xlvs if mend.startswith("xlvs ") else director.xlvsadm)(mend.partition(" ")[2])
        assert director.status()["lo_settings"]["net.ipv4.conf.lo.forwarding"] is True
    director.xlvs("detach")
    assert director.sysctl("ipv4/conf/lo/forwarding") == "0"


@pytest.mark.parametrize("mode", MODES)
def test_an_interface_that_was_made_anew_is_attached_again(site: Site, mode: str) -> None:
    director = site.director
    director.xlvs(f"attach --mode {mode}")
    site.serve(SERVICE, 1)
    assert site.ask(1) == ["rs1"]
    director.type("ip link del eth0")
    assert director.status()["attached"] == []
    site.plug_in("director", "eth0", "192.0.2.10")
    director.type(f"ip address add {VIP}/32 dev eth0")
    site.client.type("ip neighbour flush dev eth0")
    assert director.status()["not_attached"] == ["eth0"]
    director.xlvs(f"attach --mode {mode} eth0")
    eventually(site.answers, "the service is back")
    assert site.ask(2) == ["rs1", "rs1"]


@pytest.mark.parametrize("lost", ["settings", "services", "connections", "interfaces", "xlvs_tc", "links/*"])
def test_detach_copes_with_damage(site: Site, lost: str) -> None:
    director = site.director
    before = director.state()
    director.xlvs("attach --mode xdp-generic")
    site.serve(SERVICE, 1)
    pins = director.pins()
    assert pins is not None
    for path in pins.glob(lost):
        path.unlink()
    director.xlvs("detach")
    assert director.state() == before
    site.serve(SERVICE, 1)
    assert site.ask(1) == ["rs1"]


@pytest.mark.parametrize("lost", ["settings", "services"])
def test_damage_is_told(site: Site, lost: str) -> None:
    director = site.director
    site.serve(SERVICE, 1)
    pins = director.pins()
    assert pins is not None
    (pins / lost).unlink()
    for said in (
        director.xlvs("status", code=1),
        director.xlvsadm("-Ln", code=2),
        director.xlvsadm(f"-a -t {SERVICE} -r {rip(2)}", code=2),
    ):
        assert lost in said
        assert "xlvs detach && xlvs attach" in said


def test_another_layout_is_refused_by_all_but_detach(site: Site) -> None:
    director = site.director
    before = director.state()
    site.serve(SERVICE, 1)
    _patch_settings(director, "abi_version", abi.ABI_VERSION + 1)
    loaded = director.state()
    for line in (*_READING, f"-A -t {VIP}:81", f"-a -t {SERVICE} -r {rip(2)}", "-C", "-Z", "--set 1 2 3"):
        said = director.xlvsadm(line, code=2)
        assert f"layout {abi.ABI_VERSION + 1}" in said
        assert "xlvs detach && xlvs attach" in said
    for line in ("status", "status --json", "attach", "attach eth0", "upgrade", "upgrade --check"):
        assert f"layout {abi.ABI_VERSION + 1}" in director.xlvs(line, code=1)
    assert director.state() == loaded
    assert site.ask(2) == ["rs1", "rs1"], "its traffic goes on"
    director.xlvs("detach")
    assert director.state() == before
    site.serve(SERVICE, 1)
    assert site.ask(1) == ["rs1"]


def test_directors_on_one_machine_have_tables_of_their_own(site: Site) -> None:
    other = site.add_host("other", "192.0.2.11")
    site.serve(SERVICE, 1)
    other.xlvsadm(f"-A -t {SERVICE} -s wlc")
    other.xlvsadm(f"-a -t {SERVICE} -r {rip(2)} -g")
    assert rip(2) not in site.director.xlvsadm("-Ln")
    assert rip(1) not in other.xlvsadm("-Ln")
    assert site.ask(2) == ["rs1", "rs1"]
    other.xlvs("detach")
    assert rip(1) in site.director.xlvsadm("-Ln")
    assert site.ask(1) == ["rs1"]


def test_what_a_dead_namespace_left_is_swept_by_the_next_load(site: Site) -> None:
    lost = site.add_host("lost", "192.0.2.12")
    lost.xlvs("attach")
    pins, lock = lost.pins(), Path(f"/run/xlvs/lock/{lost.cookie():x}")
    assert pins is not None
    assert lock.exists()
    namespaces.delete([site.hosts.pop("lost").name])

    def swept() -> bool:
        # The kernel takes a namespace's interfaces down some time after it has gone.
        site.director.xlvs("attach")
        site.director.xlvs("detach")
        return not pins.exists() and not lock.exists()

    eventually(swept, "pins and lock of the dead namespace are removed")


def test_an_ipv6_service_costs_no_route_that_a_router_advertised(site: Site) -> None:
    """Turning IPv6 forwarding on makes the kernel drop those, accept_ra 2 apart."""
    director = site.director

    def advertised() -> bool:
        site.client.run(sys.executable, "-c", _ROUTER_ADVERTISEMENT)
        return "proto ra" in director.type("ip -6 route show default")

    eventually(advertised, "the director has a default route from a router")
    director.xlvsadm(f"-A -t {SERVICE} -s rr")
    assert director.sysctl("ipv6/conf/lo/forwarding") == "0", "IPv4 has no use for it"
    director.xlvsadm(f"-A -t {SERVICE6} -s rr")
    assert director.sysctl("ipv6/conf/lo/forwarding") == "1"
    assert "proto ra" in director.type("ip -6 route show default")
    assert director.sysctl("ipv6/conf/eth0/accept_ra") == "1"
    director.xlvs("detach")
    assert director.sysctl("ipv6/conf/lo/forwarding") == "0"
    assert "proto ra" in director.type("ip -6 route show default")


def test_a_container_sweeps_nothing_that_it_cannot_see(site: Site) -> None:
    """From a process namespace of its own the machine's network namespaces look dead."""
    director = site.director
    site.serve(SERVICE, 1)
    director.xlvs("detach eth0")  # no link is left that would tell
    xlvs = str(COMMANDS / "xlvs")
    subprocess.run(
        ["unshare", "--pid", "--net", "--mount", "--fork", "--mount-proc", "sh", "-c",
         f"{xlvs} attach; {xlvs} detach"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert "-A -t" in director.xlvsadm("-Sn")


def test_another_programs_folders_on_the_bpffs_stay(site: Site) -> None:
    pins = site.director.pins() or bpffs.mount()
    folder = Path(bpffs.mount()) / "cafe"
    folder.mkdir()
    try:
        site.director.xlvs("attach")
        site.director.xlvs("detach")
        assert folder.is_dir(), pins
    finally:
        folder.rmdir()


def test_the_next_command_attaches_what_one_that_died_had_only_loaded(site: Site) -> None:
    director = site.director
    director.xlvs("attach")
    director.xlvs("detach eth0")
    _patch_settings(director, "activated", 0)
    director.xlvsadm(f"-A -t {SERVICE} -s rr")
    assert list(director.hooks()) == ["eth0"]


def test_detach_removes_what_a_load_that_died_had_pinned(site: Site) -> None:
    unfinished = Path(bpffs.mount()) / f"{site.director.cookie():x}-new"
    (unfinished / "links").mkdir(parents=True)
    site.director.xlvs("detach")
    assert not unfinished.exists()


def test_attaching_the_rest_leaves_xdp_where_it_is(site: Site) -> None:
    director = site.director
    director.xlvs("attach --mode xdp-generic eth0")
    site.plug_in("director", "eth1")
    director.xlvs("attach")
    assert {name: XDP_GENERIC in hooks for name, hooks in director.hooks().items()} == {
        "eth0": True,
        "eth1": False,
    }
    director.xlvs("attach --mode tc eth0")
    assert XDP_GENERIC not in director.hooks()["eth0"]


def test_xdp_is_refused_where_it_could_do_nothing(site: Site) -> None:
    director = site.director
    director.type(
        f"ip link add far index {abi.INTERFACE_LIMIT} type veth peer name away && ip link set far up"
    )
    director.xlvs("attach eth0")
    assert "TC works" in director.xlvs("attach --mode xdp-generic far", code=2)
    assert "far" not in director.hooks()
    director.xlvs("attach --mode tc far")


def test_upgrading_what_is_not_loaded(site: Site) -> None:
    for line in ("upgrade", "upgrade --check"):
        assert "nothing is loaded" in site.director.xlvs(line, code=1)
    assert site.director.pins() is None


def test_status_says_what_an_upgrade_would_do_and_has_left(site: Site) -> None:
    director = site.director
    site.serve(SERVICE, 1)
    assert "xlvs upgrade" not in director.xlvs("status")
    maps = Maps(str(director.pins()))
    maps.settings.program_version[:] = list(b"0.0.1".ljust(16, b"\0"))
    assert "losing nothing: xlvs upgrade" in director.xlvs("status")
    assert director.xlvs("upgrade --check") == f"{__version__} can take over from 0.0.1.\n"
    assert director.status()["program_version"] == "0.0.1"
    (Path(str(director.pins())) / "upgrade").mkdir()
    assert "An upgrade has died half-way" in director.xlvs("status")
    assert director.status()["upgrade_unfinished"]
    assert director.xlvs("upgrade") == f"The packet path is {__version__} now; it was 0.0.1.\n"
    assert "xlvs upgrade" not in director.xlvs("status")
    assert site.ask(2) == ["rs1", "rs1"]
    maps.close()
    director.xlvs("detach")
    assert director.pins() is None
