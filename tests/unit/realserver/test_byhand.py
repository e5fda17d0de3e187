# SPDX-License-Identifier: GPL-2.0-only
"""What counts as a real server that was typed by hand, from what ip(8) and iptables-save(8) tell."""

from __future__ import annotations

from typing import Any

import pytest

from xlvs.realserver import byhand, iptables
from xlvs.realserver.changes import HostRoute

pytestmark = pytest.mark.unit


def link(name: str, *addresses: str, up: bool = True) -> dict[str, Any]:
    entries = [
        {"local": address, "prefixlen": int(length)}
        for address, length in (one.split("/") for one in addresses)
    ]
    return {"ifname": name, "flags": ["UP"] if up else [], "addr_info": entries}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = []
    monkeypatch.setattr(byhand, "addresses", lambda: links)
    monkeypatch.setattr(iptables, "redirections", list)
    monkeypatch.setattr(HostRoute, "is_made", lambda _route: False)
    return links


def test_what_interfaces_have_by_themselves_is_nobodys_vip(machine: list[dict[str, Any]]) -> None:
    machine += [
        link("lo", "127.0.0.1/8", "::1/128", "127.0.0.53/32"),
        link("eth0", "192.0.2.101/24", "2001:db8::1/64"),
        link("sit0", "::192.0.2.101/96", "::127.0.0.1/96", "fe80::5/64"),
    ]
    assert byhand.real_servers(()) == []


def test_addresses_of_lo_and_of_tunnels(machine: list[dict[str, Any]]) -> None:
    machine += [
        link("lo", "127.0.0.1/8", "192.0.2.7/32", "192.0.2.8/24"),
        link("tunl0", "192.0.2.100/32"),
        link("gre0", up=False),
    ]
    found = {server.vip: server for server in byhand.real_servers(("192.0.2.7",))}
    assert set(found) == {"192.0.2.8", "192.0.2.100"}
    assert found["192.0.2.100"].tunnels == ("ipip",) and found["192.0.2.100"].device == "tunl0"


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("-A PREROUTING -d 192.0.2.100/32 -j REDIRECT", "192.0.2.100"),
        (
            "-A PREROUTING -d 192.0.2.100/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080",
            "192.0.2.100",
        ),
        ("-A PREROUTING -d 192.0.2.0/24 -j REDIRECT", ""),
        ("-A PREROUTING ! -d 192.0.2.100/32 -j REDIRECT", ""),
        ("-A PREROUTING -d 192.0.2.100/32 -j DNAT --to-destination 10.0.0.1", ""),
        ("-A OUTPUT -d 192.0.2.100/32 -j REDIRECT", ""),
        (":PREROUTING ACCEPT [0:0]", ""),
    ],
)
def test_redirections(line: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ran:
        returncode, stdout = 0, f"*nat\n{line}\nCOMMIT\n"

    monkeypatch.setattr("shutil.which", lambda name: name == "iptables-save")
    monkeypatch.setattr("subprocess.run", lambda *_words, **_options: Ran)
    assert [found for found, _ in iptables.redirections()] == ([address] if address else [])
