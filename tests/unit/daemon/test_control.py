# SPDX-License-Identifier: GPL-2.0-only
"""The control socket: what operators may ask, what they are told, and who may ask."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.daemon.examples import configuration, real_server, virtual_server
from xlvs.cli.daemon import duration
from xlvs.daemon.control import Control
from xlvs.daemon.notify import Notifier
from xlvs.daemon.service import Service
from xlvs.daemon.state import Store
from xlvs.daemon.status import status
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import UsageError

Ask = Callable[..., Awaitable[dict[str, Any]]]


def with_daemon(folder: Path, story: Callable[[Ask, Service, MemoryDatapath], Awaitable[None]]) -> None:
    """Run a story beside a whole daemon on a table in memory."""
    datapath = MemoryDatapath()

    @contextmanager
    def opened(_write: bool) -> Any:
        yield datapath

    faults = [UsageError("it cannot be run", "Mend it")]

    async def reload() -> None:
        if faults:
            raise faults.pop()

    async def run() -> None:
        service = Service(Store(str(folder)), opened, Notifier())
        control = Control(f"{folder}/control", service, lambda: status(service, 1.0, "ebpf"), reload)
        await control.open()
        assert stat.S_IMODE((folder / "control").stat().st_mode) == 0o600
        unchecked = [real_server(number, checked=False) for number in (1, 2)]
        await service.start(configuration(virtual_server(*unchecked)))
        reader, writer = await asyncio.open_unix_connection(f"{folder}/control")

        async def ask(**request: Any) -> dict[str, Any]:
            writer.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer

        try:
            async with asyncio.timeout(20):
                await story(ask, service, datapath)
        finally:
            writer.close()
            await control.close()
            await service.stop(leave=False)
        assert not datapath.services()

    asyncio.run(run())


def weights(datapath: MemoryDatapath) -> dict[int, int]:
    """Weights of the real servers in the table, by number."""
    return {
        one.destination.address[3] - 10: one.destination.weight
        for entry in datapath.services()
        for one in entry.destinations
    }


async def becomes(datapath: MemoryDatapath, wanted: dict[int, int]) -> None:
    """Wait for a table."""
    while weights(datapath) != wanted:
        await asyncio.sleep(0.01)


def test_drain_weight_and_events(tmp_path: Path) -> None:
    async def story(ask: Ask, service: Service, datapath: MemoryDatapath) -> None:
        await becomes(datapath, {1: 1, 2: 1})
        one = {"service": "192.0.2.1:80", "real_server": "10.0.0.11"}
        assert (await ask(command="weight", weight=5, **one))["ok"]
        await becomes(datapath, {1: 5, 2: 1})
        assert (await ask(command="weight", weight=None, **one))["ok"]
        await becomes(datapath, {1: 1, 2: 1})
        changed = (await ask(command="drain", **one, deadline=300))["changed"]
        assert changed == [["[192.0.2.1]:tcp:80", "[10.0.0.11]:tcp:80"]]
        assert Store(service._store.folder).read_decisions().drains  # before the answer
        await becomes(datapath, {2: 1})
        assert (await ask(command="undrain", **one))["ok"]
        await becomes(datapath, {1: 1, 2: 1})
        names = [event["event"] for event in (await ask(command="events"))["events"]]
        assert names.count("draining") == 1 and names.count("drained") == 1 and "undrained" in names
        page = await ask(command="status")
        assert [one["up"] for one in page["virtual_servers"][0]["real_servers"]] == [True, True]

    with_daemon(tmp_path, story)


def test_who_decides_finds_it_in_the_table(tmp_path: Path) -> None:
    """Even if a round is under way, which knows nothing of it."""

    async def story(ask: Ask, service: Service, datapath: MemoryDatapath) -> None:
        await becomes(datapath, {1: 1, 2: 1})
        one = {"service": "192.0.2.1:80", "real_server": "10.0.0.11"}
        for weight in range(2, 12):
            service._wake.set()
            assert (await ask(command="weight", weight=weight, **one))["ok"]
            assert weights(datapath) == {1: weight, 2: 1}
        assert (await ask(command="weight", weight=None, **one))["ok"]
        assert weights(datapath) == {1: 1, 2: 1}

    with_daemon(tmp_path, story)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"command": "nonsense"}, "knows no command"),
        ({"command": "drain"}, "keeps no virtual server"),
        ({"command": "drain", "service": "192.0.2.1:81", "real_server": "10.0.0.11"}, "keeps no virtual"),
        ({"command": "drain", "service": "192.0.2.1:80", "real_server": "10.0.0.99"}, "has no real server"),
        ({"command": "drain", "service": "192.0.2.1:80", "protocol": "udp"}, "keeps no virtual server"),
        ({"command": "undrain", "service": "192.0.2.1:80", "real_server": "10.0.0.11"}, "is not drained"),
        ({"command": "weight", "service": "192.0.2.1:80", "weight": -1}, "is no weight"),
        ({"command": "drain", "service": "192.0.2.1:80", "deadline": "x"}, "could not convert"),
    ],
)
def test_refusals_change_nothing(tmp_path: Path, request_: dict[str, Any], error: str) -> None:
    async def story(ask: Ask, service: Service, datapath: MemoryDatapath) -> None:
        await becomes(datapath, {1: 1, 2: 1})
        answer = await ask(**request_)
        assert not answer["ok"] and error in answer["error"]
        assert not service.keeper.overrides.drains and not service.keeper.overrides.weights

    with_daemon(tmp_path, story)


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    async def story(ask: Ask, service: Service, datapath: MemoryDatapath) -> None:
        await becomes(datapath, {1: 1, 2: 1})
        service._store.folder = f"{tmp_path}/nowhere"
        answer = await ask(command="drain", service="192.0.2.1:80", real_server="10.0.0.11")
        assert (
            not answer["ok"]
            and "No such file" in answer["error"]
            and "Nothing was changed" in answer["hint"]
        )
        assert not service.keeper.overrides.drains
        service._store.folder = str(tmp_path)

    with_daemon(tmp_path, story)


def test_whoever_asks_for_a_reload_hears_what_came_of_it(tmp_path: Path) -> None:
    async def story(ask: Ask, _service: Service, _datapath: MemoryDatapath) -> None:
        assert await ask(command="reload") == {"ok": False, "error": "it cannot be run", "hint": "Mend it"}
        assert await ask(command="reload") == {"ok": True, "virtual_servers": 1}

    with_daemon(tmp_path, story)


def test_followers_hear_of_what_happens(tmp_path: Path) -> None:
    async def story(_ask: Ask, service: Service, _datapath: MemoryDatapath) -> None:
        reader, writer = await asyncio.open_unix_connection(f"{service._store.folder}/control")
        writer.write(b'{"command": "follow", "last": 0}\n')
        while not service.followers:
            await asyncio.sleep(0.01)
        service.report("something", virtual_server="x", reason=None)
        event = json.loads(await reader.readline())
        assert event["event"] == "something" and "reason" not in event
        writer.write(b"not json\n")
        writer.close()

    with_daemon(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400)]
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds
