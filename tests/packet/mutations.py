# SPDX-License-Identifier: GPL-2.0-only
"""Frames mutated and truncated, given to a director, and what becomes of them judged by the RFCs.

A frame is one of the `seeds` with some of its bytes changed, bytes put in,
taken out or cut off; half of the time its checksums are then made right
again, so that what is behind them is reached.  Everything follows from one
number.  `Judge` knows what was configured, and nothing of how the packet path
works:

* what is passed on to the stack is passed on as it came;
* what is sent has a right header, lengths that fit, a right checksum if it
  came with one, and nothing else changed than the forwarding method changes;
* it goes to a real server of its service, always the same of a connection.

``python -m tests.packet.mutations --count 1000000`` runs as many as you like.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    CLIENT_MAC,
    DROPPED,
    INTERFACE_MAC,
    REAL_SERVERS,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    XDP_TX,
    Director,
    new_director,
    real_server,
    real_server6,
    real_server_mac,
)
from tests.packet.packets import (
    ACK,
    DESTINATION_OPTIONS,
    ETHERNET_SIZE,
    FIN,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    ROUTING,
    RST,
    SYN,
    TCP,
    UDP,
    checksum,
    packed,
)
from tests.packet.spaces import ip
from xlvs.datapath.load import Capacity
from xlvs.datapath.records import seconds_to_ticks
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, ServiceKey, Tunnel

REGRESSIONS = Path(__file__).parent / "regressions"
SERVERS = 3
SERVER_PORT = 8080
CAPACITY = Capacity(connections=65_536, services=64, destinations=256)
_TESTABLE = {b"\x08\x00": ETHERNET_SIZE + 20, b"\x86\xdd": ETHERNET_SIZE + 40}
"""BPF_PROG_TEST_RUN itself refuses shorter frames of these types at TC."""
_METHODS = ((MASQUERADE, ""), (ROUTE, ""), (TUNNEL, "ipip"), (TUNNEL, "gue"), (TUNNEL, "gre"))
_CLIENTS = 4
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


class Header:
    """An IP packet in a frame, as its own headers describe it."""

    __slots__ = (
        "destination", "destination_port", "end", "family", "later", "more", "protocol", "source",
        "source_port", "start", "transport", "ttl",
    )  # fmt: skip

    def __init__(self) -> None:
        self.family = self.start = self.transport = self.end = self.protocol = self.ttl = 0
        self.source = self.destination = b""
        self.source_port = self.destination_port = 0
        self.more = self.later = False


def read(frame: bytes, start: int = ETHERNET_SIZE) -> Header | None:
    """The packet that begins there; None where its headers cannot be true (RFC 791, RFC 8200)."""
    found = Header()
    found.start = start
    if len(frame) < start + 20:
        return None
    version = frame[start] >> 4
    if version == 4:
        length, total, flags = (frame[start] & 15) * 4, *unpack_from(">HxxH", frame, start + 2)
        if length < 20 or not length <= total <= len(frame) - start:
            return None
        found.family, found.ttl, found.protocol = 4, frame[start + 8], frame[start + 9]
        found.source, found.destination = frame[start + 12 : start + 16], frame[start + 16 : start + 20]
        found.transport, found.end = start + length, start + total
        found.later, found.more = bool(flags & 0x1FFF), bool(flags & 0x2000)
    elif version == 6 and len(frame) >= start + 40:
        total = unpack_from(">H", frame, start + 4)[0] + 40
        if total > len(frame) - start:
            return None
        found.family, found.ttl, kind = 6, frame[start + 7], frame[start + 6]
        found.source, found.destination = frame[start + 8 : start + 24], frame[start + 24 : start + 40]
        found.end, offset = start + total, start + 40
        while kind in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS) and not found.later:
            if offset + 8 > found.end:
                return None
            size = 8 if kind == FRAGMENT else frame[offset + 1] * 8 + 8
            if kind == FRAGMENT:
                field = unpack_from(">H", frame, offset + 2)[0]
                found.later, found.more = bool(field & 0xFFF8), bool(field & 1)
            kind, offset = frame[offset], offset + size
        found.protocol, found.transport = kind, offset
    else:
        return None
    if not found.later and found.protocol in (TCP, UDP) and found.transport + 8 <= found.end:
        found.source_port, found.destination_port = unpack_from(">HH", frame, found.transport)
    return found


def has_right_header(frame: bytes, header: Header) -> bool:
    """Whether an IPv4 header's checksum is right; IPv6 has none."""
    return header.family == 6 or not checksum(
        frame[header.start : header.start + (frame[header.start] & 15) * 4]
    )


