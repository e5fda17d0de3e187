# SPDX-License-Identifier: GPL-2.0-only
"""The process of xlvsd: signals, reload, watchdog, one daemon for each network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xlvs.daemon import supervisor
from xlvs.daemon.client import FOLDER, run_folder
from xlvs.daemon.control import Control
from xlvs.daemon.interfaces import InterfaceWatch
from xlvs.daemon.notify import Notifier
from xlvs.daemon.service import CYCLE, Service
from xlvs.daemon.state import Store
from xlvs.daemon.status import status
from xlvs.daemon.upkeep import Opener
from xlvs.datapath import open_datapath
from xlvs.errors import Unavailable, XlvsError
from xlvs.keepalived.configuration import Configuration

_log = logging.getLogger("xlvsd")

_STUCK = 60.0
"""Seconds without a look at the table after which the watchdog is not told that we are alive."""
_FILES = 65536
"""Open files to ask for: each check under way is one."""
_END_SCRIPTS = 5.0

EBPF, KERNEL = "ebpf", "kernel"
"""The data planes: xlvs's own, which a change loads, and kernel IPVS."""

STATS_CLEAR = signal.SIGRTMAX - 1
DATA_FILES = {
    signal.SIGUSR1: "keepalived_check.data",
    signal.SIGUSR2: "keepalived.stats",
    STATS_CLEAR: "keepalived.stats",
    signal.SIGRTMIN + 2: "keepalived.json",
}
"""What signals write, in the folder for temporary files; keepalived's numbers and names."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    ``read`` reads the configuration; it raises `XlvsError` for one that cannot be run.
    ``datapath`` says whose table is kept: `EBPF` or `KERNEL`.
    ``leave_services`` (-I) leaves the table as it is at the end.  ``pid_file`` is empty
    for none.  Without ``bfd`` (-B) no BFD session is kept.
    """

    read: Callable[[], Configuration]
    datapath: str = EBPF
    leave_services: bool = False
    pid_file: str = ""
    bfd: bool = True


