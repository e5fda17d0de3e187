# SPDX-License-Identifier: GPL-2.0-only
"""The guest's part of the benchmark: what pktgen is told and says, and what follows from figures."""

from __future__ import annotations

import pytest

from bench import pktgen
from bench.guest_requests import beside_kernel_ipvs, over_direct
from bench.guest_rows import (
    ANSWERS,
    DR,
    DROPPED_TC,
    DROPPED_XDP,
    IPVS,
    METHODS,
    NAT,
    REDIRECT_XDP,
    XLVS_TC,
    XLVS_XDP,
    goals,
    ratios,
    row,
    work,
)
from bench.lab_goals import DIRECT
from bench.pktgen import Failed, Packets
from bench.proxies import HAPROXY
from bench.rounds import Figure

_SAID = """\
Params: count 20000  min_pkt_size: 60  max_pkt_size: 60
     frags: 0  delay: 0  clone_skb: 0  ifname: wire
Current:
     pkts-sofar: 20000  errors: 0
     started: 1us  stopped: 2us idle: 0us
Result: OK: 187548(c187548+d0) usec, 20000 (60byte,0frags)
  106639pps 51Mb/sec (51186720bps) errors: 0
"""


def test_the_time_of_a_packet() -> None:
    assert pktgen.nanoseconds(_SAID, 20_000) == pytest.approx(9377.4)


@pytest.mark.parametrize(
    "said", ["", "Result: Idle", "Result: NO_SUCH_COMMAND", _SAID.replace("20000 (60byte", "19999 (60byte")]
)
def test_what_was_not_sent_is_an_error(said: str) -> None:
    with pytest.raises(Failed, match="has not sent 20000 packets"):
        pktgen.nanoseconds(said, 20_000)


def test_flows_differ_in_the_clients_port() -> None:
    asked = Packets("wire", "02:00:00:00:00:01", "10.0.0.200", "10.0.0.100", 80, 1000).settings(5)
    assert {"count 5", "udp_src_min 1024", "udp_src_max 2024", "udp_dst_min 80", "udp_dst_max 80"} < set(
        asked
    )
    answered = Packets("wire", "02:00:00:00:00:02", "10.0.1.11", "10.0.0.200", 81, 1000, True).settings(5)
    assert {"udp_dst_min 1024", "udp_dst_max 2024", "udp_src_min 81", "udp_src_max 81"} < set(answered)


def _figures(ours_xdp: float) -> dict[str, Figure]:
    """Arrivals of 1000 (TC) and 2000 (XDP); IPVS works 6000, a bare redirect 500, xlvs at TC 3000."""
    minima = {DROPPED_TC: 1000.0, DROPPED_XDP: 2000.0, REDIRECT_XDP: 2500.0}
    for method in METHODS:
        minima[row(IPVS, method)] = 7000.0
        minima[row(XLVS_TC, method)] = 4000.0
        minima[row(XLVS_XDP, method)] = 2000.0 + ours_xdp
    return {name: Figure(value, value + 1, value + 2) for name, value in minima.items()}


def test_arrival_is_subtracted_hook_by_hook() -> None:
    worked = work(_figures(1500))
    assert worked[row(IPVS, DR)] == Figure(6000, 6001, 6002)
    assert worked[row(XLVS_XDP, NAT)] == Figure(1500, 1501, 1502)
    assert worked[row(XLVS_TC, ANSWERS)].minimum == 3000
    assert DROPPED_XDP not in worked and worked[REDIRECT_XDP].minimum == 500


def test_ratios_with_delivery_and_less_a_redirect() -> None:
    by_row = ratios(_figures(1500))
    assert by_row[row(XLVS_XDP, DR)] == 4
    assert by_row[row(XLVS_TC, DR)] == 2
    assert by_row[f"{row(XLVS_XDP, DR)}, less redirect"] == 5.5


def test_goals_at_xdp_are_for_what_xdp_forwards() -> None:
    asked = goals(_figures(1500), {row(XLVS_XDP, DR): 1.0, row(XLVS_XDP, NAT): 0.0})
    assert [(goal.bound, goal.met) for goal in asked] == [
        (3.7, True), (8.0, False), (1.5, True),  # DR
        (1.5, True),  # NAT
        (1.5, True),  # answers
    ]  # fmt: skip


def _requests() -> dict[str, Figure]:
    """Direct 200; IPVS adds 30 by DR and 70 by NAT, xlvs at TC 20 and 35, HAProxy 160."""
    minima = {DIRECT: 200.0, row(IPVS, DR): 230.0, row(IPVS, NAT): 270.0, HAPROXY: 360.0}
    minima |= {row(XLVS_TC, DR): 220.0, row(XLVS_TC, NAT): 235.0}
    return {name: Figure(value, value + 1, value + 2) for name, value in minima.items()}


def test_what_a_balancer_adds_to_a_request() -> None:
    added = over_direct(_requests())
    assert DIRECT not in added
    assert added[row(IPVS, DR)] == Figure(30, 31, 32)
    assert added[HAPROXY].minimum == 160


def test_requests_beside_kernel_ipvs_of_the_same_method() -> None:
    added = beside_kernel_ipvs(over_direct(_requests()))
    assert added == {row(XLVS_TC, DR): 1.5, row(XLVS_TC, NAT): 2, HAPROXY: 30 / 160}
    assert beside_kernel_ipvs(_requests())[DIRECT] == 1.15
