# SPDX-License-Identifier: GPL-2.0-only
"""The order in which ipvsadm lists services and real servers.

ipvsadm subtracts two 32-bit numbers and takes the sign of the 32-bit result.
So numbers that are 2^31 or more apart compare the wrong way round
(192.0.2.1 comes before 10.0.0.1), the relation is not transitive, and the
outcome depends on the sorting method, which is glibc's merge sort.  Scripts
see that order; it is kept.  (libipvs: ``ipvs_cmp_services``,
``ipvs_cmp_dests``; glibc: ``msort_with_tmp``.)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from xlvs.datapath.rows import DestinationRow, ServiceRow

    _Item = TypeVar("_Item")
    _ServiceRank = tuple[int, int, int, tuple[int, ...], int]
    _DestinationRank = tuple[tuple[int, ...], int]

_HALF = 1 << 31


def sorted_services(rows: Sequence[ServiceRow], by_number: bool = False) -> list[ServiceRow]:
    """Services by firewall mark, family, protocol, address and port, as ipvsadm compares them.

    ``by_number`` goes by all bits instead.
    """
    ranked = [(_service_rank(row), row) for row in rows]
    marks = [rank[0] for rank, _ in ranked]
    if by_number or (_is_narrow(marks) and _are_narrow(rank[3] for rank, _ in ranked)):
        ranked.sort(key=lambda pair: pair[0])
    else:
        ranked = _merge_sort(ranked, lambda one, other: _compare_services(one[0], other[0]))
    return [row for _, row in ranked]


def sorted_destinations(rows: Sequence[DestinationRow], by_number: bool = False) -> Sequence[DestinationRow]:
    """Real servers by address and port, as ipvsadm compares them, or by all bits (IPv4 first)."""
    if len(rows) < 2:
        return rows
    if by_number:
        return sorted(rows, key=lambda row: (len(row[0]), row[0], row[1]))
    if {len(row[0]) for row in rows} == {4}:
        ordered = sorted(rows)  # no two have one address and port, so nothing else is compared
        # First bytes that close: no two addresses differ so much that their order turns round.
        if ordered[-1][0][0] - ordered[0][0][0] < 128:
            return ordered
    ranked = [((_words(row[0]), row[1]), row) for row in rows]
    if len({len(rank[0]) for rank, _ in ranked}) == 1 and _are_narrow(rank[0] for rank, _ in ranked):
        ranked.sort(key=lambda pair: pair[0])
    else:
        ranked = _merge_sort(ranked, lambda one, other: _compare_destinations(one[0], other[0]))
    return [row for _, row in ranked]


def _service_rank(row: ServiceRow) -> _ServiceRank:
    key = row[0].key
    return key.fwmark, key.family, key.protocol, _words(key.address), key.port


def _words(address: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(address[i : i + 4], "big") for i in range(0, len(address), 4))


def _is_narrow(numbers: Sequence[int]) -> bool:
    return not numbers or max(numbers) - min(numbers) < _HALF


def _are_narrow(addresses: Iterable[tuple[int, ...]]) -> bool:
    """Whether no two addresses differ so much in any word that their order turns round."""
    lengths: dict[int, list[tuple[int, ...]]] = {}
    for words in addresses:
        lengths.setdefault(len(words), []).append(words)
    return all(_is_narrow(column) for group in lengths.values() for column in zip(*group, strict=True))


def _signed_difference(one: int, other: int) -> int:
    return (one - other + _HALF) % (2 * _HALF) - _HALF


def _compare_words(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Compare as many words as the first address has; a shorter second one continues with zeros."""
    for index, word in enumerate(one):
        difference = _signed_difference(word, other[index] if index < len(other) else 0)
        if difference:
            return difference
    return 0


def _compare_services(one: _ServiceRank, other: _ServiceRank) -> int:
    return (
        _signed_difference(one[0], other[0])
        or one[1] - other[1]
        or one[2] - other[2]
        or _compare_words(one[3], other[3])
        or one[4] - other[4]
    )


def _compare_destinations(one: _DestinationRank, other: _DestinationRank) -> int:
    return _compare_words(one[0], other[0]) or one[1] - other[1]


def _merge_sort(items: list[_Item], compare: Callable[[_Item, _Item], int]) -> list[_Item]:
    if len(items) < 2:
        return items
    middle = len(items) // 2
    left = _merge_sort(items[:middle], compare)
    right = _merge_sort(items[middle:], compare)
    merged: list[_Item] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if compare(left[i], right[j]) <= 0:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]
