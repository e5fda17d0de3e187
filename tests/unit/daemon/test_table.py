# SPDX-License-Identifier: GPL-2.0-only
"""The table is a function of configuration, health and decisions, whatever happened before."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.daemon.examples import VIP, Bench, configuration, real_server, rip, sorry, virtual_server
from xlvs.daemon.describe import key_text
from xlvs.daemon.desired import desired
from xlvs.daemon.keeper import MANY_SERVICES
from xlvs.daemon.overrides import Drain, Overrides
from xlvs.daemon.reconcile import differences, present
from xlvs.daemon.state import Store
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import InvalidOperation
from xlvs.keepalived.configuration import Configuration
from xlvs.keepalived.settings import HandEdits
from xlvs.model import (
    IPV4,
    TCP,
    Destination,
    DestinationEntry,
    Service,
    ServiceEntry,
    ServiceKey,
)

KEY = ServiceKey(IPV4, TCP, VIP, 80)
FOREIGN = ServiceKey(IPV4, TCP, VIP, 9999)

numbers = st.integers(1, 4)
servers = st.builds(
    real_server,
    numbers,
    st.integers(0, 3),
    checked=st.booleans(),
    inhibit_on_failure=st.booleans(),
    slow_start=st.sampled_from([0.0, 10.0]),
)


@st.composite
def virtual_servers(draw: st.DrawFn, port: int) -> Any:
    """A virtual server with some of the real servers 1 to 4."""
    chosen = draw(st.lists(servers, max_size=4, unique_by=lambda one: one.key))
    weights = sum(one.destination.weight for one in chosen)
    quorum = draw(st.integers(1, max(1, weights)))
    return virtual_server(
        *chosen,
        port=port,
        scheduler=draw(st.sampled_from(["rr", "wlc"])),
        quorum=quorum,
        hysteresis=draw(st.integers(0, quorum - 1)),
        alpha=draw(st.booleans()),
        sorry_server=draw(st.sampled_from([None, sorry(), sorry(inhibit=True), sorry(1)])),
    )


configurations = st.builds(
    lambda first, second, both: configuration(*([first, second] if both else [first])),
    virtual_servers(80),
    virtual_servers(81),
    st.booleans(),
)


class Histories(RuleBasedStateMachine):
    """Health, reloads, hand edits, decisions and deaths, in any order."""

    bench_class: type[Bench] = Bench

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.bench_class(self.empty_table())
        self.settled = False
        self.saved: Any = {}

    @staticmethod
    def empty_table() -> Any:
        """A table to begin with: a service of somebody else's alone."""
        return MemoryDatapath([ServiceEntry(Service(FOREIGN))])

    @initialize(new=configurations)
    def begin(self, new: Configuration) -> None:
        self.bench.configure(new)

    @rule(new=configurations)
    def reload(self, new: Configuration) -> None:
        self.bench.configure(new)
        self.settled = False

    @rule(new=configurations, port=st.sampled_from([80, 81]))
    def reload_of_a_part(self, new: Configuration, port: int) -> None:
        """What has not changed is the same value as before, as a parser with a memory gives it."""
        kept = {one.port: one for one in self.bench.keeper.configuration.virtual_servers if one.port == port}
        servers = tuple(kept.get(one.port, one) for one in new.virtual_servers)
        self.bench.configure(replace(new, virtual_servers=servers))
        self.settled = False

    @rule()
    def round_of_a_part(self) -> None:
        """Only what is wanted otherwise than before is looked at."""
        self.bench.round(whole=False)
        self.settled = False

    @rule(number=numbers, up=st.booleans())
    def health(self, number: int, up: bool) -> None:
        for checker, verdict in self.bench.verdicts.items():
            if checker.connection.address == rip(number):  # type: ignore[union-attr]
                verdict.up = up
        self.bench.settle()
        self.settled = False

    @rule(number=numbers, port=st.sampled_from([80, 81]), weight=st.integers(0, 9))
    def hand_edit(self, number: int, port: int, weight: int) -> None:
        datapath = self.bench.datapath
        key = ServiceKey(IPV4, TCP, VIP, port)
        for entry in datapath.services():
            if entry.service.key == key:
                standing = {one.destination.address for one in entry.destinations}
                if rip(number) not in standing:
                    datapath.add_destination(key, Destination(rip(number), port, weight=weight))
                elif weight > 5:
                    datapath.delete_destination(key, rip(number), port)
                else:
                    datapath.edit_destination(key, Destination(rip(number), port, weight=weight))
        self.settled = False

    @rule(port=st.sampled_from([80, 81]))
    def service_removed_by_hand(self, port: int) -> None:
        key = ServiceKey(IPV4, TCP, VIP, port)
        if any(entry.service.key == key for entry in self.bench.datapath.services()):
            self.bench.datapath.delete_service(key)
        self.settled = False

    @rule()
    def flushed_by_hand(self) -> None:
        self.bench.datapath.flush()
        self.bench.datapath.add_service(Service(FOREIGN))
        self.settled = False

    @rule(seconds=st.integers(1, 20))
    def time_goes_on(self, seconds: int) -> None:
        self.bench.now += seconds
        self.settled = False

    @rule(data=st.data(), deadline=st.sampled_from([None, 5.0]), drain=st.booleans())
    def drain(self, data: st.DataObject, deadline: float | None, drain: bool) -> None:
        target = self._target(data)
        if target is not None:
            until = None if deadline is None else self.bench.now + deadline
            wanted = Drain(self.bench.now, until) if drain else None
            keeper = self.bench.keeper
            keeper.decide(keeper.overrides.with_drain(target, wanted), self.bench.now)
        self.settled = False

    @rule(data=st.data(), weight=st.sampled_from([None, 0, 7]))
    def weight(self, data: st.DataObject, weight: int | None) -> None:
        target = self._target(data)
        if target is not None:
            keeper = self.bench.keeper
            keeper.decide(keeper.overrides.with_weight(target, weight), self.bench.now)
        self.settled = False

    def _target(self, data: st.DataObject) -> Any:
        targets = [
            (server.key, one.key)
            for server in self.bench.keeper.configuration.virtual_servers
            for one in server.real_servers
        ]
        return data.draw(st.sampled_from(targets)) if targets else None

    @rule()
    def save(self) -> None:
        states = self.bench.keeper.states
        self.saved = {key_text(key): deepcopy(state) for key, state in states.items()}

    @rule()
    def killed(self) -> None:
        """kill -9 and a new start: decisions are there always, health as it was when it was saved last."""
        before, bench = self.bench, self.bench
        keeper = before.keeper
        self.bench = self.bench_class(
            bench.datapath,
            overrides=keeper.overrides,
            saved=deepcopy(self.saved),
            owned=keeper.round().owned | keeper.round().wanted.keys(),
        )
        self.bench.now = before.now
        self.bench.configure(keeper.configuration)
        for checker, verdict in before.verdicts.items():  # the real servers are as they were
            if checker in self.bench.verdicts:
                self.bench.verdicts[checker].up = verdict.up
        self.bench.settle()
        self.settled = False

    @rule()
    def rounds(self) -> None:
        for _ in range(3):  # a drain: weight 0, then found without connections, then removed
            self.bench.round()
        self.settled = True

    @invariant()
    def table_is_as_it_should_be(self) -> None:
        if not self.settled:
            return
        keeper = self.bench.keeper
        wanted = desired(keeper.configuration, keeper.states, keeper.overrides, self.bench.now)
        have = present(self.bench.datapath.table())
        assert not differences(have, wanted)
        assert have.keys() == wanted.keys() | {FOREIGN}
        self._nothing_that_failed_is_chosen()

    def _nothing_that_failed_is_chosen(self) -> None:
        for server in self.bench.keeper.configuration.virtual_servers:
            weights = self.bench.weights(server.port)
            for one in server.real_servers:
                failed = any(self.bench.verdicts[checker].up is False for checker in one.checkers)
                number = one.destination.address[3] - 10
                is_sorry = server.sorry_server and server.sorry_server.destination.address == rip(number)
                if failed and not is_sorry:
                    assert weights.get(number, 0) == 0


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=100,
    stateful_step_count=20,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _two(policy: HandEdits = HandEdits.REPAIR) -> Bench:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), real_server(2)), policy=policy))
    bench.say(1, True)
    bench.say(2, True)
    bench.round()
    return bench


