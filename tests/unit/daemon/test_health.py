# SPDX-License-Identifier: GPL-2.0-only
"""Quorum, hysteresis, sorry servers, inhibit_on_failure, alpha: what stands in the table when."""

from __future__ import annotations

from dataclasses import replace

from xlvs.daemon.health import DOWN, QUORUM_GAINED, QUORUM_LOST, UP, WEIGHT
from xlvs.keepalived.checks import MiscCheck, Schedule
from xlvs.keepalived.origin import Script

from .examples import Bench, configuration, real_server, rip, sorry, tcp_check, virtual_server


def kinds(events: list) -> list[str]:  # type: ignore[type-arg]
    """What kinds of events these are."""
    return [event.kind for event in events]


def test_a_real_server_is_not_used_before_its_first_check_passed() -> None:
    bench = Bench()
    assert (
        bench.configure(configuration(virtual_server(real_server(1), real_server(2, checked=False)))) != []
    )
    bench.round()
    assert bench.weights() == {2: 1}
    events = bench.say(1, True)
    assert kinds(events) == [UP] and events[0].first
    assert events[0].log == ("Adding service [10.0.0.11]:tcp:80 to VS [192.0.2.1]:tcp:80",)
    bench.round()
    assert bench.weights() == {1: 1, 2: 1}


def test_start_unchecked_uses_them_at_once() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1)), start_unchecked=True))
    bench.round()
    assert bench.weights() == {1: 1}
    bench.say(1, False)
    bench.round()
    assert bench.weights() == {}


def test_failure_removes_and_recovery_adds() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), real_server(2))))
    bench.say(1, True)
    bench.say(2, True)
    bench.round()
    events = bench.say(1, False, "connection refused")
    assert kinds(events) == [DOWN] and events[0].reason == "connection refused"
    assert events[0].log == ("Removing service [10.0.0.11]:tcp:80 from VS [192.0.2.1]:tcp:80",)
    bench.round()
    assert bench.weights() == {2: 1}
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 1, 2: 1}


def test_inhibit_on_failure_keeps_it_at_weight_0() -> None:
    bench = Bench()
    bench.configure(
        configuration(virtual_server(real_server(1, 5, inhibit_on_failure=True), real_server(2)))
    )
    bench.round()
    assert bench.weights() == {1: 0}
    assert bench.say(1, True)[0].log == ("Enabling service [10.0.0.11]:tcp:80 of VS [192.0.2.1]:tcp:80",)
    bench.round()
    assert bench.weights() == {1: 5}
    bench.say(1, False)
    bench.round()
    assert bench.weights() == {1: 0}


def test_quorum_with_hysteresis() -> None:
    """Up from quorum + hysteresis on, lost below quorum - hysteresis (keepalived.conf(5))."""
    bench = Bench()
    servers = [real_server(number) for number in range(1, 5)]
    bench.configure(configuration(virtual_server(*servers, quorum=2, hysteresis=1)))
    assert kinds(bench.say(1, True)) == [UP]
    assert kinds(bench.say(2, True)) == [UP]
    gained = bench.say(3, True)[-1]
    assert gained.kind == QUORUM_GAINED
    assert gained.log == ("Gained quorum 2+1=3 <= 3 for VS [192.0.2.1]:tcp:80",)
    assert kinds(bench.say(4, False)) == [DOWN]
    assert kinds(bench.say(3, False)) == [DOWN]
    assert kinds(bench.say(2, False)) == [DOWN]
    lost = bench.say(1, False)[-1]
    assert lost.kind == QUORUM_LOST and lost.log == ("Lost quorum 2-1=1 > 0 for VS [192.0.2.1]:tcp:80",)
    assert QUORUM_GAINED not in kinds(bench.say(1, True))
    assert QUORUM_GAINED not in kinds(bench.say(2, True))
    assert QUORUM_GAINED in kinds(bench.say(3, True))


def test_a_sorry_server_takes_the_place_of_all() -> None:
    bench = Bench()
    server = virtual_server(real_server(1), real_server(2), quorum=2, sorry_server=sorry())
    bench.configure(configuration(server))
    bench.round()
    assert bench.weights() == {}  # nobody has been asked yet: no verdict on the quorum either
    bench.say(1, True)
    bench.say(2, True)
    bench.round()
    assert bench.weights() == {1: 1, 2: 1}
    lost = bench.say(1, False)[-1]
    assert lost.log[1] == "Adding sorry server [10.0.0.109]:tcp:80 to VS [192.0.2.1]:tcp:80"
    bench.round()
    assert bench.weights() == {99: 1}
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 1, 2: 1}


def test_alpha_starts_with_the_sorry_server() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), alpha=True, sorry_server=sorry())))
    bench.round()
    assert bench.weights() == {99: 1}
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 1}


def test_what_a_reload_takes_away_goes_down_for_whoever_is_told() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), real_server(2)),
                                  virtual_server(real_server(1), real_server(3), port=81)))  # fmt: skip
    for number, up in ((1, True), (2, True), (3, False)):
        bench.say(number, up)
    events = bench.configure(configuration(virtual_server(real_server(2), real_server(4))))
    assert [
        (event.kind, event.virtual_server.port, event.real_server and event.real_server.key)
        for event in events
    ] == [(DOWN, 80, (rip(1), 80)), (DOWN, 81, (rip(1), 80)), (QUORUM_LOST, 81, None)]