def has_right_checksum(frame: bytes, header: Header) -> bool | None:
    """Whether the checksum of what the packet carries is right; None where there is none to look at."""
    if header.later or header.more or header.end < header.transport:
        return None
    content = frame[header.transport : header.end]
    fewest = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8}.get(header.protocol)
    if fewest is None or len(content) < fewest:
        return None
    if header.protocol == UDP:
        if content[6:8] == b"\0\0":
            return None
        if unpack_from(">H", content, 4)[0] != len(content):
            return None
    pseudo = b""
    if header.protocol != ICMP:
        pseudo = header.source + header.destination + pack(">II", len(content), header.protocol)
    return not checksum(pseudo + content)


class Plane:
    """One service, its method, and the addresses that its packets may be sent to."""

    def __init__(self, director: Director, method: str, protocol: int, family: int, kind: str = "") -> None:
        self.method, self.protocol, self.family, self.kind = method, protocol, family, kind
        self.address = VIP if family == 4 else VIP6
        server = real_server if family == 4 else real_server6
        self.servers = [server(number) for number in range(1, SERVERS + 1)]
        self.key: ServiceKey = director.service(
            *[1] * SERVERS,
            protocol=protocol,
            address=self.address,
            method=method,
            server_port=SERVER_PORT if method == MASQUERADE else None,
            tunnel=Tunnel(kind, 6080 if kind == "gue" else 0, "nocsum") if method == TUNNEL else None,
        )

    def client(self, number: int) -> tuple[bytes, int]:
        """A client that has a connection."""
        return (CLIENT if self.family == 4 else CLIENT6), 40_000 + number

    def packet(self, number: int, flags: int, payload: bytes, **fields: Any) -> bytes:
        """A client's packet, its checksum right."""
        address, port = self.client(number)
        if self.protocol == TCP:
            content = packets.tcp(port, self.key.port, flags, payload)
        else:
            content = packets.udp(port, self.key.port, payload)
        build = packets.ipv4 if self.family == 4 else packets.ipv6
        return packets.with_checksum(build(address, self.address, self.protocol, content, **fields))

    def answer(self, number: int, server: bytes, payload: bytes) -> bytes:
        """A masqueraded real server's packet to a client."""
        address, port = self.client(number)
        make = packets.tcp(SERVER_PORT, port, ACK, payload) if self.protocol == TCP else b""
        content = make or packets.udp(SERVER_PORT, port, payload)
        build = packets.ipv4 if self.family == 4 else packets.ipv6
        return packets.with_checksum(build(server, address, self.protocol, content))


