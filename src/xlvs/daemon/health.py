# SPDX-License-Identifier: GPL-2.0-only
"""The health of real and virtual servers as a function of the checkers' verdicts.

Rules are keepalived's (ipwrapper.c: perform_svr_state(), update_quorum_state()): a real
server is up while all its checkers are, a virtual server while the weights of those
that are up reach its quorum.  Other than there, a real server whose checkers have not
said anything yet is *unknown*: it is not used, and nobody is told that it is down.

No clock and no I/O: time is an argument, what happens is returned as events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from xlvs.checkers.verdict import Verdict
from xlvs.keepalived.checks import Checker, FileCheck, MiscCheck
from xlvs.keepalived.configuration import RealServer, VirtualServer

MAX_WEIGHT = 65535
"""The largest weight that keepalived gives (IPVS_WEIGHT_MAX)."""

VerdictOf = Callable[[VirtualServer, RealServer, Checker], Verdict]
RealServerKey = tuple[bytes, int]
ServerKey = tuple[object, ...]

# Kinds of events.
UP = "up"
DOWN = "down"
QUORUM_GAINED = "quorum gained"
QUORUM_LOST = "quorum lost"
WEIGHT = "weight"


class Opinion(NamedTuple):
    """What all checkers of a real server say together.

    ``up`` is None while some have not spoken and none has failed.  ``weight`` is the
    effective weight, by checkers that change it; None while one of those has not spoken.
    """

    up: bool | None
    reason: str
    weight: int | None


@dataclass(slots=True)
class RealServerState:
    """What is believed of a real server: ``up`` is None until known; ``weight`` the effective one.

    ``since`` is when ``up`` changed.  ``ramp`` is when a slow start began, 0 for none.
    """

    up: bool | None = None
    since: float = 0.0
    reason: str = ""
    weight: int | None = None
    ramp: float = 0.0


@dataclass(slots=True)
class VirtualServerState:
    """What is believed of a virtual server: whether it has its quorum, None until known."""

    quorum: bool | None = None
    since: float = 0.0
    real_servers: dict[RealServerKey, RealServerState] = field(default_factory=dict)


class Event(NamedTuple):
    """Something that has become otherwise.

    ``first`` is what a first check found, where nothing was known.  ``log`` are the
    lines that keepalived would log.
    """

    kind: str
    virtual_server: VirtualServer
    real_server: RealServer | None = None
    reason: str = ""
    first: bool = False
    threshold: int = 0
    weights: int = 0
    log: tuple[str, ...] = ()


def changes_weight(checker: Checker) -> bool:
    """Whether a checker of that kind can change the weight."""
    return isinstance(checker, FileCheck) or (isinstance(checker, MiscCheck) and checker.dynamic)


def opinion(real_server: RealServer, verdicts: Iterable[Verdict]) -> Opinion:
    """What the verdicts on a real server's checkers say; without any checker it is up."""
    if not real_server.checkers:
        return Opinion(True, "", max(0, min(real_server.destination.weight, MAX_WEIGHT)))
    up: bool | None = True
    reason = ""
    weight = real_server.destination.weight
    change = 0
    open_weight = False
    for checker, verdict in zip(real_server.checkers, verdicts, strict=True):
        open_weight = open_weight or (verdict.up is None and changes_weight(checker))
        if verdict.up is False:
            if up is not False:
                reason = verdict.reason
            up = False
        elif verdict.up is None and up is True:
            up, reason = None, "not checked yet"
        if verdict.weight is not None:
            change += verdict.weight - real_server.destination.weight
        change += verdict.weight_change
        if up is True:
            reason = verdict.reason
    return Opinion(up, reason, None if open_weight else max(0, min(weight + change, MAX_WEIGHT)))


def as_configured(_: RealServer, weight: int) -> int:
    """The weight of a real server of which the operator has made nothing else."""
    return weight


def settle(
    server: VirtualServer,
    state: VirtualServerState,
    verdict_of: VerdictOf,
    now: float,
    weight_of: Callable[[RealServer, int], int] = as_configured,
) -> list[Event]:
    """Bring ``state`` to what the verdicts say, and return what has become otherwise.

    ``weight_of`` says what the operator has made of a real server's weight.  Settling
    twice is settling once.
    """
    events: list[Event] = []
    for real_server in server.real_servers:
        key = real_server.key
        one = state.real_servers.get(key)
        if one is None:
            one = state.real_servers[key] = RealServerState()
        said = opinion(real_server, [verdict_of(server, real_server, one) for one in real_server.checkers])
        events += _settle_real_server(server, real_server, one, said, now)
    events += _settle_quorum(server, state, now, weight_of)
    return events


