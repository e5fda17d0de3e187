# SPDX-License-Identifier: GPL-2.0-only
"""What the daemon knows, between checks on one side and the table on the other.

No clock, socket or thread: `xlvs.daemon.service` brings results and time, runs the
rounds, and tells the world.  So a test can drive it through any history.
"""

from __future__ import annotations

from collections.abc import Iterable

from xlvs.checkers.verdict import Verdict
from xlvs.daemon.describe import key_text
from xlvs.daemon.desired import Wanted, desired_of, ramping
from xlvs.daemon.health import (
    DOWN,
    QUORUM_LOST,
    Event,
    RealServerState,
    ServerKey,
    VerdictOf,
    VirtualServerState,
    as_configured,
    changes_weight,
    settle,
)
from xlvs.daemon.overrides import Drain, Overrides, Target
from xlvs.daemon.reconcile import Change, Present
from xlvs.daemon.upkeep import Place, Report, Round, changed
from xlvs.keepalived.checks import Checker
from xlvs.keepalived.configuration import Configuration, RealServer, VirtualServer
from xlvs.keepalived.settings import HandEdits
from xlvs.model import Destination, Service, ServiceKey

MANY_SERVICES = 64
"""From so many on the table is read as a whole, which costs less than service by service."""


class Keeper:
    """Configuration, health, decisions, and the table that follows from them."""

    def __init__(
        self,
        verdict_of: VerdictOf,
        overrides: Overrides | None = None,
        saved: dict[str, VirtualServerState] | None = None,
        owned: Iterable[ServiceKey] = (),
    ) -> None:
        self._verdict_of = verdict_of
        self._saved = saved or {}
        self._owned = set(owned)
        self._wanted: Wanted = {}
        self._by_server: dict[ServerKey, list[ServiceKey]] = {}
        self._applied: Wanted | None = None
        self._left: dict[Place, Service | Destination | None] = {}
        self._ramping: set[ServerKey] = set()
        self.overrides = overrides or Overrides()
        self.configuration = Configuration()
        self.states: dict[ServerKey, VirtualServerState] = {}
        self.servers: dict[ServerKey, VirtualServer] = {}
        self.unsettled: list[ServerKey] = []
        """The virtual servers that the last configuration has changed."""
        self.unsaved: set[ServerKey] = set()
        """Those of which something has become known, or which went, since somebody emptied this."""

    # --- configuration -------------------------------------------------------

    def configure(self, configuration: Configuration, have: Present) -> list[Event]:
        """Go by another configuration; `settle` those virtual servers afterwards that are `unsettled`.

        What is known of servers that stay is kept; of those that are the same values, all of it.  Of
        those that are new, what was saved is believed; else that a real server which stands in
        the table is up.  Returns what is gone.
        """
        before, old_states = self.servers, self.states
        is_other = configuration != self.configuration
        anew = configuration.settings.start_unchecked != self.configuration.settings.start_unchecked
        self.configuration = configuration
        self.servers = {server.key: server for server in configuration.virtual_servers}
        events = gone(before, old_states, self.servers)
        self.states = {}
        self.unsettled = []
        for key, server in self.servers.items():
            state = old_states.get(key)
            if state is not None and before.get(key) is server:
                self.states[key] = state
                continue
            self.unsettled.append(key)
            if state is None:
                saved = self._saved.pop(key_text(key), None)
                state = adopted(server, have, saved, self.overrides)
            keys = {one.key for one in server.real_servers}
            state.real_servers = {place: one for place, one in state.real_servers.items() if place in keys}
            self.states[key] = state
        overrides = self.overrides
        if overrides.drains or overrides.weights:
            overrides = overrides.limited_to(
                {(key, one.key) for key, server in self.servers.items() for one in server.real_servers}
            )
        if (is_other and before) or configuration.settings.hand_edits is not HandEdits.ADOPT:
            overrides = overrides.without_edits()
        if is_other:
            self._left = {}
        for key in before.keys() - self.servers.keys():
            self._forget(key)
        for key in self.unsettled:
            self._forget(key)
        if anew or overrides != self.overrides:
            self.unsettled = list(self.servers)
        self.overrides = overrides
        return events

    def _forget(self, key: ServerKey) -> None:
        """Take out of what is wanted what a virtual server has there."""
        for service in self._by_server.pop(key, ()):
            self._wanted.pop(service, None)
        self._ramping.discard(key)
        self.unsaved.add(key)

    def believed(self, checker: Checker, users: Iterable[tuple[VirtualServer, RealServer]]) -> Verdict:
        """A first verdict for a probe that ``users`` need: what they all already believe.

        A checker that says a weight has to say it anew.
        """
        beliefs = set()
        for server, real_server in users:
            state = self.states[server.key].real_servers.get(real_server.key)
            beliefs.add(state.up if state is not None else None)
        if beliefs == {True} and not changes_weight(checker):
            return Verdict(True, reason="adopted from before")
        return Verdict()

    # --- health ----------------------------------------------------------------

    def settle(self, keys: Iterable[ServerKey], now: float) -> list[Event]:
        """Take the verdicts in for those virtual servers; what has become otherwise."""
        events: list[Event] = []
        for key in keys:
            server = self.servers[key]

            def weight_of(one: RealServer, weight: int, key: ServerKey = key) -> int:
                return self.overrides.weight_of((key, one.key), weight)

            decided = weight_of if self.overrides.drains or self.overrides.weights else as_configured
            events += settle(server, self.states[key], self._verdict_of, now, decided)
            self.unsaved.add(key)
            self._recompute(key, now)
        return events

    def _recompute(self, key: ServerKey, now: float) -> None:
        server, state = self.servers[key], self.states[key]
        part = desired_of(
            server, state, self.overrides, now, unchecked=self.configuration.settings.start_unchecked
        )
        for service in self._by_server.get(key, ()):
            self._wanted.pop(service, None)
        self._by_server[key] = list(part)
        self._wanted.update(part)
        if ramping(server, state, now):
            self._ramping.add(key)
        else:
            self._ramping.discard(key)

    def ramp(self, now: float) -> bool:
        """Go on with slow starts; whether there is one."""
        slow = list(self._ramping)
        for key in slow:
            self._recompute(key, now)
        return bool(slow)

    # --- operators ---------------------------------------------------------------

    def decide(self, overrides: Overrides, now: float) -> list[Event]:
        """Go by other decisions of the operator; what has become otherwise."""
        old, new = self.overrides, overrides
        touched = {
            target[0]
            for target in old.drains.keys() | new.drains.keys()
            if old.drains.get(target) != new.drains.get(target)
        } | {
            target[0]
            for target in old.weights.keys() | new.weights.keys()
            if old.weights.get(target) != new.weights.get(target)
        }
        self.overrides = overrides
        return self.settle([key for key in self.servers if key in touched], now)

    def drained(self, have: Present, now: float) -> list[tuple[Target, Drain, str]]:
        """Drains that are at their end, as they are from then on, with the reason."""
        ended = []
        for target, drain in self.overrides.drains.items():
            if drain.removed or target[0] not in self.servers:
                continue
            reason = ""
            if drain.deadline is not None and now >= drain.deadline:
                reason = "deadline"
            elif self._quiet(target, have):
                reason = "no connections"
            if reason:
                ended.append((target, Drain(drain.since, drain.deadline, removed=True), reason))
        return ended

    def _quiet(self, target: Target, have: Present) -> bool:
        """Whether a real server that takes no new connections has none left."""
        server = self.servers[target[0]]
        real_server = next(one for one in server.real_servers if one.key == target[1])
        if not (self.states[server.key].real_servers[real_server.key].up):
            return False
        for service in server.services:
            destination = server.destination_for(service, real_server)
            row = have.get(service.key, (service, {}))[1].get((destination.address, destination.port))
            if row is not None and (row[3] or row[4] or row[5]):
                return False
        return True

    # --- the table -----------------------------------------------------------------

    @property
    def applied(self) -> Wanted:
        """The table as the last round has left it; empty before the first."""
        return self._applied or {}

    def round(self, *, whole: bool = True) -> Round:
        """What the next round needs to know.

        One that need not be ``whole`` is about what is wanted otherwise alone, if that is little.
        """
        settings = self.configuration.settings
        first = self._applied is None
        only = None
        if not whole and self._applied is not None and not self._left:
            different = changed(self._wanted, self._applied)
            only = different if len(different) <= MANY_SERVICES else None
        return Round(
            dict(self._wanted), self._applied, frozenset(self._owned), settings.hand_edits, self._left,
            flush=first and settings.lvs_flush, only=only,
        )  # fmt: skip

    def take(self, one: Round, report: Report, now: float) -> list[Change]:
        """Take in what a round has found; returns the hand edits that are kept as decisions."""
        self._applied = report.applied
        self._owned = set(one.wanted)
        self._left = report.left
        if self.configuration.settings.hand_edits is not HandEdits.ADOPT:
            return []
        adopted_edits = [change for change in report.edits if (change.key, change.place) in report.left]
        overrides = self.overrides
        for change in adopted_edits:
            overrides = self._adopt(overrides, change)
        if overrides != self.overrides:
            self.overrides = overrides
            for key in self.servers:
                self._recompute(key, now)
        return adopted_edits

    def _adopt(self, overrides: Overrides, change: Change) -> Overrides:
        """A hand edit as a decision.  What is none (a service's own fields) is left in the table."""
        key, place, have, want = change
        if place is None:
            return overrides
        if isinstance(have, Destination) and isinstance(want, Destination):
            target = self._target(key, place)
            if target is not None and have == want.replace(weight=have.weight):
                self._left.pop((key, place), None)
                return overrides.with_weight(target, have.weight)
            return overrides
        self._left.pop((key, place), None)
        if isinstance(have, Destination):
            return overrides.with_added(key, place, have)
        return overrides.with_removed(key, place)

    def _target(self, key: ServiceKey, place: tuple[bytes, int]) -> Target | None:
        for server_key, services in self._by_server.items():
            if key not in services:
                continue
            server = self.servers[server_key]
            service = next(one for one in server.services if one.key == key)
            for real_server in server.real_servers:
                destination = server.destination_for(service, real_server)
                if (destination.address, destination.port) == place:
                    return server_key, real_server.key
        return None


