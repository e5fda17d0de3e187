# SPDX-License-Identifier: GPL-2.0-only
"""The BFD state machine by a virtual clock: two sessions and the way between them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.bfd.engine import receivable
from xlvs.bfd.packet import Diagnostic, Packet, State
from xlvs.bfd.session import Session
from xlvs.keepalived.redundancy import BfdInstance

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
DELAY = 0.0005


def instance(**fields: object) -> BfdInstance:
    return BfdInstance(**{"name": "one", "neighbor": B, **fields})  # type: ignore[arg-type]


class Pair:
    """Two ends; ``open`` says in which directions packets arrive."""

    def __init__(self, first: BfdInstance, second: BfdInstance, seed: int = 1) -> None:
        between = random.Random(seed).uniform
        self.ends = [Session(first, 11, between, 0.0), Session(second, 22, between, 0.3)]
        self.now = 0.0
        self.open = [True, True]
        self.under_way: list[tuple[float, int, Packet]] = []
        self.sent: list[list[tuple[float, Packet]]] = [[], []]

    def send(self, end: int, packets: list[Packet]) -> None:
        for packet in packets:
            assert not (packet.poll and packet.final)
            self.sent[end].append((self.now, packet))
            if self.open[end]:
                self.under_way.append((self.now + DELAY, 1 - end, packet))

    def run(self, until: Callable[[], bool] | float) -> None:
        """Let time pass to a time, or until something is true."""
        limit = until if isinstance(until, float) else self.now + 100
        while not (callable(until) and until()):
            due = min([end.due for end in self.ends] + [at for at, _, _ in self.under_way])
            if due > limit:
                assert isinstance(until, float), "it did not happen"
                self.now = limit
                return
            self.now = max(self.now, due)
            for one in [one for one in self.under_way if one[0] <= self.now]:
                self.under_way.remove(one)
                self.send(one[1], self.ends[one[1]].receive(one[2], self.now))
            for number, end in enumerate(self.ends):
                self.send(number, end.advance(self.now))

    def up(self) -> bool:
        return all(end.state is State.UP for end in self.ends)


def pair(seed: int = 1, **fields: object) -> Pair:
    return Pair(instance(**fields), instance(neighbor=A), seed)


def test_up_then_fast_by_a_poll() -> None:
    two = pair()
    two.run(two.up)
    assert two.now < 3
    two.run(two.now + 1)
    for end in two.ends:
        assert end.interval == 0.01 and end.detection_time == pytest.approx(0.05)
    assert any(packet.poll for _, packet in two.sent[0]) and any(packet.final for _, packet in two.sent[1])
    assert not two.sent[0][-1][1].poll


def test_slowly_while_there_is_nobody() -> None:
    alone = pair(idle_tx=2000.0)
    alone.open = [False, False]
    alone.run(30.0)
    times = [at for at, _ in alone.sent[0]]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(pauses) >= 14 and min(pauses) >= 1.5 and max(pauses) <= 2.0
    assert max(pauses) - min(pauses) > 0.1, "no jitter"
    assert all(packet.desired_min_tx == 2_000_000 for _, packet in alone.sent[0])


@given(seed=st.integers(0, 999), multiplier=st.integers(1, 4))
@settings(max_examples=15)
def test_jitter_while_up(seed: int, multiplier: int) -> None:
    two = pair(seed, multiplier=multiplier)
    two.run(two.up)
    two.run(two.now + 0.5)
    begin = two.now
    two.run(begin + 0.5)
    times = [at for at, packet in two.sent[0] if at > begin and not packet.final]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    most = 0.009 if multiplier == 1 else 0.01
    assert pauses and min(pauses) >= 0.0075 - 1e-9 and max(pauses) <= most + 1e-9


def test_silence_is_found_in_the_detection_time_and_heals() -> None:
    two = pair()
    two.run(two.up)
    two.run(two.now + 1)
    cut = two.now
    two.open = [False, False]
    two.run(lambda: all(end.state is State.DOWN for end in two.ends))
    assert 0.03 <= two.now - cut <= 0.0521
    assert two.ends[0].diagnostic == Diagnostic.EXPIRED and not two.ends[0].remote_discriminator
    two.run(two.now + 5)
    two.open = [True, True]
    two.run(two.up)


def test_one_way_is_no_way() -> None:
    two = pair()
    two.run(two.up)
    two.run(two.now + 1)
    two.open[0] = False
    two.run(lambda: all(end.state is State.DOWN for end in two.ends))
    assert two.ends[1].diagnostic == Diagnostic.EXPIRED
    assert two.ends[0].diagnostic == Diagnostic.NEIGHBOR_DOWN


def test_a_neighbour_that_begins_anew_is_up_again() -> None:
    two = pair()
    two.run(two.up)
    two.ends[1] = Session(instance(neighbor=A), 33, random.uniform, two.now)
    two.run(lambda: two.ends[0].state is not State.UP)
    two.run(two.up)
    assert two.ends[0].remote_discriminator == 33


def test_farewell_is_down_at_once() -> None:
    two = pair()
    two.run(two.up)
    goodbye = two.ends[1].farewell()
    two.ends[0].receive(goodbye, two.now)
    assert two.ends[0].state is State.DOWN and two.ends[0].diagnostic == Diagnostic.NEIGHBOR_DOWN
    two.ends[0].receive(goodbye, two.now)
    assert two.ends[0].state is State.DOWN


def test_who_is_passive_waits() -> None:
    both = Pair(instance(passive=True), instance(neighbor=A, passive=True))
    both.run(20.0)
    assert both.sent == [[], []] and both.ends[0].due == math.inf
    one = pair(passive=True)
    one.run(one.up)


def test_slower_only_when_the_neighbour_knows() -> None:
    two = pair(min_tx=20.0)
    two.run(two.up)
    two.run(two.now + 1)
    two.open[1] = False  # no Final can come
    two.ends[0].configure(instance(min_tx=40.0, multiplier=200), two.now)
    two.ends[0].heard = math.inf
    assert two.ends[0].interval == 0.02
    two.ends[0].heard = two.now
    two.open[1] = True
    two.run(lambda: two.ends[0].interval == 0.04)
    two.run(two.now + 2)
    assert two.up() and two.ends[1].detection_time == pytest.approx(8.0)


def test_nothing_is_sent_to_who_wants_nothing() -> None:
    one = Session(instance(), 11, random.uniform, 0.0)
    one.receive(Packet(State.DOWN, 22, required_min_rx=0, multiplier=255), 0.0)
    assert one.interval == math.inf and one.advance(5.0) == []
    one.receive(Packet(State.INIT, 22, 11, poll=True, required_min_rx=0), 6.0)
    one.receive(Packet(State.UP, 22, 11, demand=True, required_min_rx=1, final=True), 6.0)
    assert one.state is State.UP and one.interval == math.inf


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 1), st.booleans()), max_size=12),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_after_any_history_both_come_up(history: list[tuple[float, int, bool]], seed: int) -> None:
    two = pair(seed, min_tx=100.0, min_rx=50.0)
    for pause, end, opened in history:
        two.run(two.now + pause)
        two.open[end] = opened
    two.open = [True, True]
    two.run(two.now + 6)
    assert two.up()


def test_how_far_a_packet_may_have_come() -> None:
    assert receivable(instance(), 255) and not receivable(instance(), 254)
    assert receivable(instance(max_hops=3), 252) and not receivable(instance(max_hops=3), 251)
    assert receivable(instance(max_hops=-1), 1) and receivable(instance(max_hops=255), 0)
