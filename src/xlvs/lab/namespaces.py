# SPDX-License-Identifier: GPL-2.0-only
"""Named network namespaces, and the processes that live in them.

Names are kept as iproute2 keeps them, under /run/netns, so that ``ip netns``
shows a lab's nodes.  This module only ever touches a name it is given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from xlvs.errors import XlvsError

_FOLDER = Path("/run/netns")
_GRACE = 1.0
_PATIENCE = 10.0


def path(name: str) -> str:
    """The file through which a namespace is entered."""
    return str(_FOLDER / name)


def exists(name: str) -> bool:
    """Is there a living namespace of that name (not merely a file)?"""
    try:
        return _is_namespace(os.stat(path(name)))
    except OSError:
        return False


def with_prefix(prefix: str) -> list[str]:
    """Every name that begins so, living or not."""
    try:
        return sorted(entry for entry in os.listdir(_FOLDER) if entry.startswith(prefix))
    except FileNotFoundError:
        return []


def add(name: str) -> None:
    """Make a namespace.  Raises `XlvsError` with what the system said."""
    made = _ip("netns", "add", name)
    if made.returncode != 0:
        raise XlvsError(
            f"cannot make the network namespace {name}: {made.stderr.strip()}",
            "this needs root and a kernel with CONFIG_NET_NS; in a container also the capability SYS_ADMIN",
        )


def processes(names: list[str]) -> list[int]:
    """The processes in these namespaces.  One that cannot be looked at is not in them."""
    with _held(names) as inodes:
        return [process for process in _all_processes() if _inode(f"/proc/{process}/ns/net") in inodes]


def processes_that_see(folders: list[str]) -> list[int]:
    """The processes, of other mount namespaces than ours, that see what is in these folders elsewhere.

    So are found those of a network namespace that has lost its name.
    """
    views: dict[int | None, bool] = {_inode("/proc/self/ns/mnt"): False, None: False}
    views[_inode("/proc/1/ns/mnt")] = False  # whatever the machine sees of them
    networks = {_inode("/proc/self/ns/net"), _inode("/proc/1/ns/net"), None}
    found = []
    for process in _all_processes():
        view = _inode(f"/proc/{process}/ns/mnt")
        if view not in views:
            views[view] = any(_within(folder, _mounted(process)) for folder in folders)
        # A node has a network of its own: a service with mounts of its own has not.
        if views[view] and _inode(f"/proc/{process}/ns/net") not in networks:
            found.append(process)
    return found


def is_ours(names: list[str]) -> bool:
    """Whether this process is in one of these namespaces."""
    with _held(names) as inodes:
        return _inode("/proc/self/ns/net") in inodes


def delete(names: list[str]) -> None:
    """End every process in these namespaces, then remove them with all that is in them.

    Raises `XlvsError` if a process cannot be ended.
    """
    end_processes(lambda: processes(names))
    for name in names:
        _unmount_and_unlink(name)


def end_processes(find: Callable[[], list[int]]) -> None:
    """End the processes that ``find`` finds, until it finds none.

    They are asked first and have a second to comply.  Raises `XlvsError` if
    one cannot be ended.
    """
    begin = time.monotonic()
    waited = False
    while True:
        living = find()
        if not living:
            return
        elapsed = time.monotonic() - begin
        if elapsed > _PATIENCE:
            raise XlvsError(
                f"these processes in the lab's namespaces do not end: {' '.join(map(str, living))}",
                "see what they wait for: cat /proc/PID/stack; then try again",
            )
        # New ones may appear as long as old ones can fork, hence again and again.
        if elapsed > _GRACE or not waited:
            kind = signal.SIGKILL if elapsed > _GRACE else signal.SIGTERM
            for process in living:
                with suppress(ProcessLookupError):
                    os.kill(process, kind)
                    if kind == signal.SIGTERM:
                        os.kill(process, signal.SIGCONT)  # a stopped one could not hear it
            waited = True
        time.sleep(0.02)


@contextmanager
def _held(names: list[str]) -> Iterator[set[int]]:
    """The inodes of these namespaces, kept open meanwhile.

    The kernel gives the inode of a namespace that has gone to the next one that is made:
    its processes are strangers.
    """
    inodes = set()
    with ExitStack() as opened:
        for name in names:
            try:
                descriptor = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            opened.callback(os.close, descriptor)
            found = os.fstat(descriptor)
            if _is_namespace(found):
                inodes.add(found.st_ino)
        yield inodes


def _is_namespace(found: os.stat_result) -> bool:
    return found.st_dev == os.stat("/proc/self/ns/net").st_dev


def _all_processes() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _inode(file: str) -> int | None:
    """A file's inode; None where it has gone, or is not ours to see."""
    try:
        return os.stat(file).st_ino
    except OSError:
        return None


def _mounted(process: int) -> set[tuple[str, str]]:
    """What a process sees mounted, each as a device and a path within its file system."""
    try:
        with open(f"/proc/{process}/mountinfo") as mounts:
            # number, parent, device, the root within the file system, the mount point, ...
            fields = [line.split(maxsplit=5) for line in mounts]
    except OSError:
        return set()
    # The last one at a point covers the others.
    return set({point: (device, root) for _, _, device, root, point, _ in fields}.values())


def _within(folder: str, mounted: set[tuple[str, str]]) -> bool:
    """Whether one of these is in a folder of /run, which may be a file system of its own.

    A folder of that name in a container is on another device.
    """
    place = folder.removeprefix("/run") + "/"
    device = _device(folder)
    return any(where == device and root.removeprefix("/run").startswith(place) for where, root in mounted)


def _device(folder: str) -> str:
    """The device of a folder, or of the nearest one above it that is there, as mountinfo has it."""
    while True:
        with suppress(OSError):
            device = os.stat(folder).st_dev
            return f"{os.major(device)}:{os.minor(device)}"
        folder = os.path.dirname(folder)


def _unmount_and_unlink(name: str) -> None:
    gone = _ip("netns", "delete", name)
    # A name without a namespace behind it: what a command killed in the middle leaves.
    if gone.returncode != 0 and os.path.exists(path(name)):
        with suppress(FileNotFoundError):
            os.unlink(path(name))


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    # In a session of its own: Ctrl-C on the terminal is for us, to hear when this is done.
    return subprocess.run(
        ["ip", *words], capture_output=True, text=True, check=False, start_new_session=True
    )
