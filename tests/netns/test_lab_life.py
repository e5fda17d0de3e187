# SPDX-License-Identifier: GPL-2.0-only
"""A lab's life by its commands: up, repair, down, and what is left after each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import XLVS, Lab, eventually, left_behind, xlvs
from xlvs.kernel import bpffs
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import lifecycle, namespaces, state


def lab_of(name: str) -> Lab:
    record = state.load(name)
    assert record is not None
    return Lab(record)


def interfaces_of_the_machine() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))


def up(name: str, *options: str) -> Lab:
    xlvs("lab", "up", "dr", "--name", name, *options)
    return lab_of(name)


def test_up_gives_a_cluster_at_work(lab_name: str) -> None:
    before = interfaces_of_the_machine()
    said = xlvs("lab", "up", "dr", "--name", lab_name).stdout
    lab = lab_of(lab_name)
    vip, first = lab.addresses.vip, lab.addresses.rips[0]

    assert f"director# ipvsadm -A -t {vip}:80 -s rr" in said
    assert f"director# ipvsadm -a -t {vip}:80 -r {first} -g" in said
    assert sorted(lab.ask(6)) == ["rs1", "rs1", "rs2", "rs2", "rs3", "rs3"]
    assert interfaces_of_the_machine() == before, "a lab has nothing outside of its own namespaces"
    for node in ("client", "director", "rs1"):
        assert "default" not in lab.type(node, "ip route"), "a lab has no way out"


def test_real_servers_are_nginx_and_say_who_they_are(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--real-servers", "2")
    page = lab.type("client", f"curl -s -i http://{lab.addresses.rips[1]}/")
    assert "Server: nginx" in page and "X-Real-Server: rs2" in page and page.endswith("\n\nrs2\n")
    assert lab.ask(1, f"http://[{lab.addresses.rips6[0]}]/") == ["rs1"]


def test_bare_lab_has_addresses_and_web_servers_only(lab_name: str) -> None:
    lab = up(lab_name, "--bare")
    assert lab.ask(3, f"http://{lab.addresses.rips[0]}/") == ["rs1"] * 3
    for node in ("director", "rs1", "rs2", "rs3"):
        assert lab.addresses.vip not in lab.type(node, "ip address show")
        settings = lab.type(
            node, "cat /proc/sys/net/ipv4/conf/*/arp_ignore /proc/sys/net/ipv4/conf/*/arp_announce"
        )
        assert set(settings.split()) == {"0"}
    assert "->" not in lab.type("director", "ipvsadm -Ln").partition("RemoteAddress")[2]
    assert not (namespace_pins(lab, "director")), "looking at an empty table loads nothing"


def namespace_pins(lab: Lab, node: str) -> bool:
    """Is a data plane loaded in this node?"""
    with network_namespace(namespaces.path(lab.record.namespace(node))):
        return bpffs.namespace_folder() is not None


def test_addresses_and_interface_are_the_operators(lab_name: str) -> None:
    lab = up(
        lab_name, "--bare", "--network", "10.1.0.0/16", "--vip", "10.1.9.9", "--dip", "10.1.0.5", "--client",
        "10.1.0.6", "--rip", "10.1.7.1", "--rip", "10.1.7.2", "--interface", "ens32",
    )  # fmt: skip
    status = json.loads(xlvs("lab", "status", "--name", lab_name, "--json").stdout)
    assert (status["vip"], status["dip"], status["client"]) == ("10.1.9.9", "10.1.0.5", "10.1.0.6")
    assert status["rips"] == ["10.1.7.1", "10.1.7.2"]
    assert list(status["nodes"]) == ["director", "client", "rs1", "rs2"]
    assert "10.1.0.5/16" in lab.type("director", "ip address show dev ens32")
    assert lab.ask(1, "http://10.1.7.2/") == ["rs2"]


def test_router_stands_between_client_and_cluster(lab_name: str) -> None:
    lab = up(lab_name, "--router")
    status = json.loads(xlvs("lab", "status", "--name", lab_name, "--json").stdout)
    assert "router" in status["nodes"] and status["router"] and status["gateway"]
    assert sorted(lab.ask(6)) == ["rs1", "rs1", "rs2", "rs2", "rs3", "rs3"]
    assert lab.ask(1, f"http://[{lab.addresses.rips6[0]}]/") == ["rs1"]
    route = lab.type("client", f"ip route get {lab.addresses.vip}")
    assert f"via {lab.addresses.gateway} " in route


def test_list_and_status(lab_name: str) -> None:
    up(lab_name, "--bare", "--real-servers", "1")
    labs = {lab["name"]: lab for lab in json.loads(xlvs("lab", "list", "--json").stdout)}
    assert labs[lab_name]["state"] == "ready"
    assert labs[lab_name]["nodes"] == ["director", "client", "rs1"]
    assert lab_name in xlvs("lab", "list").stdout
    shown = xlvs("lab", "status", "--name", lab_name).stdout
    assert "ready" in shown and "nginx" in shown


def test_exec_is_like_being_there(lab_name: str) -> None:
    up(lab_name, "--bare", "--real-servers", "1")

    def run(node: str, *command: str, code: int = 0, typed: str | None = None) -> str:
        return xlvs("lab", "exec", "--name", lab_name, node, "--", *command, code=code, typed=typed).stdout

    assert run("rs1", "hostname") == "rs1\n"
    assert os.uname().nodename != "rs1"
    assert run("director", "sh", "-c", "exit 7", code=7) == ""
    assert run("director", "sh", "-c", "kill -TERM $$", code=-signal.SIGTERM) == ""
    assert run("director", "cat", typed="from outside\n") == "from outside\n"
    assert set(run("director", "ls", "/sys/class/net").split()) == {"lo", "eth0"}
    tools = "ipvsadm xlvsadm xlvs ifconfig route iptables arping watch curl ip ifup ping tcpdump nginx"
    found = run("director", "sh", "-c", f"for tool in {tools}; do command -v $tool; done").split()
    assert len(found) == len(tools.split())
    assert Path(run("director", "sh", "-c", "readlink $(command -v ipvsadm)").strip()).name == "xlvsadm"
    missing = xlvs("lab", "exec", "--name", lab_name, "rs1", "--", "no-such-command", code=1)
    assert "no-such-command" in missing.stderr


def test_ipvsadms_scripts_are_there(lab_name: str) -> None:
    lab = up(lab_name)
    saved = lab.type("director", "ipvsadm-save -n")
    assert saved.startswith("-A -t ")
    kept = 'kept=$(ipvsadm-save -n); ipvsadm -A -u 192.0.2.7:1; echo "$kept" | ipvsadm-restore'
    assert lab.type("director", kept) == ""
    assert lab.type("director", "xlvsadm-save -n") == saved


def test_a_signal_to_exec_reaches_the_command(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--real-servers", "1")
    process = subprocess.Popen(
        [XLVS, "lab", "exec", "--name", lab_name, "rs1", "--", "sleep", "300"], stderr=subprocess.DEVNULL
    )
    eventually(
        lambda: "sleep" in lab.type("rs1", "ps -e -o comm= | grep -x sleep; true"), "sleep runs in rs1"
    )
    eventually(
        lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the command took its place"
    )
    process.terminate()
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_network_configuration_is_private_and_lasts(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--real-servers", "2")
    machines_own = Path("/etc/network/interfaces").read_bytes()
    lab.type("rs1", "echo '# mine' >>/etc/network/interfaces")
    assert "# mine" in lab.type("rs1", "cat /etc/network/interfaces")
    assert "# mine" not in lab.type("rs2", "cat /etc/network/interfaces")
    lab.type("rs1", "printf 'iface eth0:7 inet static\\naddress 192.0.2.77/24\\n' >>/etc/network/interfaces")
    lab.type("rs1", "ifup eth0:7")
    assert "eth0:7" in lab.type("rs1", "cat /run/network/ifstate")
    lab.type("rs1", "ifdown eth0:7")
    assert "192.0.2.77" not in lab.type("rs1", "ip address")
    assert Path("/etc/network/interfaces").read_bytes() == machines_own


def test_what_is_saved_in_a_node_stays_there(lab_name: str) -> None:
    """Tutorials write into /etc, and so does whoever saves a table; the machine's boot is not the lab's."""
    lab = up(lab_name, "--real-servers", "1")
    written = ("/etc/ipvsadm.rules", "/etc/sysctl.conf", "/var/lib/xlvs/table")
    before = [Path(each).read_bytes() if Path(each).exists() else None for each in written]
    lab.type("director", "ipvsadm -Sn >/etc/ipvsadm.rules; echo '# mine' >>/etc/sysctl.conf; xlvs save")
    assert [Path(each).read_bytes() if Path(each).exists() else None for each in written] == before
    assert lab.type("director", "cat /etc/ipvsadm.rules") == lab.type("director", "ipvsadm -Sn")
    assert lab.type("director", "tail -n 1 /etc/sysctl.conf") == "# mine\n"
    assert lab.type("director", "grep -c ipvsadm /var/lib/xlvs/table") != "0\n"
    assert "# mine" not in lab.type("rs1", "cat /etc/sysctl.conf || true")
    lab.type("rs1", "test -e /etc/ipvsadm.rules", code=1)


def test_options_of_a_command_need_no_dashes_before_it(lab_name: str) -> None:
    up(lab_name, "--bare", "--real-servers", "1")
    there = ("lab", "exec", "--name", lab_name, "rs1")
    assert xlvs(*there, "ls", "-d", "/etc").stdout == "/etc\n"
    assert xlvs(*there, "sh", "-c", 'echo "$@"', "sh", "--", "-x").stdout == "-- -x\n"
    assert xlvs("lab", "exec", "rs1", "--name", lab_name, "--", "hostname").stdout == "rs1\n"


def test_name_lookups_fail_at_once(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--router", "--real-servers", "1")
    begin = time.monotonic()
    lab.type("director", "curl -s http://name.invalid/", code=6)
    assert time.monotonic() - begin < 3


def test_labs_live_side_by_side_with_the_same_addresses(lab_name: str) -> None:
    other_name = f"{lab_name}-b"
    try:
        first, second = up(lab_name), up(other_name, "--bare")
        assert first.addresses == second.addresses
        assert len(set(first.ask(3))) == 3
        assert second.ask(1) == ["failed"]
        assert "no lab" not in xlvs("lab", "exec", "--name", other_name, "client", "--", "true").stderr
        refused = xlvs("lab", "exec", "client", "--", "true", code=None)
        assert refused.returncode == 2 and "several labs" in refused.stderr
        xlvs("lab", "down", "--name", lab_name)
        assert second.ask(1, f"http://{second.addresses.rips[0]}/") == ["rs1"], (
            "the other lab is not touched"
        )
    finally:
        xlvs("lab", "down", "--name", other_name, code=None)


def test_down_leaves_nothing(lab_name: str) -> None:
    strangers, mounts = named_namespaces(), mount_points()
    lab = up(lab_name)
    lab.ask(3)
    background = subprocess.Popen(
        [
            XLVS,
            "lab",
            "exec",
            "--name",
            lab_name,
            "client",
            "--",
            "sh",
            "-c",
            "trap '' TERM; sleep 300 & wait; wait",
        ]
    )
    every = [lab.record.namespace(node) for node in ("director", "client", "rs1", "rs2", "rs3")]
    eventually(
        lambda: len(namespaces.processes(every)) >= 8, "nginx on three servers, and two processes more"
    )
    processes = namespaces.processes(every)
    # Its processes keep the namespace, which nobody finds by its name any more.
    subprocess.run(["ip", "netns", "delete", lab.record.namespace("rs3")], check=True)

    xlvs("lab", "down", "--name", lab_name)

    assert background.wait(timeout=5) != 0
    assert left_behind(lab_name) == []
    eventually(lambda: not any(is_alive(process) for process in processes), "every process has ended")
    eventually(
        lambda: bool(strangers or named_namespaces() or state.names()) or mount_points() == mounts,
        "nothing is mounted that was not, unless others are at work meanwhile",
    )
    again = xlvs("lab", "down", "--name", lab_name, code=2)
    assert "there is no lab" in again.stderr


def named_namespaces() -> list[str]:
    """The network namespaces of this machine that have names."""
    return os.listdir("/run/netns") if os.path.isdir("/run/netns") else []


def mount_points() -> set[str]:
    """Where something is mounted on this machine; the data plane's own file system stays."""
    points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return points - {bpffs.MOUNT_POINT}


