# SPDX-License-Identifier: GPL-2.0-only
"""The doctor in labs that are broken on purpose, by every check's own scenarios, and in healthy ones.

Each scenario is played whole: break, the doctor names exactly that, mend,
silence, undo, the same finding again, restore, and everything is as before.
That it is silent then the next one shows, which names no more than its own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.labs import Lab, eventually, xlvs
from xlvs.doctor import arp, mending, patients, probe
from xlvs.doctor.checks import Check, Scenario, all_checks, judge
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.examination import examine
from xlvs.doctor.finding import NOTE, Finding
from xlvs.doctor.host import Host
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import lifecycle, namespaces, node
from xlvs.lab.addresses import Request

PATIENCE = 1.5
"""Seconds for a real server: enough for a SYN that is sent again (`probe.PATIENCE`), no more than that."""
QUICK = f"--timeout={PATIENCE}"
CHECKS = all_checks()
SCENARIOS = [
    pytest.param(check, scenario, id=f"{check.name}-{scenario.lab}-{number}")
    for lab in (
        "dr",
        "dr6",
        "nat",
        "nat6",
        "tun",
        "tun6",
    )  # one after another: each changes the last a little
    for check in CHECKS
    for number, scenario in enumerate(check.scenarios)
    if scenario.lab == lab
]
_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def _neighbours_answer_at_once() -> Iterator[None]:
    """In a lab nobody needs a second to answer ARP; that wait is the same for the healthy and the broken."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arp, "PATIENCE", 0.3)
        yield


@pytest.fixture(scope="module")
def labs() -> Iterator[Callable[[str], Lab]]:
    """A function that gives the healthy lab of a topology, one for all tests here."""
    made: dict[str, Lab] = {}
    serving6: set[str] = set()

    def of(topology: str) -> Lab:
        shape = topology.removesuffix("6")
        if shape not in made:
            name = f"t{os.getpid()}-doctor{next(_numbers)}"
            record = lifecycle.new_record(shape, name, Request(), bare=False)
            made[shape] = Lab(record)
            lifecycle.up(record, lambda _line: None)
            comes_to_rest(made[shape])
        lab = made[shape]
        if topology.endswith("6") and shape not in serving6:
            typed(lab, (("director", serve6(lab)),))
            serving6.add(shape)
        elif topology == shape and shape in serving6:
            typed(lab, (("director", "ipvsadm -D -t [{vip6}]:80"),))
            serving6.remove(shape)
        return lab

    yield of
    for lab in made.values():
        lifecycle.down(lab.name, lambda _line: None)


def serve6(lab: Lab) -> str:
    """What makes of a lab NAME the one that scenarios call NAME6: its VIP of IPv6 is served, too."""
    method = {"dr": "-g", "nat": "-m", "tun": "-i"}[lab.record.topology]
    lines = ["ipvsadm -A -t [{vip6}]:80 -s rr"]
    for number, _ in enumerate(lab.addresses.rips6, start=1):
        lines.append(f"ipvsadm -a -t [{{vip6}}]:80 -r [{{rip6_{number}}}]:80 {method}")
    return " && ".join(lines)


def patient_of(lab: Lab) -> patients.Patient:
    return patients.lab(lab.name)


def typed(lab: Lab, commands: tuple[tuple[str, str], ...]) -> None:
    """Type a scenario's commands; the node `switch` is the lab's, which has no shell of its own."""
    addresses = lab.addresses
    words = {
        "lab": lab.name,
        "vip": addresses.vip,
        "vip6": addresses.vip6,
        "client": addresses.client,
        "interface": addresses.interface,
        "dip": addresses.dip,
        "inside_dip": addresses.inside_dip,
        "inside_router": addresses.inside_router,
        "dip6": addresses.dip6,
        "inside_dip6": addresses.inside_dip6,
        "inside_router6": addresses.inside_router6,
        **{f"rip6_{number}": rip for number, rip in enumerate(addresses.rips6, start=1)},
        **{f"rip{number}": rip for number, rip in enumerate(addresses.rips, start=1)},
    }
    for where, command in commands:
        line = command.format_map(words)
        if where == "switch":
            namespace = lab.record.namespace("switch")
            subprocess.run(["nsenter", f"--net=/run/netns/{namespace}", "sh", "-ec", line], check=True)
        else:
            lab.type(where, line)


