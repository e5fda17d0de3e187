# SPDX-License-Identifier: GPL-2.0-only
"""Every parser of foreign input takes anything: it answers, or refuses in the words for it.

Parsers of what ipvsadm's command lines hold have tests of their own besides
(tests/unit/cli), and so has the packet path (tests/packet/test_mutations.py).
"""

from __future__ import annotations

import copy
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.cli import ipvsadm
from xlvs.cli.address import leading_number, parse_endpoint, string_to_number
from xlvs.cli.ipvsadm_restore import command_lines, words_of
from xlvs.cli.mark_rule import format_line, parse_lines
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import UsageError, XlvsError, shown
from xlvs.kernel import rtnetlink
from xlvs.lab import state
from xlvs.lab.addresses import BEHIND_ROUTER, ONE_NETWORK, TWO_NETWORKS, Request, check, choose
from xlvs.lab.lifecycle import plan_of
from xlvs.lab.state import Record
from xlvs.model import TCP

TEXT = st.text(st.characters(), max_size=40)
BYTES_AS_TEXT = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
_HARMLESS = re.compile(r"[A-Za-z0-9 .,:/_>-]*")


def _is_fit_for_a_terminal(text: str) -> bool:
    return not any(
        unicodedata.category(letter) in ("Cc", "Cf") or "\udc80" <= letter <= "\udc9f" for letter in text
    )


@given(TEXT | BYTES_AS_TEXT)
def test_what_is_shown_commands_no_terminal(text: str) -> None:
    assert _is_fit_for_a_terminal(shown(text))
    if text.isprintable():
        assert shown(text) == text
    error = XlvsError(text, text)
    assert _is_fit_for_a_terminal(error.message)
    assert _is_fit_for_a_terminal(error.hint.replace("\n", ""))


# Records of labs.

_RECORDS = [
    json.loads(json.dumps({"version": 1, **record}))
    for record in (
        {
            "name": name, "topology": name, "bare": bare, "ipv6": True, "phase": "ready",
            "addresses": {field.name: getattr(chosen, field.name) for field in fields(chosen)},
        }
        for name, layout in (("dr", ONE_NETWORK), ("nat", TWO_NETWORKS), ("tun", BEHIND_ROUTER))
        for bare in (True, False)
        for chosen in (choose(Request(router=not bare), layout),)
    )
]  # fmt: skip


@st.composite
def damaged_records(draw: st.DrawFn) -> Any:
    """A record with some of its values, or of its addresses' values, replaced or taken away."""
    record = copy.deepcopy(draw(st.sampled_from(_RECORDS)))
    for _ in range(draw(st.integers(0, 3))):
        where = record["addresses"] if draw(st.booleans()) and "addresses" in record else record
        if not isinstance(where, dict) or not where:
            return record
        key = draw(st.sampled_from(sorted(where)) | TEXT)
        if draw(st.booleans()):
            where[key] = draw(
                JSON | st.sampled_from(["a;id", "$(id)", "-batch", "\x1b[0m", "1.2.3.4;id", "../x"])
            )
        else:
            where.pop(key, None)
    return record


def _check_safe(record: Record) -> None:
    """Nothing that a plan types, or writes into files, says anything to a shell."""
    check(record.addresses)
    plan = plan_of(record)
    words = [*plan.table, record.name, *plan.segments]
    for node in plan.nodes:
        words += [node.name, *node.commands, *node.routes]
        words += [each.name for each in node.interfaces]
        words += [address for each in node.interfaces for address in each.addresses]
    for word in words:
        assert _HARMLESS.fullmatch(word), word


@pytest.mark.parametrize("raw", _RECORDS, ids=lambda raw: f"{raw['name']}-{raw['bare']}")
def test_records_as_they_are_written_are_taken(raw: dict[str, Any]) -> None:
    record = state.parse_record(json.dumps(raw))
    assert record is not None
    _check_safe(record)


@settings(max_examples=300)
@given(damaged_records() | JSON)
def test_no_record_makes_a_lab_dangerous(raw: Any) -> None:
    record = state.parse_record(json.dumps(raw))
    if record is not None:
        _check_safe(record)


@given(TEXT | st.just("[" * 100_000) | st.just('{"version":' + "9" * 5000))
def test_any_text_is_a_record_or_none(text: str) -> None:
    assert state.parse_record(text) is None


