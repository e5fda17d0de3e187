# SPDX-License-Identifier: GPL-2.0-only
"""Nothing gives the firewall mark of a service.

A service of `-f MARK` takes what has that mark, and packets have none of
themselves.  Marks are given by `xlvs mark`, to IPv4 and IPv6 each by rules of its own, or by
an eBPF program in front of the packet path, of which the doctor cannot know.  (What kernel
IPVS serves is marked by netfilter, and not looked at.)
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.checks.netfilter_marks import given_by_netfilter
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding

RANK = 59
SCENARIOS = (
    Scenario(
        "dr6",
        breaks=(
            ("director", "xlvs mark add 10 --dst {vip} --proto tcp --port 8086"),
            ("director", "ipvsadm -A -f 10 -6 -s rr && ipvsadm -a -f 10 -6 -r [{rip6_1}]:0 -g"),
        ),
        restores=(("director", "ipvsadm -D -f 10 -6 && xlvs mark clear"),),
        hosts=("director",),
        mended=False,
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look for marks of services that no rule gives to their IP version."""
    for director in cluster.directors:
        rules = director.director.mark_rules
        given = {(rule.mark, rule.destination.family) for rule in rules}
        elsewhere = given_by_netfilter(director)
        for entry in director.director.own.services:
            key = entry.service.key
            if not key.fwmark or (key.fwmark, key.family) in given or key.fwmark in elsewhere:
                continue
            version = "IPv6" if key.family == model.IPV6 else "IPv4"
            yield Finding(
                director.name,
                f"nothing gives {version} packets the mark of the service {mends.service_words(key)}",
                (f"xlvs mark list: no rule of {version} gives {key.fwmark}",),
                "The service never gets a packet, unless an eBPF program in front of xlvs marks it.",
                advice=f"xlvs mark add {key.fwmark} --dst … --proto tcp --port …",
                severity=WARNING,
            )
