# SPDX-License-Identifier: GPL-2.0-only
"""What xlvs cannot do it says clearly, and leaves everything as it was.

Every test breaks a machine in one way and types commands; see `machine`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.promises.machine import Machine, command, failing_bpf
from xlvs.datapath.load import OBJECT

_NORMAL_USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_USER_NAMESPACE = ("unshare", "--user", "--map-root-user")
_WITHOUT_LIBBPF = (
    "unshare", "--mount", "sh", "-e", "-c",
    "for each in /usr/lib/*/libbpf.so.1* /usr/lib64/libbpf.so.1*;"
    ' do [ ! -e $each ] || mount --bind /dev/null $each; done; exec "$@"',
    "sh",
)  # fmt: skip

_ADD = "xlvsadm -A -t 192.0.2.100:80"
_LOADING = (
    _ADD,
    "xlvs attach",
    "xlvs attach eth0",
    "xlvs attach --mode xdp-generic eth0",
    "xlvsadm --set 1 2 3",
    "xlvs mark add 1 --dst 192.0.2.0/24",
)
_CHANGING = (
    "xlvsadm -A -t 192.0.2.100:81",
    "xlvsadm -E -t 192.0.2.100:80 -s rr",
    "xlvsadm -D -t 192.0.2.100:80",
    "xlvsadm -C",
    "xlvsadm -Z",
    "xlvsadm -a -t 192.0.2.100:80 -r 192.0.2.102",
    "xlvsadm -e -t 192.0.2.100:80 -r 192.0.2.101 -w 5",
    "xlvsadm -d -t 192.0.2.100:80 -r 192.0.2.101",
    "xlvsadm -R",
    "xlvsadm --set 1 2 3",
    "xlvs attach",
    "xlvs attach --mode xdp-generic eth0",
    "xlvs detach",
    "xlvs detach eth0",
    "xlvs mark add 1 --dst 192.0.2.0/24",
    "xlvs mark clear",
)
_READING = (
    "xlvsadm",
    "xlvsadm -Ln",
    "xlvsadm -Lcn",
    "xlvsadm -Sn",
    "xlvs status",
    "xlvs status --json",
    "xlvs mark list",
    "xlvs mark save",
)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine in order, with nothing loaded."""
    with Machine() as made:
        yield made


@pytest.fixture
def loaded(machine: Machine) -> Machine:
    """A machine with a service that has a real server."""
    machine.type(
        "\n".join(" ".join(command(line)) for line in (_ADD, f"xlvsadm -a {_ADD[11:]} -r 192.0.2.101"))
    )
    return machine


def _refused(machine: Machine, line: str, *wanted: str, wrapper: tuple[str, ...] = ()) -> str:
    """Type a line that must be refused clearly, with these words, and change nothing."""
    before = machine.state()
    typed = "-A -t 192.0.2.100:82\n" if line == "xlvsadm -R" else ""
    ran = machine.run(*command(line, wrapper), stdin=typed)
    said = ran.stdout + ran.stderr
    assert ran.returncode not in (0, 127) and ran.returncode > 0, f"{line}: {ran.returncode}\n{said}"
    for word in ("Traceback", "unexpected error", "with --debug", "Errno"):
        assert word not in said, f"{line}\n{said}"
    for word in wanted:
        assert word in said, f"{line}: {word!r} is not in\n{said}"
    assert len(ran.stderr.strip().splitlines()) > 1, f"what is to be done?\n{said}"
    assert machine.state() == before, f"{line} has changed something"
    return said


def _works(machine: Machine, line: str = _ADD) -> None:
    ran = machine.run(*command(line))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _table(machine: Machine) -> str:
    return machine.type(" ".join(command("xlvsadm -Sn")))


def _restore(machine: Machine, table: str) -> None:
    """Have that table, loaded where nothing is."""
    for line in ("xlvsadm -C", "xlvsadm -R"):
        ran = machine.run(*command(line), stdin=table)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("wrapper", [_NORMAL_USER, _USER_NAMESPACE], ids=["user", "user-namespace"])
def test_a_normal_user_is_told_to_be_root(machine: Machine, wrapper: tuple[str, ...]) -> None:
    for line in _LOADING:
        _refused(machine, line, "oot", wrapper=wrapper)
    _works(machine)


def test_a_normal_user_changes_and_sees_nothing(loaded: Machine) -> None:
    table = _table(loaded)
    for line in (*_CHANGING, *_READING):
        _refused(loaded, line, "as root", wrapper=_NORMAL_USER)
        assert _table(loaded) == table, line


def test_without_libbpf(machine: Machine) -> None:
    for line in _LOADING:
        _refused(machine, line, "libbpf", "apt-get install libbpf1", wrapper=_WITHOUT_LIBBPF)
    _works(machine)


def test_what_is_loaded_needs_no_libbpf(loaded: Machine) -> None:
    table = _table(loaded)
    for line in (*_CHANGING, *_READING):
        ran = loaded.run(*command(line, _WITHOUT_LIBBPF), stdin="")
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        if line in _CHANGING:
            _restore(loaded, table)


