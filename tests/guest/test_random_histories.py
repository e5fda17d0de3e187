# SPDX-License-Identifier: GPL-2.0-only
"""xlvs beside kernel IPVS in random scenarios of raw packets, and in those that once told them apart."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest

from tests.guest.agreed import AGREED, Answers, forgiving
from tests.guest.histories import generate
from tests.guest.oracle import (
    DIRECTORS,
    REGRESSIONS,
    XLVS_XDP,
    agreements_used,
    disagreements,
    play,
    shortest,
)
from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Observation, Play, Scenario

SEED = 1
COUNT = 50
"""Some eighty seconds of a guest's time; `make oracle` plays as many as one likes."""
MANY = 300
"""Among so many, which are not played, everything has to be."""
AGREED_EXAMPLE = Scenario.parse(
    "agreed differences",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -A -t {vip}:443 -s rr
    < -a -t {vip}:443 -r {rs4} -g
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {dip}:53 -g
    < -A -u [{vip6}]:53 -s rr
    < -A -u {vip}:54 -s rr
    < -a -u {vip}:54 -r {rs1}:54 -m
    packet tcp {client1}:40000 {vip}:80 S
    packet udp {client1}:40000 {vip}:53
    ipvsadm -L -n --stats
    packet tcp {client1}:40000 {vip}:443 S
    packet tcp {client1}:40000 {vip}:443 A data=1440
    packet udp {client1}:40000 {vip}:54 checksum=zero
    packet udp [{client1_6}]:40000 [{vip6}]:53 data=2000 fragments=2
    packet udp {client1}:40001 {vip}:54 data=2000 fragments=2
    packet udp {client1}:40002 {vip}:54 data=2000 fragments=2 order=10
    ipvsadm -L -n --stats
    """,
)


@pytest.mark.timeout(1500)
def test_random_histories(fast_guest: Guest) -> None:
    """Half of them at TC and half at XDP, for time's sake; by hand, each is played at both."""
    scenarios = generate(COUNT, SEED)
    plays = play(fast_guest, scenarios[::2], (KERNEL, XLVS), keep=True)
    plays += play(fast_guest, scenarios[1::2], (KERNEL, XLVS_XDP), keep=True)
    assert len(plays) == 2 * COUNT
    found = disagreements(plays)
    assert not found, (
        "\n".join(found.values())
        + f"\nThe shortest such scenarios: python -m tests.guest.oracle --seed {SEED} --count {COUNT}"
    )


@pytest.mark.timeout(600)
def test_regressions(fast_guest: Guest) -> None:
    scenarios = [Scenario.parse(path.stem, path.read_text()) for path in sorted(REGRESSIONS.glob("*.txt"))]
    assert scenarios
    found = disagreements(play(fast_guest, scenarios, keep=True))
    assert not found, "\n".join(found.values())


@pytest.mark.timeout(600)
def test_what_is_agreed_still_happens(fast_guest: Guest) -> None:
    """An entry in `agreed.AGREED` that is no longer needed has to go, in docs/differences.md too."""
    plays = play(fast_guest, [AGREED_EXAMPLE], keep=True)
    assert not disagreements(plays)
    assert agreements_used(plays) == {one.name for one in AGREED}


def test_same_seed_same_scenarios() -> None:
    assert [one.steps for one in generate(5, 3)] == [one.steps for one in generate(5, 3)]
    assert [one.steps for one in generate(5, 3)] != [one.steps for one in generate(5, 4)]
    assert generate(5, 3)[3:] == generate(2, 3, first=3)
    assert len({one.steps for one in generate(COUNT, SEED)}) == COUNT


WANTED = """-m|-i|--tun-type gue|--tun-type gre|-g|answer tcp|answer udp|icmp server|icmp {router}
icmp [{router_6}]|icmp {client|fragments=2|order=|df|checksum=zero|checksum=bad|options=|ttl=1
[{vip6}]:80 -r {rs|{vip}:80 -r [{rs|ipvsadm -Z|ipvsadm -C|ipvsadm -e|ipvsadm -d|ipvsadm -D
ipvsadm -E|wait 310| -p 10| -M 255.255.255.252| -M 126| -o| -x | -y |-f {mark}|-f {mark} -6
-t {vip}:0|-u {vip}:0|-t {vip}:21|--sctp-service {vip}|packet sctp {client|packet sctp [{client|answer sctp
INIT|COOKIE-ECHO|COOKIE-ECHO,DATA|COOKIE-ACK,ABORT| SHUTDOWN| ABORT|{vip}:9003|icmp {router} sctp
sysctl conn_reuse_mode|sysctl expire_nodest_conn|sysctl expire_quiescent_template|sysctl sloppy_tcp
sysctl sloppy_sctp|sysctl secure_tcp|sysctl nat_icmp_send"""


@functools.cache
def _drawn() -> tuple[str, ...]:
    return tuple(step for one in generate(MANY, SEED) for step in one.steps)


@pytest.mark.parametrize("wanted", WANTED.replace("\n", "|").split("|"))
def test_everything_is_drawn(wanted: str) -> None:
    """A kind of event that no history has is one that nobody tests."""
    assert any(wanted in step for step in _drawn())


def test_damaged_icmp_errors_are_drawn() -> None:
    steps = [step for step in _drawn() if step.startswith("icmp")]
    assert any("checksum=bad" in step for step in steps)
    assert not any("checksum=bad" in step and "[" in step for step in steps)


def _found(kernel: str, xlvs: str, *steps: str) -> dict[str, str]:
    """What two directors differ in that gave these answers to the last of some steps."""
    before = tuple(Observation(step, "") for step in steps[:-1])
    plays = [
        Play("s", director, (*before, Observation(steps[-1], answer)))
        for director, answer in ((KERNEL, kernel), (XLVS, xlvs))
    ]
    return disagreements(plays)


def _listing(
    packets_out: int, bytes_out: int, bytes_in: int = 45, title: str = "OutPkts", packets_in: int = 1
) -> str:
    row = ["TCP  10.0.0.1:80", "1", str(packets_in), str(packets_out), str(bytes_in), str(bytes_out)]
    return f"Prot {title}\n{'      '.join(row)}"


def test_only_counts_of_what_went_out_are_forgiven() -> None:
    look = "ipvsadm -L -n --stats"
    assert not _found(_listing(1, 73), _listing(0, 0), look)
    assert not _found(_listing(1, 73), _listing(1, 73), look)
    assert _found(_listing(0, 0), _listing(1, 73), look)
    assert _found(_listing(1, 73), _listing(0, 0, bytes_in=46), look)
    assert _found(_listing(1, 73, title=""), _listing(0, 0, title=""), look)
    assert _found("client < icmp 3/3 from 10.0.0.1: 45", "-", look)


def test_other_counts_only_where_there_were_fragments() -> None:
    look = "ipvsadm -L -n --stats"
    pair = _listing(0, 0, 2000), _listing(0, 0, 2020, packets_in=2)
    assert _found(*pair, "packet udp a b data=1", look)
    assert not _found(*pair, "packet udp a b data=1 fragments=2", look)


def test_a_checksum_may_only_be_missing_where_there_was_none() -> None:
    head = f"rs1 < udp 10.0.0.1 1 > 10.0.0.2 2 45{'00' * 25}"
    kernel, xlvs = f"{head}28ce", f"{head}0000"
    assert not _found(kernel, xlvs, "packet udp a b checksum=zero")
    assert _found(kernel, xlvs, "packet udp a b")
    assert _found(kernel, xlvs.replace("rs1", "rs2"), "packet udp a b checksum=zero")
    assert forgiving(Answers("packet udp a b checksum=zero", xlvs, kernel)) == (xlvs, [])


def test_shortest_keeps_only_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here two directors differ as soon as there is a packet after its service."""

    def pretend(_guest: object, scenarios: Sequence[Scenario], **_: object) -> list[Play]:
        return [
            Play(scenario.name, director, tuple(_pretended(scenario.steps, director)))
            for scenario in scenarios
            for director in DIRECTORS[:2]
        ]

    def _pretended(steps: Sequence[str], director: str) -> list[Observation]:
        ready = "< -A -t {vip}:80" in steps
        return [Observation(step, director if ready and step == "packet x" else "") for step in steps]

    monkeypatch.setattr("tests.guest.oracle.play", pretend)
    filling = [f"wait {number}" for number in range(9)]
    steps = ("ipvsadm -R", "< -A -u {vip}:53", "< -A -t {vip}:80", *filling, "packet x", *filling)
    whole = Scenario("whole", steps)
    (told,) = disagreements(pretend(None, [whole])).values()
    short = shortest(None, whole, told, limit=60)  # type: ignore[arg-type]
    assert short.steps == ("ipvsadm -R", "< -A -t {vip}:80", "packet x")
