# SPDX-License-Identifier: GPL-2.0-only
"""The same history, the same picks as kernel IPVS."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet.director import CLIENT, DROPPED, SENT, Director, real_server
from tests.packet.icmp_errors import PORT_UNREACHABLE, error_about
from tests.packet.kernel_model import (
    SCHEDULERS,
    Scheduler,
    Server,
    WeightedRoundRobin,
    is_active,
    next_state,
    takes_over,
)
from tests.packet.kernel_schedulers import PICKERS, PORT, Arrival, Maglev, Picker, sip_hash
from tests.packet.packets import ACK, FIN, RST, SYN, with_one_hop_less
from xlvs.datapath.hashing import maglev_table
from xlvs.datapath.runs import Run
from xlvs.datapath.scheduling import check_maglev
from xlvs.errors import DestinationExists, InvalidOperation
from xlvs.kernel import abi
from xlvs.model import Destination, Service, ServiceKey

ALL = sorted([*SCHEDULERS, *PICKERS])
names = st.integers(1, 6)
weights = st.sampled_from([0, 1, 1, 2, 3, 4, 6, 8, 100]) | st.integers(0, 12) | st.just(2147483647)
steps = st.one_of(
    st.tuples(st.just("flow"), st.integers(1, 8)),
    st.tuples(st.just("flow"), st.integers(1, 8)),
    st.tuples(st.just("segment"), st.integers(0, 1000), st.sampled_from([ACK, FIN, RST, SYN])),
    st.tuples(st.just("reopen"), st.integers(0, 1000)),
    st.tuples(st.just("put"), names, weights),
    st.tuples(st.just("put"), names, weights),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("scheduler"), st.sampled_from(ALL), st.integers(0, 3)),
)  # fmt: skip
histories = st.lists(steps, max_size=40)


class Flow:
    """A connection of the model."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = bytes([10, 0, 0, 110 + port % 140])
        self.server: Server
        self.state = "NONE"


def _model(name: str, servers: list[Server]) -> Scheduler | Picker:
    return SCHEDULERS[name](servers) if name in SCHEDULERS else PICKERS[name](servers)


class History:
    """Plays a history on a director and on the kernel's rules, and compares."""

    def __init__(self, director: Director, scheduler: str, flags: int = 0) -> None:
        self.director = director
        self.key = director.unused_key()
        director.table.add_service(Service(self.key, scheduler, flags))
        self.name = scheduler
        self.flags = flags
        self.scheduler = _model(scheduler, [])
        self.known: dict[int, Server] = {}
        self.flows: list[Flow] = []

    def put(self, name: int, weight: int) -> None:
        """Add a real server, or give it another weight if it is there."""
        destination = Destination(real_server(name), self.key.port, weight=weight)
        server = self.known.setdefault(name, Server(name))
        server.weight = weight
        if server in self.scheduler.servers:
            server.last_weight = weight or server.last_weight
            self.director.table.edit_destination(self.key, destination)
            self.scheduler.edited()
        else:
            server.last_weight = weight
            self.director.table.add_destination(self.key, destination)
            self.scheduler.added(server)

    def delete(self, name: int) -> None:
        """Delete a real server, if it is there; it may come back with its connections."""
        server = self.known.get(name)
        if server is not None and server in self.scheduler.servers:
            self.director.table.delete_destination(self.key, real_server(name), self.key.port)
            self.scheduler.removed(server)

    def change_scheduler(self, name: str, flags: int) -> None:
        """Edit the service; the same scheduler again is no change, but for its flags."""
        self.director.table.edit_service(Service(self.key, name, flags))
        self.flags = flags
        if name != self.name:
            self.name = name
            self.scheduler = _model(name, self.scheduler.servers)

    def open_flow(self) -> None:
        """A client comes."""
        self._schedule(Flow(self.director.unused_port()))

    def _schedule(self, flow: Flow) -> None:
        if isinstance(self.scheduler, Picker):
            chosen = self.scheduler.choose(
                Arrival(flow.client, flow.port, self.key.address, self.key.port, self.flags)
            )
        else:
            chosen = self.scheduler.pick()
        frame = self.director.segment(self.key, flow.port, SYN, client=flow.client)
        verdict, after = self.director.tc(frame)
        assert verdict == SENT
        expected = with_one_hop_less(frame) if chosen else error_about(frame, PORT_UNREACHABLE, after)
        assert after == expected
        if flow in self.flows:
            # The kernel's timer ends the old connection after the new one was scheduled.
            flow.server.inactive -= 1
            self.flows.remove(flow)
        if chosen:
            flow.server = chosen
            chosen.connections += 1
            chosen.inactive += 1
            self.flows.append(flow)
            flow.state = "NONE"
            self._move(flow, next_state("NONE", SYN))

    def send(self, which: int, flags: int) -> None:
        """A client sends a segment in a connection that it has."""
        if not self.flows:
            return
        flow = self.flows[which % len(self.flows)]
        if takes_over(flow.state, flags):
            self._schedule(flow)
            return
        there = flow.server in self.scheduler.servers
        verdict, _ = self.director.tc(self.director.segment(self.key, flow.port, flags, client=flow.client))
        assert verdict == (SENT if there else DROPPED)
        if there:
            self._move(flow, next_state(flow.state, flags))

    @staticmethod
    def _move(flow: Flow, state: str) -> None:
        change = is_active(state) - is_active(flow.state)
        flow.server.active += change
        flow.server.inactive -= change
        flow.state = state

    def compare(self) -> None:
        """The director lists what the model holds: order, weights, connections, picks."""
        entry = self.director.listing(self.key)
        assert (entry.service.scheduler, entry.service.scheduler_flags) == (self.name, self.flags)
        listed = [
            (
                one.destination.address,
                one.destination.weight,
                one.active,
                one.inactive,
                one.stats.connections,
            )
            for one in entry.destinations
        ]
        assert listed == [
            (real_server(one.name), one.weight, one.active, one.inactive, one.connections)
            for one in self.scheduler.servers
        ]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ALL), st.integers(0, 3), st.lists(st.tuples(names, weights), max_size=5), histories)
