# SPDX-License-Identifier: GPL-2.0-only
"""The daemon's rounds and checks, on a table in memory, with sockets of the loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.unit.daemon.examples import VIP, configuration, real_server, virtual_server
from xlvs.checkers.schedule import question
from xlvs.daemon.addresses import AddressWatch
from xlvs.daemon.notify import Notifier
from xlvs.daemon.overrides import Overrides
from xlvs.daemon.service import CYCLE, Service
from xlvs.daemon.state import Store
from xlvs.daemon.upkeep import Opener
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import InvalidOperation
from xlvs.keepalived.checks import Connection, Schedule, TcpCheck
from xlvs.keepalived.configuration import Configuration, RealServer, VirtualServer
from xlvs.keepalived.settings import HandEdits
from xlvs.model import IPV4, TCP, Destination, ServiceKey

HERE = bytes((127, 0, 0, 1))
KEY, OTHER = (ServiceKey(IPV4, TCP, VIP, port) for port in (80, 81))


def opener(datapath: MemoryDatapath, before_a_change: Callable[[], None] = lambda: None) -> Opener:
    """Opens that table."""

    @contextmanager
    def opened(write: bool) -> Any:
        if write:
            before_a_change()
        yield datapath

    return opened


def play(service: Callable[[], Service], story: Callable[[Service], Awaitable[None]]) -> None:
    """Run a story beside a service."""

    async def run() -> None:
        made = service()
        try:
            async with asyncio.timeout(30):
                await story(made)
        finally:
            await made.stop(leave=True)

    asyncio.run(run())


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so; whoever calls bounds the time."""
    while not condition():
        await asyncio.sleep(0.01)


def test_what_is_made_is_known_to_be_ours_before_it_is_made(tmp_path: Path) -> None:
    """So that whoever comes after kill -9 removes a service that the configuration has lost meanwhile."""
    datapath, store = MemoryDatapath(), Store(str(tmp_path))
    written = []
    both = configuration(*(virtual_server(real_server(1, checked=False), port=port) for port in (80, 81)))
    one = configuration(virtual_server(real_server(1, checked=False)))

    def service() -> Service:
        return Service(store, opener(datapath, lambda: written.append(store.read_owned())), Notifier())

    async def make_both(service: Service) -> None:
        await service.start(both)
        await eventually(lambda: len(datapath.services()) == 2)
        assert written[0] == {KEY, OTHER}

    async def keep_one(service: Service) -> None:
        await service.start(one)
        await eventually(lambda: [entry.service.key for entry in datapath.services()] == [KEY])
        await eventually(lambda: store.read_owned() == {KEY})

    play(service, make_both)
    play(service, keep_one)


class Looked(MemoryDatapath):
    """A table that counts how often it is read as a whole."""

    looks = 0

    def table(self, counted: str = "") -> list[Any]:
        self.looks += 1
        return super().table(counted)


def test_a_reload_touches_only_what_has_changed(tmp_path: Path, listening: socket.socket) -> None:
    datapath, store = Looked(), Store(str(tmp_path))
    port = listening.getsockname()[1]
    check = TcpCheck(Schedule(60.0, 0.0), Connection(HERE, port))
    other = TcpCheck(Schedule(50.0, 0.0), Connection(HERE, port))

    def server(number: int, weight: int, checker: TcpCheck) -> VirtualServer:
        one = RealServer(Destination(bytes((10, 0, 0, number)), 80, weight=weight), (checker,))
        return virtual_server(one, port=80 + number)

    async def story(service: Service) -> None:
        def weights() -> list[int]:
            return [row[3] for _, _, rows in MemoryDatapath.table(datapath) for row in rows]

        first, second, third = server(1, 1, check), server(2, 1, check), server(3, 1, other)
        await service.start(configuration(first, second, third))
        await eventually(lambda: weights() == [1, 1, 1])
        probes, looks = dict(service.scheduler.probes), datapath.looks
        await service.reload(configuration(first, server(2, 9, check), third))
        await service.kept()
        assert sorted(weights()) == [1, 1, 9] and datapath.looks == looks
        assert service.scheduler.probes == probes, "nobody asks anything else"
        # Who asks no more is not told any more; a question goes with the last who asks it.
        await service.reload(configuration(first, third))
        await service.kept()
        assert len(weights()) == 2 and datapath.looks == looks
        assert service.scheduler.probes == probes
        await service.reload(configuration(third))
        assert list(service.scheduler.probes.values()) == [probes[question(other)]]
        # Another rhythm of the same question begins with what is known.
        await service.reload(configuration(third, server(1, 1, check)))
        await service.reload(configuration(server(3, 1, check)))
        assert [probe.verdict for probe in service.scheduler.probes.values()] == [
            probes[question(other)].verdict
        ]

    play(lambda: Service(store, opener(datapath), Notifier()), story)


def test_whoever_waits_for_the_table_looks_at_it_as_soon_again(tmp_path: Path) -> None:
    """Loading the packet path, or another command that holds the table, is no look at it."""

    async def story(service: Service) -> None:
        await service.start(configuration(virtual_server(real_server(1, checked=False))))
        await service.kept()
        assert service._whole_due - service.last_round < 1.1 * CYCLE

    slowly = opener(MemoryDatapath(), lambda: time.sleep(CYCLE / 15))
    play(lambda: Service(Store(str(tmp_path)), slowly, Notifier()), story)


