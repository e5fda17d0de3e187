# SPDX-License-Identifier: GPL-2.0-only
"""What the daemon knows, for `xlvs status`: every virtual server, real server and checker."""

from __future__ import annotations

import os
import time
from typing import Any

from xlvs.daemon.describe import place_name, service_name
from xlvs.daemon.health import RealServerKey, ServerKey
from xlvs.daemon.service import Service
from xlvs.keepalived.checks import Checker
from xlvs.keepalived.configuration import RealServer, SorryServer, VirtualServer
from xlvs.model import ServiceKey


def status(service: Service, started: float, datapath: str) -> dict[str, Any]:
    """Everything as values for JSON; times are seconds since the epoch."""
    return {
        "pid": os.getpid(),
        "started": started,
        "datapath": datapath,
        "configuration": list(service.keeper.configuration.files),
        "seconds_since_round": round(time.monotonic() - service.last_round, 1),
        "probes": len(service.scheduler.probes),
        "virtual_servers": [_server(service, key) for key in service.keeper.servers],
    }


def _server(service: Service, key: ServerKey) -> dict[str, Any]:
    server, state = service.keeper.servers[key], service.keeper.states[key]
    sorry = server.sorry_server
    serves = sorry is not None and not state.quorum and bool(_standing(service, server, sorry)[0])
    return {
        "name": server.name,
        "services": [service_name(one.key) for one in server.services],
        "quorum": state.quorum,
        "since": state.since or None,
        "sorry_server": None
        if sorry is None
        else {"name": server.real_server_name(sorry), "address": _address(sorry), "serves": serves},
        "real_servers": [_real_server(service, server, one) for one in server.real_servers],
    }


def _real_server(service: Service, server: VirtualServer, real_server: RealServer) -> dict[str, Any]:
    state = service.keeper.states[server.key].real_servers[real_server.key]
    target = (server.key, real_server.key)
    drain = service.keeper.overrides.drains.get(target)
    weight, connections = _standing(service, server, real_server)
    return {
        "name": server.real_server_name(real_server),
        "address": place_name(real_server.key),
        "up": state.up,
        "since": state.since or None,
        "reason": state.reason,
        "configured_weight": real_server.destination.weight,
        "weight": weight,
        "connections": connections,
        "removed_by_hand": _is_removed_by_hand(service, server, real_server),
        "override": service.keeper.overrides.weights.get(target),
        "drain": None
        if drain is None
        else {"since": drain.since, "deadline": drain.deadline, "removed": drain.removed},
        "slow_start": bool(
            state.ramp and real_server.slow_start and time.time() - state.ramp < real_server.slow_start
        ),
        "checkers": [_checker(service, server, real_server, one) for one in real_server.checkers],
    }


def _address(one: RealServer | SorryServer) -> str:
    return place_name((one.destination.address, one.destination.port))


def _standing(
    service: Service, server: VirtualServer, one: RealServer | SorryServer
) -> tuple[int | None, int]:
    """Weight in the table as the last round left it (None: not there), connections as it found them."""
    weight: int | None = None
    connections = 0
    for key, place in _places(server, one):
        destination = service.keeper.applied.get(key, (None, {}))[1].get(place)
        if destination is not None:
            weight = destination.weight
        found = service.have.get(key)
        row = found[1].get(place) if found else None
        if row is not None:
            connections += row[4] + row[5]
    return weight, connections


def _is_removed_by_hand(service: Service, server: VirtualServer, one: RealServer) -> bool:
    return any(where in service.keeper.overrides.removed for where in _places(server, one))


def _places(server: VirtualServer, one: RealServer | SorryServer) -> list[tuple[ServiceKey, RealServerKey]]:
    """Where a real server or sorry server stands in the table, if it does."""
    destinations = [(each.key, server.destination_for(each, one)) for each in server.services]
    return [(key, (destination.address, destination.port)) for key, destination in destinations]


def _checker(
    service: Service, server: VirtualServer, real_server: RealServer, checker: Checker
) -> dict[str, Any]:
    probe = service.scheduler.probes.get(service.question_of(server, real_server, checker))
    verdict = probe.verdict if probe is not None else None
    return {
        "kind": checker.keyword,
        "up": None if verdict is None else verdict.up,
        "since": None if verdict is None else verdict.since or None,
        "checked": None if verdict is None else verdict.checked or None,
        "seconds": 0.0 if verdict is None else round(verdict.seconds, 6),
        "reason": "" if verdict is None else verdict.reason,
        "suspended": probe is not None and probe.paused,
    }
