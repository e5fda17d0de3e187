# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd's command line: keepalived's options, and the test of a configuration."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from xlvs.cli import daemon, status
from xlvs.cli.xlvsd import _ForJournal, _is_journal, main
from xlvs.cli.xlvsd_options import OPTIONS, read_options, usage
from xlvs.errors import Unavailable, UsageError

GOOD = """virtual_server 10.0.0.1 80 {
    lvs_sched rr
    lvs_method DR
    protocol TCP
    real_server 10.0.0.2 80 {
    }
}
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "keepalived.conf"
    path.write_text(GOOD)
    return path


def test_a_good_configuration(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", "-f", str(configuration)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_faulty_one(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration.write_text(GOOD.replace("lvs_sched rr", "lvs_sched fast"))
    assert main(["--config-test", f"--use-file={configuration}"]) == 5
    assert f"({configuration}: Line 2) Invalid lvs_scheduler 'fast' - ignoring\n" in capsys.readouterr().err


def test_one_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-tf", str(tmp_path / "nothing")]) == 1  # -t takes what is glued to it
    assert main(["-t", "-f", str(tmp_path / "nothing")]) == 4
    assert "Unable to find configuration file" in capsys.readouterr().err


def test_findings_go_to_a_file(configuration: Path, tmp_path: Path) -> None:
    configuration.write_text("nonsense\n")
    log = tmp_path / "log"
    for _ in range(2):
        assert main([f"-t{log}", "-f", str(configuration)]) == 5
    assert log.read_text() == f"({configuration}: Line 1) Unknown keyword 'nonsense'\n" * 2


def test_the_config_id(configuration: Path) -> None:
    configuration.write_text("@one nonsense\n")
    assert main(["-t", "-i", "one", "-f", str(configuration)]) == 5
    assert main(["-t", "-i", "two", "-f", str(configuration)]) == 0


def test_includes_that_must_be_there(configuration: Path) -> None:
    configuration.write_text("include nothing.conf\n")
    assert main(["-t", "-f", str(configuration)]) == 0
    assert main(["-t", "-e", "-f", str(configuration)]) == 6


def test_options_as_getopt_reads_them() -> None:
    line = read_options(["-nlDD", "-ffile", "--pid", "p", "--config-i=x", "-t", "--config-test=log"])
    assert line.values["use-file"] == "file"
    assert (line.values["pid"], line.values["config-id"]) == ("p", "x")
    assert line.values["config-test"] == "log"
    assert line.counts["log-detail"] == 2 and line.has("dont-fork") and line.has("log-console")


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["-z"], ["-f"], ["--use-file="], ["--no"], ["word"], ["--help=x"], ["-P"], ["-s", "x"]],
)
def test_wrong_command_lines(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        read_options(arguments)
    assert main(arguments) == 1


def test_what_does_nothing_here_is_said() -> None:
    assert read_options(["-R", "-x"]).remarks == [
        "-R (dont-respawn) does nothing here: xlvsd is one process; systemd restarts it",
        "-x (snmp) does nothing here: xlvsd has no SNMP agent",
    ]


def test_the_journal_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable is inherited by much that writes elsewhere."""
    found = os.fstat(2)
    for number, expected in ((found.st_ino, True), (found.st_ino + 1, False)):
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{number}")
        assert _is_journal() is expected
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not _is_journal()


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 3)],
)
def test_the_journal_is_told_how_bad_each_line_is(level: int, number: int) -> None:
    record = logging.LogRecord("xlvsd", level, "", 0, "one %s\ntwo", ("word",), None)
    assert _ForJournal().format(record) == f"<{number}>one word\n<{number}>two"


def test_signals_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"STOP": 15, "RELOAD": 1, "DATA": 10, "STATS": 12, "STATS_CLEAR": 63, "JSON": 36}
    for name in names:
        assert main([f"--signum={name}"]) == 0
    assert list(map(int, capsys.readouterr().out.split())) == list(names.values())
    assert main(["--signum=NONE"]) == 1


def test_the_help_has_every_option() -> None:
    text = usage()
    for option in OPTIONS:
        assert f"--{option.long}" in text
    assert "examples:" in text


def test_the_data_plane_is_chosen_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-n", "--datapath", "other"]) == 1
    assert capsys.readouterr().err == "xlvsd: Unknown data plane 'other': ebpf or kernel\n"

    def missing() -> None:
        raise Unavailable("this kernel has no IPVS", "Load it: modprobe ip_vs")

    monkeypatch.setattr("xlvs.datapath.kernel.load_kernel", missing)
    assert main(["-n", "--datapath=kernel"]) == 2
    assert capsys.readouterr().err == "xlvsd: this kernel has no IPVS\nLoad it: modprobe ip_vs\n"


def test_status_says_when_the_table_is_the_kernels() -> None:
    daemon_says = {"datapath": "kernel", "pid": 7, "started": 0, "probes": 2, "virtual_servers": []}
    report = {"xlvs": "1", "kernel": "6.1", "loaded": False, "daemon": daemon_says}
    assert "kernel IPVS" in status._page(report)[1]
    assert "xlvsadm -A" in status._page({**report, "daemon": None})[1]
    assert daemon.page(daemon_says)[1].endswith("2 probes, on kernel IPVS")
