# SPDX-License-Identifier: GPL-2.0-only
"""What would become of a client's packet, and why: answers for `xlvs explain`.

Nothing is worked out a second time here: the packet is handed to the packet
path itself, on a copy of its tables (`rehearsal`).  This module makes the
packet, and reads what happened: which connection or template was there before,
which service and real server were counted, what the packet became.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from struct import Struct

from xlvs import model
from xlvs.datapath import runs, specimen
from xlvs.datapath.maps import SLOT_BYTES, Maps
from xlvs.datapath.places import Places
from xlvs.datapath.reading import Reader
from xlvs.datapath.records import (
    METHOD_NAMES,
    Slot,
    address,
    offset_of,
    packed_key,
    padded,
    swap_port,
    ticks_now,
)
from xlvs.datapath.rehearsal import INGRESS, Rehearsal, busy
from xlvs.datapath.scheduling import Scheduling
from xlvs.errors import UsageError
from xlvs.kernel import abi, bpf, rtnetlink

SENT, DROPPED, LEFT = "sent", "dropped", "left to the director"
"""What becomes of a packet; `LEFT`: the director's own stack goes on with it."""

_TC_ACT_SHOT, _TC_ACT_REDIRECT = 2, 7
_FLOW = Struct("=16s16sHHBBH")
_FLOW_PLACE = offset_of(abi.Connection, "flow")
_FIRST_PORT, _LAST_PORT = 40000, 49999
_LINK_TO_FTP = 0x80000000
"""In ``link`` of a connection of FTP's data (bpf/abi.h)."""

NOT_OURS = "the VIP is not an address of the director, which leaves such packets to whom they belong"

REASONS = {
    "table_full": "the connection table is full",
    "no_destination": "no real server can be chosen: weights of 0, thresholds reached, or none there",
    "unavailable": "the real server of its connection was removed from the service",
    "unroutable": "there is no way to the real server: no route, nobody who answers for its address, "
    "or none that a client's source may take",
    "ttl_exceeded": "its TTL, or hop limit, ends here",
    "too_big": "it does not fit the MTU to the real server",
    "no_call_id": "the service goes by Call-ID, and this datagram has none",
    "defended": "drop_packet defends the director: packets that would begin connections are dropped",
}
"""The packet path's counters of what it dropped, in words."""


@dataclass(frozen=True, slots=True)
class Question:
    """A packet: addresses packed, ports in host order.

    ``client_port`` None: of a connection that does not exist yet.  ``interface``
    is the index of that by which it comes in, None for the one by which the
    director would answer the client.  ``mark`` is a firewall mark that it has already.
    """

    protocol: int
    client: bytes
    client_port: int | None
    virtual: bytes
    port: int
    interface: int | None = None
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A real server that the scheduler had before it, in the order in which it looks at them.

    ``load`` is what the scheduler compares, as a fraction, where it compares loads.
    """

    address: bytes
    port: int
    weight: int
    active: int
    inactive: int
    overloaded: bool
    load: tuple[int, int] | None
    chosen: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection or template that was there before: its state, and for how many seconds more."""

    state: str
    expires: int
    address: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """How a packet leaves: by which interface, to which neighbour, from and to which address.

    ``mac`` is empty while the neighbour's is not known: it will be asked for.
    """

    interface: str
    next_hop: bytes
    mac: bytes
    source: bytes
    destination: bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """The packet's fate, and what led to it; what there was none of is None or empty."""

    question: Question
    client_port: int
    interface: str
    fate: str
    reasons: list[str]
    """Why it is not sent to a real server, where it is not."""
    connection: Entry | None
    template: Entry | None
    service: model.Service | None
    candidates: list[Candidate]
    """Of a packet that begins a connection."""
    real_server: tuple[bytes, int] | None
    method: str
    local: bool
    """The real server is the director itself."""
    leaves: Leaving | None


def explain(maps: Maps, question: Question) -> Explanation:
    """Say what would become of a packet.  The caller holds the table's lock.

    Raises what `rehearse` and `Rehearsal` raise.
    """
    with Rehearsal(maps) as copy:
        return rehearse(maps, copy, question)


