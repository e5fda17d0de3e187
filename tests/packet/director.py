# SPDX-License-Identifier: GPL-2.0-only
"""A director in a namespace of its own, to which tests hand single frames.

    client ── eth0 [director] eth1 ── (another network)

The packet path is loaded and attached to nothing: each frame goes through
BPF_PROG_TEST_RUN, so that a test sees the verdict and the bytes.  While a
`Director` is open, this thread is in its namespace.  For frames on the wire
it can be attached.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from operator import mul
from struct import pack, unpack

from tests.packet import packets
from tests.packet.packets import mac, packed
from tests.packet.spaces import ip, new_namespace
from xlvs.datapath.activate import activate, deactivate
from xlvs.datapath.attach import TC
from xlvs.datapath.ebpf import EbpfDatapath
from xlvs.datapath.load import Capacity
from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.datapath.records import Slot, packed_key
from xlvs.kernel import abi, bpf, lock
from xlvs.kernel.namespaces import network_namespace
from xlvs.model import (
    ROUTE,
    Connection,
    Destination,
    DestinationEntry,
    Rates,
    Service,
    ServiceEntry,
    ServiceKey,
    Tunnel,
)

# TC verdicts (linux/pkt_cls.h)
UNTOUCHED = 0xFFFFFFFF
DROPPED = 2
SENT = 7
# XDP verdicts (enum xdp_action)
XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = 1, 2, 3, 4

DEVICE_SUMS = bpf.SUMMED_UP if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 16) else 0
"""Frames come from a device that sums them up, where the kernel can be asked whether the sum stays right."""

_ALL = (1 << 64) - 1

VIP = packed("10.0.0.100")
VIP6 = packed("fd00::100")
CLIENT = packed("10.0.0.200")
CLIENT6 = packed("fd00::200")

INTERFACE_MAC = mac("02:00:00:00:00:01")
SECOND_MAC = mac("02:00:00:00:00:02")
CLIENT_MAC = mac("02:00:00:00:00:c1")

SMALL = Capacity(connections=8192, services=1024, destinations=4096)


def real_server(number: int) -> bytes:
    """The address of an on-link real server; its MAC is `real_server_mac`."""
    return packed(f"10.0.0.{10 + number}")


def real_server6(number: int) -> bytes:
    """The IPv6 address of the same real server."""
    return packed(f"fd00::{10 + number:x}")


def real_server_mac(number: int) -> bytes:
    """The MAC that the director's permanent neighbour entry names."""
    return mac(f"02:00:00:00:01:{10 + number:02x}")


REAL_SERVERS = 8
FAR_SERVER = packed("10.0.1.10")
FAR_SERVER6 = packed("fd01::10")
FAR_SERVER_MAC = mac("02:00:00:00:02:10")


def know_neighbours(last: int) -> None:
    """Give real servers up to a number their permanent neighbour entries.

    One that nobody answers for is out of reach after three seconds.
    """
    entries = [
        f"neigh replace {address} lladdr {real_server_mac(number).hex(':')} nud permanent dev eth0"
        for number in range(1, last + 1)
        for address in (f"10.0.0.{10 + number}", f"fd00::{10 + number:x}")
    ]
    subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(entries), check=True, capture_output=True, text=True
    )


def _wire(peer: str) -> None:
    """Two interfaces, the director's addresses, and neighbours that need no asking."""
    for name, hardware, network in (("eth0", INTERFACE_MAC, 0), ("eth1", SECOND_MAC, 1)):
        ip(f"link add {name} address {hardware.hex(':')} type veth peer name {name} netns {peer}")
        ip(f"link set {name} up")
        ip(f"addr add 10.0.{network}.1/24 dev {name}")
        ip(f"addr add fd0{network}::1/64 dev {name} nodad")
        with network_namespace(peer):
            ip(f"link set {name} up")
    ip("addr add 10.0.0.100/32 dev eth0")
    ip("addr add fd00::100/128 dev eth0 nodad")
    know_neighbours(REAL_SERVERS)
    for address in ("10.0.1.10", "fd01::10"):
        ip(f"neigh add {address} lladdr {FAR_SERVER_MAC.hex(':')} nud permanent dev eth1")


