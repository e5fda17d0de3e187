# SPDX-License-Identifier: GPL-2.0-only
"""May a script run?  keepalived's security rules, with what mends a refusal.

The rules (lib/notify.c, check_script_secure()): the file must be there and
executable for the user that runs it.  If that user is root, or the file is
set-uid or set-gid root, nobody else may be able to change what is run: each
folder and file on the path belongs to root and only root, or its group, may
write to it (a folder with the sticky bit may be writable).  With
``enable_script_security`` a script that fails this is refused; without it the
script runs, and the configuration test says so.
"""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xlvs.keepalived.origin import Script

if TYPE_CHECKING:
    from pathlib import PurePosixPath

_DEFAULT_PATH = "/bin:/usr/bin"


class Standing(enum.Enum):
    """What becomes of a script."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    """Others than root can change it; it runs only while script security is off."""
    NOT_FOUND = "not found"
    NOT_EXECUTABLE = "not executable"
    WRONG_TYPE = "wrong type"
    NOT_RUN = "not run"
    """``<FILE``: readable is all that it has to be; nothing is executed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `judge` found.

    ``path`` is the program to execute, found and with its symbolic links
    resolved, but for the name that it is called by.  ``culprit`` is the part
    of it that is wrong, with its ``owner`` and ``mode``; ``remedy`` is the
    command that mends it.
    """

    standing: Standing
    path: str
    culprit: str = ""
    owner: str = ""
    mode: str = ""
    remedy: str = ""
    message: str = ""

    @property
    def is_script(self) -> bool:
        """Something would be executed: it is there, whatever its permissions."""
        return self.standing in (
            Standing.SAFE,
            Standing.UNSAFE,
            Standing.NOT_EXECUTABLE,
            Standing.WRONG_TYPE,
        )

    def may_run(self, security: bool) -> bool:
        """May it run, with script security on or off?"""
        return self.standing in (Standing.SAFE, Standing.NOT_RUN) or (
            self.standing is Standing.UNSAFE and not security
        )


def judge(script: Script) -> Judgement:
    """Find a script and judge it by the user that it runs as.  Looks at files, changes nothing."""
    name = script.path
    if name[:1] == "<" and name[1:].lstrip(" \t")[:1] == "/":
        return Judgement(Standing.NOT_RUN, name[1:].lstrip(" \t"))
    if "/" not in name:
        found = _search(name, script)
        if not found:
            return Judgement(
                Standing.NOT_FOUND,
                name,
                message=f"Cannot find script {name} in path",
                remedy=f"give its full path, as in: {_quote('/usr/local/bin/' + name)}",
            )
        name = found
    path = _resolved(name)
    try:
        status = os.stat(path)
    except OSError as error:
        return Judgement(
            Standing.NOT_FOUND,
            name,
            message=f"Script {name} cannot be accessed - {error.strerror}",
            remedy=f"ls -l {_quote(name)}",
        )
    unreachable = _unreachable(path, script)
    if unreachable:
        return _blame(
            Standing.NOT_FOUND, path, unreachable, f"chmod o+x {_quote(unreachable)}",
            f"Script {path} cannot be reached by uid:gid {script.uid}:{script.gid}",
        )  # fmt: skip
    if not stat.S_ISREG(status.st_mode):
        return _blame(Standing.WRONG_TYPE, path, path, "", f"Wrong file type found in script path '{path}'.")
    if not _executable(status, script):
        return _blame(
            Standing.NOT_EXECUTABLE, path, path, f"chmod a+x {_quote(path)}",
            f"script '{path}' is not executable for uid:gid {script.uid}:{script.gid}",
        )  # fmt: skip
    if not _runs_with_power(status, script):
        return Judgement(Standing.SAFE, path)
    for route in dict.fromkeys((path, os.path.realpath(path))):
        culprit = _unsafe_part(route)
        if culprit:
            remedy = _mending(culprit)
            return _blame(
                Standing.UNSAFE, path, culprit, remedy, f"Unsafe permissions found for script '{path}'"
            )
    return Judgement(Standing.SAFE, path)


def explanation(judgement: Judgement) -> str:
    """A judgement in one line: message, whose fault it is, and the command that mends it."""
    text = judgement.message
    if judgement.culprit:
        text += f": {judgement.culprit} belongs to {judgement.owner} and has mode {judgement.mode}"
    return f"{text}; mend it with: {judgement.remedy}" if judgement.remedy else text


def _search(name: str, script: Script) -> str:
    """A bare name's first executable in PATH, empty for none."""
    for folder in os.environ.get("PATH", _DEFAULT_PATH).split(":"):
        path = os.path.join(folder or ".", name)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode) and _executable(status, script):
            return path
    return ""


