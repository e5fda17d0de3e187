# SPDX-License-Identifier: GPL-2.0-only
"""What the doctor reads and writes: the kernel's table, the journal, tunnels' headers, JSON."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from xlvs import model
from xlvs.doctor import mending
from xlvs.doctor.director import parse_ip_vs
from xlvs.doctor.finding import Finding, Mend
from xlvs.doctor.mending import Journal
from xlvs.doctor.probe import Target, envelope
from xlvs.errors import XlvsError
from xlvs.model import Destination, Service, ServiceKey, Tunnel

ROOT = Path(__file__).resolve().parents[3]
# Of a kernel: Linux 6.1, ip_vs_info_seq_show().
LISTING = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0000264:0050 wlc persistent 75000 FFFFFFFF
  -> C0000265:0050      Route   1      2          3
  -> C0000266:1F90      Masq    0      0          0
UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 rr
  -> [2001:0db8:0000:0000:0000:0000:0000:0002]:0035      Tunnel  7      0          1
FWM  00000007 sh
"""


def test_the_kernels_table() -> None:
    tcp, udp, mark = parse_ip_vs(LISTING)
    vip = ip_address("192.0.2.100").packed
    assert tcp.service.key == ServiceKey(model.IPV4, model.TCP, vip, 80)
    assert tcp.service.scheduler == "wlc" and tcp.service.persistence
    first, second = tcp.destinations
    assert first.destination == Destination(ip_address("192.0.2.101").packed, 80, model.ROUTE, 1)
    assert (first.active, first.inactive) == (2, 3)
    assert second.destination == Destination(ip_address("192.0.2.102").packed, 8080, model.MASQUERADE, 0)
    assert udp.service.key == ServiceKey(model.IPV6, model.UDP, ip_address("2001:db8::1").packed, 53)
    assert udp.destinations[0].destination.method == model.TUNNEL
    assert mark.service == Service(ServiceKey(model.IPV4, fwmark=7), "sh")


@pytest.mark.parametrize("kind", ["ipip", "gre", "gue"])
@pytest.mark.parametrize("version", [4, 6])
def test_tunnels(kind: str, version: int) -> None:
    """As RFC 2003, 2784 and draft-ietf-intarea-gue have them, checksums left out."""
    texts = (
        ("192.0.2.101", "192.0.2.10", "192.0.2.100") if version == 4 else ("fd00::1", "fd00::2", "fd00::3")
    )
    real, source, virtual = (ip_address(text).packed for text in texts)
    target = Target(real, 80, virtual, 80, model.TUNNEL, Tunnel(kind, 6080 if kind == "gue" else 0))
    headers, udp = envelope(target, source)
    outer = 20 if version == 4 else 40
    assert headers[outer - 2 * len(real) : outer] == source + real
    carried = 4 if version == 4 else 41
    protocol = headers[9] if version == 4 else headers[6]
    assert protocol == {"ipip": carried, "gre": 47, "gue": 17}[kind]
    assert len(headers) - outer == {"ipip": 0, "gre": 4, "gue": 12}[kind]
    assert udp == (outer if kind == "gue" else 0)
    if kind == "gre":
        assert headers[outer:] == (b"\0\0\x08\0" if version == 4 else b"\0\0\x86\xdd")
    if kind == "gue":
        assert headers[outer + 2 : outer + 4] == (6080).to_bytes(2, "big")
        assert headers[outer + 8 :] == bytes((0, carried, 0, 0))


class Shell:
    """Runs nothing: notes what was asked for, and fails where it is told to."""

    def __init__(self, *failing: str) -> None:
        self.ran: list[str] = []
        self._failing = failing

    def __call__(self, _host: str, command: str) -> tuple[int, str]:
        self.ran.append(command)
        return (1, "no") if command in self._failing else (0, "")


def finding(*mends: Mend) -> Finding:
    return Finding("host", "problem", (), "effect", mends)


ONE, TWO, THREE = (Mend("host", f"do {number}", f"undo {number}") for number in (1, 2, 3))


def test_mends_are_undone_the_last_first(tmp_path: Path) -> None:
    journal, shell = Journal(tmp_path / "journal.json"), Shell()
    mending.mend([finding(ONE, TWO), finding(TWO, THREE)], journal, shell)
    assert shell.ran == ["do 1", "do 2", "do 3"]
    assert Journal(tmp_path / "journal.json").read() == [ONE, TWO, THREE]
    shell.ran.clear()
    assert [each.mend for each in mending.undo(journal, shell)] == [THREE, TWO, ONE]
    assert shell.ran == ["undo 3", "undo 2", "undo 1"]
    assert journal.read() == [] and not list(tmp_path.iterdir())


def test_what_failed_was_not_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    done = mending.mend([finding(ONE, TWO, THREE)], journal, Shell("do 2"))
    assert [bool(each.error) for each in done] == [False, True, False]
    assert journal.read() == [ONE, THREE]


def test_what_cannot_be_undone_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    mending.mend([finding(ONE, TWO, THREE)], journal, Shell())
    done = mending.undo(journal, Shell("undo 2"))
    assert [bool(each.error) for each in done] == [False, True, False]
    assert journal.read() == [TWO]


def test_a_mend_is_written_down_before_it_is_done(tmp_path: Path) -> None:
    """So that one that was interrupted can be undone."""
    journal = Journal(tmp_path / "journal.json")

    def killed(_host: str, _command: str) -> tuple[int, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mending.mend([finding(ONE)], journal, killed)
    assert journal.read() == [ONE]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"host": 1}]', "\0"])
def test_a_damaged_journal(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.json").write_text(text)
    if text == "{}":  # no mends, like an empty list
        assert Journal(tmp_path / "journal.json").read() == []
        return
    with pytest.raises(XlvsError, match="cannot be read"):
        Journal(tmp_path / "journal.json").read()


def test_json_is_as_documented() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    fields = set(finding(ONE).as_json())
    table = page.partition("| of a finding |")[2].partition("## The checks")[0]
    assert {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")} == fields
