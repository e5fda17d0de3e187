# SPDX-License-Identifier: GPL-2.0-only
"""Configurations to keep, as values; and a keeper whose verdicts are a test's."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

from xlvs.checkers.verdict import Verdict
from xlvs.daemon import upkeep
from xlvs.daemon.health import Event
from xlvs.daemon.keeper import Keeper
from xlvs.daemon.reconcile import present
from xlvs.datapath.memory import MemoryDatapath
from xlvs.keepalived.checks import Checker, Connection, Schedule, TcpCheck
from xlvs.keepalived.configuration import Configuration, RealServer, SorryServer, VirtualServer
from xlvs.keepalived.settings import GlobalSettings, HandEdits
from xlvs.model import IPV4, TCP, Destination, Service, ServiceKey

VIP = bytes((192, 0, 2, 1))


def rip(number: int) -> bytes:
    """The address of real server ``number``."""
    return bytes((10, 0, 0, 10 + number))


def tcp_check(number: int, **schedule: Any) -> TcpCheck:
    """A TCP check of real server ``number``."""
    return TcpCheck(Schedule(**schedule), Connection(rip(number), 80))


def real_server(number: int, weight: int = 1, checked: bool = True, **more: Any) -> RealServer:
    """Real server ``number``, with a TCP check unless it is not ``checked``."""
    checkers: tuple[Checker, ...] = (tcp_check(number),) if checked else ()
    more.setdefault("checkers", checkers)
    return RealServer(Destination(rip(number), 80, weight=weight), **more)


def virtual_server(
    *servers: RealServer, port: int = 80, scheduler: str = "wlc", **more: Any
) -> VirtualServer:
    """A virtual server on `VIP`."""
    key = ServiceKey(IPV4, TCP, VIP, port)
    return VirtualServer((Service(key, scheduler),), servers, protocol=TCP, address=VIP, port=port, **more)


def sorry(number: int = 99, **more: Any) -> SorryServer:
    """A sorry server."""
    return SorryServer(Destination(rip(number), 80), **more)


def configuration(
    *servers: VirtualServer, policy: HandEdits = HandEdits.REPAIR, **more: Any
) -> Configuration:
    """A whole configuration."""
    return Configuration(GlobalSettings(hand_edits=policy, **more), servers)


class Bench:
    """A keeper, verdicts that a test gives, and a table in memory."""

    def __init__(self, datapath: MemoryDatapath | None = None, **keeper: Any) -> None:
        self.verdicts: dict[Checker, Verdict] = {}
        self.datapath = datapath or MemoryDatapath()
        self.keeper = Keeper(self._verdict_of, **keeper)
        self.now = 1000.0

    def _verdict_of(self, _server: VirtualServer, _real_server: RealServer, checker: Checker) -> Verdict:
        return self.verdicts.setdefault(checker, Verdict())

    def configure(self, new: Configuration) -> list[Event]:
        """Load a configuration as the daemon does."""
        events = self.keeper.configure(new, present(self.datapath.table()))
        for server in new.virtual_servers:
            for one in server.real_servers:
                for checker in one.checkers:
                    if checker not in self.verdicts:
                        self.verdicts[checker] = self.keeper.believed(checker, [(server, one)])
        return events + self.keeper.settle(self.keeper.unsettled, self.now)

    def settle(self) -> list[Event]:
        """Take all verdicts in."""
        return self.keeper.settle(list(self.keeper.servers), self.now)

    def say(self, number: int, up: bool | None, reason: str = "") -> list[Event]:
        """Let the check of real server ``number`` have this verdict."""
        verdict = self.verdicts[tcp_check(number)]
        verdict.up, verdict.reason = up, reason
        return self.settle()

    def round(self, *, whole: bool = True) -> upkeep.Report:
        """Bring the table to what it should be; if not ``whole``, what is wanted otherwise than before."""
        self.keeper.ramp(self.now)
        one = self.keeper.round(whole=whole)
        report = upkeep.run(one, self._open)
        self.keeper.take(one, report, self.now)
        overrides = self.keeper.overrides
        for target, drain, _ in self.keeper.drained(report.have, self.now) if one.only is None else ():
            overrides = overrides.with_drain(target, drain)
        self.keeper.decide(overrides, self.now)
        return report

    @contextmanager
    def _open(self, write: bool) -> Any:
        del write
        with nullcontext(self.datapath) as datapath:
            yield datapath

    def weights(self, port: int = 80) -> dict[int, int]:
        """The real servers that stand in the table, by number, with their weights."""
        entry = self.datapath.service(ServiceKey(IPV4, TCP, VIP, port))
        return {one.destination.address[3] - 10: one.destination.weight for one in entry.destinations}
