# SPDX-License-Identifier: GPL-2.0-only
"""What is read again of a configuration that has changed: no more than that, and with the same result."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlvs.keepalived import parse as parsing
from xlvs.keepalived import reader
from xlvs.keepalived.configuration import VirtualServer
from xlvs.keepalived.diagnostics import ConfigurationError
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.memory import BlockDraft, Kept, Memory
from xlvs.keepalived.origin import Beginning
from xlvs.keepalived.parse import parse
from xlvs.keepalived.surroundings import Surroundings

AROUND = Surroundings("director", "director", {"lo": 0x49, "eth0": 0x1043}, 2)


def _server(number: int, weight: int = 1, more: str = "") -> str:
    return (
        f"virtual_server 192.0.2.{number} 80 {{\n    lb_algo wrr\n    lb_kind NAT\n    protocol TCP\n{more}"
        f"    real_server 10.0.{number}.1 80 {{\n        weight {weight}\n        TCP_CHECK {{\n"
        f"            connect_timeout 3\n        }}\n    }}\n"
        f"    real_server 10.0.{number}.2 80 {{\n        weight {weight}\n    }}\n}}\n"
    )


PIECES = [
    *(_server(number, weight) for number in (1, 2, 3) for weight in (1, 5)),
    # What is wrong in it is told again, where it stands now.
    _server(4, 1, "    no_such_keyword\n"),
    _server(5, 1, "    quorum 900000\n    hysteresis x\n"),
    _server(6, 1, "    unknown { in }\n"),
    _server(7, 1, "    # a comment with a brace }\n    delay_loop 5 ! another\n"),
    "virtual_server nowhere 80 {\n    protocol TCP\n}\n",
    "virtual_server 192.0.2.8 80 {\n    protocol TCP\n}\n",
    "virtual_server 192.0.2.9 80 {\n}\nvirtual_server 192.0.2.9 81 {\n real_server 10.9.9.9 81 { }\n}\n",
    # What stands elsewhere decides what is in it.
    "$WEIGHT=3\n",
    "$WEIGHT=4\n",
    _server(10, 1, "    hysteresis 0\n    weight $WEIGHT\n"),
    "$REAL=real_server 10.1.1.1 80 { \\\n weight 2 \\\n }\n",
    "virtual_server 192.0.2.11 80 {\n    protocol TCP\n    $REAL\n}\n",
    "~SEQ(i,1,3) virtual_server 192.0.3.$i 80 { real_server 10.3.0.$i 80 { weight $i } }\n",
    "virtual_server 192.0.2.12 80 {\n    ~SEQ(i,1,4) real_server 10.4.0.$i 80 { weight 2 }\n}\n",
    "@director virtual_server 192.0.2.13 80 {\n@director   real_server 10.5.0.1 80 { }\n@director }\n",
    "@other virtual_server 192.0.2.13 80 {\n@other   real_server 10.5.0.2 80 { }\n@other }\n",
    _server(14, 1, "@other    persistence_timeout 50\n@^other    persistence_timeout 60\n"),
    "global_defs {\n    checker_log_all_failures\n}\n",
    "global_defs {\n    smtp_alert_checker off\n    script_user root\n}\n",
    "virtual_server_group web {\n    192.0.2.20 80\n    192.0.2.21-22 80\n}\n",
    "virtual_server_group web {\n    fwmark 5\n}\n",
    "virtual_server group web {\n    protocol TCP\n    real_server 10.6.0.1 80 {\n    }\n}\n",
    "track_file load {\n    file /nowhere\n    weight 1\n}\n",
    _server(15, 1, "    real_server 10.0.15.9 80 {\n    FILE_CHECK {\n    track_file load\n    }\n    }\n"),
    _server(16, 1, "    quorum_up /bin/true\n"),
    _server(17, 1, '    virtualhost "a b"\n    quorum_up "/no/such script"\n'),
    "virtual_server 192.0.2.18 80 {\n    real_server 10.0.18.1 80 {\n        MISC_CHECK {\n"
    "            misc_path /no/such/script\n            user root\n        }\n    }\n}\n",
    "real_server 10.7.0.1 80 {\n}\n",
    # No part of a block: braces too many, too few, elsewhere.
    "}\n",
    "virtual_server 192.0.2.30 80\n",
    "virtual_server 192.0.2.31 80 {\n    real_server 10.8.0.1 80 {\n    weight 2\n}\n",
    "virtual_server 192.0.2.32 80 {\n    real_server 10.8.0.1 80 {\n    weight 2\n    }\n  }\n",
    "vrrp_instance V {\n    state BACKUP\n    virtual_router_id\n}\n",
    "vrrp_instance W {\n    interface eth0\n    virtual_router_id 7\n    priority 3\n",
    "$OPEN=weight 7 \\\n",
    "include second.conf\n",
    "include second.conf\n",
    "include *.d\n",
    "virtual_server 192.0.2.33 80 {\n    include inner.conf\n}\n",
    "   \n# only a remark\n",
    "static_ipaddress {\n    192.0.2.40 dev eth0\n}\n",
]
FILES = ("main.conf", "second.conf", "inner.conf", "third.d")

files = st.fixed_dictionaries({name: st.lists(st.sampled_from(PIECES), max_size=7) for name in FILES})
edits = st.lists(
    st.tuples(
        st.sampled_from(FILES), st.sampled_from(("insert", "remove", "replace", "swap")),
        st.integers(0, 10), st.sampled_from(PIECES),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def _read(folder: Path, memory: Memory | None) -> str:
    """All that a reading says, positions too."""
    try:
        outcome = parse(str(folder / "main.conf"), AROUND, memory)
    except ConfigurationError as error:
        return str(error)
    return "\n".join(map(repr, (outcome.configuration, outcome.diagnostics, outcome.verdict)))


def _read_line_by_line(folder: Path) -> str:
    """The same, without any notion of blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "pieces", lambda text, _known: iter([text.split("\n")]))
        patch.setattr(parsing, "grouped", iter)
        return _read(folder, None)


