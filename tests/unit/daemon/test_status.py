# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs status` tells of the table as it is, of groups, sorry servers and hand edits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.daemon.examples import VIP, configuration, real_server, rip, sorry, virtual_server
from xlvs.cli.daemon import page
from xlvs.daemon.control import _is_meant
from xlvs.daemon.notify import Notifier
from xlvs.daemon.service import Service as Daemon
from xlvs.daemon.state import Store
from xlvs.daemon.status import status
from xlvs.datapath.memory import MemoryDatapath
from xlvs.keepalived.configuration import Configuration, VirtualServer
from xlvs.keepalived.settings import HandEdits
from xlvs.model import IPV4, TCP, Service, ServiceKey


def shown(daemon: Daemon) -> list[str]:
    """The lines about virtual servers."""
    return page(status(daemon, 1.0, "ebpf"))[3:]


def play(
    folder: Path,
    configured: Configuration,
    story: Callable[[Daemon, MemoryDatapath], Awaitable[None]],
) -> None:
    """Tell a story of a daemon that keeps a table in memory and makes rounds when it is told to."""
    datapath = MemoryDatapath()

    @contextmanager
    def opened(_write: bool) -> Any:
        yield datapath

    async def run() -> None:
        daemon = Daemon(Store(str(folder)), opened, Notifier())
        try:
            await daemon.reload(configured)
            await daemon.round()
            await story(daemon, datapath)
        finally:
            await daemon.stop(leave=True)

    asyncio.run(run())


def test_what_a_round_has_made_is_seen_at_once(tmp_path: Path) -> None:
    server = virtual_server(real_server(1, 3, checked=False), sorry_server=sorry())

    async def story(daemon: Daemon, _datapath: MemoryDatapath) -> None:
        first = shown(daemon)
        assert first[1].startswith("  -> 10.0.0.11:80 ") and first[1].endswith(", weight 3")
        assert first[2].split() == ["->", "10.0.0.109:80", "sorry", "server,", "waits"]
        target = (server.key, (rip(1), 80))
        daemon.set_weight(target, 8)
        await daemon.round()
        assert shown(daemon)[1].endswith(", weight 8, weight 8 by the operator")
        daemon.drain(target, None)
        await daemon.round()
        assert shown(daemon)[1].endswith(", weight 8 by the operator, draining")
        assert ", weight 0, " in shown(daemon)[1] or ", not in the table, " in shown(daemon)[1]
        assert shown(daemon)[2].endswith("sorry server, serves")

    play(tmp_path, configuration(server), story)


def test_who_was_taken_out_by_hand(tmp_path: Path) -> None:
    server = virtual_server(real_server(1, checked=False), real_server(2, checked=False))

    async def story(daemon: Daemon, datapath: MemoryDatapath) -> None:
        datapath.delete_destination(server.services[0].key, rip(1), 80)
        await daemon.round()
        await daemon.round()
        assert shown(daemon)[1].endswith(
            ", not in the table, taken out by hand, until the configuration changes"
        )
        assert "by hand" not in shown(daemon)[2]

    play(tmp_path, configuration(server, policy=HandEdits.ADOPT), story)


def group(count: int) -> VirtualServer:
    """A virtual server of a group with so many addresses, and a mark."""
    keys = [ServiceKey(IPV4, TCP, VIP, 80 + number) for number in range(count)]
    services = tuple(Service(key, "rr") for key in (*keys, ServiceKey(IPV4, fwmark=5)))
    return replace(virtual_server(real_server(1, checked=False)), services=services, group="web")


def test_the_services_of_a_group(tmp_path: Path) -> None:
    async def few(daemon: Daemon, _datapath: MemoryDatapath) -> None:
        assert shown(daemon)[1] == "     TCP 192.0.2.1:80, FWM 5"

    async def many(daemon: Daemon, _datapath: MemoryDatapath) -> None:
        assert shown(daemon)[1].endswith("TCP 192.0.2.1:83 and 3 more")

    play(tmp_path, configuration(group(1)), few)
    play(tmp_path, configuration(group(6)), many)


def test_a_group_is_meant_by_each_of_its_services() -> None:
    for text in ("web", "192.0.2.1:80", "192.0.2.1:81", "FWM:5"):
        assert _is_meant(group(2), text, "")
    for text in ("", "FWM:6", "FWM:", "192.0.2.1:82"):
        assert not _is_meant(group(2), text, "")
