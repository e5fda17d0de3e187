# SPDX-License-Identifier: GPL-2.0-only
"""The network of raw packets: a director, and two wires behind which everybody else is only pretended.

    outside ── eth0 ──── eth0 director (DIP, VIPs)    clients' router, real servers 1 to 3
            ── eth1 ──── eth1 (a smaller MTU)         real servers 4 to 6

The outside has no addresses and answers nothing: what stands there for the
clients' router is one MAC address, and one for each real server, so the
frames seen on the wires tell who would have got them, and nobody's TCP
meddles.  The director knows all neighbours beforehand.  In a `Shape` of
another kind the director's side of the first wire is a VLAN, or a bond.
Runs inside the guest, as root, in the thread that plays.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from struct import pack, unpack

from tests.packet.packets import packed

from .network import (
    add_namespace,
    complete_checksums,
    delete_namespace,
    enter_namespace,
    ip_batch,
    set_sysctl,
)
from .sightings import addresses, is_neighbour_talk

SERVERS = 6
NEAR_SERVERS = 3
"""Real servers on the first wire; the others stand behind the second one."""
CLIENTS = 3
ROUTER = CLIENTS + 1
"""A node on the clients' side that only sends ICMP errors."""
DIP = ("10.0.0.2", "2001:db8::2")
FAR_DIP = ("10.0.1.2", "2001:db8:0:1::2")
MTU = 1500
FAR_MTU = 1400

CLIENT = "client"

_ETH_P_ALL = 3
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_ARP = 0x0806
_VLAN = 0x8100
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_TAG_VALID = 0x10
DIRECTOR_MAC = bytes.fromhex("020000000002")
_FAR_DIRECTOR_MAC = bytes.fromhex("020000000003")
_CLIENT_MAC = bytes.fromhex("020000000001")
_PROBE_MAC = bytes.fromhex("0200000000ff")
_ROUTER = ("10.0.0.1", "2001:db8::1")
_FIRST_CLIENT_NET = 64
_SCENARIOS_OF_A_NET = 250
_FIRST_CLIENT_NET6 = 0x1000
_RECEIVE_BUFFER = 1 << 22
_PROBE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How the director's side of the first wire is made."""

    interface: str = "eth0"
    """What holds the director's addresses."""
    vlan: int = 0
    """The tag of all frames on the wire; 0 for none."""
    preparing: tuple[str, ...] = ()
    """Commands of ip(8) that make `interface` of eth0."""
    attached: tuple[str, ...] = ("eth0", "eth1")
    """Where xlvs is attached."""


PLAIN = Shape()
SHAPES = {
    "plain": PLAIN,
    "vlan": Shape(
        "eth0.100",
        100,
        ("link add link eth0 name eth0.100 type vlan id 100",),
        ("eth0", "eth0.100", "eth1"),
    ),
    "bond": Shape(
        "bond0",
        0,
        (
            "link add bond0 type bond mode active-backup miimon 100",
            "link set eth0 down",
            "link set eth0 master bond0",
        ),
        ("bond0", "eth1"),
    ),
}


def server_addresses(number: int) -> tuple[str, str]:
    """IPv4 and IPv6 address of a real server, counted from 1."""
    net = 0 if number <= NEAR_SERVERS else 1
    return f"10.0.{net}.{10 + number}", f"2001:db8:0:{net}::{10 + number}"


def client_addresses(scenario: int, number: int) -> tuple[str, str]:
    """IPv4 and IPv6 address of a client of the n-th scenario, counted from 1; `ROUTER` is the last."""
    net, host = divmod(scenario, _SCENARIOS_OF_A_NET)
    return (
        f"10.{_FIRST_CLIENT_NET + net}.{host}.{number}",
        f"2001:db8:c:{_FIRST_CLIENT_NET6 + scenario:x}::{number}",
    )


def client_networks(scenario: int) -> tuple[str, str]:
    """With what the addresses of the n-th scenario's clients begin."""
    v4, v6 = client_addresses(scenario, 1)
    return v4.removesuffix("1"), v6.removesuffix("1")


def virtual_addresses(scenario: int) -> tuple[str, str]:
    """The VIPs of the n-th scenario, all of one length."""
    return f"10.1.{100 + scenario // 100}.{100 + scenario % 100}", f"2001:db8:1::{1000 + scenario}"


