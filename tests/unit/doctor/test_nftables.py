# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of a packet by rules that nft has made, as nft itself prints them."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Address, ip_address

import pytest

from xlvs.doctor import nftables, ruleset
from xlvs.doctor.checks import judge
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import NOTE
from xlvs.doctor.firewall import Drop, Packet, covers, fate
from xlvs.doctor.host import Host
from xlvs.doctor.mends import accept_in_front
from xlvs.doctor.rule import Rule

VIP = IPv4Address("192.0.2.100")
TO_VIP = Packet("tcp", VIP, 80, source=IPv4Address("198.51.100.1"))
ANSWER = Packet("tcp", None, source=VIP, source_port=80, state="ESTABLISHED")
FRAGMENTATION_NEEDED = Packet("icmp", VIP, icmp="3/4")
VRRP = Packet("vrrp", IPv4Address("224.0.0.18"))
VIP6 = ip_address("2001:db8::100")
TO_VIP6 = Packet("tcp", VIP6, 80)
PACKET_TOO_BIG = Packet("icmpv6", VIP6, icmp="2")
SOLICITATION = Packet("icmpv6", ip_address("ff02::1:ff00:100"), icmp="135", state="UNTRACKED")
OWN = frozenset({(ruleset.INET, "fw")})


def in_a_namespace(script: str) -> str:
    """What a shell prints in a network namespace of its own."""
    ran = subprocess.run(
        ["unshare", "--net", "sh", "-ec", script], capture_output=True, text=True, check=True, timeout=20
    )
    return ran.stdout


def rules_of(chain: str, *, more: str = "", hook: str = "input", family: str = "inet") -> tuple[Rule, ...]:
    """A table with one base chain, read back from the kernel by nft."""
    assert shutil.which("nft"), "apt-get install nftables"
    table = f"table {family} fw {{ {more}\nchain base {{ type filter hook {hook} priority 0; {chain}\n}}\n}}"
    printed = in_a_namespace(f"nft -f - <<'E'\n{table}\nE\nnft -j list ruleset; echo; nft -a list ruleset")
    ruleset, _, listing = printed.partition("\n")
    return nftables.parse(ruleset, listing)


@pytest.mark.parametrize(
    ("rules", "packet", "is_dropped"),
    [
        ("drop", TO_VIP, True),
        ("policy drop;", TO_VIP, True),
        ("policy drop; tcp dport { 22, 79-81 } accept", TO_VIP, False),
        ("policy drop; ct state established,related accept", TO_VIP, True),
        ("policy drop; ct state established,related accept", FRAGMENTATION_NEEDED, False),
        ("policy drop; ct state new accept", TO_VIP, False),
        ("policy drop; ip daddr != 192.0.2.100 accept", TO_VIP, True),
        ("policy drop; meta l4proto { tcp, udp } th dport 80 accept", TO_VIP, False),
        ("ip daddr 192.0.2.100 drop", TO_VIP, True),
        ("ip daddr 192.0.2.101 drop", TO_VIP, False),
        ("ip daddr { 192.0.2.0/24, 203.0.113.1 } counter log reject", TO_VIP, True),
        ("ip saddr 192.0.2.100 tcp sport 80 drop", ANSWER, True),
        ("udp dport 80 drop", TO_VIP, False),
        ("ip protocol 112 drop", VRRP, True),
        ("meta l4proto vrrp drop", VRRP, True),
        ("icmp type destination-unreachable drop", FRAGMENTATION_NEEDED, True),
        ("icmp type destination-unreachable icmp code frag-needed drop", FRAGMENTATION_NEEDED, True),
        ("icmp type echo-request drop", FRAGMENTATION_NEEDED, False),
        ("meta nfproto ipv6 drop", TO_VIP, False),
        ("meta nfproto ipv6 drop", TO_VIP6, True),
        ("ip6 daddr 2001:db8::/32 drop", TO_VIP6, True),
        ("icmpv6 type packet-too-big drop", PACKET_TOO_BIG, True),
        ("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } drop", SOLICITATION, True),
        ("icmpv6 type echo-request drop", SOLICITATION, False),
        ("policy drop; ct state new,established,related accept", SOLICITATION, True),
        ("ip daddr != 192.0.2.1 drop", TO_VIP6, False),
        # Nobody can say, so nothing is said.
        ("meta mark 3 drop", TO_VIP, False),
        ("tcp flags syn drop", TO_VIP, False),
        ("limit rate 3/second drop", TO_VIP, False),
        ("policy drop; meta mark 3 accept", TO_VIP, False),
        ("policy drop; tcp dport vmap { 80 : accept }", TO_VIP, False),
    ],
)
def test_a_packet(rules: str, packet: Packet, is_dropped: bool) -> None:
    assert (fate(rules_of(rules), "INPUT", packet) is not None) == is_dropped


