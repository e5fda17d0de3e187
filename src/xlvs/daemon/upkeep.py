# SPDX-License-Identifier: GPL-2.0-only
"""One round of keeping the table: compare, find what others have changed, repair.

A `Round` is a value with all that has to be known, so that it can be run beside the
event loop; what it finds is a `Report`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from xlvs.daemon.desired import Wanted
from xlvs.daemon.health import RealServerKey
from xlvs.daemon.reconcile import Change, Present, Refusal, apply, differences, present
from xlvs.datapath.interface import Datapath
from xlvs.keepalived.settings import HandEdits
from xlvs.model import Destination, Service, ServiceKey

Place = tuple[ServiceKey, RealServerKey | None]
Opener = Callable[[bool], AbstractContextManager[Datapath]]
"""Opens the data plane for reading, or with True for a change, for which it is loaded."""


@dataclass(frozen=True, slots=True)
class Round:
    """What the table shall be (``wanted``), and what this daemon left it as (``applied``).

    ``applied`` is None before the first round.  ``left`` are hand edits that are only
    reported: by their place, what the configuration wanted when they were found.
    ``flush`` removes services of others, too.
    """

    wanted: Wanted
    applied: Wanted | None = None
    owned: frozenset[ServiceKey] = frozenset()
    policy: HandEdits = HandEdits.REPAIR
    left: dict[Place, Service | Destination | None] = field(default_factory=dict)
    flush: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a round has found (``edits``: by others), ``made`` and been ``refused``.

    ``have`` is the table before.  ``left`` and ``applied`` are for the next round.
    """

    have: Present
    edits: list[Change]
    made: list[Change]
    refused: list[Refusal]
    left: dict[Place, Service | Destination | None]
    applied: Wanted


def run(one: Round, open_datapath: Opener) -> Report:
    """Run a round; the data plane is opened for writing only if there is something to write.

    What is wanted otherwise than it was left has to be written: then one look is enough.
    """
    if one.applied is not None and not one.left and one.wanted != one.applied:
        with open_datapath(True) as datapath:
            return perform(one, datapath)
    with open_datapath(False) as datapath:
        have = present(datapath.table())
    report, changes = plan(one, have)
    if not changes:
        return report
    with open_datapath(True) as datapath:
        return perform(one, datapath)


def perform(one: Round, datapath: Datapath) -> Report:
    """Run a round on a table that is open for writing."""
    have = present(datapath.table())
    report, changes = plan(one, have)
    refused = apply(datapath, changes, have) if changes else []
    failed = {(refusal.change.key, refusal.change.place) for refusal in refused}
    report.made.extend(change for change in changes if (change.key, change.place) not in failed)
    report.refused.extend(refused)
    for refusal in refused:
        _undo(report.applied, refusal.change)
    return report


def plan(one: Round, have: Present) -> tuple[Report, list[Change]]:
    """What others have changed, and what has to be done."""
    edits = [] if one.applied is None else differences(have, one.applied)
    owned = have.keys() if one.flush else one.owned
    changes = differences(have, one.wanted, owned)
    left: dict[Place, Service | Destination | None] = {}
    applied = {key: (service, dict(places)) for key, (service, places) in one.wanted.items()}
    if one.policy is not HandEdits.REPAIR and one.applied is not None:
        # Only what is as wanted as it was: what health has changed since is done in any case.
        found = {(change.key, change.place) for change in edits} | one.left.keys()
        kept = []
        for change in changes:
            place = (change.key, change.place)
            before = _wanted_at(one.applied, place) if place not in one.left else one.left[place]
            if place in found and before == change.want:
                left[place] = change.want
                _undo(applied, change)
            else:
                kept.append(change)
        changes = kept
        edits = [change for change in edits if (change.key, change.place) not in one.left]
    return Report(have, edits, [], [], left, applied), changes


def _wanted_at(wanted: Wanted, place: Place) -> Service | Destination | None:
    key, where = place
    if key not in wanted:
        return None
    service, destinations = wanted[key]
    return service if where is None else destinations.get(where)


def _undo(applied: Wanted, change: Change) -> None:
    """Note that a change was not made: the table has what it had."""
    key, place, have, _ = change
    if place is None:
        if isinstance(have, Service):
            applied[key] = (have, applied[key][1] if key in applied else {})
        else:
            applied.pop(key, None)
    elif key in applied:
        if isinstance(have, Destination):
            applied[key][1][place] = have
        else:
            applied[key][1].pop(place, None)