def look(lab: Lab, patience: float = PATIENCE) -> tuple[Cluster, list[Finding]]:
    cluster, findings = patient_of(lab).look((), patience)
    return cluster, [finding for finding in findings if finding.severity != NOTE]


def named(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.check, finding.host) for finding in findings}


def state_of(cluster: Cluster, *, empty_tables: bool = True) -> dict[str, object]:
    """All that commands can change on the hosts; what traffic changes by itself left out.

    Without ``empty_tables`` a firewall that has its tables alone counts as one that has none.
    """

    def of(host: Host) -> object:
        table = host.director.own.services
        return (
            sorted(map(repr, host.addresses)),
            sorted(repr(replace(link, xdp="")) for link in host.links),
            sorted(map(repr, host.routes)),
            sorted(repr(each) for each in host.neighbours if "PERMANENT" in each.states),
            host.settings,
            sorted(set(map(repr, host.listeners))),
            [rule for rule in (*host.rules, *host.rules6) if empty_tables or not rule.policy],
            sorted(repr((entry.service, [p.destination for p in entry.destinations])) for entry in table),
            host.director.mark_rules,
            host.director.hooks,
        )

    return {host.name: of(host) for host in cluster.hosts}


def settled(lab: Lab, *hosts: str, empty_tables: bool = True) -> dict[str, object]:
    """The same of a lab at this moment, or of some of its hosts, without asking the network."""
    places = [place for place in patient_of(lab).places if not hosts or place.name in hosts]
    return state_of(examine(places, whole=True, ask=False), empty_tables=empty_tables)


def comes_to_rest(lab: Lab) -> None:
    """Wait until a new lab is the same twice: addresses are probed, and links' routes come late."""
    before = settled(lab)
    for _ in range(20):
        time.sleep(0.5)
        now = settled(lab)
        if now == before:
            return
        before = now
    raise AssertionError(f"{lab.name} does not come to rest")


def settles(lab: Lab, expected: dict[str, object], *, empty_tables: bool = True) -> None:
    """Wait until hosts are as they were: the kernel adds a new link's routes some time after it is up."""
    end = time.monotonic() + 10
    while (now := settled(lab, *expected, empty_tables=empty_tables)) != expected:
        assert time.monotonic() < end, (now, expected)
        time.sleep(0.1)


def mend_all(lab: Lab, findings: list[Finding]) -> tuple[list[Finding], list[mending.Done]]:
    """What `xlvs doctor --fix` does; the findings that are left, and what was done."""
    patient = patient_of(lab)
    mended = []
    for _ in range(mending.ROUNDS):
        if not any(finding.mends for finding in findings):
            break
        for done in mending.mend(findings, patient.journal, patient.run):
            assert not done.error, done
            mended.append(done)
        _, findings = look(lab)
    return findings, mended


def undo_all(lab: Lab) -> None:
    patient = patient_of(lab)
    for done in mending.undo(patient.journal, patient.run):
        assert not done.error, done
    assert patient.journal.read() == []


@pytest.mark.parametrize("topology", ["dr6", "nat6", "tun6"])
def test_a_healthy_lab_is_silent(labs: Callable[[str], Lab], topology: str) -> None:
    """At rest, and after traffic."""
    lab = labs(topology)
    assert look(lab)[1] == []
    lab.ask(6)
    lab.ask(3, f"http://[{lab.addresses.vip6}]/")
    cluster, findings = look(lab)
    assert findings == []
    assert len(cluster.asked) == 2 * len(lab.addresses.rips)
    assert {passage.address.version for passage in cluster.passages.values()} == {4, 6}
    assert {heard.sighting.address.version for heard in cluster.heard} == {4, 6}
    assert all(asked.as_virtual.connected for asked in cluster.asked.values())


LOSES_WHAT_COMES_FIRST = """nft -f - <<'END'
table bridge lossy {{
  set begun {{ type inet_service; size 1024; flags dynamic; }}
  set pinged {{ typeof ip daddr . icmp sequence; size 1024; flags dynamic; }}
  set pinged6 {{ typeof ip6 daddr . icmpv6 sequence; size 1024; flags dynamic; }}
  chain passing {{
    type filter hook forward priority 0;
    tcp flags & (syn | ack) == syn tcp sport != @begun add @begun {{ tcp sport }} drop
    icmp type echo-request ip daddr . icmp sequence != @pinged
      add @pinged {{ ip daddr . icmp sequence }} drop
    icmpv6 type echo-request ip6 daddr . icmpv6 sequence != @pinged6
      add @pinged6 {{ ip6 daddr . icmpv6 sequence }} drop
  }}
}}
END"""


def test_a_lost_packet_is_no_finding(labs: Callable[[str], Lab]) -> None:
    """The network loses the first SYN of each connection, and each ping once; what is sent again arrives."""
    lab = labs("dr6")
    typed(lab, (("switch", LOSES_WHAT_COMES_FIRST),))
    try:
        cluster, findings = look(lab, probe.PATIENCE)
        listing = ["nft", "-j", "list", "table", "bridge", "lossy"]
        with network_namespace(namespaces.path(lab.record.namespace("switch"))):
            listed = subprocess.run(listing, capture_output=True, check=True).stdout
    finally:
        typed(lab, (("switch", "nft delete table bridge lossy"),))
    assert findings == []
    lost = {
        each["set"]["name"]: each["set"]["elem"] for each in json.loads(listed)["nftables"] if "set" in each
    }
    servers = len(lab.addresses.rips)
    assert len(lost["begun"]) == 2 * len(cluster.asked) == 4 * servers
    assert len(lost["pinged"]) == len(lost["pinged6"]) == 2 * servers


def test_asking_leaves_no_trace_in_the_table(labs: Callable[[str], Lab]) -> None:
    lab = labs("dr")
    before = lab.type("director", "ipvsadm -Ln --stats; ipvsadm -Lcn | grep -c TCP; true")
    assert look(lab)[1] == []
    assert lab.type("director", "ipvsadm -Ln --stats; ipvsadm -Lcn | grep -c TCP; true") == before


def test_services_of_every_kind_are_in_order(labs: Callable[[str], Lab]) -> None:
    """IPv6 is asked as well; UDP, a firewall mark and the director itself cannot be, and are no finding."""
    lab = labs("dr")
    adds = (
        "ipvsadm -A -t [{vip6}]:80 -s wlc && ipvsadm -a -t [{vip6}]:80 -r [{rip6_1}]:80 -g",
        "ipvsadm -A -u {vip}:53 -s rr && ipvsadm -a -u {vip}:53 -r {rip1} -g",
        "xlvs mark add 3 --dst {vip} --proto tcp --port 443",
        "ipvsadm -A -f 3 -s rr && ipvsadm -a -f 3 -r {rip2} -g",
        "ipvsadm -a -t {vip}:80 -r 127.0.0.1 -g",
    )
    removes = (
        "ipvsadm -D -t [{vip6}]:80; ipvsadm -D -u {vip}:53; ipvsadm -D -f 3; xlvs mark clear",
        "ipvsadm -d -t {vip}:80 -r 127.0.0.1",
    )
    try:
        typed(lab, tuple(("director", each) for each in adds))
        cluster, findings = look(lab)
        assert findings == []
        assert len(cluster.asked) == 4
        typed(lab, (("rs1", "ip addr del {vip6}/128 dev lo"),))
        assert named(look(lab)[1]) == {("vip-missing-on-real-server", "rs1")}
        typed(lab, (("rs1", "ip addr add {vip6}/128 dev lo nodad preferred_lft 0"),))
    finally:
        typed(lab, tuple(("director", each) for each in removes))