@pytest.mark.parametrize(
    "bounding",
    ["-sys_admin", "-sys_admin,-bpf", "-sys_admin,-net_admin", "-all"],
)
def test_root_without_capabilities(machine: Machine, bounding: str) -> None:
    """In a container, say; the BPF file system cannot be mounted there."""
    for line in _LOADING:
        _refused(machine, line, "capabilit", wrapper=("setpriv", "--bounding-set", bounding))
    _works(machine)


def test_pins_that_would_end_with_the_command_are_not_made(machine: Machine) -> None:
    """As under ``ip netns exec``, in a mount namespace of its own, with fewer rights than those outside."""
    wrapper = ("unshare", "--mount", "setpriv", "--bounding-set", "-net_raw,-sys_ptrace")
    for line in _LOADING:
        _refused(machine, line, "mount -t bpf -o mode=0700 bpf /run/xlvs/bpf", wrapper=wrapper)
    machine.type("mkdir -p /run/xlvs/bpf && mount -t bpf -o mode=0700 bpf /run/xlvs/bpf")
    ran = machine.run(*command(_ADD, wrapper))
    assert ran.returncode == 0, ran.stderr
    assert "192.0.2.100:80" in _table(machine)


def test_run_is_read_only(machine: Machine) -> None:
    machine.type("mount -o remount,ro /run")
    for line in _LOADING:
        _refused(machine, line, "/run must be writable")
    machine.type("mount -o remount,rw /run")
    _works(machine)


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_kernel_without_ebpf(machine: Machine, error: str) -> None:
    wanted = "eBPF" if error == "ENOSYS" else "capabilities"
    for line in _LOADING:
        _refused(machine, line, wanted, wrapper=failing_bpf(error))
    _works(machine)


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_table_that_cannot_be_reached_is_left_in_peace(loaded: Machine, error: str) -> None:
    table = _table(loaded)
    for line in (*_CHANGING, *_READING):
        if line != "xlvs detach eth0":  # which can be done without bpf(2)
            _refused(loaded, line, wrapper=failing_bpf(error))
            assert _table(loaded) == table, line


def test_the_kernel_has_no_memory_for_maps(machine: Machine) -> None:
    for line in _LOADING:
        _refused(machine, line, "not enough memory", "--connections", wrapper=failing_bpf("ENOMEM", "map"))
    _works(machine)


def test_a_table_larger_than_memory_is_not_even_tried(machine: Machine) -> None:
    """The kernel would end other processes before it gives up."""
    machine.type("echo 'MemAvailable: 20000 kB' >/run/meminfo && mount --bind /run/meminfo /proc/meminfo")
    for line in _LOADING:
        _refused(machine, line, "19 MiB are available", "--connections")
    _works(machine, "xlvs attach --connections 1000 --services 100 --destinations 1000")


def test_the_object_is_missing_or_broken(machine: Machine) -> None:
    for hide in (f"mount -t tmpfs tmpfs {OBJECT.rpartition('/')[0]}", f"mount --bind /dev/null {OBJECT}"):
        machine.type(hide)
        for line in _LOADING:
            _refused(machine, line, "director.bpf.o", "make build")
        machine.type(f"umount {hide.split()[-1]}")
    _works(machine)


def test_a_machine_of_an_unknown_name(machine: Machine) -> None:
    for line in _LOADING:
        _refused(machine, line, "i686", "x86_64", wrapper=("setarch", "i686"))
    _works(machine)


_WRONG = (
    ("xlvs attach nosuch0", "there is no interface nosuch0"),
    ("xlvs attach eth0 nosuch0", "there is no interface nosuch0"),
    ("xlvs attach lo", "loopback"),
    ("xlvs attach eth0 lo", "loopback"),
    ("xlvs attach tun0", "not an Ethernet interface"),
    ("xlvs attach port0", "attach to br0"),
    ("xlvs attach --mode fast eth0", "xdp-generic"),
    ("xlvs attach --connections 0", "number from 1"),
    ("xlvs attach --connections 10x", "number from 1"),
    ("xlvs attach --services", "expected one argument"),
    ("xlvs detach nosuch0", "nosuch0"),
    ("xlvs status eth0", "unrecognized"),
    ("xlvs attach -- eth0", "nothing is expected"),
)


@pytest.mark.parametrize("is_loaded", [False, True], ids=["unloaded", "loaded"])
def test_wrong_arguments(machine: Machine, is_loaded: bool) -> None:
    machine.type(
        "ip tuntap add tun0 mode tun; ip link set tun0 up; ip link add br0 type bridge; ip link set br0 up\n"
        "ip link set far name port0; ip link set port0 master br0 up"
    )
    if is_loaded:
        machine.type(" ".join(command("xlvs attach br0")))
    for line, wanted in _WRONG:
        _refused(machine, line, wanted)
