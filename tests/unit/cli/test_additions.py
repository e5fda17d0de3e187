# SPDX-License-Identifier: GPL-2.0-only
"""The quick reader of a restore's usual lines says what the complete parser says, or nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.cli import ipvsadm
from xlvs.cli.ipvsadm_additions import Addition, Additions
from xlvs.cli.ipvsadm_parse import parse
from xlvs.cli.ipvsadm_request import Request
from xlvs.datapath.memory import MemoryDatapath

pytestmark = pytest.mark.unit

_ENDPOINTS = """
192.0.2.1:80 192.0.2.1:0 192.0.2.2:21 192.0.2.1:080 192.0.2.01:80 192.0.2.256:80 192.0.2.1 :80 http
[2001:db8::1]:80 [2001:DB8::1]:80 [2001:db8::2]:0 2001:db8::1 [192.0.2.1]:80 192.0.2.1:65536
192.0.2.1:80:80 192.0.2.1:http 10.1:80 192.0.2.1: 1.2.3.4:+5
"""
ENDPOINTS = st.sampled_from([*_ENDPOINTS.split(), "192.0.2.1:\N{ARABIC-INDIC DIGIT EIGHT}"])
_SERVICE_OPTIONS = """
-s:rr:-s:wlc:-s:mh:-s:none:-s:nowhere:-p:-p:300:-p 0:-M:255.255.255.0:-M:64:-M 255.0.255.0:-o:-b:sh-port:
-b mh-port:--pe:sip:-6:-x:--idle-timeout:60:--reject-gone:--rehome:ipvsadm:-A:-t:9.9.9.9
"""
SERVICE_OPTIONS = st.sampled_from([*_SERVICE_OPTIONS.replace("\n", "").split(":"), "", "\t", "-s\0r"])
_SERVER_OPTIONS = """
-g:-i:-m:-w:0:7:-w 5:-w -1:-x:9:-y:3:--tun-type:gue:--tun-port:6080:--tun-csum:ipvsadm:-t:-s:--bad:-
"""
SERVER_OPTIONS = st.sampled_from([*_SERVER_OPTIONS.replace("\n", "").split(":"), "", "\r"])
SERVICES = st.sampled_from(["-t", "-t", "-t", "-u", "--sctp-service", "-f", "-ut"])


@st.composite
def groups(draw: st.DrawFn) -> list[str]:
    """Lines that add a service and then real servers to it, or nearly."""
    option, endpoint = draw(SERVICES), draw(ENDPOINTS)
    lines = [" ".join(["-A", option, endpoint, *draw(st.lists(SERVICE_OPTIONS, max_size=4))])]
    for _ in range(draw(st.integers(0, 4))):
        others = draw(st.integers(0, 9)) == 0
        service = draw(ENDPOINTS) if others else endpoint
        options = draw(st.lists(SERVER_OPTIONS, max_size=5))
        lines.append(" ".join(["-a", option, service, "-r", draw(ENDPOINTS), *options]))
    return lines


USUAL = ["-s wlc", "-s rr -p 300", "-s mh", ""]


@st.composite
def usual_groups(draw: st.DrawFn) -> list[str]:
    """Lines as ``-S`` prints them."""
    service = f"-t 192.0.2.{draw(st.integers(1, 4))}:80"
    lines = [f"-A {service} {draw(st.sampled_from(USUAL))}".rstrip()]
    for _ in range(draw(st.integers(0, 4))):
        server = f"10.0.0.{draw(st.integers(1, 3))}:{draw(st.sampled_from([80, 8080]))}"
        lines.append(f"-a {service} -r {server} {draw(st.sampled_from(['-g', '-m', '-i']))} -w 3")
    return lines


FILES = st.lists(groups() | usual_groups(), max_size=5).map(
    lambda made: [line for lines in made for line in lines]
)


def additions_of(lines: list[str]) -> list[Addition]:
    reader, found = Additions("ipvsadm"), []
    for line in lines:
        addition = reader.take(line)
        if addition is not None and len(addition.lines) == 1:
            found.append(addition)
    return found


@settings(max_examples=400, deadline=None)
@given(FILES)
def test_each_line_means_what_the_complete_parser_says(lines: list[str]) -> None:
    for addition in additions_of(lines):
        begun, *joined = addition.requests("ipvsadm")
        assert addition.service == begun.service()
        assert addition.destinations == [request.destination() for request in joined]
        assert {request.service_key() for request in joined} <= {addition.service.key}
        assert [request.command for request in (begun, *joined)] == ["add-service"] + ["add-server"] * len(
            joined
        )


def restored(lines: list[str], options: list[str]) -> tuple[str, str, int, object]:
    table = MemoryDatapath()

    @contextmanager
    def opener(**_: bool) -> Iterator[MemoryDatapath]:
        yield table

    out, complaints = io.StringIO(), io.StringIO()
    status = ipvsadm.run(["-R", *options], io.StringIO("\n".join(lines)), out, complaints, opener)
    return out.getvalue(), complaints.getvalue(), status, table.services()


@settings(max_examples=300, deadline=None)
@given(FILES, st.sampled_from([[], [], ["--atomic"]]))
def test_a_restore_ends_as_it_does_line_by_line(lines: list[str], options: list[str]) -> None:
    at_once = restored(lines, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Additions, "take", lambda _self, _line: None)
        assert restored(lines, options) == at_once


def test_what_is_saved_is_not_parsed_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Sequence[str]] = []

    def noted(words: Sequence[str], program: str) -> Request:
        parsed.append(words)
        return parse(words, program)

    monkeypatch.setattr("xlvs.cli.ipvsadm_additions.parse", noted)
    lines = []
    for number in range(50):
        lines.append(f"-A -t 192.0.2.{number}:80 -s wlc")
        lines += [f"-a -t 192.0.2.{number}:80 -r 10.0.{number}.{server}:80 -g -w 1" for server in range(9)]
    found = additions_of(lines)
    assert [len(one.destinations) for one in found] == [9] * 50
    assert len(parsed) == 2  # a service, a real server
