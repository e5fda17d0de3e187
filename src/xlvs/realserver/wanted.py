# SPDX-License-Identifier: GPL-2.0-only
"""What an operator wants of a real server: plain values, checked, to and from JSON.  No I/O."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from xlvs.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECT_ROUTING, TUNNELLING, NAT = "dr", "tun", "nat"
METHODS = (DIRECT_ROUTING, TUNNELLING, NAT)

SYSCTL, HIDDEN, NFT, REDIRECT, EBPF, NOTHING = "sysctl", "hidden", "nft", "redirect", "ebpf", "none"
WAYS = (SYSCTL, HIDDEN, NFT, REDIRECT, EBPF, NOTHING)
"""The solutions of the ARP problem; `NOTHING` where it is somebody else's, or there is none."""

IPIP, GRE, GUE = "ipip", "gre", "gue"
TUNNELS = (IPIP, GRE, GUE)
AUTO, DEVICES = "auto", "devices"
TUNNEL_DEVICES = ("tunl0", "sit0", "gre0")
"""The kernel's, that take what comes from anybody; nobody asks for an address by them."""
DECAPSULATORS = (AUTO, DEVICES, EBPF)
"""Who takes packets out of tunnels: the kernel's tunnel devices, or a program of ours."""
GUE_PORT = 6080
"""The port registered for GUE."""
MAX_GUE_PORTS = 8
"""The room of the decapsulator (bpf/decapsulate.bpf.c)."""

DEFAULT_ROUTE, POLICY = "default", "policy"
ROUTES = (DEFAULT_ROUTE, POLICY)

MSS_AUTO, MSS_OFF = -1, 0
LEAST_MSS, MOST_MSS = 216, 65495
"""What a clamp may say: less would not hold a packet of 256 bytes, more does not fit one at all."""
MAX_ADDRESSES = 256
"""The room of the ARP filter (bpf/realserver.bpf.c)."""

LOOPBACK = "lo"
_INTERFACE = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class RealServer:
    """This machine as a real server of one VIP.

    ``device`` is where the VIP's address is put, empty for none (``redirect``, NAT).
    ``interfaces`` are those by which packets of the director come; empty for every
    Ethernet interface.  ``services`` are the ports served, as ``tcp:80``.  ``mss`` is
    in bytes, `MSS_AUTO` or `MSS_OFF`.  ``director`` is the address to which NAT's
    answers go.  ``rule`` and ``host_route`` are what somebody typed by hand and xlvs took
    over: a redirection in iptables' words, and a route to the VIP by ``lo``.
    """

    vip: str
    method: str = DIRECT_ROUTING
    arp: str = SYSCTL
    device: str = LOOPBACK
    interfaces: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    tunnels: tuple[str, ...] = ()
    gue_ports: tuple[int, ...] = ()
    decapsulator: str = AUTO
    mss: int = MSS_OFF
    director: str = ""
    route: str = DEFAULT_ROUTE
    rule: str = ""
    host_route: bool = False

    @property
    def ipv6(self) -> bool:
        """Is the VIP an IPv6 address?"""
        return ":" in self.vip

    @property
    def prefix(self) -> str:
        """The VIP with the length of a single address: ``192.0.2.100/32``."""
        return f"{self.vip}/{128 if self.ipv6 else 32}"


def address(text: str, option: str) -> str:
    """One unicast address in its usual spelling; raises `UsageError` for anything else."""
    try:
        parsed = ip_address(text)
    except (AddressValueError, ValueError):
        raise UsageError(
            f"{option}: {text!r} is no IPv4 or IPv6 address", "write one like 192.0.2.100 or 2001:db8::100"
        ) from None
    mapped = isinstance(parsed, IPv6Address) and parsed.ipv4_mapped
    scoped = isinstance(parsed, IPv6Address) and parsed.scope_id
    broadcast = parsed == IPv4Address("255.255.255.255")
    link_local = parsed.version == 6 and parsed.is_link_local
    if mapped or scoped or broadcast or link_local or parsed.is_multicast or parsed.is_unspecified:
        raise UsageError(f"{option}: {text} cannot be the address of a host that others reach")
    if parsed.is_loopback:
        raise UsageError(
            f"{option}: {text} is every machine's own loopback address", "a VIP is one that clients reach"
        )
    return str(parsed)


def addresses(text: str, option: str) -> tuple[str, ...]:
    """Addresses with commas between them, each once; raises `UsageError`."""
    found = tuple(dict.fromkeys(address(word.strip(), option) for word in text.split(",")))
    if len(found) > MAX_ADDRESSES:
        raise UsageError(f"{option}: {len(found)} addresses at once do not do", f"at most {MAX_ADDRESSES}")
    return found


def service(text: str) -> str:
    """``tcp:80`` in its usual spelling, also from ``TCP:080`` or ``80``; raises `UsageError`."""
    protocol, colon, port = text.strip().lower().rpartition(":")
    protocol = protocol if colon else "tcp"
    if protocol not in _PROTOCOLS or not port.isascii() or not port.isdigit() or len(port) > 5:
        raise UsageError(f"--service: {text!r} is no service", "write them like tcp:80 or udp:53")
    if not 1 <= int(port) <= 65535:
        raise UsageError(f"--service: {text!r} has no port from 1 to 65535")
    return f"{protocol}:{int(port)}"


