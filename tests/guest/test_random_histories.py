# SPDX-License-Identifier: GPL-2.0-only
"""xlvs beside kernel IPVS in random scenarios of raw packets, and in those that once told them apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.guest.agreed import AGREED
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
COUNT = 60
AGREED_EXAMPLE = Scenario.parse(
    "agreed differences",
    """
    ipvsadm -R
    < -A -t {vip}:80 -s rr
    < -A -u {vip}:53 -s rr
    < -a -u {vip}:53 -r {dip}:53 -g
    packet tcp {client1}:40000 {vip}:80 S
    packet udp {client1}:40000 {vip}:53
    ipvsadm -L -n --stats
    """,
)


@pytest.mark.timeout(400)
def test_random_histories(fast_guest: Guest) -> None:
    scenarios = generate(COUNT, SEED)
    assert len(scenarios) == COUNT
    # Half of them at TC and half at XDP, for time's sake; by hand, each is played at both.
    plays = play(fast_guest, scenarios[::2], (KERNEL, XLVS))
    plays += play(fast_guest, scenarios[1::2], (KERNEL, XLVS_XDP))
    found = disagreements(plays)
    assert not found, (
        "\n".join(found.values())
        + f"\nThe shortest such scenarios: python -m tests.guest.oracle --seed {SEED} --count {COUNT}"
    )


def test_regressions(fast_guest: Guest) -> None:
    scenarios = [Scenario.parse(path.stem, path.read_text()) for path in sorted(REGRESSIONS.glob("*.txt"))]
    assert scenarios
    found = disagreements(play(fast_guest, scenarios))
    assert not found, "\n".join(found.values())


def test_what_is_agreed_still_happens(fast_guest: Guest) -> None:
    """An entry in `agreed.AGREED` that is no longer needed has to go, in docs/differences.md too."""
    plays = play(fast_guest, [AGREED_EXAMPLE])
    assert not disagreements(plays)
    assert agreements_used(plays) == {one.name for one in AGREED}


def test_same_seed_same_scenarios() -> None:
    assert [one.steps for one in generate(5, 3)] == [one.steps for one in generate(5, 3)]
    assert [one.steps for one in generate(5, 3)] != [one.steps for one in generate(5, 4)]


def test_only_counts_of_what_went_out_are_forgiven() -> None:
    def found(kernel: str, xlvs: str) -> dict[str, str]:
        seen = [
            Play("s", director, (Observation("ipvsadm -Ln --stats", answer),))
            for director, answer in ((KERNEL, kernel), (XLVS, xlvs))
        ]
        return disagreements(seen)

    def listing(packets_out: int, bytes_out: int, bytes_in: int = 45, title: str = "OutPkts") -> str:
        row = ["TCP  10.0.0.1:80", "1", "1", str(packets_out), str(bytes_in), str(bytes_out)]
        return f"Prot {title}\n{'      '.join(row)}"

    assert not found(listing(1, 73), listing(0, 0))
    assert not found(listing(1, 73), listing(1, 73))
    assert found(listing(0, 0), listing(1, 73))
    assert found(listing(1, 73), listing(0, 0, bytes_in=46))
    assert found(listing(1, 73, title=""), listing(0, 0, title=""))
    assert found("client < icmp 3/3 from 10.0.0.1: 45", "-")


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
