# SPDX-License-Identifier: GPL-2.0-only
"""The language: what statements a text stands for, and where each of them is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlvs.errors import shown
from xlvs.keepalived.diagnostics import ConfigurationError, Findings, Verdict
from xlvs.keepalived.parse import parse
from xlvs.keepalived.reader import Reader
from xlvs.keepalived.surroundings import Surroundings
from xlvs.keepalived.words import QuoteError, split, split_escaped, without_comment

AROUND = Surroundings("director", "director", {"lo": 0x49, "eth0": 0x1043}, 2)


def _statements(folder: Path, text: str, **others: str) -> list[tuple[str, int, str]]:
    """File, line and text of every statement; ``others`` are more files, by stem."""
    for name, content in others.items():
        (folder / f"{name}.conf").write_text(content)
    path = folder / "main.conf"
    path.write_text(text)
    reader = Reader(str(path), AROUND, Findings())
    found = []
    for code, statement in reader.statements():
        position = reader.position(code)
        found.append((Path(position.file).name, position.line, statement))
    return found


def _texts(folder: Path, text: str, **others: str) -> list[str]:
    return [statement for _, _, statement in _statements(folder, text, **others)]


def test_lines_comments_and_braces(tmp_path: Path) -> None:
    text = "a 1 # no\n\n  b { c ! no\n }\nd\\#e {\n{ }\nf}g\n"
    assert _statements(tmp_path, text) == [
        ("main.conf", 1, "a 1"),
        ("main.conf", 3, "b"),
        ("main.conf", 3, "{"),
        ("main.conf", 3, "c"),
        ("main.conf", 4, "}"),
        ("main.conf", 5, "d#e"),
        ("main.conf", 5, "{"),
        ("main.conf", 6, "{"),
        ("main.conf", 6, "}"),
        ("main.conf", 7, "f"),
        ("main.conf", 7, "}"),
        ("main.conf", 7, "g"),
    ]


def test_braces_in_quotes_are_letters(tmp_path: Path) -> None:
    assert _texts(tmp_path, 'a "{" b {\n') == ['a "{" b', "{"]


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "deep.conf").write_text("include flat.conf\n")
    (tmp_path / "d" / "flat.conf").write_text("deep\n")
    found = _statements(
        tmp_path, "include {b,a}.conf\ninclude c*.conf\ninclude d/deep.conf\nend\n",
        a="a\n", b="b\n", c2="c2\n", c1="\nc1",
    )  # fmt: skip
    assert found == [
        ("b.conf", 1, "b"),
        ("a.conf", 1, "a"),
        ("c1.conf", 2, "c1"),
        ("c2.conf", 1, "c2"),
        ("flat.conf", 1, "deep"),
        ("main.conf", 4, "end"),
    ]


def test_a_file_that_includes_itself_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlvs.keepalived.reader._MOST_FILES", 200)
    assert len(_texts(tmp_path, "a\ninclude main.conf\ninclude main.conf\n")) <= 400


def test_conditions(tmp_path: Path) -> None:
    text = "@director a\n@other b\n@^other c\n@^director d\n@director\n"
    assert _texts(tmp_path, text) == ["a", "c"]


def test_definitions(tmp_path: Path) -> None:
    text = "$A=1\n$B=${A}2\nx $A ${B}3 $A, $(A) $AB ${C}\n$A=9\ny $B\n"
    assert _texts(tmp_path, text) == ["x 1 123 1, $(A) $AB $", "{", "C", "}", "y 92"]


def test_definitions_of_several_lines(tmp_path: Path) -> None:
    text = "$INNER= \\\n  c $N \\\n  # no\n  d\n$OUTER=a \\\n$N=7 \\\n$INNER \\\nb\nx\n$OUTER\ny $OUTER z\n"
    assert _texts(tmp_path, text) == ["x", "a", "c 7", "d", "b", "y $OUTER z"]


def test_predefined_names(tmp_path: Path) -> None:
    assert _texts(tmp_path, "a ${_PWD} ${_INSTANCE} ${_RANDOM 7 7}\n") == [f"a {tmp_path} director 7"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("~SEQ(i,1,3) a$ib", ["a$ib"] * 3),
        ("~SEQ(i,1,3) a $i", ["a 1", "a 2", "a 3"]),
        ("~SEQ(i, 3, -1, 1) ${i}", ["3", "2", "1"]),
        ("~SEQ(i,-2) ${i}", ["-1", "-2"]),
        ("~SEQx(i,9,0xb) ${i}", ["9", "a", "b"]),
        ("~SEQ(i,1,2) ~SEQ(j,1,2) $i $j", ["1 1", "1 2", "2 1", "2 2"]),
        ("~LST(i,a,b) $i", ["a", "b"]),
        ("~LST({i, j},{a,1},{b}) $i-${j}", ["$i-1", "$i-"]),
        ("~LST({i,j},{a,1},{b}) $i ${j}", ["a 1", "b"]),
    ],
)
def test_sequences(tmp_path: Path, line: str, expected: list[str]) -> None:
    assert _texts(tmp_path, line + "\nend\n") == [*expected, "end"]


def test_an_endless_sequence_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlvs.keepalived.reader.MOST_PRODUCED", 1000)
    with pytest.raises(ConfigurationError, match="sequences make more than"):
        _texts(tmp_path, "~SEQ(i,1,100000000000) $A\n$A=\n")


@pytest.mark.parametrize("text", ["$A=$A\n$A\n", "$A=$B x\n$B=$A y\nz $A\n", "$A=${A}${A}\n$A\n"])
def test_definitions_of_themselves_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.conf"
    path.write_text(text)
    assert parse(str(path), AROUND).verdict is Verdict.FAULTY


def test_words() -> None:
    assert split('a "b c"d "" e') == ["a", "b c", "d", "", "e"]
    assert split("a\u00a0b c") == ["a\u00a0b", "c"]
    assert split_escaped(r"""x 'a b' "c'd" e\ f \x41\101\cA\n""") == ["x", "a b", "c'd", "e f", "AA\x01\n"]
    for wrong in ("'a", '"a', "a\\"):
        with pytest.raises(QuoteError):
            split_escaped(wrong)


def test_comments() -> None:
    assert without_comment('  a "#!" # b ') == ('a "#!"', False)
    assert without_comment("a \\! b ! c") == ("a ! b", False)
    assert without_comment('a "b # c') == ('a "b # c', True)
    assert without_comment("a b  \\") == ("a b\\", False)


_PIECES = st.sampled_from(
    [
        "global_defs",
        "virtual_server",
        "real_server",
        "virtual_server_group",
        "vrrp_instance",
        "vrrp_script",
        "track_file",
        "static_ipaddress",
        "static_routes",
        "static_rules",
        "bfd_instance",
        "SSL",
        "TCP_CHECK",
        "HTTP_GET",
        "MISC_CHECK",
        "SMTP_CHECK",
        "DNS_CHECK",
        "UDP_CHECK",
        "FILE_CHECK",
        "BFD_CHECK",
        "GRPC_CHECK",
        "url",
        "host",
        "path",
        "digest",
        "regex",
        "status_code",
        "weight",
        "group",
        "fwmark",
        "10.0.0.1",
        "10.0.0.2",
        "fd00::1",
        "10.0.0.1-5",
        "10.0.0.0/8",
        "fe80::1",
        "80",
        "0",
        "-1",
        "5x",
        "99999999999999999999",
        "1.5",
        "eth0",
        "lvs_sched",
        "sh",
        "lvs_method",
        "TUN",
        "type",
        "gue",
        "port",
        "csum",
        "NAT",
        "DR",
        "protocol",
        "TCP",
        "sorry_server",
        "persistence_granularity",
        "255.255.0.0",
        "quorum",
        "hysteresis",
        "alpha",
        "omega",
        "notify_up",
        "misc_path",
        "user",
        "payload",
        "require_reply",
        "0x",
        "include",
        "include",
        "nosuch.conf",
        "@director",
        "@^x",
        "$A",
        "$A=",
        "${A}",
        "$B=\\",
        "~SEQ(A,1,3)",
        "~SEQx(",
        "~LST({A,B},{1,2})",
        "~LST(",
        '"',
        "'",
        "\\",
        "{",
        "}",
        "{",
        "}",
        "{",
        "}",
        "#",
        "!",
        "lvs_sync_daemon",
        "lvs_timeouts",
        "smtp_server",
        "notification_email",
        "vrrp_mcast_group4",
        "umask",
        "include_check",
        "virtual_ipaddress",
        "virtual_routes",
        "virtual_rules",
        "track_script",
        "unicast_peer",
        "use_vmac",
        "use_ipvlan",
        "via",
        "from",
        "to",
        "table",
        "dev",
        "nexthop",
        "encap",
        "mpls",
        "priority",
        "from",
        "default",
        "dev",
        "brd",
        "+",
        "label",
        "peer",
        "ü",
        "\u0000",
    ]
)
_LINES = st.lists(st.lists(_PIECES | st.text(max_size=6), max_size=6).map(" ".join), max_size=25)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=_LINES, junk=st.binary(max_size=8))
def test_nothing_makes_the_parser_crash(tmp_path: Path, lines: list[str], junk: bytes) -> None:
    path = tmp_path / "fuzz.conf"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass") + junk)
    outcome = parse(str(path), AROUND)
    said = [str(diagnostic) for diagnostic in outcome.diagnostics]
    assert said == [shown(one) for one in said]
