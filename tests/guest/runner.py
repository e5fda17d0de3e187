# SPDX-License-Identifier: GPL-2.0-only
"""Boots the guest and runs commands in it.

The guest is a whole Linux under emulation (QEMU without KVM).  It has the
host's files, read-only with a layer in its own memory over them, so every
program, virtual environment and source tree of the host is there at its
usual path and nothing that the guest writes reaches the host; only the
folder ``$GUEST_OUTPUT`` comes back.  It has no network device but loopback.

Use `Guest` as a context manager; one boot serves any number of commands.
Nothing here asks for root, but the guest sees only those of the host's files
which the caller may read.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .kernel import DEFAULT_PACKAGE, GuestFiles, prepare

AGENT_SCRIPT = Path(__file__).with_name("agent.sh")
BOOT_TIMEOUT = 120.0
"""Seconds; a boot takes about five on an idle machine."""
CONSOLE_TAIL = 80
"""Lines of the console that a failure shows: a panic with its trace."""

GUEST_EXCHANGE = "/run/guest/exchange"
KERNEL_OPTIONS = (
    # oops=panic and panic=-1: a kernel that stumbles ends the emulator at once, its trace on the console.
    "console=ttyS0 quiet oops=panic panic=-1 mitigations=off audit=0 apparmor=0 random.trust_cpu=on"
    # 112 is rep_good: the kernel then copies by loops of moves.  See PROCESSOR.
    " clearcpuid=112 init_on_alloc=0"
)
PROCESSOR = "max,-erms,-fsrm,-la57,-smap"
"""All that the emulator can, but for what is slow under emulation.

A string instruction costs a translated block for each byte or word, and the
verifier copies a lot: without them (erms, fsrm) a data plane loads in 40 % of
the time.  A fifth level of page tables and the switching of SMAP cost, too.
"""


class GuestError(Exception):
    """The guest did not boot, panicked, hung, or is no longer there; shows its console's end."""


class GuestTimeout(GuestError):
    """A command took longer than it was given; the guest has been switched off."""


@dataclass(frozen=True, slots=True)
class GuestResult:
    """What a command in the guest left behind."""

    exit_code: int
    """As a shell gives it: 128 + N for a command killed by signal N."""
    stdout: str
    stderr: str
    console: str
    """Everything that the guest's kernel has written to its console since the boot."""
    output_dir: Path
    """The files that the command wrote into $GUEST_OUTPUT; goes away with the guest."""

    def check(self) -> Self:
        """Return the result itself, or raise `GuestError` when the command failed."""
        if self.exit_code:
            raise GuestError(f"exit status {self.exit_code} in the guest\n{self.stdout}{self.stderr}")
        return self


