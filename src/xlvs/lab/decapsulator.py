# SPDX-License-Identifier: GPL-2.0-only
"""What stands in for tunnel devices on a lab's real servers: a device tunl0 and an eBPF program.

Not every kernel has ipip, ip_gre and fou.  So that a lab is the same on each,
and LVS-TUN tutorials can be typed as printed, its real servers have a device
of that name from the beginning, down and without an address as after
``modprobe ipip``, and an eBPF program at TC ingress of their interface that
unwraps what comes to their own address and hands it in by tunl0
(bpf/decapsulate.bpf.c).  While tunl0 is down what is handed in is lost, and
rp_filter is asked there, as with the real one.

Nothing is pinned: program and device live and die with the namespace.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from xlvs.errors import XlvsError
from xlvs.kernel import libbpf
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import namespaces, offloads, wiring
from xlvs.lab.topology import Node, Plan
from xlvs.realserver import decapsulator
from xlvs.realserver.wanted import GRE, IPIP

DEVICE = "tunl0"

_KERNELS_OWN = "tunl0-kernel"
_MTU = 1480
_HANDLE = 1
_PRIORITY = 1
_DEVICE = "address {mac} mtu {mtu} type bridge stp_state 0 mcast_snooping 0"
_MODPROBE = """\
#!/bin/sh
# This node's {device} is there already, whatever modules the kernel has: those for
# tunnels need no loading.  If somebody has removed it, ipip brings it back, and
# with -r takes it away.  All other modules are the machine's.
remove=
for word in "$@"; do
    case $word in
        -r|--remove) remove=yes ;;
        -*) ;;
        ipip)
            if [ "$remove" ]; then
                ip link del {device} || exit 1
            elif [ ! -e /proc/sys/net/ipv4/conf/{device} ]; then
                ip link add {device} index {index} {made} || exit 1
                ip link set {device} arp off addrgenmode none || exit 1
            fi ;;
        ip_gre|gre|fou|fou6|sit|ip6_tunnel|ip6_gre|ip_tunnel|tunnel4|tunnel6) ;;
        *) exec {program} "$@" ;;
    esac
done
"""


def install(namespace: str, node: Node, gue_ports: tuple[int, ...]) -> None:
    """Give a wired node its tunl0 and the program; raises `XlvsError` where the kernel refuses."""
    wire = node.interfaces[0]
    commands = []
    # With the module ipip in the kernel every namespace is born with a tunl0, which cannot be removed.
    if any(link["ifname"] == DEVICE for link in wiring.links(namespace)):
        commands.append(f"link set {DEVICE} name {_KERNELS_OWN}")
    # A bridge without ports is a device that every kernel has which can have a lab.
    # The same MAC: frames are handed in with the Ethernet header that they came with.
    commands.append(f"link add {DEVICE} {_DEVICE.format(mac=wire.mac, mtu=_MTU)}")
    commands.append(f"link set {DEVICE} arp off addrgenmode none")
    wiring.batch(namespace, commands)
    own = tuple(address.partition("/")[0] for address in wire.addresses)
    program = decapsulator.PROGRAM
    with network_namespace(namespaces.path(namespace)), libbpf.BpfObject(str(decapsulator.OBJECT)) as opened:
        decapsulator.load(opened, own, (IPIP, GRE), gue_ports, socket.if_nametoindex(DEVICE))
        try:
            index = socket.if_nametoindex(wire.name)
            libbpf.attach_clsact(index, "ingress", opened.program(program), _HANDLE, _PRIORITY)
        except OSError as error:
            raise XlvsError(
                f"cannot attach the decapsulator to {wire.name} of {node.name}: {error.strerror}",
                "the topology tun needs a kernel with CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT",
            ) from error


def prepare_ports(switch: str, plan: Plan) -> None:
    """Have the switch cut up datagrams that were handed over together (UDP_SEGMENT) for nodes that unwrap.

    In GUE the program could not: what is left is to be cut up by a socket, but no BPF helper takes
    the marks of the tunnel from it (``encapsulation``, SKB_GSO_UDP_TUNNEL), by which the kernel
    would look for a tunnel's header once more (udp4_ufo_fragment()).  A network card would have
    cut it up on the way.  Raises `XlvsError`.
    """
    with network_namespace(namespaces.path(switch)):
        for port in (wire.port for node in plan.nodes if node.unwraps for wire in node.interfaces):
            try:
                offloads.cut_datagrams(port)
            except OSError as error:
                raise XlvsError(
                    f"cannot set the switch's port {port} to cut up datagrams: {error.strerror}",
                    f"it would be: ethtool -K {port} tx-udp-segmentation off",
                ) from error


def is_installed(namespace: str, node: Node) -> bool:
    """Are tunl0 and the program there?"""
    with network_namespace(namespaces.path(namespace)):
        try:
            socket.if_nametoindex(DEVICE)
            index = socket.if_nametoindex(node.interfaces[0].name)
        except OSError:
            return False
        return libbpf.clsact_program(index, "ingress", _HANDLE, _PRIORITY) != 0


def configure(node_folder: Path, namespace: str, node: Node) -> None:
    """Write a node's ``modprobe``, which does for tunnels what loading their modules would."""
    with network_namespace(namespaces.path(namespace)):
        index = socket.if_nametoindex(DEVICE)
    made = _DEVICE.format(mac=node.interfaces[0].mac, mtu=_MTU)
    wrapper = node_folder / "bin/modprobe"
    program = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin") or "/sbin/modprobe"
    wrapper.write_text(_MODPROBE.format(device=DEVICE, program=program, index=index, made=made))
    wrapper.chmod(0o755)
