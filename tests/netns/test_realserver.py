# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs realserver` with traffic: each way to set a real server up, and each shown to be needed.

One lab of each topology serves all tests of this module: what one of them sets up
it takes back, and that this leaves the machine as it was is looked at each time.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator

import pytest

from tests.labs import Lab, eventually
from xlvs.lab import lifecycle
from xlvs.lab.addresses import Request
from xlvs.lab.capture import Capture

SERVERS = ("rs1", "rs2")
_numbers = itertools.count(1)

MACHINE = """
exec 2>/dev/null  # iproute2 complains there of other tests' namespaces that go at the moment
ip address; ip link show; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf
nft list ruleset; tc qdisc show; bpftool net show
"""


def _lab(topology: str, **request: object) -> Iterator[Lab]:
    name = f"t{os.getpid()}-rs{next(_numbers)}"
    record = lifecycle.new_record(topology, name, Request(real_servers=2, **request), bare=True)  # type: ignore[arg-type]
    try:
        lifecycle.up(record, lambda _line: None)
        yield Lab(record)
    finally:
        lifecycle.down(name, lambda _line: None)


def _serve(lab: Lab, method: str) -> None:
    """The director's part, for IPv4's VIP and IPv6's."""
    vip, vip6 = lab.addresses.vip, lab.addresses.vip6
    lines = [
        f"ip address add {vip}/32 dev eth0",
        f"ip address add {vip6}/128 dev eth0 nodad preferred_lft 0",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        f"ipvsadm -A -t {vip}:80 -s rr",
        f"ipvsadm -A -t [{vip6}]:80 -s rr",
    ]
    for rip, rip6 in zip(lab.addresses.rips, lab.addresses.rips6, strict=True):
        lines.append(f"ipvsadm -a -t {vip}:80 -r {rip} {method}")
        lines.append(f"ipvsadm -a -t [{vip6}]:80 -r [{rip6}]:80 {method}")
    lab.type("director", "set -e\n" + "\n".join(lines))


@pytest.fixture(scope="module")
def dr() -> Iterator[Lab]:
    """Direct Routing, the client behind a router: that one's caches tell who was heard of."""
    for lab in _lab("dr", router=True):
        _serve(lab, "-g")
        yield lab


@pytest.fixture(scope="module")
def tun() -> Iterator[Lab]:
    for lab in _lab("tun"):
        _serve(lab, "-i")
        for server in SERVERS:  # once it has been up, a device keeps its queueing discipline
            lab.type(server, "ip link set tunl0 up; ip link set tunl0 down")
        # Packets of many segments, as veth pairs hand them on, never meet the MTU.
        lab.type("client", "ip link set eth0 gso_max_segs 1")
        yield lab


@pytest.fixture(scope="module")
def nat() -> Iterator[Lab]:
    """NAT, the real servers' default routes leading elsewhere."""
    for lab in _lab("nat"):
        _serve(lab, "-m")
        for server in SERVERS:
            lab.type(server, "ip route replace default via 192.168.56.77")
            lab.type(server, "ip -6 route replace default via fd6c:7673:0:2::77")
        yield lab


def machine(lab: Lab, node: str = "rs1") -> str:
    """All that setting up may touch, as the machine's own commands show it."""
    # Lifetimes and counters run on by themselves.
    return re.sub(r"(valid_lft|preferred_lft|expires) \d+sec", "", lab.type(node, MACHINE))


def both(lab: Lab) -> str:
    return f"{lab.addresses.vip},{lab.addresses.vip6}"


def pages(lab: Lab) -> set[str]:
    """Who answers a few requests for each VIP."""
    return {*lab.ask(4), *lab.ask(4, f"http://[{lab.addresses.vip6}]/")}


def heard_of(lab: Lab, asker: str = "router") -> dict[str, str]:
    """The MACs that a node's caches have for the VIPs."""
    found = {}
    for line in lab.type(asker, "ip neigh").splitlines():
        words = line.split()
        if words[0] in (lab.addresses.vip, lab.addresses.vip6) and "lladdr" in words:
            found[words[0]] = words[words.index("lladdr") + 1]
    return found


