# SPDX-License-Identifier: GPL-2.0-only
"""What kernel IPVS would do: TCP states and schedulers, written from its rules.

Nothing of xlvs is imported.  The rules are those of Linux 6.1,
net/netfilter/ipvs/ip_vs_proto_tcp.c and ip_vs_{rr,wrr,lc,wlc}.c.
"""

from __future__ import annotations

from math import gcd

from tests.packet.packets import ACK, FIN, RST, SYN

_SHORT = {
    "NO": "NONE", "ES": "ESTABLISHED", "SS": "SYN_SENT", "SR": "SYN_RECV", "FW": "FIN_WAIT",
    "TW": "TIME_WAIT", "CL": "CLOSE", "CW": "CLOSE_WAIT", "LA": "LAST_ACK", "LI": "LISTEN",
    "SA": "SYNACK",
}  # fmt: skip
_COLUMNS = ("NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA")
INPUT, OUTPUT, INPUT_ONLY = "input", "output", "input only"
"""A segment of the client, of the real server, of the client where no answers are seen."""
_ROWS = {
    (INPUT, SYN): "SR ES ES SR SR SR SR SR SR SR SR",
    (INPUT, FIN): "CL CW SS TW TW TW CL CW LA LI TW",
    (INPUT, ACK): "ES ES SS ES FW TW CL CW CL LI ES",
    (INPUT, RST): "CL CL CL SR CL CL CL CL LA LI SR",
    (OUTPUT, SYN): "SS ES SS SR SS SS SS SS SS LI SR",
    (OUTPUT, FIN): "TW FW SS TW FW TW CL TW LA LI TW",
    (OUTPUT, ACK): "ES ES SS ES FW TW CL CW LA ES ES",
    (OUTPUT, RST): "CL CL SS CL CL TW CL CL CL CL CL",
    (INPUT_ONLY, SYN): "SR ES ES SR SR SR SR SR SR SR SR",
    (INPUT_ONLY, FIN): "CL FW SS TW FW TW CL CW LA LI TW",
    (INPUT_ONLY, ACK): "ES ES SS ES FW TW CL CW CL LI ES",
    (INPUT_ONLY, RST): "CL CL CL SR CL CL CL CL LA LI CL",
}
_SECURE_ROWS = {
    **_ROWS,
    (INPUT, SYN): "SR ES ES SR SR SR SR SR SR SR SA",
    (INPUT, FIN): "CL CW SS TW TW TW CL CW LA LI SA",
    (INPUT, ACK): "ES ES SS SR FW TW CL CW CL LI SA",
    (INPUT, RST): "CL CL CL SR CL CL CL CL LA LI CL",
    (OUTPUT, SYN): "SS ES SS SA SS SS SS SS SS LI SA",
    (INPUT_ONLY, SYN): "SA ES ES SR SA SA SA SA SA SA SA",
}
"""While secure_tcp acts (kernel: ``tcp_states_dos``)."""


def _transitions(rows: dict[tuple[str, int], str]) -> dict[tuple[str, int, str], str]:
    return {
        (direction, flag, _SHORT[before]): _SHORT[after]
        for (direction, flag), row in rows.items()
        for before, after in zip(_COLUMNS, row.split(), strict=True)
    }


_NEXT = {False: _transitions(_ROWS), True: _transitions(_SECURE_ROWS)}

TIMEOUTS = {
    "NONE": 2, "ESTABLISHED": 900, "SYN_SENT": 120, "SYN_RECV": 60, "FIN_WAIT": 120,
    "TIME_WAIT": 120, "CLOSE": 10, "CLOSE_WAIT": 60, "LAST_ACK": 30, "LISTEN": 120, "SYNACK": 120,
}  # fmt: skip
UDP_TIMEOUT = 300
_ACTIVE = ("ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK")


def is_active(state: str) -> bool:
    """Whether a connection in that state counts as ActiveConn."""
    return state in _ACTIVE


def next_state(state: str, flags: int, direction: str = INPUT_ONLY, *, secure: bool = False) -> str:
    """A connection's state after a segment."""
    for flag in (RST, SYN, FIN, ACK):
        if flags & flag:
            return _NEXT[secure][direction, flag, state]
    return "CLOSE"


