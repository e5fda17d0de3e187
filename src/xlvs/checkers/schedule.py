# SPDX-License-Identifier: GPL-2.0-only
"""When checks run: each probe every ``delay_loop``, sooner after a failure, never too many at once.

A probe is one question to one real server, whoever needs the answer: checkers of
several virtual servers that ask the same in the same rhythm have one probe.  The
verdict on it (up or down, after how many tries) is made by `xlvs.checkers.verdict`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import NamedTuple

from xlvs.checkers.result import Result
from xlvs.checkers.run import Surroundings, start
from xlvs.checkers.verdict import Verdict
from xlvs.checkers.way import Way
from xlvs.keepalived import checks
from xlvs.keepalived.configuration import checker_identity

MOST_AT_ONCE = 1000
"""Checks that may be under way, of each kind of cost: files and sockets are limited."""
MOST_SCRIPTS_AT_ONCE = 64
"""Scripts that may be running: each is a process."""


def probe_key(checker: checks.Checker) -> checks.Checker:
    """What two checkers must have in common to share a probe: the question and its rhythm."""
    schedule = checker.schedule
    if not (schedule.alpha or schedule.log_all_failures):
        return checker
    return replace(checker, schedule=replace(schedule, alpha=False, log_all_failures=False))


class Question(NamedTuple):
    """What is asked, and of whom where the checker alone does not say it: ``through`` the VIP."""

    checker: checks.Checker
    through: Hashable = None


def question(checker: checks.Checker, through: Hashable = None) -> Question:
    """What two checkers must have in common to share a probe."""
    return Question(probe_key(checker), through)


class Probe:
    """One question, its verdict, and who is told."""

    __slots__ = ("due", "end", "paused", "question", "running", "timer", "verdict", "waiting")

    def __init__(self, asked: Question, verdict: Verdict) -> None:
        self.question = asked
        self.verdict = verdict
        self.paused = False
        self.running = False
        self.waiting = False
        self.due = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.end: Callable[[], None] | None = None

    @property
    def checker(self) -> checks.Checker:
        """The check that is run."""
        return self.question.checker


class _Lane:
    """Those of one kind of cost: how many may run, and who waits."""

    __slots__ = ("most", "running", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting: deque[Probe] = deque()


class Scheduler:
    """Runs probes and tells of every result that ``told`` could care for.

    ``told`` is called with the probe and whether its verdict, or the weight that comes
    with it, has changed.  ``clock`` gives the seconds that stand in verdicts.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        told: Callable[[Probe, Result, bool], None],
        clock: Callable[[], float],
        most_at_once: int = MOST_AT_ONCE,
        way_of: Callable[[Hashable], Way] | None = None,
    ) -> None:
        self._loop = loop
        self._told = told
        self._clock = clock
        self._way_of = way_of
        self._surroundings = Surroundings()
        self._sockets = _Lane(most_at_once)
        self._scripts = _Lane(min(MOST_SCRIPTS_AT_ONCE, most_at_once))
        self.probes: dict[Question, Probe] = {}
        self.latest = 0.0
        """The most seconds that a check has begun late, since somebody looked last."""

    def configure(
        self,
        questions: Iterable[Question],
        surroundings: Surroundings,
        verdict_of: Callable[[Question], Verdict] = lambda _: Verdict(),
    ) -> None:
        """Ask these questions from now on, and no others.

        A probe that is known goes on; one whose rhythm has changed keeps its verdict.
        ``verdict_of`` says what is known of one that is new.
        """
        wanted = dict.fromkeys(questions)
        gone = [asked for asked in self.probes if asked not in wanted]
        self.change(gone, [asked for asked in wanted if asked not in self.probes], surroundings, verdict_of)

    def change(
        self,
        gone: Iterable[Question],
        new: Iterable[Question],
        surroundings: Surroundings,
        verdict_of: Callable[[Question], Verdict] = lambda _: Verdict(),
    ) -> None:
        """Ask some questions no more, and some that are ``new``; see `configure`."""
        self._surroundings = surroundings
        new = list(new)
        # Only of real servers that are asked something new: an identity takes long to compare.
        places = {_place(asked) for asked in new}
        known = {
            _identity(asked): probe
            for asked, probe in (self.probes.items() if places else ())
            if _place(asked) in places
        }
        before = [self.probes.pop(asked) for asked in gone]
        for key in new:
            old = known.get(_identity(key)) if known else None
            probe = Probe(key, old.verdict if old else verdict_of(key))
            self._plan(probe, self._first_delay(probe))
            self.probes[key] = probe
        for probe in before:
            self._stop(probe)

    def pause(self, paused: Callable[[Question], bool]) -> None:
        """Let those probes rest for which ``paused`` is true of the key; the others go on."""
        for key, probe in self.probes.items():
            rests = paused(key)
            if rests and not probe.paused:
                self._stop(probe)
                probe.paused = True
            elif probe.paused and not rests:
                probe.paused = False
                self._plan(probe, 0.0)

    def ask_again(self, concerned: Callable[[checks.Checker], bool]) -> None:
        """Something is new: ask at once what waits for its turn and is ``concerned``."""
        for probe in self.probes.values():
            if probe.timer is not None and concerned(probe.checker):
                probe.timer.cancel()
                self._plan(probe, 0.0)

    def stop(self) -> None:
        """End all probes."""
        for probe in self.probes.values():
            self._stop(probe)
        self.probes = {}

    def _first_delay(self, probe: Probe) -> float:
        """What is known can wait its turn; what is not known is asked at once.

        (keepalived waits a random part of ``warmup`` in either case.)  A warm-up that is
        shorter than the interval was asked for by the operator, and holds.
        """
        schedule = probe.checker.schedule
        if probe.verdict.up is None and schedule.warmup >= schedule.delay_loop:
            return 0.0
        return random.uniform(0.0, schedule.warmup)

    def _plan(self, probe: Probe, delay: float) -> None:
        probe.due = self._loop.time() + delay
        probe.timer = self._loop.call_at(probe.due, self._begin, probe)

    def _stop(self, probe: Probe) -> None:
        if probe.timer is not None:
            probe.timer.cancel()
            probe.timer = None
        lane = self._lane(probe)
        if probe.waiting:
            lane.waiting.remove(probe)
            probe.waiting = False
        if probe.running:
            probe.running = False
            lane.running -= 1
            if probe.end is not None:
                probe.end()
                probe.end = None
            self._begin_waiting(lane)

    def _lane(self, probe: Probe) -> _Lane:
        return self._scripts if isinstance(probe.checker, checks.MiscCheck) else self._sockets

    def _begin(self, probe: Probe) -> None:
        probe.timer = None
        lane = self._lane(probe)
        if lane.running >= lane.most:
            probe.waiting = True
            lane.waiting.append(probe)
            return
        self._run(probe, lane)

    def _run(self, probe: Probe, lane: _Lane) -> None:
        late = self._loop.time() - probe.due
        if late > self.latest:
            self.latest = late
        lane.running += 1
        probe.running = True
        through = probe.question.through
        way = self._way_of(through) if through is not None and self._way_of is not None else None

        def done(result: Result) -> None:
            self._finished(probe, lane, result)

        end = start(probe.checker, self._surroundings, self._loop, done, way)
        probe.end = end if probe.running else None

    def _finished(self, probe: Probe, lane: _Lane, result: Result) -> None:
        if not probe.running:
            return
        probe.running = False
        probe.end = None
        lane.running -= 1
        first = probe.verdict.up is None
        changed, delay = probe.verdict.observe(result, probe.checker, self._clock())
        if first and probe.verdict.up is not None:
            # All began at once: from here on they are spread over the interval.
            delay = random.uniform(delay / 10, delay)
        # From when it was due, not from now: checks keep their rhythm however long they take.
        probe.due = max(probe.due + delay, self._loop.time())
        probe.timer = self._loop.call_at(probe.due, self._begin, probe)
        if lane.waiting:
            self._begin_waiting(lane)
        self._told(probe, result, changed)

    def _begin_waiting(self, lane: _Lane) -> None:
        while lane.waiting and lane.running < lane.most:
            probe = lane.waiting.popleft()
            probe.waiting = False
            self._run(probe, lane)


def _place(asked: Question) -> tuple[bytes, int] | None:
    """Whom a question is for, as far as a quick look tells."""
    connection = getattr(asked.checker, "connection", None)
    return None if connection is None else (connection.address, connection.port)


def _identity(asked: Question) -> Question:
    """What of a question must be the same for its verdict to outlive a reload."""
    return Question(checker_identity(asked.checker), asked.through)
