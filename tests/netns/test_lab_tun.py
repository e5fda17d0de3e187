# SPDX-License-Identifier: GPL-2.0-only
"""The lab of tunnels: real servers behind a router, their tunl0, every wrapping, and what does not fit."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from struct import pack
from typing import Any

import pytest

from tests.labs import Lab, left_behind, xlvs
from tests.packet import packets
from tests.packet.packets import packed
from xlvs.lab import lifecycle, node, state
from xlvs.lab.capture import Capture

MakeLab = Callable[..., Lab]
KINDS = ("ipip", "gre", "gue --tun-port 6080")
BIG = 20_000_000


def up(name: str, *options: str) -> Lab:
    xlvs("lab", "up", "tun", "--name", name, *options)
    record = state.load(name)
    assert record is not None
    return Lab(record)


def status(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(xlvs("lab", "status", "--name", name, "--json").stdout)
    return told


def use_tunnel(lab: Lab, kind: str) -> None:
    """Reach every real server by that kind of tunnel from now on."""
    for rip in lab.addresses.rips:
        lab.type("director", f"ipvsadm -e -t {lab.addresses.vip}:80 -r {rip} -i --tun-type {kind}")


def test_defaults_are_the_tutorials(lab_name: str) -> None:
    lab = up(lab_name)
    told = status(lab_name)
    assert (told["vip"], told["dip"], told["client"]) == (
        "192.168.219.100", "192.168.219.134", "192.168.219.2",
    )  # fmt: skip
    assert told["rips"] == ["192.168.56.135", "192.168.56.136"]
    assert (told["network"], told["inside_network"]) == ("192.168.219.0/24", "192.168.56.0/24")
    assert (told["router"], told["inside_router"]) == ("192.168.219.1", "192.168.56.1")
    assert (told["gateway"], told["inside_dip"], told["inside_dip6"]) == (None, None, None)
    assert told["gue_ports"] == [6080]
    assert "GUE on UDP port 6080\n" in xlvs("lab", "status", "--name", lab_name).stdout
    assert list(told["nodes"]) == ["director", "router", "client", "rs1", "rs2"]
    assert lab.ask(4) in (["rs1", "rs2"] * 2, ["rs2", "rs1"] * 2)
    assert "Tunnel" in lab.type("director", "ipvsadm -Ln")
    assert lab.ask(1, "http://192.168.56.136/") == ["rs2"], "the client reaches them by the router, too"


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
@pytest.mark.parametrize("virtual", ["ipv4", "ipv6"])
def test_every_kind_of_tunnel_arrives(make_lab: MakeLab, virtual: str, outer: str) -> None:
    lab = make_lab("tun", real_servers=1)
    vip = lab.addresses.vip if virtual == "ipv4" else f"[{lab.addresses.vip6}]"
    rip = lab.addresses.rips[0] if outer == "ipv4" else f"[{lab.addresses.rips6[0]}]"
    lab.type("director", f"curl -g -s -m 5 http://{rip}/")
    lab.type("director", f"ipvsadm -C; ipvsadm -A -t {vip}:80 -s rr")
    for number, kind in enumerate(KINDS):
        lab.type(
            "director", f"ipvsadm -{'e' if number else 'a'} -t {vip}:80 -r {rip}:80 -i --tun-type {kind}"
        )
        with Capture(lab.record, "director", "eth0", "tcp port 80") as at_director:
            assert lab.ask(3, f"http://{vip}/") == ["rs1"] * 3
        assert at_director.count(target=vip.strip("[]")) > 0
        assert at_director.count(source=vip.strip("[]")) == 0, "answers do not come by the director"


def test_big_files_go_both_ways(make_lab: MakeLab) -> None:
    """A packet of 1500 bytes does not fit a tunnel: the director says so, and the client heeds it."""
    lab = make_lab("tun", real_servers=1)
    lab.type("rs1", f"head -c {BIG} /dev/urandom >/var/www/html/big")
    lab.type("client", f"head -c {BIG} /dev/zero >/var/www/html/upload")
    vip = lab.addresses.vip
    for kind, mtu in zip(KINDS, (1480, 1476, 1468), strict=True):
        use_tunnel(lab, kind)
        lab.type("client", "ip route flush cache")
        sent = lab.type(
            "client",
            f"curl -s -S -m 30 -w '%{{http_code}} %{{size_upload}}' "
            f"--data-binary @/var/www/html/upload http://{vip}/",
        )
        assert sent == f"rs1\n200 {BIG}"
        assert f"mtu {mtu}" in lab.type("client", f"ip route get {vip}")
        got = lab.type("client", f"curl -s -S -m 30 http://{vip}/big | sha256sum")
        assert got == lab.type("rs1", "sha256sum </var/www/html/big")
    assert not (lab.record.folder / "nodes/rs1/nginx/pages/upload").exists(), "each node has its own files"


TUTORIAL = (
    "modprobe ipip",
    "ifconfig tunl0 192.168.219.100 netmask 255.255.255.255 up",
    "route add -host 192.168.219.100 dev tunl0",
    "echo 1 >/proc/sys/net/ipv4/conf/tunl0/arp_ignore",
    "echo 2 >/proc/sys/net/ipv4/conf/tunl0/arp_announce",
    "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore",
    "echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce",
    "echo 0 >/proc/sys/net/ipv4/conf/tunl0/rp_filter",
    "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter",
)


def test_a_tutorial_as_printed(make_lab: MakeLab) -> None:
    lab = make_lab("tun", bare=True)
    for where in ("director", "rs1", "rs2"):
        assert lab.addresses.vip not in lab.type(where, "ip address show")
    assert "->" not in lab.type("director", "ipvsadm -Ln").partition("RemoteAddress")[2]
    lab.type("director", "ifconfig eth0:0 192.168.219.100 netmask 255.255.255.255 up")
    lab.type("director", "route add -host 192.168.219.100 dev eth0:0")
    lab.type("director", "ipvsadm -A -t 192.168.219.100:80 -s rr")
    for number, rip in ((1, "192.168.56.135"), (2, "192.168.56.136")):
        lab.type("director", f"ipvsadm -a -t 192.168.219.100:80 -r {rip} -i")
        for line in TUTORIAL:
            lab.type(f"rs{number}", line)
    assert lab.ask(8) in (["rs1", "rs2"] * 4, ["rs2", "rs1"] * 4)
    assert "192.168.219.100" in lab.type("rs1", "ifconfig tunl0")


@pytest.mark.parametrize(
    ("without", "instead"),
    [
        ("ip link set tunl0 down", "ip link set tunl0 up"),
        ("ip addr del {vip}/32 dev tunl0", "ip addr add {vip}/32 dev tunl0"),
        ("sysctl -q net.ipv4.conf.tunl0.rp_filter=1", "sysctl -q net.ipv4.conf.tunl0.rp_filter=0"),
        (
            "sysctl -q net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.all.rp_filter=1",
            "sysctl -q net.ipv4.conf.tunl0.rp_filter=2",
        ),
    ],
)
def test_each_step_on_a_real_server_matters(make_lab: MakeLab, without: str, instead: str) -> None:
    """As with the kernel's own tunl0: it has to be up, the VIP local, and the reverse path not asked for."""
    lab = make_lab("tun", real_servers=1)
    vip = lab.addresses.vip
    ask = f"curl -s -m 1 --connect-timeout 1 http://{vip}/"
    lab.type("rs1", without.format(vip=vip))
    lab.type("client", ask, code=28)
    lab.type("rs1", instead.format(vip=vip))
    assert lab.ask(2) == ["rs1", "rs1"]


