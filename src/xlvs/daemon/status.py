# SPDX-License-Identifier: GPL-2.0-only
"""What the daemon knows, for `xlvs status`: every virtual server, real server and checker."""

from __future__ import annotations

import os
import time
from typing import Any

from xlvs.daemon.describe import place_name, service_name
from xlvs.daemon.health import ServerKey
from xlvs.daemon.service import Service
from xlvs.keepalived.checks import Checker
from xlvs.keepalived.configuration import RealServer, VirtualServer


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
    return {
        "name": server.name,
        "services": [service_name(one.key) for one in server.services],
        "quorum": state.quorum,
        "since": state.since or None,
        "sorry_server": None if sorry is None else server.real_server_name(sorry),
        "real_servers": [_real_server(service, server, one) for one in server.real_servers],
    }


def _real_server(service: Service, server: VirtualServer, real_server: RealServer) -> dict[str, Any]:
    state = service.keeper.states[server.key].real_servers[real_server.key]
    target = (server.key, real_server.key)
    drain = service.keeper.overrides.drains.get(target)
    standing = _standing(service, server, real_server)
    return {
        "name": server.real_server_name(real_server),
        "address": place_name(real_server.key),
        "up": state.up,
        "since": state.since or None,
        "reason": state.reason,
        "configured_weight": real_server.destination.weight,
        "weight": None if standing is None else standing[0],
        "connections": 0 if standing is None else standing[1],
        "override": service.keeper.overrides.weights.get(target),
        "drain": None
        if drain is None
        else {"since": drain.since, "deadline": drain.deadline, "removed": drain.removed},
        "slow_start": bool(
            state.ramp and real_server.slow_start and time.time() - state.ramp < real_server.slow_start
        ),
        "checkers": [_checker(service, server, real_server, one) for one in real_server.checkers],
    }


def _standing(service: Service, server: VirtualServer, real_server: RealServer) -> tuple[int, int] | None:
    """Weight and connections in the table as it was seen last; None for one that is not in it."""
    weight: int | None = None
    connections = 0
    for one in server.services:
        destination = server.destination_for(one, real_server)
        found = service.have.get(one.key)
        row = found[1].get((destination.address, destination.port)) if found else None
        if row is not None:
            weight = row[3]
            connections += row[4] + row[5]
    return None if weight is None else (weight, connections)


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