def _settle_real_server(
    server: VirtualServer, real_server: RealServer, state: RealServerState, said: Opinion, now: float
) -> list[Event]:
    events = []
    before = state.weight if state.weight is not None else real_server.destination.weight
    weight = before if said.weight is None else said.weight
    if weight != before:
        names = (server.real_server_name(real_server), server.name)
        activity = "active" if state.up else "inactive"
        text = (
            f"Changing weight from {before} to {weight} for {activity} service {names[0]} of VS {names[1]}"
        )
        events.append(Event(WEIGHT, server, real_server, said.reason, log=(text,)))
    state.weight = weight
    if said.up is None or said.up is state.up:
        state.reason = said.reason or state.reason
        return events
    first = state.up is None
    if said.up and not first and real_server.slow_start:
        state.ramp = now
    elif not said.up:
        state.ramp = 0.0
    state.up, state.since, state.reason = said.up, now, said.reason
    if first and not real_server.checkers:
        return [*events, Event(UP, server, real_server, said.reason, first)]
    names = (server.real_server_name(real_server), server.name)
    if real_server.inhibit_on_failure:
        text = f"{'Enabling' if said.up else 'Disabling'} service {names[0]} of VS {names[1]}"
    elif said.up:
        text = f"Adding service {names[0]} to VS {names[1]}"
    else:
        text = f"Removing service {names[0]} from VS {names[1]}"
    events.append(Event(UP if said.up else DOWN, server, real_server, said.reason, first, log=(text,)))
    return events


def _settle_quorum(
    server: VirtualServer,
    state: VirtualServerState,
    now: float,
    weight_of: Callable[[RealServer, int], int],
) -> list[Event]:
    weights = 0
    hoped = 0
    unknown = False
    for real_server in server.real_servers:
        one = state.real_servers[real_server.key]
        weight = weight_of(real_server, real_server.destination.weight if one.weight is None else one.weight)
        if one.up:
            weights += weight
        elif one.up is None and not _has_alpha(real_server):
            hoped += weight  # of one that a reload has brought
        unknown = unknown or one.up is None
    first = state.quorum is None
    granted = first and not unknown and _is_granted(server)
    held = state.quorum or granted
    threshold = server.quorum - server.hysteresis if held else server.quorum + server.hysteresis
    if not state.quorum and weights and weights >= threshold:
        state.quorum, state.since = True, now
        sign, compared, kind = "-" if granted else "+", "<=", QUORUM_GAINED
        log = [_quorum_text("Gained quorum", server, sign, threshold, compared, weights)]
        if server.sorry_server is not None and not first:
            verb = "Disabling" if server.sorry_server.inhibit else "Removing"
            sorry = server.real_server_name(server.sorry_server)
            log.append(f"{verb} sorry server {sorry} from VS {server.name}")
            log.append(f"Adding alive servers to the pool for VS {server.name}")
    elif (state.quorum and (not weights + hoped or weights + hoped < threshold)) or (
        first and (server.alpha or not unknown)
    ):
        # Until all have spoken nothing is lost, unless nothing is to be hoped for (alpha).
        state.quorum, state.since = False, now
        if first and server.sorry_server is None and not granted:
            return []  # nobody has been told that it is up
        sign, compared, kind = "-", ">", QUORUM_LOST
        said = "Starting with quorum down" if first else "Lost quorum"
        log = [_quorum_text(said, server, sign, threshold, compared, weights)]
        if server.sorry_server is not None:
            verb = "Enabling" if server.sorry_server.inhibit else "Adding"
            sorry = server.real_server_name(server.sorry_server)
            log.append(f"{verb} sorry server {sorry} to VS {server.name}")
            log.append(f"Removing alive servers from the pool for VS {server.name}")
    else:
        return []
    return [Event(kind, server, None, "", first, threshold, weights, tuple(log))]


def _is_granted(server: VirtualServer) -> bool:
    """Whether keepalived takes a quorum to be there until checks fail: by real servers without alpha.

    So hysteresis keeps it from being lost by some that are found to be down at the start
    (check_data.c: set_quorum_states()).
    """
    weights = sum(one.destination.weight for one in server.real_servers if not _has_alpha(one))
    return weights > 0 and weights >= server.quorum + server.hysteresis


def _has_alpha(real_server: RealServer) -> bool:
    """Whether a real server counts as failed until its checks have passed."""
    return any(checker.schedule.alpha for checker in real_server.checkers)


def _quorum_text(
    what: str, server: VirtualServer, sign: str, threshold: int, compared: str, weights: int
) -> str:
    sum_ = f"{server.quorum}{sign}{server.hysteresis}={threshold}"
    return f"{what} {sum_} {compared} {weights} for VS {server.name}"