def test_tunl0_shows_what_was_in_the_tunnel(make_lab: MakeLab) -> None:
    lab = make_lab("tun", real_servers=1)
    with Capture(lab.record, "rs1", "tunl0", "tcp port 80") as unwrapped:
        lab.ask(1)
    assert unwrapped.count(lab.addresses.client, lab.addresses.vip) > 3
    assert unwrapped.count(lab.addresses.vip) == 0, "answers leave by eth0"


def test_gue_comes_on_the_ports_that_were_chosen(lab_name: str) -> None:
    lab = up(lab_name, "--gue-port", "5555", "--gue-port", "7000", "--real-servers", "1")
    for port in (5555, 7000):
        use_tunnel(lab, f"gue --tun-port {port}")
        assert lab.ask(1) == ["rs1"]
    use_tunnel(lab, "gue --tun-port 6080")
    assert lab.type("client", f"curl -s -m 1 http://{lab.addresses.vip}/ || echo lost") == "lost\n"


def test_modprobe_leaves_other_modules_to_the_machine(make_lab: MakeLab) -> None:
    lab = make_lab("tun", bare=True, real_servers=1)
    assert lab.type("rs1", "modprobe -v ipip; modprobe ip_gre; modprobe fou") == ""
    assert "no-such-module" in lab.type("rs1", "modprobe -n no-such-module", code=1)


