# SPDX-License-Identifier: GPL-2.0-only
"""A firewall drops VRRP.

Directors of a pair hear of each other by VRRP, protocol 112 to 224.0.0.18 (IPv6: ff02::12).  One
that does not hear the other takes over: then two have the VIP.  The
doctor asks the rules of hosts on which something listens for VRRP.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding
from xlvs.doctor.firewall import Packet, fate
from xlvs.doctor.mends import accept_in_front

RANK = 64
_SPEAKER = (
    'python3 -c "import socket, time; s = socket.socket(2, 3, 112); time.sleep(600)" '
    ">/dev/null 2>&1 & echo $! >/run/xlvs/lab/{lab}/speaker; "
    "while ! grep -q :0070 /proc/net/raw; do sleep 0.01; done"
)
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("director", _SPEAKER), ("director", "iptables -A INPUT -p 112 -j DROP")),
        restores=(
            ("director", "kill $(cat /run/xlvs/lab/{lab}/speaker); rm /run/xlvs/lab/{lab}/speaker"),
            ("director", "iptables -D INPUT -p 112 -j DROP"),
        ),
        hosts=("director",),
    ),
)
_GROUPS = (ip_address("224.0.0.18"), ip_address("ff02::12"))


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Ask the rules of hosts that take VRRP."""
    for host in cluster.hosts:
        for group in _GROUPS:
            heard = group.version in host.speaks_vrrp
            way = Packet("vrrp", group)
            decided = fate(host.rules_of(group.version), "INPUT", way) if heard else None
            if decided is None:
                continue
            yield Finding(
                host.name,
                f"the firewall of {host.name} drops VRRP" + (" of IPv6" if group.version == 6 else ""),
                (str(decided), "a raw socket for protocol 112 is open"),
                "This director does not hear the other one, believes it dead and takes the VIP, too: "
                "clients are served by either, and connections break.",
                (accept_in_front(host.name, decided, (("-p", "112"),)),),
            )