def _edit(pieces: list[str], kind: str, at: int, piece: str) -> None:
    if kind == "insert" or not pieces:
        pieces.insert(at, piece)
    elif kind == "remove":
        del pieces[at % len(pieces)]
    elif kind == "replace":
        pieces[at % len(pieces)] = piece
    else:
        pieces.append(pieces.pop(at % len(pieces)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files, st.lists(edits, max_size=3))
def test_a_reading_with_a_memory_is_a_fresh_reading(
    first: dict[str, list[str]], steps: list[list[tuple[str, str, int, str]]]
) -> None:
    memory = Memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step in [[], *steps, []]:
            for file, kind, at, piece in step:
                _edit(first[file], kind, at, piece)
            for file, pieces in first.items():
                # Files that include themselves are read some thousand times.
                kept = [one for one in pieces if file == "main.conf" or "include" not in one]
                (folder / file).write_text("".join(kept))
            expected = _read_line_by_line(folder)
            assert _read(folder, None) == expected
            assert _read(folder, memory) == expected


def _servers(path: Path, memory: Memory) -> tuple[VirtualServer, ...]:
    return parse(str(path), AROUND, memory).configuration.virtual_servers


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "main.conf"
    memory = Memory()
    plain = "".join(_server(number) for number in range(1, 6))
    replaced = "virtual_server 192.0.2.9 80 {\n    ~SEQ(i,1,4) real_server 10.4.0.$i 80 { weight $W }\n}\n"
    path.write_text(f"$W=2\n{plain}{replaced}")
    before = _servers(path, memory)
    assert len(before) == 6
    path.write_text(f"$W=2\n# one line more\n{plain}{replaced}".replace("10.0.3.1 80", "10.0.3.7 80"))
    after = _servers(path, memory)
    assert [one is other for one, other in zip(before, after, strict=True)] == [
        True, True, False, True, True, True,
    ]  # fmt: skip
    # They know where they stand now.
    lines = path.read_text().splitlines()
    for server in after:
        assert lines[server.position.line - 1].startswith("virtual_server")
        for real_server in server.real_servers:
            assert "real_server" in lines[real_server.position.line - 1]
    path.write_text(path.read_text().replace("$W=2", "$W=3"))
    last = _servers(path, memory)
    assert [one is other for one, other in zip(after, last, strict=True)] == [True] * 5 + [False]
    assert last[-1].real_servers[0].destination.weight == 3


def test_settings_that_virtual_servers_take_over_are_not_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "main.conf"
    memory = Memory()
    path.write_text(_server(1))
    (before,) = _servers(path, memory)
    path.write_text(f"{_server(1)}global_defs {{\n    checker_log_all_failures\n}}\n")
    (after,) = _servers(path, memory)
    assert not before.real_servers[0].checkers[0].schedule.log_all_failures
    assert after.real_servers[0].checkers[0].schedule.log_all_failures


def test_a_virtual_server_that_asked_for_more_than_its_text_is_not_kept() -> None:
    whole = Draft()
    asking, modest = Kept("asking", Beginning("f", 0)), Kept("modest", Beginning("f", 9))
    asking.block_draft, modest.block_draft = BlockDraft(whole), BlockDraft(whole)
    assert asking.block_draft.track_files is whole.track_files
    memory = Memory()
    memory.learn([asking, modest], ())
    assert list(memory.known) == ["modest"]
    asking.block_draft.missing_interface = True
    assert whole.missing_interface, "what is changed is changed for the whole configuration"


def test_many_beginnings_without_an_end_take_no_time_squared(tmp_path: Path) -> None:
    # Each would be looked through to the end of the file, gigabytes of letters together.
    path = tmp_path / "main.conf"
    indented = "".join(
        f"virtual_server 10.{number >> 8}.{number & 255}.1 80 {{\n  real_server 192.0.2.1 80 {{ }}\n  }}\n"
        for number in range(3000)
    )
    path.write_text(f"{indented}{_server(1)}")
    assert len(_servers(path, Memory())) == 3001
