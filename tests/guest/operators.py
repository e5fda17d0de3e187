# SPDX-License-Identifier: GPL-2.0-only
"""The operator of each director, inside the guest: commands and settings, without starting programs.

Starting a program, and Python above all, takes longer under emulation than
what the program does.  The real ipvsadm stands ready (see `standing`), and
xlvs's commands are called in this process; what they answer is what they
would write.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout
from pathlib import Path

from xlvs.cli import ipvsadm, main
from xlvs.datapath import open_datapath, sysctls
from xlvs.datapath.maps import Maps
from xlvs.datapath.records import seconds_to_ticks, ticks_now
from xlvs.kernel import abi
from xlvs.kernel.bpffs import namespace_folder
from xlvs.model import Timeouts

from .ipvsadm_transcript import format_answer
from .standing import StandingProgram

KERNEL_SETTINGS = "/proc/sys/net/ipv4/vs"
ENTRIES_END = 3
"""Seconds until entries of removed real servers have ended under expire_nodest_conn."""
FORGOTTEN = 125
"""Seconds after which a removed real server without connections is forgotten, in both directors."""

Inside = Callable[[], AbstractContextManager[None]]
"""Gives a ``with`` block in the director's network namespace."""


class KernelOperator:
    """Commands kernel IPVS by the real ipvsadm."""

    def __init__(self, inside: Inside, preload: Path) -> None:
        self._inside = inside
        with inside():
            self._ipvsadm = StandingProgram("ipvsadm", preload)

    def ipvsadm(self, words: Sequence[str], stdin: str = "") -> str:
        """A command's whole answer."""
        return format_answer(*self._ipvsadm.run(words, stdin))

    def sysctl(self, name: str, value: str) -> str:
        """Change a setting of net.ipv4.vs; nothing, or why it was refused."""
        with self._inside():
            try:
                Path(KERNEL_SETTINGS, name).write_text(f"{value}\n")
            except OSError as error:
                return str(error.strerror)
        return ""

    def close(self) -> None:
        """Let go of the director."""
        self._ipvsadm.close()


class XlvsOperator:
    """Commands xlvs by xlvsadm and xlvs."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def ipvsadm(self, words: Sequence[str], stdin: str = "") -> str:
        """A command's whole answer."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with self._inside():
            status = ipvsadm.run(list(words), io.StringIO(stdin), stdout, stderr, open_datapath)
        return format_answer(stdout.getvalue(), stderr.getvalue(), status)

    def sysctl(self, name: str, value: str) -> str:
        """Change a setting of net.ipv4.vs; nothing, or why it was refused."""
        status, _, stderr = self._xlvs("sysctl", f"{name}={value}")
        return stderr if status else ""

    def xlvs(self, *words: str) -> str:
        """What an xlvs command writes; raises `RuntimeError` when it fails."""
        status, stdout, stderr = self._xlvs(*words)
        if status:
            raise RuntimeError(f"xlvs {' '.join(words)}: exit status {status}\n{stderr}")
        return stdout

    def forget(self, wait: Callable[[float], None]) -> bool:
        """Have the loaded director forget all that it was told and has seen; whether its table is empty now.

        `wait` lets seconds of its clock pass.
        """
        with self._inside(), open_datapath(write=True) as datapath:
            datapath.set_sysctls(_defaults() | {"expire_nodest_conn": "1"})
            datapath.flush()
            datapath.set_mark_rules([])
            datapath.set_timeouts(Timeouts())
        wait(ENTRIES_END)
        with self._inside(), open_datapath(write=True) as datapath:
            datapath.set_sysctls(_defaults())
            is_empty = not any(datapath.connections())
            self._age_what_was_removed()
        return is_empty

    @staticmethod
    def _age_what_was_removed() -> None:
        """Have real servers that were removed be gone for long: waiting for that would take a minute."""
        maps = Maps(str(namespace_folder()))
        try:
            long_ago = ticks_now() - seconds_to_ticks(FORGOTTEN)
            for index in range(maps.settings.destinations_top):
                record = maps.destination(index)
                if not record.flags & abi.DESTINATION_AVAILABLE:
                    record.removed = long_ago & 0xFFFFFFFF
        finally:
            maps.close()

    def close(self) -> None:
        """Let go of the director, which stays loaded."""

    def _xlvs(self, *words: str) -> tuple[int, str, str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        with self._inside(), redirect_stdout(stdout), redirect_stderr(stderr):
            status = main.main(words)
        return status, stdout.getvalue(), stderr.getvalue()


Operator = KernelOperator | XlvsOperator


def _defaults() -> dict[str, str]:
    """What nobody has changed of the settings that can be changed."""
    return {name: value for name, value in sysctls.defaults().items() if not sysctls.SYSCTLS[name].refusal}