def is_alive(process: int) -> bool:
    """Does it run?  (What has ended and waits for its parent does not.)"""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_up_again_changes_nothing(lab_name: str) -> None:
    lab = up(lab_name)
    before = namespaces.processes([lab.record.namespace("rs1")])
    assert "already" in xlvs("lab", "up", "dr", "--name", lab_name).stdout
    assert namespaces.processes([lab.record.namespace("rs1")]) == before


def test_up_with_other_options_is_refused(lab_name: str) -> None:
    lab = up(lab_name, "--real-servers", "1")
    refused = xlvs("lab", "up", "dr", "--name", lab_name, "--real-servers", "2", code=2)
    assert "other options" in refused.stderr and "lab down" in refused.stderr
    assert lab.ask(1) == ["rs1"]


@pytest.fixture(scope="module")
def repaired() -> Iterator[str]:
    """The name of a lab that is broken and repaired again and again."""
    name = f"t{os.getpid()}-repaired"
    yield name
    lifecycle.down(name, lambda _line: None)


@pytest.mark.parametrize(
    "harm",
    [
        "for p in $(cat /run/xlvs/lab/{lab}/nodes/rs2/nginx/pid); do kill -9 $p; done",
        "kill $(cat /run/xlvs/lab/{lab}/nodes/rs2/nginx/pid)",
        "ip netns delete xlvs-{lab}-rs2",
        "ip netns pids xlvs-{lab}-rs2 | xargs kill -9; ip netns delete xlvs-{lab}-rs2",
        "ip netns delete xlvs-{lab}-director",
        "ip netns delete xlvs-{lab}-switch",
        "ip -n xlvs-{lab}-client link delete eth0",
        "ip -n xlvs-{lab}-rs1 link set eth0 down",
        "ip -n xlvs-{lab}-director address flush dev eth0",
        "ip -n xlvs-{lab}-switch link set rs3 nomaster",
        "ip -n xlvs-{lab}-switch link delete lan",
        "rm /run/xlvs/lab/{lab}/record.json",
        "echo garbage >/run/xlvs/lab/{lab}/record.json",
        "rm -r /run/xlvs/lab/{lab}",
    ],
)
def test_up_repairs_a_half_dead_lab(repaired: str, harm: str) -> None:
    lab = up(repaired)
    subprocess.run(["sh", "-c", harm.format(lab=repaired)], check=False)
    if "kill $" in harm:
        pid_file = Path(f"/run/xlvs/lab/{repaired}/nodes/rs2/nginx/pid")
        eventually(lambda: not pid_file.exists(), "nginx has ended")
    xlvs("lab", "up", "dr", "--name", repaired)
    lab.forget_neighbours()
    assert sorted(lab.ask(6)) == ["rs1", "rs1", "rs2", "rs2", "rs3", "rs3"]
    assert "already" in xlvs("lab", "up", "dr", "--name", repaired).stdout
    servers = [each for each in left_behind(repaired) if each.startswith("nginx:")]
    assert len(servers) == 3, "those of the nodes that were replaced have ended"


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("lines", [1, 4, 7, 10, 16])
def test_up_stopped_half_way(lab_name: str, signal_number: int, lines: int) -> None:
    """Killed, it is repaired by the next `up`; interrupted, it leaves nothing by itself."""
    process = subprocess.Popen(
        [XLVS, "lab", "up", "dr", "--name", lab_name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    process.send_signal(signal_number)
    process.communicate(timeout=30)
    if signal_number != signal.SIGKILL:
        assert process.returncode == 130
        assert left_behind(lab_name) == []
        return
    assert process.returncode == -signal.SIGKILL
    if lines == 7:
        xlvs("lab", "down", "--name", lab_name)
        assert left_behind(lab_name) == []
    lab = up(lab_name)
    assert sorted(lab.ask(6)) == ["rs1", "rs1", "rs2", "rs2", "rs3", "rs3"]


def test_down_stopped_half_way_can_be_repeated(lab_name: str) -> None:
    up(lab_name)
    process = subprocess.Popen([XLVS, "lab", "down", "--name", lab_name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdout.close()
    xlvs("lab", "down", "--name", lab_name, code=None)
    assert left_behind(lab_name) == []


def test_two_ups_at_once_make_one_lab(lab_name: str) -> None:
    processes = [
        subprocess.Popen([XLVS, "lab", "up", "dr", "--name", lab_name], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("already" in each for each in said) == 2
    assert len(set(lab_of(lab_name).ask(3))) == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--vip", "10.9.9.9"], "outside the network"),
        (["--vip", "192.0.2.10", "--dip", "192.0.2.10"], "address already"),
        (["--rip", "192.0.2.50", "--rip", "192.0.2.50"], "address already"),
        (["--vip", "192.0.2.255"], "broadcast"),
        (["--vip", "garbage"], "no IPv4 address"),
        (["--network", "192.0.2.0/33"], "no IPv4 network"),
        (["--network", "192.0.2.1/24"], "no IPv4 network"),
        (["--network", "192.0.2.0/30"], "prefix length"),
        (["--network", "192.0.2.0/29", "--real-servers", "5"], "no address left"),
        (["--real-servers", "65"], "real servers"),
        (["--real-servers", "0"], "real servers"),
        (["--real-servers", "many"], "invalid int"),
        (["--real-servers", "3", "--rip", "192.0.2.50"], "contradict"),
        (["--interface", "lo"], "taken"),
        (["--interface", "eth0:1"], "no name for an interface"),
        (["--interface", "much-too-long-name"], "no name for an interface"),
        (["--router", "--client", "192.0.2.77"], "outside of it"),
        (["--nonsense"], "unrecognized"),
    ],
)
def test_bad_input_changes_nothing(lab_name: str, options: list[str], complaint: str) -> None:
    refused = xlvs("lab", "up", "dr", "--name", lab_name, *options, code=2)
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert left_behind(lab_name) == []


@pytest.mark.parametrize("name", ["", "Upper", "../up", "a b", "-x", "x-", "é", "a" * 33, "a/b", "a_b"])
def test_odd_names_are_refused(name: str) -> None:
    refused = xlvs("lab", "up", "dr", f"--name={name}", code=2)
    assert "no name for a lab" in refused.stderr
    refused = xlvs("lab", "down", f"--name={name}", code=2)
    assert "no name for a lab" in refused.stderr or name == ""


def test_unknown_node_lab_and_topology(lab_name: str) -> None:
    up(lab_name, "--bare", "--real-servers", "1")
    refused = xlvs("lab", "exec", "--name", lab_name, "rs2", "--", "true", code=2)
    assert "rs2" in refused.stderr and "director client rs1" in refused.stderr
    assert "no lab" in xlvs("lab", "status", "--name", "not-there", code=2).stderr
    assert "no topology" in xlvs("lab", "up", "star", "--name", "not-there", code=2).stderr
    assert "no command" in xlvs("lab", "exec", "--name", lab_name, "rs1", "--", code=2).stderr


def test_down_from_within_is_refused(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--real-servers", "1")
    said = lab.type("director", f"xlvs lab down --name {lab_name}", code=1)
    assert "inside" in said
    assert lab.ask(1, f"http://{lab.addresses.rips[0]}/") == ["rs1"]


def test_nodes_reach_each_other_by_exec_from_within(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--real-servers", "1")
    assert lab.type("director", "xlvs lab exec client -- hostname") == "client\n"


def test_a_command_in_a_node_ends_when_its_reader_goes(lab_name: str) -> None:
    up(lab_name, "--bare", "--real-servers", "1")
    line = f"{XLVS} lab exec --name {lab_name} rs1 -- yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == f"y\n{128 + signal.SIGPIPE}\n" and ran.stderr == ""


def test_shell_is_a_login_to_the_node(lab_name: str) -> None:
    up(lab_name, "--bare", "--real-servers", "1")
    said = xlvs(
        "lab", "shell", "--name", lab_name, "rs1", typed="hostname; type -p ipvsadm; exit 3\n", code=3
    )
    assert said.stdout.split() == ["rs1", f"/run/xlvs/lab/{lab_name}/nodes/rs1/bin/ipvsadm"]


def test_run_that_cannot_be_written_is_said(lab_name: str) -> None:
    line = (
        f"mount --bind /run /run && mount -o remount,bind,ro /run && exec {XLVS} lab up dr --name {lab_name}"
    )
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", line], capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 1
    assert "Read-only file system" in ran.stderr and "/run must be writable" in ran.stderr
    assert left_behind(lab_name) == []


def test_files_put_into_a_node_are_served_from_there(lab_name: str) -> None:
    lab = up(lab_name, "--bare", "--real-servers", "2")
    lab.type("rs1", "echo mine >/var/www/html/page")
    assert lab.ask(1, f"http://{lab.addresses.rips[0]}/page") == ["mine"]
    assert lab.ask(1, f"http://{lab.addresses.rips[1]}/page") == ["rs2"], "nobody else's"
    sent = "head -c 5000000 /dev/zero | curl -s --data-binary @- "
    assert lab.type("client", f"{sent} http://{lab.addresses.rips[1]}/") == "rs2\n", "of any size"


def test_a_namespace_that_goes_is_not_taken_for_the_next_one(lab_name: str) -> None:
    """The kernel gives its inode away at once; what lives in the next namespace is nobody's of ours."""
    name = f"xlvs-{lab_name}-gone"
    namespaces.add(name)
    inode = os.stat(namespaces.path(name)).st_ino
    strangers: list[subprocess.Popen[bytes]] = []

    def look(folder: str) -> list[str]:
        """Another command takes the namespace away, and others make some, just then."""
        if folder == "/proc" and not strangers:
            subprocess.run(["ip", "netns", "delete", name], check=True)
            for _ in range(30):
                waits = ["unshare", "--net", "sh", "-c", "echo; exec sleep 60"]
                strangers.append(subprocess.Popen(waits, stdout=subprocess.PIPE))
                assert strangers[-1].stdout is not None
                strangers[-1].stdout.readline()
        return os_listdir(folder)

    os_listdir = os.listdir
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "listdir", look)
            found = namespaces.processes([name])
        assert len(strangers) == 30
        assert found == []
        assert inode not in {os.stat(f"/proc/{each.pid}/ns/net").st_ino for each in strangers}
    finally:
        for each in strangers:
            each.kill()
            each.communicate()
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
