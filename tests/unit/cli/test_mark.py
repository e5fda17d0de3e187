# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs mark``: what it takes, what it refuses, and that what it writes it reads."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.cli import mark as command
from xlvs.cli import mark_rule
from xlvs.cli.main import main
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import UsageError
from xlvs.model import SCTP, TCP, UDP, MarkRule, Prefix

Type = Callable[..., tuple[int, str, str]]

NETWORK = Prefix(bytes((203, 0, 113, 0)), 24)
NETWORK6 = Prefix(b"\x20\x01\x0d\xb8" + bytes(12), 64)


def run(table: MemoryDatapath, words: str, stdin: str = "") -> tuple[int, str, str]:
    """Type ``xlvs mark`` on that table: the exit code, stdout and stderr."""

    @contextmanager
    def opened(write: bool = False, load: bool = False) -> Iterator[MemoryDatapath]:
        assert write or not load
        yield table

    out, complaints = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open_datapath", opened)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", complaints)
        code = main(["mark", *words.split()])
    return code, out.getvalue(), complaints.getvalue()


@pytest.fixture
def table() -> MemoryDatapath:
    """The table on which commands work here."""
    return MemoryDatapath()


@pytest.fixture
def type_mark(table: MemoryDatapath) -> Type:
    """Types ``xlvs mark`` and words, with that stdin: the exit code, stdout and stderr."""
    return lambda words, stdin="": run(table, words, stdin)


# Values.


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("0x10", 16), ("0XfFfFfFfF", 2**32 - 1), ("4294967295", 2**32 - 1)]
)
def test_marks(text: str, number: int) -> None:
    assert mark_rule.parse_mark(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "0x", "0x0", "-1", "+1", "1 ", "4294967296", "0x100000000", "1/0xff", "1e3", "1_0", "٣", "a"],
)  # fmt: skip
def test_what_is_no_mark(text: str) -> None:
    with pytest.raises(UsageError, match="no firewall mark"):
        mark_rule.parse_mark(text)


@pytest.mark.parametrize(
    ("text", "prefix", "written"),
    [
        ("203.0.113.0/24", NETWORK, "203.0.113.0/24"),
        ("203.0.113.0", Prefix(NETWORK.address, 32), "203.0.113.0"),
        ("203.0.113.7/32", Prefix(bytes((203, 0, 113, 7)), 32), "203.0.113.7"),
        ("0.0.0.0/0", Prefix(bytes(4), 0), "0.0.0.0/0"),
        ("::/0", Prefix(bytes(16), 0), "::/0"),
        ("2001:DB8:0:0::/64", NETWORK6, "2001:db8::/64"),
        ("::1", Prefix(bytes(15) + b"\1", 128), "::1"),
    ],
)
def test_prefixes(text: str, prefix: Prefix, written: str) -> None:
    assert mark_rule.parse_prefix(text) == prefix
    assert mark_rule.format_prefix(prefix) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no prefix"),
        ("www.example.com", "no prefix"),
        ("203.0.113/24", "no prefix"),
        ("203.0.113.010", "no prefix"),
        ("fe80::1%eth0", "no prefix"),
        ("[2001:db8::]/64", "no prefix"),
        ("203.0.113.0/33", "0 to 32"),
        ("203.0.113.0/", "0 to 32"),
        ("203.0.113.0/-1", "0 to 32"),
        ("203.0.113.0/255.255.255.0", "0 to 32"),
        ("::/129", "0 to 128"),
        ("203.0.113.1/24", "203.0.113.0/24"),
        ("2001:db8::1/64", "2001:db8::/64"),
    ],
)
def test_what_is_no_prefix(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        mark_rule.parse_prefix(text)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "ranges", "written"),
    [
        ("80", ((80, 80),), "80"),
        ("443,80", ((80, 80), (443, 443)), "80,443"),
        ("80,81,82-90,443", ((80, 90), (443, 443)), "80-90,443"),
        ("8000-8100,8050-8060,8090-8200", ((8000, 8200),), "8000-8200"),
        ("8000:8100", ((8000, 8100),), "8000-8100"),
        ("1-65535", ((1, 65535),), "1-65535"),
        ("80,80", ((80, 80),), "80"),
        ("80-80", ((80, 80),), "80"),
    ],
)
def test_ports(text: str, ranges: tuple[tuple[int, int], ...], written: str) -> None:
    assert mark_rule.parse_ports(text) == ranges
    assert mark_rule.format_ports(ranges) == written


