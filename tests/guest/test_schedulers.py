# SPDX-License-Identifier: GPL-2.0-only
"""Every scheduler beside the kernel's module: hundreds of clients, and each gets the same real server.

twos is not here: it draws lots, and Debian's 6.1 has no module of it
(tests/packet/test_schedulers.py holds it to its chances).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest import scenario
from tests.guest.oracle import disagreements, play
from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences

HASHES = (
    "sh", "sh -b sh-port", "sh -b sh-fallback", "sh -b sh-port,sh-fallback",
    "mh", "mh -b mh-port", "mh -b mh-fallback", "mh -b mh-port,mh-fallback",
)  # fmt: skip
LEAST = ("sed", "nq", "fo", "ovf", "lblc", "lblcr")
VIRTUAL = ("-t {vip}:80", "-u [{vip6}]:53")
FIRST_CLIENT = {False: "10.0.0.20", True: "2001:db8::cafe:20"}


def _server(service: str, number: int) -> str:
    name = f"[{{rs{number}_6}}]" if "[" in service else f"{{rs{number}}}"
    return f"{service} -r {name}:{service.rpartition(':')[2]}"


def _change(service: str, change: str) -> str:
    """A command to a service's real server, from such as ``-e 4 -w 7`` or ``-d 1``."""
    command, number, *weight = change.split()
    return f"{command} {_server(service, int(number))}{' -g ' if weight else ''}{' '.join(weight)}"


def _clients(service: str, clients: int, ports: int, first_port: int, flags: str = "S") -> str:
    """New flows from many clients."""
    ipv6 = "[" in service
    source = f"[{FIRST_CLIENT[ipv6]}]" if ipv6 else FIRST_CLIENT[ipv6]
    words = f"{source}:{first_port}+{ports} {service[3:]}"
    if service.startswith("-u"):
        return f"packet udp {words} clients={clients}"
    return f"packet tcp {words} {flags} clients={clients}"


def _hash_story(scheduler: str) -> Iterator[str]:
    """Weights of all kinds, removal, return, edits; then the other flags, and another scheduler and back."""
    ports = iter(range(40000, 60000, 100))
    yield "ipvsadm -R"
    for service in VIRTUAL:
        yield f"< -A {service} -s {scheduler}"
        for number, weight in ((1, 1), (2, 3), (3, 0), (4, 65535), (5, 20)):
            yield f"< -a {_server(service, number)} -g -w {weight}"
    yield "ipvsadm -L -n"
    yield "ipvsadm -S -n"
    for service in VIRTUAL:
        yield _clients(service, 50, 1, next(ports))
    for changes in (
        ("-e 4 -w 7", "-e 3 -w 2", "-a 6 -w 4"),
        ("-e 2 -w 0", "-d 1", "-e 5 -w 40"),
        ("-a 1 -w 1", "-e 2 -w 5"),
        ("-d 1", "-d 2", "-d 3", "-e 4 -w 0", "-d 5", "-d 6"),
        ("-e 4 -w 9", "-a 2 -w 0", "-a 3 -w 8"),
    ):
        yield "ipvsadm -R"
        for service in VIRTUAL:
            for change in changes:
                yield f"< {_change(service, change)}"
        for service in VIRTUAL:
            yield _clients(service, 7, 2, next(ports))
    name = scheduler.split()[0]
    for edited in (f"{name} -b {name}-port,{name}-fallback", name, "rr", scheduler):
        yield "ipvsadm -R"
        for service in VIRTUAL:
            yield f"< -E {service} -s {edited}"
        for service in VIRTUAL:
            yield _clients(service, 8, 1, next(ports))


def _least_story(scheduler: str) -> Iterator[str]:
    """Connections open and close while weights change and servers come and go."""
    ports = iter(range(40000, 60000, 100))
    services = ("-t {vip}:80", "-u [{vip6}]:53") if scheduler == "lblc" else ("-t {vip}:80",)
    yield "ipvsadm -R"
    for service in services:
        yield f"< -A {service} -s {scheduler}"
        for number, weight in ((1, 3), (2, 1), (3, 5), (4, 0)):
            yield f"< -a {_server(service, number)} -g -w {weight}"
    for changes in (
        (),
        ("-e 4 -w 9", "-e 3 -w 2"),
        ("-d 3", "-e 1 -w 0", "-a 5 -w 1"),
        ("-a 3 -w 30", "-e 1 -w 100", "-e 2 -w 100"),
        ("-d 1", "-d 2", "-e 3 -w 1", "-e 4 -w 2", "-e 5 -w 3"),
        ("-a 1 -w 2147483647", "-a 2 -w 1"),
    ):
        if changes:
            yield "ipvsadm -R"
        for service in services:
            for change in changes:
                yield f"< {_change(service, change)}"
        for service in services:
            port = next(ports)
            yield _clients(service, 6, 3, port)
            # Half of them end: their server counts them as inactive.
            yield _clients(service, 3, 3, port, "FA")
            yield _clients(service, 5, 2, next(ports))
        yield "ipvsadm -L -n"
    yield "ipvsadm -R"
    for service in services:
        yield f"< -e {_server(service, 3)} -g -w 4"
        yield f"< -a {_server(service, 6)} -g -w 4"
    for service in services:
        yield _clients(service, 7, 2, next(ports))
    yield "ipvsadm -L -n"
    yield "ipvsadm -L -n --stats"


