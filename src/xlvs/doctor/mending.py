# SPDX-License-Identifier: GPL-2.0-only
"""Doing what findings say, and taking it back.

Each command is written down with its opposite before it runs, so that even a
mend that was interrupted can be undone: in a file of the lab, or under
/run/xlvs/doctor for the network namespace.  Undoing runs the opposites, the
last first, and forgets each as it succeeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xlvs.doctor.finding import Finding, Mend
from xlvs.errors import XlvsError
from xlvs.kernel import bpffs
from xlvs.kernel.namespaces import network_cookie

ROUNDS = 5
"""How often findings are mended and looked for anew: a mistake may hide another."""

Run = Callable[[str, str], tuple[int, str]]
"""Runs a command in a host's shell: the host's name, the command; gives exit code and output."""
_FOLDER = "/run/xlvs/doctor"
LONGEST = 60
"""Seconds that a mend may take."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ran; ``error`` is what it said if it failed."""

    mend: Mend
    error: str = ""


class Journal:
    """What was mended and not yet undone, the oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Mend]:
        """Every mend.  Raises `XlvsError` where the file is not one that this class wrote."""
        try:
            raw = json.loads(self._path.read_text())
            return [Mend(each["host"], each["command"], each["undo"]) for each in raw]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise XlvsError(
                f"{self._path} cannot be read, so nothing can be undone", "remove it: what was mended stays"
            ) from error

    def write(self, mends: list[Mend]) -> None:
        """Put these in the place of all, whole or not at all; none removes the file."""
        if not mends:
            self._path.unlink(missing_ok=True)
            return
        if not self._path.parent.exists():
            bpffs.make_run_folder(str(self._path.parent))
        new = self._path.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(
                [{"host": m.host, "command": m.command, "undo": m.undo} for m in mends], file, indent=1
            )
        new.replace(self._path)


def journal_here() -> Journal:
    """The journal of this network namespace."""
    return Journal(Path(_FOLDER) / f"{network_cookie():x}.json")


def run_here(_host: str, command: str) -> tuple[int, str]:
    """Run a command on this host, `xlvsadm` and `xlvs` those beside this program if they are not in PATH."""
    own = os.path.dirname(os.path.abspath(sys.argv[0]))
    path = [os.environ.get("PATH", os.defpath), own, "/usr/sbin", "/sbin"]
    try:
        ran = subprocess.run(
            ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=LONGEST, env={**os.environ, "PATH": ":".join(path)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"no end after {LONGEST} seconds"
    return ran.returncode, (ran.stderr or ran.stdout).strip()


def mend(findings: list[Finding], journal: Journal, run: Run) -> list[Done]:
    """Run every command that these findings name, each once; what fails is no reason not to go on."""
    done = []
    for wanted in dict.fromkeys(each for finding in findings for each in finding.mends):
        before = journal.read()
        journal.write([*before, wanted])
        code, said = run(wanted.host, wanted.command)
        if code != 0:
            journal.write(before)
        done.append(Done(wanted, "" if code == 0 else said or f"exit code {code}"))
    return done


def undo(journal: Journal, run: Run) -> list[Done]:
    """Take back everything that was mended, the last first; what cannot be stays in the journal."""
    left = journal.read()
    kept: list[Mend] = []
    done = []
    while left:
        last = left.pop()
        code, said = run(last.host, last.undo) if last.undo else (0, "")
        if code != 0:
            kept.insert(0, last)
        done.append(Done(last, "" if code == 0 else said or f"exit code {code}"))
        with suppress(OSError):
            journal.write([*left, *kept])
    return done
