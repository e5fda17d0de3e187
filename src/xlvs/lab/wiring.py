# SPDX-License-Identifier: GPL-2.0-only
"""Wires: bridges in the switch, veth pairs to the nodes, addresses and routes.

Everything is a list of ``ip`` commands for one ``ip -batch`` in a namespace:
what is done can be read, and typed, as it stands.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from xlvs.errors import XlvsError
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import namespaces
from xlvs.lab.topology import Interface, Node, Plan

# A new namespace inherits some settings from the machine and not others.  A
# lab starts from the kernel's own defaults, wherever it is built.
_BASELINE = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/*/accept_local": "0",
    "net/ipv4/conf/*/arp_announce": "0",
    "net/ipv4/conf/*/arp_filter": "0",
    "net/ipv4/conf/*/arp_ignore": "0",
    "net/ipv4/conf/*/log_martians": "0",
    "net/ipv4/conf/*/rp_filter": "0",
    "net/ipv4/conf/*/route_localnet": "0",
    "net/ipv4/conf/*/send_redirects": "1",
    # Addresses are ours to give: no waiting for duplicates, no listening to routers.
    "net/ipv6/conf/*/accept_dad": "0",
    "net/ipv6/conf/*/accept_ra": "0",
    "net/ipv6/conf/*/disable_ipv6": "0",
}
_FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
_SWITCH = {
    # Bridged frames are nobody's business: no firewall, no defragmentation on the way.
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/ipv6/conf/*/disable_ipv6": "1",
}

# Interface numbers in the switch begin here.  Two ends of a veth pair that have
# the same number in their namespaces would be taken for something else than a
# pair, and their carrier be noticed up to a second late (link_watch.c).
_FIRST_PORT_INDEX = 101


def ipv6_here() -> bool:
    """Does this machine's kernel have IPv6?"""
    return Path("/proc/sys/net/ipv6").exists()


def prepare_switch(namespace: str, plan: Plan) -> None:
    """Make one bridge for each segment."""
    _write_settings(namespace, _SWITCH)
    commands = ["link set lo up"]
    for segment in plan.segments:
        commands.append(
            f"link add {segment} type bridge stp_state 0 forward_delay 0 mcast_snooping 0 ageing_time 30000"
        )
        commands.append(f"link set {segment} up")
    batch(namespace, commands)


def prepare_node(namespace: str, node: Node) -> None:
    """Set a new namespace to the kernel's defaults and its loopback up."""
    _write_settings(namespace, _BASELINE | (_FORWARDING if node.forwards else {}))
    batch(namespace, ["link set lo up"])


def connect(switch: str, wires: list[tuple[Node, str]]) -> None:
    """Make the veth pairs of these nodes (node, its namespace); the ports are not plugged in yet."""
    commands = []
    taken = {link["ifindex"] for link in links(switch)}
    number = _FIRST_PORT_INDEX
    for node, namespace in wires:
        for interface in node.interfaces:
            while number in taken:
                number += 1
            taken.add(number)
            commands.append(
                f"link add name {interface.port} index {number} type veth"
                f" peer name {interface.name} address {interface.mac} netns {namespace}"
            )
            commands.append(f"link set {interface.port} up")
    batch(switch, commands)
    for node, namespace in wires:
        batch(namespace, _node_commands(node))


def remove_ports(switch: str, nodes: tuple[Node, ...]) -> None:
    """Remove what is left of these nodes' wires at the switch's end, and with it the other end."""
    ports = {interface.port for node in nodes for interface in node.interfaces}
    present = ports & {link["ifname"] for link in links(switch)}
    while present:
        try:
            batch(switch, [f"link delete {port}" for port in sorted(present)])
            return
        except XlvsError:
            # A namespace on its way out takes them along in its own time.
            left = ports & {link["ifname"] for link in links(switch)}
            if left == present:
                raise
            present = left


def plug_in(switch: str, plan: Plan) -> None:
    """Put every port on its bridge, in the order of the plan, whatever order they were in."""
    present = {link["ifname"] for link in links(switch)}
    ports = [(interface.port, interface.segment) for node in plan.nodes for interface in node.interfaces]
    commands = [f"link set {port} nomaster" for port, _ in ports if port in present]
    commands += [f"link set {port} master {segment}" for port, segment in ports if port in present]
    batch(switch, commands)


def links(namespace: str) -> list[dict[str, Any]]:
    """The interfaces of a namespace with their addresses, as ``ip -json address`` tells them."""
    shown = subprocess.run(
        ["ip", "-netns", namespace, "-json", "-details", "address", "show"],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C on the terminal is not for it
    )
    if shown.returncode != 0:
        raise XlvsError(f"cannot look into the namespace {namespace}: {shown.stderr.strip()}")
    found: list[dict[str, Any]] = [entry for entry in json.loads(shown.stdout or "[]") if entry]
    return found


def is_whole(interface: Interface, present: list[dict[str, Any]]) -> bool:
    """Is the interface there among a node's `links`, up, with its addresses?"""
    for link in present:
        if link["ifname"] == interface.name:
            addresses = {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]}
            return "UP" in link["flags"] and addresses.issuperset(interface.addresses)
    return False


def is_plugged_in(interface: Interface, switch_links: list[dict[str, Any]]) -> bool:
    """Is the interface's port up and on its bridge, among the switch's `links`?"""
    for link in switch_links:
        if link["ifname"] == interface.port:
            return "UP" in link["flags"] and link.get("master") == interface.segment
    return False


def batch(namespace: str, commands: list[str]) -> None:
    """Run these ``ip`` commands in a namespace; raises `XlvsError` with the first that failed."""
    if not commands:
        return
    ran = subprocess.run(
        ["ip", "-netns", namespace, "-batch", "-"],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C on the terminal is not for it
    )
    if ran.returncode != 0:
        # ip says "Command failed -:3": the number of the line.
        line = ran.stderr.rpartition("-:")[2].strip()
        failed = commands[int(line) - 1] if line.isdigit() and int(line) <= len(commands) else "ip -batch"
        reason = ran.stderr.partition("Command failed")[0].strip()
        raise XlvsError(
            f"in the namespace {namespace}: ip {failed}: {reason}",
            "labs need a kernel with CONFIG_NET_NS, CONFIG_VETH and CONFIG_BRIDGE",
        )


def _node_commands(node: Node) -> list[str]:
    commands = []
    for interface in node.interfaces:
        for address in interface.addresses:
            options = " nodad" if ":" in address else " broadcast +"
            commands.append(f"address add {address} dev {interface.name}{options}")
        commands.append(f"link set {interface.name} up")
    # An address given before the interface is up; a route only works after.
    return commands + [f"route add {route}" for route in node.routes]


def _write_settings(namespace: str, settings: dict[str, str]) -> None:
    """Write these under /proc/sys of a namespace; ``*`` stands for all and default."""
    with network_namespace(namespaces.path(namespace)):
        for name, value in settings.items():
            for each in (name.replace("*", "all"), name.replace("*", "default")) if "*" in name else (name,):
                setting = Path("/proc/sys") / each
                # /proc/sys/net shows the namespace of whoever opens it.
                if setting.exists():
                    setting.write_text(value)
