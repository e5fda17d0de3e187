# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd in a lab: real checks of real nginx, traffic, drains, hand edits, reloads and deaths."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import Lab, eventually
from tests.netns.xlvsd_daemon import XLVSD, Daemon, Traffic, kill_nginx
from xlvs.lab import lifecycle, nginx
from xlvs.lab.addresses import Request

# Three clients that begin to ask, and go on when they are told to.
CLIENTS = """\
import os, socket, time
asking = [socket.create_connection(("{vip}", 80), 20) for _ in range(3)]
for one in asking:
    one.sendall(b"GET / HTTP/1.0\\r\\n")
while not os.path.exists("{folder}/go"):
    time.sleep(0.05)
for one in asking:
    one.sendall(b"\\r\\n")
    print(one.makefile().read().split()[-1], flush=True)
"""
TLS_SERVER = """\
pid {folder}/{name}.pid;
events {{ }}
http {{
    log_format probe "$server_addr $ssl_server_name $host";
    access_log {folder}/{name}.log probe;
    ssl_certificate {folder}/web.pem;
    ssl_certificate_key {folder}/web.key;
    server {{ listen 443 ssl; location / {{ return 200; }} }}
}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    name = f"xlvsd{os.getpid()}"  # others may run other tests of this module at the same time
    record = lifecycle.new_record("dr", name, Request(), bare=False)
    try:
        lifecycle.up(record, lambda _line: None)
        made = Lab(record)
        # Direct Routing does not see the real server's FIN: what has ended is remembered so long.
        made.type("director", "ipvsadm --set 0 1 0")
        yield made
    finally:
        lifecycle.down(name, lambda _line: None)


@pytest.fixture
def daemon(lab: Lab) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="xlvsd-", dir="/root" if Path("/root").is_dir() else "/var/lib"))
    made = Daemon(lab, folder)
    lab.type("director", "ipvsadm -C")
    made.configure([1, 1, 1])
    made.start()
    try:
        made.becomes({1: 1, 2: 1, 3: 1})
        yield made
    finally:
        made.end()
        record = lab.record
        if not nginx.is_running(record.node_folder("rs3"), record.namespace("rs3")):
            lab.type("rs3", "nginx")
        shutil.rmtree(folder)


def test_who_fails_is_not_chosen_and_comes_back(daemon: Daemon) -> None:
    assert set(daemon.lab.ask(6)) == {"rs1", "rs2", "rs3"}
    daemon.lab.type("rs3", "nginx -s quit")
    daemon.becomes({1: 1, 2: 1})
    assert set(daemon.lab.ask(6)) == {"rs1", "rs2"}
    daemon.lab.type("rs3", "nginx")
    daemon.becomes({1: 1, 2: 1, 3: 1})
    rip = daemon.rips[2]
    notified = daemon.folder / "notified"
    eventually(
        lambda: notified.exists() and notified.read_text() == f"down {rip}\nup {rip}\n", "scripts were run"
    )
    log = (daemon.folder / "log").read_text()
    assert f"Removing service [{rip}]:tcp:80 from VS [{daemon.vip}]:tcp:80" in log
    page = daemon.lab.type("director", "xlvs status")
    assert f"[{daemon.vip}]:tcp:80  quorum since" in page
    status = json.loads(daemon.lab.type("director", "xlvs status --json"))["daemon"]
    assert [one["up"] for one in status["virtual_servers"][0]["real_servers"]] == [True] * 3


def test_hand_edits_are_put_right(daemon: Daemon) -> None:
    service = f"-t {daemon.vip}:80"
    daemon.lab.type("director", f"ipvsadm -d {service} -r {daemon.rips[0]}")
    daemon.lab.type("director", "ipvsadm -A -t 192.0.2.99:81")
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")  # has it look at once
    daemon.becomes({1: 1, 2: 1, 3: 1})
    eventually(lambda: any(one["event"] == "hand edit" for one in daemon.events()), "the edit was noticed")
    assert "192.0.2.99:81" in daemon.lab.type("director", "ipvsadm -Ln")  # somebody else's


def test_reload_changes_what_changed(daemon: Daemon) -> None:
    daemon.lab.ask(9)
    before = daemon.lab.type("director", "ipvsadm -Ln --stats")
    daemon.configure([1, 7, 1])
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.becomes({1: 1, 2: 7, 3: 1})
    assert daemon.lab.type("director", "ipvsadm -Ln --stats") == before
    (daemon.folder / "keepalived.conf").write_text("virtual_server {\n")
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.configure([2, 7])
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.becomes({1: 2, 2: 7})


def test_a_drain_lets_connections_end_and_outlives_the_daemon(daemon: Daemon) -> None:
    lab, rip = daemon.lab, daemon.rips[0]
    (daemon.folder / "clients.py").write_text(CLIENTS.format(vip=daemon.vip, folder=daemon.folder))
    clients = f"{sys.executable} {daemon.folder}/clients.py </dev/null >{daemon.folder}/answers 2>&1 &"
    lab.type("client", clients)
    eventually(lambda: _active(daemon) == 3, "three clients are connected")
    assert "draining" in lab.type("director", f"xlvs drain {daemon.vip}:80 {rip} --deadline 5m")
    daemon.becomes({1: 0, 2: 1, 3: 1})
    assert set(lab.ask(4)) == {"rs2", "rs3"}
    daemon.end("KILL")
    daemon.start()
    assert daemon.weights() == {1: 0, 2: 1, 3: 1}
    (daemon.folder / "go").touch()
    daemon.becomes({2: 1, 3: 1})
    assert sorted((daemon.folder / "answers").read_text().split()) == ["rs1", "rs2", "rs3"]
    lab.type("director", f"xlvs undrain {daemon.vip}:80 {rip}")
    daemon.becomes({1: 1, 2: 1, 3: 1})
    refused = lab.type("director", f"xlvs undrain {daemon.vip}:80 {rip}", code=1)
    assert "is not drained" in refused


def _active(daemon: Daemon) -> int:
    listing = daemon.lab.type("director", "ipvsadm -Ln")
    return sum(int(active) for active in re.findall(r":80 +Route +\d+ +(\d+)", listing))


def test_weights_by_hand_outlive_reloads(daemon: Daemon) -> None:
    daemon.lab.type("director", f"xlvs weight {daemon.vip}:80 {daemon.rips[0]} 9")
    daemon.becomes({1: 9, 2: 1, 3: 1})
    daemon.configure([3, 3, 3])
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    daemon.becomes({1: 9, 2: 3, 3: 3})
    daemon.lab.type("director", f"xlvs weight {daemon.vip}:80 {daemon.rips[0]} --reset")
    daemon.becomes({1: 3, 2: 3, 3: 3})


def test_killed_in_the_middle_of_reloads_nothing_fails(daemon: Daemon) -> None:
    lab = daemon.lab
    asking = f"for i in $(seq 150); do curl -s -m 5 http://{daemon.vip}/ || echo failed; done"
    lab.type("client", f"({asking}) </dev/null >{daemon.folder}/asked 2>&1 &")
    for turn in range(3):
        daemon.configure([1 + turn, 2, 3])
        lab.type("director", f"kill -HUP {daemon.pid}; sleep 0.0{turn * 3}; kill -KILL {daemon.pid}; true")
        eventually(lambda: not daemon.runs(), "it is dead")
        assert set(daemon.weights()) == {1, 2, 3}
        daemon.start()
        assert set(daemon.weights()) == {1, 2, 3}  # nobody was taken out to be checked first
    daemon.becomes({1: 3, 2: 2, 3: 3})
    eventually(lambda: len((daemon.folder / "asked").read_text().split()) == 150, "all have been asked")
    assert "failed" not in (daemon.folder / "asked").read_text()


def test_one_daemon_at_a_time_and_how_it_ends(daemon: Daemon) -> None:
    command = f"{XLVSD} -n -l -G -f {daemon.folder}/keepalived.conf"
    assert "xlvsd runs already" in daemon.lab.type("director", command, code=2)
    daemon.end("QUIT")  # a restart
    assert daemon.weights() == {1: 1, 2: 1, 3: 1}
    assert "xlvsd does not run" in daemon.lab.type("director", "xlvs events", code=1)
    daemon.start()
    daemon.end("TERM")
    assert daemon.weights() == {}
    daemon.start()
    daemon.becomes({1: 1, 2: 1, 3: 1})


def test_via_vip_sees_that_a_real_server_lost_the_vip(daemon: Daemon) -> None:
    """What a check of the real server's own address cannot see."""
    path = daemon.folder / "keepalived.conf"
    plain = path.read_text()
    path.write_text(plain.replace("connect_timeout 5", "connect_timeout 1\n            via vip"))
    daemon.lab.type("director", f"kill -HUP {daemon.pid}")
    eventually(lambda: _checked(daemon) == 3, "all have been asked through the VIP")
    daemon.becomes({1: 1, 2: 1, 3: 1})
    daemon.lab.type("rs2", f"ip address del {daemon.vip}/32 dev lo")
    try:
        daemon.becomes({1: 1, 3: 1})
    finally:
        daemon.lab.type("rs2", f"ip address add {daemon.vip}/32 dev lo")
    daemon.becomes({1: 1, 2: 1, 3: 1})


