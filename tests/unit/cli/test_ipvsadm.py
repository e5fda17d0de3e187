# SPDX-License-Identifier: GPL-2.0-only
"""The command as a whole: how it opens a data plane, what it does when things go wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs.cli.ipvsadm import DEBUG_VARIABLE, run
from xlvs.datapath.memory import MemoryDatapath
from xlvs.errors import InvalidOperation, NotPermitted, NotSupported, TableFull, Unavailable, XlvsError
from xlvs.model import (
    IPV4,
    IPV6,
    MASQUERADE,
    PERSISTENCE_ENGINES,
    ROUTE,
    SCHEDULERS,
    SCTP,
    TCP,
    TUNNEL,
    UDP,
    Destination,
    Service,
    ServiceKey,
    Tunnel,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import ConnectionRow, ServiceRow

pytestmark = pytest.mark.unit

SOURCE = Path(__file__).parents[3] / "src"


class Director:
    """One table, the command lines that are run on it, and how it was opened for them."""

    def __init__(self, datapath: MemoryDatapath | None = None) -> None:
        self.datapath = datapath or MemoryDatapath()
        self.opened: list[tuple[bool, bool]] = []
        self.is_open = False
        self.failure: Exception | None = None

    @contextmanager
    def open(self, *, write: bool, load: bool, locked: bool = True) -> Iterator[MemoryDatapath]:  # noqa: ARG002
        self.opened.append((write, load))
        if self.failure:
            raise self.failure
        self.is_open = True
        try:
            yield self.datapath
        finally:
            self.is_open = False

    def run(self, line: str | list[str], stdin: str = "") -> tuple[str, str, int]:
        stdout, stderr = io.StringIO(), io.StringIO()
        arguments = line.split() if isinstance(line, str) else line
        status = run(arguments, io.StringIO(stdin), stdout, stderr, self.open)
        return stdout.getvalue(), stderr.getvalue(), status

    def set_up(self, *lines: str) -> None:
        for line in lines:
            assert self.run(line) == ("", "", 0)


@pytest.fixture
def director() -> Director:
    return Director()


# How the data plane is opened.


@pytest.mark.parametrize(
    ("line", "opened"),
    [
        ("-A -t 192.0.2.1:80", [(True, True)]),
        ("--set 1 2 3", [(True, True)]),
        ("-a -t 192.0.2.1:80 -r 10.0.0.1", [(True, False)]),
        ("-E -t 192.0.2.1:80", [(True, False)]),
        ("-d -t 192.0.2.1:80 -r 10.0.0.1", [(True, False)]),
        ("-C", [(True, False)]),
        ("-Z", [(True, False)]),
        ("", [(False, False)]),
        ("-Ln", [(False, False)]),
        ("-Lnc", [(False, False)]),
        ("-L --timeout", [(False, False)]),
        ("-Sn", [(False, False)]),
        ("-h", []),
        ("-v", []),
        ("-Ln extra", []),
        ("-A -t bad", []),
        ("-L --rate", [(False, False)]),
        ("-L --daemon", [(False, False)]),
        ("--stop-daemon master", [(False, False)]),
        ("--start-daemon master", []),
    ],
)
def test_opens_no_more_than_it_needs(director: Director, line: str, opened: list[tuple[bool, bool]]) -> None:
    director.run(line)
    assert director.opened == opened


@pytest.mark.parametrize(
    ("lines", "opened"),
    [
        ("-C\n-A -t 192.0.2.1:80\n-a -t 192.0.2.1:80 -r 10.0.0.1\n", [(True, True)]),
        ("-D -t 192.0.2.1:80\n-C\n", [(True, False)]),
        ("-Ln\n-Sn\n", [(False, False)]),
        ("", []),
        ("-h\n", []),
        ("-A -t bad\n-A -t 192.0.2.1:80\n", []),
    ],
)
def test_a_restore_opens_once(director: Director, lines: str, opened: list[tuple[bool, bool]]) -> None:
    director.run("-R", lines)
    assert director.opened == opened


def test_a_table_is_printed_when_the_lock_is_gone(director: Director) -> None:
    class Pager(io.StringIO):
        def write(self, text: str) -> int:
            assert not director.is_open
            return super().write(text)

    pager = Pager()
    assert run(["-Ln"], io.StringIO(), pager, io.StringIO(), director.open) == 0
    assert pager.getvalue().startswith("IP Virtual Server")


def test_connections_are_read_while_they_are_printed(director: Director) -> None:
    reads: list[bool] = []

    class Live(MemoryDatapath):
        def connection_rows(self) -> Iterator[list[ConnectionRow]]:
            reads.append(director.is_open)
            yield [(TCP, bytes(4), 1, bytes(4), 2, bytes(4), 3, "NONE", 1, 0, "")]
            reads.append(director.is_open)

    director.datapath = Live()
    assert director.run("-Lnc")[0].endswith(
        "TCP 00:01  NONE        0.0.0.0:1          0.0.0.0:2          0.0.0.0:3\n"
    )
    assert reads == [True, True]


# Refusals and failures.


def test_not_permitted(director: Director) -> None:
    director.failure = NotPermitted("xlvs needs root here.", "Try again with sudo.")
    assert director.run("-Ln") == (
        "",
        "Can't initialize ipvs: Permission denied (you must be root)\n"
        "xlvs needs root here.\nTry again with sudo.\n",
        2,
    )


def test_unavailable(director: Director) -> None:
    director.failure = Unavailable("bpffs cannot be mounted", "Mount it by hand.")
    expected = "Can't initialize ipvs: bpffs cannot be mounted\nMount it by hand.\n"
    assert director.run("-A -t 192.0.2.1:80") == ("", expected, 2)
    assert director.run("-R", "-A -t 192.0.2.1:80\n") == ("", expected, 2)


@pytest.mark.parametrize(
    ("error", "stderr", "status"),
    [
        (NotSupported("SCTP is not supported."), "SCTP is not supported.\n", 2),
        (TableFull("No room for a service.", "Delete some."), "No room for a service.\nDelete some.\n", 255),
        (
            InvalidOperation("ports differ", "Use port 80."),
            "Invalid operation.  Possibly wrong module version, address not unicast, ...\nUse port 80.\n",
            255,
        ),
        (OSError(12, "Cannot allocate memory"), "ipvsadm: Cannot allocate memory\n", 1),
        (OSError(2, "No such file", "/sys/x"), "ipvsadm: /sys/x: No such file\n", 1),
        (
            ValueError("odd\nthing"),
            "ipvsadm: unexpected error: ValueError: odd thing (set XLVS_DEBUG=1 to see where)\n",
            1,
        ),
    ],
)
def test_what_a_data_plane_raises(error: Exception, stderr: str, status: int) -> None:
    class Failing(MemoryDatapath):
        def add_service(self, service: Service) -> None:  # noqa: ARG002
            raise error

    assert Director(Failing()).run("-A -t 192.0.2.1:80") == ("", stderr, status)


def test_a_refused_command_leaves_the_data_plane_in_peace() -> None:
    """`open_datapath` must not take a refusal, or a full pipe, for a change cut short."""
    seen: list[BaseException] = []

    @contextmanager
    def watch(*, write: bool, load: bool, locked: bool = True) -> Iterator[MemoryDatapath]:  # noqa: ARG001
        try:
            yield MemoryDatapath()
        except BaseException as error:
            seen.append(error)
            raise

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    for arguments, stdin in ((["-D", "-f", "1"], ""), (["-R"], "-A -f 1\n-Ln\n-A -t bad\n"), (["-Lc"], "")):
        stderr = io.StringIO()
        assert run(arguments, io.StringIO(stdin), Full(), stderr, watch) != 0
        assert stderr.getvalue().count("\n") == 1
    assert seen == []


def test_debugging_shows_the_trace(monkeypatch: pytest.MonkeyPatch, director: Director) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    director.failure = ValueError("odd")
    with pytest.raises(ValueError, match="odd"):
        director.run("-Ln")


def test_an_interrupt_is_silent(director: Director) -> None:
    class Interrupted(MemoryDatapath):
        def table(self, counted: str = "") -> list[ServiceRow]:  # noqa: ARG002
            raise KeyboardInterrupt

    director.datapath = Interrupted()
    assert director.run("-Ln") == ("", "", 130)


def test_a_partly_unsupported_restore_fails(director: Director) -> None:
    stdout, stderr, status = director.run("-R", "-A -f 1\n--start-daemon master\n-A -f 2\n")
    assert (stdout, stderr.count("\n"), status) == ("", 1, 2)
    assert len(director.datapath.services()) == 2


def test_scheduler_flags_of_commas_do_not_crash(director: Director) -> None:
    # The one command line on which ipvsadm itself dies, by a null pointer.
    assert director.run("-A -t 192.0.2.1:80 -b ,") == ("", "invalid scheduler flag `,'\n", 2)


# Real processes: streams that fail.


def process(shell: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which ``xlvsadm`` is the command on a table of 10,000 services in memory.

    What it lists is more than a pipe holds, so a reader that goes away is always noticed.
    """
    code = (
        "import sys\n"
        "from contextlib import contextmanager\n"
        "import xlvs.datapath\n"
        "from xlvs.datapath.memory import MemoryDatapath\n"
        "from xlvs.model import *\n"
        "services = [ServiceEntry(Service(ServiceKey(2, 6, bytes(4), port))) for port in range(10000)]\n"
        "@contextmanager\n"
        "def opened(write, load, locked):\n"
        "    yield MemoryDatapath(services)\n"
        "xlvs.datapath.open_datapath = opened\n"
        "sys.argv[0] = '/usr/sbin/xlvsadm'\n"
        "from xlvs.cli.ipvsadm import main\n"
        "sys.exit(main())\n"
    )
    return subprocess.run(
        ["/bin/bash", "-c", f'xlvsadm() {{ "$PYTHON" -c "$CODE" "$@"; }}; {shell}'],
        env={**os.environ, "PYTHON": sys.executable, "CODE": code, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_reader_that_goes_away() -> None:
    done = process("xlvsadm -Ln | head -1; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("IP Virtual Server version 1.2.1 (size=4096)\n141\n", "")


@pytest.mark.parametrize("arguments", ["-Ln", "-v", "-h"])
def test_a_full_disk(arguments: str) -> None:
    done = process(f"xlvsadm {arguments} >/dev/full")
    assert done.stderr == "xlvsadm: cannot write to standard output: No space left on device\n"
    assert done.returncode == 1


def test_a_closed_output() -> None:
    done = process("xlvsadm -Ln >&-")
    assert done.stderr == "xlvsadm: cannot write to standard output: Bad file descriptor\n"
    assert done.returncode == 1


def test_closed_input_and_errors() -> None:
    assert process("xlvsadm -R <&-").returncode == 0
    assert process("xlvsadm -nL 2>&-").returncode == 255
    assert process("xlvsadm -nL 2>/dev/full").returncode == 255


def test_bytes_that_are_no_text() -> None:
    done = process(r"xlvsadm -L $'\xff\xfe' 2>&1 | od -An -tx1 -v | tr -d ' \n'")
    assert done.stdout == b"unexpected argument \xff\xfe\n".hex()


def test_called_by_its_own_name() -> None:
    assert process("xlvsadm -h").stdout.splitlines()[2].startswith("  xlvsadm -A|E virtual-service")
    assert process("xlvsadm -n").stderr == ("Try `xlvsadm -h' or 'xlvsadm --help' for more information.\n")


def test_help_goes_on_with_examples_for_whoever_asks() -> None:
    plain, extended = (process(f"xlvsadm {words}").stdout for words in ("-h -C", "--help --extended"))
    assert extended.startswith(plain)
    assert "\n  xlvsadm -A -t 192.0.2.100:80 -s wlc\n" in extended.removeprefix(plain)
    assert plain == process("xlvsadm --help").stdout


# Properties.

ADDRESS4 = st.integers(0x0A000001, 0x0A0000FF).map(lambda number: number.to_bytes(4, "big"))
ADDRESS6 = st.integers(1, 255).map(lambda number: b"\x20\x01\x0d\xb8" + number.to_bytes(12, "big"))


@st.composite
def destinations(draw: st.DrawFn, key: ServiceKey) -> Destination:
    """A real server that both the kernel accepts and -S can write: no thresholds."""
    method = draw(st.sampled_from([ROUTE, MASQUERADE, TUNNEL]))
    own = ADDRESS4 if key.family == IPV4 else ADDRESS6
    address = draw(ADDRESS4 | ADDRESS6 if method == TUNNEL else own)
    free_port = key.fwmark or method == MASQUERADE
    port = draw(st.integers(0, 65535)) if free_port else key.port
    tunnel = None
    if method == TUNNEL:
        kind = draw(st.sampled_from(["ipip", "gue", "gre"]))
        checksums = {"ipip": ["nocsum"], "gue": ["nocsum", "csum", "remcsum"], "gre": ["nocsum", "csum"]}
        tunnel_port = draw(st.integers(1, 65535)) if kind == "gue" else 0
        tunnel = Tunnel(kind, tunnel_port, draw(st.sampled_from(checksums[kind])))
    return Destination(address, port, method, draw(st.integers(0, 2**31 - 1)), tunnel=tunnel)


@st.composite
def services(draw: st.DrawFn) -> Service:
    family = draw(st.sampled_from([IPV4, IPV6]))
    persistence = draw(st.just(0) | st.integers(1, 2678400))
    if draw(st.booleans()):
        # -S writes marks from 2^31 on as negative numbers, as ipvsadm does.
        key = ServiceKey(family, fwmark=draw(st.integers(1, 2**31 - 1)))
    else:
        address = draw(ADDRESS4 if family == IPV4 else ADDRESS6)
        port = draw(st.integers(0 if persistence else 1, 65535))
        key = ServiceKey(family, draw(st.sampled_from([TCP, UDP, SCTP])), address, port)
    scheduler = draw(st.sampled_from(SCHEDULERS))
    longest = 32 if family == IPV4 else 128
    return Service(
        key,
        scheduler,
        draw(st.integers(0, 3 if scheduler in ("sh", "mh") else 7)),
        persistence,
        draw(st.integers(1, longest)) if persistence else longest,
        draw(st.sampled_from(["", *PERSISTENCE_ENGINES])),
        draw(st.booleans()) if key.fwmark or key.protocol == UDP else False,
    )


@given(st.data())
def test_what_is_saved_can_be_restored(data: st.DataObject) -> None:
    original = MemoryDatapath()
    for service in data.draw(st.lists(services(), max_size=6)):
        try:
            original.add_service(service)
            for destination in data.draw(st.lists(destinations(service.key), max_size=4)):
                original.add_destination(service.key, destination)
        except XlvsError:
            continue  # twice the same
    saved, stderr, status = Director(original).run("-Sn")
    assert (stderr, status) == ("", 0)

    copy = Director()
    assert copy.run("-R", saved) == ("", "", 0)
    assert copy.run("-Sn") == (saved, "", 0)
    assert _by_key(copy.datapath) == _by_key(original)


def _by_key(datapath: MemoryDatapath) -> dict[ServiceKey, tuple[Service, frozenset[Destination]]]:
    return {
        entry.service.key: (entry.service, frozenset(one.destination for one in entry.destinations))
        for entry in datapath.services()
    }


KNOWN_WORDS = """
-A -E -D -C -a -e -d -L -l -Z -S -R -h -v -t -u -f -s -p -M -r -m -i -g -w -x -y -n -c -X -6 -o -b
--set --start-daemon --stop-daemon --sctp-service --stats --rate --thresholds --persistent-conn
--nosort --sort --pe --mcast-group --mcast-port --mcast-ttl --sync-maxlen --syncid --tun-info
--tun-type --tun-port --tun-csum --timeout --daemon master backup -- - 192.0.2.1:80 [::1]:80 1 80
10.0.0.1 rr wlc sh gue 300 255.255.255.0 -Ln -At -ar=10.0.0.1 --list --numeric
"""
WORDS = st.one_of(
    st.sampled_from(KNOWN_WORDS.split()),
    st.text(st.characters(exclude_characters="\0"), max_size=6),
    st.text(alphabet="-=Aatrwnp6x1.:[] ", max_size=6),
)


@settings(max_examples=500)
@given(st.lists(st.lists(WORDS, max_size=8), max_size=4), st.booleans())
def test_no_command_line_breaks_it(lines: list[list[str]], restore: bool) -> None:
    director = Director()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEBUG_VARIABLE, "1")  # what is unexpected comes out as it is
        if restore:
            stdin = "\n".join(" ".join(words) for words in lines)
            assert director.run("-R", stdin)[2] in (0, 1, 2, 255)
            return
        for words in lines:
            stdout, stderr, status = director.run(words)
            assert status in (0, 1, 2, 255)
            assert status == 0 or (stderr and not stdout)
            assert status != 0 or not stderr


@pytest.mark.parametrize(
    ("line", "complaint", "code"),
    [
        # As ipvsadm 1.31 answered; docs/differences.md names them.
        ("-e -t 192.0.2.1:80 -r 10.0.0.1 -W 5", "-W: unknown option", 255),
        ("-t 192.0.2.1:80 --set 600", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 255),
        ("-r 10.0.0.1 --list-servers", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 255),
    ],
)
def test_commands_of_tutorials_that_no_ipvsadm_has(line: str, complaint: str, code: int) -> None:
    assert Director().run(line) == ("", f"{complaint}\n", code)