@pytest.mark.parametrize(
    "text",
    ["", "0", "65536", "http", "80,", ",80", "90-80", "80-", "-80", "80-90-100", "80;443", "0-80", " 80"],
)
def test_what_are_no_ports(text: str) -> None:
    with pytest.raises(UsageError, match="no ports"):
        mark_rule.parse_ports(text)


# Commands.


def test_add(type_mark: Type, table: MemoryDatapath) -> None:
    assert type_mark("add 1 --dst 203.0.113.0/24 --proto tcp --port 80,443,8000-8100") == (0, "", "")
    assert type_mark("add 0x2 --dst 2001:db8::/64 --src ::/0 --source-port 1024-65535") == (0, "", "")
    assert type_mark("add 3 --dst 203.0.113.0/24 --src 198.51.100.0/24 --before 2") == (0, "", "")
    assert table.mark_rules() == [
        MarkRule(1, NETWORK, None, TCP, ((80, 80), (443, 443), (8000, 8100))),
        MarkRule(3, NETWORK, Prefix(bytes((198, 51, 100, 0)), 24)),
        MarkRule(2, NETWORK6, source_ports=((1024, 65535),)),
    ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("add", 2, "required: MARK, --dst"),
        ("add 1", 2, "required: --dst"),
        ("add 0 --dst 203.0.113.0/24", 2, "no firewall mark"),
        ("add 1 --dst 203.0.113.0/24 --src 2001:db8::/64", 2, "different address families"),
        ("add 1 --dst 203.0.113.0/24 --proto icmp", 2, "invalid choice"),
        ("add 1 --dst 203.0.113.0/24 --port 80 --port 443", 2, "--port is given twice"),
        ("add 1 --dst 203.0.113.0/24 --before 0", 2, "not the number of a rule"),
        ("add 1 --dst 203.0.113.0/24 --before 3", 1, "there is no rule 3: there is one"),
        ("add 7 --dst 192.0.2.0/24 --proto udp --port 53,50-52", 1, "rule 1 has the same conditions"),
        (f"add 1 --dst 203.0.113.0/24 --port {','.join(map(str, range(1, 43, 2)))}", 1, "20 ports"),
        ("delete", 2, "say which rule"),
        ("delete 5 --rule 1", 2, "say which rule"),
        ("delete --dst 192.0.2.0/24", 2, "begin with its mark"),
        ("delete 5 --proto udp", 2, "needs --dst"),
        ("delete 6", 1, "no rule gives the mark 6"),
        ("delete 5 --dst 192.0.2.0/24", 1, "no rule is like that"),
        ("delete 6 --dst 192.0.2.0/24 --proto udp --port 50-53", 1, "no rule is like that"),
        ("delete --rule 2", 1, "there is no rule 2"),
        ("", 2, "COMMAND"),
        ("flush", 2, "invalid choice"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(
    type_mark: Type, table: MemoryDatapath, words: str, code: int, said: str
) -> None:
    assert type_mark("add 5 --dst 192.0.2.0/24 --proto udp --port 50-53")[0] == 0
    before = table.mark_rules()
    ended, printed, complaint = type_mark(words)
    assert (ended, printed) == (code, "")
    assert said in complaint
    assert table.mark_rules() == before


def test_delete(type_mark: Type, table: MemoryDatapath) -> None:
    lines = [
        f"add {mark} --dst 192.0.2.{number} --port 80,443" for number, mark in enumerate((1, 2, 1, 3, 4))
    ]
    assert type_mark("restore", "\n".join(lines))[0] == 0
    one, two, _, three, four = table.mark_rules()
    assert type_mark("delete 1 --dst 192.0.2.2/32 --port 443,80") == (0, "", "")
    assert table.mark_rules() == [one, two, three, four]
    assert type_mark("delete --rule 2") == (0, "", "")
    assert table.mark_rules() == [one, three, four]
    type_mark("add 4 --dst 192.0.2.9")
    assert type_mark("delete 0x4") == (0, "", "")
    assert table.mark_rules() == [one, three]
    assert type_mark("clear") == (0, "", "")
    assert table.mark_rules() == []
    assert type_mark("clear") == (0, "", "")


def test_list(type_mark: Type) -> None:
    header = "Rule  Mark  Proto  Source  Destination  SourcePorts  Ports\n"
    assert type_mark("list") == (0, header, "")
    type_mark("add 1 --dst 203.0.113.0/24 --proto tcp --port 80,443")
    type_mark("add 4294967295 --dst 2001:db8::/64 --src 2001:db8:1::7 --source-port 53")
    assert type_mark("list")[1].splitlines() == [
        "Rule  Mark        Proto  Source         Destination     SourcePorts  Ports",
        "1     1           tcp    any            203.0.113.0/24  any          80,443",
        "2     4294967295  any    2001:db8:1::7  2001:db8::/64   53           any",
    ]
    code, printed, _ = type_mark("list --json")
    assert (code, json.loads(printed)) == (
        0,
        {
            "schema": 1,
            "rules": [
                {
                    "rule": 1, "mark": 1, "family": "ipv4", "protocol": "tcp", "source": None,
                    "destination": "203.0.113.0/24", "source_ports": [],
                    "ports": [{"first": 80, "last": 80}, {"first": 443, "last": 443}],
                },
                {
                    "rule": 2, "mark": 4294967295, "family": "ipv6", "protocol": "any",
                    "source": "2001:db8:1::7", "destination": "2001:db8::/64",
                    "source_ports": [{"first": 53, "last": 53}], "ports": [],
                },
            ],
        },
    )  # fmt: skip


def test_restore_takes_the_place_of_all(type_mark: Type, table: MemoryDatapath) -> None:
    type_mark("add 9 --dst 192.0.2.9")
    typed = "# of the web\n\n  add 1 --dst 203.0.113.0/24 --proto tcp --port 80\nadd 2 --dst 2001:db8::/64\n"
    assert type_mark("restore", typed) == (0, "", "")
    assert table.mark_rules() == [MarkRule(1, NETWORK, None, TCP, ((80, 80),)), MarkRule(2, NETWORK6)]
    assert type_mark("restore", "# nothing\n") == (0, "", "")
    assert table.mark_rules() == []


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("add 1", 2, "line 2: the following arguments are required: --dst"),
        ("add 1 --dst 192.0.2.1/24", 2, "line 2: '192.0.2.1/24' has bits set"),
        ("delete 1 --dst 192.0.2.1", 2, "line 2: argument add: invalid choice"),
        ("add 1 --dst 192.0.2.1 --before 1", 2, "line 2: unrecognized arguments: --before 1"),
        ("add 1 --dst 192.0.2.1 # my own", 2, "line 2: unrecognized arguments: # my own"),
        ("xlvs mark add 1 --dst 192.0.2.1", 2, "line 2: "),
        ("add 8 --dst 192.0.2.0/24", 1, "rules 1 and 2 have the same conditions"),
    ],
)
def test_restore_is_all_or_nothing(
    type_mark: Type, table: MemoryDatapath, line: str, code: int, said: str
) -> None:
    type_mark("add 9 --dst 192.0.2.9")
    before = table.mark_rules()
    ended, printed, complaint = type_mark("restore", f"add 1 --dst 192.0.2.0/24\n{line}\n")
    assert (ended, printed) == (code, "")
    assert said in complaint
    assert table.mark_rules() == before