def test_hand_edits_are_repaired_and_reported_once() -> None:
    bench = _two()
    bench.datapath.edit_destination(KEY, Destination(rip(1), 80, weight=50))
    bench.datapath.delete_destination(KEY, rip(2), 80)
    report = bench.round()
    assert len(report.edits) == 2 and len(report.made) == 2
    assert bench.weights() == {1: 1, 2: 1}
    assert not bench.round().edits


def test_a_round_of_a_part_looks_at_nothing_else() -> None:
    bench = Bench()
    both = [virtual_server(real_server(one), port=port) for one, port in ((1, 80), (2, 81))]
    bench.configure(configuration(*both))
    bench.say(1, True)
    bench.say(2, True)
    bench.round()
    other = ServiceKey(IPV4, TCP, VIP, 81)
    bench.datapath.edit_destination(KEY, Destination(rip(1), 80, weight=40))
    bench.datapath.edit_destination(other, Destination(rip(2), 81, weight=50))
    bench.configure(configuration(both[0], virtual_server(real_server(2, 7), port=81)))
    report = bench.round(whole=False)
    assert report.have.keys() == {other}
    # What somebody else has changed there meanwhile is found all the same.
    assert [(change.key, change.have.weight) for change in report.edits] == [(other, 50)]  # type: ignore[union-attr]
    assert bench.weights() == {1: 40} and bench.weights(81) == {2: 7}
    assert not bench.round(whole=False).have
    report = bench.round()
    assert [change.key for change in report.edits] == [KEY]
    assert bench.weights() == {1: 1} and bench.weights(81) == {2: 7}