class Ground:
    """A director with a service of each kind, connections in them, and frames to begin with."""

    def __init__(self, director: Director) -> None:
        self.director = director
        # What is cut short loses its device's sum, and the kernel would miss it.
        director.device_sums = 0
        director.maps.settings.timeout[:] = [seconds_to_ticks(86_400)] * abi.TIMEOUT_COUNT
        self.planes = [
            Plane(director, method, protocol, family, kind)
            for method, kind in _METHODS
            for protocol, family in ((TCP, 4), (UDP, 4), (TCP, 6), (UDP, 6))
        ]  # fmt: skip
        self.by_service = {(p.protocol, p.address, p.key.port): p for p in self.planes}
        self.servers = {server for plane in self.planes for server in plane.servers}
        self.server_of: dict[tuple[int, bytes, int, bytes, int], bytes] = {}
        # XDP changes what came in natively, and sends answers to who is known.
        record = director.maps.record("interfaces", abi.Interface, director.ifindex, abi.INTERFACE_LIMIT)
        record.known |= abi.INTERFACE_NATIVE
        for address in ("10.0.0.200", "fd00::200"):
            ip(f"neigh replace {address} lladdr {CLIENT_MAC.hex(':')} nud permanent dev eth0")
        self.judge = Judge(self)
        self.seeds = list(self._seeds())

    @staticmethod
    def number_of(server: bytes) -> int:
        """A real server's number; 0 for any other address."""
        numbers = range(1, SERVERS + 1)
        return next((n for n in numbers if server in (real_server(n), real_server6(n))), 0)

    def _seeds(self) -> Iterator[bytes]:
        frame = self.director.frame
        for plane in self.planes:
            for number in range(_CLIENTS):
                for flags in (SYN, ACK):
                    opening = frame(plane.packet(number, flags, b"hello"))
                    assert not self.judge.tc(opening)
                    if plane.method == MASQUERADE:
                        server = self.server_of[
                            plane.protocol, *plane.client(number), plane.address, plane.key.port
                        ]
                yield frame(plane.packet(number, ACK, b"a question of some length"))
                if plane.method == MASQUERADE:
                    yield frame(plane.answer(number, server, b"an answer"))
            yield frame(plane.packet(0, ACK, bytes(1200)))
            for flags in (SYN, FIN | ACK, RST):
                yield frame(plane.packet(9, flags, b""))
            yield from self._with_options(plane)
            yield from map(frame, packets.fragments(plane.packet(1, ACK, bytes(200)), 64))
            yield from self._errors(plane)
        yield packets.ethernet(b"\0" * 28, packets.ETHERTYPE_ARP, INTERFACE_MAC, CLIENT_MAC)

    def _with_options(self, plane: Plane) -> Iterator[bytes]:
        if plane.family == 4:
            yield self.director.frame(plane.packet(2, ACK, b"options", options=b"\x01" * 12))
        else:
            chain = (
                (HOP_BY_HOP, packets.options_extension()),
                (DESTINATION_OPTIONS, packets.options_extension(1)),
            )
            yield self.director.frame(plane.packet(2, ACK, b"options", extensions=chain))

    def _errors(self, plane: Plane) -> Iterator[bytes]:
        """ICMP errors about what the client sent, and what a masqueraded real server answered."""
        router, kind = (packed("10.0.0.250"), (3, 4)) if plane.family == 4 else (packed("fd00::250"), (2, 0))
        quoted = plane.packet(3, ACK, b"quoted and quoted")
        yield self.director.frame(packets.icmp(router, plane.address, *kind, 1300, quoted[:60]))
        address, _ = plane.client(3)
        if plane.method == MASQUERADE:
            quoted = plane.answer(3, plane.servers[0], b"quoted")
            yield self.director.frame(packets.icmp(router, address, *kind, 1300, quoted))


