# SPDX-License-Identifier: GPL-2.0-only
"""Real servers that somebody typed by hand, as tutorials have them: recognised, not touched."""

from __future__ import annotations

from ipaddress import ip_address

from xlvs.realserver import iptables, sysctl
from xlvs.realserver.changes import HostRoute, addresses
from xlvs.realserver.wanted import (
    DEVICES,
    DIRECT_ROUTING,
    GRE,
    HIDDEN,
    IPIP,
    LOOPBACK,
    REDIRECT,
    SYSCTL,
    TUNNELLING,
    RealServer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_TUNNELS = {"tunl0": IPIP, "sit0": IPIP, "gre0": GRE}


def real_servers(known: Iterable[str]) -> list[RealServer]:
    """The real servers there are besides those of the VIPs that are known.

    An address of ``lo`` that is not its own, one of a tunnel device, and a redirection.
    Whatever solves the ARP problem, or does not, is for a check to say.
    """
    taken = set(known)
    links = addresses()
    found: dict[str, RealServer] = {}
    for link in links:
        device = link["ifname"]
        if device != LOOPBACK and device not in _TUNNELS:
            continue
        for each in link["addr_info"]:
            vip = each["local"]
            if vip not in taken and not _is_own(vip):
                found.setdefault(vip, _held(vip, device, links))
    for vip, rule in iptables.redirections():
        if vip not in taken:
            held = RealServer(
                vip, DIRECT_ROUTING, REDIRECT, device="", rule=rule.specification, services=_services(rule)
            )
            found.setdefault(vip, held)
    return list(found.values())


def _is_own(address: str) -> bool:
    parsed = ip_address(address)
    return parsed.is_loopback or (parsed.version == 6 and parsed.is_link_local)


def _held(vip: str, device: str, links: list[dict[str, Any]]) -> RealServer:
    ipv6 = ":" in vip
    arp = HIDDEN if not ipv6 and sysctl.read(sysctl.name(LOOPBACK, sysctl.HIDDEN)) == "1" else SYSCTL
    tunnels = sorted(
        {
            _TUNNELS[link["ifname"]]
            for link in links
            if link["ifname"] in _TUNNELS and "UP" in link["flags"] and _takes(link["ifname"], ipv6)
        }
    )
    server = RealServer(vip, arp=arp, device=device)
    host_route = HostRoute(server.prefix).is_made()
    if not tunnels:
        return RealServer(vip, arp=arp, device=device, host_route=host_route)
    return RealServer(
        vip,
        TUNNELLING,
        arp,
        device,
        tunnels=tuple(tunnels),
        decapsulator=DEVICES,
        host_route=host_route,
    )


def _takes(device: str, ipv6: bool) -> bool:
    return device == "gre0" or (device == "sit0") == ipv6


def _services(rule: iptables.Rule) -> tuple[str, ...]:
    """The service that a redirection is for, where it names one port."""
    words = rule.specification.split()
    if "-p" in words and "--dport" in words:
        port = words[words.index("--dport") + 1]
        protocol = words[words.index("-p") + 1]
        if port.isdigit() and protocol in ("tcp", "udp", "sctp") and "--to-ports" not in words:
            return (f"{protocol}:{port}",)
    return ()
