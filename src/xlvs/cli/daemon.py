# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs reload``, ``drain``, ``undrain``, ``weight``, ``events``: what operators say to a running xlvsd."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from xlvs.cli.terminal import add_command
from xlvs.errors import UsageError

SCHEMA = 1
"""Raised when a field of the JSON output changes its meaning or goes."""

_SERVICES_SHOWN = 4
"""Services of a virtual_server_group that `xlvs status` names."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_TARGETS = """\
SERVICE is VIP:PORT ([VIP]:PORT for IPv6), FWM:MARK, or the name of a virtual_server_group;
SERVER is a real server's address, with :PORT where the address has several."""

_RELOAD_HELP = """\
Have xlvsd read its configuration anew, and wait until the table follows. A
configuration that cannot be run changes nothing: what is wrong is said, and the
exit code is 1. `systemctl reload xlvsd` does the same; SIGHUP, too, without an
answer. What is wrong and can be left out is in xlvsd's log."""

_RELOAD_EPILOG = """\
examples:
  xlvsd -t && xlvs reload        only if nothing at all is wrong
  xlvs reload                    if it can be run"""

_RELOAD_PATIENCE = 600.0
"""Seconds: a large configuration is read for some, and several reloads may wait."""

_DRAIN_HELP = f"""\
Let a real server take no new connection, while those that it has go on. With the last
of them, or at the deadline, it is removed from the table; it comes back with `xlvs
undrain`. A drain outlives restarts of xlvsd. Who is drained does not count towards
the quorum.

{_TARGETS}"""

_DRAIN_EPILOG = """\
examples:
  xlvs drain 192.0.2.1:80 10.0.0.11                  until the last connection has ended
  xlvs drain 192.0.2.1:80 10.0.0.11 --deadline 5m    at most five minutes
  xlvs undrain 192.0.2.1:80 10.0.0.11"""

_WEIGHT_HELP = f"""\
Give a real server another weight than keepalived.conf does, until `--reset`. It outlives
reloads and restarts of xlvsd. Health counts more: a server that fails is not used.

{_TARGETS}"""

_WEIGHT_EPILOG = """\
examples:
  xlvs weight 192.0.2.1:80 10.0.0.11 50
  xlvs weight 192.0.2.1:80 10.0.0.11 --reset     what the configuration says"""

_EVENTS_HELP = """\
Show what xlvsd has noticed and done: real servers up and down, quorums, drains, hand
edits of the table, reloads. An event is a line of JSON."""

_EVENTS_EPILOG = """\
examples:
  xlvs events                          the last thousand
  xlvs events --follow                 those to come
  xlvs events --follow --last 20       the last twenty, and those to come
  xlvs events --follow | jq 'select(.event == "real server down")'"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the five commands."""
    reload = add_command(
        subparsers, "reload", "have xlvsd read its configuration anew", _RELOAD_HELP, _RELOAD_EPILOG
    )
    reload.set_defaults(run=_reload)

    drain = add_command(
        subparsers, "drain", "take a real server out, its connections first", _DRAIN_HELP, _DRAIN_EPILOG
    )
    _add_target(drain)
    drain.add_argument(
        "--deadline", metavar="TIME", type=duration, help="remove it after so long in any case: 90, 5m, 2h"
    )
    drain.set_defaults(run=_drain)

    undrain = add_command(subparsers, "undrain", "put a drained real server back", _TARGETS, _DRAIN_EPILOG)
    _add_target(undrain)
    undrain.set_defaults(run=_undrain)

    weight = add_command(subparsers, "weight", "change a real server's weight", _WEIGHT_HELP, _WEIGHT_EPILOG)
    _add_target(weight)
    weight.add_argument("weight", nargs="?", type=int, metavar="WEIGHT", help="0 and more")
    weight.add_argument("--reset", action="store_true", help="take the configuration's weight again")
    weight.set_defaults(run=_weight)

    events = add_command(subparsers, "events", "what xlvsd notices and does", _EVENTS_HELP, _EVENTS_EPILOG)
    events.add_argument("--follow", action="store_true", help="go on with what happens from now on")
    events.add_argument("--last", type=int, metavar="COUNT", help="so many events of the past")
    events.add_argument("--json", action="store_true", help="print one JSON object (not with --follow)")
    events.set_defaults(run=_events)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", help="the virtual server")
    parser.add_argument("server", metavar="SERVER", help="the real server")
    group = parser.add_mutually_exclusive_group()
    for protocol in ("tcp", "udp", "sctp"):
        group.add_argument(
            f"--{protocol}",
            dest="protocol",
            action="store_const",
            const=protocol,
            help=f"the virtual server of {protocol.upper()}, where there are several",
        )


