# SPDX-License-Identifier: GPL-2.0-only
"""To which address and port checks go, whatever becomes of the real server's port in the table."""

from __future__ import annotations

from pathlib import Path

from tests.unit.keepalived.test_verdicts import AROUND
from tests.unit.keepalived.verdicts import CORPUS
from xlvs.keepalived.parse import parse


def destinations(path: Path) -> list[tuple[int, list[tuple[str, int]]]]:
    """Of each real server the port in the table, and where its checks go: address and port."""
    found = []
    for server in parse(str(path), AROUND).configuration.virtual_servers:
        for one in server.real_servers:
            ways = [checker.connection for checker in one.checkers if hasattr(checker, "connection")]
            asked = [(".".join(map(str, way.address)), way.port) for way in ways]
            found.append((one.destination.port, asked))
    return found


def test_to_the_port_that_the_configuration_names() -> None:
    """Without NAT a real server has the virtual server's port, by fwmark none; checks keep theirs."""
    assert destinations(CORPUS / "where-checks-go.conf") == [
        (0, [("10.0.0.11", 8080), ("10.0.0.11", 8081)]),
        (0, [("10.0.0.12", 8080)]),
        (80, [("10.0.0.11", 8080)]),
        (8080, [("10.0.0.99", 8080), ("10.0.0.12", 8080)]),
        (8080, [("10.0.0.11", 8080)]),
    ]


def test_a_real_server_without_port_and_a_check_via_vip(tmp_path: Path) -> None:
    path = tmp_path / "keepalived.conf"
    path.write_text(
        "virtual_server 192.0.2.1 80 {\nlb_algo rr\nlb_kind DR\nprotocol TCP\n"
        "real_server 10.0.0.11 {\nTCP_CHECK {\n}\n}\n"
        "real_server 10.0.0.12 8080 {\nTCP_CHECK {\nvia vip\n}\n}\n}\n"
    )
    assert destinations(path) == [(80, [("10.0.0.11", 80)]), (80, [("10.0.0.12", 80)])]
