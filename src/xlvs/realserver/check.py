# SPDX-License-Identifier: GPL-2.0-only
"""What can be proved of a real server on the spot, each point with what to do about it.

Nothing is sent and nothing changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from xlvs.kernel import rtnetlink
from xlvs.realserver import guards, ip, listening, plan, sysctl
from xlvs.realserver.changes import Address, Setting, addresses
from xlvs.realserver.interfaces import Interface, ethernet
from xlvs.realserver.wanted import HIDDEN, LOOPBACK, NAT, REDIRECT, SYSCTL, TUNNEL_DEVICES, RealServer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OK, WARNING, FAULT = "ok", "warning", "fault"
_APPLY = "xlvs realserver apply"


@dataclass(frozen=True, slots=True)
class Finding:
    """One point: how it is (`OK`, `WARNING`, `FAULT`), in words, and what to do about it."""

    level: str
    what: str
    remedy: str = ""


@dataclass(slots=True)
class View:
    """What every check looks at, read once."""

    vips: tuple[str, ...]
    links: list[dict[str, Any]] = field(default_factory=addresses)
    interfaces: list[Interface] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.interfaces = ethernet(self.vips)

    def places(self, vip: str) -> list[tuple[str, dict[str, Any]]]:
        """The interfaces that have this address, each with the address's entry."""
        return [
            (link["ifname"], each)
            for link in self.links
            for each in link["addr_info"]
            if each["local"] == vip
        ]


def findings(server: RealServer, view: View, *, recorded: bool) -> Iterator[Finding]:
    """Everything about one real server; ``recorded`` is whether xlvs set it up."""
    yield from _changes(server, recorded=recorded)
    if server.device:
        yield from _address(server, view)
        yield from _silence(server, view)
    elif server.method != NAT:
        yield from _not_held(server, view)
    yield from (Finding(FAULT, lack, _APPLY) for lack in guards.lacking(server, view.interfaces))
    if server.method != NAT:
        yield from _reverse_path(server, view)
    yield from _way_back(server)
    yield from _services(server, view)


def _changes(server: RealServer, *, recorded: bool) -> Iterator[Finding]:
    """Are the changes in force?  Of settings and addresses, what comes of them is looked at below."""
    for change in plan.changes([server]):
        if isinstance(change, Address) or (isinstance(change, Setting) and "/arp_" in change.setting):
            continue
        if change.is_made():
            yield Finding(OK, str(change))
        else:
            yield Finding(FAULT, f"not in force: {change}", _APPLY if recorded else str(change))


def _address(server: RealServer, view: View) -> Iterator[Finding]:
    places = view.places(server.vip)
    whole = 128 if server.ipv6 else 32
    here = [each for device, each in places if device == server.device]
    if not here:
        yield Finding(
            FAULT,
            f"{server.vip} is not on {server.device}",
            f"ip address add {server.prefix} dev {server.device}",
        )
    for each in here:
        length = each["prefixlen"]
        if length != whole and server.device == LOOPBACK:
            yield Finding(
                FAULT,
                f"{server.vip}/{length} on lo makes its whole network this machine's own: "
                "clients in it never get an answer",
                f"ip address del {server.vip}/{length} dev lo; ip address add {server.prefix} dev lo",
            )
        elif each.get("dadfailed") or each.get("tentative"):
            yield Finding(
                FAULT,
                f"{server.prefix} on {server.device} was found elsewhere by duplicate address detection",
                f"ip address del {server.prefix} dev {server.device}; "
                f"ip address add {server.prefix} dev {server.device} nodad",
            )
        else:
            yield Finding(OK, f"{server.vip}/{length} is on {server.device}")
    for device, each in places:
        if device not in (server.device, LOOPBACK, *TUNNEL_DEVICES):
            yield Finding(
                FAULT,
                f"{server.vip} is on {device}, too, which answers for it",
                f"ip address del {server.vip}/{each['prefixlen']} dev {device}",
            )
    if here and rtnetlink.route_to(ip_address(server.vip).packed).kind != rtnetlink.LOCAL_ROUTE:
        yield Finding(
            FAULT,
            f"the routing table does not take {server.vip} for this machine's own",
            f"ip link set {server.device} up; ip route get {server.vip}",
        )


