# SPDX-License-Identifier: GPL-2.0-only
"""Looking: one host or every node of a lab, first what each is set to, then what the network answers.

A thread for each host stands in its network namespace, so all are looked at,
and asked, at the same time.  Nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from xlvs import model
from xlvs.doctor import arp, clock, ndp, path
from xlvs.doctor.cluster import Asked, Cluster, Heard, Served, key_of
from xlvs.doctor.host import Address, Host, Link
from xlvs.doctor.observation import observe, restore_neighbours
from xlvs.doctor.path import Passage
from xlvs.doctor.probe import PATIENCE, Prober, Target
from xlvs.errors import NotPermitted, XlvsError
from xlvs.kernel.namespaces import network_namespace

_AT_ONCE = 256
"""Connections that are tried at the same time."""
_MOST_PASSAGES = 64
"""Real servers to which full-size packets are sent: a path is its neighbours', too."""
_MOST_DIRECTLY = 256
"""Hosts that are asked by ARP each by himself."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host is looked at: its name, a lab's word for its role, its namespace's file (empty: here)."""

    name: str
    role: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What one host's questions gave."""

    host: str
    heard: list[Heard]
    asked: dict[tuple[str, str, model.ServiceKey, bytes, int], Asked]
    passages: list[Passage]


def examine(
    places: Iterable[Place], *, whole: bool, patience: float = PATIENCE, ask: bool = True
) -> Cluster:
    """Look at these hosts and ask the network; ``patience`` in seconds is for each real server.

    ``whole`` says that these are all hosts of the cluster; without ``ask`` the network
    is left alone.  Raises `XlvsError` where one cannot be looked at, `NotPermitted` without root.
    """
    if os.geteuid() != 0:
        raise NotPermitted("the doctor needs root: it looks at tables and asks by raw sockets", "try sudo")
    there = list(places)
    before = clock.ahead_of_monotonic()
    with ThreadPoolExecutor(max_workers=max(1, len(there))) as threads:
        looking = [threads.submit(_in, place, _observer(place, whole)) for place in there]
        cluster = Cluster(tuple(each.result() for each in looking), whole)
        asking = [
            threads.submit(_in, place, _asker(cluster, host, patience))
            for place, host in zip(there, cluster.hosts, strict=True)
            if ask and _asks(host)
        ]
        for each in asking:
            found = each.result()
            cluster.heard += found.heard
            cluster.asked |= found.asked
            for passage in found.passages:
                cluster.passages[found.host, passage.address] = passage
    cluster.clock_step = clock.ahead_of_monotonic() - before
    return cluster


def _in(place: Place, look: Callable[[], _Result]) -> _Result:
    if not place.namespace:
        return look()
    try:
        with network_namespace(place.namespace):
            return look()
    except FileNotFoundError as error:
        raise XlvsError(f"the node {place.name} has lost its network namespace") from error


def _observer(place: Place, whole: bool) -> Callable[[], Host]:
    return lambda: observe(place.name, place.role, alone=not whole)


def _asker(cluster: Cluster, host: Host, patience: float) -> Callable[[], _Found]:
    return lambda: _ask(cluster, host, patience)


def _asks(host: Host) -> bool:
    """Real servers are asked about; everybody else asks."""
    return bool(host.tables) or host.role in ("client", "router")


def _ask(cluster: Cluster, host: Host, patience: float) -> _Found:
    served = [each for each in cluster.served() if each.director is host]
    questions = {version: _questions(cluster, host, served, version) for version in (4, 6)}
    # Waiting for the silence of many is one wait.
    with ThreadPoolExecutor(max_workers=3) as threads:
        namespace = f"/proc/self/task/{_thread()}/ns/net"

        def there(look: Callable[[], _Result]) -> Callable[[], _Result]:
            def enter() -> _Result:
                with network_namespace(namespace):
                    return look()

            return enter

        limit = min(patience, arp.PATIENCE)
        sightings = threads.submit(there(lambda: _ask_quietly(host, questions[4], arp.ask, limit)))
        sightings6 = threads.submit(there(lambda: _ask_quietly(host, questions[6], ndp.ask, limit)))
        measuring = min(patience, path.PATIENCE)
        passages = threads.submit(there(lambda: path.measure(_paths(host, served), measuring)))
        asked = asyncio.run(_connect(served, patience)) if served else {}
        return _Found(
            host.name,
            [Heard(host, each) for each in (*sightings.result(), *sightings6.result())],
            asked,
            passages.result(),
        )