TALK = """
import socket, sys
for vip, neighbour in zip(*(words.split(",") for words in sys.argv[1:])):
    with socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((vip, 0))
        sender.sendto(b"", (neighbour, 9))
"""


def talk(lab: Lab, *servers: str) -> None:
    """Have real servers send something from the VIPs to the router, which they have to ask for first."""
    neighbours = (lab.addresses.router, lab.addresses.router6)
    for server in servers:
        lab.type(server, "ip neigh flush all; ip -6 neigh flush all")
        lab.type(server, f"python3 -c '{TALK}' {both(lab)} {','.join(neighbours)}")
        for neighbour in neighbours:
            shown = f"ip neigh show {neighbour}"
            eventually(lambda: "lladdr" in lab.type(server, shown), "the router has answered")  # noqa: B023


def advertising_macs(lab: Lab) -> set[str]:
    """Who answers the router's neighbour solicitations for IPv6's VIP."""
    interface = lab.addresses.interface
    with Capture(lab.record, "router", interface, "icmp6 and ip6[40] == 136") as answers:
        lab.type("router", f"ip -6 neigh flush all; ping -6 -c 1 -W 1 {lab.addresses.vip6}; true")
    return {
        passage.mac
        for passage in answers.passages
        # The director itself asks and is asked by link-local addresses as well.
        if passage.mac in {lab.mac(node) for node in ("director", *SERVERS)}
    }


@pytest.fixture
def set_up() -> Iterator[Callable[[Lab, str], None]]:
    """A function that sets both real servers up by these options; they are as before at the end."""
    states: list[tuple[Lab, str]] = []

    def add(lab: Lab, options: str) -> None:
        if not states:
            states.append((lab, machine(lab)))
        for server in SERVERS:
            lab.type(server, f"xlvs realserver add --vip {both(lab)} {options}")

    yield add
    for lab, before in states:
        for server in SERVERS:
            lab.type(server, "xlvs realserver remove --all")
        assert machine(lab) == before
        for node in lifecycle.plan_of(lab.record).nodes:
            if node.name in ("router", "client"):  # it may have heard of the wrong one
                lab.type(node.name, "ip neigh flush all; ip -6 neigh flush all")
        assert not lab.type("rs1", f"ls /run/xlvs/realserver | grep -c {cookie(lab)}; true").strip("0\n")


def cookie(lab: Lab) -> str:
    from xlvs.kernel.namespaces import network_cookie, network_namespace
    from xlvs.lab import namespaces

    with network_namespace(namespaces.path(lab.record.namespace("rs1"))):
        return f"{network_cookie():x}"


SetUp = Callable[[Lab, str], None]
SILENT = (
    "",
    "--arp nft",
    "--arp ebpf",
    "--arp redirect",
    "--device eth0 --arp nft",
    "--device eth0 --arp ebpf",
)


@pytest.mark.parametrize("options", SILENT)
def test_direct_routing(dr: Lab, set_up: SetUp, options: str) -> None:
    set_up(dr, options)
    director = dr.mac("director")
    dr.type("router", "ip neigh flush all; ip -6 neigh flush all")
    assert pages(dr) == set(SERVERS)
    if "redirect" not in options:
        talk(dr, *SERVERS)
    assert heard_of(dr) == {dr.addresses.vip: director, dr.addresses.vip6: director}
    assert pages(dr) == set(SERVERS)
    assert dr.answering_macs("router") == {director}
    assert advertising_macs(dr) == {director}
    for server in SERVERS:
        dr.type(server, f"xlvs realserver check --vip {both(dr)}")


def test_without_silence_everybody_is_heard_of(dr: Lab, set_up: SetUp) -> None:
    """By answers as well as by questions; but IPv6's VIP on `lo` is silent all the same."""
    set_up(dr, "--arp none")
    everybody = {dr.mac(node) for node in ("director", *SERVERS)}
    assert dr.answering_macs("router") == everybody
    assert advertising_macs(dr) == {dr.mac("director")}
    talk(dr, "rs1")
    assert heard_of(dr) == {dr.addresses.vip: dr.mac("rs1"), dr.addresses.vip6: dr.mac("director")}
    assert set(dr.ask(4)) == {"rs1"}, "the router has its packets go past the director"


