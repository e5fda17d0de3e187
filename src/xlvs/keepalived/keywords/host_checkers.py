# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of checkers that look at this host: scripts, files, BFD sessions."""

from __future__ import annotations

from dataclasses import replace

from xlvs.keepalived.checks import (
    BfdCheck,
    Checker,
    Connection,
    FileCheck,
    MiscCheck,
    Schedule,
)
from xlvs.keepalived.configuration import trio
from xlvs.keepalived.drafts import CheckerDraft, RealServerDraft
from xlvs.keepalived.keywords.checker import (
    add_common,
    read_alpha,
)
from xlvs.keepalived.keywords.shapes import flag, number
from xlvs.keepalived.numbers import (
    SECOND,
    UINT_MAX,
    read_int,
)
from xlvs.keepalived.origin import Script
from xlvs.keepalived.scripts import command, find_user, quoted
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import MAX_WEIGHT


class MiscDraft(CheckerDraft):
    """A MISC_CHECK; ``ids`` is False once its user turned out not to exist."""

    __slots__ = ("arguments", "dynamic", "group", "ids", "timeout", "user")

    default_retry = 0
    connects = False

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.arguments: tuple[str, ...] = ()
        self.timeout = 0
        self.dynamic = False
        self.user = ""
        self.group = ""
        self.ids: tuple[int, int] | None = None

    def finish(self, schedule: Schedule, _connection: Connection) -> Checker:
        uid, gid = self.ids or (0, 0)
        script = Script(self.arguments, uid, gid, self.user, self.group, self.position)
        timeout = float(self.timeout) or self.real_server.virtual_server.delay_loop
        return MiscCheck(schedule, script, timeout, self.dynamic, position=self.position)


def _misc_path(checker: MiscDraft, at: Cursor) -> None:
    checker.arguments = command(at, at.escaped_words()) or checker.arguments


def _misc_user(checker: MiscDraft, at: Cursor) -> None:
    shown = quoted(checker.arguments)
    if len(at.words) < 2:
        at.report(f"No user specified for misc checker script {shown}")
        return
    group = at.words[2] if len(at.words) > 2 else ""
    checker.ids = find_user(at, at.words[1], group)
    if checker.ids is None:
        at.report(f"Failed to set uid/gid for misc checker script {shown} - removing")
        at.skip_block(opened=True)
    checker.user, checker.group = at.words[1], group


def _end_of_misc(checker: MiscDraft, at: Cursor) -> None:
    if not checker.arguments:
        at.report("No script path has been specified for MISC_CHECKER - skipping")
        return
    if checker.ids is None:
        checker.ids = checker.real_server.draft.script_user.ids(at)
        if checker.ids is None:
            shown = quoted(checker.arguments)
            at.report(f"Unable to set default user for misc script {shown} - removing")
            return
    checker.real_server.checkers.append(checker)


class FileDraft(CheckerDraft):
    """A FILE_CHECK; ``weight`` None is the tracked file's."""

    __slots__ = ("name", "path", "reverse", "weight")

    connects = False

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.name = ""
        self.path = ""
        self.weight: int | None = None
        self.reverse = False

    def finish(self, schedule: Schedule, _connection: Connection) -> Checker:
        return FileCheck(
            schedule, self.name, self.path, self.weight or 0, self.reverse, position=self.position
        )


def _file_track(checker: FileDraft, at: Cursor) -> None:
    name = at.word(1)
    tracked = checker.real_server.draft.track_files.get(name)
    if tracked is None:
        at.report(f"track_file {name} not found")
    else:
        checker.name, checker.path = name, tracked.path


def _file_weight(checker: FileDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("track file weight missing")
        return
    weight = read_int(at, at.words[1], -MAX_WEIGHT, MAX_WEIGHT)
    if weight is None:
        at.report(f"weight for track file must be in [{-MAX_WEIGHT}..{MAX_WEIGHT}] inclusive. Ignoring...")
        return
    reverse = False
    if len(at.words) >= 3:
        if at.words[2] not in ("reverse", "noreverse"):
            at.report(f"unknown track file weight option {at.words[2]} - ignoring")
            return
        reverse = at.words[2] == "reverse"
    checker.weight, checker.reverse = weight, reverse


def _end_of_file_check(checker: FileDraft, at: Cursor) -> None:
    if not checker.name:
        at.report("FILE_CHECK has no track_file specified - ignoring")
        return
    if checker.weight is None:
        tracked = checker.real_server.draft.track_files[checker.name]
        checker.weight, checker.reverse = tracked.weight, tracked.reverse
    checker.alpha = False  # its state is known at once
    checker.real_server.checkers.append(checker)


class BfdDraft(CheckerDraft):
    """A BFD_CHECK."""

    __slots__ = ("name",)

    connects = False

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.name = ""

    def finish(self, schedule: Schedule, _connection: Connection) -> Checker:
        # A session that goes down has waited long enough: keepalived tries nothing again either.
        return BfdCheck(replace(schedule, retry=0), self.name, position=self.position)


def _bfd_name(checker: BfdDraft, at: Cursor) -> None:
    real_server = checker.real_server
    shown = trio(real_server.address, real_server.port, real_server.virtual_server.protocol)
    name = at.words[1] if len(at.words) > 1 else ""
    if len(at.words) != 2:
        wrong = "BFD_CHECK - No or too many names specified - skipping checker"
    elif name not in real_server.draft.bfd_names:
        wrong = f"BFD_CHECK - BFD {name} not configured"
    elif checker.name:
        wrong = f"BFD_CHECK - BFD {name} already specified as {checker.name}"
    elif name in real_server.bfd_names:
        wrong = f"BFD_CHECK - RS already monitoring {name}"
    else:
        checker.name = name
        return
    at.report(f"({shown}) {wrong}")
    at.skip_block(opened=True)


def _end_of_bfd(checker: BfdDraft, at: Cursor) -> None:
    real_server = checker.real_server
    if not checker.name:
        shown = trio(real_server.address, real_server.port, real_server.virtual_server.protocol)
        at.report(f"({shown}) No name has been specified for BFD_CHECKER - skipping")
        return
    real_server.bfd_names.add(checker.name)
    real_server.checkers.append(checker)


MISC = Section("MISC_CHECK", _end_of_misc)
add_common(MISC, connects=False)
MISC.add("misc_path", _misc_path, "COMMAND", "The script and its arguments, in quotes.")
MISC.add(
    "misc_timeout",
    number("timeout", "Invalid misc_timeout value '{}'", 0, UINT_MAX // SECOND),
    "SECONDS",
    "How long it may take; default: the delay_loop.",
)
MISC.add("misc_dynamic", flag("dynamic"), "", "Exit status 2 to 255 sets the weight to two less.")
MISC.add("user", _misc_user, "USER [GROUP]", "Who runs it; default: script_user.")
FILE = Section("FILE_CHECK", _end_of_file_check)
FILE.add("track_file", _file_track, "NAME", "A track_file of the configuration, before this one.")
FILE.add("weight", _file_weight, "WEIGHT [reverse|noreverse]", "Times the number is added to the weight.")
BFD = Section("BFD_CHECK", _end_of_bfd)
BFD.add("name", _bfd_name, "NAME", "A bfd_instance of the configuration, before this one.")
BFD.add("alpha", read_alpha, "[BOOL]", "The real server counts as failed until the session is up.")
