# SPDX-License-Identifier: GPL-2.0-only
"""The network that a scenario is played in: namespaces in the guest, on one switch.

    client ──┬── director (DIP, VIP)
             ├── rs1, rs2, … (VIP on lo, silent to ARP)

Runs inside the guest, as root, in the thread that plays: entering a
namespace is a property of the thread.  The names of the namespaces begin with
the director's kind, so that both kinds can stand side by side.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

CLIENT = "client"
DIRECTOR = "director"
SWITCH = "switch"

VIP = ("10.0.0.100", "2001:db8::100")
MORE_CLIENT_ADDRESSES = tuple(f"10.0.0.{last}" for last in range(201, 205))
ADDRESS_TIMEOUT = 10.0
IFA_F_TENTATIVE = 0x40
CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_SIOCETHTOOL = 0x8946

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Network:
    """A built network; every address comes as a pair of IPv4 and IPv6."""

    prefix: str
    servers: tuple[str, ...]
    is_used: bool = False
    """Whether its director has been part of another network before."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node on the switch."""
        return (CLIENT, DIRECTOR, *self.servers)

    def namespace(self, node: str) -> str:
        """The name of a node's namespace."""
        return f"{self.prefix}-{node}"

    def addresses(self) -> dict[str, str]:
        """What the placeholders in a scenario's steps stand for."""
        places = {"vip": VIP[0], "vip6": VIP[1]}
        for node in self.nodes:
            name = {DIRECTOR: "dip"}.get(node, node)
            v4, v6 = _address(node)
            places[name] = v4
            places[f"{name}_6"] = v6
        return places

    @contextmanager
    def inside(self, node: str) -> Iterator[None]:
        """Be in a node's namespace for the ``with`` block."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self.namespace(node)}", os.O_RDONLY)
            try:
                enter_namespace(there)
            finally:
                os.close(there)
            yield
        finally:
            enter_namespace(here)
            os.close(here)

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in a node."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(node)}", *command]


@contextmanager
def network(prefix: str, servers: int, *, lasting_director: bool = False) -> Iterator[Network]:
    """Build a network with that many real servers, and take it away after the block.

    A `lasting_director` stays, without interfaces, and is part of the next one of that name.
    """
    built = Network(
        prefix,
        tuple(f"rs{number}" for number in range(1, servers + 1)),
        os.path.exists(f"/run/netns/{prefix}-{DIRECTOR}"),
    )
    try:
        _build(built)
        yield built
    finally:
        if lasting_director and os.path.exists(f"/run/netns/{built.namespace(DIRECTOR)}"):
            with built.inside(DIRECTOR):
                ip_batch(["link delete eth0"])
        for node in (SWITCH, *built.nodes):
            if not (lasting_director and node == DIRECTOR):
                delete_namespace(built.namespace(node))


def _address(node: str) -> tuple[str, str]:
    last = {CLIENT: 1, DIRECTOR: 2}.get(node) or 10 + int(node.removeprefix("rs"))
    return f"10.0.0.{last}", f"2001:db8::{last}"


def _build(built: Network) -> None:
    for node in (SWITCH, *built.nodes):
        if not (node == DIRECTOR and built.is_used):
            add_namespace(built.namespace(node))
    with built.inside(SWITCH):
        wires = ["link add switch type bridge forward_delay 0", "link set switch up"]
        for node in built.nodes:
            far = built.namespace(node)
            wires += [
                f"link add {node} type veth peer name eth0 netns {far}",
                f"link set {node} master switch",
                f"link set {node} up",
            ]
        ip_batch(wires)
    for node in built.nodes:
        with built.inside(node):
            _prepare(node)
    for node in built.nodes:
        with built.inside(node):
            _wait_for_addresses()


def _prepare(node: str) -> None:
    """Set a node up; the caller is inside it."""
    set_sysctl("ipv6/conf/default/accept_dad", 0)
    set_sysctl("ipv6/conf/eth0/accept_dad", 0)
    # An error that the limiter swallowed would look like a difference.
    set_sysctl("ipv4/icmp_ratelimit", 0)
    set_sysctl("ipv6/icmp/ratelimit", 0)
    v4, v6 = _address(node)
    commands = [f"address add {v4}/24 dev eth0", f"address add {v6}/64 dev eth0 nodad"]
    if node == CLIENT:
        commands += [f"address add {address}/24 dev eth0" for address in MORE_CLIENT_ADDRESSES]
    elif node == DIRECTOR:
        # A director that has been used has what a scenario has set.
        set_sysctl("ipv4/ip_forward", 0)
        set_sysctl("ipv6/conf/all/forwarding", 0)
        for name in ("all", "default", "eth0"):
            set_sysctl(f"ipv4/conf/{name}/send_redirects", 1)
        commands += [f"address add {VIP[0]}/32 dev eth0", f"address add {VIP[1]}/128 dev eth0 nodad"]
    else:
        for name in ("all", "lo"):
            set_sysctl(f"ipv4/conf/{name}/arp_ignore", 1)
            set_sysctl(f"ipv4/conf/{name}/arp_announce", 2)
        commands += [f"address add {VIP[0]}/32 dev lo", f"address add {VIP[1]}/128 dev lo nodad"]
    ip_batch([*commands, "link set lo up", "link set eth0 up"])


def _wait_for_addresses() -> None:
    """Wait until IPv6 addresses may be used: ``nodad`` or not, a worker of the kernel's sees to it."""
    deadline = time.monotonic() + ADDRESS_TIMEOUT
    while any(int(line.split()[4], 16) & IFA_F_TENTATIVE for line in _addresses6()):
        if time.monotonic() > deadline:
            raise TimeoutError("IPv6 addresses stay tentative")
        time.sleep(0.005)