def _resolved(name: str) -> str:
    """A path without symbolic links, except that the file keeps the name it is called by if it can."""
    try:
        real = os.path.realpath(name)
    except (OSError, ValueError):
        return name
    called = os.path.join(os.path.dirname(real), os.path.basename(name))
    try:
        return called if os.path.samefile(called, real) else real
    except (OSError, ValueError):
        return real


def _executable(status: os.stat_result, script: Script) -> bool:
    if script.uid == 0:
        return bool(status.st_mode & 0o111)
    if script.uid == status.st_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    bit = stat.S_IXGRP if script.gid == status.st_gid else stat.S_IXOTH
    return bool(status.st_mode & bit)


def _runs_with_power(status: os.stat_result, script: Script) -> bool:
    """Is it root's power that it runs with?"""
    mode = status.st_mode
    return (
        script.uid == 0
        or script.gid == 0
        or (status.st_uid == 0 and bool(mode & stat.S_IXUSR) and bool(mode & stat.S_ISUID))
        or (status.st_gid == 0 and bool(mode & stat.S_IXGRP) and bool(mode & stat.S_ISGID))
    )


def _unreachable(path: str, script: Script) -> str:
    """The first folder on the way that the script's user may not enter; empty for none."""
    if script.uid == 0:
        return ""
    for folder in reversed(_path(path).parents):
        try:
            if not _executable(os.stat(folder), script):
                return str(folder)
        except OSError:
            return str(folder)
    return ""


def _unsafe_part(path: str) -> str:
    """The first part of a path that others than root can change; empty for none."""
    for part in (*reversed(_path(path).parents), _path(path)):
        try:
            status = os.lstat(part)
        except OSError:
            return str(part)
        mode = status.st_mode
        sticky_folder = stat.S_ISDIR(mode) and bool(mode & stat.S_ISVTX)
        counts = (stat.S_ISDIR(mode) and not sticky_folder) or stat.S_ISREG(mode)
        writable = (status.st_gid != 0 and mode & stat.S_IWGRP) or mode & stat.S_IWOTH
        if status.st_uid or (counts and writable):
            return str(part)
    return ""


def _mending(culprit: str) -> str:
    """The command that takes others' power over a file or folder away."""
    quoted = _quote(culprit)
    status = os.lstat(culprit)
    commands = []
    if status.st_uid:
        commands.append(
            f"chown -h root {quoted}" if stat.S_ISLNK(status.st_mode) else f"chown root {quoted}"
        )
    if not stat.S_ISLNK(status.st_mode) and (
        (status.st_gid and status.st_mode & stat.S_IWGRP) or status.st_mode & stat.S_IWOTH
    ):
        commands.append(f"chmod go-w {quoted}")
    return " && ".join(commands)


def _blame(standing: Standing, path: str, culprit: str, remedy: str, message: str) -> Judgement:
    """A judgement with the owner and mode of what is wrong."""
    import grp
    import pwd

    try:
        status = os.lstat(culprit)
    except OSError:
        return Judgement(standing, path, culprit, "?", "?", remedy, message)
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return Judgement(standing, path, culprit, f"{user}:{group}", mode, remedy, message)


def _quote(text: str) -> str:
    from shlex import quote  # slow to import, as pathlib is; most configurations have no scripts

    return quote(text)


def _path(path: str) -> PurePosixPath:
    from pathlib import PurePosixPath

    return PurePosixPath(path)
