# SPDX-License-Identifier: GPL-2.0-only
"""Where xlvs pins its maps and links: one bpffs, a folder for each network namespace.

The bpffs is mounted at /run/xlvs/bpf in the outermost mount namespace that
can be entered (process 1's, as a rule) and reached through /proc/1/root from
others: ``ip netns exec`` runs its command in a mount namespace of its own, in
which a mount would be lost again.
"""

from __future__ import annotations

import ctypes
import os
from stat import S_ISDIR

from xlvs.errors import NotPermitted, Unavailable
from xlvs.kernel.namespaces import (
    CLONE_NEWNS,
    network_cookie,
    outermost_process,
    set_namespace,
)

MOUNT_POINT = "/run/xlvs/bpf"
_BPF_FS_MAGIC = 0xCAFE4A11
_libc = ctypes.CDLL(None, use_errno=True)


def _is_bpffs(path: str) -> bool:
    # struct statfs begins with f_type, a long; 256 bytes are room for all of it.
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    return int.from_bytes(buffer.raw[:8], "little") == _BPF_FS_MAGIC


def root() -> str | None:
    """The bpffs as this process reaches it, or None where it is not mounted."""
    for path in (f"/proc/{outermost_process()}/root{MOUNT_POINT}", MOUNT_POINT):
        if _is_bpffs(path):
            return path
    return None


def make_run_folder(path: str) -> None:
    """Make a folder in /run/xlvs, root's alone, and /run/xlvs itself, whatever the umask.

    ``path`` is the folder's as this process reaches it.  Raises `OSError`.
    """
    make_folder(os.path.dirname(path), 0o711)
    make_folder(path, 0o700)


def make_folder(path: str, mode: int) -> None:
    """Make a folder of that mode, or give it to the one that there is.  Raises `OSError`."""
    # contextlib would take a listing longer to import than to begin.
    try:  # noqa: SIM105
        os.mkdir(path, mode & 0o700)
    except FileExistsError:
        pass
    if os.lstat(path).st_mode & 0o7777 != mode:
        os.chmod(path, mode)


def _mount_here() -> None:
    make_run_folder(MOUNT_POINT)
    if _is_bpffs(MOUNT_POINT):
        return
    if _libc.mount(b"bpf", MOUNT_POINT.encode(), b"bpf", 0, b"mode=0700") != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), MOUNT_POINT)


def _mount_in_namespace_of(process: int) -> None:
    """Mount in another process's mount namespace, from a child that goes there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            outside = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY)
            set_namespace(outside, CLONE_NEWNS)
            _mount_here()
            status = 0
        except OSError as error:
            status = error.errno if error.errno and error.errno < 255 else 255
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(wait_status)
    if status != 0:
        raise OSError(status, os.strerror(status), MOUNT_POINT)


def mount() -> str:
    """Mount the bpffs if it is not, and return it as this process reaches it.

    Raises `Unavailable` where that is impossible.
    """
    mounted = root()
    if mounted is not None:
        _close_to_others(mounted)
        return mounted
    outermost = outermost_process()
    if outermost == os.getpid() != 1:
        raise Unavailable(
            f"a BPF file system mounted at {MOUNT_POINT} might end with this command: "
            "it may not look at any other process's mount namespace",
            "Run it with all capabilities that process 1 has, or mount it beforehand: "
            f"mkdir -p {MOUNT_POINT} && mount -t bpf -o mode=0700 bpf {MOUNT_POINT}",
        )
    try:
        if os.stat("/proc/self/ns/mnt").st_ino == os.stat(f"/proc/{outermost}/ns/mnt").st_ino:
            _mount_here()
        else:
            _mount_in_namespace_of(outermost)
    except OSError as error:
        raise Unavailable(
            f"cannot mount the BPF file system at {MOUNT_POINT}: {error.strerror}",
            "xlvs keeps its table there. /run must be writable, the kernel must have "
            "CONFIG_BPF_SYSCALL, and in a container the capability SYS_ADMIN is needed.",
        ) from error
    mounted = root()
    if mounted is None:
        raise Unavailable(
            f"mounted a BPF file system at {MOUNT_POINT}, but cannot see it",
            "xlvs reaches it through /proc/1/root, which must be readable.",
        )
    return mounted


def _close_to_others(mounted: str) -> None:
    """Take everybody else's rights from a bpffs that somebody mounted; by default all may write there."""
    if os.stat(mounted).st_mode & 0o077:
        os.chmod(mounted, 0o700)


def namespace_folder() -> str | None:
    """The folder of this network namespace's pins, or None where nothing is loaded.

    Raises `Unavailable` for one that is not root's own.
    """
    mounted = root()
    if mounted is None:
        return None
    folder = f"{mounted}/{network_cookie():x}"
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotPermitted(f"cannot look into {MOUNT_POINT}: {error.strerror}", "Run it as root.") from error
    if found.st_uid != 0 or not S_ISDIR(found.st_mode):
        raise Unavailable(
            f"{outside_path(folder)} is not a folder of root's, so it is not this data plane's",
            f"Somebody else may write to {MOUNT_POINT}. Remove it, after a look at it: rm -r "
            f"{outside_path(folder)}",
        )
    return folder


def outside_path(folder: str) -> str:
    """A folder of pins as processes outside of our mount namespace name it."""
    return f"{MOUNT_POINT}/{os.path.basename(folder)}"


def discard_unfinished() -> None:
    """Remove what a command that died while it loaded left behind in this namespace."""
    import shutil

    mounted = root()
    if mounted is not None:
        shutil.rmtree(f"{mounted}/{network_cookie():x}-new", ignore_errors=True)


def new_namespace_folder() -> str:
    """The path for this network namespace's pins; its parent is there, it is not.

    Raises `Unavailable` where the bpffs cannot be mounted.
    """
    return f"{mount()}/{network_cookie():x}"
