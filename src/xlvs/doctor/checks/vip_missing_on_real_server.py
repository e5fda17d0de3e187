# SPDX-License-Identifier: GPL-2.0-only
"""A real server does not have the VIP.

With Direct Routing and tunnels a real server gets packets to the VIP and must
take them as its own.  Without the address it drops or forwards them, while
its own address answers every health check.  The doctor connects to each real
server singly as the VIP, through its forwarding method.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlvs import model
from xlvs.doctor import mends
from xlvs.doctor.checks import Scenario
from xlvs.doctor.cluster import Cluster, Served
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.host import Address, Host
from xlvs.doctor.probe import SILENT

RANK = 15
SCENARIOS = (
    Scenario(
        "dr",
        breaks=(("rs2", "ip addr del {vip}/32 dev lo"),),
        restores=(("rs2", "ip addr add {vip}/32 dev lo"),),
        hosts=("rs2",),
    ),
    Scenario(
        "dr6",
        breaks=(("rs2", "ip addr del {vip6}/128 dev lo"),),
        restores=(("rs2", "ip addr add {vip6}/128 dev lo nodad preferred_lft 0"),),
        hosts=("rs2",),
    ),
    Scenario(
        "tun6",
        breaks=(("rs2", "ip addr del {vip6}/128 dev tunl0"),),
        restores=(("rs2", "ip addr add {vip6}/128 dev tunl0 nodad preferred_lft 0"),),
        hosts=("rs2",),
    ),
    Scenario(
        "tun",
        breaks=(("rs1", "ip addr del {vip}/32 dev tunl0"),),
        restores=(("rs1", "ip addr add {vip}/32 dev tunl0"),),
        hosts=("rs1",),
    ),
)

_QUIET = {
    4: "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; ",
    6: "",
}
"""What has to come before the address; IPv6 answers for lo's addresses on lo alone."""
_EFFECT = (
    "Every connection that is given to this real server times out, one in as many as there are "
    "servers; checks of its own address say that it is well."
)


def examine(cluster: Cluster) -> Iterator[Finding]:
    """Judge each real server once for each VIP."""
    seen: set[tuple[str, Address]] = set()
    for served in cluster.served(model.ROUTE, model.TUNNEL):
        address = served.virtual
        if address is None or served.is_local or (served.name, address) in seen:
            continue
        asked = cluster.answer(served)
        if asked and asked.as_virtual.connected:
            continue  # it takes the VIP's packets without the address: by a redirection, for one
        if served.host is not None:
            if served.host.has(address):
                continue
            seen.add((served.name, address))
            yield _finding(
                served,
                address,
                (f"{address} is on no interface of {served.name}",),
                _commands(served.host, served),
            )
        elif asked and asked.plain.connected and asked.as_virtual.outcome == SILENT:
            if any(
                served.real_server in cluster.addresses_of(heard.sighting.mac)
                for heard in cluster.answers_for(address)
            ):
                continue  # it answers for the VIP, so it has it
            if served.destination.method == model.TUNNEL:
                continue  # whether VIP or tunnel is missing only the host itself can tell
            seen.add((served.name, address))
            own = mends.endpoint(served.destination.address, served.port)
            yield _finding(
                served, address,
                (
                    f"{served.director.name} connected to {own}, and not to {address} at the same MAC",
                ),
                (),
            )  # fmt: skip


def _finding(
    served: Served, address: Address, evidence: tuple[str, ...], commands: tuple[Mend, ...]
) -> Finding:
    advice = (
        ""
        if commands
        else f"on {served.name}: xlvs realserver add --vip {address}, or by hand: "
        f"{_QUIET[address.version]}ip addr add {address}/{address.max_prefixlen} dev lo; "
        "if it has the VIP, look for a firewall that drops packets to it, or a table of services there"
    )
    return Finding(
        served.name, f"real server {served.name} does not have the VIP {address}", evidence, _EFFECT,
        commands, advice,
    )  # fmt: skip


def _commands(host: Host, served: Served) -> tuple[Mend, ...]:
    address = served.virtual
    if address is None:
        return ()
    tunnel = next((link.name for link in host.tunnels()), "lo")
    if served.destination.method == model.TUNNEL and tunnel != "lo":
        return (mends.add_address(host, address, tunnel),)
    quiet = []
    if address.version == 4:  # before the address, or it would be answered for
        for name, value in (("arp_ignore", 1), ("arp_announce", 2)):
            if any(host.conf(link.name, name) < value for link in host.ethernet()):
                quiet.append(mends.set_conf(host, "all", name, value))
    elif host.conf("lo", "disable_ipv6", 6):
        for where in ("all", "lo"):
            if host.setting(f"net.ipv6.conf.{where}.disable_ipv6"):
                quiet.append(mends.set_conf(host, where, "disable_ipv6", 0, 6))
    return (*quiet, mends.add_address(host, address, "lo"))
