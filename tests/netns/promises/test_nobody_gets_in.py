# SPDX-License-Identifier: GPL-2.0-only
"""docs/security.md holds: who can reach the table, with which capabilities, and what reaches a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.promises.machine import Machine, command

_DOCUMENT = Path(__file__).resolve().parents[3] / "docs/security.md"
_LOADING_NEEDS = ("bpf", "net_admin", "perfmon")
_FIRST_LOADING_NEEDS = (*_LOADING_NEEDS, "sys_admin")
_LOADING = ("xlvs attach", "xlvsadm -A -t 192.0.2.100:80 -s rr")
_LOADED = (
    "xlvsadm -a -t 192.0.2.100:80 -r 192.0.2.101 -g",
    "xlvsadm -e -t 192.0.2.100:80 -r 192.0.2.101 -w 2",
    "xlvsadm -Ln",
    "xlvsadm -Lcn",
    "xlvsadm -Z",
    "xlvs mark add 1 --dst 198.51.100.0/24",
    "xlvs status",
    "xlvs attach --mode xdp-generic eth0",
    "xlvsadm -C",
    "xlvs detach",
)
_HOSTILE = "\x1b]0;owned\x07"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine in order, with nothing loaded."""
    with Machine() as made:
        yield made


def _with(*capabilities: str) -> tuple[str, ...]:
    """A wrapper under which root has these capabilities and no others."""
    wanted = "".join(f",+{name}" for name in capabilities)
    return ("setpriv", "--bounding-set", f"-all{wanted}", "--inh-caps", "-all")


def _has_no_control_character(text: str) -> bool:
    return not any(unicodedata.category(letter) in ("Cc", "Cf") for letter in text.replace("\n", ""))


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_everything_is_roots_alone(machine: Machine, umask: str) -> None:
    """Whatever the umask: /run/xlvs may be passed through, all below it be neither read nor listed."""
    add = " ".join(command("xlvsadm -A -t 192.0.2.100:80 -s rr"))
    lab = " ".join(command("xlvs lab up dr --bare --real-servers 1 --quiet"))
    down = " ".join(command("xlvs lab down"))
    machine.type(f"umask {umask}; {add}; {lab}")
    # What stands in a node's /etc is the machine's, with the owners that it has there.
    listed = machine.type(
        "find /run/xlvs -mindepth 1 -path '*/own/etc/*' -prune -o -printf '%m %U %G %y %p\\n';"
        " stat -c %a /run/xlvs"
    )
    *found, top = listed.splitlines()
    assert int(top, 8) == 0o711
    assert len(found) > 30
    outermost = [line for line in found if line.split()[4].count("/") == 3]
    assert {line.split()[4] for line in outermost} == {"/run/xlvs/bpf", "/run/xlvs/lab", "/run/xlvs/lock"}
    for line in outermost:
        assert int(line.split()[0], 8) & 0o077 == 0, line
    for line in found:
        mode, owner, group, kind, path = line.split()
        assert (owner, group) == ("0", "0"), line
        assert kind == "l" or "/lab/" in path or int(mode, 8) & 0o077 == 0, line
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    for path in ("/run/xlvs", "/run/xlvs/bpf", "/run/xlvs/lab", "/run/xlvs/lock"):
        assert machine.run(*user, "ls", path).returncode != 0
    for line in found:
        assert machine.run(*user, "test", "-r", line.split()[4]).returncode != 0, line
    machine.type(f"{down}; {' '.join(command('xlvs detach'))}")


def test_a_file_system_that_all_may_write_to_is_closed(machine: Machine) -> None:
    """mount(8) without options makes a bpffs with the rights of /tmp."""
    machine.type(
        "mkdir -p /run/xlvs/bpf; mount -t bpf bpf /run/xlvs/bpf; stat -c %a /run/xlvs/bpf | grep 1777"
    )
    machine.type(" ".join(command("xlvs attach")))
    assert machine.type("stat -c %a /run/xlvs/bpf").strip() in ("700", "1700")


@pytest.mark.parametrize("trap", ["mkdir {}; chown 65534 {}", "ln -s /tmp {}"])
def test_what_somebody_else_put_into_the_way_is_not_used(machine: Machine, trap: str) -> None:
    machine.type(" ".join(command("xlvs attach")))
    folder = machine.type("dirname /run/xlvs/bpf/*/settings").strip()
    machine.type(" ".join(command("xlvs detach")))
    machine.type(trap.replace("{}", folder))
    before = machine.state()
    for line in (*_LOADING, "xlvsadm -Ln", "xlvs status", "xlvs detach", "xlvs upgrade"):
        ran = machine.run(*command(line))
        assert ran.returncode in (1, 2)
        assert "is not a folder of root's" in ran.stderr
    assert machine.state() == before


