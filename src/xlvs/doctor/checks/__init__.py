# SPDX-License-Identifier: GPL-2.0-only
"""The mistakes that the doctor knows, a module for each.

A check is a module here with

* a docstring, which is its text in docs/doctor.md: the first line says the
  mistake, the rest why it is one and what the doctor looks at;
* ``RANK``, its place in the order of how often the mistake is made;
* ``examine(cluster)``, which yields a `Finding` for each such mistake;
* ``SCENARIOS``, commands that make this very mistake in a lab, and take it
  back.  A test plays each: break, found, mended, undone, restored.

A mistake that no lab can show has an empty ``SCENARIOS``, and says in ``WHY_NO_SCENARIO`` why.

That is all there is to adding one.  The check's name is its module's, with
hyphens.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from xlvs.doctor.cluster import Cluster
from xlvs.doctor.finding import Finding


@dataclass(frozen=True, slots=True)
class Scenario:
    """How to make a mistake in a lab of that topology; ``dr6`` is ``dr`` with the VIP of IPv6 served, too.

    ``breaks`` and ``restores`` are (node, command) as typed there; ``hosts``
    are those on which the check then finds something.  The node ``switch`` is
    the one behind all wires.  Where no command mends it, ``mended`` is false.
    """

    lab: str
    breaks: tuple[tuple[str, str], ...]
    restores: tuple[tuple[str, str], ...]
    hosts: tuple[str, ...]
    mended: bool = True


@dataclass(frozen=True, slots=True)
class Check:
    """A check: ``title`` and ``text`` are its module's docstring; ``unseen`` is why it has no scenario."""

    name: str
    rank: int
    title: str
    text: str
    examine: Callable[[Cluster], Iterator[Finding]]
    scenarios: tuple[Scenario, ...]
    unseen: str = ""


def all_checks() -> list[Check]:
    """Every check, the commonest mistake first."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        loaded = import_module(f"{__name__}.{module.name}")
        title, _, text = inspect.cleandoc(loaded.__doc__ or "").partition("\n\n")
        name = module.name.replace("_", "-")
        found.append(
            Check(
                name, loaded.RANK, title, text.strip(), loaded.examine, tuple(loaded.SCENARIOS),
                getattr(loaded, "WHY_NO_SCENARIO", ""),
            )
        )  # fmt: skip
    return sorted(found, key=lambda check: (check.rank, check.name))


def judge(cluster: Cluster, skip: tuple[str, ...] = ()) -> list[Finding]:
    """What every check finds, except those to skip."""
    return [
        finding.of(check.name)
        for check in all_checks()
        if check.name not in skip
        for finding in check.examine(cluster)
    ]
