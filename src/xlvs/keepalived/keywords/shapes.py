# SPDX-License-Identifier: GPL-2.0-only
"""What many keywords do: one value of a usual kind becomes a field of the draft at hand.

A ``complaint`` is keepalived's message for a word that cannot be used: ``{0}``
stands for the word, ``{1}`` for the draft's `label`.  What is complained of
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from xlvs.keepalived.drafts import Fields, RealServerDraft, VirtualServerDraft
from xlvs.keepalived.numbers import TIMER_MAX, UINT_MAX, read_switch, read_timer, read_unsigned
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.statements import Action, Cursor


def flag(field: str, value: object = True) -> Action:
    """A keyword that says something by being there."""

    def action(draft: Fields, _at: Cursor) -> None:
        draft.set(field, value)

    return action


def switch(field: str, complaint: str) -> Action:
    """``KEYWORD [BOOL]``."""
    return _value(field, complaint, read_switch)


def number(
    field: str,
    complaint: str,
    low: int = 0,
    high: int = UINT_MAX,
    *,
    lenient: bool = True,
    least: int | None = None,
    small: str = "{2} must be greater than 0, setting to {0}",
) -> Action:
    """``KEYWORD N``; what is below ``least`` becomes it.

    That is told in the words of ``small``: ``{2}`` is the keyword, ``{0}`` what it becomes.
    """

    def action(draft: Fields, at: Cursor) -> None:
        value = read_unsigned(at, at.word(1), low, high, lenient=lenient)
        if value is None:
            at.report(complaint.format(at.words[1], draft.label))
            return
        if least is not None and value < least:
            at.report(small.format(least, draft.label, at.words[0]))
            value = least
        draft.set(field, value)

    return action


def timer(field: str, complaint: str, low: int = 0, high: int = TIMER_MAX) -> Action:
    """``KEYWORD SECONDS``, with decimals; ``low`` and ``high`` are in microseconds."""
    return _value(field, complaint, lambda at: read_timer(at, at.word(1), low, high))


def word(field: str, missing: str = "", *, alone: bool = False) -> Action:
    """``KEYWORD TEXT``, with nothing after it if ``alone``.

    Without text ``missing`` is reported, or reading ends where that is empty.
    """

    def action(draft: Fields, at: Cursor) -> None:
        if missing and (len(at.words) < 2 or (alone and len(at.words) > 2)):
            at.report(missing)
        else:
            draft.set(field, at.word(1))

    return action


def script(field: str, purpose: str) -> Action:
    """``KEYWORD COMMAND [USER [GROUP]]``; the first one stands."""

    def action(draft: RealServerDraft | VirtualServerDraft, at: Cursor) -> None:
        if getattr(draft, field):
            at.report(f"({draft.label}) {field} script already specified - ignoring {at.word(1)}")
        else:
            draft.set(field, read_script(at, draft.draft.script_user, purpose))

    return action


def of_connection(action: Action) -> Action:
    """The same for a field of a checker's connection."""
    return lambda checker, at: action(checker.connection, at)


def _value(field: str, complaint: str, read: Callable[[Cursor], object]) -> Action:
    def action(draft: Fields, at: Cursor) -> None:
        value = read(at)
        if value is None:
            at.report(complaint.format(at.words[1], draft.label))
        else:
            draft.set(field, value)

    return action