@settings(max_examples=200)
@given(
    st.builds(
        Request,
        **{
            name: st.none() | TEXT | st.sampled_from(["192.0.2.7", "10.0.0.0/8", "0.0.0.0", "a;id"])
            for name in ("network", "vip", "dip", "client", "inside_network", "inside_dip")
        },
        rips=st.lists(TEXT | st.just("192.0.2.9"), max_size=2).map(tuple),
        real_servers=st.none() | st.integers(),
        interface=TEXT | st.sampled_from(["eth0", "a;id", "-n", "a b", "eth0.100"]),
        router=st.booleans(),
        gue_ports=st.lists(st.integers(), max_size=2).map(tuple),
    ),
    st.sampled_from([("dr", ONE_NETWORK), ("nat", TWO_NETWORKS), ("tun", BEHIND_ROUTER)]),
)
def test_any_request_for_a_lab_is_refused_or_safe(request_: Request, shape: tuple[str, Any]) -> None:
    try:
        chosen = choose(request_, shape[1])
    except UsageError as refused:
        said = refused.message
    else:
        said = ""
        _check_safe(Record("one", shape[0], chosen, bare=False, ipv6=True))
    assert _is_fit_for_a_terminal(said)


# Rules of marks, and what ipvsadm's command lines hold.

_RULE_WORDS = st.one_of(
    st.sampled_from(
        ["add", "1", "--dst", "192.0.2.0/24", "--src", "::/0", "--proto", "tcp", "--port", "80,443", "-h"]
    ),
    st.sampled_from(
        ["--source-port", "#", "--", "@file", "0x", "4294967296", "1.2.3.4/33", "--dst=1.2.3.4"]
    ),
    TEXT,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(_RULE_WORDS, max_size=8).map(" ".join), max_size=4).map("\n".join) | TEXT)
def test_any_text_is_rules_or_refused(text: str) -> None:
    said, rules = "line ", []
    try:
        rules = parse_lines(text)
    except UsageError as refused:
        said = refused.message
    assert said.startswith("line ")
    assert _is_fit_for_a_terminal(said)
    assert parse_lines("\n".join(map(format_line, rules))) == rules


@given(TEXT | BYTES_AS_TEXT, st.integers(-5, 2**40), st.integers(-5, 2**40))
def test_any_text_is_a_number_or_none(text: str, low: int, high: int) -> None:
    number = string_to_number(text, low, high)
    assert number is None or low <= number <= high
    assert abs(leading_number(text)) <= 2**31 - 1


@settings(deadline=None)
@given(st.text(alphabet="[]:.%0123456789abcdefx\x1b/-", max_size=50))
def test_any_text_is_an_endpoint_or_none(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("socket.gethostbyname", _no_such_name)
        patched.setattr("socket.getservbyname", _no_such_name)
        endpoint = parse_endpoint(text, TCP)
    assert endpoint is None or (len(endpoint[0]) in (4, 16) and (endpoint[1] is None or endpoint[1] < 65536))


def _no_such_name(*_: object) -> Any:
    raise OSError("no such name")


_RESTORED_WORDS = st.one_of(
    st.sampled_from(
        [
            "-A",
            "-a",
            "-E",
            "-e",
            "-D",
            "-d",
            "-C",
            "-L",
            "-S",
            "-Z",
            "-t",
            "-u",
            "-f",
            "-s",
            "-r",
            "-w",
            "-p",
            "-M",
            "-b",
            "-x",
            "-i",
            "-m",
            "-g",
            "--set",
            "-ln",
            "--pe",
        ]
    ),
    st.sampled_from(
        ["192.0.2.1:80", "[::1]:80", "192.0.2.9", "1", "rr", "\x1b[2J", "\x9b1m", "\r", "\0", "\x7f"]
    ),
    BYTES_AS_TEXT,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(_RESTORED_WORDS, max_size=8).map(" ".join), max_size=5).map("\n".join) | BYTES_AS_TEXT
)
def test_any_file_is_restored_or_refused(text: str) -> None:
    for words in map(words_of, command_lines(text)):
        assert not any(set(word) & set(" \t\r\n\0") for word in words)
    table = MemoryDatapath()

    @contextmanager
    def opener(**_: bool) -> Iterator[MemoryDatapath]:
        yield table

    out, complaints = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("socket.gethostbyname", _no_such_name)
        patched.setattr("socket.getservbyname", _no_such_name)
        patched.setattr("socket.gethostbyaddr", lambda _: ("\x1b[2Jevil\n", [], []))
        patched.setattr("socket.getservbyport", lambda *_: "\x9b1m")
        patched.setenv(ipvsadm.DEBUG_VARIABLE, "1")  # what is unexpected comes out as it is
        assert ipvsadm.run(["-R"], io.StringIO(text), out, complaints, opener) in (0, 1, 2, 255)
        assert ipvsadm.run(["-L"], io.StringIO(), out, complaints, opener) == 0
    for line in (out.getvalue() + complaints.getvalue()).split("\n"):
        assert _is_fit_for_a_terminal(line), repr(line)


# Answers of the kernel.


@given(st.binary(max_size=200))
def test_attributes_of_any_bytes_end(raw: bytes) -> None:
    for kind, value in rtnetlink._attributes(raw):
        assert 0 <= kind < 1 << 14
        assert len(value) <= len(raw)
