# SPDX-License-Identifier: GPL-2.0-only
"""The labs' part of the benchmark: what loads say, what balancers are told, what follows from figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import lab_goals, live, proxies
from bench.lab_goals import (
    BARE_TC,
    BULK,
    BULK_CPU,
    DIRECT,
    FRAMES,
    KEPT,
    SHORT,
    XLVS_TC,
    XLVS_XDP,
    cpu,
    own_cpu,
    rate,
)
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
    texts = proxies.configurations(("192.0.2.101", "192.0.2.102"), Path("/run/x"), 5201, 3)
    assert set(texts) == {HAPROXY, NGINX}
    for name, text in texts.items():
        assert "192.0.2.101:80" in text and "192.0.2.102:80" in text and "192.0.2.101:5201" in text
        assert str(proxies.WEB[name]) in text and str(proxies.BULK[name]) in text
        assert text.count("{") == text.count("}")
    assert "nbthread 3" in texts[HAPROXY] and "worker_processes 3;" in texts[NGINX]


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
    found[own_cpu(SHORT)] = {HAPROXY: one(6, 8)}
    found[FRAMES] = {
        live.name_of(live.BARE_XDP, 1): one(90, 100), live.name_of(live.BARE_TC, 1): one(300, 301),
        live.name_of(live.XLVS_XDP, 1): one(100, 110), live.name_of(live.XLVS_TC, 1): one(305, 330),
        live.name_of(live.XLVS_XDP, 1024): one(120, 130), live.name_of(live.XLVS_TC, 1024): one(500, 510),
        live.name_of(live.XLVS_XDP, 131_072): one(200, 210),
    }  # fmt: skip
    found[BULK] = {DIRECT: one(10, 1), XLVS_TC: one(9.8, 2), XLVS_XDP: one(4, 4), BARE_TC: one(9.8, 2)}
    found[BULK_CPU] = {DIRECT: one(0.6, 0.9), XLVS_TC: one(0.64, 0.7), XLVS_XDP: one(2.4, 3)}
    return found


def test_best_rounds_are_compared() -> None:
    by_words = lab_goals.ratios(_figures())
    assert by_words["xlvs TC, short connections: requests / HAProxy's"] == 2
    assert by_words["xlvs TC, kept connections: extra processor time / HAProxy's"] == 0.2
    assert by_words["xlvs XDP, short connections: extra processor time / HAProxy's"] == 0.4
    assert by_words["xlvs TC, short connections: requests for the same processor time / HAProxy's"] == 1.8
    assert by_words["xlvs XDP, bulk / direct"] == 0.4
    assert by_words["xlvs XDP, bulk for the same processor time / direct"] == 0.25
    assert by_words["bare TC redirect, nothing looked up, bulk / direct"] == 0.98
    assert by_words["xlvs TC, bulk / a bare redirect's"] == 1
    slower = _figures()
    slower[BULK][DIRECT] = Figure(1, 2, 20)
    assert lab_goals.ratios(slower)["xlvs TC, bulk / direct"] == 0.49


def test_a_directors_packet_work_is_laid_beside_haproxys_process() -> None:
    """120 ns for each of 5 packets of 100,000 requests are 0.06 s: a hundredth of 6 s."""
    assert lab_goals.packet_work(_figures(), 5)[live.XLVS_XDP] == pytest.approx(0.01)


def test_goals_that_are_missed() -> None:
    assert [goal.what for goal in lab_goals.goals(_figures(), 5) if not goal.met] == [
        "xlvs XDP, DR, 131,072 flows: frames / a bare program's",
        "xlvs TC, DR: packet work of a short request / HAProxy's process",
    ]
    slower = _figures()
    slower[rate(KEPT)][HAPROXY] = Figure(1, 2, 150)
    missed = [goal.what for goal in lab_goals.goals(slower, 1) if not goal.met]
    assert missed[1:] == ["xlvs TC, kept connections: requests / HAProxy's"]


def test_every_group_has_a_unit() -> None:
    assert set(_figures()) < set(lab_goals.UNITS)
