# SPDX-License-Identifier: GPL-2.0-only
"""Rates are estimated by the kernel alone, every two seconds, by the formula of IPVS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.packet.director import Director, real_server
from tests.packet.packets import ACK
from xlvs.datapath.load import Capacity
from xlvs.datapath.records import packed_key
from xlvs.datapath.rows import RATES
from xlvs.kernel import abi
from xlvs.model import Rates, ServiceKey

PACKETS = 400

Numbers = tuple[int, ...]
"""Connections, packets in and out, bytes in and out."""


def numbers(record: abi.Traffic) -> Numbers:
    return tuple(getattr(record, name) for name, *_ in record._fields_)


def estimate(director: Director, kind: str, index: int) -> tuple[Numbers, Numbers]:
    """The counters when a rate was last estimated, and the rate in fixed point."""
    count = getattr(director.maps.limits, f"{kind}s")
    record = director.maps.record(f"{kind}_estimates", abi.Estimate, index, count)
    while True:  # until the timer has not written in between
        seen = numbers(record.last), numbers(record.rate)
        if seen == (numbers(record.last), numbers(record.rate)):
            return seen


def index_of(director: Director, key: ServiceKey) -> int:
    found: int = director.record(key).service
    return found


def steps(director: Director, kind: str, index: int, count: int) -> Iterator[tuple[Numbers, Numbers]]:
    """The estimate as it is, and after each of so many times that it changes."""
    seen = [estimate(director, kind, index)]
    yield seen[0]
    for _ in range(count):
        director.wait_until(lambda: estimate(director, kind, index) != seen[-1], 4, "no new estimate")
        seen.append(estimate(director, kind, index))
        yield seen[-1]


def next_average(average: int, counted: int, shift: int) -> int:
    """The kernel's formula, in whole numbers: a quarter of the way to the rate of two seconds."""
    rate = (counted << shift) // 2
    return average + (rate - average) // 4


def rounded(average: int, shift: int) -> int:
    return (average + (1 << shift - 1) - 1) >> shift


def send(director: Director, key: ServiceKey, count: int = PACKETS) -> None:
    port = director.open(key)
    frame = director.segment(key, port, ACK, b"x" * 60)
    for _ in range(count - 1):
        director.tc(frame)


def test_estimates_by_the_kernels_formula(director: Director) -> None:
    key = director.service(1)
    index = index_of(director, key)
    quiet = estimate(director, "service", index)
    began = time.monotonic()
    send(director, key)
    seen = [quiet, *steps(director, "service", index, 4)]
    assert time.monotonic() - began > 3 * 1.9
    shifts = (10, 10, 10, 5, 5)
    for (last, average), (now, after) in pairwise(seen):
        counted = [new - old for new, old in zip(now, last, strict=True)]
        if (now, after) != (last, average):
            assert after == tuple(map(next_average, average, counted, shifts)), (last, average, now)
    assert seen[-1][0][1] == PACKETS
    assert any(average[1] > 0 for _, average in seen)


def test_shows_them_rounded_for_services_and_real_servers(director: Director) -> None:
    key = director.service(1)
    index = index_of(director, key)
    send(director, key)
    director.wait_until(lambda: director.table.service(key).rates.in_packets > 0, 5, "no rate")
    before = estimate(director, "service", index)
    listed = director.table.service(key).rates
    row = next(row for row in director.table.table(RATES) if row[0].key == key)
    assert before == estimate(director, "service", index), "it was estimated anew in between"
    expected = tuple(map(rounded, before[1], (10, 10, 10, 5, 5)))
    assert listed == Rates(*expected)
    assert row[1] == expected
    # All of its packets went to its only real server, which has its turn within two seconds.
    director.wait_until(lambda: director.entry(key, real_server(1)).rates.in_bytes > 0, 5, "no rate")
    assert director.table.table()[0][1] == (0, 0, 0, 0, 0)


def test_zeroing_zeroes_at_once_and_goes_on_from_there(director: Director) -> None:
    key = director.service(1)
    send(director, key)
    director.wait_until(lambda: director.entry(key, real_server(1)).rates.in_packets > 0, 5, "no rate")
    director.wait_until(lambda: director.table.service(key).rates.in_packets > 0, 5, "no rate")
    director.table.zero(key)
    assert director.table.service(key).rates == Rates() == director.entry(key, real_server(1)).rates
    index = index_of(director, key)
    before = estimate(director, "service", index)
    director.wait_until(lambda: estimate(director, "service", index) != before, 5, "no new estimate")
    assert estimate(director, "service", index)[1] == (0, 0, 0, 0, 0)


def test_a_removed_real_servers_rate_waits_for_it(director: Director) -> None:
    key = director.service(1, 1)
    send(director, key)
    sent_to = next(
        one.destination
        for one in director.table.service(key).destinations
        if one.stats.in_packets > 0
    )  # fmt: skip
    director.wait_until(lambda: director.entry(key, sent_to.address).rates.in_packets > 0, 5, "no rate")
    director.table.delete_destination(key, sent_to.address, sent_to.port)
    (index,) = (
        place
        for place in range(director.maps.settings.destinations_top)
        for record in (director.maps.destination(place),)
        if bytes(record.owner) == packed_key(key) and not record.flags & abi.DESTINATION_AVAILABLE
    )
    before = estimate(director, "destination", index)
    time.sleep(2.3)
    assert estimate(director, "destination", index) == before


def test_estimation_can_be_stopped(director: Director) -> None:
    key = director.service(1)
    place = abi.SYSCTL_RUN_ESTIMATION
    assert director.maps.settings.sysctl[place] == 1
    director.table.set_sysctls({"run_estimation": "0"})
    try:
        index = index_of(director, key)
        send(director, key)
        before = estimate(director, "service", index)
        time.sleep(2.3)
        assert estimate(director, "service", index) == before
    finally:
        director.table.set_sysctls({"run_estimation": "1"})
    director.wait_until(lambda: director.table.service(key).rates.in_packets > 0, 5, "no rate")


def test_every_record_has_its_turn(make_director: Callable[[Capacity], Director]) -> None:
    """Shares leave none out, whatever its number: 300 services, more than twice as many as shares."""
    director = make_director(Capacity(connections=8192, services=512, destinations=512))
    keys = [director.service(1) for _ in range(300)]
    for key in keys:
        send(director, key, 16)
    left = set(range(300))

    def all_estimated() -> bool:
        left.difference_update([place for place in left if estimate(director, "service", place)[1][1]])
        return not left

    director.wait_until(all_estimated, 6, f"no rate for {sorted(left)}")
