# SPDX-License-Identifier: GPL-2.0-only
"""The rules that give packets a firewall mark: model values in, records out, and back.

The map has room for two sets, of which packets read one; which, and how many
rules it has, stands in one 32-bit word of the settings (``struct mark_rule`` in
bpf/abi.h).  A new set is written into the other half, then the word.
"""

from __future__ import annotations

import ctypes
import time

from xlvs import errors, model
from xlvs.datapath.maps import Maps
from xlvs.datapath.records import address, store_address, ticks_now
from xlvs.kernel import abi

_COUNT_MASK = (1 << abi.MARK_HALF_SHIFT) - 1
_REST_TICKS = 2
"""How long a half rests before it is written again: packets that began to read it are through."""
_REST_SECONDS = _REST_TICKS * (1 << abi.TICK_SHIFT) / 1_000_000_000


def count(settings: abi.Settings) -> int:
    """How many rules there are."""
    return settings.mark_set & _COUNT_MASK


def read(maps: Maps) -> list[model.MarkRule]:
    """The rules that packets read, in their order."""
    chosen = maps.settings.mark_set
    first = (chosen >> abi.MARK_HALF_SHIFT) * abi.MARK_RULES
    return [_rule(_record(maps, first + number)) for number in range(count(maps.settings))]


def replace(maps: Maps, rules: list[model.MarkRule]) -> None:
    """Let packets read these rules instead; see `Datapath.set_mark_rules`.

    The caller holds the table's lock.
    """
    check(rules)
    settings = maps.settings
    half = 1 - (settings.mark_set >> abi.MARK_HALF_SHIFT)
    if (ticks_now() - settings.mark_set_changed) & 0xFFFFFFFF < _REST_TICKS:
        time.sleep(_REST_SECONDS)
    for number, rule in enumerate(rules):
        _store(_record(maps, half * abi.MARK_RULES + number), rule)
    settings.mark_set = half << abi.MARK_HALF_SHIFT | len(rules)
    settings.mark_set_changed = ticks_now()


def check(rules: list[model.MarkRule]) -> None:
    """Raise `RuleExists`, `InvalidOperation` or `TableFull` for rules that cannot be a set."""
    if len(rules) > abi.MARK_RULES:
        raise errors.TableFull(
            f"{len(rules)} rules that mark packets: there is room for {abi.MARK_RULES}",
            "Put ports into one rule, or prefixes together.",
        )
    numbers: dict[model.MarkRule, int] = {}
    for number, rule in enumerate(rules, start=1):
        _check_rule(rule)
        other = numbers.setdefault(rule.conditions, number)
        if other != number:
            raise errors.RuleExists(
                f"rules {other} and {number} have the same conditions",
                "The first rule that matches counts: the other would never be reached.",
            )


def _check_rule(rule: model.MarkRule) -> None:
    if not 1 <= rule.mark <= 0xFFFFFFFF:
        raise errors.InvalidOperation(f"a firewall mark is 1 to {0xFFFFFFFF}, not {rule.mark}")
    if rule.source is not None and rule.source.family != rule.destination.family:
        raise errors.InvalidOperation("source and destination are of different address families")
    ranges = len(rule.ports) + len(rule.source_ports)
    if ranges > abi.MARK_RANGES:
        raise errors.InvalidOperation(
            f"a rule has {abi.MARK_RANGES} ports and port ranges at most, not {ranges}",
            "Give the others to a second rule with the same mark.",
        )


def _record(maps: Maps, place: int) -> abi.MarkRule:
    return maps.record("mark_rules", abi.MarkRule, place, 2 * abi.MARK_RULES)


def _store(record: abi.MarkRule, rule: model.MarkRule) -> None:
    ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
    store_address(record.destination, rule.destination.address)
    record.destination_prefix = rule.destination.length
    if rule.source is not None:
        store_address(record.source, rule.source.address)
        record.source_prefix = rule.source.length
    record.mark = rule.mark
    record.family = rule.destination.family
    record.protocol = rule.protocol
    record.destination_ranges = len(rule.ports)
    record.source_ranges = len(rule.source_ports)
    for place, (first, last) in enumerate((*rule.ports, *rule.source_ports)):
        record.range[place].first = first
        record.range[place].last = last


def _rule(record: abi.MarkRule) -> model.MarkRule:
    family = record.family
    source = None
    if record.source_prefix:
        source = model.Prefix(address(record.source, family), record.source_prefix)
    ends = record.destination_ranges
    ranges = tuple(
        (record.range[place].first, record.range[place].last) for place in range(ends + record.source_ranges)
    )
    destination = model.Prefix(address(record.destination, family), record.destination_prefix)
    return model.MarkRule(record.mark, destination, source, record.protocol, ranges[:ends], ranges[ends:])