def test_loading_needs_these_capabilities_and_no_others(machine: Machine) -> None:
    documented = _DOCUMENT.read_text()
    for name in _FIRST_LOADING_NEEDS:
        assert f"CAP_{name.upper()}" in documented
    before = machine.state()
    for line in _LOADING:
        for missing in _FIRST_LOADING_NEEDS[:-1]:
            # SYS_ADMIN includes BPF, NET_ADMIN for programs, and PERFMON.
            ran = machine.run(*command(line, _with(*(set(_LOADING_NEEDS) - {missing}))))
            assert ran.returncode in (1, 2), f"{line} without {missing}"
            assert "Traceback" not in ran.stderr
        ran = machine.run(*command(line, _with(*_LOADING_NEEDS)))
        assert "mount -t bpf -o mode=0700" in ran.stderr or "SYS_ADMIN" in ran.stderr
        assert machine.state() == before
    machine.type("mkdir -p /run/xlvs/bpf && mount -t bpf -o mode=0700 bpf /run/xlvs/bpf")
    for line in _LOADING:
        for missing in _LOADING_NEEDS:
            ran = machine.run(*command(line, _with(*(set(_LOADING_NEEDS) - {missing}))))
            assert ran.returncode in (1, 2), f"{line} without {missing}"
            assert "BPF, NET_ADMIN and PERFMON are needed" in ran.stderr
        ran = machine.run(*command(line, _with(*_LOADING_NEEDS)))
        assert ran.returncode == 0, ran.stderr
        machine.type(" ".join(command("xlvs detach")))


def test_what_is_loaded_needs_no_capability_but_to_be_root(machine: Machine) -> None:
    """The pins' owner and mode are the door; bpf(2) asks for capabilities only to make things."""
    machine.type(" ".join(command(_LOADING[1])))
    ran = machine.run(*command("xlvs upgrade", _with(*_LOADING_NEEDS)))
    assert ran.returncode == 0, ran.stderr
    for missing in _LOADING_NEEDS:
        ran = machine.run(*command("xlvs upgrade", _with(*(set(_LOADING_NEEDS) - {missing}))))
        assert ran.returncode == 1
        assert "BPF, NET_ADMIN and PERFMON are needed" in ran.stderr
    for line in _LOADED:
        ran = machine.run(*command(line, _with()))
        assert ran.returncode == 0, f"{line}: {ran.stderr}"


def test_no_interface_commands_the_terminal(machine: Machine) -> None:
    """The kernel allows escape sequences in interfaces' names."""
    hostile = "\x1b[2Jx\x9b1m"
    made = machine.run("ip", "link", "add", hostile, "type", "veth", "peer", "name", "other")
    assert made.returncode == 0, made.stderr
    machine.run("ip", "link", "set", hostile, "up")
    seen = ""
    for words in (
        command("xlvs attach eth0"), command("xlvs status"), command("xlvs attach"), command("xlvs status"),
        [*command("xlvs attach --mode xdp-generic"), hostile], [*command("xlvs detach"), hostile],
        command("xlvs status --json"), command("xlvs upgrade"), command("xlvs detach"),
    ):  # fmt: skip
        ran = machine.run(*words)
        assert ran.returncode == 0, ran.stderr
        assert _has_no_control_character(ran.stdout + ran.stderr), repr(ran.stdout + ran.stderr)
        seen += ran.stdout
    assert r"\x1b[2Jx" in seen


_ECHOING = """\
xlvs {}
xlvs attach {}
xlvs attach --mode {}
xlvs attach --connections {}
xlvs detach {}
xlvs upgrade {}
xlvs status {}
xlvs status -- {}
xlvs sysctl {}
xlvs sysctl {}=1
xlvs sysctl expire_nodest_conn={}
xlvs mark add {} --dst 1.2.3.4
xlvs mark add 1 --dst {}
xlvs mark add 1 --dst 1.2.3.4 --port {}
xlvs mark delete {}
xlvs mark delete --rule {}
xlvs lab up {}
xlvs lab up dr --name {}
xlvs lab up dr --interface {}
xlvs lab up dr --vip {}
xlvs lab up dr --network {}
xlvs lab up nat --inside-network {}
xlvs lab down --name {}
xlvs lab status --name {}
xlvs lab exec {} -- true
xlvs lab shell {}
xlvs lab demo {}
xlvsadm {}
xlvsadm -{}
xlvsadm -A {}
xlvsadm -A -t {}
xlvsadm -A -f {}
xlvsadm -A -t 192.0.2.100:80 -s {}
xlvsadm -A -t 192.0.2.100:80 -p {}
xlvsadm -A -t 192.0.2.100:80 -b {}
xlvsadm -A -t 192.0.2.100:80 -M {}
xlvsadm -A -t 192.0.2.100:80 --pe {}
xlvsadm --set {} 1 1
xlvsadm -a -t 192.0.2.100:80 -r {}
xlvsadm -a -t 192.0.2.100:80 -r 192.0.2.101 -w {}
xlvsadm --start-daemon {}
xlvsadm --start-daemon master --mcast-group {}
xlvsadm -L -t {}
xlvsadm -L {}
"""


@pytest.mark.parametrize("program", ["xlvs", "xlvsadm"])
def test_no_argument_comes_back_as_a_command_to_the_terminal(machine: Machine, program: str) -> None:
    for line in _ECHOING.splitlines():
        if line.split()[0] == program:
            words = [word.replace("{}", _HOSTILE + "\nxlvs: all is well\x9b1m") for word in command(line)]
            ran = machine.run(*words)
            said = ran.stdout + ran.stderr
            assert ran.returncode not in (0, 3), f"{line}: {said}"
            assert _has_no_control_character(said), f"{line}: {said!r}"
            assert not re.search("^xlvs: all is well", said, re.MULTILINE), f"{line}: {said!r}"
