# SPDX-License-Identifier: GPL-2.0-only
"""The table as a function of configuration, health and the operator's decisions.  Nothing else counts."""

from __future__ import annotations

import math

from xlvs.daemon.health import RealServerKey, ServerKey, VirtualServerState
from xlvs.daemon.overrides import Overrides
from xlvs.keepalived.configuration import Configuration, RealServer, VirtualServer
from xlvs.model import Destination, Service, ServiceKey

Wanted = dict[ServiceKey, tuple[Service, dict[RealServerKey, Destination]]]
"""Services with their real servers by address and port, in the order in which they are added."""


def desired(
    configuration: Configuration,
    states: dict[ServerKey, VirtualServerState],
    overrides: Overrides,
    now: float,
) -> Wanted:
    """The whole table that there should be at ``now`` (seconds since the epoch, for slow starts)."""
    wanted: Wanted = {}
    unchecked = configuration.settings.start_unchecked
    for server in configuration.virtual_servers:
        state = states.get(server.key) or VirtualServerState()
        wanted.update(desired_of(server, state, overrides, now, unchecked=unchecked))
    return wanted


def desired_of(
    server: VirtualServer,
    state: VirtualServerState,
    overrides: Overrides,
    now: float,
    *,
    unchecked: bool = False,
) -> Wanted:
    """What one virtual server has in the table."""
    sorry = server.sorry_server if state.quorum is False else None
    weights = [
        (real_server, _weight(server, real_server, state, overrides, now, sorry is not None, unchecked))
        for real_server in server.real_servers
    ]
    wanted: Wanted = {}
    for service in server.services:
        destinations: dict[RealServerKey, Destination] = {}
        for real_server, weight in weights:
            if weight is not None:
                one = server.destination_for(service, real_server)
                if one.weight != weight:
                    one = one.replace(weight=weight)
                destinations[one.address, one.port] = one
        if server.sorry_server is not None:
            one = server.destination_for(service, server.sorry_server)
            if sorry is not None:
                destinations[one.address, one.port] = one
            elif server.sorry_server.inhibit:
                destinations.setdefault((one.address, one.port), one.replace(weight=0))
        if overrides.added or overrides.removed:
            _edit(service.key, destinations, overrides)
        wanted[service.key] = (service, destinations)
    return wanted


def _weight(
    server: VirtualServer,
    real_server: RealServer,
    state: VirtualServerState,
    overrides: Overrides,
    now: float,
    sorry: bool,
    unchecked: bool,
) -> int | None:
    """The weight with which a real server stands in the table; None for one that does not."""
    one = state.real_servers.get(real_server.key)
    up = None if one is None else one.up
    if up is None and unchecked:
        up = True
    drain = overrides.drains.get((server.key, real_server.key)) if overrides.drains else None
    if drain is not None and up is not False:
        return None if drain.removed or up is None else 0
    if not up or sorry:
        return 0 if real_server.inhibit_on_failure and drain is None else None
    weight = real_server.destination.weight if one is None or one.weight is None else one.weight
    if overrides.weights:
        weight = overrides.weights.get((server.key, real_server.key), weight)
    if one is not None and one.ramp:
        weight = ramped(weight, now - one.ramp, real_server.slow_start)
    return weight


def ramped(weight: int, elapsed: float, slow_start: float) -> int:
    """A weight ``elapsed`` seconds after a server came back, of a slow start of ``slow_start`` seconds."""
    if not slow_start or elapsed >= slow_start or weight <= 1:
        return weight
    return max(1, math.floor(weight * max(0.0, elapsed) / slow_start))


def ramping(server: VirtualServer, state: VirtualServerState, now: float) -> bool:
    """Whether a slow start is under way."""
    return any(
        one.slow_start
        and (known := state.real_servers.get(one.key)) is not None
        and known.ramp
        and now - known.ramp < one.slow_start
        for one in server.real_servers
    )


def _edit(key: ServiceKey, destinations: dict[RealServerKey, Destination], overrides: Overrides) -> None:
    """Put adopted hand edits in.  One that fails its checks goes whatever was edited."""
    for service, place in overrides.removed:
        if service == key:
            destinations.pop(place, None)
    for (service, place), destination in overrides.added.items():
        if service == key:
            destinations[place] = destination
