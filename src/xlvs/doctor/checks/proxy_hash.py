# SPDX-License-Identifier: GPL-2.0-only
"""sh, dh or mh sends all clients of one proxy to one real server.

These schedulers choose by a hash of the client's address, or of the VIP's (dh),
so that one address is always given to the same real server.  Behind a proxy all clients have
one.  sh and mh can hash the port too, which spreads them (sh-port, mh-port);
dh is made for caches, and of one VIP chooses one server.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.checks.proxy_persistence import ENOUGH, busiest
from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import WARNING, Finding

RANK = 81
_REQUESTS = f"for i in $(seq {ENOUGH}); do curl -s -m 5 -o /dev/null http://{{{{vip}}}}:{{port}}/; done"
SCENARIOS = (
    Scenario(
        "nat",
        breaks=(
            ("director", "ipvsadm -A -t {vip}:8082 -s sh"),
            ("director", "ipvsadm -a -t {vip}:8082 -r {rip1}:80 -m"),
            ("director", "ipvsadm -a -t {vip}:8082 -r {rip2}:80 -m"),
            ("client", _REQUESTS.format(port=8082)),
        ),
        restores=(("director", "ipvsadm -D -t {vip}:8082"),),
        hosts=("director",),
    ),
    Scenario(
        "nat",
        breaks=(
            ("director", "ipvsadm -A -t {vip}:8083 -s dh"),
            ("director", "ipvsadm -a -t {vip}:8083 -r {rip1}:80 -m"),
            ("director", "ipvsadm -a -t {vip}:8083 -r {rip2}:80 -m"),
            ("client", _REQUESTS.format(port=8083)),
        ),
        restores=(("director", "ipvsadm -D -t {vip}:8083"),),
        hosts=("director",),
    ),
)

_PORT = 2
"""flag-2 of sh and mh: the client's port is hashed, too."""


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge services of schedulers that hash."""
    for director in cluster.directors:
        for table, entry, client, count, total in busiest(cluster, director.name):
            service = entry.service
            hashes = service.scheduler in ("sh", "mh", "dh")
            if not hashes or service.persistence or service.scheduler_flags & _PORT:
                continue
            changed = service.replace(scheduler="wlc", scheduler_flags=0)
            if service.scheduler != "dh":
                changed = service.replace(scheduler_flags=service.scheduler_flags | _PORT)
            yield Finding(
                director.name,
                f"{service.scheduler} gives all connections of {ip_address(client)} to one real server",
                (
                    f"{count} of the {total} connections of {mends.service_words(service.key)} come from "
                    f"{ip_address(client)}, all of them to one real server",
                    f"{service.scheduler} hashes "
                    + ("the VIP" if service.scheduler == "dh" else "the client's address, not its port"),
                ),
                "If that address is a proxy's or a NAT gateway's, one real server carries all who are "
                "behind it, and is slow; the others idle.",
                (mends.edit_service(director, table.command, entry, changed),),
                severity=WARNING,
            )
