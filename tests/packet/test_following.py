# SPDX-License-Identifier: GPL-2.0-only
"""Interfaces that are made anew, or appear later, are attached as was asked for; real interfaces."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.labs import eventually
from tests.packet.director import SMALL
from tests.packet.spaces import ip, new_namespace
from xlvs.cli.main import main
from xlvs.datapath import fitness, intent
from xlvs.datapath.activate import activate, deactivate
from xlvs.datapath.attach import Attacher
from xlvs.datapath.following import Follower
from xlvs.datapath.hooks import TcHook
from xlvs.datapath.maps import Maps
from xlvs.datapath.modes import TC, XDP, XDP_GENERIC
from xlvs.doctor.director import observe_director
from xlvs.errors import Unusable
from xlvs.kernel import abi, bpf, bpffs, followed, grace_period, lock, rtnetlink
from xlvs.kernel.namespaces import network_cookie, network_namespace

PROGRAMS = Path(sys.executable).parent
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def loaded() -> Iterator[str]:
    """The folder of a data plane in a new namespace, in which the tests of this module are."""
    with ExitStack() as stack:
        stack.enter_context(network_namespace(stack.enter_context(new_namespace())))
        with lock.table_lock(exclusive=True):
            folder = activate(SMALL, []).folder
        stack.callback(deactivate, folder)
        yield folder


@pytest.fixture
def folder(loaded: str) -> Iterator[str]:
    """The same with nothing attached and nothing wanted, and an interface ``eth0`` that is up."""
    make("eth0")
    try:
        yield loaded
    finally:
        for link in Attacher(loaded).links():
            # A veth takes its other end with it.
            if not link.loopback and Path(f"/proc/sys/net/ipv4/conf/{link.name}").exists():
                ip(f"link del {link.name}")
        with lock.table_lock(exclusive=True):
            Attacher(loaded).forget_departed()
            shutil.rmtree(f"{loaded}/wanted", ignore_errors=True)


def make(name: str, *, up: bool = True) -> None:
    ip(f"link add {name} type veth peer name {name}-peer")
    if up:
        ip(f"link set {name} up")


def remake(name: str, *, up: bool = True) -> None:
    ip(f"link del {name}")
    make(name, up=up)


def attach(*names: str, mode: str | None = None, again: bool = False) -> None:
    with lock.table_lock(exclusive=True):
        activate(None, list(names) or None, mode, again)


def xlvs(*words: str) -> str:
    ran = subprocess.run([PROGRAMS / "xlvs", *words], capture_output=True, text=True, check=True)
    return ran.stdout + ran.stderr


def modes(folder: str) -> dict[str, str]:
    """What is attached, and how: ``lo`` aside."""
    attacher = Attacher(folder)
    found = {link.name: attacher.mode(link.index) for link in attacher.links() if not link.loopback}
    return {name: mode for name, mode in found.items() if mode}


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("mode", [TC, XDP_GENERIC])
def test_one_that_was_named_comes_back(folder: str, mode: str, up: bool) -> None:
    attach("eth0", mode=mode)
    follower = Follower()
    assert follower.look() == []
    for _ in range(2):
        remake("eth0", up=up)
        assert modes(folder) == {}
        assert len(follower.look()) == 1
        assert modes(folder) == {"eth0": mode}
        assert follower.look() == []


def test_dead_pins_go(folder: str) -> None:
    attach("eth0")
    before = set(os.listdir(f"{folder}/links"))
    remake("eth0")
    Follower().look()
    after = set(os.listdir(f"{folder}/links"))
    assert len(after) == len(before) and after != before


def test_by_clsact(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 6.6, where filters end with their interfaces, and marks stay."""
    monkeypatch.setattr(TcHook, "_attach_tcx", lambda *_arguments: "")
    attach("eth0")
    remake("eth0")
    assert Follower().look() == ["eth0: clsact"]
    assert modes(folder) == {"eth0": TC}


