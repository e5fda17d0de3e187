# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs explain`: what it takes, and the page that it prints."""

from __future__ import annotations

import json

import pytest

from xlvs.cli import explanation
from xlvs.cli.main import main
from xlvs.datapath.explaining import DROPPED, REASONS, SENT, Candidate, Entry, Explanation, Leaving, Question
from xlvs.model import IPV4, MASQUERADE, TCP, Service, ServiceKey

CLIENT, VIP = bytes([203, 0, 113, 7]), bytes([192, 0, 2, 100])
FIRST, SECOND = bytes([192, 0, 2, 101]), bytes([192, 0, 2, 102])
QUESTION = Question(TCP, CLIENT, None, VIP, 80)
SERVICE = Service(ServiceKey(IPV4, TCP, VIP, 80), "wlc")
FORWARDED = Explanation(
    QUESTION, 40000, "eth0", SENT, [], None, None, SERVICE,
    [
        Candidate(SECOND, 8080, 0, 0, 0, False, (0, 0), False),
        Candidate(FIRST, 80, 2, 3, 1, False, (769, 2), True),
    ],
    (FIRST, 80), MASQUERADE, False, Leaving("eth1", FIRST, bytes.fromhex("020000000101"), CLIENT, FIRST),
)  # fmt: skip


def test_the_page() -> None:
    assert "\n".join(explanation.page(FORWARDED)) == (
        "TCP 203.0.113.7:40000 -> 192.0.2.100:80, coming in by eth0\n"
        "  service     TCP 192.0.2.100:80, wlc\n"
        "  scheduler   wlc: the least (256 x active + inactive) / weight\n"
        "       real server       weight  active  inactive   load\n"
        "       192.0.2.102:8080       0       0         0         weight 0: no new connections\n"
        "    -> 192.0.2.101:80         2       3         1  769/2\n"
        "  fate        to real server 192.0.2.101:80 by NAT: the destination becomes the real server's\n"
        "              leaves eth1 for 02:00:00:00:01:01, 203.0.113.7 -> 192.0.2.101"
    )


def test_a_connection_whose_real_server_is_gone() -> None:
    gone = Explanation(
        Question(TCP, CLIENT, 51034, VIP, 80), 51034, "eth0", DROPPED, [REASONS["unavailable"]],
        Entry("ESTABLISHED", 880, FIRST, 80), None, SERVICE, [], (FIRST, 80), "route", False, None,
    )  # fmt: skip
    assert "\n".join(explanation.page(gone)) == (
        "TCP 203.0.113.7:51034 -> 192.0.2.100:80, coming in by eth0\n"
        "  connection  ESTABLISHED, 880 s left, of real server 192.0.2.101:80\n"
        "  service     TCP 192.0.2.100:80, wlc\n"
        "  fate        dropped\n"
        "  because     the real server of its connection was removed from the service"
    )


def test_json_says_the_same() -> None:
    fields = json.loads(json.dumps(explanation.fields(FORWARDED)))
    assert fields["fate"] == "forwarded"
    assert fields["real_server"] == "192.0.2.101"
    assert [one["load"] for one in fields["candidates"]] == [None, 384.5]
    assert fields["leaves"]["mac"] == "02:00:00:00:01:01"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--client 203.0.113.7 --to 192.0.2.100", "has no port"),
        ("--client 203.0.113.7 --to [2001:db8::1]:80", "different families"),
        ("--client nonsense.invalid.: --to 192.0.2.100:80", "is no address"),
        ("--client 203.0.113.7:0 --to 192.0.2.100:80", "no connection comes from port 0"),
        ("--client 203.0.113.7 --to 192.0.2.100:80 --mark -1", "--mark -1 is not between"),
        ("--client 203.0.113.7 --to 192.0.2.100:80 --interface none0", "there is no interface 'none0'"),
        ("--to 192.0.2.100:80", "--client"),
    ],
)
def test_what_is_refused(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *words.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert complaint in printed.err