def test_chains_and_sets() -> None:
    more = (
        "set bad { type ipv4_addr; elements = { 198.51.100.1 } }\nchain own { ip saddr @bad drop; return; }"
    )
    decided = fate(rules_of("policy accept; jump own; accept", more=more), "INPUT", TO_VIP)
    assert decided is not None and str(decided) == "INPUT: nft: inet fw own ip saddr @bad drop"
    changing = "set bad { type ipv4_addr; flags dynamic; }"
    assert fate(rules_of("ip saddr @bad drop", more=changing), "INPUT", TO_VIP) is None


def test_each_base_chain_may_drop() -> None:
    """An accept of one ends that one alone."""
    more = "chain first { type filter hook input priority -5; accept; }"
    assert fate(rules_of("drop", more=more), "INPUT", TO_VIP) is not None
    assert fate(rules_of("drop", hook="forward"), "INPUT", TO_VIP) is None
    assert fate(rules_of("drop", hook="forward"), "FORWARD", TO_VIP) is not None
    assert fate(rules_of("drop", family="ip6"), "INPUT", TO_VIP) is None
    assert fate(rules_of("policy drop;", family="ip"), "INPUT", TO_VIP6) is None
    assert fate(rules_of("drop", hook="prerouting"), "INPUT", TO_VIP) is not None
    assert fate(rules_of("drop", hook="postrouting"), "INPUT", TO_VIP) is None


def test_what_is_not_understood_is_a_note() -> None:
    host = Host("rs1", rules=rules_of("policy drop; meta mark 3 accept; ip daddr 192.0.2.9 drop"))
    (finding,) = judge(Cluster((host,)))
    assert (finding.check, finding.severity) == ("firewall-unread", NOTE)
    assert finding.evidence == ("nft: inet fw base meta mark 0x00000003 accept",)
    assert judge(Cluster((Host("rs1", rules=rules_of("ip daddr 192.0.2.9 drop")),))) == []


def _printing(text: str) -> ruleset.Run:
    return lambda _command: text


def test_a_document_that_is_none() -> None:
    for text in ("", "{", "[]", "{}", '{"nftables": 3}', '{"nftables": [{"chain": {}}]}'):
        assert ruleset.observe_nft(_printing(text), OWN, ()) == ()
    assert ruleset.observe_nft(lambda _command: None, OWN, ()) == ()


def test_rules_of_iptables_are_not_asked_twice() -> None:
    there = frozenset({(ruleset.IPV4, "filter")})
    (policy,) = ruleset.parse("*filter\n:INPUT DROP [0:0]\n", "iptables-nft")
    asked: list[list[str]] = []

    def run(command: list[str]) -> str:
        asked.append(command)
        return ""

    assert ruleset.observe_nft(run, there, (policy,)) == () and asked == []
    ruleset.observe_nft(run, there, ())
    assert asked


def test_mends_of_nft_leave_nothing_behind() -> None:
    """In front of the rule that drops; the way back finds the rule by its comment."""
    ruleset = "table inet fw { chain base { type filter hook input priority 0; policy drop; }; }"
    (policy,) = rules_of("policy drop;")
    mends = [
        accept_in_front("rs1", Drop(policy, "INPUT"), matches)
        for matches in (
            (("-d", str(VIP)), ("-p", "tcp"), ("--dport", "80")),
            (("-p", "icmp"), ("--icmp-type", "fragmentation-needed")),
            (("-p", "112"),),
            (("-d", str(VIP6)), ("-p", "tcp"), ("--dport", "80")),
            (("-p", "ipv6-icmp"), ("--icmpv6-type", "packet-too-big")),
            (("-p", "ipv6-icmp"), ("--icmpv6-type", "neighbour-solicitation")),
        )
    ]
    script = [f"nft '{ruleset}'", "nft list ruleset", "echo ===", *(mend.command for mend in mends)]
    script += ["nft -j list ruleset", "echo ===", *(mend.undo for mend in mends), "nft list ruleset"]
    before, mended, after = in_a_namespace("\n".join(script)).split("===\n")
    rules = nftables.parse(mended)
    packets = (TO_VIP, FRAGMENTATION_NEEDED, VRRP, TO_VIP6, PACKET_TOO_BIG, SOLICITATION)
    assert all(fate(rules, "INPUT", packet) is None for packet in packets)
    assert fate(rules, "INPUT", Packet("tcp", VIP, 81)) is not None
    assert after == before


def test_words_are_those_of_iptables() -> None:
    (rule, _) = rules_of('iifname "eth*" udp dport 53 drop')
    assert covers(rule, Packet("udp", VIP, 53, interface="eth3")) is True
    assert covers(rule, Packet("udp", VIP, 53, interface="lo")) is False