def _addresses6() -> list[str]:
    """The lines of the kernel's list: address, index, prefix length, scope, flags, interface."""
    with open("/proc/thread-self/net/if_inet6") as addresses:
        return addresses.read().splitlines()


def add_namespace(name: str) -> None:
    """Make a network namespace with a name, as ``ip netns add`` does."""
    os.makedirs("/run/netns", exist_ok=True)
    path = f"/run/netns/{name}"
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(CLONE_NEWNET), "make a network namespace")
        mounted = _libc.mount(b"/proc/thread-self/ns/net", path.encode(), b"none", _MS_BIND, None)
        _check(mounted, f"mount {path}")
    finally:
        enter_namespace(here)
        os.close(here)


def delete_namespace(name: str) -> None:
    """Take a namespace's name away, and with it the namespace; harmless when there is none."""
    path = f"/run/netns/{name}"
    if os.path.exists(path):
        _libc.umount2(path.encode(), _MNT_DETACH)
        os.unlink(path)


def ip_batch(commands: Sequence[str]) -> None:
    """Carry out commands of ip(8) in the namespace that the caller is in."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def set_sysctl(name: str, value: int) -> None:
    """Set ``net.NAME`` (with slashes) in the namespace that the caller is in."""
    with open(f"/proc/sys/net/{name}", "w") as setting:
        setting.write(str(value))


def complete_checksums(interface: str) -> None:
    """Have checksums made before packets leave by an interface, so that they are there to be compared."""
    # struct ethtool_value: ETHTOOL_STXCSUM, off (linux/ethtool.h).
    setting = ctypes.create_string_buffer(struct.pack("II", 0x17, 0))
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(setting))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)


def enter_namespace(descriptor: int) -> None:
    """Move the calling thread into the network namespace of an open file."""
    # os.setns is not there before Python 3.12.
    _check(_libc.setns(descriptor, CLONE_NEWNET), "enter a network namespace")


def _check(result: int, doing: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {doing}: {os.strerror(code)}")