def scenario_of(packet: bytes) -> int | None:
    """The scenario whose client a packet comes from or goes to; None for one that shows none."""
    for address in addresses(packet):
        raw = packed(address)
        if len(raw) == 4 and raw[0] == 10 and raw[1] >= _FIRST_CLIENT_NET:
            return (raw[1] - _FIRST_CLIENT_NET) * _SCENARIOS_OF_A_NET + raw[2]
        if len(raw) == 16 and raw[4:6] == b"\0\x0c":
            return int.from_bytes(raw[6:8], "big") - _FIRST_CLIENT_NET6
    return None


def _server_mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 1, number])


class Wire:
    """The outside of one director: sends frames to it and sees all that it sends."""

    def __init__(self, prefix: str, shape: Shape = PLAIN) -> None:
        self.prefix = prefix
        self._shape = shape
        self._director = os.open(f"/run/netns/{prefix}-director", os.O_RDONLY)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._owners = {_server_mac(n): f"rs{n}" for n in range(1, SERVERS + 1)} | {_CLIENT_MAC: CLIENT}
        self._macs = {name: mac for mac, name in self._owners.items()}
        outside = os.open(f"/run/netns/{prefix}-outside", os.O_RDONLY)
        enter_namespace(outside)
        os.close(outside)
        self._near, self._far = _listen("eth0"), _listen("eth1")
        enter_namespace(self._home)

    def close(self) -> None:
        """Give everything back."""
        self._near.close()
        self._far.close()
        os.close(self._director)
        os.close(self._home)

    @contextmanager
    def at_director(self) -> Iterator[None]:
        """Be in the director's namespace for the ``with`` block."""
        enter_namespace(self._director)
        try:
            yield
        finally:
            enter_namespace(self._home)

    def take_addresses(self, scenarios: range) -> None:
        """Give the director the VIPs of those scenarios."""
        on = f"dev {self._shape.interface}"
        pairs = map(virtual_addresses, scenarios)
        commands = [f"address add {v4} {on}\naddress add {v6} {on} nodad" for v4, v6 in pairs]
        with self.at_director():
            ip_batch(commands)

    def send(self, packet: bytes, node: str = CLIENT) -> None:
        """Let a client, or a real server, send an IP packet to the director."""
        ethertype = pack(">H", _ETHERTYPES[packet[0] >> 4])
        if node != CLIENT and int(node.removeprefix("rs")) > NEAR_SERVERS:
            _send(self._far, _FAR_DIRECTOR_MAC + self._macs[node] + ethertype + packet)
            return
        tag = pack(">HH", _VLAN, self._shape.vlan) if self._shape.vlan else b""
        _send(self._near, DIRECTOR_MAC + self._macs[node] + tag + ethertype + packet)

    def seen(self) -> list[tuple[str, bytes]]:
        """Every IP packet that has come out since the last call, and who got it.

        A question to the director on each wire follows what was sent: when both
        are answered, everything before has gone its way.
        """
        near = self._seen_on(self._near, DIP[0], DIRECTOR_MAC, self._shape.vlan)
        return near + self._seen_on(self._far, FAR_DIP[0], _FAR_DIRECTOR_MAC, 0)

    def _seen_on(self, wire: socket.socket, address: str, mac: bytes, vlan: int) -> list[tuple[str, bytes]]:
        # An ARP probe (RFC 5227): the kernel answers it and learns nothing from it.
        probe = pack(">HHBBH", 1, 0x0800, 6, 4, 1) + _PROBE_MAC + bytes(4) + bytes(6)
        probe += socket.inet_aton(address)
        tag = pack(">HH", _VLAN, vlan) if vlan else b""
        _send(wire, mac + _PROBE_MAC + tag + pack(">H", _ARP) + probe)
        deadline = time.monotonic() + _PROBE_TIMEOUT
        packets: list[tuple[str, bytes]] = []
        while True:
            try:
                frame, tagged = _receive(wire)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.prefix}: the director does not answer") from None
                time.sleep(0.0005)
                continue
            ethertype = int.from_bytes(frame[12:14], "big")
            if ethertype == _ARP and frame[:6] == _PROBE_MAC:
                return packets
            if ethertype in _ETHERTYPES.values() and not frame[0] & 1 and not is_neighbour_talk(frame[14:]):
                owner = self._owners.get(frame[:6], frame[:6].hex(":"))
                # What leaves with a wrong tag goes to nobody that we know.
                packets.append((owner if tagged == vlan else f"vlan-{tagged}-{owner}", frame[14:]))


