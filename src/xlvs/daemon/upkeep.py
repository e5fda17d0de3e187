# SPDX-License-Identifier: GPL-2.0-only
"""One round of keeping the table: compare, find what others have changed, repair.

A `Round` is a value with all that has to be known, so that it can be run beside the
event loop; what it finds is a `Report`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from xlvs.daemon.desired import Wanted
from xlvs.daemon.health import RealServerKey
from xlvs.daemon.reconcile import Change, Present, Refusal, apply, differences, present, some
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
    ``flush`` removes services of others, too.  With ``only`` the round is about these
    services alone, the others are taken to be as they were left.
    """

    wanted: Wanted
    applied: Wanted | None = None
    owned: frozenset[ServiceKey] = frozenset()
    policy: HandEdits = HandEdits.REPAIR
    left: dict[Place, Service | Destination | None] = field(default_factory=dict)
    flush: bool = False
    only: frozenset[ServiceKey] | None = None

    def part(self) -> Round:
        """The same, as if there were no other services."""
        assert self.only is not None
        assert self.applied is not None
        return Round(
            {key: self.wanted[key] for key in self.only if key in self.wanted},
            {key: self.applied[key] for key in self.only if key in self.applied},
            self.owned & self.only,
            self.policy,
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What a round has found (``edits``: by others), ``made`` and been ``refused``.

    ``have`` is the table before, of a round about some services these alone.  ``left`` and
    ``applied`` are for the next round.
    """

    have: Present
    edits: list[Change]
    made: list[Change]
    refused: list[Refusal]
    left: dict[Place, Service | Destination | None]
    applied: Wanted


def changed(wanted: Wanted, applied: Wanted) -> frozenset[ServiceKey]:
    """The services that are wanted otherwise than they were left.

    What has not been computed anew is the same object: most are not compared at all.
    """
    different = {key for key, part in wanted.items() if applied.get(key) is not part}
    return frozenset(
        {key for key in different if wanted[key] != applied.get(key)} | (applied.keys() - wanted.keys())
    )


def run(one: Round, open_datapath: Opener) -> Report:
    """Run a round; the data plane is opened for writing only if there is something to write.

    What is wanted otherwise than it was left has to be written: then one look is enough.
    """
    if one.only is not None:
        assert one.applied is not None
        if not one.only:
            return Report({}, [], [], [], one.left, one.applied)
        with open_datapath(True) as datapath:
            report = perform(one.part(), datapath, one.only)
        others = {key: part for key, part in one.applied.items() if key not in one.only}
        return replace(report, applied={**others, **report.applied})
    if one.applied is not None and not one.left and changed(one.wanted, one.applied):
        with open_datapath(True) as datapath:
            return perform(one, datapath)
    with open_datapath(False) as datapath:
        have = present(datapath.table())
    report, changes = plan(one, have)
    if not changes:
        return report
    with open_datapath(True) as datapath:
        return perform(one, datapath)


def perform(one: Round, datapath: Datapath, only: frozenset[ServiceKey] | None = None) -> Report:
    """Run a round on a table that is open for writing; of some services ``only`` if so said."""
    have = present(datapath.table()) if only is None else some(datapath, only)
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
    owned = have.keys() if one.flush else one.owned
    changes = differences(have, one.wanted, owned)
    if one.applied is None:
        edits = []
    elif changed(one.wanted, one.applied):
        edits = differences(have, one.applied)
    else:
        edits = [change for change in changes if change.key in one.applied]
    left: dict[Place, Service | Destination | None] = {}
    applied = dict(one.wanted)
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
    """Note that a change was not made: the table has what it had.

    What is wanted is shared with those who want it, and stays as it is.
    """
    key, place, have, _ = change
    if place is None:
        if isinstance(have, Service):
            applied[key] = (have, applied[key][1] if key in applied else {})
        else:
            applied.pop(key, None)
    elif key in applied:
        service, places = applied[key]
        if isinstance(have, Destination):
            places = {**places, place: have}
        else:
            places = {where: one for where, one in places.items() if where != place}
        applied[key] = (service, places)
