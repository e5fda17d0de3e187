# SPDX-License-Identifier: GPL-2.0-only
"""The dispatcher: which module it loads, and how errors leave it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from xlvs import __version__
from xlvs.cli import main as dispatcher
from xlvs.errors import UsageError, XlvsError


@pytest.fixture
def noun(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A noun `probe` whose run function the test sets."""
    module = SimpleNamespace(run=lambda _arguments: 0, takes_rest=False)

    def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        parser = subparsers.add_parser("probe")
        parser.add_argument("word", nargs="?")
        parser.set_defaults(run=lambda arguments: module.run(arguments), takes_rest=module.takes_rest)

    module.register = register
    monkeypatch.setitem(dispatcher.NOUNS, "probe", ("probe-module", "a probe"))
    monkeypatch.setattr(dispatcher, "import_module", lambda _name: module)
    return module


def raising(error: BaseException) -> object:
    def run(_arguments: object) -> int:
        raise error

    return run


def test_exit_code_is_the_nouns(noun: SimpleNamespace) -> None:
    noun.run = lambda _arguments: 7
    assert dispatcher.main(["probe"]) == 7


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (XlvsError("it broke", "mend it"), 1, "xlvs: it broke\n      mend it\n"),
        (UsageError("wrong word"), 2, "xlvs: wrong word\n"),
        (KeyboardInterrupt(), 130, "xlvs: interrupted\n"),
        (
            FileNotFoundError(2, "No such file or directory", "/x"),
            1,
            "xlvs: /x: No such file or directory\n",
        ),
    ],
)
def test_errors_leave_as_one_line_and_a_hint(
    noun: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    noun.run = raising(error)
    assert dispatcher.main(["probe"]) == code
    complaint = capsys.readouterr().err
    assert complaint.startswith(said) and "Traceback" not in complaint


def test_debug_shows_where_an_error_came_from(noun: SimpleNamespace) -> None:
    noun.run = raising(XlvsError("it broke"))
    with pytest.raises(XlvsError):
        dispatcher.main(["--debug", "probe"])


def test_what_follows_the_dashes_goes_through_untouched(noun: SimpleNamespace) -> None:
    seen: list[object] = []
    noun.takes_rest = True

    def run(arguments: argparse.Namespace) -> int:
        seen.append((arguments.word, arguments.rest))
        return 0

    noun.run = run
    assert dispatcher.main(["probe", "w", "--", "ls", "-l", "--", "--debug"]) == 0
    assert dispatcher.main(["probe", "w"]) == 0
    assert seen == [("w", ["ls", "-l", "--", "--debug"]), ("w", None)]


def test_nothing_may_follow_the_dashes_elsewhere(
    noun: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not noun.takes_rest
    assert dispatcher.main(["probe", "--", "ls"]) == 2
    assert "nothing is expected after '--'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["no-such-noun"], ["--no-such-option"], ["lab", "no-such-verb"], ["lab"]])
def test_wrong_words_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main(words) == 2
    assert "xlvs" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main(["--version"]) == 0
    assert capsys.readouterr().out == f"xlvs {__version__}\n"
    assert dispatcher.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in dispatcher.NOUNS)


@pytest.mark.parametrize("name", ["lab", "attach", "detach", "status"])
def test_every_noun_answers_for_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main([name, "--help"]) == 0
    assert f"xlvs {name}" in capsys.readouterr().out


def test_a_noun_loads_no_other() -> None:
    program = """
import sys
from xlvs.cli.main import main
main(["lab", "--help"])
print(*sys.modules, file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ran.stderr.split())
    assert "xlvs.cli.lab" in loaded
    assert not {"xlvs.cli.attach", "xlvs.lab.lifecycle", "ctypes", "dataclasses"} & loaded


def test_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m xlvs.cli.main --help | true; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert "Traceback" not in ran.stderr and "BrokenPipe" not in ran.stderr


@pytest.mark.parametrize("words", ["--version", "--help", "lab list --json", "proc --help"])
@pytest.mark.parametrize(
    ("where", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_output_that_cannot_be_written(words: str, where: str, why: str) -> None:
    command = f"exec {sys.executable} -m xlvs.cli.main {words} {where}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == f"xlvs: cannot write to standard output: {why}\n"


def test_without_any_stream() -> None:
    command = f"exec {sys.executable} -m xlvs.cli.main no-such-noun <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 2


def test_usage_is_that_of_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main(["lab", "status", "web"]) == 2
    assert capsys.readouterr().err.startswith("usage: xlvs lab status ")


def test_real_servers_are_listed_to_root_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record is root's: without it what xlvs has set up would seem typed by hand."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert dispatcher.main(["realserver", "list"]) == 1
    assert "you must be root" in capsys.readouterr().err


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main(["load", "--file", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"cannot read {tmp_path}: Is a directory" in said and "--file" in said


@pytest.mark.parametrize(
    ("datapath", "servers", "said"), [("ebpf", 1, True), ("kernel", 1, False), ("ebpf", 0, False)]
)
def test_whoever_detaches_hears_who_undoes_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    datapath: str,
    servers: int,
    said: bool,
) -> None:
    daemon = {"pid": 4711, "datapath": datapath, "virtual_servers": [{}] * servers}
    monkeypatch.setattr("xlvs.kernel.bpffs.root", lambda: "/none")
    monkeypatch.setattr("xlvs.kernel.bpffs.discard_unfinished", lambda: None)
    monkeypatch.setattr("xlvs.kernel.bpffs.namespace_folder", lambda: "/none")
    monkeypatch.setattr("xlvs.kernel.lock.table_lock", lambda **_how: nullcontext())
    monkeypatch.setattr("xlvs.datapath.activate.deactivate", lambda _folder: None)
    monkeypatch.setattr("xlvs.daemon.client.ask", lambda *_patience, **_request: daemon)
    assert dispatcher.main(["detach"]) == 0
    assert ("kill 4711" in capsys.readouterr().err) is said