def test_without_silence_a_vip_on_the_nic_is_heard_of(dr: Lab, set_up: SetUp) -> None:
    set_up(dr, "--device eth0 --arp none")
    assert dr.answering_macs("router") == {dr.mac(node) for node in ("director", *SERVERS)}
    assert advertising_macs(dr) & {dr.mac(server) for server in SERVERS}
    talk(dr, "rs2")
    assert heard_of(dr) == dict.fromkeys((dr.addresses.vip, dr.addresses.vip6), dr.mac("rs2"))


@pytest.mark.parametrize("way", ["none", "nft", "ebpf"])
def test_duplicate_address_detection_of_the_director(dr: Lab, set_up: SetUp, way: str) -> None:
    """A director that looks whether its VIP is taken must not hear of a real server that has it, too."""
    set_up(dr, f"--device eth0 --arp {way}")
    vip6 = dr.addresses.vip6
    dad = "/proc/sys/net/ipv6/conf/eth0/accept_dad"
    dr.type("router", f"echo 1 >{dad} && ip address add {vip6}/128 dev eth0")
    try:
        shown = f"ip -6 address show dev eth0 to {vip6}"
        eventually(
            lambda: "tentative" not in dr.type("router", shown).replace("dadfailed tentative", ""), "done"
        )
        # The director holds it as well, and is heard: it is the real servers alone that are asked about.
        with Capture(dr.record, "router", "eth0", "icmp6 and ip6[40] == 136") as answers:
            dr.type("router", f"ip address del {vip6}/128 dev eth0; ip address add {vip6}/128 dev eth0")
            eventually(
                lambda: "tentative" not in dr.type("router", shown).replace("dadfailed tentative", ""),
                "done",
            )
        heard = {passage.mac for passage in answers.passages} & {dr.mac(server) for server in SERVERS}
        assert bool(heard) == (way == "none")
    finally:
        dr.type("router", f"ip address del {vip6}/128 dev eth0; echo 0 >{dad}")


def test_several_calls_and_one_removed(dr: Lab, set_up: SetUp) -> None:
    set_up(dr, "")
    second = "192.0.2.77"
    dr.type("rs1", f"xlvs realserver add --vip {second} --arp ebpf")
    dr.type("rs1", f"xlvs realserver add --vip 192.0.2.78,{second} --arp nft")
    before = machine(dr)
    assert "nothing" not in dr.type("rs1", f"xlvs realserver remove --vip {second}")
    held = dr.type("rs1", "ip address show")
    assert f"{dr.addresses.vip}/32" in held and "192.0.2.78/32" in held and second not in held
    dr.type("rs1", "xlvs realserver check")
    assert pages(dr) == set(SERVERS)
    dr.type("rs1", f"xlvs realserver add --vip {second} --arp nft")
    assert sorted(machine(dr).split()) == sorted(before.split()), "but for the order of addresses"


def test_repeating_it_changes_nothing_and_mends_what_was_changed(dr: Lab, set_up: SetUp) -> None:
    set_up(dr, "--service tcp:80")
    before = machine(dr)
    assert "all of it is set up already" in dr.type(
        "rs1", f"xlvs realserver add --vip {both(dr)} --service tcp:80"
    )
    assert machine(dr) == before
    for damage in (
        f"ip address del {dr.addresses.vip}/32 dev lo",
        "sysctl -q net.ipv4.conf.all.arp_ignore=0",
        "sysctl -q net.ipv4.conf.all.arp_announce=1",
    ):
        dr.type("rs1", damage)
        assert "fault" in dr.type("rs1", "xlvs realserver check -q", code=1)
        dr.type("rs1", "xlvs realserver apply")
        dr.type("rs1", "xlvs realserver check")
    assert sorted(machine(dr).split()) == sorted(before.split())


