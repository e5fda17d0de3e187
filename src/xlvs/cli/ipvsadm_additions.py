# SPDX-License-Identifier: GPL-2.0-only
"""The usual lines of a restore, quickly: a service that is added, and its real servers right after it.

That is what ``-S`` prints, and tables have 100,000 such lines.  Only the forms
``-A -t V:P OPTIONS`` and ``-a -t V:P -r R:P OPTIONS`` are known here (with
``-u`` and ``--sctp-service``, too), with numeric endpoints.  What OPTIONS mean
is not: the complete parser reads them once, on a whole line, and its answer
holds for all lines with the same options and the same kinds of endpoints.
Whatever else a line is, or if the complete parser objects to it, the complete
parser has it.
"""

from __future__ import annotations

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.address import literal_endpoint
from xlvs.cli.ipvsadm_execute import check_carried
from xlvs.cli.ipvsadm_grammar import CommandLineError
from xlvs.cli.ipvsadm_parse import parse
from xlvs.cli.ipvsadm_restore import words_of
from xlvs.errors import NotSupported
from xlvs.model import ROUTE, SCTP, TCP, TUNNEL, UDP, Destination, Service, ServiceKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.cli.ipvsadm_request import Request

_PROTOCOLS = {"-t": TCP, "-u": UDP, "--sctp-service": SCTP}


class Addition:
    """A service to add, with its real servers: the lines that say so, and what they say.

    ``destinations`` stand as the lines do, the oldest first.
    """

    __slots__ = ("destinations", "lines", "service")

    def __init__(self, line: str, service: Service) -> None:
        self.lines = [line]
        self.service = service
        self.destinations: list[Destination] = []

    def requests(self, program: str) -> list[Request]:
        """What each line asks for by itself."""
        return [parse(words_of(line), program) for line in self.lines]


class Additions:
    """Takes lines one by one and finds those that add a service or its real servers."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._current: Addition | None = None
        self._prefix = ""
        """How lines begin that add a real server to the current service."""
        self._option = ""
        self._services: dict[tuple[object, ...], Service | None] = {}
        self._servers: dict[tuple[object, ...], tuple[bool, Destination] | None] = {}
        # The same values again for lines that say the same: tables share real servers.
        self._destinations: dict[tuple[object, ...], Destination] = {}

    def take(self, line: str) -> Addition | None:
        """What a line begins, or has joined; None for a line that the complete parser has to read.

        Such a line ends the current addition.
        """
        current = self._current
        if current is not None and line.startswith(self._prefix):
            destination = self._destination(current.service, line[len(self._prefix) :])
            if destination is not None:
                current.destinations.append(destination)
                current.lines.append(line)
                return current
        self._current = current = self._begun(line) if line.startswith("-A -") else None
        return current

    def _begun(self, line: str) -> Addition | None:
        parts = line.split(" ", 3)
        if len(parts) < 3 or parts[1] not in _PROTOCOLS:
            return None
        option, text, options = parts[1], parts[2], parts[3] if len(parts) > 3 else ""
        endpoint = literal_endpoint(text)
        if endpoint is None:
            return None
        address, port = endpoint
        kind = (option, len(address), port == 0, options)
        if kind not in self._services:
            self._services[kind] = self._complete_service(line)
        like = self._services[kind]
        if like is None:
            return None
        key = ServiceKey(like.key.family, _PROTOCOLS[option], address, port)
        service = Service(
            key, like.scheduler, like.scheduler_flags, like.persistence, like.netmask, like.engine,
            like.one_packet, like.idle_timeout, like.reject_gone, like.rehome,
        )  # fmt: skip
        self._prefix, self._option = f"-a {option} {text} -r ", option
        return Addition(line, service)

    def _destination(self, service: Service, rest: str) -> Destination | None:
        key = service.key
        known = self._destinations.get((rest, key.port, len(key.address), self._option))
        if known is not None:
            return known
        text, _, options = rest.partition(" ")
        endpoint = literal_endpoint(text)
        if endpoint is None:
            return None
        address, port = endpoint
        kind = (self._option, len(key.address), len(address), options)
        if kind not in self._servers:
            self._servers[kind] = self._complete_server(f"{self._prefix}{rest}")
        found = self._servers[kind]
        if found is None:
            return None
        inherits, like = found
        destination = Destination(
            address, key.port if inherits else port, like.method, like.weight, like.upper_threshold,
            like.lower_threshold, like.tunnel,
        )  # fmt: skip
        self._destinations[rest, key.port, len(key.address), self._option] = destination
        return destination

    def _complete_service(self, line: str) -> Service | None:
        try:
            request = parse(words_of(line), self._program)
            check_carried(request)
            service = request.service()
        except (CommandLineError, NotSupported):
            return None
        return service if request.command == grammar.ADD_SERVICE else None

    def _complete_server(self, line: str) -> tuple[bool, Destination] | None:
        try:
            request = parse(words_of(line), self._program)
            check_carried(request)
        except CommandLineError:
            return None
        # Direct Routing and tunnelling leave the port as it is (`ipvsadm_parse`).
        return request.method in (ROUTE, TUNNEL), request.destination()
