# SPDX-License-Identifier: GPL-2.0-only
"""Network and mount namespaces: which one is this, and how to visit another."""

from __future__ import annotations

import _thread
import ctypes
import os

from xlvs.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
_AF_INET, _SOCK_DGRAM, _SOL_SOCKET = 2, 2, 1
_SO_NETNS_COOKIE = 71
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own process namespace (kernel: ``PROC_PID_INIT_INO``)."""
_libc = ctypes.CDLL(None, use_errno=True)


def network_cookie() -> int:
    """The number of this thread's network namespace.

    Unlike its inode it is never used again while the machine runs
    (``SO_NETNS_COOKIE``, since Linux 5.14).  Raises `Unavailable` on an older
    kernel.
    """
    # By libc: the socket module alone would take a third of a listing's start-up time.
    cookie, size = ctypes.c_uint64(), ctypes.c_uint32(8)
    probe = _libc.socket(_AF_INET, _SOCK_DGRAM | os.O_CLOEXEC, 0)
    failed = _libc.getsockopt(probe, _SOL_SOCKET, _SO_NETNS_COOKIE, ctypes.byref(cookie), ctypes.byref(size))
    error = ctypes.get_errno()
    if probe >= 0:
        os.close(probe)
    if failed:
        raise Unavailable(
            f"the kernel cannot tell one network namespace from another: {os.strerror(error)}",
            f"xlvs needs Linux 6.1 or later; this is {os.uname().release}.",
        )
    return cookie.value


def set_namespace(fd: int, kind: int) -> None:
    """Move this thread into an open namespace (``os.setns`` is Python 3.12's)."""
    if _libc.setns(fd, kind) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class network_namespace:  # noqa: N801 - used like a function
    """Be in another network namespace for a ``with`` block; ``path`` is its file, as under /run/netns."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._here = -1

    def __enter__(self) -> None:
        self._here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                set_namespace(there, CLONE_NEWNET)
            finally:
                os.close(there)
        except BaseException:
            os.close(self._here)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            set_namespace(self._here, CLONE_NEWNET)
        finally:
            os.close(self._here)


def _parent_of(process: int) -> int:
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            # "pid (name) state ppid ...", and the name may contain anything
            return int(stat.read().rpartition(b")")[2].split()[1])
    except FileNotFoundError as error:
        raise Unavailable(
            "/proc is not mounted, or not for this process namespace",
            "xlvs finds its table by it: mount -t proc proc /proc",
        ) from error


def outermost_process() -> int:
    """Process 1, or where its namespaces are not ours to see, our highest ancestor.

    Reading another process's namespaces needs the right to trace it, which
    even root lacks towards a process with more capabilities.  Raises
    `Unavailable` without /proc.
    """
    process = os.getpid()
    ancestors = []
    while process > 1:  # 0 is a parent outside of our process namespace (nsenter, docker exec)
        ancestors.append(process)
        process = _parent_of(process)
    for process in (1, *reversed(ancestors)):
        try:
            os.stat(f"/proc/{process}/ns/mnt")
            return process
        except OSError:
            continue
    return os.getpid()


def _namespace_files() -> Iterator[str]:
    """Files of the network namespaces that a process or a mount keeps alive."""
    for process in os.listdir("/proc"):
        if process.isdigit():
            yield f"/proc/{process}/ns/net"
    outermost = outermost_process()
    with open(f"/proc/{outermost}/mountinfo") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[fields.index("-") + 1] == "nsfs" and fields[3].startswith("net:"):
                yield f"/proc/{outermost}/root{fields[4]}"


def live_network_cookies() -> set[int]:
    """The cookies of every network namespace that a process or a mount keeps alive.

    Raises `PermissionError` where not all can be seen or entered, as from a
    container: then nobody can say which of them live.
    """
    if os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE:
        raise PermissionError("the processes outside of this process namespace cannot be seen")
    return _in_another_thread(_cookies_of_all)


def _in_another_thread(look: Callable[[], set[int]]) -> set[int]:
    """What a function answers or raises in a thread of its own, which is in the namespaces of the caller.

    /proc/PID/ns/net is that of a process's first thread.  Were that to visit, who ends all
    processes of a namespace (`xlvs lab down`, but not it alone) would take us for one of them.
    """
    answers: list[set[int]] = []
    errors: list[BaseException] = []
    ended = _thread.allocate_lock()

    def answer() -> None:
        try:
            answers.append(look())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.release()

    ended.acquire()
    # Not by threading: to import that takes longer than the look.
    try:
        _thread.start_new_thread(answer, ())
    except RuntimeError as error:
        raise PermissionError(f"no thread may be started that looks into the namespaces: {error}") from error
    ended.acquire()
    if errors:
        raise errors[0]
    return answers[0]


def _cookies_of_all() -> set[int]:
    cookies = {network_cookie()}
    seen = {os.stat("/proc/thread-self/ns/net").st_ino}
    for path in _namespace_files():
        try:
            inode = os.stat(path).st_ino
        except OSError:
            continue  # the process ended meanwhile, or has more privileges than we
        if inode in seen:
            continue
        try:
            with network_namespace(path):
                cookies.add(network_cookie())
        except PermissionError:
            raise
        except OSError:
            continue
        seen.add(inode)
    return cookies


def gone(cookies: set[str]) -> set[str]:
    """Those of the network namespaces, by their cookies in hexadecimal, that have gone.

    Each must have been seen before the call: what is made meanwhile may be missed.  Raises as
    `live_network_cookies` does.
    """
    left = cookies
    for _ in range(2):  # a look may miss one whose processes change, or that has a dead one's inode
        if left:
            left = left - {f"{cookie:x}" for cookie in live_network_cookies()}
    return left