class Refusing(MemoryDatapath):
    """Takes no real server."""

    def add_destination(self, *_: object) -> None:
        raise InvalidOperation("not that one")


def test_what_is_refused_costs_no_more_than_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again and again, maybe for ever."""

    async def story(service: Service) -> None:
        await service.start(configuration(virtual_server(real_server(1, checked=False))))
        await service.kept()  # which makes the service, and only that
        service._whole_due = 0.0
        await service.kept()
        assert service._whole_due - service.last_round == pytest.approx(20 * CYCLE)

    spent = count(step=CYCLE)
    monkeypatch.setattr(time, "thread_time", lambda: next(spent))
    play(lambda: Service(Store(str(tmp_path)), opener(Refusing()), Notifier()), story)


def test_what_a_reload_ends_no_restart_brings_back(tmp_path: Path) -> None:
    datapath, store = MemoryDatapath(), Store(str(tmp_path))
    one, two = real_server(1, checked=False), real_server(2, checked=False)
    both, changed = virtual_server(one, two), virtual_server(one, two, quorum=2)
    adopt = HandEdits.ADOPT

    def weights() -> dict[int, int]:
        return {one.destination.address[3] - 10: one.destination.weight
                for one in datapath.service(KEY).destinations}  # fmt: skip

    def service() -> Service:
        return Service(store, opener(datapath), Notifier())

    async def edit(service: Service) -> None:
        await service.reload(configuration(both, policy=adopt))
        await service.round()
        datapath.delete_destination(KEY, *one.key)
        await service.round()
        service.drain((both.key, two.key), None)
        await service.round()

    async def keep(service: Service) -> None:
        await service.reload(configuration(both, policy=adopt))
        await service.round()
        assert weights() in ({}, {2: 0})

    async def end(service: Service) -> None:
        await keep(service)
        await service.reload(configuration(virtual_server(one), policy=adopt))
        await service.round()
        assert weights() == {1: 1}

    async def bring_back(service: Service) -> None:
        await service.reload(configuration(changed, policy=adopt))
        await service.round()
        assert weights() == {1: 1, 2: 1}

    for story in (edit, keep, end, bring_back):
        play(service, story)


def test_a_policy_that_does_not_adopt_keeps_no_hand_edits(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = real_server(1, checked=False)
    store.write_decisions(Overrides().with_removed(KEY, one.key))
    datapath = MemoryDatapath()

    async def story(service: Service) -> None:
        await service.reload(configuration(virtual_server(one)))
        await service.round()
        assert len(datapath.service(KEY).destinations) == 1

    play(lambda: Service(store, opener(datapath), Notifier()), story)


@pytest.fixture
def listening() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_change_of_addresses_is_told_soon_and_once() -> None:
    """Also where more was announced than there is room for; a change after that is told again."""

    async def run() -> None:
        ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        told = 0

        def changed() -> None:
            nonlocal told
            told += 1

        watch = AddressWatch(asyncio.get_running_loop(), changed, lambda: ours)
        watch.open()
        watch.open()
        with kernels:
            async with asyncio.timeout(30):
                for times in (1, 2):
                    for _ in range(3):
                        kernels.send(b"an announcement")
                    await eventually(lambda times=times: told == times)  # type: ignore[misc]
        watch.close()

    asyncio.run(run())


def test_ha_suspend_asks_nobody_while_the_vip_is_elsewhere(tmp_path: Path, listening: socket.socket) -> None:
    """A suspended real server stays as it was found last, whatever becomes of it."""
    datapath = MemoryDatapath()
    vip = {"is here": False}
    port = listening.getsockname()[1]
    check = TcpCheck(Schedule(delay_loop=0.05, warmup=0.05, retry=0), Connection(HERE, port))
    checked = RealServer(Destination(HERE, port), checkers=(check,))
    other = TcpCheck(Schedule(delay_loop=0.05, warmup=0.05, retry=0), Connection(HERE, port, timeout=4.0))
    unsuspended = RealServer(Destination(HERE, port), checkers=(other,))

    def configured() -> Configuration:
        return configuration(virtual_server(checked, ha_suspend=True), virtual_server(unsuspended, port=81))

    def weights(key: ServiceKey) -> list[int]:
        return [one.destination.weight for one in datapath.service(key).destinations]

    async def story(service: Service) -> None:
        await service.start(configured())
        await eventually(lambda: len(datapath.services()) == 2 and weights(OTHER) == [1])
        assert weights(KEY) == []  # never asked, so never used
        vip["is here"] = True
        await service.reload(configured())  # has it look at once
        await eventually(lambda: weights(KEY) == [1])
        vip["is here"] = False
        await service.reload(configured())
        listening.close()
        await eventually(lambda: weights(OTHER) == [])
        assert weights(KEY) == [1]
        vip["is here"] = True
        await service.reload(configured())
        await eventually(lambda: weights(KEY) == [])

    play(
        lambda: Service(Store(str(tmp_path)), opener(datapath), Notifier(), lambda _: vip["is here"]), story
    )