def test_the_table_of_services_is_another(type_mark: Type, table: MemoryDatapath) -> None:
    type_mark("add 9 --dst 192.0.2.9")
    table.flush()
    assert len(table.mark_rules()) == 1


# Properties.


@st.composite
def prefix_texts(draw: st.DrawFn, size: int) -> str:
    length = draw(st.integers(0, size * 8))
    number = draw(st.integers(0, (1 << size * 8) - 1)) >> size * 8 - length << size * 8 - length
    return mark_rule.format_prefix(Prefix(number.to_bytes(size, "big"), length))


@st.composite
def port_texts(draw: st.DrawFn) -> str:
    words = []
    for _ in range(draw(st.integers(1, 8))):
        first, last = sorted(draw(st.tuples(st.integers(1, 65535), st.integers(1, 65535))))
        words.append(draw(st.sampled_from([f"{first}", f"{first}-{last}", f"{first}:{last}"])))
    return ",".join(words)


@st.composite
def typed_rules(draw: st.DrawFn) -> str:
    """The words of a rule as somebody might type them, in any order."""
    size = draw(st.sampled_from([4, 16]))
    mark = draw(st.integers(1, 2**32 - 1))
    options = [f"--dst {draw(prefix_texts(size))}"]
    if draw(st.booleans()):
        options.append(f"--src {draw(prefix_texts(size))}")
    if draw(st.booleans()):
        options.append(f"--proto {draw(st.sampled_from(list(mark_rule.PROTOCOLS)))}")
    if draw(st.booleans()):
        options.append(f"--port {draw(port_texts())}")
    if draw(st.booleans()):
        options.append(f"--source-port {draw(port_texts())}")
    place = draw(st.integers(0, len(options)))
    words = draw(st.permutations(options))
    return " ".join([*words[:place], draw(st.sampled_from([str(mark), hex(mark)])), *words[place:]])


