# SPDX-License-Identifier: GPL-2.0-only
"""Commands at the same time: none is lost, none corrupts the table, however they end."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.promises.site import COMMANDS, SERVICE, VIP, Host, Site

_AT_ONCE = 20
_LISTED = re.compile(
    r"IP Virtual Server version .*\n.*\n  -> RemoteAddress.*\n"
    r"((TCP|UDP)  \S+ \w+ *\n(  -> \S+ +Route +\d+ +\d+ +\d+ *\n)*)*\Z"
)
_KILLED = ("-a -t {} -r 192.0.2.{} -w 0", "-d -t {} -r 192.0.2.{}", "-A -t {}{}", "-D -t {}{}")
_Ended = list[tuple[int, str]]


def _together(host: Host, lines: list[str]) -> _Ended:
    """Run `xlvsadm` with all these lines at the same time; their exit codes and output."""
    running = [host.popen(str(COMMANDS / "xlvsadm"), *line.split()) for line in lines]
    ended = []
    for process in running:
        output, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        assert "unexpected error" not in errors
        ended.append((process.returncode, output + errors))
    return ended


def _services(host: Host) -> set[str]:
    return set(re.findall(r"^TCP  (\S+)", host.xlvsadm("-Ln"), re.MULTILINE))


def _real_servers(host: Host) -> set[str]:
    return set(re.findall(r"-> (192\.0\.2\.\d+:\d+)", host.xlvsadm("-Ln")))


@contextmanager
def _listing(host: Host) -> Iterator[list[str]]:
    """List the table again and again meanwhile; the listings."""
    seen: list[str] = []
    failed: list[str] = []
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            ran = host.run(str(COMMANDS / "xlvsadm"), "-Ln")
            (seen if ran.returncode == 0 else failed).append(ran.stdout + ran.stderr)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        end.set()
        looking.join(60)
    assert not failed, failed[0]
    for listing in seen:
        assert _LISTED.match(listing), listing


def test_the_very_first_services_all_at_once(site: Site) -> None:
    """Nothing is loaded: one loads, all others wait for it."""
    with _listing(site.director):
        ended = _together(site.director, [f"-A -t {VIP}:{1000 + each}" for each in range(_AT_ONCE)])
    assert [code for code, _ in ended] == [0] * _AT_ONCE, ended
    assert _services(site.director) == {f"{VIP}:{1000 + each}" for each in range(_AT_ONCE)}
    assert list(site.director.hooks()) == ["eth0"]
    report = site.director.status()
    assert report["tables"]["services"]["used"] == _AT_ONCE


def test_the_same_first_service_twenty_times(site: Site) -> None:
    ended = _together(site.director, [f"-A -t {SERVICE}"] * _AT_ONCE)
    assert sorted(code == 0 for code, _ in ended) == [False] * (_AT_ONCE - 1) + [True]
    assert sum("Service already exists" in said for _, said in ended) == _AT_ONCE - 1
    assert _services(site.director) == {SERVICE}


def test_twenty_changes_of_one_service(site: Site) -> None:
    site.director.xlvsadm(f"-A -t {SERVICE} -s rr")
    for line, expected in (
        ("-a -t {} -r 192.0.2.{} -g", {f"192.0.2.{101 + each}:80" for each in range(_AT_ONCE)}),
        ("-d -t {} -r 192.0.2.{}", set()),
    ):
        lines = [line.format(SERVICE, 101 + each) for each in range(_AT_ONCE)]
        with _listing(site.director):
            ended = _together(site.director, lines)
        assert [code for code, _ in ended] == [0] * _AT_ONCE, ended
        assert _real_servers(site.director) == expected


def test_changes_of_all_kinds_lose_nothing_while_traffic_runs(site: Site) -> None:
    director = site.director
    site.serve(SERVICE, 1, 2)
    for each in range(5):
        director.xlvsadm(f"-A -t {VIP}:{2000 + each}")
    lines = [f"-A -t {VIP}:{1000 + each}" for each in range(5)]
    lines += [f"-D -t {VIP}:{2000 + each}" for each in range(5)]
    lines += [f"-a -t {SERVICE} -r 192.0.2.{150 + each} -w 0" for each in range(5)]
    lines += [f"-e -t {SERVICE} -r 192.0.2.101 -w 3", f"-E -t {SERVICE} -s wrr"]
    lines += ["-Z", "-Ln", "-Sn"]
    random.Random(7).shuffle(lines)
    with _listing(director), site.connection() as (held, _):
        ended = _together(director, lines)
        held.sendall(b"unharmed")
        assert held.recv(16) == b"unharmed"
    assert [code for code, _ in ended] == [0] * len(lines), ended
    assert _services(director) == {SERVICE, *(f"{VIP}:{1000 + each}" for each in range(5))}
    assert _real_servers(director) == {f"192.0.2.{each}:80" for each in (101, 102, *range(150, 155))}
    shown = director.xlvsadm("-Ln")
    assert f"{SERVICE} wrr" in shown
    assert re.search(r"192\.0\.2\.101:80 +Route +3 ", shown)
    assert sorted(site.ask(4)) == ["rs1"] * 3 + ["rs2"]


def test_loading_and_unloading_at_once_ends_in_order(site: Site) -> None:
    """Whoever comes last decides; nobody meets a half-made table."""
    director = site.director
    before = director.state()
    for _ in range(2):
        running = [
            director.popen(str(COMMANDS / name), *line.split())
            for name, line in (
                ("xlvsadm", f"-A -t {SERVICE}"), ("xlvs", "detach"), ("xlvsadm", "-Ln"), ("xlvs", "attach"),
                ("xlvs", "detach"), ("xlvsadm", f"-A -t {VIP}:81"), ("xlvsadm", "-C"), ("xlvs", "attach"),
                ("xlvs", "status"), ("xlvs", "detach"),
            )
        ]  # fmt: skip
        for process in running:
            output, errors = process.communicate(timeout=60)
            said = output + errors
            assert process.returncode in (0, 3) or said == "Service already exists\n", said
    director.xlvs("detach")
    assert director.state() == before


def test_commands_killed_in_the_middle_leave_a_whole_table(site: Site) -> None:
    director = site.director
    site.serve(SERVICE, 1)
    chance = random.Random(11)
    killed = 0
    for number in range(60):
        line = ("-a -t {} -r 192.0.2.{} -w 0", "-d -t {} -r 192.0.2.{}", "-A -t {}{}", "-D -t {}{}")[
            number % 4
        ]
        process = director.popen(str(COMMANDS / "xlvsadm"), *line.format(SERVICE, 150 + number // 8).split())
        time.sleep(chance.uniform(0.01, 0.05))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed > 10, "else nothing was tried"
    assert site.ask(3) == ["rs1"] * 3
    director.xlvsadm(f"-A -t {VIP}:99")
    director.xlvsadm(f"-a -t {VIP}:99 -r 192.0.2.102")
    assert _LISTED.match(director.xlvsadm("-Ln"))
    assert {SERVICE, f"{VIP}:99"} <= _services(director)
    saved = director.xlvsadm("-Sn")
    director.xlvsadm("-C")
    restored = director.run(str(COMMANDS / "xlvsadm"), "-R", stdin=saved)
    assert restored.returncode == 0, restored.stderr
    assert sorted(director.xlvsadm("-Sn").splitlines()) == sorted(saved.splitlines())
    assert site.ask(2) == ["rs1"] * 2


def test_a_load_killed_in_the_middle_is_made_good_by_the_next(site: Site) -> None:
    director = site.director
    before = director.state()
    chance = random.Random(13)
    for _ in range(12):
        process = director.popen(str(COMMANDS / "xlvsadm"), "-A", "-t", SERVICE)
        time.sleep(chance.uniform(0.02, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if director.pins() is not None:
            director.xlvs("attach")  # it may have been killed before it attached
            assert list(director.hooks()) == ["eth0"]
            director.xlvs("detach")
    site.serve(SERVICE, 1)
    assert site.ask(1) == ["rs1"]
    director.xlvs("detach")
    assert director.state() == before
    leftovers = Path("/run/xlvs/bpf").glob(f"{director.cookie():x}*")
    assert list(leftovers) == []