class Judge:
    """Gives frames to the director and says what is wrong with what became of them; empty if nothing."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.verdicts: Counter[str] = Counter()

    def tc(self, frame: bytes) -> str:
        """Judge TC ingress."""
        if len(frame) < _TESTABLE.get(frame[12:14], ETHERNET_SIZE + 1):
            self.verdicts["too short for a test run"] += 1
            return ""
        self._forget_where_a_syn_may_begin_anew(frame)
        verdict, after = self._ground.director.tc(frame)
        if verdict == UNTOUCHED:
            self.verdicts["passed on"] += 1
            return "" if after == frame else "passed on to the stack, but changed"
        if verdict == DROPPED:
            self.verdicts["dropped"] += 1
            return ""
        self.verdicts["sent"] += 1
        return self._sent(frame, after) if verdict == SENT else f"there is no verdict {verdict}"

    def _forget_where_a_syn_may_begin_anew(self, frame: bytes) -> None:
        """It may get another real server even if it is answered by an ICMP error, or dropped after that."""
        came = read(frame)
        if came and self._plane(came) and came.protocol == TCP:
            flags = frame[came.transport + 13 : came.transport + 14]
            if flags and flags[0] & SYN:
                self._ground.server_of.pop(_flow(came), None)

    def xdp(self, frame: bytes) -> str:
        """Judge XDP; its frames name the MAC of the real server, or of the client."""
        if len(frame) < ETHERNET_SIZE:
            return ""
        verdict, after = self._ground.director.xdp(frame)
        if verdict == XDP_PASS:
            return "" if after == frame else "passed on by XDP, but changed"
        if verdict == XDP_DROP:
            return ""
        if verdict not in (XDP_TX, XDP_REDIRECT):
            return f"there is no verdict {verdict} of XDP"
        self.verdicts["sent by XDP"] += 1
        came = read(frame)
        if came is None or not has_right_header(frame, came):
            return "sent by XDP, though its headers are wrong"
        plane = self._plane(came)
        server = self._ground.server_of.get(_flow(came))
        if plane is None or plane.method != ROUTE:
            left = read(after)
            number = self._ground.number_of(left.destination) if left else 0
            if after[:6] != (real_server_mac(number) if plane else CLIENT_MAC):
                return "sent by XDP, changed, to the wrong machine"
            return self._sent(frame, after)
        if after[12:] != packets.with_one_hop_less(frame)[12:]:
            return "sent by XDP, and changed"
        number = next((n for n in range(1, REAL_SERVERS + 1) if after[:6] == real_server_mac(n)), 0)
        if not number or (server and plane.servers[number - 1] != server):
            return "sent by XDP to the wrong real server"
        self._ground.server_of[_flow(came)] = plane.servers[number - 1]
        return ""

    def _plane(self, header: Header) -> Plane | None:
        if header.later or header.protocol not in (TCP, UDP):
            return None
        return self._ground.by_service.get((header.protocol, header.destination, header.destination_port))

    def _sent(self, frame: bytes, after: bytes) -> str:
        came, left = read(frame), read(after)
        if came is None:
            return "sent, though its lengths are wrong"
        if not has_right_header(frame, came):
            return "sent, though its header's checksum is wrong"
        if left is None:
            return "leaves with wrong lengths"
        if after[12:14] != (b"\x08\x00" if left.family == 4 else b"\x86\xdd"):
            return "leaves with the wrong Ethernet type"
        if not has_right_header(after, left):
            return "leaves with a wrong header checksum"
        if left.protocol in (ICMP, ICMPV6) and left.destination == came.source:
            self.verdicts["answered by an ICMP error"] += 1
            return "" if has_right_checksum(after, left) else "an ICMP error of ours has a wrong checksum"
        if has_right_checksum(frame, came) and has_right_checksum(after, left) is False:
            return "came with a right checksum, leaves with a wrong one"
        if came.later:
            return (
                "" if left.later or self._is_tunnelled(left) else "a later fragment leaves as something else"
            )
        if came.protocol in (ICMP, ICMPV6):
            known = left.destination in self._ground.servers or left.destination in (CLIENT, CLIENT6)
            return "" if known else "an ICMP error is passed on to a stranger"
        plane = self._plane(came)
        return self._of_service(plane, frame, came, after, left) if plane else self._answer(came, left)

    def _is_tunnelled(self, left: Header) -> bool:
        return left.destination in self._ground.servers and left.protocol in (4, 41, UDP, packets.GRE)

    def _of_service(self, plane: Plane, frame: bytes, came: Header, after: bytes, left: Header) -> str:
        wanted = packets.with_one_hop_less(frame)[ETHERNET_SIZE : came.end]
        if plane.method == ROUTE:
            return "" if after[ETHERNET_SIZE : left.end] == wanted else "Direct Routing has changed it"
        if left.destination not in plane.servers:
            return "goes to the wrong real server"
        if plane.method == TUNNEL:
            if after[ETHERNET_SIZE : left.end][-len(wanted) :] != wanted:
                return "the tunnel holds another packet"
        elif (left.source, left.source_port, left.destination_port, left.ttl) != (
            came.source, came.source_port, SERVER_PORT, came.ttl - 1,
        ):  # fmt: skip
            return "translated to something else"
        elif after[left.transport + 20 : left.end] != frame[came.transport + 20 : came.end]:
            return "translation has changed the payload"
        before = self._ground.server_of.get(_flow(came))
        if before not in (None, left.destination):
            return "its connection goes to another real server"
        self._ground.server_of[_flow(came)] = left.destination
        return ""

    def _answer(self, came: Header, left: Header) -> str:
        """A masqueraded real server's answer leaves as the VIP's, and only of a connection that there is."""
        for plane in self._ground.planes:
            asked = (came.protocol, came.destination, came.destination_port, plane.address, plane.key.port)
            if (
                plane.method == MASQUERADE
                and (left.source, left.source_port) == (plane.address, plane.key.port)
                and came.source in plane.servers
                and self._ground.server_of.get(asked, came.source) == came.source
            ):
                return "" if left.destination == came.destination else "an answer goes to another client"
        return "sent, though it belongs to no service and no connection"


def _flow(header: Header) -> tuple[int, bytes, int, bytes, int]:
    return (
        header.protocol, header.source, header.source_port, header.destination, header.destination_port,
    )  # fmt: skip


def mutate(choose: random.Random, seed: bytes) -> bytes:
    """A frame with some bytes changed; its type, and mostly its MACs, stay, so that it is looked at."""
    frame = bytearray(seed)
    headers = min(len(frame), ETHERNET_SIZE + 80)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        match choose.randrange(8):
            case 0 | 1:
                frame[choose.randrange(ETHERNET_SIZE, headers)] = choose.choice(_EXTREMES)
            case 2 | 3:
                frame[choose.randrange(ETHERNET_SIZE, headers)] ^= 1 << choose.randrange(8)
            case 4:
                frame[choose.randrange(len(frame))] = choose.randrange(256)
            case 5:
                del frame[choose.randrange(ETHERNET_SIZE, len(frame) + 1) :]
            case 6:
                place = choose.randrange(ETHERNET_SIZE, len(frame) + 1)
                frame[place:place] = choose.randbytes(choose.choice((1, 2, 4, 8, 40)))
            case _:
                place = choose.randrange(ETHERNET_SIZE, len(frame) + 1)
                del frame[place : place + choose.choice((1, 2, 4, 8, 20))]
        headers = min(len(frame), ETHERNET_SIZE + 80)
        if headers <= ETHERNET_SIZE:
            return bytes(frame)
    return mended(bytes(frame)) if choose.randrange(2) else bytes(frame)


def mended(frame: bytes) -> bytes:
    """A frame whose checksums are made right, as far as its headers say where they are."""
    start = ETHERNET_SIZE
    if len(frame) >= start + 20 and frame[start] >> 4 == 4:
        size = min((frame[start] & 15) * 4, len(frame) - start)
        if size >= 20:
            header = frame[start : start + 10] + bytes(2) + frame[start + 12 : start + size]
            frame = frame[: start + 10] + pack(">H", checksum(header)) + frame[start + 12 :]
    found = read(frame)
    if found is None or has_right_checksum(frame, found) is None:
        return frame
    return frame[:start] + packets.with_checksum(frame[start : found.end]) + frame[found.end :]


def shrunk(ground: Ground, seed: bytes, frame: bytes) -> bytes:
    """The same fault with as few bytes as possible other than the seed's."""
    complaint = ground.judge.tc(frame) or ground.judge.xdp(frame)

    def still(candidate: bytes) -> bool:
        return (ground.judge.tc(candidate) or ground.judge.xdp(candidate)) == complaint

    for size in range(ETHERNET_SIZE, len(frame)):
        if still(frame[:size]):
            frame = frame[:size]
            break
    for place in range(min(len(seed), len(frame))):
        candidate = frame[:place] + seed[place : place + 1] + frame[place + 1 :]
        if candidate != frame and still(candidate):
            frame = candidate
    return frame