def rehearse(maps: Maps, copy: Rehearsal, question: Question) -> Explanation:
    """Try the packet on a copy on which nothing was tried yet (`Rehearsal.renew`).

    Raises `UsageError` for a client whose packets no interface brings.
    """
    interface = _incoming(question)
    port, slot = _place(maps, question)
    frame = specimen.frame(
        question.protocol, question.client, port, question.virtual, question.port,
        begins=slot is None, mac=interface.mac,
    )  # fmt: skip
    verdict, after = copy.run(INGRESS, frame, interface.index, question.mark)
    return _Witness(maps, copy, question, port, slot).report(interface.name, verdict, after)


def _incoming(question: Question) -> rtnetlink.Link:
    """The interface by which the packet comes in."""
    links = {link.index: link for link in rtnetlink.links()}
    if question.interface is not None:
        return links[question.interface]
    route = rtnetlink.route_to(question.client)
    if route.kind == rtnetlink.LOCAL_ROUTE:
        raise UsageError(
            "that client is the director itself: its own packets do not come in by an interface",
            "Ask for a client outside.",
        )
    if route.kind != rtnetlink.UNICAST_ROUTE or route.interface not in links:
        raise UsageError(
            "the director has no route to that client, so it is not clear by which interface it would come",
            "Say it: --interface NAME",
        )
    return links[route.interface]


def _place(maps: Maps, question: Question) -> tuple[int, Slot | None]:
    """The client's port, and the live entry of its flow if there is one."""
    if question.client_port is not None:
        return question.client_port, find(maps, question, question.client_port)
    for port in range(_FIRST_PORT, _LAST_PORT):
        if find(maps, question, port) is None:
            return port, None
    return _LAST_PORT, find(maps, question, _LAST_PORT)


def find(maps: Maps, question: Question, client_port: int) -> Slot | None:
    """The entry of a packet's flow (of its connection, where it is an answer), if it has not expired."""
    family = model.IPV4 if len(question.client) == 4 else model.IPV6
    flow = _FLOW.pack(
        padded(question.client), padded(question.virtual), swap_port(client_port), swap_port(question.port),
        question.protocol, family, 0,
    )  # fmt: skip
    table, now = maps.connection_slots(), ticks_now()
    # Sought by its bytes through all of the table, which is quicker here than a hash is right.
    place = table.find(flow)
    while place >= 0:
        start = place - _FLOW_PLACE
        if start % SLOT_BYTES == 0:
            slot = Slot(table[start : start + SLOT_BYTES])
            if slot.flags & abi.CONNECTION_REPLY:
                slot = _slot_at(maps, slot.link - 1)
            if slot.seconds_left(now) is not None:
                return slot
        place = table.find(flow, place + 1)
    return None


def _slot_at(maps: Maps, number: int) -> Slot:
    return Slot(maps.connection_slots()[number * SLOT_BYTES : (number + 1) * SLOT_BYTES])