def _checked(daemon: Daemon) -> int:
    """How many checkers have passed by now."""
    status = json.loads(daemon.lab.type("director", "xlvs status --json"))["daemon"]
    return sum(
        checker["up"] is True and checker["checked"] is not None
        for server in status["virtual_servers"]
        for real_server in server["real_servers"]
        for checker in real_server["checkers"]
    )


def test_only_what_falls_between_death_and_detection_fails(daemon: Daemon) -> None:
    lab, service = daemon.lab, f"{daemon.vip}:80 {daemon.rips[0]}"
    # Else a client that uses a port again goes where it went, to a drained real server as well.
    lab.type("director", "xlvs sysctl conn_reuse_mode=3")
    traffic = Traffic(daemon)
    try:
        traffic.asks("healthy")
        traffic.phase("dying")
        kill_nginx(lab, "rs3")
        daemon.becomes({1: 1, 2: 1})
        traffic.asks("without")
        traffic.phase("returning")
        lab.type("rs3", "nginx")
        daemon.becomes({1: 1, 2: 1, 3: 1})
        traffic.asks("returned")
        daemon.end("KILL")
        traffic.asks("headless")
        daemon.start()
        traffic.asks("restarted")
        daemon.reload()
        traffic.asks("reloaded")
        daemon.configure([1, 5, 2])
        daemon.reload()
        daemon.becomes({1: 1, 2: 5, 3: 2})
        traffic.asks("changed")
        lab.type("director", f"xlvs drain {service} --deadline 5m")
        daemon.becomes({1: 0, 2: 5, 3: 2})
        traffic.asks("draining")
        daemon.becomes({2: 5, 3: 2})
        traffic.asks("drained")
    finally:
        traffic.end()
        lab.type("director", f"xlvs undrain {service}; xlvs sysctl conn_reuse_mode=1")
    failed = [request for request in traffic.requests() if request[2] == "failed"]
    assert all("dying" in request for request in failed), failed
    assert set(traffic.answers("healthy")) == set(traffic.answers("returned")) == {"rs1", "rs2", "rs3"}
    assert set(traffic.answers("without")) == {"rs1", "rs2"}
    assert set(traffic.answers("draining")) == set(traffic.answers("drained")) == {"rs2", "rs3"}