def test_a_quorum_that_nobody_took_for_granted_is_not_told_to_be_lost() -> None:
    """keepalived tells of a quorum that is down from the start only where a sorry server stands in."""
    for alpha, sorry_server, told in ((True, None, 0), (True, sorry(), 1), (False, None, 1)):
        one = real_server(1, checkers=(tcp_check(1, alpha=alpha),))
        bench = Bench()
        events = bench.configure(configuration(virtual_server(one, alpha=alpha, sorry_server=sorry_server)))
        bench.verdicts[one.checkers[0]].up = False
        events += bench.settle()
        assert sum(event.kind == QUORUM_LOST for event in events) == told
        bench.verdicts[one.checkers[0]].up = True
        assert bench.settle()[-1].kind == QUORUM_GAINED
        bench.verdicts[one.checkers[0]].up = False
        assert bench.settle()[-1].kind == QUORUM_LOST


def test_a_sorry_server_that_is_inhibited_waits_at_weight_0() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), sorry_server=sorry(inhibit=True))))
    bench.say(1, True)
    bench.round()
    assert bench.weights() == {1: 1, 99: 0}
    bench.say(1, False)
    bench.round()
    assert bench.weights() == {99: 1}


def test_without_a_sorry_server_the_rest_goes_on_without_quorum() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), real_server(2), quorum=2)))
    bench.say(1, True)
    bench.say(2, True)
    assert QUORUM_LOST in kinds(bench.say(2, False))
    bench.round()
    assert bench.weights() == {1: 1}


def test_no_quorum_is_lost_before_those_have_spoken_that_a_reload_brings() -> None:
    """Not for milliseconds, by which clients would get the sorry server; with alpha nothing is hoped for."""
    for alpha, well in ((False, True), (False, False), (True, True)):
        bench = Bench()
        server = virtual_server(real_server(1), sorry_server=sorry())
        bench.configure(configuration(server))
        bench.say(1, True)
        new = real_server(2, checkers=(tcp_check(2, alpha=alpha),))
        events = bench.configure(configuration(replace(server, real_servers=(real_server(1, 0), new))))
        assert (QUORUM_LOST in kinds(events)) == alpha
        bench.verdicts[new.checkers[0]].up = well
        assert (QUORUM_LOST in kinds(bench.settle())) == (not well)


def test_hysteresis_counts_from_the_start() -> None:
    """Of 3 + 5, whose quorum is 3 and hysteresis 2, the 3 are enough if the 5 are found to be down;
    with alpha nothing was taken for granted, so 5 are needed."""
    for alpha, gained in ((False, True), (True, False)):
        servers = [
            real_server(number, weight, checkers=(tcp_check(number, alpha=alpha),))
            for number, weight in ((1, 3), (2, 5))
        ]
        bench = Bench()
        events = bench.configure(
            configuration(virtual_server(*servers, quorum=3, hysteresis=2, sorry_server=sorry()))
        )
        for server, up in zip(servers, (True, False), strict=True):
            bench.verdicts[server.checkers[0]].up = up
            events += bench.settle()
        assert (QUORUM_GAINED in kinds(events), QUORUM_LOST in kinds(events)) == (gained, not gained)
        bench.round()
        assert bench.weights() == ({1: 3} if gained else {99: 1})


def test_of_weight_0_alone_no_quorum_is_told_to_be_lost() -> None:
    """Nobody was told that it is there. (The parser reduces such a quorum to 0.)"""
    bench = Bench()
    server = virtual_server(real_server(1, 0), quorum=0)
    bench.configure(configuration(server))
    assert kinds(bench.say(1, True)) == [UP]
    heavier = replace(server, real_servers=(real_server(1, 3),), quorum=1)
    assert kinds(bench.configure(configuration(heavier))) == [WEIGHT, QUORUM_GAINED]


def test_weight_0_is_legal_and_kept() -> None:
    bench = Bench()
    server = virtual_server(real_server(1, 0), real_server(2))
    bench.configure(configuration(server))
    bench.say(1, True)
    bench.say(2, True)
    bench.round()
    assert bench.weights() == {1: 0, 2: 1}
    bench.configure(configuration(replace(server, quorum_up=None, delay_loop=7.0)))
    bench.round()
    assert bench.weights() == {1: 0, 2: 1}


def test_misc_dynamic_sets_the_weight_and_the_next_daemon_keeps_it() -> None:
    checker = MiscCheck(Schedule(), Script(("/bin/true",)), dynamic=True)
    one = real_server(1, 10, checkers=(checker,))
    bench = Bench()
    bench.configure(configuration(virtual_server(one)))
    bench.verdicts[checker].up, bench.verdicts[checker].weight = True, 33
    events = bench.settle()
    assert events[0].kind == WEIGHT
    changed = (
        "Changing weight from 10 to 33 for inactive service [10.0.0.11]:tcp:80 of VS [192.0.2.1]:tcp:80"
    )
    assert events[0].log == (changed,)
    bench.round()
    assert bench.weights() == {1: 33}
    from xlvs.daemon.describe import key_text

    saved = {key_text(key): state for key, state in bench.keeper.states.items()}
    after = Bench(bench.datapath, saved=saved)
    assert after.configure(configuration(virtual_server(one))) == []
    assert not after.round().made
    assert after.weights() == {1: 33}


def test_a_quorum_of_0_is_had_by_nobody() -> None:
    """keepalived.conf's reader lowers a quorum to the sum of the weights, which may be 0."""
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1, 0), quorum=0, sorry_server=sorry())))
    assert kinds(bench.say(1, True)) == [UP, QUORUM_LOST]
    assert bench.settle() == []


def test_the_same_again_is_no_news() -> None:
    bench = Bench()
    bench.configure(configuration(virtual_server(real_server(1), sorry_server=sorry())))
    bench.say(1, False)
    assert bench.settle() == []
    bench.round()
    assert not bench.round().made