def _ask_quietly(
    host: Host,
    questions: list[arp.Question],
    ask: Callable[[list[arp.Question], float], list[arp.Sighting]],
    patience: float,
) -> list[arp.Sighting]:
    """Ask, and take back what the kernel has learned from the answers: its cache hears them, too."""
    heard = ask(questions, patience) if questions else []
    asked = {address for question in questions for address in question.wanted}
    before = [entry for entry in host.neighbours if entry.address in asked and "FAILED" not in entry.states]
    others = {(each.address, each.mac) for each in heard}
    if any((entry.address, mac) in others for entry in before for _, mac in others if mac != entry.mac):
        restore_neighbours(before)
    return heard


def _thread() -> int:
    import threading

    return threading.get_native_id()


def _questions(cluster: Cluster, host: Host, served: list[Served], version: int) -> list[arp.Question]:
    """Everything in whose network an interface is: VIPs, and real servers."""
    virtual = [each for each in cluster.virtual_addresses() if each.version == version]
    real = [
        each.real_server
        for each in cluster.served()
        if each.real_server.version == version and not host.has(each.real_server)
    ]
    faces = {host.interface_towards(each.real_server) for each in served}
    found = []
    for link in host.ethernet():
        own = _own_address(host, link, virtual, version)
        if own is None:
            continue
        wanted: dict[Address, None] = {}
        for address in (*virtual, *real):
            here = host.interface_towards(address) == link.name
            # A VIP may be in nobody's network: then it is looked for beside the real servers.
            astray = address in virtual and not host.interface_towards(address) and link.name in faces
            if here or astray:
                wanted[address] = None
        if wanted:
            known = _known(cluster, host, link, version)
            found.append(arp.Question(link.name, link.mac, own, tuple(wanted), known))
    return found


def _own_address(host: Host, link: Link, virtual: list[Address], version: int) -> Address | None:
    """As whom one asks on an interface: an address of it that is no VIP, of IPv6 rather a global one."""
    own = [
        each.address
        for each in host.addresses
        if each.interface == link.name and each.address.version == version and not each.failed
        and each.address not in virtual
    ]  # fmt: skip
    return min(own, key=lambda address: address.version == 6 and address.is_link_local, default=None)


def _known(cluster: Cluster, host: Host, link: Link, version: int) -> tuple[str, ...]:
    """The MACs of other hosts that may be on an interface's segment."""
    found = [
        each.mac
        for each in host.neighbours
        if each.interface == link.name and each.address.version == version
    ]
    found += [each.mac for other in cluster.hosts if other is not host for each in other.ethernet()]
    return tuple(dict.fromkeys(found))[:_MOST_DIRECTLY]


def _paths(host: Host, served: list[Served]) -> dict[Address, int]:
    """The real servers to measure, with the MTU of the interface that leads there."""
    found: dict[Address, int] = {}
    for each in served:
        address = each.real_server
        if not each.is_local and len(found) < _MOST_PASSAGES:
            route = host.route_to(address)
            link = host.link(route.interface) if route else None
            if link is not None and link.mtu <= 65535:
                found[address] = link.mtu
    return found


async def _connect(
    served: list[Served], patience: float
) -> dict[tuple[str, str, model.ServiceKey, bytes, int], Asked]:
    targets = {key_of(each): _targets(each) for each in served}
    gate = asyncio.Semaphore(_AT_ONCE)
    with Prober() as prober:
        prober.prepare_all()

        async def both(plain: Target, as_virtual: Target) -> Asked:
            async with gate:
                return Asked(*await asyncio.gather(
                    prober.connect(plain, patience), prober.connect(as_virtual, patience)
                ))  # fmt: skip

        wanted = {key: pair for key, pair in targets.items() if pair is not None}
        answers = await asyncio.gather(*(both(*pair) for pair in wanted.values()))
    return dict(zip(wanted, answers, strict=True))


def _targets(served: Served) -> tuple[Target, Target] | None:
    """How to ask it directly and as the VIP; None for what cannot be asked by TCP."""
    key, destination = served.service.key, served.destination
    if key.protocol != model.TCP or not key.port or served.is_local:
        return None
    if destination.family != key.family or destination.method not in (
        model.ROUTE, model.MASQUERADE, model.TUNNEL,
    ):  # fmt: skip
        return None
    return (
        Target(destination.address, served.port, destination.address, served.port),
        Target(
            destination.address, served.port, key.address, key.port, destination.method, destination.tunnel
        ),
    )