def _play(
    director: Director,
    scheduler: str,
    flags: int,
    servers: list[tuple[int, int]],
    history: list[tuple[object, ...]],
) -> None:
    play = History(director, scheduler, flags)
    for name, weight in servers:
        play.put(name, weight)
    for step in history:
        match step:
            case ("flow", int(count)):
                for _ in range(count):
                    play.open_flow()
                    play.compare()
            case ("segment", int(which), int(flags)):
                play.send(which, flags)
            case ("reopen", int(which)):
                for flags in (ACK, RST, SYN):
                    play.send(which, flags)
                    play.compare()
            case ("put", int(name), int(weight)):
                play.put(name, weight)
            case ("delete", int(name)):
                play.delete(name)
            case ("scheduler", str(chosen), int(changed)):
                play.change_scheduler(chosen, changed)
        play.compare()
    director.table.delete_service(play.key)


def test_any_history(director: Director) -> None:
    _play(director)


def test_a_weight_of_zero_gets_nothing_new(director: Director) -> None:
    for scheduler in SCHEDULERS:
        key = director.service(1, 1, scheduler=scheduler)
        ports = [director.open(key, ACK) for _ in range(4)]
        director.table.edit_destination(key, Destination(real_server(1), key.port, weight=0))
        old = director.entry(key, real_server(1))
        assert old.active == 2
        for _ in range(6):
            director.open(key)
        for port in ports:
            assert director.tc(director.segment(key, port, ACK))[0] == SENT
        entry = director.entry(key, real_server(1))
        assert (entry.stats.connections, entry.active) == (2, 2)
        assert entry.stats.in_packets == old.stats.in_packets + 2
        assert director.entry(key, real_server(2)).stats.connections == 8
        director.table.edit_destination(key, Destination(real_server(2), key.port, weight=0))
        before = director.events()["no_destination"]
        frame = director.segment(key, director.unused_port(), SYN)
        verdict, answer = director.tc(frame)
        assert (verdict, answer) == (SENT, error_about(frame, PORT_UNREACHABLE, answer))
        assert director.events()["no_destination"] == before + 1


def test_wrr_with_weights_far_apart(director: Director) -> None:
    """A hundred thousand passes lie between two picks of the light one."""
    play = History(director, "wrr")
    for weight in (100_000, 3, 7, 2147483647):
        play.put(1, weight)
        play.put(2, 1)
        for _ in range(40):
            play.open_flow()
        play.compare()