@settings(max_examples=60, deadline=None)  # a parser is made for each line typed
@given(st.lists(typed_rules(), max_size=6))
def test_what_is_added_is_listed_saved_and_restored(typed: list[str]) -> None:
    original = MemoryDatapath()
    added = sum(run(original, f"add {words}")[0] == 0 for words in typed)
    assert len(original.mark_rules()) == added
    for rule in original.mark_rules():
        assert rule.protocol in (0, TCP, UDP, SCTP)

    code, saved, _ = run(original, "save")
    assert code == 0
    assert len(saved.splitlines()) == added
    copy = MemoryDatapath()
    assert run(copy, "restore", saved) == (0, "", "")
    assert copy.mark_rules() == original.mark_rules()
    assert run(copy, "save") == (0, saved, "")
    assert run(copy, "list") == run(original, "list")

    listed = json.loads(run(original, "list --json")[1])["rules"]
    assert [(entry["rule"], entry["mark"]) for entry in listed] == [
        (number, rule.mark) for number, rule in enumerate(original.mark_rules(), start=1)
    ]
    for line in saved.splitlines():
        assert run(copy, f"delete {line.removeprefix('add ')}") == (0, "", "")
    assert copy.mark_rules() == []


@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(["add", "1", "--dst", "--port", "80", "::/0", "1.2.3.4/8", ",", "-", "#"])
    ).map(" ".join)
)
def test_no_line_breaks_restore(line: str) -> None:
    table = MemoryDatapath()
    rule = MarkRule(1, NETWORK)
    table.set_mark_rules([rule])
    code, printed, complaint = run(table, "restore", line)
    assert code in (0, 1, 2)
    assert printed == ""
    if code:
        assert complaint
        assert table.mark_rules() == [rule]