def run(options: Options) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code.

    Raises `XlvsError` where it cannot begin: another xlvsd runs in this network
    namespace, the configuration cannot be run, its files cannot be written, or the caller may not.
    """
    from xlvs.kernel.privilege import require_root

    require_root()
    store = Store(run_folder())
    try:
        store.make_folder()
    except OSError as error:
        raise XlvsError(
            f"cannot make the folder {FOLDER}: {error.strerror}",
            "xlvsd keeps there what operators decide: /run must be writable and have room.",
        ) from error
    # Who may not look into other namespaces, as under the systemd unit, leaves their folders alone.
    with contextlib.suppress(PermissionError):
        store.forget_others()
    with _only_one(store.folder), _pid_file(options.pid_file), _loading_ahead(options.datapath):
        _raise_limits()
        return asyncio.run(_Process(options, store).run())


@contextlib.contextmanager
def _loading_ahead(datapath: str) -> Any:
    """Have the kernel verify the packet path while the configuration is read, if nothing is loaded yet."""
    from xlvs.kernel.bpffs import namespace_folder

    if datapath != EBPF or namespace_folder() is not None:
        yield
        return
    from xlvs.datapath.load import ahead

    ahead.begin()
    try:
        yield
    finally:
        ahead.drop()


@contextlib.contextmanager
def _only_one(folder: str) -> Any:
    """Hold the lock of this network namespace's daemon; raises `Unavailable` where one runs."""
    descriptor = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise Unavailable(
                f"xlvsd runs already in this network namespace (process {pid or 'unknown'})",
                "Have it read its configuration anew: kill -HUP " + (pid or "PID"),
            ) from None
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # who comes second is told no number then
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _pid_file(path: str) -> Any:
    if not path:
        yield
        return
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise XlvsError(
            f"cannot write the pid file {path}: {error.strerror}", "Name another one: xlvsd --pid FILE"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _opener(datapath: str) -> Opener:
    """How to open a data plane of that name."""
    if datapath == EBPF:
        return lambda write: open_datapath(write=write, load=write)
    from xlvs.datapath.kernel import open_kernel
    from xlvs.kernel.bpffs import namespace_folder

    if namespace_folder() is not None:
        _log.warning(
            "The packet path of xlvs is loaded here, and takes packets before kernel IPVS does: xlvs detach"
        )
    return open_kernel


def _is_local(address: bytes) -> bool:
    from xlvs.kernel.rtnetlink import LOCAL_ROUTE, route_to

    return route_to(address).kind == LOCAL_ROUTE


@contextlib.contextmanager
def _without_collecting(*, first: bool = False) -> Any:
    """Take a configuration in without the garbage collector, which would walk it again and again.

    A large one is a million objects.  What has come of it stays, and is not walked from then on
    either (gc.freeze()): nothing of it refers back to what it belongs to, so what a later reload
    replaces goes by its reference counts.  A collection walks only what is new; of the ``first``
    configuration all is new, and none of it garbage.
    """
    gc.disable()
    try:
        yield
    finally:
        if not first:
            gc.collect()
        gc.freeze()
        gc.enable()


class _Process:
    def __init__(self, options: Options, store: Store) -> None:
        self._options = options
        self._store = store
        self._started = time.time()
        self._signals: asyncio.Queue[int | asyncio.Future[None]] = asyncio.Queue()
        """Signals, and reloads that somebody waits for, in the order in which they came."""
        self._leave = options.leave_services

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (
            signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, *DATA_FILES,
        ):  # fmt: skip
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        gc.disable()  # until the first round is made, see below
        configuration = self._options.read()
        notifier = Notifier()
        self._service = service = Service(
            self._store, _opener(self._options.datapath), notifier, _is_local, bfd=self._options.bfd
        )
        control = Control(f"{self._store.folder}/control", service, self._status, self._ask_to_reload)
        if configuration.settings.startup_script is not None:
            await self._run_script(
                configuration.settings.startup_script, configuration.settings.startup_script_timeout
            )
        await control.open()
        alive = loop.create_task(self._be_alive())
        interfaces = InterfaceWatch(loop)
        try:
            with _without_collecting(first=True):
                await service.start(configuration)
                await service.kept()
            self._give_up_loading()
            if self._options.datapath == EBPF:
                interfaces.open()
            supervisor.tell("READY=1", self._keeping())
            await self._serve()
            supervisor.tell("STOPPING=1")
            _log.info("Stopping")
        finally:
            alive.cancel()
            await interfaces.close()
            await control.close()
            await service.stop(leave=self._leave)
            settings = service.keeper.configuration.settings
            if settings.shutdown_script is not None:
                await self._run_script(settings.shutdown_script, settings.shutdown_script_timeout)
            await notifier.close(_END_SCRIPTS)
        return 0

    def _give_up_loading(self) -> None:
        """Whoever has no virtual server yet may have none for long: the packet path's memory is freed."""
        if self._options.datapath == EBPF:
            from xlvs.datapath.load import ahead

            ahead.drop()

    def _status(self) -> dict[str, Any]:
        return status(self._service, self._started, self._options.datapath)

    async def _serve(self) -> None:
        while True:
            number = await self._signals.get()
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                # SIGQUIT is what systemd sends for a restart: the next one takes over.
                self._leave = self._leave or number == signal.SIGQUIT
                return
            if isinstance(number, asyncio.Future):
                error = await self._reload()
                if number.done():
                    continue  # whoever asked has gone
                if error is None:
                    number.set_result(None)
                else:
                    number.set_exception(error)
            elif number == signal.SIGHUP:
                await self._reload()
            else:
                self._dump(number)
                if number == STATS_CLEAR:
                    await self._service.zero()

    async def _ask_to_reload(self) -> None:
        """Reload in turn, and wait for it; raises `XlvsError` for a configuration that cannot be run."""
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._signals.put_nowait(asked)
        await asked

    async def _reload(self) -> XlvsError | OSError | None:
        """Go by the configuration as it is now; one that cannot be run changes nothing, and is returned."""
        supervisor.reloading()
        began = time.monotonic()
        failed = ""
        wrong: XlvsError | OSError | None = None
        try:
            configuration = await asyncio.to_thread(self._options.read)
        except (XlvsError, OSError) as error:
            _log.error("The configuration was not reloaded, the one before goes on: %s", error)
            self._service.report("reload failed", reason=str(error))
            failed, wrong = "; the last reload failed, see: xlvsd -t", error
        else:
            with _without_collecting():
                await self._service.reload(configuration)
                await self._service.kept()
            _log.info("Reload finished in %.3f seconds", time.monotonic() - began)
            self._service.report("reloaded")
        supervisor.tell("READY=1", self._keeping() + failed)
        return wrong

    def _keeping(self) -> str:
        """What ``systemctl status`` shows."""
        count = len(self._service.keeper.servers)
        return f"STATUS=Keeping {count} virtual server{'s' * (count != 1)}"

    def _dump(self, number: int) -> None:
        """Write what is known to the file of that signal, as JSON."""
        import tempfile

        folder = self._service.keeper.configuration.settings.tmp_config_directory or tempfile.gettempdir()
        path = os.path.join(folder, DATA_FILES[number])
        content = json.dumps(self._status(), indent=2)
        try:
            # Not through a link that somebody has put there.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(content + "\n")
        except OSError as error:
            _log.warning("%s could not be written: %s", path, error.strerror)
        else:
            _log.info("Printing checker data to %s", path)

    async def _be_alive(self) -> None:
        pause = supervisor.watchdog_seconds()
        while pause is not None:
            if time.monotonic() - self._service.last_round < max(_STUCK, 10 * CYCLE):
                supervisor.alive()
            await asyncio.sleep(pause)

    async def _run_script(self, script: Any, seconds: float) -> None:
        from xlvs.checkers import script as scripts

        try:
            process = await scripts.start(script)
        except OSError as error:
            _log.warning("script %s cannot be run: %s", script.path, error)
            return
        if await scripts.finish(process, seconds) is None:
            _log.warning("script %s took longer than %g s and was ended", script.path, seconds)