def faults(ground: Ground, number: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Run so many mutations; yield what is wrong, with its frame, the shortest that still shows it."""
    choose = random.Random(number)
    for _ in range(count):
        seed = choose.choice(ground.seeds)
        frame = mutate(choose, seed)
        complaint = ground.judge.tc(frame) or ground.judge.xdp(frame)
        if complaint:
            yield complaint, shrunk(ground, seed, frame)


def leaks(ground: Ground) -> str:
    """Let every connection end, and say what of them is left; empty if nothing."""
    director = ground.director
    table = director.table.services()
    counted = sum(one.active + one.inactive for entry in table for one in entry.destinations)
    live = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
    forward = sum(1 for slot in live if not slot.flags & abi.CONNECTION_REPLY)
    if counted != forward:
        return f"{counted} connections are counted, {forward} are in the table"
    director.expire_all()
    phases = (abi.PHASE_CLAIMED, abi.PHASE_LIVE, abi.PHASE_DEAD)
    director.wait_until(lambda: not any(director.slots(*phases)), 10, "slots do not come free")
    left = sum(
        one.active + one.inactive for entry in director.table.services() for one in entry.destinations
    )
    if left or director.spilled():
        return f"{left} connections are still counted, {director.spilled()} are said to stand elsewhere"
    return ""


def main() -> int:
    """Run mutations by hand; return 1 if any frame was dealt with wrongly."""
    parser = argparse.ArgumentParser(prog="tests.packet.mutations", description="Mutated frames, judged.")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    began, wrong = time.monotonic(), 0
    with new_director(CAPACITY) as director:
        ground = Ground(director)
        print(f"{options.count} mutations of {len(ground.seeds)} frames, seed {options.seed}", flush=True)
        for complaint, frame in faults(ground, options.seed, options.count):
            wrong += 1
            print(f"{complaint}: {frame.hex()}", flush=True)
            if wrong == 20:
                break
        left = leaks(ground)
        print(f"{time.monotonic() - began:.0f} s: {dict(ground.judge.verdicts)}")
        print(f"{len(ground.server_of)} connections; {left or 'nothing of them is left'}")
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
