# SPDX-License-Identifier: GPL-2.0-only
"""INPUT rules of the director no longer apply to the VIP.

Packets for a virtual service leave the director before its netfilter rules see
them.  A rule that keeps somebody from the service (a blocked network, a
limit) has no effect there; real servers see the clients' addresses, so it works on them.
`xlvsadm -A` says so, too, when it is typed at a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import WARNING, Finding
from xlvs.doctor.firewall import keeps_out
from xlvs.doctor.host import Host
from xlvs.doctor.rule import Rule

RANK = 57
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", "iptables -A INPUT -s 198.51.100.0/24 -p tcp --dport 80 -j DROP"),),
        restores=(("director", "iptables -D INPUT -s 198.51.100.0/24 -p tcp --dport 80 -j DROP"),),
        hosts=("director",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for rules that would drop a client's packets, and are on no real server."""
    for director in cluster.directors:
        own = [served for served in cluster.served()
               if served.director is director and served.table.command == "xlvsadm"]  # fmt: skip
        for rule in (*director.rules, *director.rules6):
            those = [served for served in own if _is_meant(rule, served)]
            if not those:
                continue
            hosts = {each.host.name: each.host for each in those if each.host is not None}
            lacking = [host for host in hosts.values() if not _has(host, rule)]
            if hosts and not lacking:
                continue
            yield _finding(director, rule, those[0], lacking)


def _is_meant(rule: Rule, served: Served) -> bool:
    virtual, key = served.virtual, served.service.key
    if virtual is None or not rule.may_see(virtual.version):
        return False
    return keeps_out(rule, model.PROTOCOL_NAMES.get(key.protocol, "").lower(), virtual, key.port)


def _without_destination(rule: Rule) -> str:
    """The rule as it makes sense on a real server: NAT's have another destination, and interfaces differ."""
    words = list(rule.words)
    for option in ("-d", "-i"):
        if option in words:
            place = words.index(option)
            del words[place : place + 2]
    return " ".join(words)


def _has(host: Host, rule: Rule) -> bool:
    wanted = _without_destination(rule)
    return any(
        each.chain == "INPUT" and _without_destination(each) == wanted
        for each in (*host.rules, *host.rules6)
        if each.program.startswith("ip6") == rule.program.startswith("ip6")
    )


def _finding(director: Host, rule: Rule, served: Served, lacking: list[Host]) -> Finding:
    text = _without_destination(rule)
    commands = tuple(
        mends.add_rule(host, rule.program, "filter", "-I", f"INPUT {text}")
        for host in lacking
        if not rule.place
    )
    remedy = f"nft add rule {rule.shown}" if rule.place else f"{rule.program} -I INPUT {text}"
    return Finding(
        director.name,
        f"a rule of {director.name}'s INPUT no longer applies to the VIP {served.virtual}",
        (str(rule), "packets for virtual services leave before netfilter sees them"),
        "Clients that the rule is to keep away are served.",
        commands,
        "" if commands else f"put it on each real server, which sees clients' addresses: {remedy}",
        severity=WARNING,
    )
