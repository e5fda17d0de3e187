# SPDX-License-Identifier: GPL-2.0-only
"""Transcripts read back as they were recorded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest.ipvsadm_transcript import Step, TranscriptError, format_answer, parse, record
from tests.guest.runner import Guest

TRANSCRIPT = """\
# One of each.
!reset
$ ipvsadm -A -t 192.0.2.1:80 -s rr
= 0

$ ipvsadm -R
< -a -t 192.0.2.1:80 -r 10.0.0.1
< -a -t 192.0.2.9:80 -r 10.0.0.1
2|Service not defined
= 255
$ ipvsadm -L -n -t 192.0.2.1:80
1|Prot LocalAddress:Port Scheduler Flags
1|  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
1|TCP  192.0.2.1:80 rr
1|  -> 10.0.0.1:80                  Route   1      0          0         
= 0
$ ipvsadm -A -t '192.0.2.2:80 '
2|illegal virtual server address[:port] specified
= 2
!run test -d /proc/sys/net/ipv4/vs
$ ipvsadm -A -u www.example.com:53
= 0
$ ipvsadm -S
1|-A -t 192.0.2.1:http -s rr
1|-a -t 192.0.2.1:http -r 10.0.0.1:http -g -w 1
1|-A -u www.example.com:domain -s wlc
= 0
"""  # noqa: W291 - ipvsadm's last column is padded


def test_recording_is_what_was_recorded(guest: Guest) -> None:
    assert record(TRANSCRIPT, guest) == TRANSCRIPT


def test_bare_commands_can_be_recorded(guest: Guest) -> None:
    recorded = record("-A -t 192.0.2.1:80\nipvsadm -D -t 192.0.2.1:80\n", guest)
    assert recorded == "$ ipvsadm -A -t 192.0.2.1:80\n= 0\n$ ipvsadm -D -t 192.0.2.1:80\n= 0\n"


def test_parsing() -> None:
    steps = parse(TRANSCRIPT)
    assert [step.directive for step in steps if step.directive] == [
        "reset",
        "run test -d /proc/sys/net/ipv4/vs",
    ]
    assert steps[1] == Step(3, arguments=("-A", "-t", "192.0.2.1:80", "-s", "rr"))
    assert steps[2] == Step(
        6,
        arguments=("-R",),
        stdin="-a -t 192.0.2.1:80 -r 10.0.0.1\n-a -t 192.0.2.9:80 -r 10.0.0.1\n",
        stderr="Service not defined\n",
        exit_code=255,
    )
    assert steps[4].arguments == ("-A", "-t", "192.0.2.2:80 ")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1|lost\n", "line 1: '1|lost' belongs to no command"),
        ("!reset\n= 0\n", "line 2: '= 0' belongs to no command"),
        ("-L\n= 0\n= 1\n", "line 1: a command with 2 exit codes"),
        ("\n-L 'open\n", "line 2: No closing quotation"),
    ],
)
def test_what_is_no_transcript(text: str, complaint: str) -> None:
    with pytest.raises(TranscriptError) as refusal:
        parse(text)
    assert str(refusal.value) == complaint


outputs = st.lists(st.text(st.characters(blacklist_categories=["Cc", "Cs"]))).map("\n".join)


@given(stdout=outputs, stderr=outputs, exit_code=st.integers(0, 255))
def test_any_answer_survives_the_format(stdout: str, stderr: str, exit_code: int) -> None:
    (step,) = parse("$ ipvsadm -L\n" + format_answer(stdout, stderr, exit_code))
    assert (step.stdout, step.stderr, step.exit_code) == (stdout, stderr, exit_code)