class _Witness:
    """Reads what the packet did to the copy, and what was in the tables before."""

    def __init__(
        self, maps: Maps, copy: Rehearsal, question: Question, port: int, before: Slot | None
    ) -> None:
        self._maps = maps
        self._copy = copy
        self._question = question
        self._port = port
        self._before = before
        self._began = find(copy, question, port) if before is None else None
        self._chosen = self._destination()
        self._service = self._service_index()

    def _destination(self) -> int | None:
        """The record of the real server: that which was counted, else that of the connection."""
        counted = busy(self._copy, "destination", self._copy.settings.destinations_top)
        if counted:
            return counted[0]
        slot = self._before or self._began
        return slot.destination if slot else None

    def _service_index(self) -> int | None:
        counted = busy(self._copy, "service", self._copy.settings.services_top)
        if counted:
            return counted[0]
        if self._chosen is None:
            return self._service_asked_for()
        index = int(self._copy.destination(self._chosen).service)
        return index if self._copy.service(index).flags else None

    def _service_asked_for(self) -> int | None:
        """The service at that address and port, where none was counted."""
        question = self._question
        family = model.IPV4 if len(question.virtual) == 4 else model.IPV6
        keys = [model.ServiceKey(family, fwmark=question.mark)] if question.mark else []
        for port in (question.port, 0):
            keys.append(model.ServiceKey(family, question.protocol, question.virtual, port))
        for key in keys:
            found = bpf.lookup(
                self._maps.descriptor("service_index"), self._maps.index_key(packed_key(key)), 4
            )
            if found is not None:
                return int.from_bytes(found, "little")
        return None

    def report(self, interface: str, verdict: int, after: bytes) -> Explanation:
        """Everything that was found out."""
        fate = SENT if verdict == _TC_ACT_REDIRECT else DROPPED if verdict == _TC_ACT_SHOT else LEFT
        reasons = self._reasons(fate)
        record = self._copy.destination(self._chosen) if self._chosen is not None else None
        sent_on = record is not None and fate == SENT and not reasons
        return Explanation(
            self._question, self._port, interface, fate, reasons,
            connection=self._entry(self._before),
            template=self._template(),
            service=self._model_service(),
            candidates=self._candidates(),
            real_server=self._real_server(record) if record else None,
            method=METHOD_NAMES.get(record.method, "") if record else "",
            local=fate == LEFT and record is not None and bool(record.flags & abi.DESTINATION_LOCAL),
            leaves=self._leaving(record, after) if record and sent_on else None,
        )  # fmt: skip

    def _reasons(self, fate: str) -> list[str]:
        events = self._copy.events()
        reasons = [text for name, text in REASONS.items() if events[name]]
        if fate == LEFT and not reasons and self._service is not None:
            virtual = self._question.virtual
            if not self._question.mark and rtnetlink.route_to(virtual).kind == rtnetlink.UNICAST_ROUTE:
                reasons.append(NOT_OURS)
        return reasons

    def _entry(self, slot: Slot | None) -> Entry | None:
        if slot is None:
            return None
        record = self._maps.destination(slot.destination)
        there = address(record.address, record.family)
        return Entry(slot.state(), slot.seconds_left(ticks_now()) or 0, there, slot.destination_port)

    def _template(self) -> Entry | None:
        """The template by which the connection was given its real server, if it was there before."""
        link = self._began.link if self._began else 0
        if not link or link & _LINK_TO_FTP:
            return None
        before, now = _slot_at(self._maps, link - 1), _slot_at(self._copy, link - 1)
        was_there = before.flags & abi.CONNECTION_TEMPLATE and before.seconds_left(ticks_now()) is not None
        return self._entry(before) if was_there and before.flow() == now.flow() else None

    def _model_service(self) -> model.Service | None:
        if self._service is None:
            return None
        reader = Reader(self._maps, Scheduling(self._maps, Places(self._maps)))
        return reader.entry(self._service).service

    def _candidates(self) -> list[Candidate]:
        if self._service is None or self._before is not None:
            return []
        run = runs.read(self._maps.pool(), self._maps.service(self._service).run)
        found = []
        for index, weight in run.picks:
            record = self._maps.destination(index)
            found.append(Candidate(
                address(record.address, record.family), swap_port(record.port), weight,
                max(record.active, 0), max(record.inactive, 0), bool(record.overload & abi.OVERLOADED),
                _load(run.scheduler, record, weight), index == self._chosen,
            ))  # fmt: skip
        return found

    def _real_server(self, record: abi.Destination) -> tuple[bytes, int]:
        slot = self._before or self._began
        port = slot.destination_port if slot else swap_port(record.port) or self._question.port
        return address(record.address, record.family), port

    @staticmethod
    def _leaving(record: abi.Destination, after: bytes) -> Leaving:
        source, destination = specimen.addresses(after)
        by_ipv6 = record.reach & abi.REACH_BY_IPV6
        try:
            name = socket.if_indextoname(record.interface)
        except OSError:
            name = f"interface {record.interface}"
        return Leaving(
            name, address(record.next_hop, model.IPV6 if by_ipv6 else model.IPV4),
            bytes(record.mac) if record.reach & abi.REACH_MAC else b"", source, destination,
        )  # fmt: skip


def _load(scheduler: int, record: abi.Destination, weight: int) -> tuple[int, int] | None:
    """What schedulers compare (bpf/sched_least.h), as a fraction: the least is chosen."""
    active, inactive = max(record.active, 0), max(record.inactive, 0)
    if scheduler == abi.SCHEDULER_LC:
        return active * 256 + inactive, 1
    if scheduler in (abi.SCHEDULER_WLC, abi.SCHEDULER_LBLC, abi.SCHEDULER_LBLCR):
        return active * 256 + inactive, weight
    if scheduler in (abi.SCHEDULER_SED, abi.SCHEDULER_NQ):
        return active + 1, weight
    return None
