# SPDX-License-Identifier: GPL-2.0-only
"""Scripts as keepalived's rules of security have them: as another user, in a group of their own.

A script that root runs, and that somebody else may change, is refused: `refusal`
names the path, its owner and mode, and the command that mends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import shutil
import signal
import stat

from xlvs.keepalived.origin import Script

_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL, as in keepalived."""


def refusal(script: Script, secure: bool) -> str:
    """Why a script is not to be run, with the command that mends it; empty for one that may be.

    ``secure`` is enable_script_security: what root runs, nobody else may be able to
    change, nor any folder on the way to it (keepalived: check_script_secure()).
    """
    path = shutil.which(script.path) if "/" not in script.path else script.path
    if path is None:
        return f"{script.path}: there is no such program in PATH; write its whole path"
    try:
        found = os.stat(path)
    except OSError as error:
        return f"{path}: {os.strerror(error.errno or 0)}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path}: it is no file that could be run"
    if not _may_run(found, script):
        return f"{path} ({_owner(found)}) cannot be run by {_name(script.uid)}: chmod a+rx {path}"
    if not secure or script.uid != 0:
        return ""
    place = os.path.realpath(path)
    while True:
        found = os.stat(place)
        if found.st_uid != 0:
            return f"{place} ({_owner(found)}) belongs to another than root, who runs it: chown root {place}"
        writable = found.st_mode & (stat.S_IWGRP if found.st_gid else 0) | found.st_mode & stat.S_IWOTH
        if writable and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            others = "can be changed by others than root, who runs it"
            return f"{place} ({_owner(found)}) {others}: chmod go-w {place}"
        if place == "/":
            return ""
        place = os.path.dirname(place)


def _may_run(found: os.stat_result, script: Script) -> bool:
    if script.uid == 0:
        return bool(found.st_mode & 0o111)
    if found.st_uid == script.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == script.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _owner(found: os.stat_result) -> str:
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f"owner {_name(found.st_uid)}:{group}, mode {stat.S_IMODE(found.st_mode):04o}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


async def start(script: Script, *more: str) -> asyncio.subprocess.Process:
    """Start a script with ``more`` arguments, its output to nowhere; raises `OSError`."""
    # Who is not root can run scripts as himself alone.
    change = os.geteuid() == 0
    return await asyncio.create_subprocess_exec(
        *script.arguments,
        *more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        user=script.uid if change else None,
        group=script.gid if change else None,
        extra_groups=[script.gid] if change else None,
    )


async def finish(process: asyncio.subprocess.Process, seconds: float | None) -> int | None:
    """Wait for a script to end; its exit status, below 0 for a signal, None when it took too long.

    One that takes longer than ``seconds`` gets SIGTERM, two seconds later SIGKILL, and
    its children with it.  A cancelled wait ends the script as well.
    """
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        await _end(process)
        return None
    except asyncio.CancelledError:
        _signal(process, signal.SIGKILL)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await process.wait()
    _signal(process, signal.SIGKILL)  # the children that it left, too
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