def test_new_ones_where_all_were_meant(folder: str) -> None:
    attach(mode=XDP_GENERIC)
    make("later", up=False)
    follower = Follower()
    follower.look()
    assert modes(folder) == {"eth0": XDP_GENERIC}
    ip("link set later up")
    follower.look()
    assert modes(folder) == {"eth0": XDP_GENERIC, "later": XDP_GENERIC}
    # Down again it stays as it is.
    ip("link set later down")
    assert follower.look() == []
    make("eth0.5")  # named as VLANs are
    follower.look()
    assert modes(folder)["eth0.5"] == XDP_GENERIC


def test_only_those_that_were_named(folder: str) -> None:
    attach("eth0")
    make("later")
    assert Follower().look() == []
    assert modes(folder) == {"eth0": TC}


def test_detached_stays_detached(folder: str) -> None:
    attach()
    make("eth1")
    attach("eth1")
    assert xlvs("detach", "eth0", "eth1") == (
        "eth0: detached; it stays so until: xlvs attach eth0\n"
        "eth1: detached; it stays so until: xlvs attach eth1\n"
    )
    for name in ("eth0", "eth1"):
        remake(name)
    assert Follower().look() == []
    assert modes(folder) == {}
    attach(again=True)  # what is loaded anew from its file was not asked for
    assert modes(folder) == {}
    attach("eth1")
    remake("eth1")
    Follower().look()
    assert modes(folder) == {"eth1": TC}
    attach()
    assert modes(folder) == {"eth0": TC, "eth1": TC}


def known(folder: str, index: int) -> int:
    """What XDP knows of an interface."""
    maps = Maps(folder)
    try:
        return maps.record("interfaces", abi.Interface, index, abi.INTERFACE_LIMIT).known
    finally:
        maps.close()


def test_no_frames_are_sent_by_one_without_xdp(folder: str) -> None:
    """XDP on another one would send them, and most drivers would lose them."""
    for ends in (lambda: xlvs("detach", "eth0"), lambda: ip("link del eth0")):
        attach("eth0", mode=XDP)
        index = Attacher(folder).link("eth0").index
        assert known(folder, index) & abi.INTERFACE_NATIVE
        ends()
        Follower().look()
        assert known(folder, index) == 0


def test_names_that_no_interface_has(folder: str) -> None:
    attach()
    for name in ("a/b", "*/eth0", "", "eth0:1", "a b", "an-interface-name"):
        for words in (("detach", name), ("attach", name)):
            ran = subprocess.run([PROGRAMS / "xlvs", *words], capture_output=True, text=True, check=False)
            assert ran.returncode == 2 and f"no interface can be called {name!r}" in ran.stderr
    assert intent.read(folder).detached == frozenset()
    assert modes(folder) == {"eth0": TC}


@pytest.mark.usefixtures("folder")
def test_one_of_a_pattern_is_detached_before_it_is_there() -> None:
    attach("eth*")
    assert xlvs("detach", "eth7") == "eth7: not attached when it comes back\n"
    make("eth7")
    assert Follower().look() == []


