# SPDX-License-Identifier: GPL-2.0-only
"""A table that comes back: `xlvs save`, `load` and `run`, `xlvsadm-save` and `xlvsadm-restore`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.netns.promises.site import COMMANDS, VIP, Site, eventually, rip

TABLE = f"""\
-A -t {VIP}:80 -s rr
-a -t {VIP}:80 -r {rip(1)}:80 -g -w 1 -x 500 -y 100
-a -t {VIP}:80 -r {rip(2)}:80 -g -w 1
-A -f 4000000000 -s sh
xlvs mark add 4000000000 --dst 203.0.113.0/24
--set 800 100 200
xlvs sysctl expire_nodest_conn=1
"""


def test_saved_table_comes_back_whole(site: Site, tmp_path: Path) -> None:
    director, typed, saved = site.director, tmp_path / "typed", tmp_path / "var" / "table"
    typed.write_text(TABLE)
    assert "eth0" in director.xlvs(f"load --file {typed}")
    assert site.answers()

    def state() -> list[str]:
        listed = director.xlvsadm("-L --json").replace(
            'inactive_connections": 1', 'inactive_connections": 0'
        )
        return [
            listed,
            director.xlvsadm("-L --timeout"),
            director.xlvs("mark save"),
            director.xlvs("sysctl"),
        ]

    before = state()
    assert "net.ipv4.vs.expire_nodest_conn = 1" in before[3]
    assert '"upper_threshold": 500, "lower_threshold": 100' in before[0]
    director.xlvs(f"save {saved}")
    director.xlvs("detach")
    assert not director.pins()
    director.xlvs(f"load --file {saved}")
    assert site.answers()
    assert state() == before
    assert director.xlvs("save -") == saved.read_text()
    assert [path.name for path in saved.parent.iterdir()] == ["table"]


def test_what_is_no_file_is_written_to(site: Site, tmp_path: Path) -> None:
    """A pipe is not replaced by a file, nor can a mount be, as containers have for single files."""
    director, pipe, mounted = site.director, tmp_path / "pipe", tmp_path / "table"
    site.serve(f"{VIP}:80", 1)
    table = director.xlvs("save -")
    os.mkfifo(pipe)
    assert director.type(f"cat {pipe} & {COMMANDS}/xlvs save {pipe}; wait") == table
    assert director.xlvs("save --file /dev/stdout") == table
    mounted.touch()
    command = f"mount --bind {mounted} {mounted} && {COMMANDS}/xlvs save {mounted}"
    director.type(f"unshare --mount sh -c '{command}'")
    assert mounted.read_text() == table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "table"]


def test_loading_leaves_what_stays_alone(site: Site, tmp_path: Path) -> None:
    director, saved = site.director, tmp_path / "table"
    site.serve(f"{VIP}:80", 1, 2)
    director.xlvs(f"save {saved}")
    assert site.answers()
    director.xlvsadm(f"-A -t {VIP}:81")
    director.xlvsadm(f"-d -t {VIP}:80 -r {rip(2)}")
    counted = director.xlvsadm(f"-Ln --stats -t {VIP}:80").splitlines()[2]
    assert counted.split()[2] != "0"
    director.xlvs(f"load --file {saved}")
    assert director.xlvsadm(f"-Ln --stats -t {VIP}:80").splitlines()[2] == counted
    assert director.xlvsadm("-Sn").count(f"{VIP}:81") == 0
    assert f"-r {rip(2)}" in director.xlvsadm("-Sn")


def test_sizes_are_chosen_when_loading_and_kept_later(site: Site, tmp_path: Path) -> None:
    director, file = site.director, tmp_path / "table"
    file.write_text("")
    for services in (50, 60):
        director.xlvs(f"load --connections 1000 --services {services} --mode xdp-generic --file {file} eth0")
        assert director.status()["tables"]["services"]["capacity"] == 50
    assert "xdp-generic" in director.hooks()["eth0"]


def test_a_wrong_file_changes_nothing(site: Site, tmp_path: Path) -> None:
    director, wrong = site.director, tmp_path / "table"
    wrong.write_text(f"-A -t {VIP}:80\n-a -t {VIP}:81 -r {rip(1)}\n")
    before = director.state()
    said = director.xlvs(f"load --file {wrong}", code=2)
    assert f"{wrong}, line 2: Service not defined" in said
    assert director.state() == before
    assert "there is no file" in director.xlvs(f"load --file {tmp_path}/none", code=2)
    assert director.state() == before
    wrong.write_text("kept")
    assert "nothing to save" in director.xlvs(f"save {wrong}", code=1)
    assert not director.xlvs(f"save --if-loaded {wrong}")
    assert wrong.read_text() == "kept"
    assert "eth0" in director.xlvs(f"load --if-saved --file {tmp_path}/none")


def test_what_the_data_plane_refuses_changes_nothing(site: Site, tmp_path: Path) -> None:
    director, file = site.director, tmp_path / "table"
    # The kernel's rules allow it; the routes of this machine do not.
    file.write_text(f"-A -t {VIP}:81\n-A -t {VIP}:80\n-a -t {VIP}:80 -r 192.0.2.255\n")
    said = director.xlvs(f"load --file {file}", code=1)
    assert f"{VIP}:80: real server 192.0.2.255:80: the real server's address is not a unicast" in said
    assert not director.pins()
    site.serve(f"{VIP}:80", 1)
    before = director.xlvsadm("-Sn"), director.state()
    director.xlvs(f"load --file {file}", code=1)
    assert (director.xlvsadm("-Sn"), director.state()) == before


def test_run_is_one_command_for_all_of_it(site: Site, tmp_path: Path) -> None:
    director, file = site.director, tmp_path / "table"
    file.write_text(TABLE)
    with director.popen(str(COMMANDS / "xlvs"), "run", "--file", str(file)) as running:
        try:
            eventually(site.answers, "the table is loaded")
            file.write_text(f"-A -t {VIP}:82\n")
            running.send_signal(signal.SIGHUP)
            eventually(lambda: f"{VIP}:82" in director.xlvsadm("-Sn"), "the file is loaded anew")
            file.write_text("rubbish\n")
            running.send_signal(signal.SIGHUP)
            director.xlvsadm(f"-A -t {VIP}:83")
            running.send_signal(signal.SIGTERM)
            output, errors = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 0, output + errors
    assert "line 1" in errors and "Traceback" not in errors
    assert f"{VIP}:83" in file.read_text() and f"{VIP}:82" in file.read_text()
    assert not director.pins()


def test_scripts_of_ipvsadm(site: Site) -> None:
    director = site.director
    site.serve(f"{VIP}:80", 1)

    def script(name: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return director.run(str(COMMANDS / name), *words, stdin=stdin)

    saved = script("xlvsadm-save", "-n", "word").stdout
    assert saved == director.xlvsadm("-Sn") and f"-A -t {VIP}:80 -s rr" in saved
    director.xlvsadm(f"-A -u {VIP}:53")
    restored = script("xlvsadm-restore", "--whatever", stdin=f"#comment\n{saved}\n\n")
    assert (restored.stdout, restored.stderr, restored.returncode) == ("", "", 0)
    assert director.xlvsadm("-Sn") == saved
    refused = script("xlvsadm-save", "-h")
    assert refused.returncode == 1 and not refused.stdout
    assert refused.stderr == (
        "xlvsadm-save: Script to save the IPVS table to stdout.\n"
        "   With the -n option, prints out the table in numeric format.\n"
    )
    # The table is cleared before a fault is found, as the script does it.
    assert script("xlvsadm-restore", stdin="-A -t x\n").returncode == 2
    assert not director.xlvsadm("-Sn")