def _silence(server: RealServer, view: View) -> Iterator[Finding]:
    """Is the VIP silent on every interface?"""
    if server.ipv6:
        if server.device in (LOOPBACK, *TUNNEL_DEVICES):
            yield Finding(OK, f"IPv6 answers for {server.device}'s addresses on {server.device} alone")
        return
    if server.arp == HIDDEN:
        return  # its two settings are among the changes
    if server.arp != SYSCTL:
        return
    for interface in view.interfaces:
        yield from _arp_settings(server, interface.name)


def _arp_settings(server: RealServer, interface: str) -> Iterator[Finding]:
    ignore = sysctl.effective(interface, sysctl.ARP_IGNORE)
    announce = sysctl.effective(interface, sysctl.ARP_ANNOUNCE)
    if str(ignore) not in sysctl.SILENT:
        yield Finding(
            FAULT,
            f"{interface} answers ARP for {server.vip}: arp_ignore is {ignore} "
            "(the higher of all's value and the interface's)",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1",
        )
    if announce < 2:
        yield Finding(
            FAULT,
            f"{interface} tells of {server.vip} when it asks by ARP: arp_announce is {announce} "
            "(the higher of all's value and the interface's)",
            "sysctl -w net.ipv4.conf.all.arp_announce=2",
        )
    if str(ignore) in sysctl.SILENT and announce >= 2:
        yield Finding(OK, f"{interface} is silent about it: arp_ignore {ignore}, arp_announce {announce}")


def _not_held(server: RealServer, view: View) -> Iterator[Finding]:
    for device, each in view.places(server.vip):
        yield Finding(
            FAULT,
            f"{server.vip} is on {device}, though its packets are redirected",
            f"ip address del {server.vip}/{each['prefixlen']} dev {device}",
        )


def _reverse_path(server: RealServer, view: View) -> Iterator[Finding]:
    """Strict filtering drops clients' packets that come by another way than answers would go."""
    family = bytes(16) if server.ipv6 else bytes(4)
    if server.ipv6:
        return  # IPv6 has no rp_filter
    way_out = rtnetlink.route_to(family).interface
    named = server.interfaces or tuple(each.name for each in view.interfaces)
    for each in view.interfaces:
        if each.name in named and sysctl.effective(each.name, sysctl.RP_FILTER) == sysctl.STRICT:
            if way_out in (0, each.index):
                continue
            yield Finding(
                WARNING,
                f"{each.name} drops what clients send by the director where the way back to them is "
                "another interface: its rp_filter is strict",
                f"sysctl -w net.ipv4.conf.{each.name}.rp_filter=2",
            )


def _way_back(server: RealServer) -> Iterator[Finding]:
    """Where there is no default route, only neighbours get an answer."""
    if server.method == NAT:
        return  # its route is among the changes
    if not ip.show("-6" if server.ipv6 else "-4", "route", "show", "default"):
        yield Finding(
            WARNING,
            "there is no default route: clients of other networks get no answer",
            f"ip {'-6 ' if server.ipv6 else ''}route add default via ROUTER",
        )


def _services(server: RealServer, view: View) -> Iterator[Finding]:
    """Is what the VIP is for served at it?"""
    holds_none = server.method == NAT or server.arp == REDIRECT
    own = tuple(address for each in view.interfaces for address in each.all_addresses)
    at = own if holds_none else (server.vip,)
    for service in server.services:
        protocol, _, port = service.partition(":")
        if listening.serves(protocol, int(port), at):
            yield Finding(OK, f"{service} is served")
        else:
            where = "this machine's own address" if holds_none else server.vip
            yield Finding(
                FAULT, f"nothing listens at {service} of {where}", "start the server, or see: ss -ln"
            )
    if not server.services:
        ports = sorted({port for protocol, address, port in listening.sockets()
                        if protocol == "tcp" and address in (*at, *listening.ANY)})  # fmt: skip
        if ports:
            yield Finding(OK, f"TCP is served at {', '.join(map(str, ports))}")
        else:
            yield Finding(WARNING, "nothing listens at any TCP port of it", "see: ss -ltn")
