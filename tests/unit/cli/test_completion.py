# SPDX-License-Identifier: GPL-2.0-only
"""What bash and zsh offer, asked of the shells themselves, with a table that a stand-in tells."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.command_tree import command_tree
from xlvs.cli.completion_script import script

pytestmark = pytest.mark.unit

XLVSADM = """\
#!/bin/sh
[ "$*" = -Sn ] || exit 1
cat <<END
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g -w 1
-a -t 192.0.2.1:80 -r 10.0.0.2:80 -g -w 1
-A -t 192.0.2.2:80 -s rr
-a -t 192.0.2.2:80 -r 10.0.0.3:80 -g -w 1
-A -t [2001:db8::1]:80 -s rr
-a -t [2001:db8::1]:80 -r [2001:db8::2]:80 -g -w 1
-A -u 192.0.2.1:53 -s rr -o
-A -f 7 -s rr
END
"""

BASH = """\
source "$1"
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:' COMP_LINE=$2 COMP_POINT=${#2}
_xlvs_complete
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """\
compdef() { }
compadd() { shift; for one in "$@"; do [[ $one == ${words[CURRENT]}* ]] && print -r -- $one; done }
_files() { }
source $1
words=(${(z)2}) CURRENT=$#words
[[ $2 == *\\  ]] && { words+=(''); CURRENT=$#words }
_xlvs
"""

Complete = Callable[[str], list[str]]


@pytest.fixture(scope="module", params=["bash", "zsh"])
def complete(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Complete:
    """What a shell offers for a line, with all of what stands after the last blank."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "script").write_text(script(request.param))
    stand_in = folder / "xlvsadm"
    stand_in.write_text(XLVSADM)
    stand_in.chmod(0o755)
    program = ["bash", "--norc", "-c", BASH] if request.param == "bash" else ["zsh", "-f", "-c", ZSH]

    def ask(line: str) -> list[str]:
        ran = subprocess.run(
            [*program, "shell", str(folder / "script"), line],
            capture_output=True, text=True, check=False, timeout=30,
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert not ran.stderr, ran.stderr
        word = line.rpartition(" ")[2]
        # bash is given what comes after the last colon only.
        typed = word[: word.rfind(":") + 1] if request.param == "bash" else ""
        return sorted(typed + one for one in ran.stdout.splitlines() if one)

    return ask


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("xlvs at", ["attach"]),
        ("xlvs mark add --pro", ["--proto"]),
        ("xlvs mark add --proto t", ["tcp"]),
        ("xlvs mark add 5 --dst ", []),
        ("xlvs attach --mode ", ["auto", "tc", "xdp", "xdp-generic"]),
        ("xlvs attach l", ["lo"]),
        ("xlvs proc ip_vs_s", ["ip_vs_stats", "ip_vs_stats_percpu"]),
        ("xlvsadm --add", ["--add-server", "--add-service"]),
        ("xlvsadm -D -t ", ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"]),
        ("xlvsadm -D -t 192.0.2.2", ["192.0.2.2:80"]),
        ("xlvsadm -Dt 192.0.2.2:", ["192.0.2.2:80"]),
        ("xlvsadm -L --udp-service ", ["192.0.2.1:53"]),
        ("xlvsadm -Z -t [2001:db8::", ["[2001:db8::1]:80"]),
        ("xlvsadm -A -t ", []),
        ("xlvsadm -a -t 192.0.2.1:80 -r ", []),
        ("xlvsadm -a -t ", ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"]),
        ("xlvsadm -e -t 192.0.2.1:80 -r ", ["10.0.0.1:80", "10.0.0.2:80"]),
        ("xlvsadm -dt 192.0.2.2:80 --real-server 10.0.0.3:8", ["10.0.0.3:80"]),
        ("xlvsadm -d -t [2001:db8::1]:80 -r ", ["[2001:db8::2]:80"]),
        ("xlvsadm -e -f ", ["7"]),
        ("xlvsadm -E -t 192.0.2.1:80 -s w", ["wlc", "wrr"]),
        ("xlvsadm -a -t 192.0.2.1:80 -r 1.2.3.4 --tun-t", ["--tun-type"]),
        ("xlvsadm -a -t 192.0.2.1:80 -r 1.2.3.4 -i --tun-type g", ["gre", "gue"]),
        ("xlvsadm -Lc --only-service udp", ["udp:192.0.2.1:53"]),
        ("xlvsadm -Lc --only-server 10.0.0.3", ["10.0.0.3:80"]),
        ("xlvsadm -Lcn --per", ["--persistent-conn"]),
        ("xlvsadm -S --", ["--extended", "--numeric"]),
        ("xlvsadm-save -", ["-n"]),
        ("xlvsadm-restore -", []),
    ],
)
def test_offers(complete: Complete, line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_every_command_and_option_is_offered(complete: Complete) -> None:
    for command in command_tree().walk():
        offered = complete(f"{command.name} ")
        assert {one.words[-1] for one in command.commands} <= set(offered), command.name
        assert {text for action in command.options() for text in action.option_strings} <= set(offered)
    assert {f"--{name}" for name in grammar.COMMANDS} <= set(complete("xlvsadm -"))
    for name, command_name in grammar.COMMANDS.items():
        if command_name in grammar.COMMAND_RULES:
            rules = grammar.COMMAND_RULES[command_name]
            wanted = {
                f"--{option}"
                for option in grammar.OPTIONS.by_name
                if grammar.MATRIX_NAMES.get(option, option) in rules.permitted
            }
            value = " master" if grammar.OPTIONS.by_name[name].argument else ""
            assert wanted <= set(complete(f"xlvsadm --{name}{value} --")), name


def test_without_a_right_to_look_nothing_is_offered(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(script("bash"))
    refusing = tmp_path / "xlvsadm"
    refusing.write_text("#!/bin/sh\necho no >&2\nexit 2\n")
    refusing.chmod(0o755)
    ran = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", str(tmp_path / "script"), f"{refusing} -D -t "],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ran.stdout.strip(), ran.stderr) == ("", "")