def test_addresses_are_the_operators(lab_name: str) -> None:
    lab = up(
        lab_name, "--network", "10.1.0.0/16", "--vip", "10.1.9.9", "--dip", "10.1.0.5", "--client",
        "10.1.0.6", "--inside-network", "10.2.0.0/28", "--rip", "10.2.0.3", "--interface", "eth1",
    )  # fmt: skip
    assert "10.2.0.3/28" in lab.type("rs1", "ip address show dev eth1")
    assert "10.1.0.1/16" in lab.type("router", "ip address show dev eth1")
    assert "10.2.0.1/28" in lab.type("router", "ip address show dev eth0")
    assert lab.ask(2) == ["rs1", "rs1"]


def test_the_client_may_be_behind_the_router_as_well(lab_name: str) -> None:
    lab = up(lab_name, "--router")
    assert sorted(lab.ask(4)) == ["rs1", "rs1", "rs2", "rs2"]
    assert f"via {lab.addresses.gateway} " in lab.type("client", f"ip route get {lab.addresses.vip}")


@pytest.mark.parametrize(
    "harm",
    [
        "ip -n xlvs-{lab}-rs1 link delete tunl0",
        "tc -n xlvs-{lab}-rs1 qdisc del dev eth0 clsact",
        "ip -n xlvs-{lab}-router link delete eth1",
        "ip netns pids xlvs-{lab}-rs1 | xargs kill -9; ip netns delete xlvs-{lab}-rs1",
    ],
)
def test_up_repairs_it(lab_name: str, harm: str) -> None:
    lab = up(lab_name)
    subprocess.run(["sh", "-c", harm.format(lab=lab_name)], check=True)
    assert status(lab_name)["state"] == "damaged"
    up(lab_name)
    for each in ("client", "director", "router"):
        lab.forget_neighbours(each)
    assert sorted(lab.ask(4)) == ["rs1", "rs1", "rs2", "rs2"]
    assert "already" in xlvs("lab", "up", "tun", "--name", lab_name).stdout


def _programs() -> set[int]:
    told = json.loads(subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout)
    return {each["id"] for each in told if each.get("name") == "xlvs_decapsulate"}


