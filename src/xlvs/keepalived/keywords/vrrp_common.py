# SPDX-License-Identifier: GPL-2.0-only
"""What instances and sync groups of VRRP have in common: what they track, and whom they tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from xlvs.keepalived.drafts import Draft, InstanceDraft, SyncGroupDraft
from xlvs.keepalived.keywords.lines import known_interface
from xlvs.keepalived.numbers import read_int
from xlvs.keepalived.redundancy import BfdInstance, Tracked, TrackFile, TrackProcess, TrackScript
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.statements import Action, Cursor, Section

Find = Callable[[Draft, Cursor, str, str], "tuple[int, bool] | None"]
"""What weight is the default for what an owner tracks; None, reported, if there is no such thing."""
Weighted = TrackScript | TrackFile | TrackProcess | BfdInstance
NO_VRRP = (
    "xlvsd runs no VRRP; run `keepalived -P` with the same file beside it: systemctl enable --now xlvs-vrrp"
)


class _Words(NamedTuple):
    """What keepalived says of a weight that it cannot use: an option that is none, a number out of
    range, and a word behind it.  ``{0}`` is what is tracked, ``{1}`` the word."""

    option: str
    weight: str
    further: str


_WORDS = {
    "track_interface": _Words(
        "unknown track_interface {0} option {1}",
        "weight {1} for {0} must be between [-253..253] inclusive. Ignoring...",
        "unknown track_interace {0} weight option {1}",  # so it is spelled
    ),
    "track script": _Words(
        "unknown track script option {1}",
        "track script {0}: weight must be between [-253..253] inclusive, ignoring...",
        "unknown track_script {0} weight option {1}",
    ),
    "track file": _Words(
        "unknown track file option {1}",
        "weight for track file {0} must be in [-254..254] inclusive. Ignoring...",
        "unknown track file {0} weight option {1}",
    ),
    "track process": _Words(
        "unknown track process option {1}",
        "weight for track process {0} must be in [-254..254] inclusive. Ignoring...",
        "unknown track_process {0} weight option {1}",
    ),
    "track bfd": _Words(
        "unknown track bfd {0} option {1}",
        "weight for track bfd {0} must be in [-253..253] inclusive. Ignoring...",
        "unknown track bfd {0} weight option {1}",
    ),
}


def _read_weight(
    at: Cursor, name: str, kind: str, weight: int, reverse: bool, most: int
) -> tuple[int, bool] | None:
    """``[weight N [reverse|noreverse]]`` after what is tracked; None, reported, for what cannot be used."""
    words = at.words
    tracked, said = words[0], _WORDS[kind]
    if len(words) < 2:
        return weight, reverse
    if words[1] != "weight":
        at.report(f"({name}) {said.option.format(tracked, words[1])} - ignoring")
        return None
    if len(words) == 2:
        at.report(f"({name}) weight without value specified for {kind} {tracked} - ignoring")
        return None
    value = read_int(at, words[2], -most, most)
    if value is None:
        at.report(f"({name}) {said.weight.format(tracked, words[2])}")
    elif kind in ("track_interface", "track script") and abs(value) == 254:
        at.report(f"({name}) weight for {tracked} cannot be +/-254. Setting to +/-253")
        weight = 253 if value > 0 else -253
    else:
        weight = value
    if len(words) > 3:
        if words[3] == "reverse":
            reverse = True
        elif words[3] == "noreverse" and kind != "track_interface":
            reverse = False
        else:
            at.report(f"({name}) {said.further.format(tracked, words[3])} - ignoring")
            if kind in ("track file", "track bfd"):
                return None
    return weight, reverse


def _track_lines(
    field: str,
    kind: str,
    find: Find,
    most: int = 254,
) -> Action:
    """A track_* block."""

    def action(owner: InstanceDraft | SyncGroupDraft, at: Cursor) -> None:
        standing: dict[str, Tracked] = getattr(owner.tracking, field)
        for words in at.value_lines():
            name = words[0]
            default = find(owner.draft, at, owner.name, name)
            if default is None:
                continue
            if name in standing:
                at.report(f"({owner.name}) duplicate {kind.replace(' ', '_')} {name} - ignoring")
                continue
            weight = _read_weight(at, owner.name, kind, *default, most)
            if weight is not None:
                standing[name] = Tracked(name, *weight, position=at.position)

    return action


def _find_interface(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
    if known_interface(draft, at, name):
        return 0, False
    at.report(f"({owner}) tracked interface {name} doesn't exist")
    return None


def _find(kind: str, defined: Callable[[Draft], Mapping[str, Weighted]]) -> Find:
    """Finds one of what is ``defined`` in the configuration."""

    def find(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
        found = defined(draft).get(name)
        if found is None:
            at.report(f"({owner}) track {kind} {name} not found, ignoring...")
            return None
        return found.weight, found.reverse

    return find


def _vrrp_sessions(draft: Draft) -> dict[str, BfdInstance]:
    return {name: one for name, one in draft.bfd_instances.items() if one.vrrp}


def add_tracking(section: Section) -> None:
    """Enter the track_* blocks."""
    section.add(
        "track_interface",
        _track_lines("interfaces", "track_interface", _find_interface),
        "{ IF [weight N [reverse]] … }",
        "Interfaces that must be up.",
    )
    section.add(
        "track_script",
        _track_lines("scripts", "track script", _find("script", lambda draft: draft.track_scripts)),
        "{ NAME [weight N [reverse]] … }",
        "vrrp_scripts.",
    )
    section.add(
        "track_file",
        _track_lines("files", "track file", _find("file", lambda draft: draft.track_files)),
        "{ NAME [weight N [reverse]] … }",
        "track_files.",
    )
    section.add(
        "track_process",
        _track_lines("processes", "track process", _find("process", lambda draft: draft.track_processes)),
        "{ NAME [weight N [reverse]] … }",
        "vrrp_track_processes.",
    )
    section.add(
        "track_bfd",
        _track_lines("bfd", "track bfd", _find("bfd", _vrrp_sessions), 253),
        "{ NAME [weight N [reverse]] … }",
        "bfd_instances.",
    )


def notify_script(event: str) -> Action:
    """``KEYWORD COMMAND [USER [GROUP]]`` for an event; the first one stands."""

    def action(owner: InstanceDraft | SyncGroupDraft, at: Cursor) -> None:
        what = f"({owner.name})" if isinstance(owner, InstanceDraft) else f"vrrp group {owner.name}:"
        if event in owner.notifies:
            at.report(f"{what} {at.words[0]} script already specified - ignoring {at.word(1)}")
            return
        script = read_script(at, owner.draft.script_user, "notify")
        if script is not None:
            owner.notifies.add(event)
            owner.scripts[event] = script

    return action


def add_notification(section: Section) -> None:
    """Enter the scripts for changes of state."""
    run = "COMMAND [USER [GROUP]]"
    section.add("notify_backup", notify_script("backup"), run, "Run when it becomes BACKUP.")
    section.add("notify_master", notify_script("master"), run, "Run when it becomes MASTER.")
    section.add("notify_fault", notify_script("fault"), run, "Run when it goes to FAULT.")
    section.add("notify_stop", notify_script("stop"), run, "Run when VRRP stops.")
    section.add(
        "notify", notify_script("any_state"), run, "Run at each change, with what changed as arguments."
    )