def adopted(
    server: VirtualServer,
    have: Present,
    saved: VirtualServerState | None = None,
    overrides: Overrides | None = None,
) -> VirtualServerState:
    """What the table that is there tells of a virtual server that is new to this daemon.

    A real server that takes connections, or is being drained of them, was found healthy by
    whoever put it there.  The table is newer than what was ``saved``, which counts where the
    table cannot tell: that a real server failed, or is up while the sorry server stands for
    it.  All others are unknown.
    """
    state = VirtualServerState(saved.quorum, saved.since) if saved is not None else VirtualServerState()
    drains = overrides.drains if overrides is not None else {}
    for real_server in server.real_servers:
        drain = drains.get((server.key, real_server.key))
        known = saved.real_servers.get(real_server.key) if saved is not None else None
        standing = []
        for service in server.services:
            destination = server.destination_for(service, real_server)
            found = have.get(service.key)
            row = found[1].get((destination.address, destination.port)) if found else None
            weightless = real_server.destination.weight == 0 or drain is not None
            standing.append(row is not None and (row[3] > 0 or weightless))
        if standing and all(standing):
            if known is None or known.up is not True:
                weight = known.weight if known is not None else None
                known = RealServerState(True, reason="adopted from the table", weight=weight)
            state.real_servers[real_server.key] = known
        elif known is not None and (known.up is False or state.quorum is False or drain is not None):
            state.real_servers[real_server.key] = known
    return state


def gone(
    before: dict[ServerKey, VirtualServer],
    states: dict[ServerKey, VirtualServerState],
    after: dict[ServerKey, VirtualServer],
) -> list[Event]:
    """What a reload takes away: each real server that was up goes down for whoever is notified.

    So does the quorum of a virtual server that goes as a whole, with omega or without, as in
    keepalived (ipwrapper.c: clear_diff_services()): omega is for the end.
    """
    events = []
    for key, server in before.items():
        left = after.get(key)
        if left is server:
            continue
        stays = {one.key for one in left.real_servers} if left is not None else set()
        for real_server in server.real_servers:
            state = states[key].real_servers.get(real_server.key)
            if real_server.key not in stays and state is not None and state.up:
                text = f"Removing service {server.real_server_name(real_server)} from VS {server.name}"
                events.append(Event(DOWN, server, real_server, "removed by a reload", log=(text,)))
        if left is None and states[key].quorum:
            text = f"Removing Virtual Server {server.name}"
            threshold = server.quorum - server.hysteresis
            events.append(
                Event(QUORUM_LOST, server, None, "removed by a reload", threshold=threshold, log=(text,))
            )
    return events
