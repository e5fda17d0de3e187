# SPDX-License-Identifier: GPL-2.0-only
"""The network of raw packets: a director, and a wire behind which everybody else is only pretended.

    outside ── eth0 ──── eth0 director (DIP, VIPs)

The outside has no addresses and answers nothing: what stands there for the
client is one MAC address, and one for each real server, so the frames seen
on the wire tell who would have got them, and nobody's TCP meddles.  The
director knows all neighbours beforehand.  Runs inside the guest, as root,
in the thread that plays.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import pack

from .network import enter_namespace, ip_batch, set_sysctl
from .segments import is_neighbour_talk

SERVERS = 6
CLIENTS = 3
DIP = ("10.0.0.2", "2001:db8::2")

_ETH_P_ALL = 3
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_ARP = 0x0806
DIRECTOR_MAC = bytes.fromhex("020000000002")
_CLIENT_MAC = bytes.fromhex("020000000001")
_PROBE_MAC = bytes.fromhex("0200000000ff")
_RECEIVE_BUFFER = 1 << 22
_PROBE_TIMEOUT = 5.0

CLIENT = "client"


def server_addresses(number: int) -> tuple[str, str]:
    """IPv4 and IPv6 address of a real server, counted from 1."""
    return f"10.0.0.{10 + number}", f"2001:db8::{10 + number}"


def client_addresses(number: int) -> tuple[str, str]:
    """IPv4 and IPv6 address of a client, counted from 1."""
    return f"10.0.0.{200 + number}", f"2001:db8::{200 + number}"


def virtual_addresses(number: int) -> tuple[str, str]:
    """The VIPs of the n-th scenario, all of one length: no scenario sees what another left behind."""
    return f"10.1.{100 + number // 100}.{100 + number % 100}", f"2001:db8:1::{1000 + number}"


def _server_mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 1, number])


class Wire:
    """The outside of one director: sends frames to it and sees all that it sends."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._director = os.open(f"/run/netns/{prefix}-director", os.O_RDONLY)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._owners = {_server_mac(n): f"rs{n}" for n in range(1, SERVERS + 1)} | {_CLIENT_MAC: CLIENT}
        outside = os.open(f"/run/netns/{prefix}-outside", os.O_RDONLY)
        enter_namespace(outside)
        os.close(outside)
        # One socket for both ways: it does not see its own frames.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.bind(("eth0", _ETH_P_ALL))
        self._socket.setblocking(False)
        enter_namespace(self._home)

    def close(self) -> None:
        """Give everything back."""
        self._socket.close()
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

    def take_addresses(self, numbers: range) -> None:
        """Give the director the VIPs of those scenarios."""
        pairs = map(virtual_addresses, numbers)
        with self.at_director():
            ip_batch(
                [
                    f"address add {address} dev eth0" + (" nodad" if ":" in address else "")
                    for pair in pairs
                    for address in pair
                ]
            )

    def send(self, packet: bytes) -> None:
        """Let the client send an IP packet to the director."""
        ethertype = _ETHERTYPES[packet[0] >> 4]
        select.select([], [self._socket], [], _PROBE_TIMEOUT)  # many packets fill its buffer
        self._socket.send(DIRECTOR_MAC + _CLIENT_MAC + pack(">H", ethertype) + packet)

    def seen(self) -> list[tuple[str, bytes]]:
        """Every IP packet that has come out since the last call, and who got it.

        A question to the director follows what was sent: when it is answered,
        everything before has gone its way.
        """
        self._ask()
        deadline = time.monotonic() + _PROBE_TIMEOUT
        packets: list[tuple[str, bytes]] = []
        while True:
            try:
                frame = self._socket.recv(65536)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.prefix}: the director does not answer") from None
                time.sleep(0.0005)
                continue
            ethertype = int.from_bytes(frame[12:14], "big")
            if ethertype == _ARP and frame[:6] == _PROBE_MAC:
                return packets
            if ethertype in _ETHERTYPES.values() and not frame[0] & 1 and not is_neighbour_talk(frame[14:]):
                packets.append((self._owners.get(frame[:6], frame[:6].hex(":")), frame[14:]))

    def _ask(self) -> None:
        """Send an ARP probe (RFC 5227): the kernel answers it and learns nothing from it."""
        target = socket.inet_aton(DIP[0])
        body = pack(">HHBBH", 1, 0x0800, 6, 4, 1) + _PROBE_MAC + bytes(4) + bytes(6) + target
        self._socket.send(DIRECTOR_MAC + _PROBE_MAC + pack(">H", _ARP) + body)


def open_wire(prefix: str) -> tuple[Wire, bool]:
    """The wire of that name, and whether it is new: one that was not taken away is used again."""
    is_new = not os.path.exists(f"/run/netns/{prefix}-director")
    if is_new:
        _build(prefix)
    return Wire(prefix), is_new


def take_away(prefix: str) -> None:
    """Take a wire's namespaces away; harmless when they are not there."""
    for node in (f"{prefix}-outside", f"{prefix}-director"):
        subprocess.run(["ip", "netns", "delete", node], stderr=subprocess.DEVNULL, check=False)


def _build(prefix: str) -> None:
    outside, director = nodes = (f"{prefix}-outside", f"{prefix}-director")
    for node in nodes:
        subprocess.run(["ip", "netns", "add", node], check=True)
    with _inside(outside):
        set_sysctl("ipv6/conf/default/disable_ipv6", 1)
        mac = DIRECTOR_MAC.hex(":")
        ip_batch(
            [f"link add eth0 type veth peer name eth0 netns {director} address {mac}", "link set eth0 up"]
        )
    with _inside(director):
        for setting in ("ipv6/conf/default/accept_dad", "ipv6/conf/eth0/accept_dad"):
            set_sysctl(setting, 0)
        # An error that a limiter swallowed would look like a difference.
        for setting in ("ipv4/icmp_ratelimit", "ipv4/icmp_ratemask", "ipv6/icmp/ratelimit"):
            set_sysctl(setting, 0)
        ip_batch(_addressing())


def _addressing() -> Sequence[str]:
    commands = [f"address add {DIP[0]}/24 dev eth0", f"address add {DIP[1]}/64 dev eth0 nodad"]
    commands += ["link set lo up", "link set eth0 up"]
    neighbours = [(server_addresses(n), _server_mac(n)) for n in range(1, SERVERS + 1)]
    neighbours += [(client_addresses(n), _CLIENT_MAC) for n in range(1, CLIENTS + 1)]
    for addresses, mac in neighbours:
        for address in addresses:
            commands.append(f"neighbour add {address} lladdr {mac.hex(':')} dev eth0 nud permanent")
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
