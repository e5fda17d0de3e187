# SPDX-License-Identifier: GPL-2.0-only
"""A service listens on the real server's own address, or on 127.0.0.1, and not on the VIP.

With Direct Routing and tunnels packets arrive with the VIP as their
destination.  A service that is bound to the real server's address takes its
health checks and refuses its clients; one that is bound to 127.0.0.1 takes
neither.  The doctor asks on the real server's address and as the VIP, and looks at
the sockets where it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Address
from xlvs.doctor.probe import REFUSED

RANK = 12
_STOP = "nginx -s stop; while ss -Hltn sport 80 | grep -q .; do sleep 0.01; done"
_LISTEN = "sed -i 's/listen {old} /listen {new} /' /run/xlvs/lab/{{lab}}/nodes/{node}/nginx/nginx.conf"


def _moved(node: str, old: str, new: str) -> tuple[tuple[str, str], ...]:
    return ((node, _STOP), (node, _LISTEN.format(node=node, old=old, new=new)), (node, "nginx"))


SCENARIOS = (
    Scenario(
        "dr",
        breaks=_moved("rs2", "80", "{rip2}:80"),
        restores=_moved("rs2", "{rip2}:80", "80"),
        hosts=("rs2",),
    ),
    Scenario(
        "nat",
        breaks=_moved("rs1", "80", "127.0.0.1:80"),
        restores=_moved("rs1", "127.0.0.1:80", "80"),
        hosts=("rs1",),
    ),
    Scenario(
        "dr6",
        breaks=_moved("rs3", r"\[::\]:80", "[{rip6_3}]:80"),
        restores=_moved("rs3", r"\[{rip6_3}\]:80", "[::]:80"),
        hosts=("rs3",),
    ),
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge real servers that refuse what comes to the address that clients' packets have."""
    for served in cluster.served():
        asked = cluster.answer(served)
        key = served.service.key
        if asked is None or asked.as_virtual.outcome != REFUSED or key.protocol != model.TCP:
            continue
        virtual = served.virtual
        arrives = served.real_server if served.destination.method == model.MASQUERADE else virtual
        if arrives is None:
            continue
        bound = served.host.bound(served.port, arrives.version) if served.host else []
        if served.host is not None and (not bound or served.host.listens(arrives, served.port)):
            continue
        if served.host is None and not asked.plain.connected:
            continue
        yield _finding(served, arrives, bound)


def _finding(served: Served, arrives: Address, bound: list[Address]) -> Finding:
    where = ", ".join(mends.endpoint(address.packed, served.port) for address in bound)
    asked_at = mends.endpoint(arrives.packed, served.port)
    evidence = (
        f"{served.director.name} asked {served.name} for {asked_at}: refused (RST)",
        f"it listens on {where}" if bound else f"on {served.real_server} it accepts connections",
    )
    best = next((a for a in bound if a == served.real_server), None) or next(iter(bound), None)
    commands: list[Mend] = []
    # IPv6 has no route_localnet: what listens on ::1 alone is not reached from outside.
    within = (
        best is not None and best.version == arrives.version and (best.version == 4 or not best.is_loopback)
    )
    if served.host is not None and best is not None and within:
        if best.is_loopback:
            for link in served.host.ethernet():
                commands.append(mends.set_conf(served.host, link.name, "route_localnet", 1))
        rule = (
            f"PREROUTING -d {arrives} -p tcp --dport {served.port} -j DNAT "
            f"--to-destination {mends.endpoint(best.packed, served.port)}"
        )
        program = "iptables" if best.version == 4 else "ip6tables"
        commands.append(mends.add_rule(served.host, program, "nat", "-A", rule))
    return Finding(
        served.name,
        f"the service on {served.name} does not listen on {ip_address(arrives.packed)}, port {served.port}",
        evidence,
        "Connections that are given to this real server are refused at once; checks of its own "
        "address may say that it is well.",
        tuple(commands),
        f"better let the service listen on all addresses, or on {arrives}: the rule only leads around it"
        if commands
        else f"let the service listen on all addresses, or on {arrives}",
    )
