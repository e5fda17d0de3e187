# SPDX-License-Identifier: GPL-2.0-only
"""`make install`: the units as systemd reads it, man pages and completions where they are looked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xlvs.kernel.bpffs import MOUNT_POINT

pytestmark = pytest.mark.unit

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything stands as under /."""
    root = tmp_path_factory.mktemp("root")
    subprocess.run(
        [PROJECT / "scripts/install-system", PROGRAMS, root], check=True, capture_output=True, cwd="/"
    )
    return root


UNITS = {"xlvs.service": ["load", "load", "save", "detach"], "xlvs-realserver.service": ["realserver"] * 2}
"""Each unit, with the nouns of its commands."""


def unit_lines(root: Path, unit: str = "xlvs.service") -> list[str]:
    return (root / "etc/systemd/system" / unit).read_text().splitlines()


@pytest.mark.parametrize("name", [*UNITS, "xlvsd.service", "xlvs-interfaces.service", "xlvs-vrrp.service"])
def test_systemd_finds_no_fault(installed: Path, name: str) -> None:
    unit = installed / "etc/systemd/system" / name
    # Its pages are where man looks, once they are installed at /.
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", str(unit)],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_LOG_LEVEL": "notice"},
    )  # fmt: skip
    about_ours = [line for line in ran.stderr.splitlines() if "xlvs" in line]
    assert not about_ours
    assert ran.returncode == 0, ran.stderr


def test_a_fault_would_be_found(installed: Path, tmp_path: Path) -> None:
    """What the test above relies upon: a missing program, and an unknown setting."""
    for old, new in ((f"{PROGRAMS}/xlvs", "/nowhere/xlvs"), ("Before=", "Befour=")):
        unit = tmp_path / "xlvs.service"
        unit.write_text("\n".join(unit_lines(installed)).replace(old, new))
        ran = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        assert "xlvs.service" in ran.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_order_at_boot_and_at_the_end(installed: Path, unit: str) -> None:
    lines = unit_lines(installed, unit)
    settings = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    before = {word for name, value in settings if name == "Before" for word in value.split()}
    after = {word for name, value in settings if name == "After" for word in value.split()}
    wanted = {word for name, value in settings if name == "Wants" for word in value.split()}
    assert before == {"network-online.target"} == wanted - {"xlvs-interfaces.service"}
    assert ("xlvs-interfaces.service" in wanted) == (unit == "xlvs.service")
    # Interfaces are up before us, and go down after us.
    assert {"network.target", "systemd-networkd-wait-online.service"} <= after
    assert not before & after
    commands = [value.split()[1] for name, value in settings if name.startswith("Exec")]
    assert commands == UNITS[unit]


@pytest.mark.parametrize("unit", UNITS)
def test_commands_of_the_unit_are_commands(installed: Path, unit: str) -> None:
    for line in unit_lines(installed, unit):
        if line.startswith("Exec"):
            words = line.partition("=")[2].replace("$XLVS_LOAD", "").split()
            known = subprocess.run([*words[:2], "--help"], capture_output=True, text=True, check=True).stdout
            assert all(word in known for word in words[2:])


def test_vrrp_beside_xlvsd(installed: Path) -> None:
    """keepalived as a whole gives way to xlvsd, which keeps the table; for VRRP alone it stands beside."""

    def together(unit: str, setting: str) -> set[str]:
        lines = unit_lines(installed, unit)
        return {
            word for line in lines if line.startswith(f"{setting}=") for word in line.split("=")[1].split()
        }

    assert "keepalived.service" in together("xlvsd.service", "Conflicts")
    assert "xlvs-vrrp.service" not in together("xlvsd.service", "Conflicts")
    assert "xlvsd.service" not in together("xlvs-vrrp.service", "Conflicts")
    assert "xlvsd.service" in together("xlvs-vrrp.service", "After")
    (command,) = (
        line.partition("=")[2]
        for line in unit_lines(installed, "xlvs-vrrp.service")
        if line.startswith("ExecStart=")
    )
    known = subprocess.run([command.split()[0], "--help"], capture_output=True, text=True, check=False)
    assert all(option in known.stdout + known.stderr for option in command.split()[1:-1])