class Guest:
    """A running guest.

    `cpus` and `memory` (MiB) are the guest's.  `icount` ties its clock to the
    instructions that it executes and lets it leap when idle: hundreds of
    seconds of waiting pass in a few.  The clock then has nothing to do with
    the host's, and leaps whenever the guest waits for a file of the host, too:
    keep it busy where that would matter.  Between commands the guest stands
    still.  `package` names the Debian kernel package to boot.
    """

    def __init__(
        self,
        *,
        cpus: int = 2,
        memory: int = 2048,
        icount: bool = False,
        package: str = DEFAULT_PACKAGE,
    ) -> None:
        self._cpus = cpus
        self._memory = memory
        self.icount = icount
        self._package = package
        self._jobs = 0
        self._pending = b""
        self._failure = ""
        self._emulator: subprocess.Popen[bytes] | None = None
        self._exchange: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it would take a command."""
        return self._emulator is not None and self._emulator.poll() is None

    def start(self) -> None:
        """Boot, anew if the guest has been running; returns when it takes commands.

        Raises `kernel.PrepareError` when there is nothing to boot, `GuestError`
        when it does not come up.
        """
        self.stop()
        self._jobs, self._pending, self._failure = 0, b"", ""
        files = prepare(self._package)
        self._exchange = Path(tempfile.mkdtemp(prefix="xlvs-guest-"))
        try:
            shutil.copy(AGENT_SCRIPT, self._exchange / "agent.sh")
            places = {"modules": files.modules, "tools": files.tools}
            lines = (f"{name}={shlex.quote(str(path.resolve()))}\n" for name, path in places.items())
            (self._exchange / "places").write_text("".join(lines))
            self._emulator = self._launch(files, self._exchange)
            self._expect("ready", time.monotonic() + BOOT_TIMEOUT, "booting")
            self._rest()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Switch the guest off and drop its exchange folder; harmless when it is off already."""
        self._power_off("the guest has been stopped")
        if self._exchange:
            shutil.rmtree(self._exchange, ignore_errors=True)
            self._exchange = None

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        timeout: float = 60.0,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        live: bool = False,
    ) -> GuestResult:
        """Run a command in the guest and wait for it.

        `directory` (default: the caller's) and the paths in `command` are the
        host's, which the guest shares; PATH is the guest's own.  `live` copies
        the output to this process's stdout and stderr while it comes.
        Raises `GuestTimeout` after `timeout` seconds of the host's clock, and
        `GuestError` when the guest dies meanwhile or is already gone.
        """
        if self._emulator is None or self._exchange is None:
            raise GuestError(f"no guest to run {os.fspath(command[0])} in: {self._failure or 'not started'}")
        self._jobs += 1
        job = self._exchange / str(self._jobs)
        output = job / "output"
        output.mkdir(parents=True)
        variables = {"GUEST_OUTPUT": f"{GUEST_EXCHANGE}/{self._jobs}/output", **(environment or {})}
        script = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        script.append(f"cd {shlex.quote(os.path.abspath(directory or os.getcwd()))} || exit 125")
        script.append(f"exec {shlex.join(os.fspath(word) for word in command)}")
        (job / "command").write_text("\n".join(script) + "\n")
        (job / "stdin").write_text(stdin)
        streams = (_Follower(job / "stdout", 1), _Follower(job / "stderr", 2)) if live else ()

        if self.icount:
            self._emulator.send_signal(signal.SIGCONT)
        self._send(f"{self._jobs}\n")
        line = self._expect(
            f"done {self._jobs} ", time.monotonic() + timeout, f"running {os.fspath(command[0])}", streams
        )
        for stream in streams:
            stream.copy()
        self._rest()
        return GuestResult(
            exit_code=int(line.rsplit(" ", 1)[1]),
            stdout=_text(job / "stdout"),
            stderr=_text(job / "stderr"),
            console=self.console(),
            output_dir=output,
        )

    def run_script(
        self,
        script: str,
        *,
        timeout: float = 60.0,
        stdin: str = "",
        directory: str | os.PathLike[str] | None = None,
    ) -> GuestResult:
        """Run a bash script given as text, which ends at its first failing command; else as `run`."""
        command = ["/bin/bash", "-euo", "pipefail", "-c", script]
        return self.run(command, timeout=timeout, stdin=stdin, directory=directory)

    def console(self) -> str:
        """What the guest's kernel has written to its console."""
        if self._exchange is None:
            return ""
        return _text(self._exchange / "console").replace("\r", "")

    def _launch(self, files: GuestFiles, exchange: Path) -> subprocess.Popen[bytes]:
        clock = ["-accel", "tcg,thread=multi"]
        if self.icount:
            clock = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
        share = "security_model=none,multidevs=remap"
        (exchange / "console").touch()
        command = [
            # Dies with us even when we are killed without a chance to clean up.
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-nic", "none", "-cpu", PROCESSOR, "-smp", str(self._cpus), "-m", str(self._memory), *clock,
            "-kernel", str(files.kernel), "-initrd", str(files.initramfs), "-append", KERNEL_OPTIONS,
            "-chardev", f"file,id=console,path={exchange / 'console'}", "-serial", "chardev:console",
            "-chardev", "stdio,id=control,signal=off", "-serial", "chardev:control",
            "-virtfs", f"local,path=/,mount_tag=hostroot,readonly=on,{share}",
            "-virtfs", f"local,path={exchange},mount_tag=exchange,{share}",
        ]  # fmt: skip
        if shutil.which("qemu-system-x86_64") is None:
            raise GuestError("qemu-system-x86_64 is missing: install the package qemu-system-x86")
        with open(exchange / "emulator", "wb") as complaints:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for us; we switch the guest off
            )

    def _rest(self) -> None:
        """Hold the emulator still between commands if it would burn a processor by leaping through time."""
        if self.icount and self._emulator:
            self._emulator.send_signal(signal.SIGSTOP)

    def _send(self, text: str) -> None:
        assert self._emulator is not None and self._emulator.stdin is not None
        try:
            self._emulator.stdin.write(text.encode())
        except BrokenPipeError:
            raise self._dead("taking a command") from None

    def _expect(self, start: str, deadline: float, doing: str, streams: Sequence[_Follower] = ()) -> str:
        """Wait for a line from the agent that begins with `start`."""
        assert self._emulator is not None and self._emulator.stdout is not None
        control = self._emulator.stdout
        try:
            while True:
                for stream in streams:
                    stream.copy()
                line, newline, rest = self._pending.partition(b"\n")
                if newline:
                    self._pending = rest
                    text = line.decode(errors="replace").strip()
                    if text.startswith(start):
                        return text
                    continue
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise self._dead(doing, timed_out=True)
                if select.select([control], [], [], min(remaining, 0.1 if streams else remaining))[0]:
                    received = os.read(control.fileno(), 4096)
                    if not received:
                        raise self._dead(doing)
                    self._pending += received
        except BaseException as error:
            # Interrupted in the middle of a command, the guest is of no more use.
            self._power_off(f"the guest was given up while {doing} ({type(error).__name__})")
            raise

    def _dead(self, doing: str, *, timed_out: bool = False) -> GuestError:
        """Build the error for a guest that stopped answering; its console is read before it goes."""
        assert self._exchange is not None
        tail = "\n".join(self.console().splitlines()[-CONSOLE_TAIL:]) or "(nothing)"
        complaints = _text(self._exchange / "emulator").strip()
        what = f"the guest took too long {doing}" if timed_out else f"the guest died while {doing}"
        for name in ("stdout", "stderr"):
            lines = _text(self._exchange / str(self._jobs) / name).splitlines()[-CONSOLE_TAIL:]
            what += "".join(f"\n{name}: {line}" for line in lines)
        message = f"{what}\n{complaints}\nThe end of its console:\n{tail}"
        return GuestTimeout(message) if timed_out else GuestError(message)

    def _power_off(self, reason: str) -> None:
        emulator, self._emulator = self._emulator, None
        if emulator is None:
            return
        self._failure = reason
        # Nothing is lost: the exchange folder is written through, all else is memory.
        emulator.kill()
        for pipe in (emulator.stdin, emulator.stdout):
            if pipe:
                pipe.close()
        emulator.wait()


def _text(path: Path) -> str:
    """What a file holds, line ends as they are; nothing when it is not there."""
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return ""


class _Follower:
    """Copies a growing file to one of our own descriptors."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._position = 0

    def copy(self) -> None:
        if not self._path.exists():
            return
        with open(self._path, "rb") as stream:
            stream.seek(self._position)
            content = stream.read()
        self._position += len(content)
        while content:
            content = content[os.write(self._descriptor, content) :]
