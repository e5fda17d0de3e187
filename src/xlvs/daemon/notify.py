# SPDX-License-Identifier: GPL-2.0-only
"""Telling the world: scripts, FIFOs and mail, in keepalived's forms (ipwrapper.c, smtp.c, notify.c)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Coroutine
from typing import Any

from xlvs.checkers import script as scripts
from xlvs.daemon.health import DOWN, QUORUM_GAINED, QUORUM_LOST, UP, Event
from xlvs.keepalived.addresses import format_address
from xlvs.keepalived.configuration import Configuration
from xlvs.keepalived.origin import NotifyFifo, Script
from xlvs.keepalived.script_security import Standing, explanation, judge
from xlvs.keepalived.settings import GlobalSettings

_log = logging.getLogger("xlvsd")

_MAILS = 64
"""Mails that are sent at a time."""


class Notifier:
    """Scripts, FIFOs and mail of one configuration at a time."""

    def __init__(self) -> None:
        self._settings = GlobalSettings()
        self._fifos: dict[str, int] = {}
        self._readers: dict[NotifyFifo, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._mails = asyncio.Semaphore(_MAILS)

    # --- configuration -----------------------------------------------------

    def configure(self, configuration: Configuration) -> None:
        """Open this configuration's FIFOs, and start the scripts that read them."""
        self._settings = settings = configuration.settings
        wanted = {fifo.path: fifo for fifo in (settings.notify_fifo, settings.lvs_notify_fifo) if fifo.path}
        for path in self._fifos.keys() - wanted.keys():
            os.close(self._fifos.pop(path))
        for path, fifo in wanted.items():
            if path not in self._fifos:
                try:
                    self._fifos[path] = _open_fifo(fifo)
                except OSError as error:
                    _log.warning("Unable to open notify fifo %s - %s", path, error.strerror)
        for fifo in self._readers.keys() - set(wanted.values()):
            self._readers.pop(fifo).cancel()
        for fifo in wanted.values():
            if fifo.script is not None and fifo not in self._readers:
                self._readers[fifo] = asyncio.create_task(self._keep_reader(fifo, fifo.script))

    async def _keep_reader(self, fifo: NotifyFifo, script: Script) -> None:
        """Run the script that reads a FIFO, again when it has ended."""
        while True:
            try:
                await scripts.finish(await scripts.start(script, fifo.path), None)
                _log.info("notify fifo script %s has ended, starting it again", script.path)
            except OSError as error:
                _log.warning("notify fifo script %s cannot be run: %s", script.path, error)
            await asyncio.sleep(1.0)

    async def close(self, seconds: float) -> None:
        """Let what was begun end, for so many seconds, then end it."""
        for task in self._readers.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for pending in list(self._tasks):
            pending.cancel()
        await asyncio.gather(*self._readers.values(), *self._tasks, return_exceptions=True)
        self._readers = {}
        for descriptor in self._fifos.values():
            os.close(descriptor)
        self._fifos = {}

    # --- events --------------------------------------------------------------

    def tell(self, event: Event, *, stopping: bool = False) -> None:
        """Tell of an event whoever asked for it."""
        server, real_server = event.virtual_server, event.real_server
        if event.kind in (UP, DOWN) and real_server is not None:
            if event.first and event.kind == UP and not self._tells_first(event):
                return
            script = real_server.notify_up if event.kind == UP else real_server.notify_down
            state = "UP" if event.kind == UP else "DOWN"
            self._run(script)
            self._write_fifos(f"RS {server.real_server_name(real_server)} {server.name} {state}\n")
            if real_server.smtp_alert:
                subject = (
                    f"Realserver {server.real_server_name(real_server)} of virtual server {server.name}"
                )
                said = "Shutting down" if stopping else event.reason or state
                self._mail(f"{subject} - {state}", f"=> {said} <=")
        elif event.kind in (QUORUM_GAINED, QUORUM_LOST):
            gained = event.kind == QUORUM_GAINED
            state = "UP" if gained else "DOWN"
            self._run(server.quorum_up if gained else server.quorum_down)
            self._write_fifos(f"VS {server.name} {state}\n")
            if server.smtp_alert:
                said = ("Starting with quorum up" if event.first else "Gained quorum") if gained else (
                    "Starting with quorum down" if event.first else "Lost quorum")  # fmt: skip
                compared = f"{server.quorum}+{server.hysteresis}={event.threshold} <= {event.weights}"
                body = "=> Shutting down <=" if stopping else f"=> {said} {compared} <="
                self._mail(f"Virtualserver {server.name} - {state}", body)

    def _tells_first(self, event: Event) -> bool:
        """Whether a first success is news: only where it was not taken for granted (alpha)."""
        real_server = event.real_server
        assert real_server is not None
        alpha = any(checker.schedule.alpha for checker in real_server.checkers)
        return alpha or self._settings.rs_init_notifies

    def run(self, script: Script | None) -> None:
        """Run a script without waiting for it."""
        self._run(script)

    def _run(self, script: Script | None) -> None:
        if script is None:
            return
        # Judged when the configuration was read, and again: others may have changed it since.
        judgement = judge(script)
        if not judgement.may_run(self._settings.enable_script_security):
            _log.warning("script %s is not run: %s", script.path, explanation(judgement))
            return
        if judgement.standing is Standing.NOT_RUN:
            return
        self._begin(self._run_script(script))

    async def _run_script(self, script: Script) -> None:
        try:
            status = await scripts.finish(await scripts.start(script), None)
        except OSError as error:
            _log.warning("script %s cannot be run: %s", script.path, error)
            return
        if status:
            _log.info("Script %s exited with status %s", script.path, status)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write_fifos(self, line: str) -> None:
        for path, descriptor in self._fifos.items():
            try:
                os.write(descriptor, line.encode())
            except BlockingIOError:
                _log.warning("notify fifo %s is full, nobody reads it: %s is lost", path, line.strip())
            except OSError as error:
                _log.warning("notify fifo %s: %s", path, error.strerror)

    def _mail(self, subject: str, body: str) -> None:
        if self._settings.mail.server and self._settings.mail.recipients:
            name = self._settings.router_id or socket.gethostname()
            self._begin(self._send(f"[{name}] {subject}", body))

    async def _send(self, subject: str, body: str) -> None:
        import email.utils  # it and what mails need are slow to import, and most send none

        from xlvs.daemon import mail

        wanted = self._settings.mail
        sender = wanted.sender or f"keepalived@{socket.gethostname()}"
        text = (
            f"Date: {email.utils.formatdate(localtime=True)}\nFrom: {sender}\nSubject: {subject}\n"
            f"X-Mailer: Keepalived\nTo: {', '.join(wanted.recipients)}\n\n{body}\n"
        )
        try:
            async with self._mails:
                await mail.deliver(wanted, wanted.helo_name or socket.gethostname(), sender, text)
        except mail.MailError as error:
            server = f"{format_address(wanted.server)}:{wanted.server_port}"
            _log.warning("Mail %r could not be sent to %s: %s", subject, server, error)


def _open_fifo(fifo: NotifyFifo) -> int:
    """Open a FIFO for writing without a reader, made where there is none; raises `OSError`."""
    made = False
    with contextlib.suppress(FileExistsError):
        os.mkfifo(fifo.path, 0o600)
        made = True
    place = os.open(fifo.path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.fstat(place)
        if not stat.S_ISFIFO(found.st_mode):
            raise OSError(0, "it is no FIFO")
        uid, gid = (fifo.uid, fifo.gid) if made else (found.st_uid, found.st_gid)
        try:
            descriptor = _open_for_writing(place)
        except PermissionError:
            # Who lacks CAP_DAC_OVERRIDE, as under the systemd unit, opens only what is his own.
            os.chown(f"/proc/self/fd/{place}", os.geteuid(), -1)
            descriptor = _open_for_writing(place)
        os.fchown(descriptor, uid, gid)
        return descriptor
    finally:
        os.close(place)


def _open_for_writing(place: int) -> int:
    # With O_RDWR it can be opened before anybody reads it.
    return os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
