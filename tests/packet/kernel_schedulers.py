# SPDX-License-Identifier: GPL-2.0-only
"""What kernel IPVS would choose: the schedulers that look at loads, addresses or what they chose before.

Nothing of xlvs is imported.  The rules are those of Linux 6.1,
net/netfilter/ipvs/ip_vs_{sed,nq,fo,ovf,sh,dh,mh,lblc,lblcr}.c.  A server's
``name`` is the last byte of its address less 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from tests.packet.kernel_model import Server

FALLBACK, PORT = 1, 2
"""Scheduler flags of sh and mh, as ``-b`` sets them."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a scheduler may look at in a new connection's first packet, and its service's flags."""

    client: bytes
    client_port: int
    virtual: bytes
    server_port: int
    flags: int = 0


def least(servers: Sequence[Server], load: Callable[[Server], Fraction]) -> Server | None:
    """The first of the least loaded that have a weight."""
    return min((one for one in servers if one.weight > 0), key=load, default=None)


def by_overhead(server: Server) -> Fraction:
    """wlc's measure."""
    return Fraction(server.overhead, server.weight)


def by_delay(server: Server) -> Fraction:
    """sed's measure."""
    return Fraction(server.active + 1, server.weight)


class Picker:
    """A scheduler of a service; `servers` is its list, the newest first."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.changed()

    def changed(self) -> None:
        """A server was added, removed or given another weight."""

    def added(self, server: Server) -> None:
        """A server was put in front."""
        self.servers.insert(0, server)
        self.changed()

    def removed(self, server: Server) -> None:
        """A server is gone."""
        self.servers.remove(server)
        self.changed()

    def edited(self) -> None:
        """A weight was changed."""
        self.changed()

    def choose(self, arrival: Arrival) -> Server | None:
        """Choose for a new connection."""
        raise NotImplementedError


class ByLoad(Picker):
    """One that looks at its servers alone."""

    def choose(self, _arrival: Arrival) -> Server | None:
        """The same for every client."""
        return self.choice()

    def choice(self) -> Server | None:
        """Choose."""
        raise NotImplementedError


class ShortestDelay(ByLoad):
    """sed"""

    def choice(self) -> Server | None:
        """The least (active + 1) / weight."""
        return least(self.servers, by_delay)


class NeverQueue(ByLoad):
    """nq"""

    def choice(self) -> Server | None:
        """The first idle one, else as sed."""
        idle = (one for one in self.servers if one.weight > 0 and one.active == 0)
        return next(idle, None) or least(self.servers, by_delay)


class FailOver(ByLoad):
    """fo"""

    def choice(self) -> Server | None:
        """The highest weight."""
        return least(self.servers, lambda server: Fraction(-server.weight))


class Overflow(ByLoad):
    """ovf"""

    def choice(self) -> Server | None:
        """The highest weight that is not exceeded."""
        fitting = [one for one in self.servers if one.active <= one.weight]
        return least(fitting, lambda server: Fraction(-server.weight))


def _fold(address: bytes) -> int:
    words = [int.from_bytes(address[n : n + 4], "big") for n in range(0, len(address), 4)]
    folded = 0
    for word in words:
        folded ^= word
    return folded


class SourceHash(Picker):
    """sh"""

    def changed(self) -> None:
        """Fill the buckets."""
        slots = [one for one in self.servers for _ in range(min(max(one.weight, 1), 256))]
        self.table = (slots * 256)[:256]

    @staticmethod
    def _place(key: int, offset: int) -> int:
        return ((key * 0x61C88647 & 0xFFFFFFFF) >> 24) + offset & 255

    def choose(self, arrival: Arrival) -> Server | None:
        """The bucket's server, or with fallback that of the next one's that has a weight."""
        if not self.table:
            return None
        key = _fold(arrival.client) + (arrival.client_port if arrival.flags & PORT else 0) & 0xFFFFFFFF
        home = self._place(key, 0)
        tries = [home]
        if arrival.flags & FALLBACK:
            size = len(self.table)
            tries += [self._place(key, (home + n) % size) for n in range(size)]
        return next((self.table[one] for one in tries if self.table[one].weight > 0), None)


class DestinationHash(SourceHash):
    """dh"""

    def changed(self) -> None:
        """Fill the buckets, whatever the weights."""
        self.table = (self.servers * 256)[:256]

    def choose(self, arrival: Arrival) -> Server | None:
        """The bucket of the virtual address."""
        if not self.table:
            return None
        server = self.table[self._place(_fold(arrival.virtual), 0)]
        return server if server.weight > 0 else None


class Maglev(SourceHash):
    """mh"""

    SIZE = 4093
    KEYS = 2654435761, 2654446892
    port = 0

    def changed(self) -> None:
        """Populate the table by each server's permutation."""
        self.table = []
        divisor = gcd(*(one.last_weight for one in self.servers))
        if divisor == 0:
            return
        shift = max(max(one.last_weight // divisor for one in self.servers).bit_length() - 6, 0)
        slots: dict[int, Server] = {}
        walks = []
        for one in self.servers:
            key = _fold(bytes([10, 0, 0, 10 + one.name])) + self.port
            turns = (one.last_weight // divisor) >> shift or min(one.last_weight, 1)
            first, stride = (sip_hash(key, secret) for secret in self.KEYS)
            walks.append((one, turns, first % self.SIZE, stride % (self.SIZE - 1) + 1, iter(range(10**9))))
        while True:
            for one, turns, first, stride, steps in walks:
                for _ in range(turns):
                    slot = next(s for n in steps if (s := (first + n * stride) % self.SIZE) not in slots)
                    slots[slot] = one
                    if len(slots) == self.SIZE:
                        self.table = [slots[n] for n in range(self.SIZE)]
                        return

    def _place(self, key: int, offset: int) -> int:  # type: ignore[override]
        return sip_hash(key + offset & 0xFFFFFFFF, self.KEYS[0]) % self.SIZE

    def choose(self, arrival: Arrival) -> Server | None:
        """Like sh, by another hash and another table."""
        if arrival.server_port != self.port:
            self.port = arrival.server_port
            self.changed()
        return super().choose(arrival)


def sip_hash(value: int, secret: int) -> int:
    """SipHash-1-3 of four bytes, as lib/siphash.c has it for 64-bit machines; both key halves are alike."""
    state = [
        half ^ secret
        for half in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    ]

    def turn(number: int, by: int) -> None:
        state[number] = (state[number] << by | state[number] >> (64 - by)) % (1 << 64)

    def mix(into: int, other: int, by: int) -> None:
        state[into] = (state[into] + state[other]) % (1 << 64)
        turn(other, by)
        state[other] ^= state[into]

    def compress() -> None:
        mix(0, 1, 13)
        turn(0, 32)
        mix(2, 3, 16)
        mix(0, 3, 21)
        mix(2, 1, 17)
        turn(2, 32)

    block = (4 << 56) + value
    state[3] ^= block
    compress()
    state[0] ^= block
    state[2] ^= 0xFF
    for _ in range(3):
        compress()
    return (state[0] ^ state[1] ^ state[2] ^ state[3]) % (1 << 32)


class Locality(Picker):
    """lblc"""

    def __init__(self, servers: list[Server]) -> None:
        super().__init__(servers)
        self.cache: dict[bytes, list[Server]] = {}

    def is_overloaded(self, server: Server) -> bool:
        """More active connections than weight, while another has less than half."""
        return server.active > server.weight and any(one.active * 2 < one.weight for one in self.servers)

    def choose(self, arrival: Arrival) -> Server | None:
        """The one that the address had, if it will do."""
        for server in self.cache.get(arrival.virtual, []):
            if server in self.servers and server.weight > 0 and not self.is_overloaded(server):
                return server
        chosen = least(self.servers, by_overhead)
        if chosen:
            self.cache[arrival.virtual] = [chosen]
        return chosen


class ReplicatedLocality(Locality):
    """lblcr"""

    def choose(self, arrival: Arrival) -> Server | None:
        """The least loaded of the address's set, if it will do; else another one joins."""
        members = self.cache.get(arrival.virtual, [])
        chosen = least([one for one in members if one in self.servers], by_overhead)
        if chosen and not self.is_overloaded(chosen):
            return chosen
        chosen = least(self.servers, by_overhead)
        if chosen and chosen not in members:
            self.cache[arrival.virtual] = [chosen, *members]
        return chosen


PICKERS: dict[str, type[Picker]] = {
    "sed": ShortestDelay,
    "nq": NeverQueue,
    "fo": FailOver,
    "ovf": Overflow,
    "sh": SourceHash,
    "dh": DestinationHash,
    "mh": Maglev,
    "lblc": Locality,
    "lblcr": ReplicatedLocality,
}