def opens(flags: int) -> bool:
    """Whether a segment may begin a connection."""
    return bool(flags & SYN) and not flags & RST


def takes_over(state: str, flags: int, mode: int = 1, *, answered: bool = False) -> bool:
    """Whether a segment ends the old connection that it meets, in that conn_reuse_mode.

    ``answered``: the director has seen packets of the real server.
    """
    if not flags & SYN or not mode:
        return False
    return state in ("TIME_WAIT", "CLOSE") or bool(mode & 2 and state == "FIN_WAIT" and not answered)


class Server:
    """A real server: its weight and its connections."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.weight = 1
        self.last_weight = 1  # above 0, since it was added
        self.active = 0
        self.inactive = 0
        self.connections = 0

    @property
    def overhead(self) -> int:
        """The kernel's measure of load."""
        return self.active * 256 + self.inactive


class RoundRobin:
    """rr: the next usable one after the last pick."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.last: Server | None = None  # None: the list's head

    def added(self, server: Server) -> None:
        """A server was put in front."""
        self.servers.insert(0, server)

    def removed(self, server: Server) -> None:
        """The mark moves to the one before."""
        place = self.servers.index(server)
        if server is self.last:
            self.last = self.servers[place - 1] if place else None
        self.servers.remove(server)

    def edited(self) -> None:
        """rr does not look."""

    def pick(self) -> Server | None:
        """Choose."""
        start = self.servers.index(self.last) + 1 if self.last else 0
        for server in self.servers[start:] + self.servers[:start]:
            if server.weight > 0:
                self.last = server
                return server
        return None


class WeightedRoundRobin:
    """wrr: passes with a threshold that falls by the weights' greatest common divisor."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.mark = -1  # place of the last pick, -1: the list's head
        self._measure()
        self.threshold = self.first

    def _measure(self) -> None:
        weights = [server.weight for server in self.servers if server.weight > 0]
        self.step = gcd(*weights) if weights else 1
        self.first = max(weights, default=0) - (self.step - 1)

    def _changed(self) -> None:
        self.mark = -1
        self._measure()
        if self.threshold == 0 or self.threshold > self.first:
            self.threshold = self.first
        elif self.step > 1:
            self.threshold -= self.threshold % self.step
            self.threshold += 1

    def added(self, server: Server) -> None:
        """A server was put in front."""
        self.servers.insert(0, server)
        self._changed()

    def removed(self, server: Server) -> None:
        """A server is gone."""
        self.servers.remove(server)
        self._changed()

    def edited(self) -> None:
        """A weight was changed."""
        self._changed()

    def pick(self) -> Server | None:
        """Choose."""
        if self.first == 0:
            return None
        while True:
            for place in range(self.mark + 1, len(self.servers)):
                if self.servers[place].weight >= self.threshold:
                    self.mark = place
                    return self.servers[place]
            self.mark = -1
            self.threshold -= self.step
            if self.threshold <= 0:
                self.threshold = self.first


class LeastConnections:
    """lc: the least overhead, the first of equals."""

    weighted = False

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers

    def added(self, server: Server) -> None:
        """A server was put in front."""
        self.servers.insert(0, server)

    def removed(self, server: Server) -> None:
        """A server is gone."""
        self.servers.remove(server)

    def edited(self) -> None:
        """Weights are read at each pick."""

    def pick(self) -> Server | None:
        """Choose."""
        best: Server | None = None
        for server in self.servers:
            if server.weight > 0 and (best is None or self._is_less(server, best)):
                best = server
        return best

    def _is_less(self, server: Server, best: Server) -> bool:
        if not self.weighted:
            return server.overhead < best.overhead
        return server.overhead * best.weight < best.overhead * server.weight


class WeightedLeastConnections(LeastConnections):
    """wlc: the least overhead for its weight, the first of equals."""

    weighted = True


Scheduler = RoundRobin | WeightedRoundRobin | LeastConnections
SCHEDULERS: dict[str, type[Scheduler]] = {
    "rr": RoundRobin,
    "wrr": WeightedRoundRobin,
    "lc": LeastConnections,
    "wlc": WeightedLeastConnections,
}
