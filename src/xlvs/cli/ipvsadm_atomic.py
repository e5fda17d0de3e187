# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsadm -R --atomic``: all lines or none, from one packet to the next.

The lines are carried out on a copy of the table in memory; if all of them
can be, the data plane gets the table that came of it in the place of its own.
"""

from __future__ import annotations

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.ipvsadm_execute import execute, needs_write, streams
from xlvs.cli.ipvsadm_request import Request
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import NoSuchService, TableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from xlvs.cli.ipvsadm_additions import Addition
    from xlvs.datapath.interface import Datapath


class LineError(Exception):
    """A line that cannot be carried out: which, what it asks for, and why not."""

    def __init__(self, line: str, request: Request, cause: TableError) -> None:
        super().__init__(str(cause))
        self.line = line
        self.request = request
        self.cause = cause


class Staged:
    """What lines make of a table, tried out on a copy of it."""

    def __init__(
        self, steps: Sequence[tuple[str, Request | Addition]], datapath: Datapath, program: str
    ) -> None:
        """Carry the steps out on a copy, each with its first line; raises `LineError`."""
        self.answers: list[str] = []
        """What the lines print."""
        self._adds = False
        self._requests = [step for _, step in steps if isinstance(step, Request)]
        connections = datapath.connections() if any(map(streams, self._requests)) else ()
        self._copy = MemoryDatapath(datapath.services(), connections)
        self._copy.set_timeouts(datapath.timeouts())
        for line, step in steps:
            if isinstance(step, Request):
                self._execute(line, step)
            else:
                self._adds = True
                self._add(step, program)

    def _execute(self, line: str, request: Request) -> None:
        try:
            self.answers += execute(request, self._copy)
        except TableError as error:
            raise LineError(line, request, error) from error

    def _add(self, addition: Addition, program: str) -> None:
        try:
            self._copy.add_services([(addition.service, addition.destinations[::-1])])
        except TableError:
            for line, request in zip(addition.lines, addition.requests(program), strict=True):
                self._execute(line, request)

    def apply(self, datapath: Datapath) -> None:
        """Put the table that came of it in the place of the data plane's own.

        Raises `TableError` for what only the data plane itself cannot have;
        it has changed nothing then.
        """
        commands = {request.command for request in self._requests if needs_write(request)}
        if self._adds or commands - {grammar.SET, grammar.ZERO}:
            entries = self._copy.services()
            datapath.replace(
                [(entry.service, [one.destination for one in entry.destinations]) for entry in entries]
            )
        if grammar.SET in commands:
            datapath.set_timeouts(self._copy.timeouts())
        for request in self._requests:
            if request.command == grammar.ZERO:
                self._zero(request, datapath)

    @staticmethod
    def _zero(request: Request, datapath: Datapath) -> None:
        try:
            execute(request, datapath)
        except NoSuchService:
            return  # a later line has removed it