def _destination_story(number: int) -> Iterator[str]:
    """dh knows one address for each service; each scenario has others."""
    yield "ipvsadm -R"
    services = "-t {vip}:80", "-t [{vip6}]:80"
    for service in services:
        yield f"< -A {service} -s dh"
        for server in range(1, 6):
            yield f"< -a {_server(service, server)} -g -w {(number + server) % 4}"
    for port, change in enumerate(("", "-e 3 -w 1", "-d 2", "-a 2 -w 1", "-e 1 -w 0", "-a 6 -w 1")):
        if change:
            yield "ipvsadm -R"
        for service in services:
            if change:
                yield f"< {_change(service, change)}"
        for service in services:
            yield _clients(service, 2, 1, 41000 + 10 * port)


def _compare(guest: Guest, stories: dict[str, Iterator[str]]) -> None:
    plays = play(
        guest, [Scenario(name, tuple(steps)) for name, steps in stories.items()], (KERNEL, XLVS), keep=True
    )
    told = disagreements(plays)
    assert not told, "\n".join(told.values())
    # Somebody was chosen, and not always the same one.
    seen = " ".join(
        shown.answer for one in plays for shown in one.observations if shown.step.startswith("packet")
    )
    assert len({word for word in seen.split() if word.startswith("rs")}) > 4


@pytest.mark.timeout(400)
def test_by_hash(fast_guest: Guest) -> None:
    _compare(fast_guest, {scheduler: _hash_story(scheduler) for scheduler in HASHES})


@pytest.mark.timeout(400)
def test_by_load(fast_guest: Guest) -> None:
    """Its clock stands still while nobody waits: connections must not end meanwhile, loads are compared."""
    _compare(fast_guest, {scheduler: _least_story(scheduler) for scheduler in LEAST})


@pytest.mark.timeout(400)
def test_by_destination(fast_guest: Guest) -> None:
    _compare(fast_guest, {f"dh {number}": _destination_story(number) for number in range(5)})


NONE = Scenario.parse(
    "no scheduler: what there is goes on, nothing new begins",
    """
    ipvsadm -A -t {vip}:80 -s none
    ipvsadm -a -t {vip}:80 -r {rs1} -g
    ipvsadm -A -t {vip}:81 -s rr
    ipvsadm -a -t {vip}:81 -r {rs1} -g
    ipvsadm -a -t {vip}:81 -r {rs2} -g
    ipvsadm -A -t {vip}:82 -s rr -p 50
    ipvsadm -a -t {vip}:82 -r {rs1} -g
    ipvsadm -a -t {vip}:82 -r {rs2} -g
    ipvsadm -A -f 7 -s none -b flag-2
    ipvsadm -A -t {vip}:83 -s None
    ipvsadm -L -n
    ipvsadm -S -n
    open never tcp {vip}:80 from 10.0.0.201:1001
    open a tcp {vip}:81 from 10.0.0.201:1002
    open b tcp {vip}:82 from 10.0.0.201:1003
    ipvsadm -E -t {vip}:81 -s none
    ipvsadm -E -t {vip}:82 -s none -p 50
    send a 10
    send b 10
    open c tcp {vip}:81 from 10.0.0.201:1004
    open d tcp {vip}:82 from 10.0.0.201:1005
    open e tcp {vip}:82 from 10.0.0.202:1005
    connections
    ipvsadm -a -t {vip}:81 -r 10.0.0.99 -g -w 3
    ipvsadm -e -t {vip}:81 -r {rs2} -g -w 2
    ipvsadm -d -t {vip}:81 -r 10.0.0.99
    ipvsadm -E -t {vip}:81 -s rr
    open f tcp {vip}:81 from 10.0.0.201:1006
    open g tcp {vip}:81 from 10.0.0.201:1007
    ipvsadm -E -t {vip}:80 -s wlc
    open h tcp {vip}:80 from 10.0.0.201:1008
    ipvsadm -L -n
    connections
    """,
    servers=2,
)


def test_none(fast_guest: Guest) -> None:
    told = differences(scenario.play(fast_guest, [NONE], (KERNEL, XLVS), timeout=200))
    assert not told, "\n".join(told)
