# SPDX-License-Identifier: GPL-2.0-only
"""What operators have decided at run time: drains, weights, and hand edits that are kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from xlvs.daemon.health import RealServerKey, ServerKey
from xlvs.model import Destination, ServiceKey

Target = tuple[ServerKey, RealServerKey]
"""A real server of a virtual server."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A real server takes no new connection; when its last has ended, or at ``deadline``, it is removed.

    Times are seconds since the epoch; ``deadline`` is None for no end.
    """

    since: float
    deadline: float | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Overrides:
    """All of an operator's decisions; immutable, so that a table can be computed from a whole one.

    ``added``, ``removed`` and ``edited`` are hand edits that were adopted, by service and
    the real server's address and port.
    """

    drains: dict[Target, Drain] = field(default_factory=dict)
    weights: dict[Target, int] = field(default_factory=dict)
    added: dict[tuple[ServiceKey, RealServerKey], Destination] = field(default_factory=dict)
    removed: frozenset[tuple[ServiceKey, RealServerKey]] = frozenset()

    def with_drain(self, target: Target, drain: Drain | None) -> Overrides:
        """The same with that drain, or without one."""
        drains = {key: value for key, value in self.drains.items() if key != target}
        if drain is not None:
            drains[target] = drain
        return replace(self, drains=drains)

    def with_weight(self, target: Target, weight: int | None) -> Overrides:
        """The same with that weight, or with none."""
        weights = {key: value for key, value in self.weights.items() if key != target}
        if weight is not None:
            weights[target] = weight
        return replace(self, weights=weights)

    def weight_of(self, target: Target, weight: int) -> int:
        """The weight that counts towards a quorum: that of one that is drained is 0."""
        if target in self.drains:
            return 0
        return self.weights.get(target, weight)

    def with_added(self, key: ServiceKey, place: RealServerKey, destination: Destination) -> Overrides:
        """The same with a real server that the configuration does not have."""
        removed = self.removed - {(key, place)}
        return replace(self, added={**self.added, (key, place): destination}, removed=removed)

    def with_removed(self, key: ServiceKey, place: RealServerKey) -> Overrides:
        """The same without a real server, whether the configuration has it or not."""
        added = {where: one for where, one in self.added.items() if where != (key, place)}
        return replace(self, added=added, removed=self.removed | {(key, place)})

    def without_edits(self) -> Overrides:
        """The same without adopted hand edits."""
        return replace(self, added={}, removed=frozenset())

    def limited_to(self, targets: set[Target]) -> Overrides:
        """The same without what concerns real servers that are not configured any more."""
        return replace(
            self,
            drains={key: value for key, value in self.drains.items() if key in targets},
            weights={key: value for key, value in self.weights.items() if key in targets},
        )
