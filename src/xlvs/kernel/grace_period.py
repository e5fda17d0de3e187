# SPDX-License-Identifier: GPL-2.0-only
"""RCU's grace periods made short while many interfaces are attached or let go.

tcx waits for one at each change of a hook (tcx_entry_sync(), include/net/tcx.h), and holds the
lock of all network configuration meanwhile, so that several threads would wait one after the
other.  A wait takes 5 to 20 ms of sleep: with 600 interfaces, two hooks each, 20 seconds.
The kernel itself expedites the waits of network configuration (synchronize_net()), but not these.

/sys/kernel/rcu_expedited has all waits expedited, for which CPUs that are neither idle nor in a
``nohz_full`` process are interrupted.  It is the machine's, so it is changed for as long as
many hooks are, and put back: also when SIGTERM or SIGHUP ends us meanwhile, and after SIGKILL
by the next one that attaches or detaches.  Whoever wants no expedited waits (``rcu_normal``, the
default with PREEMPT_RT) gets none: the kernel puts that first.
"""

from __future__ import annotations

import fcntl
import os

from xlvs.kernel.bpffs import make_run_folder
from xlvs.kernel.namespaces import outermost_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

SETTING = "/sys/kernel/rcu_expedited"
FOLDER = "/run/xlvs/hurry"
MANY = 64
"""Interfaces from which on it is worth it: fewer are done in a second or two."""

_MARK = "rcu_expedited"


class Hurry:
    """For a ``with`` block in which the hooks of so many interfaces are changed.

    The mark, a locked file, says that the setting is ours; where nobody has it locked, it is to be
    put back.  Where that cannot be written (a container), waits take as long as they do.
    """

    def __init__(self, interfaces: int) -> None:
        self._worth_it = interfaces >= MANY
        self._path = f"/proc/{outermost_process()}/root{FOLDER}/{_MARK}"
        self._mark = -1
        self._minded: list[int] = []

    def __enter__(self) -> None:
        left_behind = os.path.exists(self._path)
        if not (self._worth_it or left_behind):
            return
        try:
            if left_behind or _read() == "0":
                self._begin(left_behind)
        except OSError:
            pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self, left_behind: bool) -> None:
        make_run_folder(os.path.dirname(self._path))
        mark = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.stat(self._path), os.fstat(mark)):
                raise FileNotFoundError(self._path)  # somebody has just ended
        except OSError:  # somebody is at it: theirs does for us as well
            os.close(mark)
            return
        self._mark = mark
        self._mind_signals()
        try:
            _write("1" if self._worth_it else "0")
        except OSError:  # read-only, so it was not changed now
            if not left_behind:
                os.unlink(self._path)
            os.close(mark)
            self._mark = -1
            self._leave_signals()

    def _end(self) -> None:
        if self._mark < 0:
            return
        try:
            _write("0")
            os.unlink(self._path)
        except OSError:
            pass  # it is for the next one to put back
        os.close(self._mark)
        self._mark = -1
        self._leave_signals()

    def _mind_signals(self) -> None:
        """Signals that would end us at once do so after it is put back."""
        import signal

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                try:
                    signal.signal(number, self._die)
                except ValueError:  # not in the first thread: of xlvsd, which no signal ends at once
                    return
                self._minded.append(number)

    def _leave_signals(self) -> None:
        import signal

        while self._minded:
            signal.signal(self._minded.pop(), signal.SIG_DFL)

    def _die(self, number: int, _frame: FrameType | None) -> None:
        import signal

        self._end()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _read() -> str:
    with open(SETTING, encoding="ascii") as file:
        return file.read().strip()


def _write(text: str) -> None:
    with open(SETTING, "w", encoding="ascii") as file:
        file.write(text)