def test_another_configuration_than_the_usual_is_not_skipped(installed: Path) -> None:
    """A condition on /etc/keepalived/keepalived.conf would have systemd start nothing, and say nothing."""
    for unit in ("xlvsd.service", "xlvs-vrrp.service"):
        assert not [line for line in unit_lines(installed, unit) if line.startswith("Condition")]


def test_interfaces_are_followed(installed: Path) -> None:
    """From the start of the table's service on, and after its data plane is there; it ends before that."""
    lines = unit_lines(installed, "xlvs-interfaces.service")
    assert {"After=xlvs.service", "PartOf=xlvs.service", f"ExecStart={PROGRAMS}/xlvs follow"} <= set(lines)
    # A process in another mount namespace would not see the pins that commands make.
    private = ("Private", "ProtectSystem", "ProtectHome", "ReadOnly", "Inaccessible", "Dynamic", "Root")
    assert not [line for line in lines if line.startswith(private)]


_MATCH = re.compile(r'(\w+)(?:\{(\w+)\})?(==|!=|\+=)"([^"]*)"')


def wanted_by_udev(rules: Path, event: dict[str, str], root: Path) -> list[str]:
    """The units that the rules have systemd start for an event (udev(7)); a fault in them fails."""
    wanted = []
    for line in rules.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        words = [_MATCH.fullmatch(word) for word in line.split(", ")]
        tagged, matches, units = False, True, []
        for word in words:
            assert word is not None, line
            key, name, operator, value = word.groups()
            if operator == "+=":
                assert (key, name) in {("TAG", None), ("ENV", "SYSTEMD_WANTS")}
                tagged = tagged or (key, value) == ("TAG", "systemd")
                units += [value] if key == "ENV" else []
                continue
            assert key in {"ACTION", "SUBSYSTEM", "KERNEL", "TEST"}
            is_so = (root / value[1:]).exists() if key == "TEST" else event[key] == value
            matches = matches and is_so == (operator == "==")
        if matches:
            assert tagged, "systemd sees no device without its tag"
            wanted += units
    return wanted


def test_udev_starts_whoever_follows(installed: Path, tmp_path: Path) -> None:
    rules = installed / "etc/udev/rules.d/80-xlvs.rules"
    event = {"ACTION": "add", "SUBSYSTEM": "net", "KERNEL": "bond0"}
    assert wanted_by_udev(rules, event, tmp_path) == []
    (tmp_path / MOUNT_POINT[1:]).mkdir(parents=True)
    units = wanted_by_udev(rules, event, tmp_path)
    assert units and all((installed / "etc/systemd/system" / unit).exists() for unit in units)
    for key, value in (("ACTION", "remove"), ("SUBSYSTEM", "block"), ("KERNEL", "lo")):
        assert wanted_by_udev(rules, {**event, key: value}, tmp_path) == []
    udevadm = shutil.which("udevadm")
    if (
        udevadm is not None
        and "verify" in subprocess.run([udevadm, "--help"], capture_output=True, text=True).stdout
    ):
        subprocess.run([udevadm, "verify", rules], check=True)


def test_pages_and_completions(installed: Path) -> None:
    pages = {path.name for path in (installed / "usr/local/share/man/man8").iterdir()}
    assert {"xlvs.8", "xlvs-lab.8", "xlvsadm.8", "xlvsadm-save.8"} <= pages
    bash = installed / "usr/local/share/bash-completion/completions"
    assert "complete -F" in (bash / "xlvsadm-restore").read_text()
    assert (installed / "usr/local/share/zsh/site-functions/_xlvs").read_text().startswith("#compdef xlvs")


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    script = [PROJECT / "scripts/install-system", tmp_path, tmp_path / "root"]
    ran = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "make build" in ran.stderr
    odd = tmp_path / "two words"
    odd.mkdir()
    shutil.copy("/bin/true", odd / "xlvs")
    ran = subprocess.run([script[0], odd, tmp_path / "root"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "systemd cannot run" in ran.stderr
    assert not (tmp_path / "root").exists()
