# SPDX-License-Identifier: GPL-2.0-only
"""Kernel IPVS beside xlvs, inside the guest: ``python -m bench.guest_player``.

Each director stands in a network of its own, in its own namespaces:

    generator: wire ── eth0 [director] eth1 ── wire: real server

pktgen sends by the generator's wire (answers: by the real server's), the other
end drops what arrives: as a frame, at XDP, or as an skb, at TC.  What is sent
back and forth runs on one CPU, so the time of a run is all that a packet costs.
Writes a JSON object to stdout: nanoseconds for a packet of each round, by
receiver and row, and the part of each row's packets that XDP forwarded.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import pktgen
from bench.guest_rows import (
    ALONE,
    ANSWERS,
    DR,
    DROPPED_TC,
    DROPPED_XDP,
    FRAMES,
    IPVS,
    METHODS,
    NAT,
    REDIRECT_TC,
    REDIRECT_XDP,
    SKBS,
    XLVS_TC,
    XLVS_XDP,
    row,
)
from bench.pktgen import Packets
from bench.programs import SCHED_CLS, TC_ACT_SHOT, XDP_DROP, redirecting, returning, take_frames
from tests.packet.offloads import leave_nothing_to_the_card
from tests.packet.spaces import ip, new_namespace
from xlvs.datapath.maps import Maps
from xlvs.kernel import bpf, bpffs, libbpf
from xlvs.kernel.namespaces import network_namespace

FLOWS = 1000
VIP, CLIENT = "10.0.0.100", "10.0.0.200"
_BIN = Path(sys.executable).parent
_TABLE = (
    f"-A -u {VIP}:80 -s rr",
    f"-a -u {VIP}:80 -r 10.0.1.10 -g",
    f"-A -u {VIP}:81 -s rr",
    f"-a -u {VIP}:81 -r 10.0.1.11:81 -m",
)
_FORWARD = {
    DR: Packets("wire", "02:00:00:00:00:01", CLIENT, VIP, 80, FLOWS),
    NAT: Packets("wire", "02:00:00:00:00:01", CLIENT, VIP, 81, FLOWS),
}
_ANSWERS = Packets("wire", "02:00:00:00:00:02", "10.0.1.11", CLIENT, 81, FLOWS, answers=True)


def _at_tc(interface: str, program: int) -> None:
    libbpf.attach_clsact(socket.if_nametoindex(interface), "ingress", program, 1, 1)


def _at_xdp(interface: str, program: int) -> None:
    libbpf.attach_xdp(socket.if_nametoindex(interface), program)


class Network:
    """A director between a generator and a real server."""

    def __init__(self, stack: ExitStack) -> None:
        self.generator, self.director, self.server = (stack.enter_context(new_namespace()) for _ in range(3))
        with network_namespace(self.director):
            for number, peer in ((0, self.generator), (1, self.server)):
                ip(
                    f"link add eth{number} index {11 + number} address 02:00:00:00:00:0{1 + number} "
                    f"type veth peer name wire address 02:00:00:00:0{1 + number}:01 netns {peer}"
                )
                ip(f"link set eth{number} up")
                ip(f"addr add 10.0.{number}.1/24 dev eth{number}")
            ip(f"addr add {VIP}/32 dev eth0")
            ip(f"neigh add {CLIENT} lladdr 02:00:00:00:01:01 nud permanent dev eth0")
            for last in (10, 11):
                ip(f"neigh add 10.0.1.{last} lladdr 02:00:00:00:02:01 nud permanent dev eth1")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            for name in ("all", "eth0", "eth1"):
                Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
        for end in (self.generator, self.server):
            with network_namespace(end):
                leave_nothing_to_the_card("wire")
                take_frames("wire")
                _at_xdp("wire", returning(bpf.XDP_PROGRAM, XDP_DROP))
                _at_tc("wire", returning(SCHED_CLS, TC_ACT_SHOT))
                ip("link set wire up")

    def receive_as_skbs(self) -> None:
        """From now on what arrives at either end becomes an skb before it is dropped."""
        for end in (self.generator, self.server):
            with network_namespace(end):
                ip("link set wire xdp off")

    def measure(self, packets: Packets, count: int, *, arrive: bool = True) -> tuple[float, float]:
        """Send so many; nanoseconds for each, and which part of them XDP forwarded.

        Raises `pktgen.Failed` where not all ``arrive`` that should.
        """
        source, target = (self.generator, self.server)
        if packets.answers:
            source, target = target, source
        before = (_received(target), self._forwarded_at_xdp())
        with network_namespace(source):
            taken = pktgen.send(packets, count)
        time.sleep(0.02)  # the last ones are on their way
        received = _received(target) - before[0]
        if arrive and received < count:
            raise pktgen.Failed(f"of {count} packets {received} have arrived")
        return taken, (self._forwarded_at_xdp() - before[1]) / count

    def _forwarded_at_xdp(self) -> int:
        with network_namespace(self.director):
            folder = bpffs.namespace_folder()
            if folder is None:
                return 0
            maps = Maps(folder)
            try:
                return maps.events()["xdp_forwarded"]
            finally:
                maps.close()


def _received(namespace: str) -> int:
    with network_namespace(namespace):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == "wire:")


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _directors(stack: ExitStack) -> dict[str, Network]:
    """Every row's network, ready but for the first packets."""
    networks: dict[str, Network] = {}

    def add(name: str, *make: Callable[[], object]) -> None:
        networks[name] = network = Network(stack)
        with network_namespace(network.director):
            for each in make:
                each()

    def fill(command: str | Path) -> Callable[[], None]:
        def run() -> None:
            for line in _TABLE:
                _run(command, *line.split())

        return run

    xdp, tc = bpf.XDP_PROGRAM, SCHED_CLS
    add(DROPPED_XDP, lambda: _at_xdp("eth0", returning(xdp, XDP_DROP)))
    add(DROPPED_TC, lambda: _at_tc("eth0", returning(tc, TC_ACT_SHOT)))
    add(
        REDIRECT_XDP,
        lambda: _at_xdp("eth0", redirecting(xdp, 12)),
        # Without a program there the driver does not take frames for sending.
        lambda: _at_xdp("eth1", returning(xdp, XDP_DROP)),
    )
    add(REDIRECT_TC, lambda: _at_tc("eth0", redirecting(tc, 12)))
    add(IPVS, fill("ipvsadm"))
    for name, mode in ((XLVS_TC, "tc"), (XLVS_XDP, "xdp")):
        attach = (_BIN / "xlvs", "attach", "--mode", mode, "eth0", "eth1")
        add(name, lambda attach=attach: _run(*attach), fill(_BIN / "xlvsadm"))  # type: ignore[misc]
    return networks


