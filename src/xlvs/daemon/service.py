# SPDX-License-Identifier: GPL-2.0-only
"""Health checking and the table, running: what `Keeper` knows, moved by checks and by time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

from xlvs.checkers.result import Result
from xlvs.checkers.run import Surroundings
from xlvs.checkers.schedule import Probe, Question, Scheduler, probe_key, question
from xlvs.checkers.verdict import Verdict
from xlvs.checkers.way import Way
from xlvs.daemon import upkeep
from xlvs.daemon.addresses import AddressWatch
from xlvs.daemon.describe import change_text, place_name, service_name
from xlvs.daemon.health import DOWN, QUORUM_LOST, UP, Event, ServerKey
from xlvs.daemon.keeper import MANY_SERVICES, Keeper
from xlvs.daemon.notify import Notifier
from xlvs.daemon.overrides import Drain, Overrides, Target
from xlvs.daemon.reconcile import Present, Refusal, apply, differences, present, some
from xlvs.daemon.state import Store
from xlvs.daemon.via_vip import ViaVip, is_via_vip, target_of
from xlvs.errors import XlvsError
from xlvs.keepalived.checks import BfdCheck, Checker
from xlvs.keepalived.configuration import Configuration, RealServer, VirtualServer
from xlvs.keepalived.settings import FlushOnStop
from xlvs.model import ServiceKey, Timeouts

if TYPE_CHECKING:
    from xlvs.bfd.sessions import Sessions

_log = logging.getLogger("xlvsd")

CYCLE = 5.0
"""Seconds from one look at the table to the next while nothing happens."""
QUICK_CYCLE = 1.0
"""The same during a drain or a slow start."""
_TOGETHER = 0.05
"""Seconds for which changes are gathered, to be made together."""
_SAVE_EVERY = 2.0
_KEPT = 10.0
"""Seconds for which a start or a reload waits for its table."""
_EVENTS_KEPT = 1000
_EDITS_SAID = 20
"""Hand edits of one round that are told one by one; whoever flushes a large table makes thousands."""

_EVENT_NAMES = {
    UP: "real server up",
    DOWN: "real server down",
}


class Service:
    """All that xlvsd does for IPVS."""

    def __init__(
        self,
        store: Store,
        open_datapath: upkeep.Opener,
        notifier: Notifier,
        is_local: Callable[[bytes], bool] = lambda _: True,
        *,
        bfd: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._open = open_datapath
        self._notifier = notifier
        self._is_local = is_local
        self._addresses = AddressWatch(self._loop, self._suspend)
        self._written = store.read_owned()
        self._via_vip = ViaVip()
        self._bfd: Sessions | None = None
        self._keeps_bfd = bfd
        self.scheduler = Scheduler(self._loop, self._told, time.time, way_of=self._way_of)
        self.keeper = Keeper(self._verdict_of, store.read_decisions(), store.read_health(), self._written)
        self._users: dict[Question, list[tuple[VirtualServer, RealServer]]] = {}
        self._dirty: set[ServerKey] = set()
        self._settling: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._kept = asyncio.Event()
        self._at_once = False
        self._whole_due = 0.0
        self._look_costs = 0.0
        self._round = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None
        self._said: set[str] = set()
        self._unsaved = True
        self._saved_at = 0.0
        self._old_timeouts: Timeouts | None = None
        self.last_round = time.monotonic()
        self.have: Present = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_KEPT)
        self.followers: set[asyncio.Queue[dict[str, Any]]] = set()

    # --- life --------------------------------------------------------------------

    async def start(self, configuration: Configuration) -> None:
        """Adopt the table that is there, begin to check, bring the table to what it should be."""
        await self.reload(configuration)
        self._keeping = self._loop.create_task(self._keep())

    async def reload(self, configuration: Configuration) -> None:
        """Go by another configuration; what stays as it was is not touched."""
        async with self._round:
            new = [
                server for server in configuration.virtual_servers if server.key not in self.keeper.servers
            ]
            if new:
                # Those that are new may stand in the table already, and be adopted.
                try:
                    self.have = await asyncio.to_thread(self._read_table, new)
                except (XlvsError, OSError) as error:
                    self._say_once(f"The table cannot be read: {error}")
                    self.have = {}
            before, decided = self.keeper.servers, self.keeper.overrides
            events = self.keeper.configure(configuration, self.have)
            if before and self.keeper.overrides != decided:
                self._forget_decisions()
            asked = self._ask(before, self.keeper.servers)
            self._prepare_via_vip()
            self._prepare_bfd(configuration)
            self.scheduler.change(
                *asked,
                Surroundings(configuration.tls, self._bfd),
                lambda asked: self.keeper.believed(asked.checker, self._users[asked]),
            )
            self._notifier.configure(configuration)
            self._watch_addresses()
            self._suspend()
            self._tell(events + self.keeper.settle(self.keeper.unsettled, time.time()))
            await self._apply_timeouts()
        self._wake.set()

    def _ask(
        self, before: dict[ServerKey, VirtualServer], after: dict[ServerKey, VirtualServer]
    ) -> tuple[list[Question], list[Question]]:
        """Note who needs the answers to which questions; returns those that nobody asks now, and the new.

        Virtual servers that are the same values ask what they asked.
        """
        touched: dict[Question, bool] = {}
        for key, server in before.items():
            if after.get(key) is not server:
                for real_server in server.real_servers:
                    for checker in real_server.checkers:
                        asked = self.question_of(server, real_server, checker)
                        if asked not in touched:
                            touched[asked] = True
                            self._users[asked] = [
                                user for user in self._users[asked] if after.get(user[0].key) is user[0]
                            ]
        for key, server in after.items():
            if before.get(key) is not server:
                for real_server in server.real_servers:
                    for checker in real_server.checkers:
                        asked = self.question_of(server, real_server, checker)
                        touched.setdefault(asked, asked in self._users)
                        self._users.setdefault(asked, []).append((server, real_server))
        gone = [asked for asked in touched if not self._users[asked]]
        for asked in gone:
            del self._users[asked]
        return gone, [asked for asked, known in touched.items() if not known]

    async def kept(self) -> None:
        """Wait until a round has been made of what is wanted now; not for long, where it cannot be made."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEPT):
                async with self._round:  # one that is under way does not know it yet
                    self._kept.clear()
                self._at_once = True
                self._wake.set()
                await self._kept.wait()

    async def stop(self, *, leave: bool) -> None:
        """End all checks, and remove the services unless they are to be left."""
        self.scheduler.stop()
        self._addresses.close()
        self._via_vip.close()
        if self._bfd is not None:
            self._bfd.stop()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._save()
        if leave:
            return
        await asyncio.to_thread(self._clear)
        for server in self.keeper.servers.values():
            if server.omega:
                self._tell_end(server)
        # What was removed has not been found healthy by anybody, next time.
        self._store.write_health({})
        self._store.write_owned(())

    def _tell_end(self, server: VirtualServer) -> None:
        state = self.keeper.states[server.key]
        for real_server in server.real_servers:
            if state.real_servers[real_server.key].up:
                text = f"Shutting down service {server.real_server_name(real_server)} from VS {server.name}"
                _log.info(text)
                self._notifier.tell(Event(DOWN, server, real_server, "Shutting down"), stopping=True)
        self._notifier.tell(Event(QUORUM_LOST, server), stopping=True)

    def _clear(self) -> None:
        """Remove our services, as lvs_flush_on_stop says how; what others have made stays."""
        if not self.have and not self.keeper.servers:
            return
        everything = self.keeper.configuration.settings.lvs_flush_on_stop is FlushOnStop.ALL
        owned = self.keeper.round()
        try:
            with self._open(False) as datapath:
                have = present(datapath.table())
            if not have:
                return
            with self._open(True) as datapath:
                have = present(datapath.table())
                if everything:
                    datapath.flush()
                else:
                    keys = owned.owned | owned.wanted.keys()
                    apply(datapath, differences(have, {}, keys), have)
                if self._old_timeouts is not None:
                    datapath.set_timeouts(self._old_timeouts)
        except (XlvsError, OSError) as error:
            _log.error("The services could not be removed: %s", error)

    # --- checks ------------------------------------------------------------------

    def _verdict_of(self, server: VirtualServer, real_server: RealServer, checker: Checker) -> Verdict:
        probe = self.scheduler.probes.get(self.question_of(server, real_server, checker))
        return probe.verdict if probe is not None else Verdict()

    @staticmethod
    def question_of(server: VirtualServer, real_server: RealServer, checker: Checker) -> Question:
        """What a checker asks; through the VIP it asks something else for each virtual server."""
        through = target_of(server, real_server, checker) if is_via_vip(checker) else None
        return question(checker, through)

    def _way_of(self, through: Hashable) -> Way:
        assert isinstance(through, str) or hasattr(through, "virtual")
        return self._via_vip.way(through)  # type: ignore[arg-type]

    def _prepare_via_vip(self) -> None:
        """Load what ``via vip`` needs, on interfaces that are new as well."""
        if not any(asked.through for asked in self._users):
            return
        try:
            self._via_vip.prepare()
        except (XlvsError, OSError) as error:
            self._say_once(f"Checks via vip fail: {error}")

    def _prepare_bfd(self, configuration: Configuration) -> None:
        """Keep the BFD sessions that checks ask for; the others are VRRP's."""
        names = {asked.checker.name for asked in self._users if isinstance(asked.checker, BfdCheck)}
        if names and self._keeps_bfd and self._bfd is None:
            from xlvs.bfd.sessions import Sessions  # most do without them

            self._bfd = Sessions(self._loop, self._bfd_changed)
        if self._bfd is not None:
            self._bfd.configure(one for one in configuration.bfd_instances if one.name in names)

    def _bfd_changed(self, name: str) -> None:
        self.scheduler.ask_again(lambda checker: isinstance(checker, BfdCheck) and checker.name == name)

    def _told(self, probe: Probe, result: Result, changed: bool) -> None:
        """A check has a result: the path of thousands a second, unless something has changed."""
        if not changed:
            if not result.ok:
                self._log_failure(probe, result)
            return
        users = self._users.get(probe.question, ())
        name = users[0][0].real_server_name(users[0][1]) if users else ""
        keyword = probe.checker.keyword
        if result.ok:
            if probe.verdict.since:
                _log.info("%s on service %s success: %s.", keyword, name, result.reason)
        else:
            retry = probe.checker.schedule.retry
            after = f" after {retry} {'retry' if retry == 1 else 'retries'}" if retry else ""
            _log.info("%s on service %s failed%s: %s.", keyword, name, after, result.reason)
        self._dirty.update(server.key for server, _ in users)
        if self._settling is None and self._dirty:
            self._settling = self._loop.call_later(_TOGETHER / 2, self._settle)

    def _log_failure(self, probe: Probe, result: Result) -> None:
        everything = self.keeper.configuration.settings.checker_log_all_failures
        users = self._users.get(probe.question, ())
        if users and (everything or self._logs_all(probe, users)):
            name = users[0][0].real_server_name(users[0][1])
            _log.info("%s on service %s failed: %s.", probe.checker.keyword, name, result.reason)

    @staticmethod
    def _logs_all(probe: Probe, users: list[tuple[VirtualServer, RealServer]] | tuple[()]) -> bool:
        return any(
            checker.schedule.log_all_failures and probe_key(checker) == probe.checker
            for _, real_server in users
            for checker in real_server.checkers
        )

    def _settle(self) -> None:
        self._settling = None
        keys = [key for key in self._dirty if key in self.keeper.servers]
        self._dirty.clear()
        self._tell(self.keeper.settle(keys, time.time()))
        self._wake.set()

    def _watch_addresses(self) -> None:
        """Hear of addresses as long as somebody needs that; without, each round looks."""
        if not any(server.ha_suspend for server in self.keeper.servers.values()):
            self._addresses.close()
            return
        try:
            self._addresses.open()
        except OSError as error:
            self._say_once(f"Changes of addresses are noticed late: {error}")

    def _suspend(self) -> None:
        """Let the checks of virtual servers rest that have ha_suspend and whose address is elsewhere."""
        resting = {
            server.key
            for server in self.keeper.servers.values()
            if server.ha_suspend
            and not server.fwmark
            and not any(self._is_local(service.key.address) for service in server.services)
        }
        if resting or any(probe.paused for probe in self.scheduler.probes.values()):
            self.scheduler.pause(
                lambda key: all(server.key in resting for server, _ in self._users.get(key, ()))
            )

    # --- telling -----------------------------------------------------------------

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            for line in event.log:
                _log.info("%s", line)
            self._notifier.tell(event)
            server, real_server = event.virtual_server, event.real_server
            if event.first and real_server is not None and not real_server.checkers:
                continue  # it is up because nobody asks: no news, and there may be thousands
            self.report(
                _EVENT_NAMES.get(event.kind, event.kind),
                virtual_server=server.name,
                real_server=server.real_server_name(real_server) if real_server is not None else None,
                reason=event.reason or (event.log[0] if event.log else None),
            )
        if events:
            self._unsaved = True

    def report(self, event: str, **fields: Any) -> None:
        """Note an event, and tell those who follow."""
        line = {"time": round(time.time(), 3), "event": event}
        line.update({key: value for key, value in fields.items() if value is not None})
        self.events.append(line)
        for queue in list(self.followers):
            if queue.full():
                self.followers.discard(queue)  # a reader that has stopped reading
            else:
                queue.put_nowait(line)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.error("%s", text)

    # --- the table ---------------------------------------------------------------

    def _read_table(self, servers: list[VirtualServer]) -> Present:
        """The table, at least what it has of those virtual servers."""
        keys = {service.key for server in servers for service in server.services}
        with self._open(False) as datapath:
            if len(keys) > MANY_SERVICES:
                return present(datapath.table())
            return {**self.have, **some(datapath, keys)}

    async def _apply_timeouts(self) -> None:
        wanted = self.keeper.configuration.settings.lvs_timeouts
        if wanted.tcp or wanted.tcp_fin or wanted.udp:
            try:
                await asyncio.to_thread(self._set_timeouts, Timeouts(wanted.tcp, wanted.tcp_fin, wanted.udp))
            except (XlvsError, OSError) as error:
                self._say_once(f"lvs_timeouts could not be set: {error}")

    def _set_timeouts(self, timeouts: Timeouts) -> None:
        with self._open(True) as datapath:
            if self._old_timeouts is None:
                self._old_timeouts = datapath.timeouts()
            datapath.set_timeouts(timeouts)

    async def zero(self) -> None:
        """Let the counters of our services begin at 0."""
        try:
            await asyncio.to_thread(self._zero)
        except (XlvsError, OSError) as error:
            _log.error("The counters could not be zeroed: %s", error)

    def _zero(self) -> None:
        owned = self.owned()
        with self._open(True) as datapath:
            for entry in present(datapath.table()):
                if entry in owned:
                    datapath.zero(entry)

    async def _keep(self) -> None:
        """Round after round: at each change, and every `CYCLE` seconds."""
        while True:
            pause = CYCLE
            began = time.monotonic()
            # Between two looks at the whole table only what changes is looked at.
            whole = began >= self._whole_due
            try:
                async with self._round:
                    pause = await self.round(whole=whole)
            except (XlvsError, OSError) as error:
                self._say_once(f"The table could not be kept: {error}")
                whole = True
            self.last_round = ended = time.monotonic()
            if whole:
                # Looking at a large table takes no more than a twentieth of a processor's time.
                self._whole_due = ended + max(pause, 20 * self._look_costs)
            else:
                self._whole_due = min(self._whole_due, ended + pause)
            self._kept.set()
            if self._unsaved and ended - self._saved_at > _SAVE_EVERY:
                self._loop.call_soon(self._save)  # whoever waits for the table comes first
            due = (
                self._whole_due if not self._unsaved else min(self._whole_due, self._saved_at + _SAVE_EVERY)
            )
            try:
                async with asyncio.timeout(due - time.monotonic()):
                    await self._wake.wait()
                if not self._at_once:
                    await asyncio.sleep(_TOGETHER)
            except TimeoutError:
                pass
            self._at_once = False
            self._wake.clear()

    async def round(self, *, whole: bool = True) -> float:
        """One round; returns the seconds after which the next one is due.

        One that need not be ``whole`` looks only at services that are wanted otherwise than before.
        """
        now = time.time()
        self._suspend()
        slow = self.keeper.ramp(now)
        one = self.keeper.round(whole=whole)
        # Known before it is made: whoever comes after kill -9 removes what is not wanted any more.
        self._write_owned(one.owned | one.wanted.keys())
        report, cost = await asyncio.to_thread(self._run, one)
        # What is refused is tried again by each look.
        if one.only is None and not report.made:
            self._look_costs = cost
        self.have = report.have if one.only is None else self._with_part(one.only, report.have)
        kept = {(change.key, change.place) for change in self.keeper.take(one, report, now)}
        self._write_owned(one.wanted.keys())
        if len(report.edits) > _EDITS_SAID:
            _log.warning("The table was changed by somebody else in %d places", len(report.edits))
            self.report("hand edits", count=len(report.edits))
        for change in report.edits[:_EDITS_SAID]:
            found = (change.key, change.place)
            fate = "kept" if found in kept else "left" if found in report.left else "put right"
            text = change_text(change)
            _log.warning("The table was changed by somebody else: %s (%s)", text, fate)
            self.report("hand edit", change=text, then=fate)
        if kept:
            self._store.write_decisions(self.keeper.overrides)
        missing = {
            one.change.key for one in report.refused if one.change.place is None and one.change.have is None
        }
        for refusal in report.refused:
            # That a service which was refused takes no real servers goes without saying.
            if refusal.change.place is None or refusal.change.key not in missing:
                self._say_refused(refusal)
        if not report.refused:
            self._said.clear()  # whatever comes is news again
        overrides = self.keeper.overrides
        ended = self.keeper.drained(report.have, now) if one.only is None else []
        for target, drain, reason in ended:
            overrides = overrides.with_drain(target, drain)
            names = self.names(target)
            _log.info("Drained service %s of VS %s: %s, removing it", names[1], names[0], reason)
            self.report("drained", virtual_server=names[0], real_server=names[1], reason=reason)
        if overrides is not self.keeper.overrides:
            self.decide(overrides)
        draining = any(not drain.removed for drain in overrides.drains.values())
        return QUICK_CYCLE if slow or draining else CYCLE

    def _run(self, one: upkeep.Round) -> tuple[upkeep.Report, float]:
        """A round, and the processor's seconds that it took: waiting for others' changes costs nothing."""
        began = time.thread_time()
        report = upkeep.run(one, self._open)
        return report, time.thread_time() - began

    def _with_part(self, keys: frozenset[ServiceKey], part: Present) -> Present:
        """The table as it was found last, some of it anew."""
        others = {key: found for key, found in self.have.items() if key not in keys}
        return {**others, **part}

    def _say_refused(self, refusal: Refusal) -> None:
        key, place = refusal.change.key, refusal.change.place
        name = service_name(key) if place is None else f"{place_name(place)} of {service_name(key)}"
        self._say_once(f"The data plane refuses a change of {name}: {refusal.error}")

    def _save(self) -> None:
        try:
            self._store.write_health(self.keeper.states, self.keeper.unsaved)
        except OSError as error:
            self._say_once(f"{self._store.folder}: what was found out could not be saved: {error}")
        self.keeper.unsaved.clear()
        self._unsaved = False
        self._saved_at = time.monotonic()

    def _write_owned(self, owned: Iterable[ServiceKey]) -> None:
        wanted = set(owned)
        if wanted == self._written:
            return
        try:
            self._store.write_owned(wanted)
        except OSError as error:
            self._say_once(f"{self._store.folder}: which services are ours could not be saved: {error}")
        else:
            self._written = wanted

    def owned(self) -> set[ServiceKey]:
        """The services that are this daemon's."""
        one = self.keeper.round()
        return set(one.owned | one.wanted.keys())

    # --- operators ---------------------------------------------------------------

    def names(self, target: Target) -> tuple[str, str]:
        """A virtual server and its real server as logs name them."""
        server = self.keeper.servers[target[0]]
        real_server = next(one for one in server.real_servers if one.key == target[1])
        return server.name, server.real_server_name(real_server)

    def decide(self, overrides: Overrides) -> None:
        """Take a decision of the operator: written down first, then brought about.  Raises `OSError`."""
        self._store.write_decisions(overrides)
        self._tell(self.keeper.decide(overrides, time.time()))
        self._wake.set()

    def _forget_decisions(self) -> None:
        """Write down that a reload has ended some, so that no restart brings them back."""
        try:
            self._store.write_decisions(self.keeper.overrides)
        except OSError as error:
            self._say_once(f"{self._store.folder}: the operator's decisions could not be saved: {error}")

    def drain(self, target: Target, seconds: float | None) -> None:
        """Let a real server take no new connections, and remove it after its last one."""
        now = time.time()
        deadline = None if seconds is None else now + seconds
        self.decide(self.keeper.overrides.with_drain(target, Drain(now, deadline)))
        names = self.names(target)
        _log.info("Draining service %s of VS %s", names[1], names[0])
        self.report("draining", virtual_server=names[0], real_server=names[1], deadline=deadline)

    def undrain(self, target: Target) -> None:
        """Let a real server take connections again."""
        self.decide(self.keeper.overrides.with_drain(target, None))
        names = self.names(target)
        _log.info("No longer draining service %s of VS %s", names[1], names[0])
        self.report("undrained", virtual_server=names[0], real_server=names[1])

    def set_weight(self, target: Target, weight: int | None) -> None:
        """Give a real server another weight than the configuration does; None: that one again."""
        self.decide(self.keeper.overrides.with_weight(target, weight))
        names = self.names(target)
        said = "as configured" if weight is None else str(weight)
        _log.info("Weight of service %s of VS %s: %s, by the operator", names[1], names[0], said)
        self.report("weight set", virtual_server=names[0], real_server=names[1], weight=weight)