@pytest.fixture
def tls(daemon: Daemon) -> Iterator[Path]:
    """An nginx with TLS at port 443 of each real server; the folder with what each was asked."""
    folder = daemon.folder
    keys = f"-nodes -keyout {folder}/web.key -out {folder}/web.pem -subj /CN=web.test -days 30"
    ec = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    daemon.lab.type("director", f"openssl req -x509 {ec} {keys} 2>/dev/null")
    names = ["rs1", "rs2", "rs3"]
    for name in names:
        (folder / f"{name}.conf").write_text(TLS_SERVER.format(folder=folder, name=name))
        daemon.lab.type(name, f"nginx -c {folder}/{name}.conf -e {folder}/{name}.errors")
    try:
        yield folder
    finally:
        for name in names:
            daemon.lab.type(name, f"kill $(cat {folder}/{name}.pid)")
            daemon.lab.type(name, f"ip address replace {daemon.vip}/32 dev lo")


def test_ssl_get_via_vip_goes_the_way_of_clients_to_each_real_server(daemon: Daemon, tls: Path) -> None:
    check = (
        "        SSL_GET {\n            url {\n                path /\n                status_code 200\n"
        "            }\n            virtualhost web.test\n            enable_sni\n            via vip\n"
        "            connect_timeout 1\n            delay_before_retry 0.1\n        }\n    }\n"
    )
    servers = "".join(
        f"    real_server {rip} 443 {{\n        lvs_method {method}\n{check}"
        for rip, method in zip(daemon.rips, ("DR", "DR", "NAT"), strict=True)
    )
    (tls / "keepalived.conf").write_text(
        f"virtual_server {daemon.vip} 443 {{\n    delay_loop 0.3\n    lb_algo rr\n    lb_kind DR\n"
        f"    protocol TCP\n{servers}}}\n"
    )
    daemon.lab.type("rs3", f"ip address del {daemon.vip}/32 dev lo")  # not for NAT
    daemon.reload()
    daemon.becomes({1: 1, 2: 1, 3: 1})
    # Each was asked at the address that its method leaves in the packet, and by the name.
    for name, address in zip(("rs1", "rs2", "rs3"), (daemon.vip, daemon.vip, daemon.rips[2]), strict=True):
        assert set((tls / f"{name}.log").read_text().splitlines()) == {f"{address} web.test web.test"}
    daemon.lab.type("rs2", f"ip address del {daemon.vip}/32 dev lo")
    daemon.becomes({1: 1, 3: 1})
    # What a check of its own address would find.
    daemon.lab.type("director", f"curl -s -k -f -m 5 https://{daemon.rips[1]}/")
    assert "through the VIP" in daemon.lab.type("director", "xlvs status")
    daemon.lab.type("rs2", f"ip address add {daemon.vip}/32 dev lo")
    daemon.becomes({1: 1, 2: 1, 3: 1})
