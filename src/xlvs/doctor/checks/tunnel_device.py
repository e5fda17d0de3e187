# SPDX-License-Identifier: GPL-2.0-only
"""A real server behind a tunnel has no device that takes packets out of it.

Without tunl0 (or another device of the tunnel's kind), or with it down, a
real server drops what comes in the tunnel, while its own address answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.probe import SILENT

RANK = 47
SCENARIOS = (
    Scenario(
        "tun",
        breaks=(("rs2", "ip link set tunl0 down"),),
        restores=(
            ("rs2", "ip link set tunl0 up && ip addr add {vip6}/128 dev tunl0 nodad preferred_lft 0"),
        ),
        hosts=("rs2",),
    ),
    Scenario(
        "tun",
        breaks=(("rs1", "ip link del tunl0 && ip addr add {vip}/32 dev lo"),),
        restores=(
            ("rs1", "ip addr del {vip}/32 dev lo && modprobe ipip && ip link set tunl0 up"),
            ("rs1", "sysctl -w net.ipv4.conf.tunl0.rp_filter=2 && ip addr add {vip}/32 dev tunl0"),
            ("rs1", "ip addr add {vip6}/128 dev tunl0 nodad preferred_lft 0"),
        ),
        hosts=("rs1",),
    ),
)

_EFFECT = "Connections that are given to this real server time out; its own address answers."


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Look at the devices, or where that cannot be, at who answers as the VIP."""
    seen: set[str] = set()
    for served in cluster.served(model.TUNNEL):
        asked = cluster.answer(served)
        if served.name in seen or served.is_local or (asked and asked.as_virtual.connected):
            continue
        if served.host is None:
            if asked and asked.plain.connected and asked.as_virtual.outcome == SILENT:
                seen.add(served.name)
                yield Finding(
                    served.name,
                    f"real server {served.name} does not answer what it gets in a tunnel",
                    (f"its own address takes connections, {served.virtual} in a tunnel does not",),
                    _EFFECT,
                    advice=f"on {served.name}: xlvs realserver add --vip {served.virtual} --method tun, or "
                    f"by hand: modprobe ipip; ip addr add {served.virtual}/32 dev tunl0; ip link set "
                    "tunl0 up; sysctl -w net.ipv4.conf.tunl0.rp_filter=2 net.ipv4.conf.all.rp_filter=2",
                )
            continue
        seen.add(served.name)
        host = served.host
        devices = list(host.tunnels())
        if any(link.up for link in devices):
            continue
        if devices:
            name = devices[0].name
            commands = (mends.set_link(host, name, "up", "down"),)
            problem = f"the tunnel's device {name} of real server {host.name} is down"
            evidence = f"ip link show {name}: not UP"
        else:
            # It was not there because nobody had loaded the module: with that it goes.
            commands = (Mend(host.name, "modprobe ipip && ip link set tunl0 up", "modprobe -r ipip"),)
            problem = f"real server {host.name} has no device for tunnels"
            evidence = "ip -details link: none of the kinds ipip, gre, sit, ip6tnl"
        yield Finding(host.name, problem, (evidence, mends.destination_words(served)), _EFFECT, commands)