@pytest.mark.parametrize(
    ("options", "damage"),
    [
        ("--arp nft", "nft flush ruleset"),
        ("--arp redirect", "nft delete table inet xlvs_realserver"),
        ("--arp ebpf", "rm /run/xlvs/bpf/*-realserver/silence/links/tc-*"),
    ],
)
def test_lost_guards_are_noticed_and_mended(dr: Lab, set_up: SetUp, options: str, damage: str) -> None:
    set_up(dr, options)
    dr.type("rs1", "xlvs realserver check")
    if "*" in damage:
        damage = damage.replace("*", cookie(dr), 1)
    dr.type("rs1", damage)
    assert "xlvs realserver apply" in dr.type("rs1", "xlvs realserver check", code=1)
    dr.type("rs1", "xlvs realserver apply")
    dr.type("rs1", "xlvs realserver check")
    assert pages(dr) == set(SERVERS)


def test_what_was_there_before_stays(dr: Lab) -> None:
    """An address and settings of somebody else's are not ours to take away, nor what was changed since."""
    vip = dr.addresses.vip
    try:
        dr.type("rs1", f"ip address add {vip}/32 dev lo; sysctl -q net.ipv4.conf.all.arp_ignore=2")
        before = machine(dr)
        assert "192.0.2.100" not in dr.type("rs1", f"xlvs realserver add --vip {vip}")
        dr.type("rs1", "sysctl -q net.ipv4.conf.lo.arp_announce=1")
        said = dr.type("rs1", "xlvs realserver remove --all")
        assert "left as it is: ipv4/conf/lo/arp_announce is 1" in said
        dr.type("rs1", "sysctl -q net.ipv4.conf.lo.arp_announce=0")
        assert machine(dr) == before
    finally:
        dr.type("rs1", f"ip address del {vip}/32 dev lo; sysctl -q net.ipv4.conf.all.arp_ignore=0")


