# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs explain` says what the packet path then does, and changes nothing by saying it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    DROPPED,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    Director,
    real_server,
    real_server6,
)
from tests.packet.packets import ACK, FIN, SYN, TCP, UDP
from xlvs.datapath import explaining, specimen
from xlvs.datapath.explaining import Explanation, Question
from xlvs.datapath.rehearsal import Rehearsal
from xlvs.model import MASQUERADE, ROUTE, SCHEDULERS, SCTP, TUNNEL, Destination, Service, ServiceKey, Tunnel

_FATES = {SENT: explaining.SENT, DROPPED: explaining.DROPPED, UNTOUCHED: explaining.LEFT}
_TABLES = 50
"""Of each seed."""


@pytest.fixture(scope="module")
def copy(director: Director) -> Iterator[Rehearsal]:
    """One copy for all tests, which make it anew for each packet."""
    with Rehearsal(director.maps) as made:
        yield made


def _explain(director: Director, copy: Rehearsal, question: Question) -> Explanation:
    copy.renew()
    return explaining.rehearse(director.maps, copy, question)


def _asked(director: Director, key: ServiceKey, client: bytes, port: int | None = None) -> Question:
    return Question(key.protocol, client, port, key.address, key.port, director.ifindex)


class _Table:
    """A service at random, with a history."""

    def __init__(self, director: Director, chance: random.Random) -> None:
        self.director = director
        self.chance = chance
        self.six = chance.random() < 0.3
        protocol = chance.choice((TCP, TCP, UDP, SCTP))
        self.mark = chance.randrange(1, 1000) if chance.random() < 0.15 else 0
        self.target = director.unused_key(protocol, VIP6 if self.six else VIP)
        family = self.target.family
        self.key = ServiceKey(family, fwmark=self.mark) if self.mark else self.target
        self.scheduler = chance.choice([name for name in SCHEDULERS if name != "twos"])
        flags = chance.choice((0, 1, 2, 3)) if self.scheduler in ("sh", "mh") else 0
        persistence = 60 if chance.random() < 0.25 else 0
        one_packet = protocol == UDP and not persistence and chance.random() < 0.2
        bits = 128 if self.six else 32
        netmask = chance.choice((bits, bits, bits - 4)) if persistence else bits
        director.table.add_service(
            Service(self.key, self.scheduler, flags, persistence, netmask, one_packet=one_packet)
        )
        for number in range(1, chance.randrange(1, 8)):
            director.table.add_destination(self.key, self._destination(number))
        self.ports: list[tuple[bytes, int]] = []
        for _ in range(chance.randrange(12)):
            self._play()

    def _destination(self, number: int) -> Destination:
        chance = self.chance
        method = chance.choice((ROUTE, ROUTE, MASQUERADE, TUNNEL))
        upper = chance.choice((0, 0, 0, 3))
        return Destination(
            real_server6(number) if self.six else real_server(number), self.target.port, method,
            chance.choice((0, 1, 1, 2, 5)), upper, 1 if upper else 0,
            Tunnel(chance.choice(("ipip", "gre"))) if method == TUNNEL else None,
        )  # fmt: skip

    def client(self) -> bytes:
        """One of a few clients."""
        last = self.chance.randrange(200, 204)
        return packets.packed(f"fd00::{last:x}" if self.six else f"10.0.0.{last}")

    def frame(self, client: bytes, port: int, begins: bool) -> bytes:
        """What `xlvs explain` thinks that such a client sends."""
        key, mac = self.target, packets.mac("02:00:00:00:00:01")
        return specimen.frame(key.protocol, client, port, key.address, key.port, begins=begins, mac=mac)

    def _play(self) -> None:
        chance = self.chance
        client, port = self.client(), self.director.unused_port()
        self.ports.append((client, port))
        self.director.tc(self.frame(client, port, begins=True), mark=self.mark)
        for _ in range(chance.randrange(3)):
            if self.target.protocol == TCP:
                segment = self.director.segment(
                    self.target, port, chance.choice((ACK, FIN | ACK)), client=client
                )
                self.director.tc(segment, mark=self.mark)
            else:
                self.director.tc(self.frame(client, port, begins=False), mark=self.mark)

    def question(self) -> Question:
        """A packet of a new connection or of one there is."""
        key = self.target
        client, port = (self.client(), None)
        if self.ports and self.chance.random() < 0.3:
            client, port = self.chance.choice(self.ports)
        return Question(key.protocol, client, port, key.address, key.port, self.director.ifindex, self.mark)

    def counts(self) -> dict[tuple[bytes, int], int]:
        """Packets by real server."""
        entries = self.director.table.service(self.key).destinations
        return {(one.destination.address, one.destination.port): one.stats.in_packets for one in entries}