def _chances(director: Director, key: ServiceKey) -> dict[bytes, float]:
    """The chance that twos gives each real server, by its rule: two draws, and the less loaded of them."""
    servers = [one for one in director.listing(key).destinations if one.destination.weight > 0]
    total = sum(one.destination.weight for one in servers)
    # Of the numbers from 0 to the sum of the weights, the first server has one more than its weight.
    draw, load = {}, {}
    for one in servers:
        address, weight = one.destination.address, one.destination.weight
        draw[address] = (weight + (one is servers[0])) / (total + 1)
        load[address] = (one.active * 256 + one.inactive) / weight
    chances = dict.fromkeys(draw, 0.0)
    for first in draw:
        for second in draw:
            chosen = second if load[second] < load[first] else first
            chances[chosen] += draw[first] * draw[second]
    return chances


def test_twos_draws_as_often_as_it_should(director: Director) -> None:
    """The picks less their chances add up to a normal variable; beyond 5 deviations are 6 in 10 million."""
    key = director.service(1, 2, 5, 0, scheduler="twos")
    excess: defaultdict[bytes, float] = defaultdict(float)
    variance: defaultdict[bytes, float] = defaultdict(float)
    for number in range(4000):
        chances = _chances(director, key)
        before = director.listing(key).destinations
        director.open(key, *([FIN] if number % 3 else []))
        for old, now in zip(before, director.listing(key).destinations, strict=True):
            address = now.destination.address
            chance = chances.get(address, 0.0)
            excess[address] += now.stats.connections - old.stats.connections - chance
            variance[address] += chance * (1 - chance)
        if number % 500 == 499:
            # Loads that differ, in another way each time.
            weight = 1 + number // 500
            director.table.edit_destination(key, Destination(real_server(1), key.port, weight=weight))
    for address, deviation in excess.items():
        assert abs(deviation) <= 5 * variance[address] ** 0.5
    assert director.entry(key, real_server(4)).stats.connections == 0


def test_twos_with_nothing_to_draw(director: Director) -> None:
    key = director.service(0, 0, scheduler="twos")
    before = director.events()["no_destination"]
    director.tc(director.segment(key, director.unused_port(), SYN))
    assert director.events()["no_destination"] == before + 1
    director.table.edit_destination(key, Destination(real_server(2), key.port, weight=2147483647))
    director.open(key)
    assert director.entry(key, real_server(2)).active == 1