def duration(text: str) -> int:
    """A time like ``90``, ``90s``, ``5m``, ``2h`` or ``1d`` in seconds."""
    number, unit = (text[:-1], text[-1]) if text and text[-1] in _UNITS else (text, "s")
    if not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90, 90s, 5m, 2h or 1d")
    return int(number) * _UNITS[unit]


def _reload(_arguments: argparse.Namespace) -> int:
    from xlvs.daemon.client import ask

    count = ask(_RELOAD_PATIENCE, command="reload")["virtual_servers"]
    print(f"xlvsd keeps {count} virtual server{'s' * (count != 1)}")
    return 0


def _drain(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments, command="drain", deadline=arguments.deadline)
    until = "" if arguments.deadline is None else f", at most {arguments.deadline} s"
    for service, server in answer["changed"]:
        print(f"draining {server} of {service}{until}")
    return 0


def _undrain(arguments: argparse.Namespace) -> int:
    for service, server in _ask(arguments, command="undrain")["changed"]:
        print(f"{server} of {service} takes connections again, if it is healthy")
    return 0


def _weight(arguments: argparse.Namespace) -> int:
    if (arguments.weight is None) is not arguments.reset:
        raise UsageError("either a WEIGHT or --reset is needed")
    for service, server in _ask(arguments, command="weight", weight=arguments.weight)["changed"]:
        said = "as configured" if arguments.weight is None else str(arguments.weight)
        print(f"weight of {server} of {service}: {said}")
    return 0


def _ask(arguments: argparse.Namespace, **fields: Any) -> dict[str, Any]:
    from xlvs.daemon.client import ask

    return ask(
        service=arguments.service, real_server=arguments.server, protocol=arguments.protocol or "", **fields
    )


def _events(arguments: argparse.Namespace) -> int:
    from xlvs.daemon.client import ask, follow

    if arguments.follow:
        if arguments.json:
            raise UsageError("--follow prints an object for each event; leave --json out")
        for line in follow(arguments.last or 0):
            print(line, flush=True)
        return 0
    events = ask(command="events")["events"]
    events = events if arguments.last is None else events[len(events) - min(arguments.last, len(events)) :]
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "events": events}, indent=2))
    else:
        for event in events:
            print(json.dumps(event))
    return 0


def page(found: dict[str, Any]) -> list[str]:
    """What a daemon's status has, as lines for `xlvs status`."""
    lines = [
        "",
        f"xlvsd: process {found['pid']}, since {_time(found['started'])}, {found['probes']} probes"
        + (", on kernel IPVS" if found.get("datapath") == "kernel" else ""),
        "",
    ]
    for server in found["virtual_servers"]:
        quorum = {True: "quorum", False: "no quorum", None: "not known yet"}[server["quorum"]]
        since = f" since {_time(server['since'])}" if server["since"] else ""
        lines.append(f"{server['name']}  {quorum}{since}")
        services = server["services"]
        if len(services) > 1:
            more = f" and {len(services) - _SERVICES_SHOWN} more" if len(services) > _SERVICES_SHOWN else ""
            lines.append(f"     {', '.join(services[:_SERVICES_SHOWN])}{more}")
        for one in server["real_servers"]:
            lines += _real_server_lines(one)
        sorry = server["sorry_server"]
        if sorry is not None:
            lines.append(
                f"  -> {sorry['address']:<24} sorry server, {'serves' if sorry['serves'] else 'waits'}"
            )
    return lines


def _real_server_lines(one: dict[str, Any]) -> list[str]:
    state = {True: "up", False: "down", None: "unknown"}[one["up"]]
    since = f" since {_time(one['since'])}" if one["since"] else ""
    weight = "not in the table" if one["weight"] is None else f"weight {one['weight']}"
    notes = [f"{one['connections']} connections"] if one["connections"] else []
    if one["override"] is not None:
        notes.append(f"weight {one['override']} by the operator")
    if one["removed_by_hand"]:
        notes.append("taken out by hand, until the configuration changes")
    if one["slow_start"]:
        notes.append("slow start")
    drain = one["drain"]
    if drain is not None:
        until = "" if drain["deadline"] is None else f" until {_time(drain['deadline'])}"
        notes.append("drained" if drain["removed"] else f"draining{until}")
    text = ", ".join([f"{state}{since}", weight, *notes])
    lines = [f"  -> {one['address']:<24} {text}"]
    for checker in one["checkers"]:
        checked = f", {_time(checker['checked'])}" if checker["checked"] else ""
        said = "suspended" if checker["suspended"] else checker["reason"] or "not checked yet"
        lines.append(f"       {checker['kind']:<12} {said}{checked}")
    return lines


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