def test_a_large_round_is_of_all_services_at_once() -> None:
    bench = Bench()
    bench.configure(configuration())
    bench.round()
    many = [virtual_server(real_server(1, checked=False), port=port) for port in range(1, 2 + MANY_SERVICES)]
    bench.configure(configuration(*many))
    assert bench.keeper.round(whole=False).only is None
    bench.configure(configuration(*many[1:]))
    only = bench.keeper.round(whole=False).only
    assert only is not None and len(only) == MANY_SERVICES


def test_what_was_refused_in_a_part_is_tried_again() -> None:
    bench = _two()
    bench.configure(configuration(virtual_server(real_server(1, 5), real_server(2))))
    edit = bench.datapath.edit_destination
    bench.datapath.edit_destination = _refuse  # type: ignore[method-assign, assignment]
    assert len(bench.round(whole=False).refused) == 1
    bench.datapath.edit_destination = edit  # type: ignore[method-assign]
    assert not bench.round(whole=False).refused
    assert bench.weights() == {1: 5, 2: 1}


def _refuse(*_: object) -> None:
    raise InvalidOperation("not now")


def test_hand_edits_are_left_and_reported_once() -> None:
    bench = _two(HandEdits.REPORT)
    bench.datapath.edit_destination(KEY, Destination(rip(1), 80, weight=50))
    report = bench.round()
    assert len(report.edits) == 1 and not report.made
    for _ in range(3):
        report = bench.round()
        assert not report.edits and not report.made
    assert bench.weights() == {1: 50, 2: 1}
    bench.say(1, False)  # health counts more than an edit
    bench.round()
    assert bench.weights() == {2: 1}
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 1, 2: 1}