class Director:
    """Helpers around one loaded packet path."""

    def __init__(self, peer: str, folder: str) -> None:
        self.peer = peer  # the namespace at the other ends of its interfaces
        self.maps = Maps(folder)
        self.table = EbpfDatapath(self.maps)
        self._programs = self._open_programs()
        self.device_sums = DEVICE_SUMS
        self.ifindex = socket.if_nametoindex("eth0")
        self.second_ifindex = socket.if_nametoindex("eth1")
        self._ways_on = {
            *(real_server_mac(number) + INTERFACE_MAC for number in range(1, REAL_SERVERS + 1)),
            FAR_SERVER_MAC + SECOND_MAC,
        }
        self._port = 1023
        self._client_port = 1023
        # A test that wants the limit of ICMP errors sets it again.
        self.icmp_interval_at_loading = self.maps.settings.icmp_interval
        self.maps.settings.icmp_interval = 0

    def _open_programs(self) -> dict[str, int]:
        return {name: bpf.open_pin(f"{self.maps.folder}/{name}") for name in ("xlvs_tc", "xlvs_xdp")}

    def reopen(self) -> None:
        """Run frames through the programs that are pinned by now."""
        for fd in self._programs.values():
            os.close(fd)
        self._programs = self._open_programs()

    def close(self) -> None:
        """Close the programs and maps."""
        for fd in self._programs.values():
            os.close(fd)
        self.maps.close()

    # --- frames ------------------------------------------------------------

    def tc(self, frame: bytes, ifindex: int | None = None, mark: int = 0) -> tuple[int, bytes]:
        """Give a frame to TC ingress; its verdict and the frame after it.

        ``mark`` is the firewall mark that a program before ours has given it.  MACs of a next
        hop that are there already are taken back: the long way leaves them to the kernel.
        """
        verdict, after = self.tc_as_it_leaves(frame, ifindex, mark)
        if verdict == SENT and after[:12] in self._ways_on:
            after = frame[:12] + after[12:]
        return verdict, after

    def tc_as_it_leaves(self, frame: bytes, ifindex: int | None = None, mark: int = 0) -> tuple[int, bytes]:
        """The same with all that the packet path itself has written."""
        # struct __sk_buff: len, pkt_type, mark, seven words, then ifindex
        index = self.ifindex if ifindex is None else ifindex
        context = pack("=8xI28xI", mark, index)
        verdict, after, _ = bpf.run_program(
            self._programs["xlvs_tc"], frame, context=context, flags=self.device_sums
        )
        return verdict, after

    def xdp(self, frame: bytes, ifindex: int | None = None) -> tuple[int, bytes]:
        """Give a frame to XDP; its verdict and the frame after it."""
        # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index
        index = self.ifindex if ifindex is None else ifindex
        context = pack("=IIIIII", 0, len(frame), 0, index, 0, 0)
        verdict, after, _ = bpf.run_program(self._programs["xlvs_xdp"], frame, context=context)
        return verdict, after

    @staticmethod
    def frame(packet: bytes, destination: bytes = INTERFACE_MAC) -> bytes:
        """An IP packet in a frame from the client to the director."""
        ethertype = packets.ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else packets.ETHERTYPE_IPV6
        return packets.ethernet(packet, ethertype, destination, CLIENT_MAC)

    def segment(
        self,
        key: ServiceKey,
        client_port: int,
        flags: int,
        payload: bytes = b"",
        ttl: int = 64,
        client: bytes | None = None,
    ) -> bytes:
        """A frame with a TCP segment or, for a UDP service, a datagram to a service."""
        if key.protocol == packets.TCP:
            transport = packets.tcp(client_port, key.port, flags, payload)
        else:
            transport = packets.udp(client_port, key.port, payload)
        if len(key.address) == 4:
            source = client or CLIENT
            return self.frame(packets.ipv4(source, key.address, key.protocol, transport, ttl))
        source = client or CLIENT6
        return self.frame(packets.ipv6(source, key.address, key.protocol, transport, ttl))

    # --- the table ---------------------------------------------------------

    def another_command(self) -> None:
        """Go on as another process would: it knows what the maps say, and nothing else."""
        self.table = EbpfDatapath(self.maps)

    def unused_key(self, protocol: int = packets.TCP, address: bytes = VIP) -> ServiceKey:
        """A service key that no test used before: nothing of others comes back with it."""
        self._port += 1
        return ServiceKey(2 if len(address) == 4 else 10, protocol, address, self._port)

    def unused_port(self) -> int:
        """A client port that was not used lately."""
        self._client_port = self._client_port % 65535 + 1
        if self._client_port < 1024:
            self._client_port = 1024
        return self._client_port

    def service(
        self,
        *weights: int,
        scheduler: str = "rr",
        protocol: int = packets.TCP,
        address: bytes = VIP,
        servers: tuple[bytes, ...] = (),
        method: str = ROUTE,
        server_port: int | None = None,
        tunnel: Tunnel | None = None,
    ) -> ServiceKey:
        """A new service with real servers 1, 2, ... of those weights (one of weight 1)."""
        key = self.unused_key(protocol, address)
        self.table.add_service(Service(key, scheduler))
        numbered = real_server if len(address) == 4 else real_server6
        for number, weight in enumerate(weights or (1,), start=1):
            chosen = servers[number - 1] if servers else numbered(number)
            port = key.port if server_port is None else server_port
            self.table.add_destination(key, Destination(chosen, port, method, weight, tunnel=tunnel))
        return key

    def open(self, key: ServiceKey, *flags: int) -> int:
        """Open a new connection and send those segments in it; returns its client port."""
        port = self.unused_port()
        for each in (packets.SYN, *flags):
            verdict, _ = self.tc(self.segment(key, port, each))
            assert verdict == SENT
        return port

    def entry(self, key: ServiceKey, server: bytes) -> DestinationEntry:
        """A real server of a service as listed."""
        (found,) = (one for one in self.table.service(key).destinations if one.destination.address == server)
        return found

    def record(self, key: ServiceKey) -> abi.Destination:
        """A live view of the record of a service's real server, the only one."""
        (found,) = (
            record
            for record in map(self.maps.destination, range(self.maps.settings.destinations_top))
            if bytes(record.owner) == packed_key(key)
        )
        return found

    def listing(self, key: ServiceKey) -> ServiceEntry:
        """The service as listed, without its rates: they change by themselves."""
        entry = self.table.service(key)
        entry.rates = Rates()
        for destination in entry.destinations:
            destination.rates = Rates()
        return entry

    def connection(self, key: ServiceKey, client_port: int) -> Connection | None:
        """A listed connection; fails where one is listed twice."""
        found = [
            one
            for one in self.table.connections()
            if (one.protocol, one.virtual, one.virtual_port, one.client_port)
            == (key.protocol, key.address, key.port, client_port)
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def slots(self, *phases: int) -> Iterator[tuple[int, Slot]]:
        """Slots of the raw table in those phases, with their numbers."""
        table = self.maps.connection_slots()
        for place, phase in enumerate(memoryview(table)[::SLOT_BYTES].tobytes()):
            if phase in phases:
                yield place, Slot(table[place * SLOT_BYTES : (place + 1) * SLOT_BYTES])

    def slot_record(self, place: int) -> abi.Connection:
        """A live view of a slot."""
        count = self.maps.limits.buckets * abi.SLOTS_PER_BUCKET
        return self.maps.record("connections", abi.Connection, place, count)

    def flow_hash(self, client: bytes, port: int, key: ServiceKey) -> int:
        """The packet path's hash of a client's flow: where its entry stands."""
        ends = pack(">HHBBH", port, key.port, key.protocol, key.family, 0)
        words = unpack("<5Q", client.ljust(16, b"\0") + key.address.ljust(16, b"\0") + ends)
        total: int = sum(map(mul, words, self.maps.limits.hash_factor)) & _ALL
        return (total ^ total >> 32) * 0x9E3779B97F4A7C15 & _ALL

    def home(self, number: int) -> int:
        """The bucket that a flow's hash names first."""
        return number >> 32 & self.maps.limits.buckets - 1

    def expire_all(self) -> None:
        """Let the time of every connection be over, and wait until the sweeper forgot them."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> abi.TICK_SHIFT
        for place, _ in self.slots(abi.PHASE_LIVE):
            self.slot_record(place).expires = (now - 2) & 0xFFFFFFFF
        self.wait_until(lambda: not any(self.slots(abi.PHASE_LIVE)), 5, "connections are still there")

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Wait for what takes an idle machine so many seconds at most; a busy one has ten times as long."""
        end = time.monotonic() + 10 * seconds
        while not condition():
            assert time.monotonic() < end, complaint
            time.sleep(0.02)

    def spilled(self) -> int:
        """How many connections the buckets' guards say stand outside of their home buckets."""
        fd = self.maps.descriptor("bucket_guards")
        guards = self.maps.limits.buckets // abi.GUARDED_BUCKETS
        return sum(sum((bpf.lookup(fd, pack("=I", guard), 8) or b"")[4:]) for guard in range(guards))

    def events(self) -> dict[str, int]:
        """The packet path's own counters, less those of the sweeper's."""
        counted = self.maps.events()
        del counted["expired"]
        return counted

    def snapshot(self) -> dict[str, object]:
        """Everything that a packet could change; two snapshots of an idle table are equal."""
        limits = self.maps.limits
        services = self.maps.settings.services_top
        destinations = self.maps.settings.destinations_top
        sizes = {
            "services": services * ctypes.sizeof(abi.Service),
            "destinations": destinations * ctypes.sizeof(abi.Destination),
            "pool": limits.pool * 8,
        }
        taken: dict[str, object] = {
            name: hash(self.maps.memory(name, max(size, 1))[:size]) for name, size in sizes.items()
        }
        for kind, count in (("service", limits.services), ("destination", limits.destinations)):
            counted, rows = self.maps.counters(kind)
            size = count * ctypes.sizeof(abi.Traffic)
            taken[f"counters of each {kind}"] = [hash(counted[row : row + size]) for row in rows]
        taken["slots"] = [(place, slot.control, slot.expires) for place, slot in self.slots(abi.PHASE_LIVE)]
        taken["events"] = self.events()
        return taken

    def changes_nothing(self, act: Callable[[], None]) -> None:
        """Do something that must change nothing; again where something expired meanwhile."""
        expired = -1
        while expired != self.maps.events()["expired"]:
            expired = self.maps.events()["expired"]
            before = self.snapshot()
            act()
            after = self.snapshot()
        for name, value in before.items():
            assert after[name] == value, f"{name} changed, {value} to {after[name]}"


@contextmanager
def new_director(capacity: Capacity = SMALL, mode: str | None = None) -> Iterator[Director]:
    """A director in a new namespace, loaded; attached to its interfaces only with a ``mode``."""
    with ExitStack() as stack:
        peer = stack.enter_context(new_namespace())
        stack.enter_context(network_namespace(stack.enter_context(new_namespace())))
        _wire(peer)
        interfaces = [] if mode is None else ["eth0", "eth1"]
        with lock.table_lock(exclusive=True):
            folder = activate(capacity, interfaces, mode or TC).folder
        stack.callback(deactivate, folder)
        director = Director(peer, folder)
        stack.callback(director.close)
        yield director