def test_nothing_is_left_of_it(lab_name: str) -> None:
    up(lab_name, "--real-servers", "3")
    its_own = set()
    record = state.load(lab_name)
    assert record is not None
    for number in (1, 2, 3):
        shown = subprocess.run(
            ["tc", "-j", "-n", record.namespace(f"rs{number}"), "filter", "show", "dev", "eth0", "ingress"],
            capture_output=True,
            check=True,
        ).stdout
        its_own |= {each["options"]["prog"]["id"] for each in json.loads(shown) if "options" in each}
    assert len(its_own) == 3 and its_own <= _programs()
    assert lifecycle.down(lab_name, lambda _line: None)
    assert left_behind(lab_name) == []
    for _ in range(100):  # the kernel tears a namespace down in its own time
        if not its_own & _programs():
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert not its_own & _programs()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["tun", "--rip", "192.168.219.135"],
            "--rip 192.168.219.135 is outside the network 192.168.56.0/24",
        ),
        (["tun", "--inside-dip", "192.168.56.9"], "xlvs lab up nat"),
        (["tun", "--inside-network", "192.168.0.0/16"], "the router stands between"),
        (["tun", "--rip", "192.168.56.1", "--vip", "192.168.56.1"], "--vip 192.168.56.1 is outside"),
        (["tun", "--gue-port", "0"], "--gue-port 0 is no UDP port"),
        (["tun", "--gue-port", "65536"], "--gue-port 65536 is no UDP port"),
        (["tun", *(f"--gue-port={port}" for port in range(1, 10))], "9 times --gue-port"),
        (["dr", "--gue-port", "6080"], "xlvs lab up tun"),
        (["nat", "--gue-port", "6080"], "xlvs lab up tun"),
    ],
)
def test_bad_input_changes_nothing(lab_name: str, options: list[str], complaint: str) -> None:
    refused = xlvs("lab", "up", *options, "--name", lab_name, code=2)
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert left_behind(lab_name) == []


def test_help_names_what_is_new() -> None:
    told = xlvs("lab", "up", "--help").stdout
    for word in ("tun: tunnelling", "--gue-port"):
        assert word in told


PENDING = ("gre", "gue", "remcsum", "outer-remcsum")
SENDER = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
sender.bind(("eth1", 0))
for line in sys.stdin:
    sender.send(bytes.fromhex(line))