def test_a_thousand_real_servers(director: Director) -> None:
    """mh with 1,000 real servers, added by one command: packets see them when it ends."""
    key = director.unused_key()
    addresses = [bytes([10, 0, 0, 2 + n % 250]) for n in range(1000)]
    ports = [1000 + n // 250 for n in range(1000)]
    director.table.begin_change()
    director.table.add_service(Service(key, "mh", scheduler_flags=PORT))
    for address, port in zip(addresses, ports, strict=True):
        director.table.add_destination(key, Destination(address, port))
    director.table.end_change()
    newest_first = list(zip(addresses, ports, strict=True))[::-1]
    table = maglev_table([(address.ljust(16, b"\0"), port, 1) for address, port in newest_first], ipv6=False)
    for _ in range(20):
        client_port = director.unused_port()
        director.tc(director.segment(key, client_port, SYN))
        slot = sip_hash(int.from_bytes(CLIENT, "big") + client_port, Maglev.KEYS[0]) % Maglev.SIZE
        connection = director.connection(key, client_port)
        assert connection
        assert (connection.destination, connection.destination_port) == newest_first[table[slot]]
    director.table.delete_service(key)


def test_a_new_server_is_not_seen_before_the_command_ends(director: Director) -> None:
    """Other commands in between see it, and so does whoever looks at another service."""
    key = director.service(1, scheduler="mh")
    other = director.unused_key()
    table = director.table
    table.begin_change()
    table.add_service(Service(other, "mh"))
    table.add_destination(key, Destination(real_server(2), key.port))
    assert len(director.listing(key).destinations) == 2
    with pytest.raises(DestinationExists):
        table.add_destination(key, Destination(real_server(2), key.port))
    table.add_destination(other, Destination(real_server(3), other.port))
    table.edit_destination(key, Destination(real_server(1), key.port, weight=0))
    table.delete_destination(other, real_server(3), other.port)
    table.add_destination(key, Destination(real_server(3), key.port))
    table.end_change()
    director.another_command()
    names = [one.destination.address[3] - 10 for one in director.listing(key).destinations]
    assert names == [3, 2, 1]
    assert not director.listing(other).destinations


def test_more_real_servers_than_mh_has_slots() -> None:
    """It is refused where the kernel would ignore the newest."""
    with pytest.raises(InvalidOperation, match="4093"):
        check_maglev(Run(abi.SCHEDULER_MH, [(n, 1) for n in range(4094)]))
    check_maglev(Run(abi.SCHEDULER_MH, [(n, 1) for n in range(4093)]))


def test_none_takes_nothing_new(director: Director) -> None:
    """IPVS accepts the name, and so there may be no scheduler."""
    key = director.service(1, scheduler="none")
    frame = director.segment(key, director.unused_port(), SYN)
    verdict, answer = director.tc(frame)
    assert (verdict, answer) == (SENT, error_about(frame, PORT_UNREACHABLE, answer))
    director.table.edit_service(Service(key, "rr"))
    port = director.open(key, ACK)
    director.table.edit_service(Service(key, "none"))
    director.another_command()
    assert director.listing(key).service.scheduler == "none"
    assert director.tc(director.segment(key, port, ACK))[0] == SENT
    assert director.connection(key, port) is not None
    refused = director.segment(key, director.unused_port(), SYN)
    verdict, answer = director.tc(refused)
    assert (verdict, answer) == (SENT, error_about(refused, PORT_UNREACHABLE, answer))
    assert director.listing(key).stats.connections == 1


class BoundedWeightedRoundRobin(WeightedRoundRobin):
    """wrr as ip_vs_wrr_schedule() goes over servers of which some take no more: two nested loops."""

    def pick_below(self, bounds: dict[int, int]) -> Server | None:
        """Choose one that has not all the connections yet that it may have; 0 is no bound."""
        last, stop = self.mark, None
        last_pass = restarted = False
        while True:
            while self.mark + 1 < len(self.servers):
                self.mark += 1
                server = self.servers[self.mark]
                is_full = 0 < bounds[server.name] <= server.connections
                if server.weight >= self.threshold and not is_full:
                    return server
                if self.mark == stop:
                    return None
            self.mark = -1
            self.threshold -= self.step
            if self.threshold <= 0:
                self.threshold = self.first
                if last_pass or last == -1:
                    return None
                restarted = True
            last_pass = self.threshold <= self.step
            if last_pass and restarted and last != -1:
                stop = last


LARGE = (120_000, 7, 100, 100_000, 1)
"""Between those weights there are more passes in vain than a packet has time for."""


@pytest.mark.parametrize("seed", range(12))
def test_wrr_of_servers_that_take_no_more(director: Director, seed: int) -> None:
    chance = Random(seed)
    weights = list(LARGE) if seed < 2 else [chance.choice((1, 2, 3, 6, 40, 60)) for _ in range(4)]
    chance.shuffle(weights)
    key = director.unused_key()
    director.table.add_service(Service(key, "wrr"))
    kernel = BoundedWeightedRoundRobin([])
    bounds: dict[int, int] = {}
    for name, weight in enumerate(weights, start=1):
        bounds[name] = 2 if weight > 1000 else chance.randint(0, 4) if len(weights) == 4 else 0
        director.table.add_destination(
            key, Destination(real_server(name), key.port, weight=weight, upper_threshold=bounds[name])
        )
        server = Server(name)
        server.weight = weight
        kernel.added(server)
    for _ in range(25):
        chosen = kernel.pick_below(bounds)
        frame = director.segment(key, director.unused_port(), SYN)
        verdict, after = director.tc(frame)
        assert verdict == SENT
        assert after == (with_one_hop_less(frame) if chosen else error_about(frame, PORT_UNREACHABLE, after))
        if chosen:
            chosen.connections += 1
        listed = {
            one.destination.address: one.stats.connections for one in director.listing(key).destinations
        }
        assert listed == {real_server(one.name): one.connections for one in kernel.servers}
