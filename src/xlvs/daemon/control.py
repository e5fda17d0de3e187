# SPDX-License-Identifier: GPL-2.0-only
"""The daemon's door for operators: a Unix socket, root's alone; a JSON object a line, each way.

    {"command": "drain", "service": "10.0.0.1:80", "real_server": "10.0.0.11", "deadline": 300}
    {"ok": true, …}     or     {"ok": false, "error": "…", "hint": "…"}

``follow`` is answered by events, a line each, until the caller hangs up; what changes the table
when the table follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from xlvs.daemon.overrides import Target
from xlvs.daemon.service import Service
from xlvs.errors import UsageError, XlvsError
from xlvs.keepalived.addresses import format_address
from xlvs.keepalived.configuration import RealServer, VirtualServer
from xlvs.model import IPV4, IPV6, MAX_WEIGHT, PROTOCOL_NAMES

_LONGEST_LINE = 64 * 1024
_EVENTS_AHEAD = 1000
"""Events that a follower may be behind before it is let go."""


class Control:
    """The socket and what may be asked by it."""

    def __init__(
        self,
        path: str,
        service: Service,
        status: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        """``reload`` has the configuration read anew; it raises `XlvsError` where that cannot be run."""
        self._path = path
        self._service = service
        self._status = status
        self._reload = reload
        self._server: asyncio.AbstractServer | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen; raises `OSError`."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # of a daemon that died: ours alone, by the lock
            before = os.umask(0o177)
            try:
                listening.bind(self._path)
            finally:
                os.umask(before)
            self._server = await asyncio.start_unix_server(self._caller, sock=listening, limit=_LONGEST_LINE)
        except BaseException:
            listening.close()
            raise

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for caller in list(self._callers):
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    async def _caller(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            while line := await reader.readline():
                await self._answer(line, writer)
        except (ConnectionError, ValueError, asyncio.CancelledError):
            pass  # it has hung up, sends more than a line can have, or we end
        finally:
            self._callers.discard(task)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise UsageError("a request is a JSON object")
            if asked.get("command") == "follow":
                await self._follow(writer, int(asked.get("last", 0)))
                return
            if asked.get("command") == "reload":
                await self._reload()
                answer: dict[str, Any] = {"ok": True, "virtual_servers": len(self._service.keeper.servers)}
            else:
                answer = {"ok": True, **self._do(asked)}
                if "changed" in answer:
                    await self._service.kept()
        except XlvsError as error:
            answer = {"ok": False, "error": error.message, "hint": error.hint}
        except OSError as error:  # it is written down before anything else
            answer = {
                "ok": False,
                "error": f"it could not be written down: {error.strerror}",
                "hint": "Nothing was changed. /run, where xlvsd keeps it, must be writable and have room.",
            }
        except (ValueError, TypeError) as error:
            answer = {"ok": False, "error": str(error), "hint": ""}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()

    async def _follow(self, writer: asyncio.StreamWriter, last: int) -> None:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_EVENTS_AHEAD)
        self._service.followers.add(queue)
        try:
            events = list(self._service.events)
            for event in events[-last:] if last else []:
                writer.write(json.dumps(event).encode() + b"\n")
            while queue in self._service.followers:
                await writer.drain()
                writer.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            self._service.followers.discard(queue)

    def _do(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked.get("command"):
            case "status":
                return self._status()
            case "events":
                return {"events": list(self._service.events)}
            case "drain":
                seconds = asked.get("deadline")
                if seconds is not None and not 0 <= float(seconds) <= 10**9:
                    raise UsageError(f"{seconds} is no deadline")
                targets = self._targets(asked)
                for target in targets:
                    self._service.drain(target, None if seconds is None else float(seconds))
            case "undrain":
                targets = self._targets(asked)
                for target in targets:
                    if target not in self._service.keeper.overrides.drains:
                        names = self._service.names(target)
                        raise UsageError(f"{names[1]} of {names[0]} is not drained")
                for target in targets:
                    self._service.undrain(target)
            case "weight":
                weight = asked.get("weight")
                if weight is not None and not (isinstance(weight, int) and 0 <= weight <= MAX_WEIGHT):
                    raise UsageError(f"{weight} is no weight")
                targets = self._targets(asked)
                for target in targets:
                    self._service.set_weight(target, weight)
            case other:
                raise UsageError(f"xlvsd knows no command {other!r}")
        return {"changed": [list(self._service.names(target)) for target in targets]}

    # --- what an operator means ------------------------------------------------

    def _targets(self, asked: dict[str, Any]) -> list[Target]:
        """The real servers that are meant; raises `UsageError` for none."""
        service, real_server = str(asked.get("service", "")), str(asked.get("real_server", ""))
        protocol = str(asked.get("protocol", "")).upper()
        servers = [one for one in self._service.keeper.servers.values() if _is_meant(one, service, protocol)]
        if not servers:
            raise UsageError(
                f"xlvsd keeps no virtual server {service}{' of ' + protocol if protocol else ''}",
                "Those that it keeps: xlvs status",
            )
        if len({one.protocol for one in servers}) > 1:
            names = ", ".join(PROTOCOL_NAMES.get(one.protocol, "?") for one in servers)
            raise UsageError(f"there is a {service} of {names}", "Say which: --tcp, --udp or --sctp")
        targets = [
            (server.key, one.key)
            for server in servers
            for one in server.real_servers
            if real_server in _names(one)
        ]
        if not targets:
            raise UsageError(
                f"{servers[0].name} has no real server {real_server}",
                "It has " + (", ".join(one for one in _all_names(servers[0])) or "none"),
            )
        return targets


def _is_meant(server: VirtualServer, text: str, protocol: str) -> bool:
    if protocol and PROTOCOL_NAMES.get(server.protocol) != protocol:
        return False
    marks = [f"FWM:{service.key.fwmark}" for service in server.services if service.key.fwmark]
    if text and text in (server.name, server.group, *marks):
        return True
    place = parse_place(text)
    return place is not None and any(
        (service.key.address, service.key.port) == place
        for service in server.services
        if not service.key.fwmark
    )


def _names(real_server: RealServer) -> Iterator[str]:
    address, port = format_address(real_server.destination.address), real_server.destination.port
    yield address
    yield f"{address}:{port}"
    yield f"[{address}]:{port}"
    yield f"[{address}]"


def _all_names(server: VirtualServer) -> Iterator[str]:
    for one in server.real_servers:
        yield f"{format_address(one.destination.address)}:{one.destination.port}"


def parse_place(text: str) -> tuple[bytes, int] | None:
    """ADDRESS:PORT as bytes and number; None for what is none.  An IPv6 address stands in brackets."""
    address, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    bracketed = address.startswith("[") and address.endswith("]")
    try:
        packed = socket.inet_pton(IPV6 if bracketed else IPV4, address[1:-1] if bracketed else address)
    except OSError:
        return None
    return packed, int(port)