@pytest.mark.parametrize(("check", "scenario"), SCENARIOS)
def test_a_broken_lab(labs: Callable[[str], Lab], check: Check, scenario: Scenario) -> None:
    """Found and nothing else, mended, and taken back to exactly what was."""
    lab = labs(scenario.lab)
    touched = {where for where, _ in scenario.breaks} - {"switch"}
    healthy = settled(lab, *touched, empty_tables=False)
    try:
        typed(lab, scenario.breaks)
        cluster, findings = look(lab)
        broken = state_of(cluster)
        assert named(findings) == {(check.name, host) for host in scenario.hosts}
        assert all(finding.evidence and finding.effect for finding in findings)
        if scenario.mended:
            left, mended = mend_all(lab, findings)
            assert left == []
            undo_all(lab)
            changed = touched | {each.mend.host for each in mended}
            settles(lab, {host: broken[host] for host in changed})
        else:
            assert all(finding.advice and not finding.mends for finding in findings)
    finally:
        undo_all(lab)
        typed(lab, scenario.restores)
    settles(lab, healthy, empty_tables=False)


SEVERAL = {
    "dr": (
        (
            ("rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.lo.arp_ignore=0"),
            ("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.lo.arp_announce=1"),
            ("rs2", "ip addr del {vip}/32 dev lo && iptables -A INPUT -p tcp --dport 80 -j DROP"),
            ("rs3", "nginx -s stop && ip addr del {vip}/32 dev lo && ip addr add {vip}/24 dev lo"),
            ("director", "ip addr del {vip}/32 dev {interface}"),
            ("client", "ip neigh replace {vip} lladdr 02:00:00:00:00:99 dev {interface} nud permanent"),
        ),
        (
            ("rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.lo.arp_ignore=1"),
            ("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.lo.arp_announce=2"),
            ("rs2", "ip addr add {vip}/32 dev lo && iptables -D INPUT -p tcp --dport 80 -j DROP"),
            ("rs3", "nginx && ip addr del {vip}/24 dev lo && ip addr add {vip}/32 dev lo"),
            ("director", "ip addr add {vip}/32 dev {interface}"),
            ("client", "ip neigh del {vip} dev {interface}"),
        ),
        {
            ("arp-answers", "rs1"), ("arp-announce", "rs1"), ("vip-missing-on-real-server", "rs2"),
            ("firewall", "rs2"), ("vip-netmask", "rs3"), ("server-down", "director"),
            ("vip-missing-on-director", "director"),
        },
    ),
    "nat": (
        (
            ("rs1", "ip route replace default via {rip2}"),
            ("rs2", "ip route replace {client}/32 dev {interface} && iptables -P INPUT DROP"),
        ),
        (
            ("rs1", "ip route replace default via {inside_dip}"),
            ("rs2", "ip route del {client}/32 dev {interface} && iptables -P INPUT ACCEPT"),
        ),
        {
            ("default-gateway", "rs1"), ("client-on-subnet", "rs2"), ("firewall", "rs2"),
            ("firewall-icmp", "rs2"),
        },
    ),
    "tun": (
        (
            ("rs1", "ip link set tunl0 down && sysctl -w net.ipv4.conf.all.rp_filter=1"),
            ("rs2", "ip addr del {vip}/32 dev tunl0 && ip link set {interface} mtu 1280"),
        ),
        (
            ("rs1", "ip link set tunl0 up && ip addr add {vip6}/128 dev tunl0 nodad preferred_lft 0"),
            ("rs1", "sysctl -w net.ipv4.conf.all.rp_filter=0"),
            ("rs2", "ip addr add {vip}/32 dev tunl0 && ip link set {interface} mtu 1500"),
        ),
        {("tunnel-device", "rs1"), ("vip-missing-on-real-server", "rs2"), ("path-mtu", "rs2")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("topology", SEVERAL)
def test_several_mistakes_at_once(labs: Callable[[str], Lab], topology: str) -> None:
    """Each is named, also those that others hide at first; all are mended, and all undone."""
    lab = labs(topology)
    breaks, restores, wanted = SEVERAL[topology]
    healthy = settled(lab, empty_tables=False)
    try:
        typed(lab, breaks)
        cluster, findings = look(lab)
        assert named(findings) == wanted
        assert mend_all(lab, findings)[0] == []
        lab.ask(4)
        undo_all(lab)
        again, findings = look(lab)
        assert state_of(again) == state_of(cluster)
        assert named(findings) == wanted
    finally:
        undo_all(lab)
        typed(lab, restores)
    cluster, findings = look(lab)
    assert findings == []
    assert state_of(cluster, empty_tables=False) == healthy


def test_a_director_with_two_uplinks(labs: Callable[[str], Lab]) -> None:
    """What leaves as the VIP goes by a rule of its own; what goes to real servers as the VIP does not."""
    lab = labs("nat")
    typed(lab, (("director", "ip route add default dev {interface} table 77"),))
    try:
        typed(lab, (("director", "ip rule add from {vip} lookup 77"),))
        try:
            assert "Healthy" in lab.type("director", f"xlvs doctor {QUICK}")
        finally:
            typed(lab, (("director", "ip rule del from {vip} lookup 77"),))
    finally:
        typed(lab, (("director", "ip route del default table 77"),))


def test_vips_that_are_the_directors_by_a_route(labs: Callable[[str], Lab]) -> None:
    """A whole prefix is served that is on no interface (AnyIP)."""
    lab = labs("nat6")
    typed(lab, (("director", "ip -6 route add local 2001:db8:5::/64 dev lo"),))
    try:
        typed(lab, (("director", "ipvsadm -A -t [2001:db8:5::7]:80 -s rr"),))
        try:
            typed(lab, (("director", "ipvsadm -a -t [2001:db8:5::7]:80 -r {rip6_1} -m"),))
            assert "Healthy" in lab.type("director", f"xlvs doctor {QUICK}")
        finally:
            typed(lab, (("director", "ipvsadm -D -t [2001:db8:5::7]:80"),))
    finally:
        typed(lab, (("director", "ip -6 route del local 2001:db8:5::/64 dev lo"),))


def test_the_command(labs: Callable[[str], Lab]) -> None:
    """Exit codes, JSON, --fix and --undo, in a lab and on its hosts alone."""
    assert f"default: {probe.PATIENCE:g}," in xlvs("doctor", "--help").stdout
    lab = labs("dr")
    assert "Healthy" in xlvs("doctor", "--lab", lab.name, QUICK).stdout
    assert "Healthy" in lab.type("director", f"xlvs doctor {QUICK}")
    assert "Healthy" in lab.type("rs2", f"xlvs doctor {QUICK}")
    assert "neither a director nor a real server" in lab.type("client", "xlvs doctor", code=2)
    assert xlvs("doctor", "--lab", "no-such-lab", code=2).stderr
    assert xlvs("doctor", "--skip", "no-such-check", code=2).stderr
    gone = ("rs2", "ip addr del {vip}/32 dev lo"), ("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=0")
    typed(lab, (*gone, ("rs1", "sysctl -w net.ipv4.conf.lo.arp_announce=0")))
    try:
        report = json.loads(xlvs("doctor", "--lab", lab.name, QUICK, "--json", code=1).stdout)
        assert {(each["check"], each["host"]) for each in report["findings"]} == {
            ("arp-announce", "rs1"),
            ("vip-missing-on-real-server", "rs2"),
        }
        assert report["asked"] == 3 and report["mended"] == []
        # From the director alone the same is seen, and what to do there is advice.
        report = json.loads(lab.type("director", f"xlvs doctor {QUICK} --json", code=1))
        (finding,) = report["findings"]
        assert (finding["check"], finding["host"]) == ("vip-missing-on-real-server", lab.addresses.rips[1])
        assert not finding["mends"] and "xlvs realserver add" in finding["advice"]
        # On the real server alone its own settings are, and mended.
        assert "arp-announce" in lab.type("rs1", f"xlvs doctor {QUICK}", code=1)
        assert "Healthy" in lab.type("rs1", f"xlvs doctor {QUICK} --fix")
        assert "arp_announce=0" in lab.type("rs1", "xlvs doctor --undo")
        report = json.loads(xlvs("doctor", "--lab", lab.name, QUICK, "--fix", "--json").stdout)
        assert report["findings"] == [] and len(report["mended"]) == 2
        undone = json.loads(xlvs("doctor", "--lab", lab.name, "--undo", "--json").stdout)["undone"]
        assert [each["undo"] for each in undone] == [each["undo"] for each in reversed(report["mended"])]
        assert "nothing" in xlvs("doctor", "--lab", lab.name, "--undo").stdout
        xlvs("doctor", "--lab", lab.name, QUICK, code=1)
    finally:
        typed(lab, (("rs2", "ip addr replace {vip}/32 dev lo"),))
        typed(lab, (("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.lo.arp_announce=2"),))
    xlvs("doctor", "--lab", lab.name, QUICK)


def test_a_real_server_by_itself_is_held_to_what_was_set_up(labs: Callable[[str], Lab]) -> None:
    """What `xlvs realserver` remembers counts where nobody else can be asked; the director asks for it."""
    lab = labs("dr6")

    def seen_by(name: str) -> list[Finding]:
        places = [place for place in patient_of(lab).places if place.name == name]
        found = judge(examine(places, whole=False, patience=PATIENCE))
        return [finding for finding in found if finding.severity != NOTE]

    assert seen_by("rs2") == seen_by("director") == []
    try:
        typed(
            lab, (("rs2", "ip addr del {vip6}/128 dev lo && ip addr add {vip6}/128 dev {interface} nodad"),)
        )
        findings = seen_by("rs2")
        assert named(findings) == {("set-up", "rs2")}
        assert all(finding.evidence and finding.advice and not finding.mends for finding in findings)
        assert named(seen_by("director")) == {("arp-answers", lab.addresses.rips6[1])}
    finally:
        typed(lab, (("rs2", "ip addr del {vip6}/128 dev {interface}"),))
        typed(lab, (("rs2", "ip addr add {vip6}/128 dev lo nodad preferred_lft 0"),))
    assert seen_by("rs2") == []


def test_the_probe_goes_with_its_process(labs: Callable[[str], Lab]) -> None:
    """Also when that is killed."""
    lab = labs("dr")
    holding = (
        "import sys, time\n"
        "from xlvs.doctor.probe import Prober\n"
        "from xlvs.kernel import bpf\n"
        "prober = Prober()\n"
        "prober.prepare('eth0')\n"
        "print(bpf.program_id(prober._object.program('xlvs_probe_out')), flush=True)\n"
        "time.sleep(60)\n"
    )
    with node.popen(
        lab.record, "director", [sys.executable, "-c", holding], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        number = process.stdout.readline().strip()
        shown = ["bpftool", "prog", "show", "id", number]
        assert subprocess.run(shown, capture_output=True, check=False).returncode == 0
        process.kill()
        process.wait()
    eventually(
        lambda: subprocess.run(shown, capture_output=True, check=False).returncode != 0,
        "the program of a killed process is gone",
    )