def test_hand_edits_are_adopted_until_the_configuration_changes() -> None:
    bench = _two(HandEdits.ADOPT)
    bench.datapath.edit_destination(KEY, Destination(rip(1), 80, weight=50))
    bench.datapath.delete_destination(KEY, rip(2), 80)
    bench.datapath.add_destination(KEY, Destination(rip(7), 80, weight=3))
    report = bench.round()
    assert len(report.edits) == 3 and not report.made
    for _ in range(2):
        report = bench.round()
        assert not report.edits and not report.made
    assert bench.weights() == {1: 50, 7: 3}
    bench.say(1, False)
    bench.round()
    assert bench.weights() == {7: 3}
    bench.say(1, True)
    bench.say(2, True)
    bench.round()
    assert bench.weights() == {1: 50, 7: 3}
    new = configuration(
        virtual_server(real_server(1), real_server(2), real_server(3)), policy=HandEdits.ADOPT
    )
    bench.configure(new)
    bench.round()
    assert bench.weights() == {1: 50, 2: 1}  # a weight is the operator's until he takes it back


def test_a_drain_ends_with_the_last_connection() -> None:
    bench = _two()
    target = bench.keeper.configuration.virtual_servers[0].key, (rip(1), 80)
    bench.keeper.decide(bench.keeper.overrides.with_drain(target, Drain(bench.now)), bench.now)
    bench.datapath = _with_connections(bench.datapath, rip(1), 3)
    bench.round()
    assert bench.weights() == {1: 0, 2: 1}
    bench.round()
    assert bench.weights() == {1: 0, 2: 1}
    bench.datapath = _with_connections(bench.datapath, rip(1), 0)
    bench.round()
    bench.round()
    assert bench.weights() == {2: 1}
    bench.keeper.decide(bench.keeper.overrides.with_drain(target, None), bench.now)
    bench.round()
    assert bench.weights() == {1: 1, 2: 1}


def test_a_drain_ends_at_its_deadline() -> None:
    bench = _two()
    target = bench.keeper.configuration.virtual_servers[0].key, (rip(1), 80)
    drain = Drain(bench.now, bench.now + 60)
    bench.keeper.decide(bench.keeper.overrides.with_drain(target, drain), bench.now)
    bench.datapath = _with_connections(bench.datapath, rip(1), 3)
    bench.now += 59
    bench.round()
    assert bench.weights() == {1: 0, 2: 1}
    bench.now += 2
    bench.round()
    bench.round()
    assert bench.weights() == {2: 1}


def _with_connections(datapath: MemoryDatapath, address: bytes, active: int) -> MemoryDatapath:
    """The same table, where a real server has so many connections."""
    entries = []
    for entry in datapath.services():
        destinations: tuple[DestinationEntry, ...] = tuple(
            one.replace(active=active) if one.destination.address == address else one
            for one in entry.destinations
        )
        entries.append(entry.replace(destinations=destinations))
    return MemoryDatapath(entries)


def test_draining_all_brings_the_sorry_server() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), sorry_server=sorry())))
    bench.say(1, True)
    bench.round()
    target = bench.keeper.configuration.virtual_servers[0].key, (rip(1), 80)
    bench.keeper.decide(bench.keeper.overrides.with_drain(target, Drain(bench.now)), bench.now)
    bench.datapath = _with_connections(bench.datapath, rip(1), 1)
    bench.round()
    assert bench.weights() == {1: 0, 99: 1}


def test_slow_start_after_a_failure() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1, 100, slow_start=50.0))))
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 100}  # a first start is no return
    bench.say(1, False)
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 1}
    bench.now += 25
    bench.round()
    assert bench.weights() == {1: 50}
    bench.now += 26
    bench.round()
    assert bench.weights() == {1: 100}


def test_a_new_daemon_adopts_the_table() -> None:
    bench = _two()
    before = bench.datapath
    after = Bench(before)
    after.configure(bench.keeper.configuration)
    assert not after.round().made
    assert after.weights() == {1: 1, 2: 1}
    assert after.verdicts[real_server(1).checkers[0]].up is True


