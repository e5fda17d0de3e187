# SPDX-License-Identifier: GPL-2.0-only
"""Settings, on a /proc/sys/net of the test's own: which value counts, and what is put back."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlvs.errors import XlvsError
from xlvs.realserver import plan, sysctl
from xlvs.realserver.changes import Address, LinkUp, Setting
from xlvs.realserver.wanted import HIDDEN, RealServer

pytestmark = pytest.mark.unit


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the setting `hidden`, which kernels have that were patched for it."""
    for interface in ("all", "lo", "eth0"):
        folder = tmp_path / "ipv4/conf" / interface
        folder.mkdir(parents=True)
        for name in ("arp_ignore", "arp_announce", "rp_filter", "hidden"):
            (folder / name).write_text("0\n")
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    return tmp_path


def values(proc: Path, name: str) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in proc.glob(f"ipv4/conf/*/{name}")}


def test_hidden_is_two_settings_and_goes_again(proc: Path) -> None:
    assert sysctl.has_hidden()
    made = plan.changes([RealServer("192.0.2.100", arp=HIDDEN)])
    settings = [change for change in made if isinstance(change, Setting)]
    assert [type(change) for change in made] == [Setting, Setting, LinkUp, Address], "silence comes first"
    befores = [change.look() for change in settings]
    for change, before in zip(settings, befores, strict=True):
        change.make(before)
    assert values(proc, "hidden") == {"all": "1\n", "lo": "1\n", "eth0": "0\n"}
    assert all(change.is_made() for change in settings)
    for change, before in zip(settings, befores, strict=True):
        assert change.undo(before) == ""
    assert set(values(proc, "hidden").values()) == {"0\n"}


def test_kernels_without_hidden(proc: Path) -> None:
    for path in proc.glob("ipv4/conf/*/hidden"):
        path.unlink()
    assert not sysctl.has_hidden()
    with pytest.raises(XlvsError, match="no setting"):
        Setting("ipv4/conf/all/hidden", "1").look()


@pytest.mark.parametrize("found", ["1", "2", "8"])
def test_what_is_silent_already_stays(proc: Path, found: str) -> None:
    path = proc / "ipv4/conf/all/arp_ignore"
    path.write_text(f"{found}\n")
    setting = Setting("ipv4/conf/all/arp_ignore", "1", sysctl.SILENT)
    setting.make(setting.look())
    assert path.read_text() == f"{found}\n"
    assert setting.undo(found) == ""
    assert path.read_text() == f"{found}\n"


def test_what_somebody_changed_since_stays(proc: Path) -> None:
    setting = Setting("ipv4/conf/all/arp_announce", "2")
    setting.make("0")
    (proc / "ipv4/conf/all/arp_announce").write_text("1\n")
    assert "it stays" in setting.undo("0")
    assert (proc / "ipv4/conf/all/arp_announce").read_text() == "1\n"


@pytest.mark.parametrize(
    ("everywhere", "own", "counts"), [("0", "1", 1), ("1", "0", 1), ("2", "1", 2), ("0", "0", 0)]
)
def test_the_higher_of_two_counts(proc: Path, everywhere: str, own: str, counts: int) -> None:
    (proc / "ipv4/conf/all/rp_filter").write_text(f"{everywhere}\n")
    (proc / "ipv4/conf/eth0/rp_filter").write_text(f"{own}\n")
    assert sysctl.effective("eth0", sysctl.RP_FILTER) == counts


def test_names_of_vlans_have_dots() -> None:
    assert (
        str(Setting(sysctl.name("eth0.7", "rp_filter"), "2")) == "sysctl -w net/ipv4/conf/eth0.7/rp_filter=2"
    )
    assert str(Setting(sysctl.name("lo", "rp_filter"), "2")) == "sysctl -w net.ipv4.conf.lo.rp_filter=2"
