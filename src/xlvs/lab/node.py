# SPDX-License-Identifier: GPL-2.0-only
"""Being in a node: its private files, and running commands as if logged in there.

A process in a node has the node's network namespace, host name, /sys, /etc,
/run/network, /var/lib/xlvs and /var/www/html; everything else is the machine's.  It sees the
machine's /proc and /run, where xlvs keeps its pins.  Nothing has to keep
running for a node to exist: each command makes the view anew.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from xlvs.errors import XlvsError
from xlvs.kernel.namespaces import CLONE_NEWNET, CLONE_NEWNS, set_namespace
from xlvs.lab import namespaces, nginx, own_files
from xlvs.lab.state import Record

_CLONE_NEWUTS = 0x04000000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8
_MNT_DETACH = 0x2
_libc = ctypes.CDLL(None, use_errno=True)

_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_INTERFACES = """\
# interfaces(5) of this node alone.  The lab has given {interface} its address
# already; what is added here can be brought up by ifup(8).
source /etc/network/interfaces.d/*
auto lo
iface lo inet loopback
"""
_RESOLVER = "# A lab has no way out, so no name server either: look-ups fail at once.\n"
_SHELL_STARTUP = """\
[ -f ~/.bashrc ] && . ~/.bashrc
PATH={path}
PS1='[{lab}] \\u@{node}:\\w\\$ '
"""


def prepare(record: Record, name: str, interface: str) -> None:
    """Write a node's private files; what is there already stays."""
    folder = record.node_folder(name)
    own_files.make(folder)
    for each in ("bin", "nginx", "run-network", "var-lib-xlvs", "etc-network/interfaces.d"):
        (folder / each).mkdir(mode=0o755, parents=True, exist_ok=True)
    for each in ("if-pre-up.d", "if-up.d", "if-down.d", "if-post-down.d"):
        (folder / "etc-network" / each).mkdir(exist_ok=True)
    interfaces = folder / "etc-network/interfaces"
    if not interfaces.exists():
        interfaces.write_text(_INTERFACES.format(interface=interface))
    (folder / "resolv.conf").write_text(_RESOLVER)
    path = ":".join(_search_path(folder))
    (folder / "bashrc").write_text(_SHELL_STARTUP.format(path=path, lab=record.name, node=name))
    for command in ("xlvs", "xlvsadm", "xlvsadm-save", "xlvsadm-restore"):
        for typed in {command, command.replace("xlvsadm", "ipvsadm")}:
            link = folder / "bin" / typed
            link.unlink(missing_ok=True)
            link.symlink_to(own_command(command))
    nginx.configure(folder, name)


def own_command(name: str) -> str:
    """The path of ``xlvs`` or ``xlvsadm``, of the same installation as this process."""
    for folder in (Path(sys.executable).parent, Path(sys.argv[0]).parent):
        candidate = folder / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate.absolute())
    found = shutil.which(name)
    if found is None:
        raise XlvsError(f"the command {name} is not installed beside {sys.executable}", "run: make build")
    return found


def enter(record: Record, name: str) -> None:
    """Move this process into a node, for good.

    For a process that will exec, or a child made for this.  Raises `OSError`
    where the system refuses, `XlvsError` where the node is not there.
    """
    namespace = record.namespace(name)
    if not namespaces.exists(namespace):
        raise XlvsError(
            f"the node {name} of the lab {record.name!r} has lost its network namespace",
            "repair the lab by the same command that made it: xlvs lab up …",
        )
    target = os.open(namespaces.path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_namespace(target, CLONE_NEWNET)
    finally:
        os.close(target)
    _check(_libc.unshare(CLONE_NEWNS | _CLONE_NEWUTS), "unshare")
    # What the machine mounts or unmounts later shows here; what is mounted here stays here.
    _mount(None, "/", None, _MS_SLAVE | _MS_REC)
    _libc.umount2(b"/sys", _MNT_DETACH)
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    folder = record.node_folder(name)
    if own_files.etc(folder).is_mount():
        _mount(str(own_files.etc(folder)), "/etc", None, _MS_BIND)
    for private, public in (
        ("etc-network", "/etc/network"),
        ("run-network", "/run/network"),
        ("resolv.conf", "/etc/resolv.conf"),
        ("nginx/pages", "/var/www/html"),
        ("var-lib-xlvs", "/var/lib/xlvs"),
    ):
        # A lab may be older than what its nodes have by now.
        if os.path.exists(public) and (folder / private).exists():
            _mount(str(folder / private), public, None, _MS_BIND)
    socket.sethostname(name)


def environment(record: Record, name: str) -> dict[str, str]:
    """The environment of a command in a node: this one, with the node's commands first in PATH."""
    folder = record.node_folder(name)
    return {
        **os.environ,
        "PATH": ":".join(_search_path(folder)),
        "HOSTNAME": name,
        "XLVS_LAB": record.name,
        "XLVS_NODE": name,
        # iptables-legacy would else wait for the whole machine's lock.
        "XTABLES_LOCKFILE": str(folder / "xtables.lock"),
    }


def replace_process(record: Record, name: str, command: list[str]) -> None:
    """Become this command, in a node: its exit code, signals and terminal are those of this process.

    Raises `XlvsError` if there is no such command; does not return otherwise.
    """
    its_environment = environment(record, name)
    enter(record, name)
    # Python ignores it; a command that writes to `head` should end by it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, its_environment)
    except FileNotFoundError:
        raise XlvsError(
            f"there is no command {command[0]!r} in the node {name}",
            "the lab's packages are installed by: make build",
        ) from None
    except PermissionError:
        raise XlvsError(f"{command[0]!r} is not a program that can be run") from None


def popen(record: Record, name: str, command: list[str], **options: object) -> subprocess.Popen[str]:
    """Start a command in a node; ``options`` are those of `subprocess.Popen`, in text mode.

    Raises `XlvsError` where the node is not there or cannot be entered.
    """
    try:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            command,
            env=environment(record, name),
            text=True,
            start_new_session=True,  # Ctrl-C on the terminal is not for it
            preexec_fn=lambda: enter(record, name),
            **options,
        )
    except subprocess.SubprocessError as error:
        if not namespaces.exists(record.namespace(name)):
            raise XlvsError(f"the node {name} of the lab {record.name!r} has lost its namespace") from error
        raise XlvsError(f"cannot enter the node {name} of the lab {record.name!r}: {error}") from error


def run(record: Record, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a node to its end, its output captured; a failure is the caller's to judge."""
    with popen(
        record, name, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _search_path(folder: Path) -> list[str]:
    inherited = [
        entry
        for entry in os.environ.get("PATH", "").split(":")
        if entry and not entry.startswith(str(folder.parent.parent.parent))
    ]
    return list(dict.fromkeys([str(folder / "bin"), *inherited, *_SYSTEM_PATH]))


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    code = _libc.mount(
        source.encode() if source else None, target.encode(), kind.encode() if kind else None, flags, None
    )
    _check(code, f"mount {target}")


def _check(code: int, what: str) -> None:
    if code != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
