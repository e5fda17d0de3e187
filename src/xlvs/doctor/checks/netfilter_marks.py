# SPDX-License-Identifier: GPL-2.0-only
"""A firewall mark is given by netfilter, where xlvs does not see it.

The packet path sees a packet before iptables and nftables do, so a service of
`-f MARK` whose mark is given by a rule of the mangle table never gets a
packet.  `xlvs mark` has rules of its own for that; the doctor prints the
equivalent of each rule that it understands.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Host
from xlvs.doctor.rule import Rule

RANK = 58
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(
            ("director", "ipvsadm -A -f 7 -s rr"),
            ("director", "ipvsadm -a -f 7 -r {rip1} -g"),
            (
                "director",
                "iptables -t mangle -A PREROUTING -d {vip} -p tcp -m multiport --dports 8080,8443 "
                "-j MARK --set-mark 7",
            ),
        ),
        restores=(
            ("director", "ipvsadm -D -f 7"),
            ("director", "iptables -t mangle -F PREROUTING"),
        ),
        hosts=("director",),
    ),
    Scenario(
        "dr",
        breaks=(
            ("director", "ipvsadm -A -f 8 -s rr"),
            ("director", "ipvsadm -a -f 8 -r {rip1} -g"),
            (
                "director",
                "nft 'add table inet marks; "
                "add chain inet marks pre {{ type filter hook prerouting priority mangle; }}; "
                "add rule inet marks pre ip daddr {vip} tcp dport {{ 8080, 8443 }} meta mark set 8'",
            ),
        ),
        restores=(("director", "ipvsadm -D -f 8"), ("director", "nft delete table inet marks")),
        hosts=("director",),
    ),
    Scenario(
        "dr6",
        breaks=(
            ("director", "ipvsadm -A -f 9 -6 -s rr"),
            ("director", "ipvsadm -a -f 9 -6 -r [{rip6_1}]:0 -g"),
            (
                "director",
                "ip6tables -t mangle -A PREROUTING -d {vip6} -p tcp --dport 443 -j MARK --set-mark 9",
            ),
        ),
        restores=(("director", "ipvsadm -D -f 9 -6"), ("director", "ip6tables -t mangle -F PREROUTING")),
        hosts=("director",),
    ),
)

_WORDS = {
    "-d": "--dst", "-s": "--src", "-p": "--proto", "--dport": "--port", "--dports": "--port",
    "--sport": "--source-port", "--sports": "--source-port",
}  # fmt: skip
_SILENT = ("tcp", "udp", "sctp", "multiport")


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for marks of services that netfilter gives, and `xlvs mark` does not."""
    for director in cluster.directors:
        wanted = {entry.service.key.fwmark for entry in director.director.own.services}
        given = {rule.mark for rule in director.director.mark_rules}
        for rule in dict.fromkeys((*director.rules, *director.rules6)):
            mark = _mark(rule)
            if mark and mark in wanted - given:
                yield _finding(director.name, rule, mark)


def given_by_netfilter(host: Host) -> set[int]:
    """The marks that netfilter gives to what comes in."""
    return {_mark(rule) for rule in (*host.rules, *host.rules6)} - {0}


def _mark(rule: Rule) -> int:
    """The mark that a rule gives packets that come in; 0 for any other rule."""
    if rule.mark and rule.chain not in ("FORWARD", "OUTPUT", "POSTROUTING"):
        return rule.mark
    if rule.table != "mangle" or rule.target != "MARK" or rule.chain not in ("PREROUTING", "INPUT"):
        return 0
    for option in ("--set-mark", "--set-xmark"):
        if option in rule.words:
            value = rule.words[rule.words.index(option) + 1].partition("/")[0]
            return int(value, 0)
    return 0


def equivalent(rule: Rule, mark: int) -> str:
    """The `xlvs mark add` for a rule; empty where it says what `xlvs mark` cannot."""
    words = list(rule.matches)
    found = [f"xlvs mark add {mark}"]
    while words:
        word = words.pop(0)
        if (word == "-m" and words and words[0] in _SILENT) or (word == "--family" and words):
            words.pop(0)
        elif word in _WORDS and words:
            value = words.pop(0)
            found.append(f"{_WORDS[word]} {value.replace(':', '-') if 'port' in word else value}")
        else:
            return ""
    if not any(part.startswith("--dst ") for part in found):
        found.insert(1, "--dst 0.0.0.0/0" if rule.may_see(4) else "--dst ::/0")
    return " ".join(found)


def _finding(director: str, rule: Rule, mark: int) -> Finding:
    typed = equivalent(rule, mark)
    commands = (
        (Mend(director, typed, typed.replace("xlvs mark add", "xlvs mark delete", 1)),) if typed else ()
    )
    return Finding(
        director,
        f"the mark {mark} of the service -f {mark} is given by netfilter, where xlvs does not see it",
        (str(rule), f"xlvs mark list: no rule gives {mark}"),
        "The service never gets a packet: clients reach what listens on the director, or nothing.",
        commands,
        "" if commands else f"say the same with: xlvs mark add {mark} --dst …",
    )
