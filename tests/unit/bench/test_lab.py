# SPDX-License-Identifier: GPL-2.0-only
"""The labs' part of the benchmark: what loads say, what balancers are told, what follows from figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import lab_goals, proxies
from bench.lab_goals import BULK, DIRECT, KEPT, SHORT, XLVS_TC, XLVS_XDP, cpu, rate
from bench.loads import Failed, parsed, what_was_received
from bench.proxies import HAPROXY, NGINX
from bench.rounds import Figure


def _wrks(**found: float) -> str:
    line = {"requests": 5000, "seconds": 2.0, "p99": 0.012, "errors": 0} | found
    return f"Running 2s test\n  5000 requests in 2.00s\n{json.dumps(line)}\n"


def test_what_wrk_says() -> None:
    assert parsed(_wrks()) == {"requests": 5000, "seconds": 2.0, "p99": 0.012, "errors": 0}
    assert parsed(_wrks(errors=5))["errors"] == 5


@pytest.mark.parametrize("said", ["", "unable to connect\n", _wrks(errors=6), _wrks(requests=0)])
def test_requests_that_failed_are_no_measurement(said: str) -> None:
    with pytest.raises(Failed):
        parsed(said)


def test_what_iperf3_says() -> None:
    said = '{"end": {"sum_received": {"bits_per_second": 1.5e10, "bytes": 3e9}}}'
    assert what_was_received(said) == (1.5e10, 3e9)


@pytest.mark.parametrize("said", ["", "{", '{"error": "unable to connect"}', '{"end": {}}', "[]"])
def test_a_bulk_that_failed_is_no_measurement(said: str) -> None:
    with pytest.raises(Failed, match="iperf3 has not measured"):
        what_was_received(said)


def test_proxies_balance_over_all_real_servers() -> None:
    texts = proxies.configurations(("192.0.2.101", "192.0.2.102"), Path("/run/x"), 5201)
    assert set(texts) == {HAPROXY, NGINX}
    for name, text in texts.items():
        assert "192.0.2.101:80" in text and "192.0.2.102:80" in text and "192.0.2.101:5201" in text
        assert str(proxies.WEB[name]) in text and str(proxies.BULK[name]) in text
        assert text.count("{") == text.count("}")


def _figures() -> dict[str, dict[str, Figure]]:
    """HAProxy: 100 requests/s at most, 9 s of processor time, of which 4 are there without a balancer."""

    def one(best: float, worst: float) -> Figure:
        return Figure(min(best, worst), (best + worst) / 2, max(best, worst))

    found: dict[str, dict[str, Figure]] = {BULK: {}}
    for kind in (SHORT, KEPT):
        found[rate(kind)] = {HAPROXY: one(100, 10), XLVS_TC: one(200, 15), XLVS_XDP: one(150, 150)}
        found[cpu(kind)] = {
            DIRECT: one(4, 8), HAPROXY: one(9, 30), XLVS_TC: one(5, 20), XLVS_XDP: one(6, 6),
        }  # fmt: skip
    found[BULK] = {DIRECT: one(10, 1), XLVS_TC: one(9.8, 2), XLVS_XDP: one(4, 4)}
    return found


def test_best_rounds_are_compared() -> None:
    by_words = lab_goals.ratios(_figures())
    assert by_words["xlvs TC, short connections: requests / HAProxy's"] == 2
    assert by_words["xlvs TC, kept connections: extra processor time / HAProxy's"] == 0.2
    assert by_words["xlvs XDP, short connections: extra processor time / HAProxy's"] == 0.4
    assert by_words["xlvs XDP, bulk / direct"] == 0.4
    assert [goal.met for goal in lab_goals.goals(_figures())] == [True] * 5
    slower = _figures()
    slower[BULK][DIRECT] = Figure(1, 2, 20)
    assert [goal.met for goal in lab_goals.goals(slower)] == [True] * 4 + [False]


def test_every_group_has_a_unit() -> None:
    assert set(_figures()) < set(lab_goals.UNITS)
