# SPDX-License-Identifier: GPL-2.0-only
"""Scripts as keywords name them: the command, and the user and group that it runs as."""

from __future__ import annotations

from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.origin import Script
from xlvs.keepalived.statements import Cursor
from xlvs.keepalived.words import QuoteError, split_escaped

DEFAULT_USER = "keepalived_script"
"""Who runs scripts that name no user, where there is such a user and no ``script_user``."""


class ScriptUser:
    """Who runs scripts that do not say: ``script_user``, or `DEFAULT_USER`, or the daemon itself.

    It is looked up when it is first needed, as keepalived does: by then
    ``enable_script_security`` is known, under which it must exist.
    """

    def __init__(self) -> None:
        self.name = ""
        self.group = ""
        self.security = False
        self._ids: tuple[int, int] | None = None
        self._failed = False

    @property
    def settled(self) -> tuple[int, int] | None:
        """The uid and gid, if anything has asked for them or named them."""
        return self._ids

    def set(self, at: Cursor, name: str, group: str) -> None:
        """``script_user NAME [GROUP]``."""
        self.name, self.group = name, group
        self._ids = find_user(at, name, group)
        self._failed = self._ids is None
        if self._failed:
            at.report("Error setting global script uid/gid")

    def ids(self, at: Cursor) -> tuple[int, int] | None:
        """The uid and gid; None when there is no such user."""
        if self._ids is None and not self._failed:
            around = at.surroundings
            self._ids = around.user(DEFAULT_USER)
            if self._ids is None and self.security:
                at.report(f"Unable to set default user {DEFAULT_USER} for script")
                self._failed = True
            elif self._ids is None:
                self._ids = (around.uid, around.gid)
        return self._ids


def find_user(at: Cursor, name: str, group: str) -> tuple[int, int] | None:
    """The uid and gid that a statement names; None, noted, when there is no such user or group."""
    ids = at.surroundings.user(name)
    if ids is None:
        at.note(f"Script user '{name}' does not exist: useradd --system --no-create-home {name}")
        return None
    if not group:
        return ids
    gid = at.surroundings.group(group)
    if gid is None:
        at.note(f"Script group '{group}' does not exist: groupadd --system {group}")
        return None
    return ids[0], gid


def command(at: Cursor, words: list[str]) -> tuple[str, ...]:
    """The command in the second word of a statement, split once more; empty when there is none."""
    if len(words) < 2:
        return ()
    try:
        return tuple(split_escaped(words[1]))
    except QuoteError as error:
        at.report(str(error), Severity.UNMATCHED_QUOTE)
        return ()


def quoted(arguments: tuple[str, ...]) -> str:
    """A command as keepalived's messages have it, each word in quotes."""
    return " ".join(f"'{argument}'" for argument in arguments)


def read_script(at: Cursor, default: ScriptUser, kind: str) -> Script | None:
    """``KEYWORD COMMAND [USER [GROUP]]``; None, noted, when it cannot be used."""
    words = at.escaped_words()
    if len(words) == 1:
        at.words = words
        at.word(1)
    arguments = command(at, words)
    if not arguments:
        at.note(f"'{at.words[0]}' has no command that can be read - ignoring")
        return None
    user, group = words[2] if len(words) > 2 else "", words[3] if len(words) > 3 else ""
    ids = find_user(at, user, group) if user else default.ids(at)
    if ids is None:
        what = "Invalid user/group" if user else "Failed to set default user"
        at.note(f"{what} for {kind} script {arguments[0]} - ignoring")
        return None
    return Script(arguments, *ids, user, group, at.position)
