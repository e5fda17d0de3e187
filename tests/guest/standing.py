# SPDX-License-Identifier: GPL-2.0-only
"""A program that stands ready: each of its command lines costs a fork, not a start.

Under emulation, loading a program and linking it to its libraries takes
longer than most of its commands.  `preload_library`, on the host, compiles
standing.c; `StandingProgram`, in the guest, starts the program with it and
has it carry out command lines, each in a process of its own as ever.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from struct import pack, unpack
from typing import BinaryIO

from .kernel import PrepareError, cache_folder

SOURCE = Path(__file__).with_name("standing.c")
_LONGEST = 1 << 20
"""Bytes of a command's output."""


def preload_library() -> Path:
    """The compiled standing.c, in the guest's cache; raises `kernel.PrepareError`."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = cache_folder() / f"standing-{digest}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    making = library.with_suffix(f".{os.getpid()}")
    command = ["clang", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(making), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrepareError(f"cannot compile {SOURCE.name}:\n{done.stderr}")
    making.rename(library)
    return library


class StandingProgram:
    """A program, started in the caller's network namespace, that waits for command lines."""

    def __init__(self, program: str, preload: Path) -> None:
        # Files in memory for the three streams; every child inherits their places, too.
        self._streams: list[BinaryIO] = [
            os.fdopen(os.memfd_create(name), "r+b", buffering=0) for name in ("stdin", "stdout", "stderr")
        ]
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        inherited = [*(stream.fileno() for stream in self._streams), requests, answers]
        # By way of descriptors that are none of them, so that no move overwrites another's source.
        spare = max(inherited) + 1
        self._process = os.posix_spawnp(
            program,
            [program],
            {**os.environ, "LD_PRELOAD": str(preload), "LD_BIND_NOW": "1"},
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, here, spare + place) for place, here in enumerate(inherited)),
                *((os.POSIX_SPAWN_DUP2, spare + place, place) for place in range(len(inherited))),
                *((os.POSIX_SPAWN_CLOSE, spare + place) for place in range(len(inherited))),
            ],
        )
        os.close(requests)
        os.close(answers)

    def run(self, words: Sequence[str], stdin: str = "") -> tuple[str, str, int]:
        """Carry out a command line: what it wrote, what it complained of, its exit status.

        Raises `RuntimeError` when the program has ended.
        """
        for stream in self._streams:
            stream.seek(0)
            stream.truncate(0)
        given = self._streams[0]
        given.write(stdin.encode())
        given.seek(0)
        text = b"".join(word.encode() + b"\0" for word in words)
        os.write(self._requests, pack("I", len(text)) + text)
        answer = os.read(self._answers, 4)
        if len(answer) < 4:
            said = os.pread(self._streams[2].fileno(), _LONGEST, 0).decode(errors="replace")
            raise RuntimeError(f"the standing program is gone, before {' '.join(words)}: {said}")
        status = os.waitstatus_to_exitcode(unpack("I", answer)[0])
        stdout, stderr = (os.pread(stream.fileno(), _LONGEST, 0).decode() for stream in self._streams[1:])
        return stdout, stderr, status

    def close(self) -> None:
        """Let the program end."""
        os.close(self._requests)
        os.close(self._answers)
        os.waitpid(self._process, 0)
        for stream in self._streams:
            stream.close()
