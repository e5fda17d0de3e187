# SPDX-License-Identifier: GPL-2.0-only
"""The tables of sh, dh and mh, against a model of the kernel's and an independent SipHash."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet.kernel_model import Server
from tests.packet.kernel_schedulers import DestinationHash, Maglev, SourceHash
from xlvs.datapath import hashing, load, runs
from xlvs.kernel import abi

weights = st.sampled_from([0, 1, 1, 2, 3, 60, 65535, 2147483647]) | st.integers(0, 2147483647)


def _servers(chosen: list[int]) -> list[Server]:
    servers = [Server(number) for number in range(len(chosen))]
    for server, weight in zip(servers, chosen, strict=True):
        server.weight = server.last_weight = weight
    return servers


def _positions(table: list[Server]) -> list[int]:
    return [server.name for server in table]


@given(st.lists(weights, max_size=20))
def test_tables_of_buckets(chosen: list[int]) -> None:
    servers = _servers(chosen)
    assert hashing.source_table(chosen) == _positions(SourceHash(servers).table)
    assert hashing.destination_table(len(chosen)) == _positions(DestinationHash(servers).table)


@settings(max_examples=25, deadline=None)
@given(st.lists(weights, max_size=12))
def test_maglev(chosen: list[int]) -> None:
    described = [(bytes([10, 0, 0, 10 + n]).ljust(16, b"\0"), 0, weight) for n, weight in enumerate(chosen)]
    table = hashing.maglev_table(described, ipv6=False)
    assert table == _positions(Maglev(_servers(chosen)).table)
    assert len(table) == (abi.MH_SLOTS if any(chosen) else 0)


def test_maglev_moves_few_when_one_leaves() -> None:
    """What the scheduler is for: most slots of the others stay where they are."""
    described = [(bytes([10, 0, n >> 8, n & 255]).ljust(16, b"\0"), 80, 1) for n in range(100)]
    before = hashing.maglev_table(described, ipv6=False)
    after = hashing.maglev_table(described[:50] + described[51:], ipv6=False)
    kept = sum(1 for old, new in zip(before, after, strict=True) if old != 50 and new == old - (old > 50))
    assert kept > 0.9 * abi.MH_SLOTS
    shares = [before.count(n) for n in range(100)]
    assert max(shares) - min(shares) <= 1


def test_the_service_family_says_what_counts_of_an_address() -> None:
    """Tunnels lead to real servers of the other family: an IPv4 service sees four bytes of theirs."""
    first, second = (bytes.fromhex("20010db8" + "00" * 11 + last) for last in ("01", "02"))
    other = [(bytes([10, 0, 0, 1]).ljust(16, b"\0"), 80, 1)]
    tables = {
        (ipv6, address): hashing.maglev_table([(address, 80, 1), *other], ipv6)
        for ipv6 in (False, True)
        for address in (first, second)
    }
    assert tables[False, first] == tables[False, second]
    assert tables[True, first] != tables[True, second]


def test_a_port_is_part_of_a_servers_name() -> None:
    address = bytes([10, 0, 0, 1]).ljust(16, b"\0")
    tables = [hashing.maglev_table([(address, 80, 1), (address, port, 1)], False) for port in (81, 82)]
    assert tables[0] != tables[1]


def test_siphash_is_pythons_own() -> None:
    """CPython hashes bytes with SipHash-1-3; without a seed, its key is zero."""
    values = [0, 1, 0xFFFFFFFF, 0x0A000001, 123456789]
    program = f"print(*(hash(n.to_bytes(4, 'little')) & 0xFFFFFFFF for n in {values}))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; assert sys.hash_info.algorithm == 'siphash13'; {program}"],
        env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [int(word) for word in done.stdout.split()] == [hashing.hsiphash(value, 0) for value in values]


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=600))
def test_what_is_packed_can_be_found(table: list[int]) -> None:
    width = hashing.slot_width(max(table))
    elements = hashing.pack(table, width)
    assert len(elements) == hashing.packed_elements(len(table), width)
    for slot, position in enumerate(table):
        bit = slot * width
        assert elements[bit // 64] >> bit % 64 & (1 << width) - 1 == position


def test_slots_are_never_split() -> None:
    assert [hashing.slot_width(n) for n in (0, 1, 2, 3, 4, 15, 16, 255, 256, 4092, 65535)] == [
        1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 16,
    ]  # fmt: skip


@given(st.integers(1, 2000), st.integers(1, 20000), st.integers(1, 4093))
def test_mh_may_be_the_scheduler_of_all(services: int, destinations: int, each: int) -> None:
    pool = load._limits(load.Capacity(64, services, destinations)).pool
    used = min(services, destinations // each)
    run = runs.elements_of(each, abi.SCHEDULER_MH, hashing.slot_width(each - 1))
    assert used * run + (run if used else 0) + runs.Allocator.FIRST <= pool


def test_the_default_pool_holds_what_is_promised() -> None:
    """10,000 services with mh and all real servers that fit; or one of 1,000."""
    pool = load._limits(load.Capacity()).pool
    each = load.DEFAULT_DESTINATIONS // 10_000
    width = hashing.slot_width(each - 1)
    assert 10_000 * runs.elements_of(each, abi.SCHEDULER_MH, width) < 0.6 * pool
    large = runs.elements_of(1000, abi.SCHEDULER_MH, hashing.slot_width(999))
    assert load.DEFAULT_DESTINATIONS // 1000 * large < 0.1 * pool
