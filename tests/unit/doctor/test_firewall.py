# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of a packet by the rules that iptables-save prints."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.doctor.firewall import Packet, fate
from xlvs.doctor.ruleset import parse

VIP = IPv4Address("192.0.2.100")
TO_VIP = Packet("tcp", VIP, 80)
ANSWER = Packet("tcp", None, source=VIP, source_port=80, state="ESTABLISHED")
ERROR = Packet("icmp", VIP, icmp="3/4")


def dropped(rules: str, packet: Packet = TO_VIP, chain: str = "INPUT") -> bool:
    saved = f"*filter\n:INPUT ACCEPT [0:0]\n:own - [0:0]\n{rules}\nCOMMIT\n"
    return fate(parse(saved, "iptables"), chain, packet) is not None


@pytest.mark.parametrize(
    ("rules", "is_dropped"),
    [
        ("-A INPUT -j DROP", True),
        ("-A INPUT -d 192.0.2.100/32 -j DROP", True),
        ("-A INPUT -d 192.0.2.101/32 -j DROP", False),
        ("-A INPUT ! -d 192.0.2.101/32 -j REJECT --reject-with icmp-port-unreachable", True),
        ("-A INPUT -p tcp -m tcp --dport 80 -j DROP", True),
        ("-A INPUT -p tcp -m tcp --dport 79:81 -j DROP", True),
        ("-A INPUT -p tcp -m multiport --dports 22,80 -j DROP", True),
        ("-A INPUT -p udp -m udp --dport 80 -j DROP", False),
        ("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -j DROP", False),
        ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -j DROP", True),
        ("-A INPUT -m conntrack --ctstate NEW -j ACCEPT\n-A INPUT -j DROP", False),
        ("-A INPUT -j own\n-A own -p tcp -j DROP", True),
        ("-A INPUT -j own\n-A own -p tcp -j RETURN\n-A own -j DROP", False),
        ("-A INPUT -j LOG\n-A INPUT -j DROP", True),
        ("-A INPUT -i lo -j ACCEPT\n-A INPUT -j DROP", True),
        # Nobody can say, so nothing is said.
        ("-A INPUT -m limit --limit 3/sec -j DROP", False),
        ("-A INPUT -m set --match-set good src -j ACCEPT\n-A INPUT -j DROP", False),
        ("-A INPUT -s 198.51.100.0/24 -j DROP", False),
        ("-A INPUT -i eth7 -j DROP", False),
        ("-A INPUT -d 192.0.0.100/255.0.255.0 -j DROP", False),
    ],
)
def test_a_new_connection(rules: str, is_dropped: bool) -> None:
    assert dropped(rules) == is_dropped


def test_a_policy_is_the_last_rule() -> None:
    rules = parse("*filter\n:INPUT DROP [0:0]\n-A INPUT -p udp -j ACCEPT\n", "iptables")
    decided = fate(rules, "INPUT", TO_VIP)
    assert decided is not None and decided.rule.policy
    assert str(decided) == "INPUT: iptables -t filter -P INPUT DROP"


def test_answers_and_errors() -> None:
    assert dropped("-A OUTPUT -s 192.0.2.100/32 -p tcp -m tcp --sport 80 -j DROP", ANSWER, "OUTPUT")
    assert not dropped("-A OUTPUT -s 192.0.2.101/32 -j DROP", ANSWER, "OUTPUT")
    assert not dropped("-A OUTPUT -d 198.51.100.0/24 -j DROP", ANSWER, "OUTPUT")
    assert dropped("-A INPUT -p icmp -m icmp --icmp-type 3 -j DROP", ERROR)
    assert dropped("-A INPUT -p icmp -m icmp --icmp-type 3/4 -j DROP", ERROR)
    assert not dropped("-A INPUT -p icmp -m icmp --icmp-type 8 -j DROP", ERROR)
    assert not dropped("-A INPUT -m conntrack --ctstate RELATED -j ACCEPT\n-A INPUT -j DROP", ERROR)


def test_two_kinds_of_iptables_are_two_firewalls() -> None:
    rules = parse("*filter\n-A INPUT -j ACCEPT\n", "iptables-nft")
    rules += parse("*filter\n-A INPUT -j DROP\n", "iptables-legacy")
    decided = fate(rules, "INPUT", TO_VIP)
    assert decided is not None and decided.rule.program == "iptables-legacy"


def test_every_table_on_the_way_is_asked() -> None:
    for chain, way, wanted in (
        ("raw", "PREROUTING", {"INPUT", "FORWARD"}),
        ("mangle", "POSTROUTING", {"OUTPUT", "FORWARD"}),
        ("nat", "PREROUTING", set()),
    ):
        rules = parse(f"*{chain}\n-A {way} -j DROP\n", "iptables")
        found = {hook for hook in ("INPUT", "FORWARD", "OUTPUT") if fate(rules, hook, TO_VIP)}
        assert found == wanted
        assert all(drop is None or drop.hook == way for drop in [fate(rules, "INPUT", TO_VIP)])


def test_interfaces_that_are_known() -> None:
    rules = parse("*filter\n-A INPUT -i tunl0 -j DROP\n-A FORWARD -i eth0 -o eth1 -j DROP\n", "iptables")
    assert fate(rules, "INPUT", Packet("tcp", VIP, 80, interface="tunl0"))
    assert not fate(rules, "INPUT", Packet("tcp", VIP, 80, interface="eth0"))
    assert fate(rules, "FORWARD", Packet("tcp", VIP, 80, interface="eth0", leaves_by="eth1"))
    assert not fate(rules, "FORWARD", Packet("tcp", VIP, 80, interface="eth1", leaves_by="eth0"))


def test_what_is_unknown_matters_only_where_nothing_else_says_no() -> None:
    """An answer, whose destination nobody knows, is not let pass by a rule for packets to a port."""
    rules = parse("*filter\n:INPUT DROP [0:0]\n-A INPUT -d 192.0.2.9/32 -p udp -j ACCEPT\n", "iptables")
    assert fate(rules, "INPUT", ANSWER)
    rules = parse("*filter\n:INPUT DROP [0:0]\n-A INPUT -d 192.0.2.9/32 -p tcp -j ACCEPT\n", "iptables")
    assert not fate(rules, "INPUT", ANSWER)


def test_neighbour_discovery_is_of_no_connection() -> None:
    question = Packet("icmpv6", ip_address("ff02::1:ff00:100"), icmp="135", state="UNTRACKED")
    established = "-A INPUT -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT\n"
    solicited = "-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT\n"
    for rules, drops in ((established, True), (solicited, False)):
        parsed = parse(f"*filter\n:INPUT DROP [0:0]\n{rules}", "ip6tables")
        assert (fate(parsed, "INPUT", question) is not None) == drops


@given(st.text(alphabet="-AINPUTdjsp! :/.0123456789DROPtcpm\n*filter\"'", max_size=200))
def test_any_text_is_rules_or_is_refused(text: str) -> None:
    try:
        rules = parse(f"*filter\n{text}", "iptables")
    except ValueError:
        return  # a quotation without an end
    fate(rules, "INPUT", TO_VIP)
