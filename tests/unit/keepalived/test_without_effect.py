# SPDX-License-Identifier: GPL-2.0-only
"""What is asked for and cannot be had is said, with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.keepalived.test_verdicts import AROUND
from xlvs.keepalived.diagnostics import Diagnostic, Severity, Verdict
from xlvs.keepalived.parse import parse

SERVER = """\
{before}
virtual_server {virtual} {{
    lb_algo rr
    lb_kind {kind}
    protocol {protocol}
    real_server {real} 80 {{
        {check} {{
            connect_timeout 1
            via vip
        }}
    }}
}}
"""


def _findings(tmp_path: Path, text: str) -> tuple[list[Diagnostic], Verdict]:
    path = tmp_path / "keepalived.conf"
    path.write_text(text)
    outcome = parse(str(path), AROUND)
    return list(outcome.diagnostics), outcome.verdict


def _server(**fields: str) -> str:
    common = {
        "before": "",
        "virtual": "10.0.0.1 80",
        "protocol": "TCP",
        "real": "10.0.0.11",
        "check": "TCP_CHECK",
        "kind": "DR",
    }
    return SERVER.format(**{**common, **fields})


@pytest.mark.parametrize("check", ["UDP_CHECK", "DNS_CHECK", "PING_CHECK"])
def test_via_vip_is_for_checks_by_tcp(tmp_path: Path, check: str) -> None:
    (found,), verdict = _findings(tmp_path, _server(check=check))
    assert verdict is Verdict.FAULTY and found.severity is Severity.ERROR
    assert found.position.line == 9
    assert "for checks by TCP" in found.message and "remove it, or add a TCP_CHECK" in found.message


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"protocol": "UDP"}, "not one of TCP"),
        ({"virtual": "fwmark 7"}, "no virtual address"),
        ({"virtual": "fd00::1 80", "kind": "TUN"}, "not of the virtual address's family"),
    ],
)
def test_via_vip_needs_a_virtual_address_by_tcp(tmp_path: Path, fields: dict[str, str], why: str) -> None:
    found, _ = _findings(tmp_path, _server(**fields))
    (note,) = (one for one in found if "via vip" in one.message)
    assert note.severity is Severity.NOTE and note.position.line == 7
    assert why in note.message and "remove 'via vip'" in note.message


def test_via_vip_where_it_works_is_not_talked_about(tmp_path: Path) -> None:
    assert _findings(tmp_path, _server()) == ([], Verdict.GOOD)


@pytest.mark.parametrize(
    "line",
    [
        "lvs_sync_daemon eth0",
        "reload_file",
        "vrrp_strict",
        "nftables",
        "lvs_netlink_cmd_rcv_bufs 65536",
    ],
)
def test_keywords_without_effect_are_noted(tmp_path: Path, line: str) -> None:
    found, verdict = _findings(tmp_path, f"global_defs {{\n    {line}\n}}\n")
    (note,) = (one for one in found if one.severity is Severity.NOTE)
    assert verdict is Verdict.GOOD and note.position.line == 2
    assert note.message.startswith(f"'{line.split()[0]}': ")