def test_tutorials_own_way_is_recognised_and_taken_over(dr: Lab) -> None:
    vip, redirected = dr.addresses.vip, "192.0.2.99"
    rule = f"-d {redirected} -p tcp --dport 80 -j REDIRECT"
    # iptables leaves its table behind.
    dr.type("rs1", f"iptables -t nat -A PREROUTING {rule}; iptables -t nat -D PREROUTING {rule}")
    before = machine(dr)
    dr.type("rs1", f"ifconfig lo:0 {vip} netmask 255.255.255.255 up; route add -host {vip} dev lo:0")
    dr.type("rs1", f"iptables -t nat -A PREROUTING {rule}")
    listed = {
        each["vip"]: each
        for each in json.loads(dr.type("rs1", "xlvs realserver list --json"))["real_servers"]
    }
    assert {each["set_up_by"] for each in listed.values()} == {"hand"}
    assert listed[vip]["arp"] == "sysctl" and listed[redirected]["arp"] == "redirect"

    checked = dr.type("rs1", "xlvs realserver check", code=1)
    assert "eth0 answers ARP for 192.0.2.100: arp_ignore is 0" in checked
    dr.type("rs1", "sysctl -q net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
    dr.type("rs1", "xlvs realserver check")  # without lo's settings, which do nothing

    dr.type("rs1", "xlvs realserver adopt")
    assert "by hand" not in dr.type("rs1", "xlvs realserver list")
    dr.type("rs1", "xlvs realserver check")
    dr.type("rs1", "xlvs realserver remove --all")
    assert machine(dr) == before
    dr.type("rs1", "nft delete table ip nat")
    assert "nothing was set up by hand" in dr.type("rs1", "xlvs realserver adopt", code=2)


def test_faults_that_tutorials_readers_make(dr: Lab) -> None:
    vip = dr.addresses.vip
    silence = "sysctl -q net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
    loud = "sysctl -q net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0"
    dr.type("rs1", silence)
    try:
        for typed, complaint, undo in (
            (
                f"ifconfig lo:0 {vip} netmask 255.255.255.0 up",
                "makes its whole network",
                "ifconfig lo:0 down",
            ),
            (
                f"ip address add {vip}/32 dev lo; ip address add {vip}/24 dev eth0",
                "is on eth0, too",
                f"ip address del {vip}/32 dev lo; ip address del {vip}/24 dev eth0",
            ),
            (
                f"ip address add {vip}/32 dev lo; nginx -s stop",
                "nothing listens",
                f"ip address del {vip}/32 dev lo",
            ),
        ):
            dr.type("rs1", typed)
            try:
                assert complaint in dr.type("rs1", "xlvs realserver check; true")
            finally:
                dr.type("rs1", undo)
                dr.type("rs1", "nginx 2>&1; true")
    finally:
        dr.type("rs1", loud)
    assert "this machine is no real server" in dr.type("rs1", "xlvs realserver check", code=2)


def test_what_this_machine_cannot_be_changes_nothing(dr: Lab) -> None:
    for line, code, complaint in (
        ("add --vip 192.0.2.101", 2, "is on eth0 already"),
        ("add --vip 192.0.2.100 --device nothere --arp nft", 2, "no interface nothere"),
        ("add --vip 192.0.2.100 --arp hidden", 1, "--arp sysctl does the same"),
        ("add --vip 192.0.2.100 --method tun --decap devices", 1, "--decap ebpf"),
        ("add --vip 192.0.2.100 --interface lo", 2, "no Ethernet interface"),
        ("remove --vip 192.0.2.100", 2, "no real server of 192.0.2.100"),
        ("check --vip 192.0.2.100", 2, "no real server of 192.0.2.100"),
    ):
        said = dr.type("rs1", f"xlvs realserver {line}", code=code)
        assert complaint in said and "Traceback" not in said
    assert dr.type("rs1", "xlvs realserver list").startswith("this machine is no real server")


def test_settings_that_are_not_ours(dr: Lab) -> None:
    """As in a container: /proc/sys is read-only.  Nothing is left of the attempt; nftables does it there."""
    before = machine(dr)
    read_only = "mount -o bind,ro /proc/sys /proc/sys"
    said = dr.type("rs1", f"{read_only}; xlvs realserver add --vip {dr.addresses.vip}", code=1)
    assert "Read-only file system" in said and "--arp nft" in said
    assert machine(dr) == before
    for way in ("nft", "ebpf"):
        dr.type("rs1", f"{read_only}; xlvs realserver add --vip {dr.addresses.vip} --arp {way}")
        assert dr.mac("rs1") not in dr.answering_macs("router")
        dr.type("rs1", f"{read_only}; xlvs realserver remove --all")
        assert machine(dr) == before


KINDS = {"ipip": "ipip", "gre": "gre --tun-csum", "gue": "gue --tun-port 6080 --tun-remcsum"}


def by(lab: Lab, kind: str) -> None:
    """Have the director send by that kind of tunnel from now on."""
    for vip, rips in (
        (lab.addresses.vip, lab.addresses.rips),
        (f"[{lab.addresses.vip6}]", [f"[{rip6}]:80" for rip6 in lab.addresses.rips6]),
    ):
        for rip in rips:
            lab.type("director", f"ipvsadm -e -t {vip}:80 -r {rip} -i --tun-type {KINDS[kind]}")


def is_answered(lab: Lab, host: str) -> bool:
    ran = lab.type("client", f"curl -g -s -m 1 --connect-timeout 1 http://{host}/ || echo nobody")
    return ran.strip() in SERVERS


def test_tunnels_without_tunnel_devices(tun: Lab, set_up: SetUp) -> None:
    by(tun, "ipip")
    assert not is_answered(tun, tun.addresses.vip) and not is_answered(tun, f"[{tun.addresses.vip6}]")
    set_up(tun, "--method tun --decap ebpf")
    assert pages(tun) == set(SERVERS)
    by(tun, "gre")
    assert not is_answered(tun, tun.addresses.vip), "GRE was not asked for"
    set_up(tun, "--method tun --decap ebpf --tunnel ipip,gre,gue")
    for kind in KINDS:
        by(tun, kind)
        assert pages(tun) == set(SERVERS)
    for server in SERVERS:
        tun.type(server, "xlvs realserver check")
    by(tun, "ipip")


def test_tunnels_by_a_device_whose_rp_filter_alone_is_loose(tun: Lab, set_up: SetUp) -> None:
    vip = tun.addresses.vip
    set_up(tun, "--method tun")
    for server in SERVERS:
        tun.type(server, "sysctl -q net.ipv4.conf.all.rp_filter=1")
    try:
        assert "tunl0.rp_filter" in tun.type("rs1", f"xlvs realserver remove --vip {vip}")
        tun.type("rs1", f"xlvs realserver add --vip {vip} --method tun --decap devices")
        assert pages(tun) == set(SERVERS)
        for server in SERVERS:
            tun.type(server, "xlvs realserver check; sysctl -q net.ipv4.conf.tunl0.rp_filter=0")
        assert not is_answered(tun, vip)
        assert "tunl0 drops what comes out" in tun.type("rs1", "xlvs realserver check", code=1)
        tun.type("rs1", "xlvs realserver apply")
        tun.type("rs1", "xlvs realserver check")
    finally:
        for server in SERVERS:
            tun.type(server, "sysctl -q net.ipv4.conf.all.rp_filter=0")


SEGMENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 80)) as connection:
    print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""