def _alone(stack: ExitStack) -> Callable[[int], tuple[float, float]]:
    """The generator by itself: packets that a device of no use takes and forgets."""
    space = stack.enter_context(new_namespace())
    with network_namespace(space):
        ip("link add wire type dummy")
        ip("link set wire up")

    def measure(count: int) -> tuple[float, float]:
        with network_namespace(space):
            return pktgen.send(_FORWARD[DR], count), 0.0

    return measure


def _measures(
    stack: ExitStack, networks: dict[str, Network]
) -> dict[str, Callable[[int], tuple[float, float]]]:
    measures = {ALONE: _alone(stack)}
    for name, network in networks.items():
        for method in METHODS if name in (IPVS, XLVS_TC, XLVS_XDP) else ("",):
            packets = _ANSWERS if method == ANSWERS else _FORWARD[method or DR]
            measures[row(name, method)] = lambda count, network=network, packets=packets, name=name: (  # type: ignore[misc]
                network.measure(packets, count, arrive=name not in (DROPPED_XDP, DROPPED_TC))
            )
    return measures


def main() -> int:
    """Measure as told, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.guest_player")
    parser.add_argument("--packets", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--receivers", required=True, help=f"{FRAMES},{SKBS}")
    options = parser.parse_args()
    _run("modprobe", "-a", "pktgen", "dummy", "ip_vs", "ip_vs_rr")
    taken: dict[str, dict[str, list[float]]] = {}
    at_xdp: dict[str, float] = {}
    with ExitStack() as stack:
        networks = _directors(stack)
        measures = _measures(stack, networks)
        for _ in range(2):  # flows are entered; a second later XDP learns of real servers' MACs
            for measure in measures.values():
                measure(2 * FLOWS)
            time.sleep(1.2)
        for receiver in options.receivers.split(","):
            if receiver == SKBS:
                for network in networks.values():
                    network.receive_as_skbs()
            for turn in range(options.rounds + 1):
                for name, measure in measures.items():
                    value, part = measure(options.packets if turn else FLOWS)
                    if turn:
                        taken.setdefault(receiver, {}).setdefault(name, []).append(value)
                        at_xdp[name] = part
                print(f"{receiver}: round {turn} of {options.rounds}", file=sys.stderr, flush=True)
    json.dump({"taken": taken, "at_xdp": at_xdp}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