@pytest.mark.parametrize("seed", range(5))
def test_what_is_said_is_what_happens(director: Director, copy: Rehearsal, seed: int) -> None:
    chance = random.Random(seed)
    outcomes = []
    for number in range(_TABLES):
        table = _Table(director, chance)
        question = table.question()
        said = _explain(director, copy, question)
        before = table.counts()
        frame = table.frame(question.client, said.client_port, begins=said.connection is None)
        verdict, after = director.tc(frame, mark=table.mark)
        served = [server for server, packets_now in table.counts().items() if packets_now > before[server]]

        story = f"seed {seed}, table {number}: {said}"
        assert _FATES[verdict] == said.fate, story
        assert ([said.real_server[0]] if said.leaves and said.real_server else []) == [
            address for address, _ in served
        ], story
        if said.leaves:
            assert specimen.addresses(after) == (said.leaves.source, said.leaves.destination), story
            assert (said.service.key if said.service else None) == table.key, story
        outcomes.append("forwarded" if said.leaves else said.reasons[0])
        director.table.delete_service(table.key)
    assert outcomes.count("forwarded") > len(outcomes) // 2
    assert explaining.REASONS["no_destination"] in outcomes


def test_nothing_changes(director: Director, copy: Rehearsal) -> None:
    key = director.service(1, 2, scheduler="wrr")
    director.open(key, ACK)
    director.changes_nothing(lambda: print(_explain(director, copy, _asked(director, key, CLIENT)).fate))


def test_the_same_twice(director: Director, copy: Rehearsal) -> None:
    key = director.service(1, 1, 1)
    first, second = (_explain(director, copy, _asked(director, key, CLIENT)) for _ in range(2))
    assert first == second


def test_candidates_have_the_schedulers_numbers(director: Director, copy: Rehearsal) -> None:
    key = director.service(1, 3, 0, scheduler="wlc")
    for _ in range(4):
        director.open(key, ACK)
    said = _explain(director, copy, _asked(director, key, CLIENT))
    by_server = {one.address: one for one in said.candidates}
    assert [one.address for one in said.candidates] == [real_server(3), real_server(2), real_server(1)]
    assert by_server[real_server(2)].load == (by_server[real_server(2)].active * 256
                                             + by_server[real_server(2)].inactive, 3)  # fmt: skip
    (chosen,) = (one for one in said.candidates if one.chosen)
    least = min(one.load[0] / one.load[1] for one in said.candidates if one.load and one.weight)
    assert chosen.load and chosen.load[0] / chosen.load[1] == least


def test_a_connection_there_is(director: Director, copy: Rehearsal) -> None:
    key = director.service(1, 1)
    port = director.open(key, ACK)
    entry = director.connection(key, port)
    assert entry is not None
    said = _explain(director, copy, _asked(director, key, CLIENT, port))
    assert said.connection is not None
    assert (said.connection.state, said.connection.address) == ("ESTABLISHED", entry.destination)
    assert said.candidates == []
    assert said.real_server == (entry.destination, key.port)
    another = _explain(director, copy, _asked(director, key, CLIENT, director.unused_port()))
    assert another.connection is None


def test_a_template_there_is(director: Director, copy: Rehearsal) -> None:
    key = director.unused_key()
    director.table.add_service(Service(key, "rr", 0, 300, 32))
    for number in (1, 2):
        director.table.add_destination(key, Destination(real_server(number), key.port, ROUTE, 1))
    assert _explain(director, copy, _asked(director, key, CLIENT)).template is None
    port = director.open(key)
    entry = director.connection(key, port)
    assert entry is not None
    said = _explain(director, copy, _asked(director, key, CLIENT))
    assert said.template is not None
    assert said.template.address == entry.destination
    assert said.template.expires in (299, 300)
    assert said.real_server == (entry.destination, key.port)


def test_answers_under_nat(director: Director, copy: Rehearsal) -> None:
    """Asked for what a real server sends, it says where that goes."""
    key = director.service(1, method=MASQUERADE)
    port = director.open(key, ACK)
    answer = Question(TCP, real_server(1), key.port, CLIENT, port, director.ifindex)
    said = _explain(director, copy, answer)
    assert said.connection is not None
    assert said.connection.state == "ESTABLISHED"
    assert said.fate == explaining.SENT


def test_why_not(director: Director, copy: Rehearsal) -> None:
    quiesced = director.service(0, 0)
    said = _explain(director, copy, _asked(director, quiesced, CLIENT))
    assert said.leaves is None
    assert said.reasons == [explaining.REASONS["no_destination"]]

    nobodys = director.unused_key()
    said = _explain(director, copy, _asked(director, nobodys, CLIENT))
    assert (said.fate, said.service, said.reasons) == (explaining.LEFT, None, [])

    elsewhere = director.service(1, address=packets.packed("10.0.0.222"))
    said = _explain(director, copy, _asked(director, elsewhere, CLIENT))
    assert said.fate == explaining.LEFT
    assert said.service is not None
    assert said.reasons == [explaining.NOT_OURS]

    removed = director.service(1)
    port = director.open(removed, SYN | ACK)
    director.table.delete_destination(removed, real_server(1), removed.port)
    said = _explain(director, copy, _asked(director, removed, CLIENT, port))
    assert said.fate == explaining.DROPPED
    assert said.reasons == [explaining.REASONS["unavailable"]]