def _listen(interface: str) -> socket.socket:
    # One socket for both ways: it does not see its own frames.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    opened.bind((interface, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


def _send(wire: socket.socket, frame: bytes) -> None:
    # It does not block, and many packets fill its buffer.
    select.select([], [wire], [], _PROBE_TIMEOUT)
    wire.send(frame)


def _receive(wire: socket.socket) -> tuple[bytes, int]:
    """A frame without its VLAN tag, and the tag; 0 for none."""
    frame, ancillary, _, _ = wire.recvmsg(65536, socket.CMSG_SPACE(20))
    for level, kind, content in ancillary:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            # struct tpacket_auxdata (linux/if_packet.h)
            status, *_, tag, _ = unpack("IIIHHHH", content)
            if status & _TAG_VALID:
                return frame, tag & 0xFFF
    if frame[12:14] == pack(">H", _VLAN):
        return frame[:12] + frame[16:], int.from_bytes(frame[14:16], "big") & 0xFFF
    return frame, 0


def open_wire(prefix: str, shape: Shape = PLAIN) -> tuple[Wire, bool]:
    """The wire of that name, and whether it is new: one that was not taken away is used again."""
    is_new = not os.path.exists(f"/run/netns/{prefix}-director")
    if is_new:
        _build(prefix, shape)
    return Wire(prefix, shape), is_new


def take_away(prefix: str) -> None:
    """Take a wire's namespaces away; harmless when they are not there."""
    for node in (f"{prefix}-outside", f"{prefix}-director"):
        delete_namespace(node)


def _build(prefix: str, shape: Shape) -> None:
    outside, director = nodes = (f"{prefix}-outside", f"{prefix}-director")
    for node in nodes:
        add_namespace(node)
    with _inside(outside):
        set_sysctl("ipv6/conf/default/disable_ipv6", 1)
        wires = []
        for name, mac in (("eth0", DIRECTOR_MAC), ("eth1", _FAR_DIRECTOR_MAC)):
            far = f"peer name {name} netns {director} address {mac.hex(':')}"
            wires += [f"link add {name} type veth {far}", f"link set {name} up"]
        ip_batch(wires)
    with _inside(director):
        ip_batch(shape.preparing)
        for interface in dict.fromkeys(("eth0", "eth1", shape.interface)):
            complete_checksums(interface)
            set_sysctl(f"ipv6/conf/{interface}/accept_dad", 0)
            set_sysctl(f"ipv4/conf/{interface}/send_redirects", 0)
        # What comes in by one interface leaves by it: a director's redirects would lead around it.
        set_sysctl("ipv4/conf/all/send_redirects", 0)
        # What only NAT's answers need; whether Direct Routing and tunnels do without is for other tests.
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            set_sysctl(setting, 1)
        # An error that a limiter swallowed would look like a difference.
        for setting in ("ipv4/icmp_ratelimit", "ipv4/icmp_ratemask", "ipv6/icmp/ratelimit"):
            set_sysctl(setting, 0)
        ip_batch(_addressing(shape))


def _addressing(shape: Shape) -> Sequence[str]:
    main = shape.interface
    commands = [
        f"address add {DIP[0]}/24 dev {main}",
        f"address add {DIP[1]}/64 dev {main} nodad",
        f"address add {FAR_DIP[0]}/24 dev eth1",
        f"address add {FAR_DIP[1]}/64 dev eth1 nodad",
        f"link set eth1 mtu {FAR_MTU}",
        *(f"link set {name} up" for name in dict.fromkeys(("lo", "eth0", main, "eth1"))),
    ]
    neighbours = [(_ROUTER, _CLIENT_MAC, main)]
    neighbours += [
        (server_addresses(n), _server_mac(n), main if n <= NEAR_SERVERS else "eth1")
        for n in range(1, SERVERS + 1)
    ]
    for both, mac, interface in neighbours:
        for address in both:
            commands.append(f"neighbour add {address} lladdr {mac.hex(':')} dev {interface} nud permanent")
    commands += [
        f"route add 10.{_FIRST_CLIENT_NET}.0.0/10 via {_ROUTER[0]}",
        f"route add 2001:db8:c::/48 via {_ROUTER[1]}",
    ]
    return commands


@contextmanager
def _inside(node: str) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{node}", os.O_RDONLY)
    try:
        enter_namespace(there)
        yield
    finally:
        enter_namespace(home)
        os.close(there)
        os.close(home)