"""


def test_checksums_that_are_still_to_be_made(make_lab: MakeLab) -> None:
    """A packet that was never on a real wire may lack its inner checksum, and its tunnel's be made for it.

    The sender is as the kernel's tunnels are: the outer checksum holds once the
    inner one is made (local checksum offload); with remote checksum offload the
    inner one stays as it is, and it may be the outer one that is to be made.
    """
    lab = make_lab("tun", bare=True, real_servers=1)
    lab.type("rs1", "ip addr add 192.168.219.100/32 dev lo; ip link set tunl0 up")
    listener = node.popen(
        lab.record, "rs1",
        [sys.executable, "-c",
         "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
         "s.bind(('192.168.219.100', 53)); s.settimeout(20); print('ready', flush=True)\n"
         "for _ in range(4): print(s.recv(99).decode(), flush=True)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert listener.stdout is not None and listener.stdout.readline() == "ready\n"
        plan = lifecycle.plan_of(lab.record)
        target, source = plan.node("rs1").interfaces[0].mac, plan.node("router").interfaces[1].mac
        lines = "".join(
            f"{_pending(kind, packets.mac(target), packets.mac(source)).hex()}\n" for kind in PENDING
        )
        sending = node.popen(
            lab.record, "router", [sys.executable, "-c", SENDER], stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert sending.communicate(lines)[1] == ""
        assert listener.stdout.read().split() == list(PENDING)
    finally:
        listener.kill()
        listener.communicate()


def _pending(kind: str, target: bytes, source: bytes) -> bytes:
    """A frame with that payload and its virtio header, one checksum pending."""
    client, vip = packed("192.168.219.2"), packed("192.168.219.100")
    dip, rip = packed("192.168.219.134"), packed("192.168.56.135")
    inner = packets.ipv4(client, vip, packets.UDP, packets.udp(4000, 53, kind.encode()))
    whole = packets.with_checksum(inner)
    left = whole[:26] + _seed(client, vip, whole[20:], packets.UDP) + whole[28:]
    remote = kind.endswith("remcsum")
    options = pack(">IHH", 0x80000000, 20, 26) if remote else b""
    header = pack(">BBH", len(options) // 4, packets.IPIP, 1 if options else 0) + options
    # Summed up as the packet will be once that is made; sent as it is now.
    content = left if remote else whole
    if kind == "gre":
        wrapped = pack(">HHI", 0x8000, 0x800, 0) + content
        wrapped = wrapped[:4] + pack(">H", packets.checksum(wrapped)) + wrapped[6:]
        outer = packets.ipv4(dip, rip, packets.GRE, wrapped)
    else:
        outer = packets.ipv4(dip, rip, packets.UDP, packets.udp(40000, 6080, header + content))
        if kind == "outer-remcsum":
            outer = outer[:26] + _seed(dip, rip, outer[20:], packets.UDP) + outer[28:]
        else:
            outer = packets.with_checksum(outer)
    frame = packets.ethernet(outer[: -len(left)] + left, 0x0800, target, source)
    start = 34 if kind == "outer-remcsum" else len(frame) - len(left) + 20
    # struct virtio_net_hdr: VIRTIO_NET_HDR_F_NEEDS_CSUM, where from, and where to within that
    return pack("=BBHHHH", 1, 0, 0, 0, start, 6) + frame


def _seed(source: bytes, destination: bytes, content: bytes, protocol: int) -> bytes:
    """What stands in the place of a pending checksum: what the pseudo-header adds up to."""
    pseudo = source + destination + pack(">II", len(content), protocol)
    return pack(">H", ~packets.checksum(pseudo) & 0xFFFF)


SEGMENTS = """\
import socket, sys
vip, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("::" if ":" in vip else "0.0.0.0", int(sys.argv[4])))
sock.setsockopt(17, 103, size)  # SOL_UDP, UDP_SEGMENT (linux/udp.h)
sock.sendto(b"".join(bytes([65 + n]) * size for n in range(count))[: -size // 2], (vip, 53))
"""
SERVER = """\
import socket, sys
wanted = int(sys.argv[1])
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("::", 53))
sock.settimeout(30)
print("ready", flush=True)
for _ in range(wanted):
    came = sock.recv(9999)
    print(came[:1].decode() * (came == came[:1] * len(came)), len(came), flush=True)
"""


@pytest.mark.parametrize("family", ["", "6"])
def test_datagrams_of_a_sender_that_hands_over_many_at_once(family: str, shared_lab: MakeLab) -> None:
    """As QUIC servers and clients do (UDP_SEGMENT): each comes out of its tunnel by itself."""
    lab = shared_lab("tun")
    vip = lab.addresses.vip6 if family else lab.addresses.vip
    rip = lab.addresses.rips6[0] if family else lab.addresses.rips[0]
    service, server = (f"[{vip}]:53", f"[{rip}]:53") if family else (f"{vip}:53", rip)
    lab.type("director", f"ipvsadm -A -u {service} -s rr && ipvsadm -a -u {service} -r {server} -i")
    kinds = [*KINDS, "gre --tun-csum", "gue --tun-port 6080 --tun-csum", "gue --tun-port 6080 --tun-remcsum"]
    listener = node.popen(
        lab.record, "rs1", [sys.executable, "-c", SERVER, str(4 * len(kinds))], stdout=subprocess.PIPE
    )
    try:
        assert listener.stdout is not None and listener.stdout.readline() == "ready\n"
        for number, kind in enumerate(kinds):
            lab.type("director", f"ipvsadm -e -u {service} -r {server} -i --tun-type {kind}")
            words = " ".join([sys.executable, "-c", f"'{SEGMENTS}'", vip, "1000", "4", str(4000 + number)])
            lab.type("client", words)
            came = [listener.stdout.readline() for _ in range(4)]
            assert came == ["A 1000\n", "B 1000\n", "C 1000\n", "D 500\n"], kind
    finally:
        listener.kill()
        listener.communicate()


def test_tunl0_is_no_interface_of_the_machine(lab_name: str) -> None:
    before = {name for _, name in socket.if_nameindex()}
    up(lab_name)
    assert {name for _, name in socket.if_nameindex()} == before