UPLOAD = "head -c 200000 /dev/zero | curl -g -s -m 2 --data-binary @- http://{}/"


def test_segments_fit_the_tunnel_also_where_icmp_is_dropped(tun: Lab, set_up: SetUp) -> None:
    """Clients that never hear of the smaller MTU: firewalls are like that."""
    vip, vip6 = tun.addresses.vip, tun.addresses.vip6
    rules = "icmp type destination-unreachable drop; icmpv6 type packet-too-big drop;"
    deaf = f"table inet deaf {{ chain in {{ type filter hook input priority 0; {rules} }}; }}"
    tun.type("client", f"nft '{deaf}'")
    try:
        set_up(tun, "--method tun --decap ebpf --mss off")
        tun.type("client", UPLOAD.format(vip), code=28)
        set_up(tun, "--method tun --decap ebpf")
        for host in (vip, f"[{vip6}]"):
            assert tun.type("client", UPLOAD.format(host)).strip() in SERVERS
        timestamps = 12  # what the socket takes off for them
        # IPv4 and IPv6 in an outer IPv6 header, the larger one: the real servers have addresses of both.
        assert int(tun.type("client", f"python3 -c '{SEGMENT}' {vip}")) == 1500 - 40 - 20 - 20 - timestamps
        assert int(tun.type("client", f"python3 -c '{SEGMENT}' {vip6}")) == 1500 - 40 - 40 - 20 - timestamps
        set_up(tun, "--method tun --decap ebpf --mss 900")
        assert int(tun.type("client", f"python3 -c '{SEGMENT}' {vip}")) == 900 - timestamps
    finally:
        tun.type("client", "nft delete table inet deaf")


DIRECTORS = "--method nat --director 192.168.56.100,fd6c:7673:0:2::10"


def test_nat_by_the_default_route(nat: Lab, set_up: SetUp) -> None:
    assert not is_answered(nat, nat.addresses.vip) and not is_answered(nat, f"[{nat.addresses.vip6}]")
    set_up(nat, DIRECTORS)
    assert pages(nat) == set(SERVERS)
    assert "via 192.168.56.100" in nat.type("rs1", "ip route get 198.51.100.9")
    nat.type("rs1", "xlvs realserver check")
    nat.type("rs1", "ip route del default via 192.168.56.100")
    assert "not in force" in nat.type("rs1", "xlvs realserver check", code=1)


def test_nat_for_the_services_answers_alone(nat: Lab, set_up: SetUp) -> None:
    set_up(nat, f"{DIRECTORS} --route policy --service tcp:8080")
    assert not is_answered(nat, nat.addresses.vip), "another service's answers go their own way"
    set_up(nat, f"{DIRECTORS} --route policy --service tcp:80")
    assert pages(nat) == set(SERVERS)
    assert "via 192.168.56.77" in nat.type("rs1", "ip route get 198.51.100.9")
    assert "via fd6c:7673:0:2::77" in nat.type("rs1", "ip route get 2001:db8::9")
    nat.type("rs1", "xlvs realserver check")