def test_what_was_saved_too_early_takes_nobody_out() -> None:
    """The table is newer than what was saved before kill -9."""
    server = virtual_server(real_server(1), real_server(2), real_server(3))
    early = Bench()
    early.configure(configuration(server))
    saved = {key_text(key): deepcopy(state) for key, state in early.keeper.states.items()}
    for number in (1, 2):
        early.say(number, True)
    early.round()
    target = server.key, (rip(1), 80)
    early.keeper.decide(early.keeper.overrides.with_drain(target, Drain(early.now)), early.now)
    early.datapath = _with_connections(early.datapath, rip(1), 1)
    early.round()
    after = Bench(early.datapath, saved=saved, overrides=early.keeper.overrides)
    after.configure(configuration(server))
    assert not after.round().made
    assert after.weights() == {1: 0, 2: 1}
    for state in saved.values():
        state.real_servers[rip(2), 80].up = False
        state.real_servers[rip(3), 80].up = True
    after = Bench(early.datapath, saved=saved, overrides=early.keeper.overrides)
    after.configure(configuration(server))
    after.round()
    assert after.weights() == {1: 0, 2: 1}  # 3 has failed since: it is asked first


def test_the_flush_of_lvs_flush_comes_once() -> None:
    bench = Bench(MemoryDatapath([ServiceEntry(Service(FOREIGN))]))
    bench.configure(configuration(virtual_server(real_server(1)), lvs_flush=True))
    bench.round()
    assert [entry.service.key for entry in bench.datapath.services()] == [KEY]
    bench.datapath.add_service(Service(FOREIGN))
    bench.round()
    assert len(bench.datapath.services()) == 2


def test_only_what_changed_is_touched_by_a_reload() -> None:
    bench = _two()
    server = bench.keeper.configuration.virtual_servers[0]
    changed = replace(server, real_servers=(real_server(1, 9), real_server(2)))
    bench.configure(configuration(changed))
    report = bench.round()
    assert [change.place for change in report.made] == [(rip(1), 80)]


def test_a_refused_change_is_told_and_the_others_are_made() -> None:
    bench = Bench()
    server = virtual_server(real_server(1), scheduler="nonsense")
    bench.configure(configuration(server, virtual_server(real_server(1), port=81)))
    bench.say(1, True)
    report = bench.round()
    assert {refusal.change.key for refusal in report.refused} == {KEY}
    assert bench.weights(81) == {1: 1}
    assert bench.round().refused  # and tried again


def test_decisions_and_health_survive(tmp_path: Any) -> None:
    store = Store(str(tmp_path))
    bench = _two()
    target = bench.keeper.configuration.virtual_servers[0].key, (rip(1), 80)
    overrides = (
        Overrides()
        .with_drain(target, Drain(1.0, 2.0, True))
        .with_weight(target, 5)
        .with_added(KEY, (rip(7), 80), Destination(rip(7), 80))
        .with_removed(KEY, (rip(8), 80))
    )
    store.write_decisions(overrides)
    store.write_health(bench.keeper.states)
    store.write_owned({KEY})
    assert store.read_decisions() == overrides
    states = store.read_health()
    assert store.read_owned() == {KEY}
    assert states == {key_text(key): state for key, state in bench.keeper.states.items()}


def test_files_that_cannot_be_read_count_as_missing(tmp_path: Any) -> None:
    store = Store(str(tmp_path))
    for text in (
        "",
        "[]",
        "{",
        '{"version": 1}',
        '{"version": 99, "drains": {}}',
        '{"version": 1, "drains": 3}',
    ):
        (tmp_path / "decisions.json").write_text(text)
        (tmp_path / "health.json").write_text(text)
        (tmp_path / "owned.json").write_text(text)
        assert store.read_decisions() == Overrides()
        assert store.read_health() == {}
        assert store.read_owned() == set()
