# SPDX-License-Identifier: GPL-2.0-only
"""Which changes of this machine make it the real server that is wanted.  No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from xlvs.realserver import sysctl
from xlvs.realserver.changes import (
    POLICY_TABLE,
    Address,
    AnswersRule,
    Change,
    DefaultRoute,
    HostRoute,
    LinkUp,
    Setting,
)
from xlvs.realserver.iptables import Rule
from xlvs.realserver.tunnels import device_changes
from xlvs.realserver.wanted import (
    DEVICES,
    HIDDEN,
    LOOPBACK,
    NAT,
    POLICY,
    SYSCTL,
    TUNNELLING,
    RealServer,
)


def changes(servers: Iterable[RealServer]) -> list[Change]:
    """The changes for all of these, each once, in the order in which they are to be made.

    What keeps a VIP silent comes before the VIP: nobody may hear of it meanwhile.
    """
    wanted: dict[Change, None] = {}
    for server in servers:
        for change in _changes(server):
            wanted[change] = None
    return list(wanted)


def _changes(server: RealServer) -> list[Change]:
    if server.method == NAT:
        return _routes(server)
    found = _silence(server)
    if server.method == TUNNELLING and server.decapsulator == DEVICES:
        found += device_changes(server)
    if server.device:
        # An address of a loopback that is down, as in a new namespace, answers nobody.
        if server.device == LOOPBACK:
            found.append(LinkUp(LOOPBACK))
        found.append(Address(server.prefix, server.device))
    if server.host_route:
        found.append(HostRoute(server.prefix))
    if server.rule:
        found.append(Rule(server.rule, server.ipv6))
    return found


def _silence(server: RealServer) -> list[Change]:
    """The settings by which IPv4's VIP is not told to anybody; IPv6's on ``lo`` is silent by itself.

    ndisc_recv_ns() (net/ipv6/ndisc.c) looks a target up among the addresses of the
    interface that the solicitation came in by, and nowhere else.
    """
    if server.ipv6:
        return []
    if server.arp == HIDDEN:
        return [Setting(sysctl.name(each, sysctl.HIDDEN), "1") for each in ("all", LOOPBACK)]
    if server.arp != SYSCTL:
        return []
    found: list[Change] = []
    for each in ("all", LOOPBACK):
        found.append(Setting(sysctl.name(each, sysctl.ARP_IGNORE), "1", sysctl.SILENT))
        found.append(Setting(sysctl.name(each, sysctl.ARP_ANNOUNCE), "2"))
    return found


def _routes(server: RealServer) -> list[Change]:
    """NAT's answers go back by the director: all that has no better route, or the services' alone."""
    if server.route != POLICY:
        return [DefaultRoute(server.director)]
    rules = [AnswersRule(each, server.ipv6) for each in server.services]
    return [DefaultRoute(server.director, POLICY_TABLE), *rules]