def check(server: RealServer) -> None:
    """Raise `UsageError` for a combination that makes no working real server."""
    _check_arp(server)
    _check_tunnels(server)
    _check_nat(server)
    for name in (*server.interfaces, *([server.device] if server.device else [])):
        if not _INTERFACE.fullmatch(name) or name in (".", "..", "all", "default"):
            raise UsageError(f"{name!r} is no name of an interface", "see what there is: ip link")
    if server.mss not in (MSS_AUTO, MSS_OFF) and not LEAST_MSS <= server.mss <= MOST_MSS:
        raise UsageError(f"--mss {server.mss} does not do", f"it goes from {LEAST_MSS} to {MOST_MSS}")


def _check_arp(server: RealServer) -> None:
    if server.arp not in WAYS:
        raise UsageError(f"--arp {server.arp!r} is not known", f"there are: {', '.join(WAYS)}")
    holds = server.method != NAT and server.arp != REDIRECT
    if holds and not server.device:
        raise UsageError("the VIP needs a device", "lo is the usual one")
    if not holds and server.device:
        raise UsageError(
            f"--device {server.device} does not do: this real server holds no VIP",
            "neither under NAT nor with --arp redirect",
        )
    if server.method == NAT and server.arp != NOTHING:
        raise UsageError(
            f"--arp {server.arp} does not do with NAT",
            "a real server under NAT holds no VIP, so there is no ARP problem",
        )
    if server.method == TUNNELLING and server.arp == REDIRECT:
        raise UsageError("--arp redirect does not do with --method tun", "it is for packets of --method dr")
    if server.device not in ("", LOOPBACK, *TUNNEL_DEVICES) and server.arp in (SYSCTL, HIDDEN):
        raise UsageError(
            f"--arp {server.arp} does not keep a VIP on {server.device} silent",
            f"an interface answers for its own addresses, whatever {server.arp} says: "
            f"put the VIP on lo (no --device), or choose --arp nft or --arp ebpf",
        )


def _check_tunnels(server: RealServer) -> None:
    if server.method != TUNNELLING:
        if server.tunnels or server.gue_ports or server.decapsulator != AUTO or server.mss:
            raise UsageError("--tunnel, --gue-port, --decap and --mss are for --method tun")
        return
    if not server.tunnels or not set(server.tunnels) <= set(TUNNELS):
        raise UsageError(f"--tunnel takes some of {', '.join(TUNNELS)}")
    if server.decapsulator not in DECAPSULATORS:
        raise UsageError(f"--decap takes one of {', '.join(DECAPSULATORS)}")
    if bool(server.gue_ports) != (GUE in server.tunnels):
        raise UsageError("--gue-port is for --tunnel gue")
    if len(server.gue_ports) > MAX_GUE_PORTS:
        raise UsageError(f"{len(server.gue_ports)} ports for GUE do not do", f"at most {MAX_GUE_PORTS}")
    for port in server.gue_ports:
        if not 1 <= port <= 65535:
            raise UsageError(f"--gue-port {port} is no UDP port", "they go from 1 to 65535")


def _check_nat(server: RealServer) -> None:
    if server.method != NAT:
        if server.director or server.route != DEFAULT_ROUTE:
            raise UsageError("--director and --route are for --method nat")
        return
    if not server.director:
        raise UsageError(
            "--method nat needs --director ADDRESS",
            "the director's address in this network: answers have to go back through it",
        )
    if (":" in server.director) != server.ipv6:
        raise UsageError(
            f"the director {server.director} is of another family than the VIP {server.vip}",
            "NAT translates within one: give the director's address of that family",
        )
    if server.route not in ROUTES:
        raise UsageError(f"--route takes one of {', '.join(ROUTES)}")
    if server.route == POLICY and not server.services:
        raise UsageError(
            "--route policy needs --service",
            "whose answers are to go by the director? for instance --service tcp:80",
        )


def to_json(server: RealServer) -> dict[str, Any]:
    """The value as JSON has it."""
    return asdict(server)


def from_json(value: object) -> RealServer:
    """The value of `to_json`'s, checked; raises `ValueError`, or `UsageError` as `check` does.

    It may come from a file, and goes from here into ip(8) and nft(8).
    """
    if not isinstance(value, dict):
        raise ValueError("a real server is no object")
    read: dict[str, Any] = {}
    for each in fields(RealServer):
        present = value.get(each.name, each.default)
        if each.name in ("interfaces", "services", "tunnels", "gue_ports"):
            kind = int if each.name == "gue_ports" else str
            if not isinstance(present, (list, tuple)) or not all(type(one) is kind for one in present):
                raise ValueError(f"{each.name} is of another type")
            present = tuple(present)
        elif type(present) is not {"mss": int, "host_route": bool}.get(each.name, str):
            raise ValueError(f"{each.name} is of another type")
        read[each.name] = present
    server = RealServer(**read)
    address(server.vip, "vip")
    if server.director:
        address(server.director, "director")
    for one in server.services:
        service(one)
    if server.method not in METHODS:
        raise ValueError(f"there is no method {server.method!r}")
    check(server)
    return server