@pytest.mark.usefixtures("folder")
def test_detached_while_it_is_not_there() -> None:
    attach("eth0")
    ip("link del eth0")
    assert xlvs("detach", "eth0") == "eth0: not attached when it comes back\n"
    make("eth0")
    assert Follower().look() == []
    ran = subprocess.run([PROGRAMS / "xlvs", "detach", "eth9"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "there is no interface eth9" in ran.stderr


def test_detached_while_it_is_not_there_where_all_were_meant(folder: str) -> None:
    make("eth1")
    attach()
    ip("link del eth1")
    assert xlvs("detach", "eth1") == "eth1: not attached when it comes back\n"
    make("eth1")
    Follower().look()
    assert modes(folder) == {"eth0": TC}


def test_a_data_plane_of_another_layout_is_left_alone(folder: str) -> None:
    attach("eth0")
    remake("eth0")
    maps = Maps(folder)
    maps.settings.abi_version += 1
    try:
        with pytest.raises(Unusable, match="layout"):
            Follower().look()
        assert modes(folder) == {}
    finally:
        maps.settings.abi_version -= 1
        maps.close()
    Follower().look()
    assert modes(folder) == {"eth0": TC}


def test_a_port_is_let_go_and_taken_again(folder: str) -> None:
    attach()
    follower = Follower()
    ip("link add br0 type bridge")
    ip("link set br0 up")
    ip("link set eth0 master br0")
    assert "eth0: detached, it is a port of the bridge br0: attach to br0" in follower.look()
    assert modes(folder) == {"br0": TC}
    ip("link del br0")
    follower.look()
    assert modes(folder) == {"eth0": TC}


def test_in_another_namespace_it_is_not_ours(folder: str) -> None:
    attach("eth0", mode=XDP_GENERIC)
    with new_namespace() as other:
        process = other.split("/")[2]
        index = socket.if_nametoindex("eth0")
        ip(f"link set eth0 netns {process}")
        follower = Follower()
        assert follower.look() == []
        assert not [name for name in os.listdir(f"{folder}/links") if name.endswith(f"-{index}")]
        with network_namespace(other):
            assert follower.look() == []  # nor is it of the director that is not there
            shown = subprocess.run(
                ["ip", "link", "show", "eth0"], capture_output=True, text=True, check=True
            )
            assert "xdp" not in shown.stdout
            ip("link del eth0")
    make("eth0")
    follower.look()
    assert modes(folder) == {"eth0": XDP_GENERIC}


def test_what_is_refused_is_said_once(folder: str) -> None:
    """XDP is a stranger's: TC serves meanwhile, and nobody tries again with this interface."""
    attach("eth0", mode=XDP_GENERIC)
    follower = Follower()
    remake("eth0")
    program = bpf.open_pin(f"{folder}/xlvs_xdp")
    strangers = bpf.create_link(program, socket.if_nametoindex("eth0"), bpf.XDP, bpf.XDP_FLAGS_SKB_MODE)
    os.close(program)
    said = follower.look()
    assert "another XDP program is there" in said[0] and len(said) == 2
    assert modes(folder) == {"eth0": TC}
    assert follower.look() == []
    os.close(strangers)
    remake("eth0")
    follower.look()
    assert modes(folder) == {"eth0": XDP_GENERIC}


def refuse_native_xdp(name: str) -> None:
    """Have a veth's driver refuse it: frames of its peer may be larger than a page."""
    ip(f"link set {name}-peer mtu 9000")


def allow_native_xdp(name: str) -> None:
    ip(f"link set {name}-peer mtu 1500")


def test_what_a_driver_has_refused_is_not_asked_again(folder: str) -> None:
    """Nor by the next process, `xlvs follow --once` in a hook: its queues might start anew each time."""
    attach("eth0", mode=XDP)
    remake("eth0")
    refuse_native_xdp("eth0")
    said = Follower().look()
    assert "refuse a large MTU" in said[0] and len(said) == 2
    allow_native_xdp("eth0")
    assert xlvs("follow", "--once") == "" and Follower().look() == []
    assert modes(folder) == {"eth0": TC}
    assert re.search(
        r"^cannot attach to eth0 at xdp: .*; not tried again until", xlvs("status"), re.MULTILINE
    )
    # Where the operator attaches it, it is asked, and where it is made anew.
    attach("eth0")
    assert Follower().look() == ["eth0: xdp"]
    remake("eth0")
    refuse_native_xdp("eth0")
    Follower().look()
    remake("eth0")
    assert Follower().look() == ["eth0: xdp"]
    assert intent.read(folder).tried == {}


def test_what_a_driver_has_refused_the_operator_is_not_asked_again(folder: str) -> None:
    make("eth1")
    refuse_native_xdp("eth0")
    attach(mode=XDP)
    assert modes(folder) == {"eth1": XDP}
    allow_native_xdp("eth0")
    assert len(Follower().look()) == 1
    assert modes(folder) == {"eth0": TC, "eth1": XDP}
    attach(mode=XDP)
    assert modes(folder) == {"eth0": XDP, "eth1": XDP}


def test_refused_and_a_port_for_a_while(folder: str) -> None:
    """It was let go, and has the same number: TC serves when it is nobody's port any more."""
    attach("eth0", mode=XDP_GENERIC)
    remake("eth0")
    program = bpf.open_pin(f"{folder}/xlvs_xdp")
    strangers = bpf.create_link(program, socket.if_nametoindex("eth0"), bpf.XDP, bpf.XDP_FLAGS_SKB_MODE)
    os.close(program)
    follower = Follower()
    follower.look()
    ip("link add br0 type bridge")
    ip("link set eth0 master br0")
    follower.look()
    assert modes(folder) == {}
    ip("link set eth0 nomaster")
    follower.look()
    os.close(strangers)
    assert modes(folder) == {"eth0": TC}


def test_native_xdp_stays_while_it_is_down(folder: str) -> None:
    attach("eth0", mode=XDP)
    link = Path(f"{folder}/links/native-{socket.if_nametoindex('eth0')}").stat().st_ino
    follower = Follower()
    for state in ("down", "up"):
        ip(f"link set eth0 {state}")
        assert follower.look() == []
        assert modes(folder) == {"eth0": XDP}
    assert Path(f"{folder}/links/native-{socket.if_nametoindex('eth0')}").stat().st_ino == link


def test_a_name_for_a_moment(folder: str) -> None:
    """As when udev renames a NIC that has appeared: it is what its last name says."""
    attach("eth0", mode=XDP_GENERIC)
    remake("eth0")
    follower = Follower()
    follower.look()
    ip("link set eth0 down")
    ip("link set eth0 name enp1s0")
    assert follower.look() == ["enp1s0: detached, it came as eth0, and is not wanted by this name"]
    ip("link set enp1s0 up")
    assert follower.look() == [] and modes(folder) == {}
    # The one that has this name in the end is attached, also one that came by another.
    ip("link set enp1s0 down")
    ip("link set enp1s0 name eth0")
    follower.look()
    assert modes(folder) == {"eth0": XDP_GENERIC}


def test_one_that_is_off_by_its_last_name(folder: str) -> None:
    attach()
    xlvs("detach", "enp1s0")
    make("eth1")
    follower = Follower()
    follower.look()
    assert modes(folder) == {"eth0": TC, "eth1": TC}
    for old, new in (("eth1", "enp1s0"), ("eth0", "wan")):
        ip(f"link set {old} down")
        ip(f"link set {old} name {new}")
        ip(f"link set {new} up")
    assert follower.look() == ["enp1s0: detached, it came as eth1, and is not wanted by this name"]
    assert modes(folder) == {"wan": TC}, "the operator has attached it, and may rename it"


@contextmanager
def container(name: str) -> Iterator[None]:
    """A container, with that interface at the host's end."""
    with new_namespace() as other:
        ip(f"link add {name} type veth peer name eth0 netns {other.split('/')[2]}")
        ip(f"link set {name} up")
        yield


def test_the_ends_of_containers(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody's packets come by them to the VIP but those of containers, which have a bridge as a rule."""
    assert not Path(fitness.HOSTS_OWN).exists(), "this namespace is not the machine's first"
    monkeypatch.setattr(fitness, "HOSTS_OWN", "/proc/self")
    attach()
    with container("veth1"):
        follower = Follower()
        assert follower.look() == []
        assert "veth1" not in observe_director("/proc/net").not_attached
        left_out = "Left out, because the other end is a container's, and this one has no address"
        for command in ("attach", "status"):
            main([command])
            assert f"{left_out} (to attach one: xlvs attach NAME):\n  veth1\n" in capsys.readouterr().out
        assert modes(folder) == {"eth0": TC}
        main(["attach", "veth?"])
        assert modes(folder) == {"eth0": TC, "veth1": TC}
        main(["detach", "veth*"])
        follower.look()
        assert modes(folder) == {"eth0": TC}


def test_an_address_makes_it_one_of_ours(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "HOSTS_OWN", "/proc/self")
    attach()
    with container("veth1"), rtnetlink.link_announcements() as announced:
        follower = Follower()
        assert follower.look() == []
        with suppress(BlockingIOError):
            while announced.recv(1 << 16):
                pass
        ip("address add 192.0.2.1/24 dev veth1")
        assert select.select([announced], [], [], 20)[0], "whoever follows wakes up"
        assert len(follower.look()) == 1
        assert modes(folder) == {"eth0": TC, "veth1": TC}


def test_a_director_in_a_container(folder: str) -> None:
    """Its own interface is such an end, and need not have an address."""
    attach()
    with container("eth1"):
        Follower().look()
        assert modes(folder) == {"eth0": TC, "eth1": TC}


def test_only_some(folder: str) -> None:
    for name in ("eth1", "eth2", "tap1"):
        make(name)
    attach()
    xlvs("detach", "eth2")
    said = xlvs("attach", "--only", "eth1", "tap*")
    assert re.fullmatch(r"eth1: (\w+)\ntap1: \1\neth0: detached\n", said)
    assert modes(folder) == {"eth1": TC, "tap1": TC}
    for name in ("tap2", "eth3"):
        make(name)
    remake("eth1")
    Follower().look()
    attach(again=True)  # a reload names none
    assert modes(folder) == {"eth1": TC, "tap1": TC, "tap2": TC}
    attach(mode=XDP_GENERIC, again=True)
    assert set(modes(folder).values()) == {XDP_GENERIC} and len(modes(folder)) == 3
    attach()
    assert len(modes(folder)) == 6
    ran = subprocess.run(
        [PROGRAMS / "xlvs", "attach", "--only"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2 and "--only needs the names of interfaces" in ran.stderr


def test_one_of_a_pattern_gets_its_mode(folder: str) -> None:
    make("tap1")
    attach("tap*", mode=XDP_GENERIC)
    for name in ("tap2", "tap3"):
        make(name)
    attach("tap2")
    attach("tap*")
    assert modes(folder) == dict.fromkeys(("tap1", "tap2", "tap3"), XDP_GENERIC)


def test_a_hook_that_is_taken(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TcHook, "_attach_tcx", lambda *_arguments: "")
    attach("eth0")
    remake("eth0")
    subprocess.run(["tc", "qdisc", "add", "dev", "eth0", "ingress"], check=True)
    mark = followed.begin()
    try:
        follower = Follower()
        assert "its qdisc is ingress" in follower.look()[0]
        assert follower.look() == []
        assert "its qdisc is ingress" in xlvs("status")
        seen = observe_director("/proc/net")
        assert "eth0" in seen.not_attached and "ingress" in seen.refused["eth0"]
        subprocess.run(["tc", "qdisc", "del", "dev", "eth0", "ingress"], check=True)
        attach()
        assert intent.read(folder).refused == {}
    finally:
        os.close(mark)


@pytest.mark.usefixtures("folder")
def test_doctor_and_status_go_by_whoever_follows() -> None:
    attach("eth0")
    remake("eth0")
    seen = observe_director("/proc/net")
    assert seen.not_attached == ("eth0",) and not seen.followed
    assert "Nobody attaches interfaces that come back" in xlvs("status")
    mark, beside = followed.begin(), followed.begin()
    os.close(beside)
    try:
        seen = observe_director("/proc/net")
        assert seen.not_attached == () and seen.followed
        assert "Interfaces are followed" in xlvs("status")
        ip("link del eth0")
        assert re.search(r"^eth0 +gone +\(attached when it comes back\)$", xlvs("status"), re.MULTILINE)
        make("eth0")
        xlvs("detach", "eth0")
        assert observe_director("/proc/net").not_attached == ("eth0",)
        assert re.search(
            r"^eth0 +none +\(detached; attach it: xlvs attach eth0\)$", xlvs("status"), re.MULTILINE
        )
    finally:
        os.close(mark)
    assert not followed.is_followed()


def test_many_at_once(folder: str) -> None:
    attach()
    for number in range(4):
        make(f"new{number}")
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def look(_: int) -> list[str]:
        with network_namespace(f"/proc/{os.getpid()}/fd/{here}"):
            return Follower().look()

    with ThreadPoolExecutor(4) as pool:
        said = [line for lines in pool.map(look, range(8)) for line in lines]
    os.close(here)
    assert sorted(line.split(":")[0] for line in said) == [f"new{number}" for number in range(4)]
    assert modes(folder) == dict.fromkeys(("eth0", "new0", "new1", "new2", "new3"), TC)


@contextmanager
def running(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def follows(folder: str) -> None:
    """Somebody follows: named ones, each time."""
    eventually(followed.is_followed, "somebody follows")
    for _ in range(2):
        remake("eth0")
        eventually(lambda: modes(folder) == {"eth0": TC}, "the interface is attached again")


def test_a_process_follows(folder: str) -> None:
    attach("eth0")
    with running(PROGRAMS / "xlvs", "follow") as process:
        follows(folder)
        assert process.stdout is not None
        for _ in range(2):  # it is said after it is done
            assert process.stdout.readline() in ("eth0: tcx\n", "eth0: clsact\n")
        process.send_signal(signal.SIGINT)
        said, wrong = process.communicate(timeout=20)
        assert said == "" and "interrupted" in wrong
    assert not followed.is_followed()


def test_xlvs_run_follows(folder: str, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("")
    with running(PROGRAMS / "xlvs", "run", "--no-save", "--file", table, "eth0"):
        follows(folder)  # it is killed: a signal would detach what the other tests need


def test_xlvsd_follows(folder: str, tmp_path: Path) -> None:
    attach("eth0")
    (tmp_path / "keepalived.conf").write_text("global_defs {\n}\n")
    with running(PROGRAMS / "xlvsd", "-n", "-l", "-G", "-f", tmp_path / "keepalived.conf") as process:
        follows(folder)
        process.send_signal(signal.SIGTERM)
        assert "Interface eth0: " in process.communicate(timeout=20)[1]
        assert process.returncode == 0


def test_with_what_the_unit_allows(folder: str) -> None:
    unit = (PROJECT / "systemd/xlvs-interfaces.service.in").read_text()
    allowed = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)[0].lower().split()
    bounds = ",".join(["-all", *(name.replace("cap_", "+") for name in allowed)])
    attach("eth0", mode=XDP_GENERIC)
    remake("eth0")
    words = [str(PROGRAMS / "xlvs"), "follow", "--once"]
    setpriv = ["setpriv", f"--bounding-set={bounds}", "--no-new-privs", *words]
    ran = subprocess.run(setpriv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert modes(folder) == {"eth0": XDP_GENERIC}


def test_silent_without_a_director() -> None:
    with new_namespace() as path, network_namespace(path):
        make("eth0")
        assert bpffs.namespace_folder() is None
        assert xlvs("follow", "--once") == ""
        assert not lock_files()


def lock_files() -> list[Path]:
    """What this namespace has below /run/xlvs."""
    return [path for path in Path("/run/xlvs").glob(f"*/{network_cookie():x}*") if path.exists()]


def test_many_do_not_wait_for_each(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many interfaces the kernel's waits at each hook are short meanwhile, and not afterwards."""
    setting = tmp_path / "rcu_expedited"
    setting.write_text("0\n")
    monkeypatch.setattr(grace_period, "SETTING", str(setting))
    monkeypatch.setattr(grace_period, "FOLDER", str(tmp_path / "hurry"))
    seen: list[str] = []
    attach_one, detach_one = TcHook.attach, TcHook.detach

    def attach_and_note(hook: TcHook, link: rtnetlink.Link) -> str:
        if not link.loopback:
            seen.append(setting.read_text())
        return attach_one(hook, link)

    def detach_and_note(hook: TcHook, index: int) -> None:
        seen.append(setting.read_text())
        detach_one(hook, index)

    monkeypatch.setattr(TcHook, "attach", attach_and_note)
    monkeypatch.setattr(TcHook, "detach", detach_and_note)
    attach()
    assert set(seen) == {"0\n"}  # one interface
    for number in range(grace_period.MANY):
        make(f"many{number}")
    for look in (Follower().look, attach):
        seen.clear()
        look()
        assert set(seen) == {"1"} and setting.read_text() == "0"
        seen.clear()
        with lock.table_lock(exclusive=True):
            Attacher(folder).detach_all()
        assert set(seen) == {"1"} and setting.read_text() == "0"
